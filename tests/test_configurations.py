"""`optimize` with other configurations than the default, and several clips of one person."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_problems import PASSES, only

import neuface
from neuface import Clip, HeadModel, InputError
from neuface.errors import InputWarning
from neuface.fitting.config import PRESETS, Adam, DirectFit, FineTune, PinholeCamera, Preset, Stop
from neuface.fitting.objective import PhotometricTerm
from neuface.io.cameras import CameraSet
from neuface.results.fit_result import head_of
from neuface.synthetic.calibrated_clips import make_calibrated_clip
from neuface.synthetic.clips import HEAD_SCALE, make_talking_clip


@pytest.fixture(scope="module")
def short_clip(open_head: HeadModel) -> Clip:
    clip = make_talking_clip(
        open_head, torch.zeros(open_head.num_identity), view_yaw_deg=(-20.0, 20.0), time=5, size_px=96, seed=3
    )
    return neuface.read_clip(clip.frames, clip.landmarks_px, fps=clip.fps)


@pytest.mark.slow
def test_the_photometric_term_is_part_of_the_objective(short_clip: Clip) -> None:
    """Alone, it is what the steps lower."""
    config = neuface.FitConfig(
        objective=only(photometric=PhotometricTerm(weight=1.0)),
        m_step=FineTune(adam=Adam(learning_rate=3e-4, warm_up_steps=3), stop=Stop(max_passes=12)),
    )
    history = neuface.optimize(short_clip, config=config, progress=False).history
    assert history["photometric"] == pytest.approx(history["total"])
    assert min(history["photometric"]) < 0.97 * history["photometric"][0]
    without = neuface.optimize(
        short_clip, config=neuface.FitConfig.best({"m_step.stop.max_passes": 1}), progress=False
    )
    assert "photometric" not in without.history


def test_direct_fitting_is_a_configuration(short_clip: Clip) -> None:
    """It begins with the encoder's answer, moves every image for itself, and says so in the result."""
    direct = neuface.optimize(
        short_clip,
        config=neuface.FitConfig.direct({PASSES: 30, "m_step.coarse_passes": 10}),
        progress=False,
    )
    neural = neuface.optimize(short_clip, config=neuface.FitConfig.paper({PASSES: 1}), progress=False)
    assert torch.equal(direct.initial.params.identity, neural.initial.params.identity)
    report = direct.report()
    assert report["after"]["nme_percent"] < 0.8 * report["before"]["nme_percent"]
    assert isinstance(direct.config.m_step, DirectFit)
    assert len(direct.history["total"]) == len(direct.identity_spread) == 1 + 30


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_fits_every_frame(short_clip: Clip, preset: Preset) -> None:
    coarse = {"m_step.coarse_passes": 1} if preset == "direct" else {}
    config = PRESETS[preset].changed({"m_step.stop.max_passes": 3, **coarse})
    result = neuface.optimize(short_clip, config=config, progress=False)
    assert bool(result.vertices().isfinite().all())
    assert tuple(result.params.identity.shape[:2]) == (2, 5)
    moved = (result.params.root_rotvec - result.initial.params.root_rotvec).abs().amax(-1)
    assert float(moved.min()) > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("preset", ["best", "neural"])
def test_a_fit_on_cuda_equals_one_on_the_cpu(
    short_clip: Clip, monkeypatch: pytest.MonkeyPatch, preset: Preset
) -> None:
    """But for single precision: Adam's first steps depend on the signs of gradients, which can be close to zero."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    config = PRESETS[preset].changed({PASSES: 3})
    on_cpu, on_cuda = (
        neuface.optimize(short_clip, config=config, device=device, progress=False)
        for device in ("cpu", "cuda")
    )
    assert on_cuda.vertices().device.type == "cpu"
    assert on_cuda.history["total"] == pytest.approx(on_cpu.history["total"], rel=1e-2)
    # Metres; the fit itself moves vertices by millimetres.
    assert float((on_cuda.vertices() - on_cpu.vertices()).abs().max()) < 2e-4
    assert float((on_cpu.vertices() - head_of(on_cpu).vertices(on_cpu.initial.params)).abs().max()) > 1e-3


# --- Several clips of one person


@pytest.mark.parametrize("preset", ["best", "neural"])
def test_clips_of_one_person_share_their_identity(
    short_clip: Clip, open_head: HeadModel, preset: Preset
) -> None:
    other = make_talking_clip(
        open_head, torch.zeros(open_head.num_identity), view_yaw_deg=(-10.0, 30.0), time=3, size_px=96, seed=4
    )
    second = neuface.read_clip(other.frames, other.landmarks_px)
    config = PRESETS[preset].changed({PASSES: 3})
    first, last = neuface.optimize_person([short_clip, second], config=config, progress=False)
    assert (first.params.identity.shape[:2], last.params.identity.shape[:2]) == ((2, 5), (2, 3))
    torch.testing.assert_close(first.params.identity[0, 0], last.params.identity[1, 2])
    assert first.landmarks.points_px.shape[1] == 5
    assert last.landmarks.points_px.shape[1] == 3
    assert first.fps == short_clip.recording.fps
    alone = neuface.optimize(short_clip, config=config, progress=False)
    assert not torch.equal(alone.params.identity[0, 0], first.params.identity[0, 0])
    torch.testing.assert_close(alone.initial.params.identity, first.initial.params.identity)


def test_clips_that_cannot_be_fitted_together_are_refused(short_clip: Clip) -> None:
    with pytest.raises(InputError, match="no clips were given"):
        neuface.optimize_person([], progress=False)
    single = neuface.read_clip(
        torch.stack([short_clip.recording.frames.read(0, t, t + 1)[0] for t in range(5)]),
        short_clip.track.points_px[:1],
    )
    with pytest.raises(InputError, match="the same number of cameras, got 1, 2"):
        neuface.optimize_person([short_clip, single], progress=False)


def test_near_faces_are_fitted_with_perspective_cameras(open_head: HeadModel, tmp_path: Path) -> None:
    clip = make_talking_clip(
        open_head,
        torch.zeros(open_head.num_identity),
        view_yaw_deg=(-20.0, 20.0),
        time=4,
        size_px=96,
        distance_m=0.5,
        seed=3,
    )
    read = neuface.read_clip(clip.frames, clip.landmarks_px, fps=clip.fps)
    config = neuface.FitConfig(camera=PinholeCamera(focal_px=HEAD_SCALE * 0.5 * 48)).changed({PASSES: 2})
    result = neuface.optimize(read, config=config, progress=False)
    assert [(length.px, length.source) for length in result.focal] == [(156.0, "given")] * 2
    cameras = result.cameras()
    assert torch.equal(cameras.K[:, 0, 0, 0], torch.tensor([156.0, 156.0]))
    torch.testing.assert_close(
        cameras.K[:, 0, :2, 2], torch.tensor([[47.5, 47.5]]).expand(2, -1), atol=1e-3, rtol=0
    )
    assert bool((cameras.translation[..., 2] - 0.5).abs().max() < 0.1)
    assert torch.equal(result.project(), result.camera.project(result.vertices()))
    result.overlay(tmp_path / "overlay.mp4")
    free = neuface.optimize(
        read,
        config=neuface.FitConfig.direct(
            {PASSES: 3, "m_step.coarse_passes": 1, "camera": PinholeCamera(focal_px=156.0)}
        ),
        progress=False,
    )
    assert free.report()["focal"][0] == {"px": 156.0, "source": "given", "relative_std": None}


def test_a_focal_length_that_nobody_states_is_estimated(open_head: HeadModel) -> None:
    clip = make_talking_clip(
        open_head, torch.zeros(open_head.num_identity), view_yaw_deg=(0.0,), time=6, size_px=96, seed=3
    )
    read = neuface.read_clip(clip.frames, clip.landmarks_px, fps=clip.fps)
    config = neuface.FitConfig(camera=PinholeCamera()).changed({PASSES: 1})
    (length,) = neuface.optimize(read, config=config, progress=False).focal
    assert length.source == "landmarks"
    assert length.relative_std is not None
    # The head was rendered without perspective, so that no short focal length fits.
    assert length.px > 96


@pytest.mark.parametrize("focal_px", [3.0, 1e12])
def test_an_impossible_focal_length_is_refused(short_clip: Clip, focal_px: float) -> None:
    config = neuface.FitConfig(camera=PinholeCamera(focal_px=focal_px))
    with pytest.raises(InputError, match="focal length: expected 10 to 9600 pixels for the frames of view0"):
        neuface.optimize(short_clip, config=config, progress=False)


def test_a_calibration_of_other_cameras_is_doubted(open_head: HeadModel) -> None:
    clip = make_calibrated_clip(open_head, torch.zeros(open_head.num_identity), time=3, size_px=96)
    views = len(clip.frames)
    names = [f"cam_{view}" for view in range(views)]

    def fitted(order: list[int]) -> neuface.FitResult:
        rig = CameraSet(
            cameras=clip.cameras[order].to(torch.float64),
            names=tuple(names),
            sizes_hw=((96, 96),) * views,
            metric=True,
        )
        read = neuface.read_clip(clip.frames, clip.landmarks_px, cameras=rig, names=names)
        return neuface.optimize(read, config=neuface.FitConfig.best({PASSES: 1}), progress=False)

    assert not any("calibration" in remark for remark in fitted([*range(views)]).remarks)
    with pytest.warns(InputWarning, match="differ by .* degrees in the world"):
        wrong = fitted([*reversed(range(views))])
    assert any("Is it that of these cameras (cam_0" in remark for remark in wrong.remarks)
