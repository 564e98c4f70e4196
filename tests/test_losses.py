"""Every term of the objective against numpy loops, and what must not move it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from small_problems import targets_of
from torch import Tensor

from neuface import losses
from neuface.geometry.rotations import rotvec_to_quaternion


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- Eq. 2


def test_landmark_loss_equals_its_slow_twin() -> None:
    points, observed, confidence = normal(3, 7, 2), normal(3, 7, 2, seed=1), uniform(3, 7)
    confidence[1, 2:5] = 0
    found = losses.landmark_loss(points, observed, confidence)
    for image in range(3):
        total, weight = 0.0, 0.0
        for point in range(7):
            gap = points[image, point] - observed[image, point]
            total += float(confidence[image, point]) * (abs(float(gap[0])) + abs(float(gap[1])))
            weight += float(confidence[image, point])
        assert float(found[image]) == pytest.approx(total / weight, abs=1e-12)


def test_missing_points_have_no_influence() -> None:
    points, observed, confidence = normal(2, 6, 2).requires_grad_(), normal(2, 6, 2, seed=1), uniform(2, 6)
    confidence[:, 3] = 0
    confidence[1] = 0
    loss = losses.landmark_loss(points, observed, confidence)
    loss.sum().backward()
    assert points.grad is not None
    assert float(points.grad[:, 3].abs().max()) == 0
    assert float(points.grad[1].abs().max()) == 0
    assert float(points.grad[0, 0].abs().min()) > 0
    assert float(loss[1].detach()) == 0
    elsewhere = observed.clone()
    elsewhere[:, 3] += 100
    elsewhere[1] -= 100
    torch.testing.assert_close(losses.landmark_loss(points, elsewhere, confidence), loss)


# --- Eq. 3


def test_temporal_loss_equals_its_slow_twin() -> None:
    rotvec, target = 2 * normal(40, 3), torch.nn.functional.normalize(normal(40, 4, seed=1), dim=-1)
    found = losses.temporal_loss(rotvec, target)
    quaternions = Rotation.from_rotvec(rotvec.numpy()).as_quat()
    nearer = []
    for image in range(40):
        plus = np.linalg.norm(quaternions[image] - target[image].numpy())
        minus = np.linalg.norm(-quaternions[image] - target[image].numpy())
        nearer.append(plus < minus)
        assert float(found[image]) == pytest.approx(min(plus, minus), abs=2 * losses.NORM_SOFTNESS)
    assert len(set(nearer)) == 2, "the case has no opposite signs"


def test_temporal_loss_is_half_the_angle() -> None:
    target = rotvec_to_quaternion(torch.tensor([[0.0, 0.5, 0.0]], dtype=torch.float64))
    turned = torch.tensor([[0.0, 0.52, 0.0]], dtype=torch.float64)
    assert float(losses.temporal_loss(turned, target)) == pytest.approx(0.01, rel=1e-3)


def test_both_signs_of_the_target_are_the_same_target() -> None:
    rotvec, target = normal(20, 3), torch.nn.functional.normalize(normal(20, 4, seed=1), dim=-1)
    torch.testing.assert_close(losses.temporal_loss(rotvec, target), losses.temporal_loss(rotvec, -target))


def test_temporal_gradient_is_finite_at_the_target() -> None:
    for turn in (torch.zeros(1, 3), torch.tensor([[0.2, -0.3, 0.1]])):
        rotvec = turn.double().requires_grad_()
        target = rotvec_to_quaternion(turn.double())
        loss = losses.temporal_loss(rotvec, target)
        (gradient,) = torch.autograd.grad(loss.sum(), rotvec)
        assert float(loss.detach()) == pytest.approx(0, abs=1e-9)
        assert bool(gradient.isfinite().all())


# --- Eq. 4


def test_multiview_loss_equals_its_slow_twin() -> None:
    vertices, target = normal(3, 5, 3), normal(3, 5, 3, seed=1)
    found = losses.multiview_loss(vertices, target)
    for image in range(3):
        total = 0.0
        for vertex in range(5):
            for axis in range(3):
                total += abs(float(vertices[image, vertex, axis] - target[image, vertex, axis]))
        assert float(found[image]) == pytest.approx(total / 5, abs=1e-12)


# --- With targets of the E-step


def test_a_still_clip_has_no_temporal_loss(tiny_head, random_params) -> None:
    head = tiny_head()
    still = random_params(head, 2, 1)[:, torch.zeros(9, dtype=torch.long)]
    targets = targets_of(head, still)
    loss = losses.temporal_loss(still.root_rotvec.flatten(0, 1), targets["temporal"].value.flatten(0, 1))
    assert float(loss.abs().max()) < 1e-9
    moving = random_params(head, 2, 9)
    targets = targets_of(head, moving)
    loss = losses.temporal_loss(moving.root_rotvec.flatten(0, 1), targets["temporal"].value.flatten(0, 1))
    assert float(loss.mean()) > 0.01


def test_identical_views_have_no_multiview_loss(tiny_head, random_params) -> None:
    head = tiny_head()
    one = random_params(head, 1, 6)
    alike = one[torch.zeros(3, dtype=torch.long)]
    # The cameras differ, and with them the orientation; the face is the same.
    views = replace(alike, root_rotvec=normal(3, 6, 3))
    merged = targets_of(head, views)["multiview"].value
    vertices = head.vertices(views.unposed())
    loss = losses.multiview_loss(vertices.flatten(0, 1), merged.repeat(3, 1, 1))
    assert float(loss.max()) < 1e-12
    other = replace(views, identity=normal(3, 6, 6))
    loss = losses.multiview_loss(head.vertices(other.unposed()).flatten(0, 1), merged.repeat(3, 1, 1))
    assert float(loss.min()) > 1e-3


# --- Priors, the sum, gradients


def test_priors_are_mean_squares() -> None:
    code = torch.tensor([[1.0, -2.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(losses.expression_prior(code), torch.tensor([14 / 4, 0.0]))
    expected = torch.tensor([1.0, 0.0, 0.0, 0.0])
    torch.testing.assert_close(losses.identity_prior(code, expected), torch.tensor([13 / 4, 1 / 4]))


def test_an_expression_is_compared_in_square_millimetres_of_the_landmarks() -> None:
    expected = normal(2, 4, 3).float()
    shown = expected.clone()
    # 3 and 4 mm on one of four points.
    shown[1, 2] += torch.tensor([3e-3, 0.0, -4e-3])
    torch.testing.assert_close(
        losses.expected_expression(shown, expected), torch.tensor([0.0, 25 / 4]), atol=1e-4, rtol=1e-4
    )


def test_weighted_sum_takes_the_terms_there_are() -> None:
    parts = {"landmark": torch.tensor([1.0, 2.0]), "temporal": torch.tensor([10.0, 20.0])}
    total = losses.weighted_sum(parts, {"landmark": 3.0, "temporal": 0.5, "multiview": 7.0})
    torch.testing.assert_close(total, torch.tensor([8.0, 16.0]))


def test_a_camera_without_a_size_leaves_the_loss_finite() -> None:
    """What an encoder answers on a frame without a face: the other frames of the fit must not become NaN."""
    scale = torch.tensor([5.0, 0.0, -1.0], requires_grad=True)
    still = torch.zeros(3, 2)
    loss = losses.camera_smoothness(scale, still, torch.tensor([5.0, 5.0, 0.0]), still)
    assert loss.isfinite().all()
    assert loss[0] < loss[1]
    loss.sum().backward()
    assert scale.grad is not None
    assert scale.grad.isfinite().all()


def test_gradients_of_every_term() -> None:
    check = torch.autograd.gradcheck
    observed, confidence, target = normal(2, 5, 2, seed=1), uniform(2, 5), normal(2, 4, seed=1)
    merged = normal(2, 5, 3, seed=1)
    assert check(lambda x: losses.landmark_loss(x, observed, confidence), normal(2, 5, 2).requires_grad_())
    assert check(lambda x: losses.temporal_loss(x, target), normal(2, 3).requires_grad_())
    assert check(lambda x: losses.multiview_loss(x, merged), normal(2, 5, 3).requires_grad_())
    assert check(losses.identity_prior, (normal(2, 6).requires_grad_(), normal(6, seed=1)))
    assert check(losses.expression_prior, normal(2, 6).requires_grad_())
    assert check(lambda x: losses.expected_expression(1e-3 * x, merged), normal(2, 5, 3).requires_grad_())
    weights = {"a": 2.0, "b": -0.5}
    assert check(
        lambda a, b: losses.weighted_sum({"a": a, "b": b}, weights),
        (normal(3).requires_grad_(), normal(3, seed=1).requires_grad_()),
    )
