"""`optimize` from end to end on small rendered clips, the files of a run, and the errors for bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import neuface
from neuface.cli import table
from neuface.fitting.config import PRESETS, Preset
from neuface.geometry.rotations import rotation_angle_rad
from neuface.run_folder import weighted_history, write_outputs
from neuface.synthetic.clips import SyntheticClip, make_talking_clip
from neuface.synthetic.people import demo_identity

PASSES = {"best": 3, "neural": 30}
"""So few that no fit has converged; a joint solution needs far fewer than gradient steps."""
THREE_PASSES = {"m_step.stop.max_passes": 3}
SHORTEST = neuface.FitConfig.best(THREE_PASSES)
"""For what holds after any number of passes."""


@pytest.fixture(scope="module")
def clip() -> SyntheticClip:
    head = neuface.load_head("open")
    return make_talking_clip(
        head, demo_identity(), view_yaw_deg=(-25.0, 15.0), time=6, size_px=160, noise_px=0.3
    )


@pytest.fixture(scope="module", params=list(PASSES))
def result(clip: SyntheticClip, request: pytest.FixtureRequest) -> neuface.FitResult:
    landmarks = clip.landmarks_px.numpy().copy()
    landmarks[0, 2] = np.nan
    config = PRESETS[request.param].changed({"m_step.stop.max_passes": PASSES[request.param]})
    return neuface.optimize(clip.frames.numpy(), landmarks=landmarks, config=config, progress=False)


def test_landmarks_are_met_better_than_by_the_encoder(result: neuface.FitResult) -> None:
    report = result.report()
    assert report["after"]["nme_percent"] < 0.8 * report["before"]["nme_percent"]
    passes = result.config.m_step.stop.max_passes
    assert report["passes"] == passes
    assert result.outcome == neuface.Outcome.PASS_LIMIT
    assert report["outcome"] == {"name": "PASS_LIMIT", "sentence": neuface.Outcome.PASS_LIMIT.value}
    # One value before the first pass and one after each.
    assert {len(values) for values in result.history.values()} == {passes + 1}


def test_a_frame_without_landmarks_is_carried_through_and_marked(result: neuface.FitResult) -> None:
    assert (result.status == neuface.Status.INTERPOLATED).nonzero().tolist() == [[0, 2]]
    assert result.report()["failed"] == [
        {
            "view": "view0",
            "frame": 2,
            "seconds": 0.08,
            "quality": pytest.approx(0.45 * float(result.quality.score[0, [1, 3]].min()), abs=1e-3),
            "status": "INTERPOLATED",
            "sentence": neuface.Status.INTERPOLATED.sentence,
        }
    ]
    assert bool(torch.isfinite(result.vertices()).all())
    # The temporal term smooths, so its head rotates to where its neighbours' heads are.
    pose = result.params.root_rotvec[0]
    between = 0.5 * (pose[1] + pose[3])
    before = rotation_angle_rad(result.initial.params.root_rotvec[0, 2], between)
    assert float(rotation_angle_rad(pose[2], between)) < 0.5 * float(before)


def test_same_seed_same_result(clip: SyntheticClip) -> None:
    def fit(seed: int) -> torch.Tensor:
        config = neuface.FitConfig.neural({**THREE_PASSES, "seed": seed, "m_step.batches.size": 5})
        found = neuface.optimize(
            clip.frames.numpy(), landmarks=clip.landmarks_px.numpy(), config=config, progress=False
        )
        return found.params.identity

    first = fit(1)
    assert torch.equal(first, fit(1))
    assert not torch.equal(first, fit(2))


@pytest.mark.parametrize("preset", ["best", "neural"])
def test_the_pretrained_encoder_is_left_untouched(clip: SyntheticClip, preset: Preset) -> None:
    config = PRESETS[preset].changed(THREE_PASSES)
    model = neuface.load_model("open")
    before = {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}
    neuface.optimize(
        clip.frames.numpy(), landmarks=clip.landmarks_px.numpy(), model=model, config=config, progress=False
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.encoder.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.encoder.parameters())


@pytest.mark.parametrize("preset", ["best", "neural"])
def test_views_of_different_size_and_one_path_for_one_or_many(clip: SyntheticClip, preset: Preset) -> None:
    config = PRESETS[preset].changed(THREE_PASSES)
    small = clip.frames[1][:, 10:150, 10:150].numpy()
    landmarks = [clip.landmarks_px[0].numpy(), clip.landmarks_px[1].numpy() - 10]
    several = neuface.optimize(
        [clip.frames[0].numpy(), small], landmarks=landmarks, config=config, progress=False
    )
    assert several.status.shape == (2, 6)
    assert ("multiview" in several.history) == (preset == "neural")
    single = neuface.optimize(clip.frames[0].numpy(), landmarks=landmarks[0], config=config, progress=False)
    assert single.status.shape == (1, 6)
    assert "cvd_mm" not in single.report()["after"]
    assert "multiview" not in single.history


def test_identity_is_stored_once_where_the_fit_shares_it(
    clip: SyntheticClip, result: neuface.FitResult
) -> None:
    assert result.identity.shape == (100,)
    assert torch.equal(result.params.identity, result.identity.expand(2, 6, 100))
    config = neuface.FitConfig.paper({"m_step.stop.max_passes": 1})
    per_image = neuface.optimize(
        clip.frames[:, :2].numpy(), landmarks=clip.landmarks_px[:, :2].numpy(), config=config, progress=False
    )
    assert per_image.identity.shape == (2, 2, 100)
    assert not torch.equal(per_image.identity[0, 0], per_image.identity[1, 1])


def test_vertices_project_into_the_frame(clip: SyntheticClip, result: neuface.FitResult) -> None:
    """The cameras are those of the frames: the fitted landmarks lie near the true ones there."""
    points = neuface.load_head("open").landmarks(result.params, "ibug68")
    error = torch.linalg.vector_norm(result.camera.project(points) - clip.landmarks_px, dim=-1)
    assert float(error.median()) < 4


def test_a_run_writes_four_files_with_the_figures_of_the_report(
    result: neuface.FitResult, clip: SyntheticClip, tmp_path: Path
) -> None:
    report = write_outputs(result, tmp_path / "run", truth=clip.truth, progress=False)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "result.npz", "report.json", "loss.png", "overlay.mp4",
    }  # fmt: skip
    assert json.loads((tmp_path / "run" / "report.json").read_text()) == report
    for stage in ("before", "after"):
        assert {
            "nme_percent",
            "nme51_percent",
            "msi3d_landmarks",
            "msi3d_vertices",
            "cvd_mm",
            "mpve_mm",
        } == set(report[stage])
    assert {"seconds", "frames", "views", "failed_frames"} <= set(report)
    assert "encoder alone" in table(report)


def test_poor_fits_are_marked(clip: SyntheticClip) -> None:
    landmarks = clip.landmarks_px.numpy().copy()
    landmarks[0, 1] = landmarks[0, 1][::-1]
    found = neuface.optimize(clip.frames.numpy(), landmarks=landmarks, config=SHORTEST, progress=False)
    assert (found.status != neuface.Status.FITTED).nonzero().tolist() == [[0, 1]]
    assert found.status[0, 1] == neuface.Status.POOR
    assert float(found.quality.residual[0, 1]) < 0.1


@pytest.mark.parametrize("faces", ["most present", "all"])
def test_a_clip_without_any_face_gives_a_result_with_nothing_to_fit(
    clip: SyntheticClip, tmp_path: Path, faces: Any
) -> None:
    nothing = np.full_like(clip.landmarks_px.numpy(), np.nan)
    found = neuface.optimize(clip.frames.numpy(), landmarks=nothing, faces=faces, progress=False)
    result = found if isinstance(found, neuface.FitResult) else found[0]
    assert result.outcome is neuface.Outcome.NOTHING_TO_FIT
    assert (result.status == neuface.Status.NO_FACE).all()
    assert not result.quality.score.any()
    report = write_outputs(result, tmp_path, progress=False)
    assert "No frame has a face" in table(report)
    assert report["status"]["NO_FACE"] == result.status.numel()
    again = neuface.FitResult.load(tmp_path / "result.npz")
    assert torch.equal(again.params.root_rotvec, result.params.root_rotvec)
    assert bool(again.vertices().isfinite().all())
    assert (tmp_path / "overlay.mp4").stat().st_size > 0


def test_each_of_two_people_has_a_result(clip: SyntheticClip, tmp_path: Path) -> None:
    one = clip.landmarks_px[1].numpy()
    both = np.stack((one, one + np.array((400.0, 0.0))), 1)
    both[:2, 1] = np.nan
    frames = np.tile(clip.frames[1].numpy(), (1, 1, 4, 1))
    first, second = neuface.optimize(frames, landmarks=both, faces="all", config=SHORTEST, progress=False)
    assert (first.selection.people, first.selection.number, second.selection.number) == (2, 0, 1)
    assert (second.status[0, :2] == neuface.Status.ANOTHER_PERSON).all()
    assert second.report()["people"]["found"] == 2
    alone = neuface.optimize(frames, landmarks=both, faces=1, config=SHORTEST, progress=False)
    assert torch.equal(alone.landmarks.points_px, second.landmarks.points_px)


def _landmarks(clip: SyntheticClip) -> np.ndarray:
    return clip.landmarks_px.numpy()


def test_unusable_frames_are_refused(clip: SyntheticClip) -> None:
    frames = clip.frames.numpy()
    cases = [
        (frames.astype(np.float32) * 2, "0 to 255"),
        (frames[..., 0], "channel|shape|expected"),
        (np.concatenate((frames, frames[..., :1]), axis=-1), "not opaque"),
        (frames[:, :0], "frame"),
        ([frames[0], frames[1][:4]], "length|frames"),
    ]
    for bad, message in cases:
        with pytest.raises(neuface.InputError, match=message):
            neuface.optimize(bad, landmarks=_landmarks(clip), progress=False)


def test_unusable_landmarks_are_refused(clip: SyntheticClip) -> None:
    frames, good = clip.frames.numpy(), _landmarks(clip)
    cases = [
        (good[:, :4], "frames"),
        (good[:, :, :50], "68|478"),
        (good[:1], "view"),
    ]
    for bad, message in cases:
        with pytest.raises(neuface.InputError, match=message):
            neuface.optimize(frames, landmarks=bad, progress=False)


def test_unusable_options_are_refused(clip: SyntheticClip) -> None:
    with pytest.raises(neuface.InputError, match="unknown model 'flame'"):
        neuface.optimize(clip.frames.numpy(), landmarks=_landmarks(clip), model="flame")
    with pytest.raises(neuface.InputError, match="unknown device 'gpu'"):
        neuface.optimize(clip.frames.numpy(), landmarks=_landmarks(clip), device="gpu")
    with pytest.raises(neuface.InputError, match="device 'mps' cannot be used: expected 'cpu' or 'cuda'"):
        neuface.optimize(clip.frames.numpy(), landmarks=_landmarks(clip), device="mps")
    if not torch.cuda.is_available():
        with pytest.raises(neuface.InputError, match="CUDA"):
            neuface.optimize(clip.frames.numpy(), landmarks=_landmarks(clip), device="cuda")


def test_missing_and_unreadable_video(tmp_path: Path) -> None:
    with pytest.raises(neuface.InputError, match=r"nowhere\.mp4"):
        neuface.optimize(tmp_path / "nowhere.mp4")
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(neuface.InputError, match="empty"):
        neuface.optimize(tmp_path / "empty.mp4")
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    with pytest.raises(neuface.InputError, match=r"noise\.mp4"):
        neuface.optimize(tmp_path / "noise.mp4")


@pytest.fixture(scope="module")
def short_clip(clip: SyntheticClip) -> neuface.Clip:
    return neuface.read_clip(clip.frames, clip.landmarks_px, max_frames=4)


def test_a_clip_with_further_landmarks_is_refused(short_clip: neuface.Clip) -> None:
    with pytest.raises(neuface.InputError, match=r"a Clip has its own landmarks, max_frames already"):
        neuface.read_clip(short_clip, "nothere.npz", max_frames=3)
    with pytest.raises(neuface.InputError, match=r"a Clip has its own landmarks already"):
        neuface.optimize(short_clip, landmarks="nothere.npz")


@pytest.mark.parametrize("preset", ["best", "neural"])
def test_fits_where_gradients_are_switched_off(short_clip: neuface.Clip, preset: Preset) -> None:
    config = PRESETS[preset].changed({"m_step.stop.max_passes": 2})
    expected = neuface.optimize(short_clip, config=config, progress=False)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            found = neuface.optimize(short_clip, config=config, progress=False)
        assert torch.equal(found.params.expression, expected.params.expression)


def test_a_face_without_eye_corners_can_be_missed(short_clip: neuface.Clip) -> None:
    """Landmarks in reverse order are not a face, and a missing eye corner does not hide that."""
    landmarks = short_clip.track
    points, confidence = landmarks.points_px.clone(), landmarks.confidence.clone()
    points[1], confidence[1] = points[1].flip(1), confidence[1].flip(1)
    confidence[1, :, 36] = 0
    wrong = replace(short_clip, track=replace(landmarks, points_px=points, confidence=confidence))
    result = neuface.optimize(
        wrong, config=neuface.FitConfig.best({"m_step.stop.max_passes": 2}), progress=False
    )
    assert bool(result.image_nme_percent[1].isnan().all())
    assert (result.status[1] == neuface.Status.POOR).all()
    assert not (result.status[0] == neuface.Status.POOR).any()


def test_the_curves_that_are_drawn_add_up(result: neuface.FitResult) -> None:
    drawn = weighted_history(result)
    total = drawn.pop("total")
    assert total == result.history["total"]
    assert [sum(parts) for parts in zip(*drawn.values(), strict=True)] == pytest.approx(total, rel=1e-5)
