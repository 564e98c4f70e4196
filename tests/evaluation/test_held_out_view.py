"""The held-out-view error: zero for the truth, known amounts for known errors; fits never see the view."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from neuface.clips import read_clip
from neuface.errors import InputError
from neuface.evaluation.held_out_view import (
    held_out_view_error,
    leave_one_view_out,
    mean_over_views,
    view_means,
    without_view,
)
from neuface.fitting.config import FitConfig
from neuface.frames import Clip
from neuface.head.model import HeadModel
from neuface.models import FaceModel, load_model
from neuface.pipeline import optimize
from neuface.results.fit_result import FitResult
from neuface.structs import Prediction, WeakPerspective
from neuface.synthetic.clips import SyntheticClip, make_talking_clip

VIEWS, TIME = 3, 4
QUICK = FitConfig.best({"m_step.stop.max_passes": 1})


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return load_model("open")


@pytest.fixture(scope="module")
def rendered(open_head: HeadModel) -> SyntheticClip:
    identity = torch.randn(open_head.num_identity, generator=torch.Generator().manual_seed(0))
    return make_talking_clip(open_head, identity, time=TIME, size_px=64, noise_px=0.0)


@pytest.fixture(scope="module")
def clip(rendered: SyntheticClip) -> Clip:
    return read_clip(rendered.frames, rendered.landmarks_px, names=["left", "front", "right"])


def truth_of_others(rendered: SyntheticClip, view: int) -> Prediction:
    """The true heads of the other views, with arbitrary poses and cameras."""
    kept = [number for number in range(VIEWS) if number != view]
    params = rendered.truth[kept]
    return Prediction(
        params=replace(params, root_rotvec=torch.ones_like(params.root_rotvec)),
        camera=WeakPerspective(
            scale=torch.full((VIEWS - 1, TIME), 3.0), offset=torch.ones(VIEWS - 1, TIME, 2)
        ),
    )


ALL_VALID = torch.ones(VIEWS - 1, TIME, dtype=torch.bool)


@pytest.mark.parametrize("view", range(VIEWS))
def test_the_true_head_has_no_error_in_a_view_left_out(
    open_head: HeadModel, rendered: SyntheticClip, clip: Clip, view: int
) -> None:
    errors = held_out_view_error(
        open_head, truth_of_others(rendered, view), ALL_VALID, clip.track[view : view + 1]
    )
    assert errors.nme51_percent.shape == (1, TIME)
    assert float(errors.nme51_percent.max()) < 1e-2
    assert float(errors.nme51_head_percent.max()) < 1e-2


def test_wrong_identity_or_expression_shows_in_the_view_left_out(
    open_head: HeadModel, rendered: SyntheticClip, clip: Clip
) -> None:
    """No pose compensates a wrong identity in all views, or a wrong expression in one frame of one view."""
    truth = truth_of_others(rendered, 0)
    landmarks = clip.track[:1]
    other = replace(truth, params=replace(truth.params, identity=-truth.params.identity))
    wrong = held_out_view_error(open_head, other, ALL_VALID, landmarks)
    assert 1 < float(wrong.nme51_percent.min()) < 20

    expression = truth.params.expression.clone()
    expression[1, 2] = 1 - expression[1, 2]
    bent = replace(truth, params=replace(truth.params, expression=expression))
    errors = held_out_view_error(open_head, bent, ALL_VALID, landmarks).nme51_percent[0]
    assert float(errors[2]) > 1 > 100 * float(errors[[0, 1, 3]].max())
    # A view without a face in that frame is not part of its mean.
    unseen = ALL_VALID.clone()
    unseen[1, 2] = False
    errors = held_out_view_error(open_head, bent, unseen, landmarks).nme51_percent[0]
    assert float(errors.max()) < 1e-2


def test_one_displaced_landmark_gives_the_known_percentage(
    open_head: HeadModel, rendered: SyntheticClip, clip: Clip
) -> None:
    """Its confidence is near zero, so that the pose does not change: the error is its distance over 51, in
    percent.
    """
    points, confidence = clip.track.points_px.clone(), clip.track.confidence.clone()
    points[0, :, 30, 0] += 5.0
    confidence[0, :, 30] = 1e-7
    landmarks = replace(clip.track, points_px=points, confidence=confidence)[:1]
    errors = held_out_view_error(open_head, truth_of_others(rendered, 0), ALL_VALID, landmarks)
    eyes_px = torch.linalg.vector_norm(points[0, :, 36] - points[0, :, 45], dim=-1)
    torch.testing.assert_close(errors.nme51_percent[0], 100 * 5.0 / 51 / eyes_px, rtol=2e-3, atol=0)
    corners = open_head.landmarks(rendered.truth[0], "ibug68")[:, [36, 45]]
    apart = torch.linalg.vector_norm(corners[:, 0] - corners[:, 1], dim=-1)
    # The renderer's camera is in half-widths of the whole frame.
    apart_px = apart * rendered.camera.magnification[0] * 64 / 2
    assert bool((apart_px > 1.1 * eyes_px).all())
    torch.testing.assert_close(errors.nme51_head_percent[0], 100 * 5.0 / 51 / apart_px, rtol=2e-3, atol=0)


def test_frames_that_no_other_view_observed_are_nan(
    open_head: HeadModel, rendered: SyntheticClip, clip: Clip
) -> None:
    valid = ALL_VALID.clone()
    valid[:, 1] = False
    confidence = clip.track.confidence.clone()
    confidence[0, 3] = 0
    landmarks = replace(clip.track, confidence=confidence)[:1]
    errors = held_out_view_error(open_head, truth_of_others(rendered, 0), valid, landmarks)
    for figures in (errors.nme51_percent, errors.nme51_head_percent):
        assert figures.isnan().tolist() == [[False, True, False, True]]


def test_wrong_inputs_are_refused(open_head: HeadModel, rendered: SyntheticClip, clip: Clip) -> None:
    prediction = truth_of_others(rendered, 0)
    with pytest.raises(InputError, match="3 view"):
        held_out_view_error(open_head, prediction, ALL_VALID, clip.track)
    with pytest.raises(InputError, match="no image with landmarks"):
        held_out_view_error(open_head, prediction, ~ALL_VALID, clip.track[:1])


def test_a_clip_without_a_view_has_the_other_views(clip: Clip) -> None:
    others = without_view(clip, 1)
    assert (others.views, others.time, others.recording.names) == (2, TIME, ("left", "right"))
    assert others.recording.frames.size_hw(1) == clip.recording.frames.size_hw(2)
    assert torch.equal(others.recording.frames.read(1, 1, 3), clip.recording.frames.read(2, 1, 3))
    assert torch.equal(others.track.points_px, clip.track.points_px[[0, 2]])
    with pytest.raises(InputError, match="view 2 does not exist"):
        others.recording.frames.read(2, 0, 1)
    for view in (-1, 3):
        with pytest.raises(InputError, match="cannot be left out"):
            without_view(clip, view)


def test_no_fit_sees_the_view_left_out(model: FaceModel, clip: Clip) -> None:
    fitted: list[tuple[str, ...]] = []
    results: list[FitResult] = []

    def watched(others: Clip) -> FitResult:
        fitted.append(others.recording.names)
        results.append(optimize(others, model=model, config=QUICK, progress=False))
        return results[-1]

    pair = without_view(clip, 1)
    found = leave_one_view_out(pair, model.head, watched, progress=False)
    assert fitted == [("right",), ("left",)]
    assert found.names == pair.recording.names == ("left", "right")
    assert found.fitted.nme51_percent.shape == found.initial.nme51_percent.shape == (2, TIME)
    assert bool(found.fitted.nme51_percent.isfinite().all())
    assert bool((found.fitted.nme51_head_percent <= found.fitted.nme51_percent).all())
    assert all(seconds is not None and seconds > 0 for seconds in found.seconds)
    for view, result in enumerate(results):
        one = slice(view, view + 1)
        for errors, prediction in ((found.fitted, result.prediction), (found.initial, result.initial)):
            expected = held_out_view_error(model.head, prediction, result.valid, pair.track[one])
            torch.testing.assert_close(errors.nme51_percent[one], expected.nme51_percent)
            torch.testing.assert_close(errors.nme51_head_percent[one], expected.nme51_head_percent)


def no_fit_expected(others: Clip) -> FitResult:
    raise AssertionError(f"a fit of {others.recording.names} was asked for")


def test_views_without_a_face_have_no_figure(model: FaceModel, clip: Clip) -> None:
    confidence = clip.track.confidence.clone()
    confidence[1:] = 0
    blind = replace(clip, track=replace(clip.track, confidence=confidence))
    # Without the only view that observed the face no view remains; the other views have no landmarks to compare with.
    found = leave_one_view_out(blind, model.head, no_fit_expected, progress=False)
    assert found.seconds == (None, None, None)
    assert view_means(found.fitted.nme51_percent) == (None, None, None)
    assert mean_over_views(found.fitted.nme51_percent) is None
    with pytest.raises(InputError, match="at least two views"):
        leave_one_view_out(without_view(without_view(clip, 0), 0), model.head, no_fit_expected)


def test_means_are_over_frames_then_views() -> None:
    errors = torch.tensor([[1.0, 3.0, torch.nan], [5.0, torch.nan, torch.nan], [torch.nan] * 3])
    assert view_means(errors) == (2.0, 5.0, None)
    assert mean_over_views(errors) == 3.5
