"""Rotations between cameras from the head that they see."""

from __future__ import annotations

import pytest
import torch
from data_folders import DATA, needs
from torch import Tensor

import neuface
from neuface.evaluation.relative_rotations import relative_rotations, robust_mean_rotation
from neuface.evaluation.world import world_result
from neuface.geometry.local_view import local_view
from neuface.geometry.rotations import nearest_rotation, rotmat_to_rotvec, rotvec_to_rotmat
from neuface.head.model import HeadModel
from neuface.io.cameras import read_cameras
from neuface.structs import Prediction, WeakPerspective
from neuface.synthetic.calibrated_clips import make_calibrated_clip
from neuface.synthetic.clips import make_talking_clip
from neuface.synthetic.people import demo_identity

SESSION = DATA / "caliscope_4view" / "calibration_session"
TIME, YAW_DEG, NAMES = 6, (-30.0, 10.0, 35.0), ("left", "middle", "right")


def angle_deg(first: Tensor, second: Tensor) -> float:
    return float(rotmat_to_rotvec(first.double().mT @ second.double()).norm().rad2deg())


def test_perspective_cameras_are_turned_as_they_were_built(open_head: HeadModel) -> None:
    clip = make_calibrated_clip(
        open_head, demo_identity(), view_yaw_deg=YAW_DEG, time=TIME, size_px=32, noise_px=0.0
    )
    found = relative_rotations(clip.truth, torch.ones(3, TIME, dtype=torch.bool), NAMES)
    assert [(item.first, item.second) for item in found] == [
        ("left", "middle"),
        ("left", "right"),
        ("middle", "right"),
    ]
    for item, (a, b) in zip(found, ((0, 1), (0, 2), (1, 2)), strict=True):
        expected = clip.cameras.rotation[b] @ clip.cameras.rotation[a].mT
        assert angle_deg(rotvec_to_rotmat(torch.tensor(item.rotvec)), expected) < 0.02
        assert item.angle_deg == pytest.approx(YAW_DEG[b] - YAW_DEG[a], abs=0.02)
        assert item.spread_deg == pytest.approx(0.0, abs=0.02)
        assert item.frames == TIME


def test_frames_that_are_far_off_hardly_count() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = 0.02 * torch.randn(40, 3, generator=generator, dtype=torch.float64)
    noise[:8] += torch.tensor([0.0, 0.9, 0.3]).double()
    truth = rotvec_to_rotmat(torch.tensor([0.1, 0.6, -0.2]).double())
    rotations = rotvec_to_rotmat(noise) @ truth
    assert angle_deg(nearest_rotation(rotations.sum(0)), truth) > 5.0
    assert angle_deg(robust_mean_rotation(rotations), truth) < 1.0


def test_views_that_never_saw_the_face_together_have_no_rotation(open_head: HeadModel) -> None:
    params = open_head.neutral(2, 4)
    camera = WeakPerspective(scale=torch.ones(2, 4), offset=torch.zeros(2, 4, 2))
    valid = torch.tensor([[True, True, False, False], [False, False, True, True]])
    assert relative_rotations(Prediction(params=params, camera=camera), valid, ("a", "b")) == ()


@pytest.mark.slow
def test_a_fit_of_rendered_views_finds_how_the_cameras_are_turned(open_head: HeadModel) -> None:
    clip = make_talking_clip(
        open_head, demo_identity(), view_yaw_deg=YAW_DEG, time=TIME, size_px=160, noise_px=0.5
    )
    config = neuface.FitConfig.best({"m_step.stop.max_passes": 40})
    result = neuface.optimize(
        clip.frames.numpy(), landmarks=clip.landmarks_px.numpy(), config=config, progress=False
    )
    for item, (a, b) in zip(result.relative_rotations, ((0, 1), (0, 2), (1, 2)), strict=True):
        # Head axes have y up, those of the camera have y down.
        turn = rotvec_to_rotmat(torch.tensor([0.0, YAW_DEG[a] - YAW_DEG[b], 0.0]).deg2rad())
        assert angle_deg(rotvec_to_rotmat(torch.tensor(item.rotvec)), turn) < 3.0
    assert result.report()["relative_rotations"][0]["first"] == "view0"


@pytest.mark.slow
@needs(SESSION)
def test_the_real_cameras_are_turned_as_their_calibration_says() -> None:
    """The encoder alone, without a fit; lines of sight come from the calibration, as the cameras are not given."""
    clip = neuface.read_clip(
        [SESSION / f"cam_{view}.mp4" for view in range(4)], SESSION / "mediapipe_landmarks.npz", max_frames=8
    )
    model = neuface.load_model("open")
    config = neuface.FitConfig.best({"m_step.stop.max_passes": 15})
    result = neuface.optimize(clip, model=model, config=config, progress=False)
    cameras = read_cameras(SESSION / "cameras.json").cameras.to(torch.float32)
    world = world_result(model.head, result.prediction, result.landmarks, cameras, metric=True)
    place = world.vertices(model.head).mean((0, 1))
    jacobian = cameras.projection_jacobian(place.expand(4, 1, 3))[:, 0]
    turned = local_view(torch.zeros(4, 2), jacobian).rotation
    pairs = [(a, b) for a in range(4) for b in range(a + 1, 4)]
    errors = [
        angle_deg(rotvec_to_rotmat(torch.tensor(item.rotvec)), turned[b] @ turned[a].mT)
        for item, (a, b) in zip(result.relative_rotations, pairs, strict=True)
    ]
    assert max(errors) < 15.0
    assert sum(errors) / len(errors) < 8.0
