"""Quaternions: their order, their gradients, and their two signs."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import roma
import torch
from scipy.spatial.transform import Rotation

from neuface.geometry.rotations import (
    compose_rotvecs,
    continuous_signs,
    nearest_rotation,
    quaternion_product,
    quaternion_to_rotvec,
    rotation_angle_rad,
    rotmat_to_quaternion,
    rotmat_to_rotvec,
    rotvec_to_quaternion,
    rotvec_to_rotmat,
    toward_hemisphere,
)


@pytest.mark.parametrize("largest_angle", [0.0, 1e-12, 1e-6, 1e-3, 9e-3, 1.1e-2, 0.5, 3.1])
def test_conversions_are_those_of_roma(largest_angle: float) -> None:
    generator = torch.Generator().manual_seed(3)
    axis = torch.nn.functional.normalize(
        torch.randn(300, 3, dtype=torch.float64, generator=generator), dim=-1
    )
    share = torch.rand(300, 1, dtype=torch.float64, generator=generator)
    rotvec = largest_angle * share * axis
    other = torch.randn(300, 3, dtype=torch.float64, generator=generator)
    matrix, quaternion = roma.rotvec_to_rotmat(rotvec), roma.rotvec_to_unitquat(rotvec)
    near = partial(torch.testing.assert_close, atol=1e-12, rtol=0.0)
    near(rotvec_to_quaternion(rotvec), quaternion)
    near(rotvec_to_rotmat(rotvec), matrix)
    near(quaternion_to_rotvec(quaternion), rotvec)
    near(rotmat_to_rotvec(matrix), rotvec)
    near(rotvec_to_rotmat(compose_rotvecs(rotvec, other)), matrix @ roma.rotvec_to_rotmat(other))
    product = quaternion_product(quaternion, roma.rotvec_to_unitquat(other))
    near(product, roma.quat_product(quaternion, roma.rotvec_to_unitquat(other)))


def test_half_turns_about_every_axis_survive_the_way_through_matrices() -> None:
    axes = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, -2, 3]]).double(), dim=-1
    )
    matrix = rotvec_to_rotmat(math.pi * axes)
    torch.testing.assert_close(rotvec_to_rotmat(rotmat_to_rotvec(matrix)), matrix, atol=1e-12, rtol=0.0)
    assert bool((rotmat_to_quaternion(matrix).norm(dim=-1) - 1).abs().max() < 1e-12)


def test_the_nearest_rotation_is_that_of_roma_and_never_a_reflection() -> None:
    matrix = torch.randn(100, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    found = nearest_rotation(matrix)
    torch.testing.assert_close(found, roma.special_procrustes(matrix), atol=1e-10, rtol=0.0)
    assert bool((torch.linalg.det(found) > 0).all())


def test_quaternions_are_xyzw_and_those_of_scipy() -> None:
    half = math.sqrt(0.5)
    quarter_turn = torch.tensor([0.0, math.pi / 2, 0.0])
    torch.testing.assert_close(rotvec_to_quaternion(quarter_turn), torch.tensor([0.0, half, 0.0, half]))
    rotvec = 1.5 * torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = Rotation.from_rotvec(rotvec.numpy()).as_quat()
    found = rotvec_to_quaternion(rotvec).numpy()
    agreement = (expected * found).sum(1, keepdims=True)
    np.testing.assert_allclose(found, expected * np.sign(agreement), atol=1e-12)


@pytest.mark.parametrize("length", [0.0, 1e-20, 1e-8, 1e-3])
def test_gradient_is_that_of_half_the_angle_near_zero(length: float) -> None:
    rotvec = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64).mul(length).requires_grad_()
    rows = [torch.autograd.grad(rotvec_to_quaternion(rotvec)[part], rotvec)[0] for part in range(3)]
    torch.testing.assert_close(torch.stack(rows), 0.5 * torch.eye(3).double(), atol=1e-6, rtol=0)


def test_the_sign_nearer_to_the_reference_is_chosen() -> None:
    generator = torch.Generator().manual_seed(1)
    reference, other = torch.nn.functional.normalize(torch.randn(2, 200, 4, generator=generator), dim=-1)
    chosen = toward_hemisphere(other, reference)
    assert bool(((chosen * reference).sum(-1) >= 0).all())
    assert bool(((chosen == other) | (chosen == -other)).all(-1).all())
    torch.testing.assert_close(toward_hemisphere(-other, reference), chosen)
    assert bool((chosen != other).any()), "the test needs quaternions whose sign flips"


def test_signs_become_continuous() -> None:
    # The rotation exceeds two full turns, so that the quaternion's sign must change on the way.
    angle = torch.linspace(0, 15, 80, dtype=torch.float64)
    smooth = torch.stack((angle.mul(0), (angle / 2).sin(), angle.mul(0), (angle / 2).cos()), -1)
    flips = torch.where(torch.rand(80, generator=torch.Generator().manual_seed(2)) < 0.5, -1.0, 1.0)
    mixed = smooth * flips[:, None]
    restored = continuous_signs(mixed)
    assert bool(((restored[1:] * restored[:-1]).sum(-1) > 0).all())
    torch.testing.assert_close(restored[0], mixed[0])
    torch.testing.assert_close(restored, smooth * flips[0])


def test_signs_are_independent_between_clips_and_defined_for_one_frame() -> None:
    one = torch.tensor([[[0.0, 0.0, 0.0, -1.0]], [[1.0, 0.0, 0.0, 0.0]]])
    assert torch.equal(continuous_signs(one), one)
    pair = torch.tensor([[[1.0, 0, 0, 0], [-1.0, 0, 0, 0]], [[1.0, 0, 0, 0], [1.0, 0, 0, 0]]])
    assert torch.equal(continuous_signs(pair)[:, 1, 0], torch.ones(2))


def test_angle_between_rotations() -> None:
    turn = torch.tensor([0.0, 0.4, 0.0], dtype=torch.float64)
    torch.testing.assert_close(rotation_angle_rad(turn, -turn), torch.tensor(0.8, dtype=torch.float64))
    first, second = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    between = Rotation.from_rotvec(first.numpy()).inv() * Rotation.from_rotvec(second.numpy())
    np.testing.assert_allclose(rotation_angle_rad(first, second).numpy(), between.magnitude(), atol=1e-9)
