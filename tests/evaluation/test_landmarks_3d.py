"""The 3D landmark error: heads in front of known cameras, with known errors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import roma
import torch
from torch import Tensor

from neuface.errors import InputError
from neuface.evaluation.landmarks_3d import landmark_3d_errors_mm, triangulate_inner51
from neuface.geometry.perspective import PerspectiveCamera
from neuface.geometry.triangulation import Triangulation
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import MEDIAPIPE478
from neuface.structs import HeadParams, Track

VIEWS, TIME = 3, 5
SIZE = 1.25
"""Size of the person relative to the head model's."""


def cameras() -> PerspectiveCamera:
    """Three cameras a metre away, 30 degrees apart; float64."""
    yaw = torch.deg2rad(torch.tensor([-30.0, 0.0, 30.0], dtype=torch.float64))
    turn = roma.euler_to_rotmat("y", yaw[:, None])
    # World: as the head frame. Camera: x right, y down, z ahead.
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    K = torch.tensor([[1000.0, 0, 640], [0, 1000, 360], [0, 0, 1]], dtype=torch.float64)
    return PerspectiveCamera(
        K=K.repeat(VIEWS, 1, 1),
        distortion=torch.tensor([-0.2, 0.1, 0.0, 0.001, 0.0], dtype=torch.float64).repeat(VIEWS, 1),
        rotation=flip @ turn,
        translation=torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).repeat(VIEWS, 1),
    )


def heads_in_space(head: HeadModel) -> tuple[HeadParams, Tensor]:
    """A moving, talking head in the axes of every camera, `views time`, and its landmarks in the world."""
    generator = torch.Generator().manual_seed(0)

    def spread(*shape: int) -> Tensor:
        return 2 * torch.rand(*shape, generator=generator, dtype=torch.float64) - 1

    neutral = head.neutral(TIME)
    motion = 0.3 * spread(TIME, 3)
    in_world = replace(
        neutral,
        identity=spread(head.num_identity).expand(TIME, -1),
        expression=0.3 * spread(*neutral.expression.shape).abs(),
        root_rotvec=motion,
    )
    # The same points of the skin for all cameras.
    points = head.landmarks(in_world, MEDIAPIPE478.name, facing=in_world.unposed())
    world = SIZE * points + 0.05 * spread(TIME, 1, 3)
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    to_view = roma.rotmat_to_rotvec(flip @ cameras().rotation)
    seen = in_world.map_tensors(lambda tensor: tensor.expand(VIEWS, *tensor.shape))
    turned = roma.rotvec_composition((to_view[:, None].expand(-1, TIME, -1), motion.expand(VIEWS, -1, -1)))
    return replace(seen, root_rotvec=turned), world


def landmarks_of(world: Tensor) -> Track:
    points = cameras().project(world.flatten(0, 1).expand(VIEWS, -1, -1)).unflatten(1, (TIME, -1))
    return Track(points_px=points, confidence=torch.ones(points.shape[:-1]).double(), scheme=MEDIAPIPE478)


@pytest.fixture(scope="module")
def head(open_head: HeadModel) -> HeadModel:
    return open_head.to(torch.float64)


@pytest.fixture(scope="module")
def params(head: HeadModel) -> HeadParams:
    return heads_in_space(head)[0]


@pytest.fixture(scope="module")
def truth(head: HeadModel) -> Triangulation:
    return triangulate_inner51(cameras(), landmarks_of(heads_in_space(head)[1]))


ALL_VALID = torch.ones(VIEWS, TIME, dtype=torch.bool)


@pytest.mark.parametrize("rotation_per", ["image", "view"])
def test_true_heads_have_no_error_at_any_size_and_position(
    head: HeadModel, params: HeadParams, truth: Triangulation, rotation_per: str
) -> None:
    assert bool(truth.valid.all())
    errors = landmark_3d_errors_mm(head, params, ALL_VALID, MEDIAPIPE478, truth, rotation_per=rotation_per)
    assert errors.shape == (VIEWS, TIME, 51)
    assert float(errors.max()) < 1e-4


def test_a_wrong_head_rotation_counts_with_one_rotation_per_view(
    head: HeadModel, params: HeadParams, truth: Triangulation
) -> None:
    turned = params.root_rotvec.clone()
    turned[1, 2] += 0.2
    wrong = replace(params, root_rotvec=turned)
    alone = landmark_3d_errors_mm(head, wrong, ALL_VALID, MEDIAPIPE478, truth)
    assert float(alone.max()) < 1e-4
    whole = landmark_3d_errors_mm(head, wrong, ALL_VALID, MEDIAPIPE478, truth, rotation_per="view").mean(-1)
    assert float(whole[1, 2]) == float(whole.max()) > 3
    assert float(whole[[0, 2]].max()) < 1


def test_the_clip_has_one_scale(head: HeadModel, params: HeadParams, truth: Triangulation) -> None:
    """A frame in which the person is 10 % larger keeps that error: no frame has a scale of its own."""
    larger = truth.points.clone()
    larger[3] *= 1.1
    errors = landmark_3d_errors_mm(head, params, ALL_VALID, MEDIAPIPE478, replace(truth, points=larger)).mean(
        (0, 2)
    )
    assert float(errors[3]) == float(errors.max()) > 2
    only = truth[3:4]
    shrunk = replace(only, points=0.7 * only.points)
    assert (
        float(landmark_3d_errors_mm(head, params[:, 3:4], ALL_VALID[:, 3:4], MEDIAPIPE478, shrunk).max())
        < 1e-4
    )


def test_the_error_of_a_displaced_point_is_in_millimetres(
    head: HeadModel, params: HeadParams, truth: Triangulation
) -> None:
    moved = truth.points.clone()
    moved[2, 10, 1] += 1e-3
    errors = landmark_3d_errors_mm(head, params, ALL_VALID, MEDIAPIPE478, replace(truth, points=moved))
    # The fifty other points determine the head's pose almost alone.
    assert 0.9 < float(errors[0, 2, 10]) < 1
    assert float(errors[0, 2].median()) < 0.06
    assert float(errors[:, [0, 1, 3, 4]].max()) < 1e-2


def test_unknown_points_are_nan_and_do_not_count(
    head: HeadModel, params: HeadParams, truth: Triangulation
) -> None:
    known = truth.valid.clone()
    known[0, :20] = False
    known[1, 5:] = False  # five points are too few
    seen = ALL_VALID.clone()
    seen[2, 4] = False
    spoilt = torch.where(known[..., None], truth.points, torch.nan)
    bent = params.root_rotvec.clone()
    bent[2, 4] = 1.0
    errors = landmark_3d_errors_mm(
        head,
        replace(params, root_rotvec=bent),
        seen,
        MEDIAPIPE478,
        replace(truth, points=spoilt, valid=known),
        rotation_per="view",
    )
    expected = known.expand(VIEWS, -1, -1).clone()
    expected[:, 1] = False
    expected[2, 4] = False
    assert torch.equal(errors.isfinite(), expected)
    assert float(errors.nan_to_num().max()) < 1e-4


def test_wrong_inputs_are_refused(head: HeadModel, params: HeadParams, truth: Triangulation) -> None:
    with pytest.raises(InputError, match="rotation_per"):
        landmark_3d_errors_mm(head, params, ALL_VALID, MEDIAPIPE478, truth, rotation_per="clip")
    with pytest.raises(InputError, match="triangulated points of shape"):
        landmark_3d_errors_mm(head, params, ALL_VALID, MEDIAPIPE478, truth[:3])
