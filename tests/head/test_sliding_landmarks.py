"""Landmarks of the open head that slide over its skin as it turns: iBUG's contour and MediaPipe's points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from neuface.head.model import HeadModel
from neuface.landmarks.schemes import MEDIAPIPE478

MIRROR = torch.tensor([-1.0, 1.0, 1.0])


def test_mediapipe_points_slide_as_the_head_turns(open_head: HeadModel) -> None:
    """The detector moves the hidden side of the contour part of the way to the outline, and other points little."""
    embedding = open_head.embeddings["mediapipe478"]
    yaws_deg = embedding.contour_yaw_rad.rad2deg().round()
    assert float(yaws_deg[0]) == -float(yaws_deg[-1]) == -60
    front = int((yaws_deg == 0).nonzero())
    torch.testing.assert_close(embedding.contour_triangles[front], embedding.triangles)
    torch.testing.assert_close(embedding.contour_barycentric[front], embedding.barycentric)
    turned = replace(open_head.neutral(len(yaws_deg)), root_rotvec=torch.zeros(len(yaws_deg), 3))
    turned.root_rotvec[:, 1] = embedding.contour_yaw_rad
    fixed = open_head.landmarks(turned, "mediapipe478", facing=turned.unposed())
    slid = open_head.landmarks(turned, "mediapipe478")
    outline = open_head.landmarks(turned, "ibug68")
    sixty_eight = list(MEDIAPIPE478.to_ibug68)
    moved_mm = 1000 * (slid - fixed)[:, sixty_eight, :2]
    outward_mm = 1000 * (outline[..., :2] - fixed[:, sixty_eight, :2])
    for degrees, far, near in ((40, slice(9, 14), slice(1, 5)), (-40, slice(3, 8), slice(12, 16))):
        row = int((yaws_deg - degrees).abs().argmin())
        share = float((moved_mm * outward_mm)[row, far].sum() / outward_mm[row, far].square().sum())
        assert 0.2 < share < 0.7
        assert float(moved_mm[row, far].norm(dim=-1).mean()) > 2.5 * float(
            moved_mm[row, near].norm(dim=-1).mean()
        )
        assert float(moved_mm[row, 17:].norm(dim=-1).max()) < 7
    next_row = open_head.landmarks(turned[:-1], "mediapipe478", facing=turned[1:])
    steps_mm = 1000 * (next_row - slid[:-1])[..., :2].norm(dim=-1)
    assert float(steps_mm.max()) < 3, "neighbouring rows are at most 3 mm apart"


def slid_at_rest(head: HeadModel, rows: int) -> Tensor:
    """The points of every row on the unposed head."""
    facing = head.neutral(rows)
    facing.root_rotvec[:, 1] = head.embeddings["mediapipe478"].contour_yaw_rad
    return head.landmarks(head.neutral(rows), "mediapipe478", facing=facing)


def test_rows_of_mediapipe_points_are_symmetric_and_on_the_skin(open_head: HeadModel) -> None:
    rows = slid_at_rest(open_head, len(open_head.embeddings["mediapipe478"].contour_yaw_rad))
    mirrored = rows.flip(0)[:, list(MEDIAPIPE478.mirrored)] * MIRROR
    assert float((rows - mirrored).norm(dim=-1).quantile(0.99)) < 2e-3
    embedding = open_head.embeddings["mediapipe478"]
    assert float(embedding.contour_barycentric.min()) >= 0
    torch.testing.assert_close(
        embedding.contour_barycentric.sum(-1), torch.ones_like(embedding.contour_barycentric[..., 0])
    )
    corners = open_head.faces[embedding.contour_triangles]
    hidden = open_head.regions["mouth_interior"] | open_head.regions["tongue"]
    assert not bool(hidden[corners].all(-1).any())
    on_eye = open_head.regions["eyeballs"][corners].all(-1)
    assert bool(on_eye[:, 468:].all())
    assert not bool(on_eye[:, :468].any())


@pytest.mark.parametrize("degrees", [40, -40])
def test_far_contour_points_lie_on_the_outline(open_head: HeadModel, degrees: int) -> None:
    turned = replace(open_head.neutral(), root_rotvec=torch.tensor([0.0, float(np.deg2rad(degrees)), 0.0]))
    far = range(9, 17) if degrees > 0 else range(8)
    side = float(np.sign(degrees))
    contour = open_head.landmarks(turned, "ibug68")
    # With the frontal contour, some of these points would be hidden behind the cheek.
    frontal = replace(
        open_head.embeddings["ibug68"], contour_yaw_rad=torch.zeros(0), contour_triangles=torch.zeros(0, 0).long(),
        contour_barycentric=torch.zeros(0, 0, 3),
    )  # fmt: skip
    static = replace(open_head, embeddings={"ibug68": frontal}).landmarks(turned, "ibug68")
    vertices = open_head.vertices(turned)
    gaps = [outline_gap_mm(open_head, vertices, contour[point], side) for point in far]
    fixed_gaps = [outline_gap_mm(open_head, vertices, static[point], side) for point in far]
    assert max(gaps) < 2, gaps
    assert max(fixed_gaps) > 10, fixed_gaps


def outline_gap_mm(head: HeadModel, vertices: Tensor, point: Tensor, side: float) -> float:
    """Distance by which the face, cut at the point's height, extends beyond the point towards one side, mm."""
    faces = head.faces[head.regions["face"][head.faces].all(1)]
    edges = torch.cat((faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]))
    start, end = vertices[edges[:, 0]], vertices[edges[:, 1]]
    height = point[1]
    crosses = (start[:, 1] - height) * (end[:, 1] - height) < 0
    start, end = start[crosses], end[crosses]
    share = (height - start[:, 1]) / (end[:, 1] - start[:, 1])
    reached = start[:, 0] + share * (end[:, 0] - start[:, 0])
    return 1000 * float((side * reached).max() - side * point[0])
