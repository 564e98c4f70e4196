"""The perspective camera of a head: against the calibrated camera, and against weak perspective far away."""

import pytest
import torch

from neuface.geometry.head_perspective import Perspective
from neuface.geometry.line_of_sight import line_of_sight_rotation
from neuface.geometry.perspective import PerspectiveCamera
from neuface.structs import HEAD_TO_IMAGE_SIGNS, Camera, WeakPerspective


def some_camera(*, distance_m: float = 0.5) -> Perspective:
    generator = torch.Generator().manual_seed(3)
    focal = torch.tensor([700.0, 900.0, 650.0]).double()
    return Perspective(
        scale=focal / distance_m,
        offset=torch.tensor([[320.0, 240.0], [80.0, 400.0], [600.0, 30.0]]).double()
        + torch.randn(3, 2, generator=generator).double(),
        focal=focal,
        principal=torch.tensor([320.0, 240.0]).double().expand(3, 2),
    )


def some_points() -> torch.Tensor:
    return 0.1 * torch.randn(3, 20, 3, generator=torch.Generator().manual_seed(4)).double()


def test_the_rotation_takes_the_optical_axis_to_the_direction_by_the_shortest_way():
    direction = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double()
    rotation = line_of_sight_rotation(direction)
    unit = direction / direction.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(rotation[..., 2], unit)
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).double().expand(50, 3, 3))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(50).double())
    # The trace of a rotation is 1 + 2 cos(angle), and the least angle is that between the axis and the direction.
    torch.testing.assert_close(rotation.diagonal(dim1=-2, dim2=-1).sum(-1), 1 + 2 * unit[:, 2])


def test_the_derivative_of_the_rotation_at_the_optical_axis_is_finite():
    axis = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(line_of_sight_rotation, (axis,))


def test_it_is_a_camera():
    assert isinstance(some_camera(), Camera)


def test_it_projects_as_the_calibrated_camera_with_its_pose_does():
    camera, points = some_camera(), some_points()
    K = torch.zeros(3, 3, 3).double()
    K[:, 0, 0] = K[:, 1, 1] = camera.focal
    K[:, :2, 2], K[:, 2, 2] = camera.principal, 1.0
    calibrated = PerspectiveCamera(
        K=K,
        distortion=torch.zeros(3, 5).double(),
        rotation=camera.rotation,
        translation=camera.translation,
    )
    torch.testing.assert_close(camera.project(points), calibrated.project(points))
    torch.testing.assert_close(camera.to_image(points)[..., :2], calibrated.project(points))


def test_position_and_magnification_are_those_of_the_origin():
    camera = some_camera()
    origin = torch.zeros(3, 1, 3).double()
    torch.testing.assert_close(camera.project(origin)[:, 0], camera.position)
    torch.testing.assert_close(camera.translation[:, 2], camera.focal / camera.magnification)
    # A step across the optical axis, in camera axes, is magnified by exactly this much.
    across = camera.rotation.mT[..., :1].mT * 0.01
    moved = camera.project(across)[:, 0] - camera.position
    torch.testing.assert_close(moved[:, 0], 0.01 * camera.magnification)


def test_the_jacobian_is_the_derivative_of_the_projection():
    camera, points = some_camera(), some_points()
    for image in range(3):
        numeric = torch.autograd.functional.jacobian(camera[image].project, points[image])
        own = numeric.diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        torch.testing.assert_close(camera[image].jacobian(points[image]), own)


def test_far_away_it_is_the_weak_perspective_camera():
    points, near = some_points(), some_camera()
    far = Perspective(scale=near.scale, offset=near.offset, focal=near.focal * 1e7, principal=near.principal)
    weak = WeakPerspective(scale=near.scale, offset=near.offset)
    torch.testing.assert_close(far.to_image(points), weak.to_image(points), atol=1e-3, rtol=0)
    torch.testing.assert_close(far.jacobian(points), weak.jacobian(points), atol=1e-2, rtol=0)


def test_the_depth_is_linear_over_the_image_of_a_plane():
    camera = some_camera()[1]
    corners = some_points()[1, :3]
    share = torch.rand(10, 3, generator=torch.Generator().manual_seed(1)).double()
    inside = (share / share.sum(-1, keepdim=True)) @ corners
    columns = torch.nn.functional.pad(camera.to_image(corners)[:, :2], (0, 1), value=1.0)
    plane = torch.linalg.solve(columns, camera.to_image(corners)[:, 2:])
    image = camera.to_image(inside)
    predicted = torch.nn.functional.pad(image[:, :2], (0, 1), value=1.0) @ plane
    torch.testing.assert_close(predicted, image[:, 2:])


def test_depth_orders_points_along_a_ray():
    camera = some_camera()
    along = torch.linspace(-0.1, 0.1, 9).double()[None, :, None] * torch.tensor([0.0, 0.0, -1.0]).double()
    depth = camera.depth(along.expand(3, -1, -1))
    assert bool((depth.diff(dim=-1) > 0).all())


def test_other_image_coordinates_describe_the_same_camera():
    camera, points = some_camera(), some_points()
    scale, shift = torch.tensor([0.5, 2.0, 1.5]).double(), torch.randn(3, 2).double()
    expected = camera.to_image(points) * scale[:, None, None]
    expected[..., :2] += shift[:, None]
    torch.testing.assert_close(camera.in_image(scale, shift).to_image(points), expected)
    torch.testing.assert_close(camera.in_image(scale, shift).origin_depth, camera.origin_depth)


def test_weak_perspective_sees_straightened_points_alike():
    camera, points = some_camera(), some_points()
    weak = WeakPerspective(scale=camera.scale, offset=camera.offset)
    torch.testing.assert_close(weak.to_image(camera.straightened(points)), camera.to_image(points))


def test_observations_without_perspective_are_what_weak_perspective_sees():
    camera, points = some_camera(), some_points()
    weak = WeakPerspective(scale=camera.scale, offset=camera.offset)
    observed = camera.without_perspective(camera.project(points), points)
    torch.testing.assert_close(observed, weak.project(points))
    # Only the depths of the points count.
    shifted = points + torch.tensor([0.03, -0.02, 0.0]).double()
    torch.testing.assert_close(camera.without_perspective(camera.project(points), shifted), observed)


@pytest.mark.parametrize("distance_m", [0.4, 1.0, 3.0])
def test_a_weak_camera_is_turned_into_one_that_sees_the_face_alike(distance_m):
    camera = some_camera(distance_m=distance_m)
    weak = WeakPerspective(scale=camera.scale, offset=camera.offset)
    anchor = torch.tensor([[0.0, 0.02, 0.1], [0.05, 0.0, 0.08], [-0.07, 0.01, 0.05]]).double()
    made = Perspective.seeing_alike(weak, anchor, camera.focal, camera.principal)
    gap = (made.project(anchor[:, None]) - weak.project(anchor[:, None]))[:, 0].norm(dim=-1)
    assert float(gap.max()) < 0.5
    depth = made.to_camera(anchor[:, None])[:, 0, 2]
    torch.testing.assert_close(camera.focal / depth, weak.scale, rtol=1e-3, atol=0)


def test_points_behind_the_camera_stay_finite_and_so_do_their_gradients():
    scale = torch.tensor([1000.0], requires_grad=True)
    camera = Perspective(
        scale=scale, offset=torch.zeros(1, 2), focal=torch.tensor([100.0]), principal=torch.zeros(1, 2)
    )
    image = camera.project(torch.tensor([[[0.01, 0.0, 0.2]]]))
    image.sum().backward()
    assert scale.grad is not None
    assert bool(image.isfinite().all())
    assert bool(scale.grad.isfinite().all())


def test_head_axes_turn_into_camera_axes_as_before_a_weak_camera():
    camera = some_camera()[0]
    centred = Perspective(
        scale=camera.scale, offset=camera.principal, focal=camera.focal, principal=camera.principal
    )
    torch.testing.assert_close(centred.rotation, torch.diag(torch.tensor(HEAD_TO_IMAGE_SIGNS)).double())
