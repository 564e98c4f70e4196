"""Metrics of shape on examples worked out by hand: scan to mesh, the alignments of MPVE, 3D landmarks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import roma
import torch
from torch import Tensor

from neuface.errors import InputError
from neuface.metrics import landmark_distances_mm, mpve_mm, scan_to_mesh_mm

Ball = Callable[[int, int], tuple[Tensor, Tensor]]


def potato(ball: Ball) -> tuple[Tensor, Tensor, Tensor]:
    """A closed surface of 5 to 8 cm, its triangles, and seven of its vertices as landmarks."""
    vertices, faces = ball(20, 30)
    vertices = vertices * torch.tensor([0.05, 0.08, 0.06], dtype=torch.float64)
    return vertices, faces, torch.arange(0, 595, 85)


def turned(points: Tensor, scale: float = 1.0) -> Tensor:
    turn = roma.rotvec_to_rotmat(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    return scale * points @ turn.mT + torch.tensor([0.3, 0.1, -0.2], dtype=torch.float64)


def test_concentric_balls_are_apart_by_the_difference_of_their_radii(ball: Ball) -> None:
    vertices, faces = ball(30, 60)
    scan = 0.052 * vertices
    marks = torch.arange(0, 1750, 250)
    found = scan_to_mesh_mm(scan, scan[marks], 0.050 * vertices, faces, 0.050 * vertices[marks])
    # The triangles lie up to 50 mm * (1 - cos(4.2 degrees)) = 0.14 mm below the sphere through their corners.
    torch.testing.assert_close(found, torch.full_like(found, 2.0), rtol=0, atol=0.14)
    scaled = scan_to_mesh_mm(
        scan, scan[marks], 0.050 * vertices, faces, 0.050 * vertices[marks], with_scale=True
    )
    torch.testing.assert_close(scaled, torch.zeros_like(scaled), rtol=0, atol=1e-6)


def test_the_positions_of_scan_and_mesh_do_not_matter(ball: Ball) -> None:
    vertices, faces, marks = potato(ball)
    noise = 0.002 * torch.randn(vertices.shape, generator=torch.Generator().manual_seed(0)).double()
    scan = vertices + noise
    still = scan_to_mesh_mm(scan, scan[marks], vertices, faces, vertices[marks])
    assert 0.5 < float(still.mean()) < 2.0
    for with_scale in (False, True):
        still = scan_to_mesh_mm(scan, scan[marks], vertices, faces, vertices[marks], with_scale=with_scale)
        far = turned(vertices, 1.3 if with_scale else 1.0)
        by_mesh = scan_to_mesh_mm(scan, scan[marks], far, faces, far[marks], with_scale=with_scale)
        elsewhere = turned(scan)
        by_scan = scan_to_mesh_mm(
            elsewhere, elsewhere[marks], vertices, faces, vertices[marks], with_scale=with_scale
        )
        torch.testing.assert_close(by_mesh, still, rtol=0, atol=1e-3)
        torch.testing.assert_close(by_scan, still, rtol=0, atol=1e-3)


def test_millimetres_are_the_scans(ball: Ball) -> None:
    vertices, faces, marks = potato(ball)
    scan = vertices.clone()
    scan[::3] *= 1.05
    small = scan_to_mesh_mm(scan, scan[marks], vertices, faces, vertices[marks], with_scale=True)
    large = scan_to_mesh_mm(2 * scan, 2 * scan[marks], vertices, faces, vertices[marks], with_scale=True)
    torch.testing.assert_close(large, 2 * small, rtol=1e-3, atol=1e-3)


def test_errors_of_the_landmarks_do_not_change_the_result(ball: Ball) -> None:
    """The landmarks only initialise the alignment; all points of the scan determine it."""
    vertices, faces, marks = potato(ball)
    wrong = vertices[marks] + 0.004 * torch.randn(7, 3, generator=torch.Generator().manual_seed(1)).double()
    found = scan_to_mesh_mm(vertices, vertices[marks], turned(vertices), faces, turned(wrong))
    assert float(found.max()) < 0.01


def test_a_hole_in_the_scan_adds_no_error(ball: Ball) -> None:
    vertices, faces, marks = potato(ball)
    part = vertices[vertices[:, 2] > 0]
    found = scan_to_mesh_mm(part, vertices[marks], turned(vertices), faces, turned(vertices[marks]))
    assert float(found.max()) < 1e-3


def test_single_precision_is_accepted(ball: Ball) -> None:
    vertices, faces, marks = (item.float() if item.is_floating_point() else item for item in potato(ball))
    found = scan_to_mesh_mm(vertices, vertices[marks], vertices, faces, vertices[marks])
    assert found.dtype == torch.float32
    assert float(found.max()) < 1e-3


def test_a_scan_of_too_few_points_is_refused(ball: Ball) -> None:
    vertices, faces, marks = potato(ball)
    with pytest.raises(InputError, match="at least 7"):
        scan_to_mesh_mm(vertices[:3], vertices[marks], vertices, faces, vertices[marks])


def cross(dtype: torch.dtype = torch.float64) -> Tensor:
    """Six points, each 100 mm from their centre."""
    return 0.1 * torch.cat((torch.eye(3), -torch.eye(3))).to(dtype)


def test_mpve_after_similarity_ignores_size() -> None:
    truth = cross()
    # If the cross is 10 % larger, every point has an error of 10 mm.
    assert float(mpve_mm(1.1 * truth, truth)) == pytest.approx(10.0)
    assert float(mpve_mm(1.1 * truth, truth, alignment="similarity")) == pytest.approx(0.0, abs=1e-9)
    # The millimetres are the truth's: the size of the prediction does not matter.
    bent = truth.clone()
    bent[0, 0] = 0.15
    small = mpve_mm(bent, truth, alignment="similarity")
    torch.testing.assert_close(mpve_mm(7 * bent, truth, alignment="similarity"), small)
    assert float(small) > 1


def test_mpve_without_alignment_depends_on_position_and_rotation() -> None:
    truth = cross()
    shifted = truth + torch.tensor([3e-3, 0.0, 4e-3])
    assert float(mpve_mm(shifted, truth, alignment="none")) == pytest.approx(5.0)
    assert float(mpve_mm(shifted, truth, alignment="rigid")) == pytest.approx(0.0, abs=1e-9)
    # Half a turn about z moves four points by 200 mm and leaves two in place.
    flipped = truth * torch.tensor([-1.0, -1.0, 1.0])
    assert float(mpve_mm(flipped, truth, alignment="none")) == pytest.approx(800 / 6)
    assert float(mpve_mm(flipped, truth, alignment="rigid")) == pytest.approx(0.0, abs=1e-9)
    only_top = torch.tensor([False, False, True, False, False, False])
    assert float(mpve_mm(flipped, truth, only_top, alignment="none")) == pytest.approx(0.0)


def test_landmarks_of_a_clip_share_one_similarity() -> None:
    """The true head moves 5 mm to both sides of a predicted head at rest, which no single similarity compensates."""
    points = cross().expand(2, 6, 3)
    sway = torch.tensor([[3e-3, 4e-3, 0.0], [-3e-3, -4e-3, 0.0]], dtype=torch.float64)[:, None]
    everything = torch.ones(2, 6, dtype=torch.bool)
    for predicted in (points, turned(points), turned(points, 1.3)):
        found = landmark_distances_mm(predicted, points + sway, everything)
        torch.testing.assert_close(found, torch.full_like(found, 5.0))
        still = landmark_distances_mm(predicted, points, everything)
        torch.testing.assert_close(still, torch.zeros_like(still), rtol=0, atol=1e-9)
    # The millimetres are the truth's.
    larger = landmark_distances_mm(points, turned(points + sway, 2.0), everything)
    torch.testing.assert_close(larger, torch.full_like(larger, 10.0))


def test_unknown_landmarks_are_ignored() -> None:
    points = cross().expand(2, 6, 3)
    known = torch.ones(2, 6, dtype=torch.bool)
    known[1, 2] = known[0, 5] = False
    truth = turned(points, 0.8)
    truth[1, 2], truth[0, 5] = torch.nan, 50.0
    found = landmark_distances_mm(points, truth, known)
    assert found.isnan().equal(~known)
    assert float(found[known].max()) == pytest.approx(0.0, abs=1e-9)


def test_too_few_or_non_finite_landmarks_are_refused() -> None:
    points, known = cross(), torch.zeros(6, dtype=torch.bool)
    known[:2] = True
    with pytest.raises(InputError, match="at least 3 points known in both, got 2"):
        landmark_distances_mm(points, points, known)
    lost = points.clone()
    lost[0] = torch.nan
    with pytest.raises(InputError, match="mark points without a position as not known"):
        landmark_distances_mm(points, lost, ~known | known)
