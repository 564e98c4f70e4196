"""The most probable identity code: against a dense solution, and with what landmarks of real video are like."""

from __future__ import annotations

from dataclasses import replace

import pytest
import roma
import torch
from small_problems import same
from torch import Tensor

from neuface.encoders.calibration import OPEN_ENCODER
from neuface.fitting.config import FitConfig
from neuface.fitting.free import FreeParameters
from neuface.fitting.loop import fit
from neuface.fitting.person import estimate as module
from neuface.fitting.person import gauss_newton as steps
from neuface.fitting.person.estimate import MOST_IMAGES, PersonEstimate, estimate_person
from neuface.fitting.person.linear_model import LinearLandmarks
from neuface.fitting.problem import Problem
from neuface.fitting.targets import expression_landmarks
from neuface.head.expressions import sample_expressions
from neuface.head.model import HeadModel
from neuface.structs import Prediction, WeakPerspective

NDC_PER_METRE = 5.0


def talking(head: HeadModel, views: int, time: int, seed: int = 0) -> Prediction:
    """One person of a size that is not the mean's, who turns and talks before cameras 0.6 rad apart."""
    generator = torch.Generator().manual_seed(seed)
    params = head.neutral(views, time)
    like = params.identity
    person = 0.8 * torch.randn(head.num_identity, generator=generator).to(like)
    faces = sample_expressions(head.expression_names, time, generator) if head.num_expression == 52 else None
    if faces is None:
        faces = 0.7 * torch.randn(time, head.num_expression, generator=generator)
    turn = 0.15 * torch.randn(views, time, 3, generator=generator).to(like)
    turn[..., 1] += 0.6 * (torch.arange(views) - (views - 1) / 2)[:, None]
    return Prediction(
        params=replace(
            params,
            identity=person.expand(views, time, -1),
            expression=faces.to(like).expand(views, -1, -1),
            root_rotvec=turn,
        ),
        camera=WeakPerspective(
            scale=like.new_full((views, time), NDC_PER_METRE), offset=like.new_zeros(views, time, 2)
        ),
    )


def seen_by(head: HeadModel, truth: Prediction, noise_mm: Tensor | None = None) -> Problem:
    """iBUG-68 landmarks with noise of any shape that fits."""
    points = truth.camera.project(head.landmarks(truth.params, "ibug68"))
    if noise_mm is not None:
        points = points + noise_mm.to(points) * (NDC_PER_METRE / 1000)
    views, time = points.shape[:2]
    return Problem(
        inputs=points.new_zeros(views, time, 1, 1, 1),
        observed_ndc=points,
        confidence=torch.ones_like(points[..., 0]),
        valid=torch.ones(views, time, dtype=torch.bool),
        scheme="ibug68",
    )


def first_answer(truth: Prediction, seed: int = 7) -> Prediction:
    """As of an encoder that knows nothing of the person and little of the pose."""
    generator = torch.Generator().manual_seed(seed)
    params = truth.params
    off = 0.05 * torch.randn(params.root_rotvec.shape, generator=generator)
    return Prediction(
        params=replace(
            params,
            identity=torch.zeros_like(params.identity),
            expression=torch.zeros_like(params.expression),
            root_rotvec=params.root_rotvec + off.to(params.root_rotvec),
        ),
        camera=replace(truth.camera, scale=1.05 * truth.camera.scale),
    )


def estimate(head: HeadModel, initial: Prediction, problem: Problem) -> PersonEstimate:
    return estimate_person(head, initial, problem, calibration=OPEN_ENCODER)


def shape_error_mm(head: HeadModel, identity: Tensor, truth: Prediction) -> float:
    """RMS distance of the face's landmarks at rest."""
    codes = torch.stack((identity, truth.params.identity[0, 0]))
    found, true = head.landmarks(replace(head.neutral(2), identity=codes), "ibug68")
    return 1000 * float((found - true - (found - true).mean(0)).square().sum(-1).mean().sqrt())


def white(truth: Prediction, size_mm: float, seed: int = 3) -> Tensor:
    views, time = truth.camera.scale.shape
    return size_mm * torch.randn(views, time, 68, 2, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("moves_jaw", [False, True])
def test_a_step_is_that_of_all_unknowns_at_once(tiny_head, moves_jaw: bool) -> None:
    """Eliminating each moment's unknowns gives the step, and the evidence, of the dense system, whose derivatives
    autograd finds."""
    head = tiny_head()
    truth = talking(head, 2, 3)
    answer = first_answer(truth)
    if moves_jaw:
        jaw = torch.full_like(answer.params.jaw_rotvec, 0.1)
        answer = replace(answer, params=replace(answer.params, jaw_rotvec=jaw))
    problem = seen_by(head, truth, white(truth, 0.5))
    mean = answer.params.identity[0, 0]
    known = LinearLandmarks.of(head, answer, problem, torch.arange(3), mean, OPEN_ENCODER)
    state = steps.first_state(known)

    views, moments, shared, expressions = 2, 3, len(state.shared), state.expression.shape[-1]
    sizes = (shared, moments * expressions, *[views * moments * size for size in (3, 2, 1)])

    def parts(unknowns: Tensor) -> list[Tensor]:
        common, expression, turn, shift, growth = unknowns.split(sizes)
        return [
            state.shared + common,
            state.expression + expression.view(moments, expressions),
            turn.view(views, moments, 3),
            shift.view(views, moments, 2),
            growth.view(views, moments),
        ]

    def residual(unknowns: Tensor) -> Tensor:
        common, expression, turn, shift, growth = parts(unknowns)
        moved = replace(
            state,
            shared=common,
            expression=expression,
            rotation=roma.rotvec_to_rotmat(turn) @ state.rotation,
            shift=state.shift + shift,
            log_scale=state.log_scale + growth,
        )
        return known.observed - steps.projected(known, moved)[1]

    def prior(unknowns: Tensor) -> Tensor:
        common, expression, *pose = parts(unknowns)
        off, face = common - known.expected, expression - known.expression_mean
        cost = off @ steps.shared_precision(known, state) @ off
        cost = cost + ((face @ known.expression_precision) * face).sum()
        return 0.5 * (cost + steps.HOLD * sum(part.square().sum() for part in pose))

    zero = state.shared.new_zeros(sum(sizes))
    weight = steps.inverse_variances(known, state)
    each = weight[..., None].expand(-1, -1, -1, 2).flatten()
    missing = residual(zero).flatten()
    jacobian = -torch.func.jacrev(residual)(zero).flatten(0, -2)
    normal = jacobian.mT @ (each[:, None] * jacobian) + torch.func.hessian(prior)(zero)
    right = jacobian.mT @ (each * missing) - torch.func.grad(prior)(zero)
    identity = head.num_identity
    normal[:identity, :identity] += steps.FIXED * torch.outer(known.growth, known.growth)
    expected = torch.linalg.solve(normal, right)
    found = steps.gauss_newton_step(known, state, weight)
    moved = found.state
    torch.testing.assert_close(moved.shared - state.shared, expected[:shared], atol=1e-6, rtol=1e-5)
    assert float((moved.shared - state.shared)[:identity] @ known.growth) == pytest.approx(0, abs=1e-6)
    step = expected[shared:][: moments * expressions].view(moments, expressions)
    torch.testing.assert_close(moved.expression - state.expression, step, atol=1e-6, rtol=1e-5)

    # Laplace: what a Gaussian with this curvature integrates to, over what is shared alone.
    height = -0.5 * (each * missing.square()).sum() - prior(zero)
    cross = normal[:shared, shared:]
    curvature = normal[:shared, :shared] - cross @ torch.linalg.solve(normal[shared:, shared:], cross.mT)
    evidence = height - 0.5 * torch.logdet(curvature)
    assert found.log_evidence == pytest.approx(float(evidence), abs=1e-3)
    precision = known.displacement_precision
    assert known.log_density() == pytest.approx(0.5 * float(torch.logdet(precision)), abs=1e-6)


def test_exact_landmarks_tell_the_person(tiny_head) -> None:
    head = tiny_head()
    truth = talking(head, 2, 12)
    found = estimate(head, first_answer(truth), seen_by(head, truth))
    assert shape_error_mm(head, torch.zeros(6).double(), truth) > 5
    assert shape_error_mm(head, found.identity, truth) < 0.3
    assert found.noise_mm < 0.2


@pytest.mark.parametrize("views", [1, 3])
def test_the_open_head_of_a_person_is_found(open_head: HeadModel, views: int) -> None:
    """White noise of half a millimetre: noticed as such, and no lasting displacement is believed in."""
    truth = talking(open_head, views, 20)
    found = estimate(open_head, first_answer(truth), seen_by(open_head, truth, white(truth, 0.5)))
    unknown = shape_error_mm(open_head, torch.zeros(100), truth)
    assert shape_error_mm(open_head, found.identity, truth) < 0.45 * unknown
    assert found.noise_mm == pytest.approx(0.5, abs=0.15)
    assert found.correlation < 0.15
    assert found.displacement_mm < 0.5
    assert found.identity.dtype == torch.float32


def test_lasting_displacement_is_told_from_noise_and_believed_less(open_head: HeadModel) -> None:
    truth = talking(open_head, 1, 20)
    generator = torch.Generator().manual_seed(5)
    lasting = 3.0 * torch.randn(68, 2, generator=generator)
    exact = estimate(open_head, first_answer(truth), seen_by(open_head, truth, white(truth, 0.5)))
    displaced = estimate(
        open_head, first_answer(truth), seen_by(open_head, truth, white(truth, 0.5) + lasting)
    )
    assert displaced.displacement_mm > 4 * exact.displacement_mm
    assert displaced.displacement_mm > 1.0
    # Far less of the code is moved than following the points would take.
    assert float(displaced.identity.norm()) < 1.3 * float(exact.identity.norm())


def test_noise_that_lasts_from_frame_to_frame_is_noticed(open_head: HeadModel) -> None:
    truth = talking(open_head, 1, 40)
    fresh = white(truth, 1.0)
    slow = [fresh[:, 0]]
    for now in fresh[:, 1:].unbind(1):
        slow.append(0.8 * slow[-1] + 0.6 * now)
    problem = seen_by(open_head, truth, torch.stack(slow, 1))
    found = estimate(open_head, first_answer(truth), problem)
    assert 0.5 < found.correlation < 0.9
    # The same frames, none of which follows another.
    apart = replace(problem, starts=tuple(range(40)))
    assert estimate(open_head, first_answer(truth), apart).correlation == 0


def test_a_few_wild_frames_hardly_matter(tiny_head) -> None:
    head = tiny_head()
    truth = talking(head, 1, 16)
    noise = white(truth, 0.3)
    plain = estimate(head, first_answer(truth), seen_by(head, truth, noise))
    noise[:, 4:6] += 40 * torch.randn(1, 2, 68, 2, generator=torch.Generator().manual_seed(1))
    wild = estimate(head, first_answer(truth), seen_by(head, truth, noise))
    error = shape_error_mm(head, plain.identity, truth)
    assert shape_error_mm(head, wild.identity, truth) < error + 0.5


def test_the_size_of_crops_does_not_matter(tiny_head) -> None:
    head = tiny_head()
    truth = talking(head, 1, 8)
    answer, problem = first_answer(truth), seen_by(head, truth, white(truth, 0.5))
    small = replace(answer, camera=replace(answer.camera, scale=answer.camera.scale / 4))
    further = replace(problem, observed_ndc=problem.observed_ndc / 4)
    torch.testing.assert_close(
        estimate(head, small, further).identity, estimate(head, answer, problem).identity
    )


def test_without_landmarks_the_answer_stands(tiny_head) -> None:
    head = tiny_head()
    truth = talking(head, 1, 6)
    answer = first_answer(truth)
    identity = torch.linspace(-1, 1, 6).double().expand(1, 6, -1)
    answer = replace(answer, params=replace(answer.params, identity=identity))
    problem = seen_by(head, truth)
    problem = replace(problem, confidence=torch.zeros_like(problem.confidence))
    found = estimate(head, answer, problem).identity
    torch.testing.assert_close(found, identity[0, 0], atol=1e-6, rtol=0)


def test_absent_landmarks_may_be_anything(tiny_head) -> None:
    head = tiny_head()
    truth = talking(head, 1, 8)
    problem = seen_by(head, truth, white(truth, 0.5))
    confidence = problem.confidence.clone()
    confidence[:, 2] = 0
    missing = replace(problem, confidence=confidence, valid=confidence.any(-1))
    points = problem.observed_ndc.clone()
    points[:, 2] = torch.nan
    answer = first_answer(truth)
    expected = estimate(head, answer, missing).identity
    found = estimate(head, answer, replace(missing, observed_ndc=points)).identity
    assert bool(expected.isfinite().all())
    assert torch.equal(found, expected)


@pytest.mark.parametrize("most", [MOST_IMAGES, 3])
def test_an_answer_that_is_no_number_leaves_the_mean_answer(
    tiny_head, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """An encoder may fail on an image, looked at or left out; the loop then tells what became of the fit."""
    monkeypatch.setattr(module, "MOST_IMAGES", most)
    head = tiny_head()
    truth = talking(head, 1, 6)
    answer, problem = first_answer(truth), seen_by(head, truth)
    turn = answer.params.root_rotvec.clone()
    turn[0, 0] = torch.nan
    lost = replace(answer, params=replace(answer.params, root_rotvec=turn))
    found = estimate(head, lost, problem)
    assert torch.equal(found.identity, answer.params.identity[0, 0])
    assert torch.equal(found.expression, answer.params.expression[0])
    # Left out, an image does not matter to the others.
    turn = answer.params.root_rotvec.clone()
    turn[0, 1] = torch.nan
    lost = replace(answer, params=replace(answer.params, root_rotvec=turn))
    assert bool(estimate(head, lost, problem).expression.isfinite().all())


def test_one_photograph_is_enough(tiny_head) -> None:
    head = tiny_head()
    truth = talking(head, 1, 1)
    found = estimate(head, first_answer(truth), seen_by(head, truth))
    nothing = shape_error_mm(head, torch.zeros(6).double(), truth)
    assert shape_error_mm(head, found.identity, truth) < nothing
    assert found.correlation == 0


def test_a_long_clip_is_looked_at_in_part(tiny_head) -> None:
    head = tiny_head()
    problem = seen_by(head, talking(head, 2, 300))
    times = module._spread_times(problem)
    assert len(times) == MOST_IMAGES // 2
    assert int(times[0]) == 0
    assert int(times[-1]) == 299
    assert bool((times.diff() > 0).all())
    half = replace(problem, valid=problem.valid & (torch.arange(300) < 90))
    assert module._spread_times(half).tolist() == list(range(90))


def test_a_fit_starts_at_the_estimate_and_is_held_there(tiny_head) -> None:
    head = tiny_head()
    truth = talking(head, 1, 8)
    answer, problem = first_answer(truth), seen_by(head, truth, white(truth, 0.5))
    found = estimate(head, answer, problem).identity
    still = FitConfig(max_passes=1, learning_rate=1e-12)
    outcome = fit(FreeParameters(answer), head, problem, still, calibration=OPEN_ENCODER)
    torch.testing.assert_close(outcome.prediction.params.identity[0, 0], found, atol=1e-4, rtol=0)
    assert outcome.history["identity_prior"][0] == pytest.approx(0, abs=1e-8)
    assert same(outcome.initial, answer)
    as_answered = fit(FreeParameters(answer), head, problem, replace(still, expected_identity="encoder"))
    assert float(as_answered.prediction.params.identity.abs().max()) < 1e-6


def test_shape_tells_of_size(open_head: HeadModel) -> None:
    """No camera sees size, and the answer knows nothing of it; but large heads have another shape."""
    errors, sizes = [], []
    for seed in range(6):
        truth = talking(open_head, 3, 8, seed)
        problem = seen_by(open_head, truth, white(truth, 0.5))
        found = estimate(open_head, first_answer(truth), problem).identity
        sizes.append(open_head.log_size(truth.params.identity[0, 0]))
        errors.append(open_head.log_size(found) - sizes[-1])
    assert float(torch.stack(errors).norm()) < 0.7 * float(torch.stack(sizes).norm())


def test_a_face_that_moves_little_is_not_a_large_one_far_away(open_head: HeadModel) -> None:
    truth = talking(open_head, 1, 12)
    found = []
    for liveliness in (0.3, 1.0):
        expression = liveliness * truth.params.expression
        acts = replace(truth, params=replace(truth.params, expression=expression))
        problem = seen_by(open_head, acts, white(acts, 0.5))
        found.append(open_head.log_size(estimate(open_head, first_answer(acts), problem).identity))
    assert float((found[0] - found[1]).abs()) < 0.03


@pytest.mark.parametrize("moves", [False, True])
def test_a_long_clip_is_no_surer_of_a_wrong_size(open_head: HeadModel, moves: bool) -> None:
    """Neighbouring frames of a face are nearly the same, and tell no more of its size than one of them."""
    errors = []
    for seed in range(3):
        truth = talking(open_head, 1, 96, seed)
        course = torch.linspace(0, 3 if moves else 0, 96)
        # From one expression to the next within half a second.
        now, share = course.long().clamp(max=3), course.frac()[:, None].to(truth.params.expression)
        face, turn = truth.params.expression[0], 0.2 * truth.params.root_rotvec[0]
        faces, turns = (torch.lerp(item[now], item[now + 1], share) for item in (face, turn))
        acts = replace(truth, params=replace(truth.params, expression=faces[None], root_rotvec=turns[None]))
        problem = seen_by(open_head, acts, white(acts, 0.5))
        # As the encoder: some of the way from the mean to the person.
        answer = first_answer(acts)
        answer = replace(answer, params=replace(answer.params, identity=0.6 * truth.params.identity))
        found = estimate(open_head, answer, problem).identity
        errors.append(float(open_head.log_size(found) - open_head.log_size(truth.params.identity[0, 0])))
    assert max(map(abs, errors)) < 0.04


def test_confidences_count_by_their_ratio(open_head: HeadModel) -> None:
    truth = talking(open_head, 1, 12)
    problem = seen_by(open_head, truth, white(truth, 0.5))
    doubtful = replace(problem, confidence=0.1 * problem.confidence)
    answer = first_answer(truth)
    sure, unsure = (estimate(open_head, answer, item).identity for item in (problem, doubtful))
    assert (
        shape_error_mm(
            open_head, unsure, replace(truth, params=replace(truth.params, identity=sure.expand(1, 12, -1)))
        )
        < 0.1
    )


def test_noise_that_lasts_is_noticed_though_frames_are_left_out(tiny_head) -> None:
    head = tiny_head()
    truth = talking(head, 1, 2 * MOST_IMAGES)
    fresh = white(truth, 1.0)
    slow = [fresh[:, 0]]
    for now in fresh[:, 1:].unbind(1):
        slow.append(0.95 * slow[-1] + (1 - 0.95**2) ** 0.5 * now)
    found = estimate(head, first_answer(truth), seen_by(head, truth, torch.stack(slow, 1)))
    # Of every second frame 0.9, of which poses and expressions follow a part.
    assert 0.5 < found.correlation < 0.95


def expression_error_mm(head: HeadModel, expression: Tensor, truth: Prediction) -> Tensor:
    """RMS distance, per time, of what the expression makes of the landmarks to what the true one does."""
    params = truth.params[0]
    found = expression_landmarks(head, replace(params, expression=expression.to(params.expression)), "ibug68")
    miss = found - expression_landmarks(head, params, "ibug68")
    return 1000 * miss.square().sum(-1).mean(-1).sqrt()


@pytest.mark.parametrize("views", [1, 3])
def test_expressions_are_found_with_the_person(open_head: HeadModel, views: int) -> None:
    truth = talking(open_head, views, 20)
    found = estimate(open_head, first_answer(truth), seen_by(open_head, truth, white(truth, 0.5)))
    at_rest = expression_error_mm(open_head, torch.zeros(20, 52), truth)
    error = expression_error_mm(open_head, found.expression, truth)
    assert float(error.mean()) < 0.3 * float(at_rest.mean())
    assert found.expression.dtype == torch.float32
    assert float(found.jaw_rotvec.abs().max()) == 0


def test_expressions_of_moments_that_were_not_looked_at_are_found_too(
    open_head: HeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = talking(open_head, 2, 24)
    problem = seen_by(open_head, truth, white(truth, 0.5))
    whole = estimate(open_head, first_answer(truth), problem).expression
    monkeypatch.setattr(module, "MOST_IMAGES", 16)
    part = estimate(open_head, first_answer(truth), problem).expression
    left = torch.ones(24, dtype=torch.bool)
    left[module._spread_times(problem)] = False
    assert int(left.sum()) == 16
    errors = [expression_error_mm(open_head, found, truth) for found in (whole, part)]
    assert float(errors[1][left].mean()) < 1.3 * float(errors[0][left].mean())


def test_the_moments_left_out_are_as_probable_as_those_looked_at(tiny_head) -> None:
    """Asked for the same moments again, with the person as found, the answer is the same."""
    head = tiny_head()
    truth = talking(head, 2, 6)
    answer, problem = first_answer(truth), seen_by(head, truth, white(truth, 0.3))
    times = torch.arange(6)
    known = LinearLandmarks.of(head, answer, problem, times, answer.params.identity[0, 0], OPEN_ENCODER)
    state = steps.first_state(known)
    for _ in range(30):
        state = module._round(known, state)
    again = steps.followed(known, state)
    torch.testing.assert_close(again.expression, state.expression, atol=2e-3, rtol=0)
    torch.testing.assert_close(again.rotation, state.rotation, atol=2e-3, rtol=0)


def test_expressions_are_bridged_where_nothing_is_seen(tiny_head) -> None:
    head = tiny_head()
    truth = talking(head, 2, 9)
    problem = seen_by(head, truth, white(truth, 0.3))
    confidence = problem.confidence.clone()
    confidence[:, 3:5] = 0
    confidence[0, 7] = 0
    hidden = replace(problem, confidence=confidence, valid=confidence.any(-1))
    found = estimate(head, first_answer(truth), hidden).expression
    torch.testing.assert_close(found[3], torch.lerp(found[2], found[5], 1 / 3))
    torch.testing.assert_close(found[4], torch.lerp(found[2], found[5], 2 / 3))
    error = expression_error_mm(head, found, truth)
    assert float(error[7]) < 3 * float(error[[0, 1, 2, 5, 6, 8]].max())


def test_a_jaw_that_moves_is_part_of_the_expression(tiny_head) -> None:
    head = tiny_head()
    truth = talking(head, 2, 8)
    opening = torch.linspace(0, 0.3, 8)
    jaw = torch.zeros_like(truth.params.jaw_rotvec)
    jaw[..., 0] = opening
    truth = replace(truth, params=replace(truth.params, jaw_rotvec=jaw))
    answer = first_answer(truth)
    answer = replace(answer, params=replace(answer.params, jaw_rotvec=torch.full_like(jaw, 0.1)))
    found = estimate(head, answer, seen_by(head, truth))
    acts = replace(truth.params[0], expression=found.expression, jaw_rotvec=found.jaw_rotvec)
    unmoved = replace(
        acts, expression=torch.zeros_like(acts.expression), jaw_rotvec=answer.params.jaw_rotvec[0]
    )
    true = expression_landmarks(head, truth.params[0], "ibug68")
    found, start = (expression_landmarks(head, item, "ibug68") - true for item in (acts, unmoved))
    assert float(found.norm()) < 0.4 * float(start.norm())


def test_a_fit_is_held_at_the_expected_expressions(tiny_head) -> None:
    """Free to follow its landmarks it does; held strongly, every view shows what the landmarks together tell."""
    head = tiny_head()
    truth = talking(head, 2, 6)
    answer, problem = first_answer(truth), seen_by(head, truth, white(truth, 2.0))
    found = estimate(head, answer, problem)
    acts = replace(answer.params, expression=found.expression.expand(2, -1, -1))
    wanted = expression_landmarks(head, acts, "ibug68")
    missed = []
    for weight in (0.0, 1.0):
        config = FitConfig(
            expected_expression_weight=weight,
            parameters="free",
            learning_rate=3e-2,
            max_passes=200,
            multiview_weight=0.0,
        )
        outcome = fit(FreeParameters(answer), head, problem, config, calibration=OPEN_ENCODER)
        shown = expression_landmarks(head, outcome.prediction.params, "ibug68")
        missed.append(1000 * float((shown - wanted).square().sum(-1).mean().sqrt()))
        assert ("expected_expression" in outcome.history) == (weight > 0)
    assert missed[0] > 1.0
    assert missed[1] < 0.15
