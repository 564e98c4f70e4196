"""Heads in the world and in cameras: one is the inverse of the other, and noisy views are triangulated."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from neuface.geometry.head_in_world import HeadPose, agreed_pose, in_world, seen_by, size_of_head
from neuface.geometry.head_perspective import Perspective
from neuface.geometry.line_of_sight import line_of_sight_rotation
from neuface.geometry.local_view import local_view
from neuface.geometry.perspective import PerspectiveCamera
from neuface.geometry.rotations import rotvec_to_rotmat
from neuface.structs import HEAD_TO_IMAGE_SIGNS, WeakPerspective
from tests.geometry.test_triangulation import VIEWS, ring_of_cameras

TIME = 5


def cameras_over_time(lens: tuple[float, ...] = (-0.2, 0.05, -0.004, 0.004, 0.0)) -> PerspectiveCamera:
    rig = ring_of_cameras(lens)
    return rig.map_tensors(lambda tensor: tensor[:, None].expand(-1, TIME, *tensor.shape[1:]))


def some_poses() -> HeadPose:
    """Heads of every frame, as all views have them."""
    generator = torch.Generator().manual_seed(0)
    rotvec = 0.5 * torch.randn(TIME, 3, generator=generator, dtype=torch.float64)
    position = 0.15 * torch.randn(TIME, 3, generator=generator, dtype=torch.float64)
    pose = HeadPose(rotation=rotvec_to_rotmat(rotvec), position=position)
    return pose.map_tensors(lambda tensor: tensor.expand(VIEWS, *tensor.shape))


def test_the_view_of_a_pinhole_is_turned_by_the_least_rotation_to_the_line_of_sight():
    camera = cameras_over_time((0.0,) * 5)
    K = camera.K.clone()
    K[..., 1, 1] = K[..., 0, 0]
    camera, pose = replace(camera, K=K), some_poses()
    seen = seen_by(camera, pose)
    turn = line_of_sight_rotation(camera.to_camera(pose.position[..., None, :])[..., 0, :])
    torch.testing.assert_close(seen.rotation, turn.mT @ camera.rotation @ pose.rotation)


def test_a_weak_perspective_camera_has_its_own_scale_and_the_flipped_axes():
    camera = WeakPerspective(scale=torch.tensor(700.0), offset=torch.tensor([3.0, 4.0]))
    point = torch.tensor([[0.01, 0.02, 0.1]])
    view = local_view(camera.project(point)[0], camera.jacobian(point)[0])
    torch.testing.assert_close(view.rotation, torch.diag(torch.tensor(HEAD_TO_IMAGE_SIGNS)))
    torch.testing.assert_close(view.magnification, torch.tensor(700.0))


def test_a_fitted_perspective_camera_sees_like_the_calibrated_one_that_it_is():
    near = Perspective(
        scale=torch.tensor(900.0).double(),
        offset=torch.tensor([500.0, -100.0]).double(),
        focal=torch.tensor(800.0).double(),
        principal=torch.tensor([320.0, 240.0]).double(),
    )
    point = torch.tensor([[0.03, 0.02, 0.1]]).double()
    K = torch.diag(torch.tensor([800.0, 800.0, 1.0]).double())
    K[:2, 2] = near.principal
    calibrated = PerspectiveCamera(
        K=K,
        distortion=torch.zeros(5).double(),
        rotation=near.rotation,
        translation=near.translation,
    )
    at_rest = HeadPose(rotation=torch.eye(3).double(), position=point[0])
    fitted = local_view(near.project(point)[0], near.jacobian(point)[0])
    expected = seen_by(calibrated, at_rest)
    for name, value in expected.named_tensors().items():
        torch.testing.assert_close(getattr(fitted, name), value)


@pytest.mark.parametrize("size", [1.0, 1.07])
def test_what_cameras_see_leads_back_to_the_head(size: float):
    cameras, poses = cameras_over_time(), some_poses()
    found = in_world(cameras, seen_by(cameras, poses, size), size)
    torch.testing.assert_close(found.rotation, poses.rotation)
    torch.testing.assert_close(found.position, poses.position)


def test_the_gradient_of_a_view_is_right():
    camera = ring_of_cameras()[0]

    def view(point: Tensor) -> tuple[Tensor, ...]:
        seen = local_view(camera.project(point)[0], camera.projection_jacobian(point)[0])
        return seen.rotation, seen.position, seen.magnification

    assert torch.autograd.gradcheck(view, (0.1 * torch.ones(1, 3).double().requires_grad_(),))


def test_the_size_of_a_head_is_found_from_its_image_in_several_cameras():
    cameras, poses = cameras_over_time(), some_poses()
    seen, weight = seen_by(cameras, poses, 1.07), torch.ones(VIEWS, TIME).double()
    found = size_of_head(cameras, seen, weight)
    assert found is not None
    assert float(found) == pytest.approx(1.07, rel=1e-4)
    weight[1:] = 0
    assert size_of_head(cameras, seen, weight) is None


def test_views_that_are_wrong_about_the_distance_triangulate_the_head():
    cameras, poses = cameras_over_time(), some_poses()
    seen = seen_by(cameras, poses)
    wrong = torch.tensor([0.9, 1.1, 0.95, 1.05]).double()[:, None]
    found = in_world(cameras, replace(seen, magnification=seen.magnification * wrong))
    agreed = agreed_pose(cameras, found, torch.ones(VIEWS, TIME).double())
    alone = (found.position - poses.position).norm(dim=-1)
    assert float((agreed.position - poses.position[0]).norm(dim=-1).max()) < 0.1 * float(alone.min())


def test_a_view_without_weight_does_not_count_and_a_frame_without_views_has_no_pose():
    cameras, poses = cameras_over_time(), some_poses()
    spoilt = poses.map_tensors(lambda tensor: tensor.clone())
    spoilt.position[0, 0], spoilt.rotation[0, 0] = torch.nan, torch.nan
    weight = torch.ones(VIEWS, TIME).double()
    weight[0, 0], weight[:, 1] = 0, 0
    agreed = agreed_pose(cameras, spoilt, weight)
    torch.testing.assert_close(agreed.position[0], poses.position[0, 0])
    torch.testing.assert_close(agreed.rotation[0], poses.rotation[0, 0])
    assert bool(agreed.position[1].isnan().all())
    assert bool(agreed.rotation[1].isnan().all())
