"""The estimate of a clip's person: what it finds, and what it does with landmarks as detectors give them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_problems import limited, same
from talking_people import (
    correlated_noise_mm,
    estimate,
    expression_error_mm,
    landmarks_of,
    shape_error_mm,
    talking,
    weak_prediction,
    white_noise_mm,
)

from neuface.encoders.calibration import OPEN_ENCODER
from neuface.fitting.loop import fit
from neuface.fitting.objective import FromEncoder
from neuface.fitting.parameterisation import FreeParameters
from neuface.fitting.person import estimate as module
from neuface.fitting.person.estimate import MOST_IMAGES
from neuface.fitting.targets import expression_landmarks
from neuface.head.model import HeadModel

# --- The person


def test_exact_landmarks_determine_the_person(tiny_head) -> None:
    head = tiny_head()
    truth = talking(head, 2, 12)
    found = estimate(head, weak_prediction(truth), landmarks_of(head, truth))
    assert shape_error_mm(head, torch.zeros(6).double(), truth) > 5
    assert shape_error_mm(head, found.identity, truth) < 0.3
    assert found.noise_mm < 0.2


@pytest.mark.parametrize("views", [1, 3])
def test_the_open_head_of_a_person_is_found(open_head: HeadModel, views: int) -> None:
    """White noise of half a millimetre is recognised as such, and not taken for lasting displacements."""
    truth = talking(open_head, views, 20)
    problem = landmarks_of(open_head, truth, white_noise_mm(truth, 0.5))
    found = estimate(open_head, weak_prediction(truth), problem)
    unknown = shape_error_mm(open_head, torch.zeros(100), truth)
    assert shape_error_mm(open_head, found.identity, truth) < 0.45 * unknown
    assert found.noise_mm == pytest.approx(0.5, abs=0.15)
    assert found.correlation < 0.15
    assert found.displacement_mm < 0.5
    assert found.identity.dtype == torch.float32


def test_one_photograph_is_enough(tiny_head) -> None:
    head = tiny_head()
    truth = talking(head, 1, 1)
    found = estimate(head, weak_prediction(truth), landmarks_of(head, truth))
    unknown = shape_error_mm(head, torch.zeros(6).double(), truth)
    assert shape_error_mm(head, found.identity, truth) < unknown
    assert found.correlation == 0


def test_the_size_of_crops_does_not_matter(tiny_head) -> None:
    head = tiny_head()
    truth = talking(head, 1, 8)
    initial, problem = weak_prediction(truth), landmarks_of(head, truth, white_noise_mm(truth, 0.5))
    camera = initial.camera.placed(initial.camera.position, initial.camera.magnification / 4)
    wider = estimate(
        head, replace(initial, camera=camera), replace(problem, observed_px=problem.observed_px / 4)
    )
    torch.testing.assert_close(wider.identity, estimate(head, initial, problem).identity)


# --- The errors of landmarks


def test_lasting_displacements_are_separated_from_noise_and_followed_less(open_head: HeadModel) -> None:
    truth = talking(open_head, 1, 20)
    lasting = 3.0 * torch.randn(68, 2, generator=torch.Generator().manual_seed(5))
    noise = white_noise_mm(truth, 0.5)
    exact, displaced = (
        estimate(open_head, weak_prediction(truth), landmarks_of(open_head, truth, errors))
        for errors in (noise, noise + lasting)
    )
    assert displaced.displacement_mm > 4 * exact.displacement_mm
    assert displaced.displacement_mm > 1.0
    # Following the displaced points would take a code that is far from the mean.
    assert float(displaced.identity.norm()) < 1.3 * float(exact.identity.norm())


def test_the_correlation_of_noise_over_time_is_found(open_head: HeadModel) -> None:
    truth = talking(open_head, 1, 40)
    problem = landmarks_of(open_head, truth, correlated_noise_mm(truth, 1.0, 0.8))
    assert 0.5 < estimate(open_head, weak_prediction(truth), problem).correlation < 0.9
    # The same frames as forty clips of one frame each.
    apart = replace(problem, starts=tuple(range(40)))
    assert estimate(open_head, weak_prediction(truth), apart).correlation == 0


def test_the_correlation_is_found_though_frames_are_left_out(tiny_head) -> None:
    head = tiny_head()
    truth = talking(head, 1, 2 * MOST_IMAGES)
    problem = landmarks_of(head, truth, correlated_noise_mm(truth, 1.0, 0.95))
    # Every second frame correlates by 0.9, of which poses and expressions absorb a part.
    assert 0.5 < estimate(head, weak_prediction(truth), problem).correlation < 0.95


def test_a_few_wild_frames_hardly_matter(tiny_head) -> None:
    head = tiny_head()
    truth = talking(head, 1, 16)
    noise = white_noise_mm(truth, 0.3)
    plain = estimate(head, weak_prediction(truth), landmarks_of(head, truth, noise))
    noise[:, 4:6] += 40 * torch.randn(1, 2, 68, 2, generator=torch.Generator().manual_seed(1))
    wild = estimate(head, weak_prediction(truth), landmarks_of(head, truth, noise))
    error = shape_error_mm(head, plain.identity, truth)
    assert shape_error_mm(head, wild.identity, truth) < error + 0.5


def test_only_the_ratios_of_confidences_matter(open_head: HeadModel) -> None:
    truth = talking(open_head, 1, 12)
    problem = landmarks_of(open_head, truth, white_noise_mm(truth, 0.5))
    doubtful = replace(problem, confidence=0.1 * problem.confidence)
    initial = weak_prediction(truth)
    sure, unsure = (estimate(open_head, initial, item).identity for item in (problem, doubtful))
    as_sure = replace(truth, params=replace(truth.params, identity=sure.expand(1, 12, -1)))
    assert shape_error_mm(open_head, unsure, as_sure) < 0.1


# --- Landmarks and predictions that cannot be used


def test_without_landmarks_the_predicted_identity_stays(tiny_head) -> None:
    head = tiny_head()
    truth = talking(head, 1, 6)
    initial = weak_prediction(truth)
    identity = torch.linspace(-1, 1, 6).double().expand(1, 6, -1)
    initial = replace(initial, params=replace(initial.params, identity=identity))
    problem = landmarks_of(head, truth)
    problem = replace(problem, confidence=torch.zeros_like(problem.confidence))
    found = estimate(head, initial, problem).identity
    torch.testing.assert_close(found, identity[0, 0], atol=1e-6, rtol=0)


def test_the_positions_of_missing_landmarks_are_ignored(tiny_head) -> None:
    head = tiny_head()
    truth = talking(head, 1, 8)
    problem = landmarks_of(head, truth, white_noise_mm(truth, 0.5))
    confidence = problem.confidence.clone()
    confidence[:, 2] = 0
    missing = replace(problem, confidence=confidence, valid=confidence.any(-1))
    points = problem.observed_px.clone()
    points[:, 2] = torch.nan
    initial = weak_prediction(truth)
    expected = estimate(head, initial, missing).identity
    found = estimate(head, initial, replace(missing, observed_px=points)).identity
    assert bool(expected.isfinite().all())
    assert torch.equal(found, expected)


@pytest.mark.parametrize("most", [MOST_IMAGES, 3])
def test_where_a_prediction_is_nan_the_predictions_stay(
    tiny_head, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """An encoder may fail on an image, in use or left out; the loop then reports that the fit diverged."""
    monkeypatch.setattr(module, "MOST_IMAGES", most)
    head = tiny_head()
    truth = talking(head, 1, 6)
    initial, problem = weak_prediction(truth), landmarks_of(head, truth)
    root = initial.params.root_rotvec.clone()
    root[0, 0] = torch.nan
    lost = replace(initial, params=replace(initial.params, root_rotvec=root))
    found = estimate(head, lost, problem)
    assert torch.equal(found.identity, initial.params.identity[0, 0])
    assert torch.equal(found.expression, initial.params.expression[0])
    root = initial.params.root_rotvec.clone()
    root[0, 1] = torch.nan
    lost = replace(initial, params=replace(initial.params, root_rotvec=root))
    found = estimate(head, lost, problem)
    assert bool(found.expression.isfinite().all())
    # Left out, an image does not matter to the estimate of the person.
    assert torch.equal(found.identity, initial.params.identity[0, 0]) == (most == MOST_IMAGES)


# --- Size


@pytest.mark.slow
def test_shape_determines_size(open_head: HeadModel) -> None:
    """No camera sees size, and the prediction knows nothing of it; but large heads have another shape."""
    errors, sizes = [], []
    for seed in range(6):
        truth = talking(open_head, 3, 8, seed)
        problem = landmarks_of(open_head, truth, white_noise_mm(truth, 0.5))
        found = estimate(open_head, weak_prediction(truth), problem).identity
        sizes.append(open_head.log_size(truth.params.identity[0, 0]))
        errors.append(open_head.log_size(found) - sizes[-1])
    assert float(torch.stack(errors).norm()) < 0.7 * float(torch.stack(sizes).norm())


def test_a_face_that_moves_little_is_not_a_large_one_far_away(open_head: HeadModel) -> None:
    truth = talking(open_head, 1, 12)
    found = []
    for liveliness in (0.3, 1.0):
        expression = liveliness * truth.params.expression
        acts = replace(truth, params=replace(truth.params, expression=expression))
        problem = landmarks_of(open_head, acts, white_noise_mm(acts, 0.5))
        found.append(open_head.log_size(estimate(open_head, weak_prediction(acts), problem).identity))
    assert float((found[0] - found[1]).abs()) < 0.03


@pytest.mark.parametrize("moves", [False, True])
@pytest.mark.slow
def test_a_long_clip_is_not_certain_of_a_wrong_size(open_head: HeadModel, moves: bool) -> None:
    """Neighbouring frames of a face are nearly the same, and constrain its size no more than one of them."""
    errors = []
    for seed in range(3):
        truth = talking(open_head, 1, 96, seed)
        position = torch.linspace(0, 3 if moves else 0, 96)
        # From one expression to the next within half a second.
        now, share = position.long().clamp(max=3), position.frac()[:, None].to(truth.params.expression)
        face, root = truth.params.expression[0], 0.2 * truth.params.root_rotvec[0]
        faces, roots = (torch.lerp(item[now], item[now + 1], share) for item in (face, root))
        acts = replace(truth, params=replace(truth.params, expression=faces[None], root_rotvec=roots[None]))
        problem = landmarks_of(open_head, acts, white_noise_mm(acts, 0.5))
        # Like the encoder's: some of the way from the mean to the person.
        initial = weak_prediction(acts)
        initial = replace(initial, params=replace(initial.params, identity=0.6 * truth.params.identity))
        found = estimate(open_head, initial, problem).identity
        errors.append(float(open_head.log_size(found) - open_head.log_size(truth.params.identity[0, 0])))
    assert max(map(abs, errors)) < 0.04


# --- Expressions


@pytest.mark.parametrize("views", [1, 3])
def test_expressions_are_found_with_the_person(open_head: HeadModel, views: int) -> None:
    truth = talking(open_head, views, 20)
    problem = landmarks_of(open_head, truth, white_noise_mm(truth, 0.5))
    found = estimate(open_head, weak_prediction(truth), problem)
    at_rest = expression_error_mm(open_head, torch.zeros(20, 52), truth)
    error = expression_error_mm(open_head, found.expression, truth)
    assert float(error.mean()) < 0.3 * float(at_rest.mean())
    assert found.expression.dtype == torch.float32
    assert float(found.jaw_rotvec.abs().max()) == 0


def test_a_long_clip_is_used_in_part(tiny_head) -> None:
    head = tiny_head()
    problem = landmarks_of(head, talking(head, 2, 300))
    frames = module.frames_in_use(problem)
    assert len(frames) == MOST_IMAGES // 2
    assert int(frames[0]) == 0
    assert int(frames[-1]) == 299
    assert bool((frames.diff() > 0).all())
    half = replace(problem, valid=problem.valid & (torch.arange(300) < 90))
    assert module.frames_in_use(half).tolist() == list(range(90))


@pytest.mark.slow
def test_expressions_of_frames_left_out_are_found_too(
    open_head: HeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = talking(open_head, 2, 24)
    problem = landmarks_of(open_head, truth, white_noise_mm(truth, 0.5))
    whole = estimate(open_head, weak_prediction(truth), problem).expression
    monkeypatch.setattr(module, "MOST_IMAGES", 16)
    part = estimate(open_head, weak_prediction(truth), problem).expression
    left_out = torch.ones(24, dtype=torch.bool)
    left_out[module.frames_in_use(problem)] = False
    assert int(left_out.sum()) == 16
    errors = [expression_error_mm(open_head, found, truth) for found in (whole, part)]
    assert float(errors[1][left_out].mean()) < 1.3 * float(errors[0][left_out].mean())


def test_expressions_are_interpolated_where_no_view_has_landmarks(tiny_head) -> None:
    head = tiny_head()
    truth = talking(head, 2, 9)
    problem = landmarks_of(head, truth, white_noise_mm(truth, 0.3))
    confidence = problem.confidence.clone()
    confidence[:, 3:5] = 0
    confidence[0, 7] = 0
    hidden = replace(problem, confidence=confidence, valid=confidence.any(-1))
    found = estimate(head, weak_prediction(truth), hidden).expression
    torch.testing.assert_close(found[3], torch.lerp(found[2], found[5], 1 / 3))
    torch.testing.assert_close(found[4], torch.lerp(found[2], found[5], 2 / 3))
    error = expression_error_mm(head, found, truth)
    assert float(error[7]) < 3 * float(error[[0, 1, 2, 5, 6, 8]].max())


def test_a_jaw_that_moves_is_part_of_the_expression(tiny_head) -> None:
    head = tiny_head()
    truth = talking(head, 2, 8)
    jaw = torch.zeros_like(truth.params.jaw_rotvec)
    jaw[..., 0] = torch.linspace(0, 0.3, 8)
    truth = replace(truth, params=replace(truth.params, jaw_rotvec=jaw))
    initial = weak_prediction(truth)
    initial = replace(initial, params=replace(initial.params, jaw_rotvec=torch.full_like(jaw, 0.1)))
    estimated = estimate(head, initial, landmarks_of(head, truth))
    acts = replace(truth.params[0], expression=estimated.expression, jaw_rotvec=estimated.jaw_rotvec)
    predicted = replace(
        acts, expression=torch.zeros_like(acts.expression), jaw_rotvec=initial.params.jaw_rotvec[0]
    )
    true = expression_landmarks(head, truth.params[0], "ibug68")
    error, error_before = (expression_landmarks(head, item, "ibug68") - true for item in (acts, predicted))
    assert float(error.norm()) < 0.4 * float(error_before.norm())


# --- In a fit


def test_a_fit_starts_at_the_estimate_and_its_prior_is_there(tiny_head) -> None:
    head = tiny_head()
    truth = talking(head, 1, 8)
    initial, problem = weak_prediction(truth), landmarks_of(head, truth, white_noise_mm(truth, 0.5))
    estimated = estimate(head, initial, problem).identity
    still = limited(1, 1e-12)
    outcome = fit(FreeParameters(initial), head, problem, still, calibration=OPEN_ENCODER)
    torch.testing.assert_close(outcome.prediction.params.identity[0, 0], estimated, atol=1e-4, rtol=0)
    assert outcome.history["identity_prior"][0] == pytest.approx(0, abs=1e-8)
    assert same(outcome.initial, initial)
    as_predicted = fit(
        FreeParameters(initial), head, problem, still.changed({"objective.identity_prior": FromEncoder()})
    )
    assert float(as_predicted.prediction.params.identity.abs().max()) < 1e-6


@pytest.mark.slow
def test_a_strong_expression_prior_keeps_a_fit_at_the_estimated_expressions(tiny_head) -> None:
    """Without it, every view follows its own landmarks; with it, every view shows what all landmarks determine."""
    head = tiny_head()
    truth = talking(head, 2, 6)
    initial, problem = weak_prediction(truth), landmarks_of(head, truth, white_noise_mm(truth, 2.0))
    estimated = estimate(head, initial, problem)
    acts = replace(initial.params, expression=estimated.expression.expand(2, -1, -1))
    wanted = expression_landmarks(head, acts, "ibug68")
    distances_mm = []
    for weight in (None, 1.0):
        config = limited(200, 3e-2).changed(
            {"objective.identity_prior.expression_weight": weight, "objective.multiview": None}
        )
        outcome = fit(FreeParameters(initial), head, problem, config, calibration=OPEN_ENCODER)
        shown = expression_landmarks(head, outcome.prediction.params, "ibug68")
        distances_mm.append(1000 * float((shown - wanted).square().sum(-1).mean().sqrt()))
        assert ("expected_expression" in outcome.history) == (weight is not None)
    assert distances_mm[0] > 1.0
    assert distances_mm[1] < 0.15
