"""Triangulation: exact pixels give exact points, noisy ones the least-squares points, unobserved points are NaN."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from torch import Tensor

from neuface.errors import InputError
from neuface.geometry.perspective import PerspectiveCamera
from neuface.geometry.triangulation import triangulate

VIEWS, POINTS = 4, 30


def ring_of_cameras(lens: tuple[float, ...] = (-0.33, 0.05, -0.004, 0.004, 0.07)) -> PerspectiveCamera:
    """Four cameras a metre from the origin, 25 degrees apart, looking at it; float64."""
    angle = torch.deg2rad(25.0 * torch.arange(VIEWS, dtype=torch.float64))
    one, zero = torch.ones_like(angle), torch.zeros_like(angle)
    rows = [(angle.cos(), zero, angle.sin()), (zero, one, zero), (-angle.sin(), zero, angle.cos())]
    K = torch.tensor([[900.0, 0, 640], [0, 910, 360], [0, 0, 1]], dtype=torch.float64)
    return PerspectiveCamera(
        K=K.repeat(VIEWS, 1, 1),
        distortion=torch.tensor(lens, dtype=torch.float64).repeat(VIEWS, 1),
        rotation=torch.stack([torch.stack(row, -1) for row in rows], -2),
        translation=torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).repeat(VIEWS, 1),
    )


def some_points() -> Tensor:
    return 0.1 * torch.randn(POINTS, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def seen(cameras: PerspectiveCamera, points: Tensor, noise_px: float = 0.0) -> Tensor:
    pixels = cameras.project(points.expand(VIEWS, -1, -1))
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return pixels + noise_px * noise


@pytest.mark.parametrize("views", [2, 3, 4])
def test_exact_points_are_recovered(views: int) -> None:
    cameras, points = ring_of_cameras(), some_points()
    found = triangulate(
        cameras[:views], seen(cameras, points)[:views], torch.ones(views, POINTS, dtype=torch.float64)
    )
    assert bool(found.valid.all())
    torch.testing.assert_close(found.points, points, rtol=0, atol=1e-12)
    assert float(found.error_px.max()) < 1e-8
    assert found.view_error_px.shape == (POINTS, views)


def test_batch_axes_lie_between_views_and_points() -> None:
    cameras, points = ring_of_cameras(), some_points()
    pixels, ones = seen(cameras, points, 1.0), torch.ones(VIEWS, POINTS, dtype=torch.float64)
    flat = triangulate(cameras, pixels, ones)
    found = triangulate(cameras, pixels.unflatten(1, (3, 2, 5)), ones.unflatten(1, (3, 2, 5)))
    assert found.view_error_px.shape == (3, 2, 5, VIEWS)
    merged = found.flatten_batch(3)
    torch.testing.assert_close(merged.points, flat.points)
    torch.testing.assert_close(merged.view_error_px, flat.view_error_px)


def test_noisy_points_have_the_least_reprojection_error() -> None:
    cameras, points = ring_of_cameras(), some_points()
    pixels = seen(cameras, points, 3.0)
    confidence = torch.rand(VIEWS, POINTS, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = triangulate(cameras, pixels, confidence)
    for number in range(0, POINTS, 6):

        def residuals(point: np.ndarray, number: int = number) -> np.ndarray:
            pixel = cameras.project(torch.from_numpy(point).expand(VIEWS, 1, 3))[:, 0]
            return (confidence[:, number, None].sqrt() * (pixel - pixels[:, number])).flatten().numpy()

        best = least_squares(residuals, points[number].numpy(), xtol=1e-12, ftol=1e-12, gtol=1e-12)
        np.testing.assert_allclose(found.points[number].numpy(), best.x, atol=1e-7)
        mean_square = 2 * best.cost / float(confidence[:, number].sum())
        assert float(found.error_px[number]) == pytest.approx(mean_square**0.5, rel=1e-6)


def test_confidence_is_a_weight() -> None:
    """A view of weight two has the effect of the same view given twice, and only ratios of weights matter."""
    cameras, points = ring_of_cameras(), some_points()
    pixels, ones = seen(cameras, points, 3.0), torch.ones(VIEWS, POINTS, dtype=torch.float64)
    twice = [0, 1, 2, 3, 3]
    repeated = triangulate(cameras[twice], pixels[twice], ones[[0, 1, 2, 3, 3]])
    weighted = ones.clone()
    weighted[3] = 2
    for factor in (1.0, 0.1):
        found = triangulate(cameras, pixels, factor * weighted)
        torch.testing.assert_close(found.points, repeated.points, rtol=0, atol=1e-9)
        torch.testing.assert_close(found.error_px, repeated.error_px, rtol=1e-6, atol=0)


def test_points_observed_by_fewer_than_two_views_are_undetermined() -> None:
    cameras, points = ring_of_cameras(), some_points()
    pixels, confidence = seen(cameras, points), torch.ones(VIEWS, POINTS, dtype=torch.float64)
    confidence[:, 0] = 0
    confidence[1:, 1] = 0
    pixels[1:, 2] = torch.nan
    confidence[2:, 3] = 0
    pixels[2:, 3] = 7000.0
    pixels[0, 4] = torch.inf
    found = triangulate(cameras, pixels, confidence)
    assert found.valid.tolist() == [False] * 3 + [True] * (POINTS - 3)
    assert bool(found.points[:3].isnan().all())
    assert bool(found.error_px[:3].isnan().all())
    torch.testing.assert_close(found.points[3:], points[3:], rtol=0, atol=1e-12)
    assert found.view_error_px[3].isnan().tolist() == [False, False, True, True]
    assert found.view_error_px[4].isnan().tolist() == [True, False, False, False]


def test_points_of_large_reprojection_error_are_rejected() -> None:
    cameras, points = ring_of_cameras(), some_points()
    pixels, ones = seen(cameras, points, 0.5), torch.ones(VIEWS, POINTS, dtype=torch.float64)
    pixels[1, 5, 1] += 60
    found = triangulate(cameras, pixels, ones, max_error_px=4.0)
    assert found.valid.tolist() == [number != 5 for number in range(POINTS)]
    assert bool(found.points[5].isnan().all())
    assert float(found.error_px[5]) > 4
    torch.testing.assert_close(
        found.error_px, found.view_error_px.square().mean(-1).sqrt(), rtol=1e-9, atol=1e-12
    )
    assert bool(triangulate(cameras, pixels, ones).valid.all())


def test_rays_that_do_not_meet_in_front_of_the_cameras_determine_no_point() -> None:
    cameras = ring_of_cameras()
    point = torch.zeros(1, 3, dtype=torch.float64)
    same_position = cameras[[0, 0]]
    ones = torch.ones(2, 1, dtype=torch.float64)
    assert not bool(
        triangulate(same_position, same_position.project(point.expand(2, 1, 3)), ones).valid.any()
    )
    # Of two cameras side by side, the left one looks left and the right one right: the lines meet behind them.
    apart = cameras[[0, 0]]
    apart = replace(apart, translation=torch.tensor([[0.1, 0, 1], [-0.1, 0, 1]], dtype=torch.float64))
    outwards = torch.tensor([[[600.0, 360.0]], [[680.0, 360.0]]], dtype=torch.float64)
    assert not bool(triangulate(apart, outwards, ones).valid.any())
    assert bool(triangulate(apart, outwards.flip(0), ones).valid.all())


def test_float32_input_gives_float32_output() -> None:
    cameras, points = ring_of_cameras(), some_points()
    found = triangulate(cameras, seen(cameras, points).float(), torch.ones(VIEWS, POINTS))
    assert found.points.dtype == found.error_px.dtype == found.view_error_px.dtype == torch.float32
    torch.testing.assert_close(found.points.double(), points, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("cameras", "limit", "named"),
    [(3, None, "one camera per view"), (4, 0.0, "max_error_px"), (4, float("nan"), "max_error_px")],
)
def test_inconsistent_arguments_are_refused(cameras: int, limit: float | None, named: str) -> None:
    pixels, ones = seen(ring_of_cameras(), some_points()), torch.ones(VIEWS, POINTS, dtype=torch.float64)
    with pytest.raises(InputError, match=named):
        triangulate(ring_of_cameras()[:cameras], pixels, ones, max_error_px=limit)
