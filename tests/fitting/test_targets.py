"""The E-step: who sees what, and the mesh that all views agree on."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from small_problems import merged_mesh, targets_of
from torch import Tensor

from neuface.fitting import objective as objective_module
from neuface.fitting.config import FitConfig
from neuface.fitting.merging import merge_views
from neuface.fitting.smoothing import LocalQuadratic
from neuface.fitting.visibility import AngleOrDepth
from neuface.geometry.rotations import rotvec_to_quaternion
from neuface.geometry.smoothing import smooth_quaternions

VISIBILITY = AngleOrDepth()


def slow_confidence(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], angle_deg: float, depth_m: float
) -> NDArray[np.float64]:
    """Loops and angles: the mean of the adjoining faces' area vectors, its angle to the z axis in degrees."""
    seen = np.zeros(len(vertices))
    middle = sum(vertex[2] for vertex in vertices) / len(vertices)
    for vertex in range(len(vertices)):
        normal = np.zeros(3)
        for a, b, c in faces:
            if vertex in (a, b, c):
                normal += np.cross(vertices[b] - vertices[a], vertices[c] - vertices[a])
        normal /= np.linalg.norm(normal)
        angle = math.degrees(math.acos(normal[2]))
        if angle <= angle_deg and vertices[vertex, 2] - middle >= depth_m:
            seen[vertex] = math.cos(math.radians(angle))
    return seen


# 0.08 m is nearly the whole radius; 0.01 m cuts through the front of the ball.
@pytest.mark.parametrize(
    ("angle_deg", "depth_m"), [(72.0, -0.08), (72.0, 0.06), (30.0, -0.08), (90.0, -0.01)]
)
def test_confidence_on_a_ball_equals_its_slow_twin(ball, angle_deg: float, depth_m: float) -> None:
    points, faces = ball(11, 14)
    turned = 0.1 * points @ torch.from_numpy(Rotation.from_rotvec([0.3, 0.2, 0.1]).as_matrix()).mT + 0.5
    found = AngleOrDepth(angle_deg=angle_deg, depth_m=depth_m).weights(turned, faces).numpy()
    expected = slow_confidence(turned.numpy(), faces.numpy(), angle_deg, depth_m)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert 0 < (found > 0).sum() < len(found) / 1.5


def test_both_tests_hide_a_vertex(ball) -> None:
    points, faces = ball(15, 20)
    found = VISIBILITY.weights(0.1 * points, faces)
    height = points[:, 2]
    assert bool((found[height > 0.36] > 0).all())
    assert bool((found[height < 0.25] == 0).all())
    deep = AngleOrDepth(depth_m=0.05).weights(0.1 * points, faces)
    assert bool((deep[height < 0.49] == 0).all())
    assert bool((deep[height > 0.51] > 0).all())


def test_confidence_of_a_batch_is_that_of_its_meshes(tiny_head, random_params) -> None:
    head = tiny_head()
    meshes = head.vertices(random_params(head, 2, 3))
    together = VISIBILITY.weights(meshes, head.faces)
    for view in range(2):
        for time in range(3):
            alone = VISIBILITY.weights(meshes[view, time], head.faces)
            torch.testing.assert_close(together[view, time], alone)


# --- Merging


def test_merging_is_a_weighted_mean() -> None:
    vertices = torch.tensor([[[[0.0, 0.0, 0.0]]], [[[4.0, 8.0, -4.0]]]])
    merged = merge_views(vertices, torch.tensor([[[0.75]], [[0.25]]]), torch.ones(2, 1, dtype=torch.bool))
    torch.testing.assert_close(merged, torch.tensor([[[1.0, 2.0, -1.0]]]))


def test_identical_views_merge_to_themselves(tiny_head, random_params) -> None:
    head = tiny_head()
    mesh = head.vertices(random_params(head, 1, 4))
    confidence = torch.rand(3, 4, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    confidence[:, :, :5] = 0
    valid = torch.ones(3, 4, dtype=torch.bool)
    torch.testing.assert_close(merge_views(mesh.expand(3, -1, -1, -1), confidence, valid), mesh[0])


def test_vertices_that_no_view_sees_get_the_plain_mean_of_valid_views() -> None:
    vertices = torch.randn(3, 2, 4, 3, generator=torch.Generator().manual_seed(1))
    confidence = torch.ones(3, 2, 4)
    confidence[:, :, 1] = 0
    everything = torch.ones(3, 2, dtype=torch.bool)
    merged = merge_views(vertices, confidence, everything)
    torch.testing.assert_close(merged, vertices.mean(0))
    some = torch.tensor([[True, False], [True, False], [False, False]])
    merged = merge_views(vertices, confidence * some[..., None], some)
    torch.testing.assert_close(merged[0], vertices[:2, 0].mean(0))
    torch.testing.assert_close(
        merged[1], vertices[:, 1].mean(0), msg="no valid view at all: every view counts"
    )


def test_a_hidden_vertex_does_not_move_the_merged_mesh(ball) -> None:
    points, faces = ball(9, 12)
    front = 0.1 * points
    aside = front @ torch.from_numpy(Rotation.from_rotvec([0.0, 1.2, 0.0]).as_matrix()).mT
    posed = torch.stack((front, aside))[:, None]
    confidence = VISIBILITY.weights(posed, faces)
    hidden = (confidence[1, 0] == 0) & (confidence[0, 0] > 0)
    seen = (confidence > 0).all(0)[0]
    assert bool(hidden.any())
    assert bool(seen.any())
    valid = torch.ones(2, 1, dtype=torch.bool)
    unposed = front.expand(2, 1, -1, -1).clone()
    merged = merge_views(unposed, confidence, valid)
    changed = unposed.clone()
    changed[1, 0, hidden] += 1.0
    torch.testing.assert_close(merge_views(changed, confidence, valid), merged, atol=1e-15, rtol=0)
    changed[1, 0, seen] += 1.0
    moved = (merge_views(changed, confidence, valid) - merged)[0].norm(dim=-1)
    assert bool((moved[seen] > 0).all())
    assert float(moved[~seen].max()) == 0


# --- The whole step


def test_the_better_seen_view_decides(tiny_head, random_params) -> None:
    """Whole E-step: two views of different faces; each vertex is between them, by how squarely it is seen."""
    head = tiny_head()
    params = random_params(head, 2, 3)
    found = merged_mesh(head, params)
    posed, unposed = head.vertices(params).numpy(), head.vertices(params.unposed()).numpy()
    for time in range(3):
        seen = [slow_confidence(posed[view, time], head.faces.numpy(), 72.0, -0.08) for view in range(2)]
        for vertex in range(30):
            weights = np.array([seen[0][vertex], seen[1][vertex]])
            weights = weights / weights.sum() if weights.sum() > 0 else np.array([0.5, 0.5])
            expected = weights[0] * unposed[0, time, vertex] + weights[1] * unposed[1, time, vertex]
            np.testing.assert_allclose(found[time, vertex].numpy(), expected, atol=1e-12)


def test_a_frame_without_landmarks_has_no_weight(tiny_head, random_params) -> None:
    head = tiny_head()
    params = random_params(head, 3, 4)
    valid = torch.ones(3, 4, dtype=torch.bool)
    valid[1, 2] = False
    before = merged_mesh(head, params, valid)
    identity = params.identity.clone()
    identity[1, 2] += 2
    other = replace(params, identity=identity)
    torch.testing.assert_close(merged_mesh(head, other, valid), before, atol=0, rtol=0)
    identity[1, 1] += 2
    after = merged_mesh(head, other, valid)
    assert float((after[1] - before[1]).abs().max()) > 1e-4


def test_frames_that_no_view_knows_are_merged_from_all(tiny_head, random_params) -> None:
    head = tiny_head()
    params = random_params(head, 2, 3)
    valid = torch.tensor([[True, False, True], [True, False, True]])
    merged = merged_mesh(head, params, valid)
    torch.testing.assert_close(merged[1], head.vertices(params.unposed())[:, 1].mean(0))


def test_a_single_view_has_nothing_to_agree_with(tiny_head, random_params) -> None:
    head = tiny_head()
    one = targets_of(head, random_params(head, 1, 4))
    assert "multiview" not in one
    without = targets_of(
        head, random_params(head, 2, 4), config=FitConfig.neural({"objective.multiview": None})
    )
    assert "multiview" not in without


@pytest.mark.parametrize("meshes", [1, 2, 5, 14])
def test_chunks_do_not_matter(tiny_head, random_params, monkeypatch: pytest.MonkeyPatch, meshes: int) -> None:
    head = tiny_head()
    params, valid = random_params(head, 2, 7), torch.rand(2, 7) < 0.8
    whole = targets_of(head, params, valid)
    monkeypatch.setattr(objective_module, "MESHES_PER_CHUNK", meshes)
    pieces = targets_of(head, params, valid)
    for name in ("multiview", "temporal"):
        torch.testing.assert_close(pieces[name].value, whole[name].value)


def test_orientations_are_smoothed_per_view_over_the_whole_clip(tiny_head, random_params) -> None:
    head = tiny_head()
    params = random_params(head, 2, 100, scale=0.5)
    found = targets_of(head, params)["temporal"].value
    smoothing = FitConfig.neural().e_step.smoothing
    assert isinstance(smoothing, LocalQuadratic)
    for view in range(2):
        alone: Tensor = smooth_quaternions(
            rotvec_to_quaternion(params.root_rotvec[view]), smoothing.window, smoothing.kind
        )
        torch.testing.assert_close(found[view], alone)
