"""The perspective camera against the formulas written out; its inverse and its derivatives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from neuface.geometry.perspective import PerspectiveCamera

# k1, k2, p1, p2, k3 of four lenses: strong barrel distortion, none, strong pincushion and mild distortion.
LENSES = (
    (-0.33, 0.05, -0.004, 0.004, 0.07),
    (0.0, 0.0, 0.0, 0.0, 0.0),
    (0.18, -0.25, 0.003, 0.002, 0.12),
    (0.05, 0.01, -0.01, 0.02, 0.0),
)


def some_cameras(*, skew: float = 0.0) -> PerspectiveCamera:
    """One camera per lens, each with its own rotation and position about a metre from the origin; float64."""
    count = len(LENSES)
    turns = Rotation.from_rotvec(0.3 * np.random.default_rng(1).normal(size=(count, 3))).as_matrix()
    K = torch.tensor([[900.0, skew, 640.0], [0.0, 910.0, 360.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    shift = torch.tensor([0.05, -0.1, 1.0], dtype=torch.float64)
    return PerspectiveCamera(
        K=K.repeat(count, 1, 1),
        distortion=torch.tensor(LENSES, dtype=torch.float64),
        rotation=torch.from_numpy(turns),
        translation=shift * torch.linspace(0.8, 1.2, count, dtype=torch.float64)[:, None],
    )


def some_points(count: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.15 * torch.randn(len(LENSES), count, 3, generator=generator, dtype=torch.float64)


def projected_slowly(camera: PerspectiveCamera, point: Tensor) -> tuple[float, float]:
    """The lens model as textbooks state it, in scalars."""
    R, t, K = camera.rotation.tolist(), camera.translation.tolist(), camera.K.tolist()
    X, Y, Z = (sum(R[row][axis] * float(point[axis]) for axis in range(3)) + t[row] for row in range(3))
    x, y = X / Z, Y / Z
    k1, k2, p1, p2, k3 = camera.distortion.tolist()
    r2 = x**2 + y**2
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x**2)
    v = y * radial + p1 * (r2 + 2 * y**2) + 2 * p2 * x * y
    return K[0][0] * u + K[0][1] * v + K[0][2], K[1][1] * v + K[1][2]


def test_the_example_of_the_convention() -> None:
    camera = PerspectiveCamera(
        K=torch.tensor([[1000.0, 0, 640], [0, 1000, 360], [0, 0, 1]]),
        distortion=torch.zeros(5),
        rotation=torch.eye(3),
        translation=torch.zeros(3),
    )
    pixel = camera.project(torch.tensor([[0.1, -0.2, 2.0]]))
    torch.testing.assert_close(pixel, torch.tensor([[690.0, 260.0]]))


def test_projection_equals_the_scalar_formulas() -> None:
    cameras, points = some_cameras(skew=3.0), some_points(10)
    expected = [
        [projected_slowly(cameras[view], point) for point in points[view]] for view in range(len(points))
    ]
    torch.testing.assert_close(cameras.project(points), torch.tensor(expected, dtype=torch.float64))


def test_any_batch_axes_are_accepted() -> None:
    cameras, points = some_cameras(), some_points(6)
    batched = cameras.map_tensors(lambda tensor: tensor.unflatten(0, (2, 2)))
    pixels = batched.project(points.unflatten(0, (2, 2)))
    torch.testing.assert_close(pixels.flatten(0, 1), cameras.project(points))
    torch.testing.assert_close(
        batched.undistort(pixels).flatten(0, 1), cameras.undistort(pixels.flatten(0, 1))
    )
    torch.testing.assert_close(cameras[1].project(points[1]), cameras.project(points)[1])


def test_the_centre_is_the_origin_of_the_camera_axes() -> None:
    cameras = some_cameras()
    torch.testing.assert_close(cameras.to_camera(cameras.centre[:, None])[:, 0], torch.zeros(4, 3).double())


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_undistorting_inverts_projecting(dtype: torch.dtype, allowed: float) -> None:
    cameras = some_cameras(skew=3.0).to(dtype)
    generator = torch.Generator().manual_seed(3)
    picture = torch.tensor([1279.0, 719.0]) * torch.rand(4, 500, 2, generator=generator)
    picture[:, :4] = torch.tensor([[0.0, 0.0], [1279.0, 0.0], [0.0, 719.0], [1279.0, 719.0]])
    rays = cameras.undistort(picture.to(dtype))
    assert bool(rays.isfinite().all())
    # Any point of the ray projects to the pixel of the ray.
    ahead = torch.cat((rays, torch.ones_like(rays[..., :1])), -1) * 1.7
    world = (ahead - cameras.translation[:, None]) @ cameras.rotation
    again = cameras.project(world)
    assert float((again - picture).abs().max()) <= allowed * 1000


def test_a_lens_without_distortion_is_a_pinhole() -> None:
    camera = some_cameras()[1]
    ray = camera.undistort(torch.tensor([[640.0, 360.0], [1540.0, 1270.0]], dtype=torch.float64))
    torch.testing.assert_close(ray, torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64))


def test_beyond_the_fold_of_the_lens_there_is_no_ray() -> None:
    """x (1 - x^2 / 3) rises to 2/3 at x = 1 and falls beyond: no ray projects further out."""
    camera = replace(some_cameras()[1], distortion=torch.tensor([-1 / 3, 0, 0, 0, 0], dtype=torch.float64))
    pixels = torch.tensor([[640 + 900 * 0.6, 360], [640 + 900 * 0.7, 360], [torch.nan, 360.0]]).double()
    rays = camera.undistort(pixels)
    assert rays.isfinite().all(-1).tolist() == [True, False, False]
    x = float(rays[0, 0])
    assert 0 < x < 1
    assert x - x**3 / 3 == pytest.approx(0.6, abs=1e-12)


def test_points_behind_the_camera_are_nan_and_have_zero_gradient() -> None:
    camera = some_cameras()[0]
    ahead = torch.tensor([0.1, 0.0, 2.0], dtype=torch.float64)
    world = torch.stack((ahead, -ahead, 0 * ahead)) - camera.translation
    points = (world @ camera.rotation).requires_grad_()
    pixels = camera.project(points)
    assert pixels.isfinite().all(-1).tolist() == [True, False, False]
    torch.where(pixels.isfinite(), pixels, 0.0).sum().backward()
    assert points.grad is not None
    assert bool(points.grad.isfinite().all())
    assert float(points.grad[1:].abs().max()) == 0 < float(points.grad[0].abs().max())


def test_derivatives_are_exact() -> None:
    cameras, points = some_cameras(skew=3.0)[:1], some_points(2)[:1]
    parts = [cameras.K, cameras.distortion, cameras.rotation, cameras.translation]

    def project(K: Tensor, distortion: Tensor, rotation: Tensor, translation: Tensor, at: Tensor) -> Tensor:
        camera = PerspectiveCamera(K=K, distortion=distortion, rotation=rotation, translation=translation)
        return camera.project(at) / 1000

    def undistort(K: Tensor, distortion: Tensor, pixels: Tensor) -> Tensor:
        return replace(cameras, K=K, distortion=distortion).undistort(pixels)

    pixels = cameras.project(points)
    for function, inputs in ((project, (*parts, points)), (undistort, (*parts[:2], pixels))):
        watched = [part.clone().requires_grad_() for part in inputs]
        assert torch.autograd.gradcheck(function, watched, fast_mode=True)


def test_the_jacobian_is_the_derivative() -> None:
    cameras, points = some_cameras(skew=3.0), some_points(3).requires_grad_()
    jacobian = cameras.projection_jacobian(points)
    for axis in range(2):
        (expected,) = torch.autograd.grad(cameras.project(points)[..., axis].sum(), points)
        torch.testing.assert_close(jacobian[..., axis, :], expected)
