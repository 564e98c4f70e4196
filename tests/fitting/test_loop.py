"""The EM loop on a tiny head: it finds what it should, stops when it should, and leaves alone what it should."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_problems import (
    BATCH,
    PASSES,
    RATE,
    SCHEME,
    WARM_UP,
    camera_for,
    disturbed,
    limited,
    only,
    problem_of,
    same,
    silenced,
    turning_heads,
)
from tiny_network import TinyNetwork, pictures
from torch import Tensor

from neuface.errors import InputError
from neuface.fitting import descent
from neuface.fitting.config import FitConfig
from neuface.fitting.descent import freeze_normalisation
from neuface.fitting.loop import FitOutcome, fit
from neuface.fitting.objective import FromEncoder, MultiviewTerm
from neuface.fitting.parameterisation import POSE, FineTunedEncoder, FreeParameters, predict_clip
from neuface.fitting.problem import make_problem
from neuface.fitting.targets import Priors
from neuface.fitting.terms import batch_of, clip_parts, estimate_targets, loss_parts, targets_of_images
from neuface.geometry.rotations import rotation_angle_rad, rotvec_to_quaternion, toward_hemisphere
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68
from neuface.structs import Crop, Prediction, Track

SHARED_FROM_ENCODER = FitConfig.neural({"objective.identity_prior": FromEncoder()})

# --- What it finds


def test_a_known_pose_is_recovered(tiny_head) -> None:
    head = tiny_head()
    truth = turning_heads(head, 2, 6)
    config = SHARED_FROM_ENCODER.changed({RATE: 2e-2, PASSES: 150})
    outcome = fit(FreeParameters(disturbed(truth), POSE), head, problem_of(head, truth), config)
    found = outcome.prediction
    before = rotation_angle_rad(outcome.initial.params.root_rotvec, truth.params.root_rotvec)
    angle = rotation_angle_rad(found.params.root_rotvec, truth.params.root_rotvec)
    assert float(before.max()) > 0.2, "the start is too good to test anything"
    assert math.degrees(float(angle.max())) < 0.5
    torch.testing.assert_close(found.camera.magnification, truth.camera.magnification, atol=0.05, rtol=0)
    torch.testing.assert_close(found.camera.position, truth.camera.position, atol=0.01, rtol=0)
    # What is not trainable stays.
    torch.testing.assert_close(found.params.identity, truth.params.identity)


@pytest.mark.parametrize(("warm_up_steps", "largest_move"), [(0, 1e-3), (1, 1e-3), (10, 1e-4)])
def test_the_first_step_is_as_long_as_the_warm_up_allows(
    tiny_head, warm_up_steps: int, largest_move: float
) -> None:
    """Adam's first step moves every number by the step size, here a share of the largest."""
    head = tiny_head()
    truth = turning_heads(head, 1, 4)
    config = SHARED_FROM_ENCODER.changed({RATE: 1e-3, PASSES: 1, WARM_UP: warm_up_steps})
    outcome = fit(FreeParameters(disturbed(truth), POSE), head, problem_of(head, truth), config)
    moved = (outcome.prediction.camera.magnification - outcome.initial.camera.magnification).abs()
    assert float(moved.max()) == pytest.approx(largest_move, rel=1e-3)


def test_the_loss_falls_and_the_best_pass_is_returned(tiny_head) -> None:
    head = tiny_head()
    truth = turning_heads(head, 2, 5)
    config = SHARED_FROM_ENCODER.changed({RATE: 5e-3, PASSES: 25})
    problem = problem_of(head, truth)
    outcome = fit(FreeParameters(disturbed(truth)), head, problem, config)
    total = outcome.history["total"]
    assert len(total) == 26
    assert total[-1] < 0.5 * total[0]
    expected = outcome.initial.params.identity.mean((0, 1))
    targets = estimate_targets(head, outcome.prediction, problem, config, Priors(identity=expected))
    returned = clip_parts(head, outcome.prediction, problem, targets, config)["total"]
    assert returned == pytest.approx(min(total), abs=1e-12)


def test_the_meshes_of_two_views_approach_each_other(tiny_head, random_params) -> None:
    """With only the multi-view term, two different faces of one time become alike."""
    head = tiny_head()
    faces = random_params(head, 2, 4, scale=0.5)
    params = replace(head.neutral(2, 4), identity=faces.identity, expression=faces.expression)
    params = replace(params, root_rotvec=faces.root_rotvec)
    start = Prediction(params=params, camera=camera_for(params))
    config = FitConfig.neural({"objective": only(multiview=MultiviewTerm()), RATE: 3e-2, PASSES: 60})
    outcome = fit(FreeParameters(start, ("identity", "expression")), head, problem_of(head, start), config)

    def distance(prediction: Prediction) -> float:
        first, second = head.vertices(prediction.params.unposed())
        return float((first - second).abs().mean())

    assert distance(outcome.prediction) < 0.6 * distance(outcome.initial)


def test_the_open_head_follows_landmarks(open_head: HeadModel) -> None:
    truth = turning_heads(open_head, 1, 3)
    config = FitConfig.neural({RATE: 1e-2, PASSES: 40, WARM_UP: 0})
    problem = problem_of(open_head, truth, "ibug68")
    outcome = fit(FreeParameters(disturbed(truth, 0.1)), open_head, problem, config)
    assert outcome.history["landmark"][-1] < 0.1 * outcome.history["landmark"][0]


# --- What it leaves alone


def test_the_given_encoder_stays_as_it_is(tiny_head) -> None:
    head = tiny_head()
    truth = turning_heads(head, 1, 4)
    predictor = TinyNetwork(head).double()
    predictor.train()
    before = {name: tensor.clone() for name, tensor in predictor.state_dict().items()}
    tuned = FineTunedEncoder(predictor, pictures(1, 4))
    outcome = fit(tuned, head, problem_of(head, truth), limited(4, 1e-2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in predictor.state_dict().items())
    assert predictor.training
    assert all(parameter.requires_grad for parameter in predictor.parameters())
    assert all(parameter.grad is None for parameter in predictor.parameters())
    assert not same(outcome.initial, outcome.prediction)


class Spy(TinyNetwork):
    """Notes the state of its normalisation at every call, in whatever copy is called."""

    seen: list[tuple[bool, dict[str, Tensor]]]

    def forward(self, inputs: Tensor) -> Prediction:
        state = {name: tensor.clone() for name, tensor in self.state_dict().items()}
        type(self).seen.append((self.training, state))
        return super().forward(inputs)


def test_normalisation_is_frozen_and_dropout_is_off(tiny_head) -> None:
    head = tiny_head()
    Spy.seen = []
    predictor = Spy(head).double()
    predictor.train()
    tuned = FineTunedEncoder(predictor, pictures(1, 6))
    problem = problem_of(head, turning_heads(head, 1, 6))
    fit(tuned, head, problem, limited(3, 1e-2).changed({BATCH: 2}))
    assert not any(training for training, _ in Spy.seen)
    first, last = Spy.seen[0][1], Spy.seen[-1][1]
    for name, tensor in first.items():
        moved = not torch.equal(tensor, last[name])
        assert moved == name.startswith(("convolution", "linear")), name


def test_frozen_parameters_are_not_handed_to_the_optimiser(tiny_head) -> None:
    network = TinyNetwork(tiny_head())
    network.linear.bias.requires_grad_(False)
    trainable = freeze_normalisation(network)
    expected = (network.convolution.weight, network.convolution.bias, network.linear.weight)
    assert {id(parameter) for parameter in trainable} == {id(parameter) for parameter in expected}


# --- Every image, every time the same


@pytest.mark.parametrize("batch_size", [1, 3, 64, 1000])
def test_every_image_is_optimised(tiny_head, batch_size: int) -> None:
    head = tiny_head()
    truth = turning_heads(head, 2, 35)
    start = disturbed(truth)
    config = FitConfig.neural({BATCH: batch_size, PASSES: 1})
    outcome = fit(FreeParameters(start), head, problem_of(head, truth), config)
    moved = (outcome.prediction.camera.position - start.camera.position).abs().amax(-1)
    assert float(moved.min()) > 0
    turned = (outcome.prediction.params.root_rotvec - start.params.root_rotvec).abs().amax(-1)
    assert float(turned.min()) > 0
    torch.testing.assert_close(outcome.initial.params.root_rotvec, start.params.root_rotvec)


def test_parts_do_not_depend_on_the_batch_size(tiny_head, random_params) -> None:
    head = tiny_head()
    truth = turning_heads(head, 2, 7)
    problem = silenced(problem_of(head, truth), [(0, 2), (1, 5)])
    current = disturbed(truth)
    targets = estimate_targets(head, current, problem, FitConfig.neural())
    whole, *others = (
        clip_parts(head, current, problem, targets, FitConfig.neural({BATCH: size}))
        for size in (1000, 1, 3, 14)
    )
    for parts in others:
        assert parts == pytest.approx(whole)


def test_parts_of_each_image_are_those_of_its_place(tiny_head, random_params) -> None:
    head = tiny_head()
    params = random_params(head, 2, 5)
    current = Prediction(params=params, camera=camera_for(params))
    problem = problem_of(head, turning_heads(head, 2, 5))
    targets = estimate_targets(head, current, problem, FitConfig.neural())
    index = torch.tensor([7, 3, 0, 9])
    rows = targets_of_images(targets, index, 5)
    batch = batch_of(head, current.flatten_batch(2)[index], problem, index, FitConfig.neural())
    parts = loss_parts(batch, rows, FitConfig.neural())
    for row, (view, time) in enumerate([(1, 2), (0, 3), (0, 0), (1, 4)]):
        mesh = head.vertices(params[view, time].unposed())
        apart = (mesh - targets["multiview"].value[time]).abs().sum(-1).mean()
        torch.testing.assert_close(parts["multiview"][row], apart / 10)
        points = current.camera[view, time].project(head.landmarks(params[view, time], SCHEME))
        missed = (points - problem.observed_px[view, time]).abs().sum(-1).mean()
        torch.testing.assert_close(parts["landmark"][row], missed / 10)
        turn = rotvec_to_quaternion(params.root_rotvec[view, time])
        apart = (toward_hemisphere(targets["temporal"].value[view, time], turn) - turn).norm()
        torch.testing.assert_close(parts["temporal"][row], apart / 10, atol=1e-6, rtol=0)


def test_a_step_is_scaled_to_the_clip_and_not_to_the_batch(
    tiny_head, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With plain gradient descent, six steps of one image each go six times as far as one step of all six."""
    head = tiny_head()
    truth = turning_heads(head, 1, 6)
    start = disturbed(truth)
    monkeypatch.setattr(torch.optim, "Adam", torch.optim.SGD)
    monkeypatch.setattr(descent, "GRADIENT_NORM_LIMIT", math.inf)

    def moved(batch_size: int) -> Tensor:
        config = FitConfig.neural({BATCH: batch_size, PASSES: 1, RATE: 1e-5, WARM_UP: 0})
        outcome = fit(FreeParameters(start), head, problem_of(head, truth), config)
        return outcome.prediction.camera.position - start.camera.position

    together, alone = moved(6), moved(1)
    assert float(together.abs().min()) > 0
    torch.testing.assert_close(alone, 6 * together, rtol=1e-3, atol=0)


@pytest.mark.parametrize("batch_size", [3, 64])
def test_the_same_seed_gives_the_same_result_to_the_bit(tiny_head, batch_size: int) -> None:
    head = tiny_head()
    problem = problem_of(head, turning_heads(head, 2, 5))
    tuned = FineTunedEncoder(TinyNetwork(head).double(), pictures(2, 5))

    def run(seed: int) -> FitOutcome:
        torch.rand(5)  # The global generator must not matter.
        config = limited(4, 1e-2).changed({BATCH: batch_size, "seed": seed})
        return fit(tuned, head, problem, config)

    first, second, other = run(1), run(1), run(2)
    assert same(first.prediction, second.prediction)
    assert first.history == second.history
    assert same(first.initial, other.initial)
    if batch_size == 3:
        assert not same(first.prediction, other.prediction)


class Counting(TinyNetwork):
    """Counts the images that all copies predict."""

    images: list[int]

    def forward(self, inputs: Tensor) -> Prediction:
        type(self).images.append(len(inputs))
        return super().forward(inputs)


@pytest.mark.parametrize(("batch_size", "predictions_of_a_pass"), [(3, 2), (64, 1)])
def test_a_pass_of_one_step_predicts_no_image_for_the_targets_alone(
    tiny_head, batch_size: int, predictions_of_a_pass: int
) -> None:
    head = tiny_head()
    problem = problem_of(head, turning_heads(head, 2, 5))
    tuned = FineTunedEncoder(Counting(head).double(), pictures(2, 5))
    config = limited(4).changed({BATCH: batch_size, "m_step.returns": "last"})
    Counting.images = []
    fit(tuned, head, problem, config)
    # Once before the first pass, once in each, and once for the result.
    assert sum(Counting.images) == 10 * (1 + 4 * predictions_of_a_pass + 1)


@pytest.mark.parametrize("batch_size", [3, 64])
def test_the_returned_prediction_is_that_of_the_returned_encoder(tiny_head, batch_size: int) -> None:
    head = tiny_head()
    problem = problem_of(head, turning_heads(head, 1, 6))
    tuned = FineTunedEncoder(TinyNetwork(head).double(), pictures(1, 6))
    # Steps so long that the last pass is not the best.
    outcome = fit(tuned, head, problem, limited(5, 1.0).changed({BATCH: batch_size}))
    total = outcome.history["total"]
    assert min(total) < total[-1]
    assert outcome.encoder is not None
    network = outcome.encoder.encoder
    again = predict_clip(FineTunedEncoder(network, pictures(1, 6)), (1, 6), 64)
    torch.testing.assert_close(again.params.root_rotvec, outcome.prediction.params.root_rotvec)
    torch.testing.assert_close(again.camera.position, outcome.prediction.camera.position)


# --- The pieces around it


def test_problems_are_in_crop_units_and_silence_bad_frames() -> None:
    points = torch.tensor([[[[49.5, 49.5], [99.5, -0.5]], [[10.0, 10.0], [0.0, 0.0]]]])
    landmarks = Track(points_px=points, confidence=torch.full((1, 2, 2), 0.5), scheme=IBUG68)
    crops = Crop(T_crop_frame=torch.eye(3).expand(1, 2, 3, 3), size_px=100)
    valid = torch.tensor([[True, False]])
    problem = make_problem(landmarks, crops, valid)
    torch.testing.assert_close(
        problem.observed_ndc(torch.tensor([0]))[0], torch.tensor([[0.0, 0.0], [1.0, -1.0]])
    )
    torch.testing.assert_close(problem.confidence, torch.tensor([[[0.5, 0.5], [0.0, 0.0]]]))
    assert (problem.views, problem.time) == (1, 2)


def test_predictions_are_put_together_in_order(tiny_head, random_params) -> None:
    params = random_params(tiny_head(), 7)
    whole = Prediction(params=params, camera=camera_for(params))
    pieces = [whole[:3], whole[3:5], whole[5:]]
    assert same(Prediction.cat(pieces), whole)
    clip = turning_heads(tiny_head(), 2, 5)
    asked = predict_clip(FreeParameters(clip), (2, 5), 3)
    assert same(asked, clip)


def test_free_parameters_move_only_what_is_named(tiny_head) -> None:
    truth = turning_heads(tiny_head(), 2, 3)
    free = FreeParameters(truth, ("jaw_rotvec", "scale"))
    assert {name for name, _ in free.named_parameters()} == {"tensors.jaw_rotvec", "tensors.scale"}
    picked = free.predict(torch.tensor([4, 1]))
    torch.testing.assert_close(picked.params.root_rotvec, truth.params.root_rotvec.flatten(0, 1)[[4, 1]])
    with pytest.raises(InputError, match=r"unknown parameters \['nose'\]"):
        FreeParameters(truth, ("nose",))
