"""Pose alone: exact landmarks give the exact pose, noisy ones that of least error; unsolvable images are marked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import roma
import torch
from torch import Tensor

from neuface.errors import InputError
from neuface.fitting.pose_only import resect
from neuface.geometry.rotations import rotation_angle_rad
from neuface.head.model import HeadModel
from neuface.structs import HeadParams, WeakPerspective

IMAGES = 24
MakeHead = Callable[..., HeadModel]
MakeParams = Callable[..., HeadParams]


def some_poses(count: int = IMAGES, largest_yaw: float = 1.5) -> tuple[Tensor, WeakPerspective]:
    """Heads that look sideways, nod and tilt, anywhere in the crop; float64."""
    generator = torch.Generator().manual_seed(0)

    def spread(*shape: int) -> Tensor:
        return 2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1

    angles = spread(count, 3) * torch.tensor([0.6, largest_yaw, 0.6], dtype=torch.float64)
    camera = WeakPerspective(scale=9 + 3 * spread(count), offset=0.4 * spread(count, 2))
    return roma.euler_to_rotvec("xyz", angles), camera


def observed_ndc(head: HeadModel, params: HeadParams, camera: WeakPerspective, scheme: str) -> Tensor:
    return camera.project(head.landmarks(params, scheme))


def test_exact_landmarks_give_the_exact_pose(tiny_head: MakeHead, random_params: MakeParams) -> None:
    """With a root joint away from the origin, jaw and neck rotations, and a sliding contour among the points."""
    head = tiny_head()
    root, camera = some_poses()
    true = replace(random_params(head, IMAGES), root_rotvec=root)
    for scheme in ("ibug68", "mediapipe478"):
        given = random_params(head, IMAGES, seed=1)
        given = replace(true, root_rotvec=given.root_rotvec)
        observed = observed_ndc(head, true, camera, scheme)
        found = resect(head, given, observed, torch.ones(observed.shape[:2]).double(), scheme)
        assert bool(found.solved.all())
        assert float(rotation_angle_rad(found.prediction.params.root_rotvec, root).max()) < 1e-6
        torch.testing.assert_close(
            found.prediction.camera.magnification, camera.magnification, rtol=0, atol=1e-6
        )
        torch.testing.assert_close(found.prediction.camera.position, camera.position, rtol=0, atol=1e-6)
        for name in ("identity", "expression", "neck_rotvec", "jaw_rotvec", "eyes_rotvec"):
            assert getattr(found.prediction.params, name) is getattr(given, name)


def test_offsets_that_do_not_rotate_with_the_head_are_taken_into_account(
    tiny_head: MakeHead, random_params: MakeParams
) -> None:
    """Like the lids of some FLAME encoders: the head is not rigid, and its pose is exact all the same."""
    head = tiny_head()
    generator = torch.Generator().manual_seed(3)
    lids = 0.003 * torch.randn(head.num_vertices, 3, 2, generator=generator, dtype=torch.float64)
    head = replace(head, posed_basis=lids)
    root, camera = some_poses()
    true = replace(random_params(head, IMAGES), root_rotvec=root)
    observed = observed_ndc(head, true, camera, "mediapipe478")
    found = resect(head, true.unposed(), observed, torch.ones(IMAGES, 478).double(), "mediapipe478")
    assert float(rotation_angle_rad(found.prediction.params.root_rotvec, root).max()) < 1e-6


def test_faces_are_found_from_every_side_in_float32(open_head: HeadModel) -> None:
    generator = torch.Generator().manual_seed(1)
    root, camera = some_poses()
    neutral = open_head.neutral(IMAGES)
    given = replace(
        neutral,
        identity=torch.randn(neutral.identity.shape, generator=generator),
        expression=0.3 * torch.rand(neutral.expression.shape, generator=generator),
    )
    true = replace(given, root_rotvec=root.float())
    for scheme in ("ibug68", "mediapipe478"):
        observed = observed_ndc(open_head, true, camera.to(torch.float32), scheme)
        found = resect(open_head, given, observed, torch.ones(observed.shape[:2]), scheme)
        assert found.prediction.params.root_rotvec.dtype == torch.float32
        assert float(rotation_angle_rad(found.prediction.params.root_rotvec, true.root_rotvec).max()) < 1e-3
        torch.testing.assert_close(
            found.prediction.camera.magnification, camera.magnification.float(), rtol=1e-4, atol=0
        )
        # Errors of about a pixel rotate the head by about a degree; they never lead to the mirrored pose.
        noise = 0.01 * torch.randn(observed.shape, generator=generator)
        near = resect(open_head, given, observed + noise, torch.ones(observed.shape[:2]), scheme)
        far = rotation_angle_rad(near.prediction.params.root_rotvec, true.root_rotvec).rad2deg()
        assert float(far.median()) < 1
        assert float(far.max()) < 6


def test_noisy_landmarks_give_the_pose_of_least_error(tiny_head: MakeHead, random_params: MakeParams) -> None:
    """The gradient of the weighted squared error vanishes, and no step away from the solution lowers it."""
    head = tiny_head()
    root, camera = some_poses(6)
    generator = torch.Generator().manual_seed(5)
    true = replace(random_params(head, 6), root_rotvec=root)
    observed = observed_ndc(head, true, camera, "mediapipe478")
    observed = observed + 0.05 * torch.randn(observed.shape, generator=generator, dtype=torch.float64)
    weight = torch.rand(6, 478, generator=generator, dtype=torch.float64)
    found = resect(head, true, observed, weight, "mediapipe478").prediction
    unknowns = torch.cat(
        (found.params.root_rotvec, found.camera.magnification[:, None], found.camera.position), -1
    ).requires_grad_()

    def error(numbers: Tensor) -> Tensor:
        moved = WeakPerspective(scale=numbers[:, 3], offset=numbers[:, 4:])
        points = observed_ndc(head, replace(true, root_rotvec=numbers[:, :3]), moved, "mediapipe478")
        return (weight * (points - observed).square().sum(-1)).sum(-1)

    (gradient,) = torch.autograd.grad(error(unknowns).sum(), unknowns)
    assert float(gradient.abs().max()) < 1e-6
    best = error(unknowns.detach())
    assert float(best.min()) > 0.1
    for _ in range(20):
        step = 0.02 * torch.randn(6, 6, generator=generator, dtype=torch.float64)
        assert bool((error(unknowns.detach() + step) > best).all())


def test_points_count_by_the_ratios_of_their_confidences(
    tiny_head: MakeHead, random_params: MakeParams
) -> None:
    head = tiny_head()
    root, camera = some_poses()
    true = replace(random_params(head, IMAGES), root_rotvec=root)
    observed = observed_ndc(head, true, camera, "mediapipe478")
    weight = torch.rand(IMAGES, 478, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight[:, ::3] = 0
    observed[:, ::3] = torch.nan
    found = resect(head, true, observed, weight, "mediapipe478")
    assert float(rotation_angle_rad(found.prediction.params.root_rotvec, root).max()) < 1e-6
    shifted = observed.clone()
    shifted[:, 1] += 0.5
    moved = resect(head, true, shifted, weight, "mediapipe478").prediction
    scaled = resect(head, true, shifted, 0.01 * weight, "mediapipe478").prediction
    assert float(rotation_angle_rad(moved.params.root_rotvec, root).max()) > 1e-4
    torch.testing.assert_close(moved.camera.position, scaled.camera.position, rtol=0, atol=1e-8)


def test_undetermined_poses_are_nan(tiny_head: MakeHead, random_params: MakeParams) -> None:
    head = tiny_head()
    root, camera = some_poses(4)
    true = replace(random_params(head, 4), root_rotvec=root)
    observed = observed_ndc(head, true, camera, "ibug68")
    weight = torch.ones(4, 68, dtype=torch.float64)
    weight[1, 22:] = 0  # the sliding contour has no weight, so five points are left
    weight[2] = 0
    line = torch.linspace(0, 0.1, 68, dtype=torch.float64)[:, None] * torch.ones(3, dtype=torch.float64)
    found = resect(head, true, observed, weight, "ibug68")
    assert found.solved.tolist() == [True, False, False, True]
    for values in (found.prediction.params.root_rotvec, found.prediction.camera.position):
        assert values.isnan().any(-1).tolist() == [False, True, True, False]
    assert found.prediction.camera.magnification.isnan().tolist() == [False, True, True, False]
    alone = resect(head, true[[0, 3]], observed[[0, 3]], weight[[0, 3]], "ibug68")
    torch.testing.assert_close(
        alone.prediction.camera.magnification, found.prediction.camera.magnification[[0, 3]]
    )

    # All landmarks on one line: a rotation about it changes nothing.
    flat = replace(head, template=line[:30], identity_basis=0 * head.identity_basis)
    flat = replace(flat, expression_basis=0 * head.expression_basis)
    rest = flat.neutral(4)
    pixels = observed_ndc(flat, replace(rest, root_rotvec=root), camera, "mediapipe478")
    lost = resect(flat, rest, pixels, torch.ones(4, 478, dtype=torch.float64), "mediapipe478")
    assert lost.solved.tolist() == [False] * 4


def test_unknown_schemes_are_refused(tiny_head: MakeHead) -> None:
    head = tiny_head()
    with pytest.raises(InputError, match="no landmark embedding 'wflw98'"):
        resect(head, head.neutral(1), torch.zeros(1, 98, 2), torch.ones(1, 98), "wflw98")
