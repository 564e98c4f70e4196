"""The head in world coordinates: exact for a perfect fit before known cameras, and what the views disagree on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from neuface.evaluation.world import WorldResult, view_agreement, world_result
from neuface.geometry.perspective import PerspectiveCamera
from neuface.geometry.rotations import compose_rotvecs, rotation_angle_rad
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68
from neuface.structs import Prediction, Track
from neuface.synthetic.calibrated_clips import CalibratedClip, make_calibrated_clip
from neuface.synthetic.people import demo_identity

TIME = 4


@pytest.fixture(scope="module")
def clip(open_head: HeadModel) -> CalibratedClip:
    return make_calibrated_clip(open_head, demo_identity(), time=TIME, size_px=64, noise_px=0.0)


def track_of(clip: CalibratedClip) -> Track:
    return Track(
        points_px=clip.landmarks_px, confidence=torch.ones_like(clip.landmarks_px[..., 0]), scheme=IBUG68
    )


def in_world(
    open_head: HeadModel, clip: CalibratedClip, track: Track | None = None, *, metric: bool = True
) -> WorldResult:
    return world_result(open_head, clip.truth, track or track_of(clip), clip.cameras, metric=metric)


def test_the_truth_before_the_cameras_is_the_truth_in_the_world(
    open_head: HeadModel, clip: CalibratedClip
) -> None:
    direct = torch.stack([camera.project(clip.vertices.flatten(0, 1)) for camera in _each(clip)])
    seen = clip.truth.camera.project(open_head.vertices(clip.truth.params))
    torch.testing.assert_close(seen, direct.unflatten(1, (TIME, -1)), atol=1e-3, rtol=0)


def test_a_perfect_fit_gives_the_true_meshes_in_the_world(open_head: HeadModel, clip: CalibratedClip) -> None:
    world = in_world(open_head, clip)
    torch.testing.assert_close(world.vertices(open_head), clip.vertices, atol=2e-5, rtol=0)
    assert float(world.scale) == pytest.approx(1.0, abs=1e-4)
    assert bool(world.seen.all())


def test_the_calibrated_cameras_see_the_world_result_where_the_fit_does(
    open_head: HeadModel, clip: CalibratedClip
) -> None:
    fitted = clip.truth.camera.project(open_head.vertices(clip.truth.params))
    torch.testing.assert_close(in_world(open_head, clip).project(open_head), fitted, atol=5e-3, rtol=0)


def test_the_unit_of_the_calibration_does_not_matter_where_it_is_unknown(
    open_head: HeadModel, clip: CalibratedClip
) -> None:
    """A calibration in millimetres, of which nobody said so."""
    cameras = replace(clip.cameras, translation=1000 * clip.cameras.translation)
    in_mm = replace(clip, cameras=cameras)
    torch.testing.assert_close(
        in_world(open_head, in_mm, metric=False).vertices(open_head), clip.vertices, atol=5e-5, rtol=0
    )
    agreement = view_agreement(open_head, clip.truth, track_of(clip), cameras, metric=False)
    assert agreement.mesh_mm == pytest.approx(0.0, abs=0.1)


def test_a_head_that_was_fitted_too_small_gets_its_true_size(
    open_head: HeadModel, clip: CalibratedClip
) -> None:
    """A calibration in which everything is a tenth larger than the fit believes."""
    cameras = replace(clip.cameras, translation=1.1 * clip.cameras.translation)
    world = in_world(open_head, replace(clip, cameras=cameras))
    assert float(world.scale) == pytest.approx(1.1, abs=1e-3)
    torch.testing.assert_close(world.vertices(open_head), 1.1 * clip.vertices, atol=5e-5, rtol=0)


def test_frames_that_no_camera_saw_are_interpolated(open_head: HeadModel, clip: CalibratedClip) -> None:
    track = track_of(clip)
    confidence = track.confidence.clone()
    confidence[:, 1] = 0
    confidence[1:, 2] = 0
    world = in_world(open_head, clip, replace(track, confidence=confidence))
    assert world.seen.tolist() == [True, False, True, True]
    torch.testing.assert_close(world.vertices(open_head)[2], clip.vertices[2], atol=5e-5, rtol=0)
    before, after = (rotation_angle_rad(world.rotvec[1], world.rotvec[other]) for other in (0, 2))
    whole = rotation_angle_rad(world.rotvec[0], world.rotvec[2])
    torch.testing.assert_close(torch.stack((before, after)), (whole / 2).expand(2), atol=1e-3, rtol=0)


def test_a_view_that_is_turned_disagrees_by_its_angle(open_head: HeadModel, clip: CalibratedClip) -> None:
    agreed = view_agreement(open_head, clip.truth, track_of(clip), clip.cameras, metric=True)
    for value in (agreed.rotation_deg, agreed.position_mm, agreed.mesh_mm):
        assert value == pytest.approx(0.0, abs=0.1)
    root = clip.truth.params.root_rotvec.clone()
    root[0] = compose_rotvecs(root[0], torch.tensor([0.0, 0.1, 0.0]).expand_as(root[0]))
    turned = Prediction(params=replace(clip.truth.params, root_rotvec=root), camera=clip.truth.camera)
    found = view_agreement(open_head, turned, track_of(clip), clip.cameras, metric=True)
    # Two of the three pairs differ by a tenth of a radian.
    assert found.rotation_deg == pytest.approx(2 / 3 * 5.7296, abs=0.05)


def _each(clip: CalibratedClip) -> list[PerspectiveCamera]:
    return [clip.cameras[view] for view in range(len(clip.cameras.K))]


def test_one_camera_gives_a_pose_but_no_metres(open_head: HeadModel, clip: CalibratedClip) -> None:
    track = track_of(clip)[1:2]
    world = world_result(open_head, clip.truth[1:2], track, clip.cameras[1:2], metric=True)
    assert not world.metric
    torch.testing.assert_close(world.vertices(open_head), clip.vertices, atol=1e-4, rtol=0)
    assert view_agreement(open_head, clip.truth[1:2], track, clip.cameras[1:2], metric=True).mesh_mm is None
