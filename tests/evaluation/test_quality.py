"""The quality of images and their status: every kind of damage on a head that is fitted exactly."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from neuface.evaluation.quality import BAD_BELOW, INTERPOLATED_SHARE, LONGEST_GAP, Quality, judge
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68
from neuface.structs import Prediction, Status, Track, WeakPerspective

TIME = 40
SIZE_HW = (200, 200)
EYE_PX = 50.0
"""About the outer-eye distance of the head in the picture."""


@dataclass
class Case:
    """A head that nods slowly in the middle of a picture, met exactly by its landmarks; each test damages them."""

    head: HeadModel
    prediction: Prediction
    points_px: Tensor
    confidence: Tensor
    status: Tensor | None = None
    uncertainty_px: Tensor | None = None

    def judge(self, starts: tuple[int, ...] = (0,)) -> tuple[Quality, list[str]]:
        track = Track(
            points_px=self.points_px,
            confidence=self.confidence,
            uncertainty_px=self.uncertainty_px,
            scheme=IBUG68,
            status=self.status,
        )
        quality, status = judge(self.head, self.prediction, track, [SIZE_HW], starts)
        assert ((quality.score >= BAD_BELOW) == (status == Status.FITTED)).all()
        assert ((quality.score >= 0) & (quality.score <= 1)).all()
        return quality, [Status(item).name for item in status[0].tolist()]


@pytest.fixture
def case(open_head: HeadModel) -> Case:
    generator = torch.Generator().manual_seed(0)
    turn = torch.zeros(1, TIME, 3)
    turn[..., 0] = 0.15 * torch.sin(torch.arange(TIME) / 6)
    params = replace(open_head.neutral(1, TIME), root_rotvec=turn)
    camera = WeakPerspective(
        scale=torch.full((1, TIME), EYE_PX / 0.09), offset=torch.full((1, TIME, 2), 100.0)
    )
    points = camera.project(open_head.landmarks(params, "ibug68"))
    shift = 100 - points.mean((1, 2), keepdim=True)
    camera = replace(camera, offset=camera.offset + shift[:, :, 0])
    noise = 0.01 * EYE_PX * torch.randn(points.shape, generator=generator)
    return Case(
        head=open_head,
        prediction=Prediction(params=params, camera=camera),
        points_px=points + shift + noise,
        confidence=torch.ones(1, TIME, 68),
    )


def damaged(names: list[str]) -> dict[int, str]:
    return {frame: name for frame, name in enumerate(names) if name != "FITTED"}


def test_landmarks_that_are_met_are_fitted_everywhere(case: Case) -> None:
    quality, names = case.judge()
    assert damaged(names) == {}
    assert float(quality.score.min()) > 0.9


@pytest.mark.parametrize("part", [slice(48, 68), slice(17, 22), slice(36, 42), slice(0, 8)])
def test_a_part_of_the_face_that_jumps_is_poor(case: Case, part: slice) -> None:
    case.points_px[0, 12, part] += 0.15 * EYE_PX
    assert damaged(case.judge()[1]) == {12: "POOR"}


def test_landmarks_that_stay_off_the_head_are_poor(case: Case) -> None:
    case.points_px[0, 10:18, 48:68, 1] += 0.15 * EYE_PX
    assert damaged(case.judge()[1]) == dict.fromkeys(range(10, 18), "POOR")


def test_a_constant_difference_of_definition_is_not_poor(case: Case) -> None:
    """A detector may place a part of the face elsewhere than the head model does."""
    case.points_px[0, :, 17:27, 1] -= 0.06 * EYE_PX
    assert damaged(case.judge()[1]) == {}


def test_hidden_points_without_confidence_are_occluded(case: Case) -> None:
    case.confidence[0, 5:9, 20:60] = 0.1
    assert damaged(case.judge()[1]) == dict.fromkeys(range(5, 9), "OCCLUDED")


def test_points_whose_detector_is_uncertain_are_occluded(case: Case) -> None:
    case.uncertainty_px = torch.full((1, TIME, 68), 0.02 * EYE_PX)
    case.uncertainty_px[0, 5:9] = 0.2 * EYE_PX
    assert damaged(case.judge()[1]) == dict.fromkeys(range(5, 9), "OCCLUDED")


def test_a_face_at_the_border_is_cut_off(case: Case) -> None:
    right = torch.zeros(TIME)
    right[20:26] = 110.0
    case.points_px[0, :, :, 0] += right[:, None]
    offset = case.prediction.camera.position.clone()
    offset[0, :, 0] += right
    case.prediction = replace(
        case.prediction,
        camera=WeakPerspective(scale=case.prediction.camera.magnification, offset=offset),
    )
    names = damaged(case.judge()[1])
    assert names == dict.fromkeys(range(20, 26), "CUT_OFF")
    # Detectors leave out what lies beyond the border; where then nothing is found, the face has left the picture.
    case.confidence[0, 22:26] = 0
    assert damaged(case.judge()[1]) == dict.fromkeys(range(20, 26), "CUT_OFF")


def test_a_short_gap_is_interpolated_and_a_long_one_is_not(case: Case) -> None:
    case.confidence[0, 5:7] = 0
    case.confidence[0, 15 : 15 + LONGEST_GAP + 1] = 0
    quality, names = case.judge()
    assert damaged(names) == {
        **dict.fromkeys((5, 6), "INTERPOLATED"),
        **dict.fromkeys(range(15, 16 + LONGEST_GAP), "NO_FACE"),
    }
    assert float(quality.score[0, 5]) == pytest.approx(
        INTERPOLATED_SHARE * float(quality.score[0, [4, 7]].min())
    )
    assert not quality.score[0, 15 : 16 + LONGEST_GAP].any()


def test_nothing_is_interpolated_over_a_cut_or_at_an_end(case: Case) -> None:
    case.confidence[0, 5:7] = 0
    case.confidence[0, 38:] = 0
    expected = dict.fromkeys((5, 6, 38, 39), "NO_FACE")
    assert damaged(case.judge(starts=(0, 6))[1]) == expected


def test_a_cut_is_no_jump(case: Case) -> None:
    case.points_px[0, 20:22, 48:68, 1] += 0.15 * EYE_PX
    case.points_px[0, 22:, 48:68, 1] += 0.3 * EYE_PX
    within, across = (case.judge(starts=starts)[0].steadiness[0] for starts in ((0, 20, 22), (0,)))
    assert float(within.min()) > 0.9
    assert float(across[20]) < BAD_BELOW


def test_what_the_track_knows_of_its_missing_frames_is_kept(case: Case) -> None:
    case.status = torch.zeros(1, TIME, dtype=torch.int64)
    for first, reason in ((3, Status.ANOTHER_PERSON), (20, Status.UNREADABLE)):
        case.confidence[0, first : first + 12] = 0
        case.status[0, first : first + 12] = int(reason)
    names = case.judge()[1]
    assert names[3:15] == ["ANOTHER_PERSON"] * 12
    assert names[20:32] == ["UNREADABLE"] * 12


def test_a_clip_without_any_landmark_has_no_quality(case: Case) -> None:
    case.confidence[:] = 0
    quality, names = case.judge()
    assert set(names) == {"NO_FACE"}
    assert not quality.score.any()


def test_a_head_that_is_not_finite_is_poor(case: Case) -> None:
    scale = case.prediction.camera.magnification.clone()
    scale[0, 7] = torch.nan
    camera = WeakPerspective(scale=scale, offset=case.prediction.camera.position)
    case.prediction = replace(case.prediction, camera=camera)
    assert damaged(case.judge()[1]) == {7: "POOR"}
