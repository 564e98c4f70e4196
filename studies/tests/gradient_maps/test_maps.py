"""The steps behind the gradient maps against finite differences and worked-out cases."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from neuface import losses
from neuface.encoders.predictor import Predictor
from neuface.errors import InputError
from neuface.fitting.parameterisation import FineTunedEncoder, FreeParameters
from neuface.frames import Clip
from neuface.head.model import HeadModel
from neuface.models import FaceModel
from neuface.structs import HeadParams, Prediction, WeakPerspective
from studies.common.cases import CaseSpec, make_case
from studies.gradient_maps.maps import (
    GradientMapConfig,
    GradientMaps,
    Objective,
    StepMaps,
    gradient_maps,
    gradient_picture,
    map_figures,
    mean_cosine,
    moved_share,
    predicted_fields,
    step_maps,
)

MOVED = ("scale", "offset", "root_rotvec", "identity", "expression")
ONE_PERCENT = GradientMapConfig()
THREE_IMAGES = GradientMapConfig(images=3)


class LinearPredictor(Predictor):
    """One layer without bias from four numbers of the picture to the parameters in MOVED."""

    input_px = 2

    def __init__(self, start: Prediction, hidden: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.start = start
        values = {**vars(start.params), **vars(start.camera)}
        self.sizes = [values[name][0].numel() for name in MOVED]
        self.inner = nn.Linear(4, hidden, bias=False).double() if hidden else nn.Identity()
        self.outer = nn.Linear(hidden or 4, sum(self.sizes), bias=False).double()
        for weights in self.parameters():
            nn.init.normal_(weights, std=0.1, generator=generator)

    def prepare(self, crops: Tensor) -> Tensor:
        return crops

    def forward(self, inputs: Tensor) -> Prediction:
        scale, offset, root, identity, expression = self.outer(
            torch.tanh(self.inner(inputs.flatten(1)))
            if isinstance(self.inner, nn.Linear)
            else inputs.flatten(1)
        ).split(self.sizes, -1)
        start = self.start[torch.zeros(len(inputs), dtype=torch.int64)]
        params = replace(
            start.params,
            root_rotvec=start.params.root_rotvec + root,
            identity=identity,
            expression=expression,
        )
        camera = WeakPerspective(scale=start.camera.magnification + scale[:, 0], offset=offset)
        return Prediction(params=params, camera=camera)


@pytest.fixture(scope="module")
def head(tiny_head: Callable[..., HeadModel]) -> HeadModel:
    return tiny_head()


@pytest.fixture(scope="module")
def start(head: HeadModel, random_params: Callable[..., HeadParams]) -> Prediction:
    """Two images."""
    return Prediction(
        params=random_params(head, 2, scale=0.2),
        camera=WeakPerspective(scale=torch.tensor([7.0, 9.0]).double(), offset=torch.zeros(2, 2).double()),
    )


@pytest.fixture(scope="module")
def observed(head: HeadModel, random_params: Callable[..., HeadParams]) -> Tensor:
    params = random_params(head, 2, seed=1, scale=0.2)
    camera = WeakPerspective(scale=torch.tensor([8.0, 8.0]).double(), offset=torch.zeros(2, 2).double())
    return camera.project(head.landmarks(params, "ibug68"))


def landmark_objectives(head: HeadModel, observed: Tensor) -> list[Objective]:
    def loss(points: Tensor, prediction: Prediction) -> Tensor:
        found = prediction.camera.project(head.landmarks(prediction.params, "ibug68"))
        return losses.landmark_loss(found, points[None], torch.ones_like(points[None, :, 0]))[0]

    return [partial(loss, points) for points in observed]


def no_pull(prediction: Prediction) -> Tensor:
    return prediction.params.identity.sum()


def free_steps(
    start: Prediction, head: HeadModel, objectives: list[Objective], config: GradientMapConfig = ONE_PERCENT
) -> StepMaps:
    return step_maps(FreeParameters(start, MOVED), head, objectives, no_pull, config)


def with_values(start: Prediction, row: int, values: Tensor) -> Prediction:
    """One image with the parameters in MOVED replaced by a flat list."""
    named = {**vars(start.params), **vars(start.camera)}
    parts = values.split([named[name][row].numel() for name in MOVED])
    scale, offset, root, identity, expression = (part[None] for part in parts)
    params = replace(start.params[row : row + 1], root_rotvec=root, identity=identity, expression=expression)
    return Prediction(params=params, camera=WeakPerspective(scale=scale[:, 0], offset=offset))


def flat_values(start: Prediction, row: int) -> Tensor:
    named = {**vars(start.params), **vars(start.camera)}
    return torch.cat([named[name][row].flatten() for name in MOVED])


def slopes_by_differences(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-6) -> Tensor:
    """One row per parameter."""
    moved = step * torch.eye(len(at)).double()
    return torch.stack([(function(at + change) - function(at - change)) / (2 * step) for change in moved])


@pytest.mark.parametrize("direction", ["gradient", "adam"])
def test_the_step_of_free_parameters_is_the_analytic_one(
    head: HeadModel, start: Prediction, observed: Tensor, direction: str
) -> None:
    objectives = landmark_objectives(head, observed)
    found = free_steps(start, head, objectives, GradientMapConfig(direction=direction))  # type: ignore[arg-type]
    for row, objective in enumerate(objectives):
        at = flat_values(start, row)
        slope = slopes_by_differences(lambda x, of=objective, i=row: of(with_values(start, i, x)), at)
        jacobian = slopes_by_differences(
            lambda x, i=row: head.vertices(with_values(start, i, x).params.unposed())[0], at
        )
        along = slope if direction == "gradient" else slope.sign() * (slope.abs() > 1e-9)
        size = 0.01 * objective(start[row : row + 1]) / (slope @ along)
        expected = -1000 * size * torch.einsum("p v c, p -> v c", jacobian, along)
        torch.testing.assert_close(found.displacement_mm[row], expected, rtol=1e-3, atol=1e-6)
        # scale, offset and root rotation come first: 6 numbers that leave the unposed mesh as it is.
        share = (slope[6:] @ along[6:]) / (slope @ along)
        torch.testing.assert_close(found.shape_share[row], share, rtol=1e-4, atol=1e-7)
        after = objective(with_values(start, row, at - size * along))
        assert float(after / objective(start[row : row + 1])) == pytest.approx(0.99, abs=5e-4)


def test_without_loss_or_gradient_there_is_no_displacement(head: HeadModel, start: Prediction) -> None:
    exact = start.camera.project(head.landmarks(start.params, "ibug68"))
    steps = free_steps(start, head, landmark_objectives(head, exact))
    assert steps.displacement_mm.abs().max() < 1e-12
    flat = free_steps(start, head, [lambda prediction: 0 * prediction.params.identity.sum() + 1.0] * 2)
    assert flat.displacement_mm.abs().max() == 0


def test_one_linear_layer_steps_as_free_parameters_do(
    head: HeadModel, start: Prediction, observed: Tensor
) -> None:
    # Its weights' gradient is the prediction's gradient times the input, so the prediction moves by |input|^2 times
    # that of free parameters, and with the same decrease of the loss equally far.
    network = LinearPredictor(start)
    inputs = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(1)).double()
    objectives = landmark_objectives(head, observed)
    neural = step_maps(FineTunedEncoder(network, inputs), head, objectives, no_pull, ONE_PERCENT)
    free = free_steps(network(inputs).detach(), head, objectives)
    torch.testing.assert_close(neural.displacement_mm, free.displacement_mm, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(neural.shape_share, free.shape_share)
    assert mean_cosine(neural.common_pull) == pytest.approx(1.0)


def test_the_step_of_a_deeper_network_has_the_stated_displacement(
    head: HeadModel, start: Prediction, observed: Tensor
) -> None:
    network = LinearPredictor(start, hidden=6)
    inputs = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(2)).double()
    objectives = landmark_objectives(head, observed)
    small = GradientMapConfig(loss_decrease=1e-6)
    found = step_maps(FineTunedEncoder(network, inputs), head, objectives, no_pull, small)
    free = free_steps(network(inputs).detach(), head, objectives, small)
    assert not torch.allclose(found.displacement_mm, free.displacement_mm, rtol=1e-2)
    for row, objective in enumerate(objectives):
        before = network(inputs[row : row + 1])
        loss = objective(before)
        slopes = torch.autograd.grad(loss, list(network.parameters()))
        size = 1e-6 * loss.detach() / sum((slope.square().sum() for slope in slopes), torch.zeros(()))
        with torch.no_grad():
            for weights, slope in zip(network.parameters(), slopes, strict=True):
                weights -= size * slope
            after = network(inputs[row : row + 1])
            for weights, slope in zip(network.parameters(), slopes, strict=True):
                weights += size * slope
        moved = head.vertices(after.params.unposed()) - head.vertices(before.params.unposed())
        expected = 1000 * moved[0].detach()
        torch.testing.assert_close(found.displacement_mm[row], expected, rtol=1e-3, atol=1e-10)


def test_figures_of_maps_computed_by_hand() -> None:
    assert moved_share(torch.tensor([[1.0, 1, 1, 1]])) == pytest.approx(1.0)
    assert moved_share(torch.tensor([[0.0, 3, 0, 0], [1, 0, 0, 1]])) == pytest.approx((1 / 4 + 2 / 4) / 2)
    assert moved_share(torch.zeros(2, 5)) == 0
    fields = torch.tensor([[[2.0, 0, 0]], [[0, 1, 0]], [[-1, 0, 0]]])
    assert mean_cosine(fields) == pytest.approx((0 + 0 - 1) / 3)
    assert mean_cosine(fields[:1]) is None
    counted = torch.tensor([True, False])
    moves = torch.cat((fields, 100 * torch.ones(3, 1, 3)), 1)
    maps = StepMaps(displacement_mm=moves, shape_share=torch.tensor([0.0, 0.5, 1.0]), common_pull=-moves)
    figures = map_figures(maps, counted)
    assert figures.mean_mm == pytest.approx(4 / 3)
    assert figures.shape_share == pytest.approx(0.5)
    assert figures.similarity == figures.common_pull_similarity == pytest.approx(-1 / 3)
    assert figures.pattern_similarity == pytest.approx(1.0)


@pytest.fixture(scope="module")
def clip(model: FaceModel) -> Clip:
    spec = CaseSpec(kind="synthetic", role="tuning", views=3, number=2, time=4, size_px=128)
    return make_case(spec, model.head).clip


@pytest.fixture(scope="module")
def maps(model: FaceModel, clip: Clip) -> GradientMaps:
    return gradient_maps(model, clip, THREE_IMAGES)


def test_maps_of_a_clip_are_reproducible_and_do_not_change_the_model(
    model: FaceModel, clip: Clip, maps: GradientMaps
) -> None:
    weights = {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}
    second = gradient_maps(model, clip, THREE_IMAGES)
    gathered: list[Tensor] = []
    maps.map_tensors(lambda tensor: gathered.append(tensor) or tensor)
    second.map_tensors(
        lambda tensor: torch.testing.assert_close(tensor, gathered.pop(0), rtol=0, atol=0) or tensor
    )
    assert gathered == []
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.encoder.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.encoder.parameters())


def test_gradients_of_a_clip_are_zero_except_at_landmarks(model: FaceModel, maps: GradientMaps) -> None:
    head = model.head
    assert maps.view_time[:, 0].tolist() == [0, 1, 2]
    embedding = head.embeddings["ibug68"]
    near = torch.zeros(head.num_vertices, dtype=torch.bool)
    near[head.faces[torch.cat((embedding.triangles, embedding.contour_triangles.flatten()))].flatten()] = True
    assert maps.vertex_gradient[:, ~near].abs().max() == 0
    assert (maps.vertex_gradient[:, near] > 0).any(1).all()
    assert (maps.pixel_gradient > 0).flatten(1).any(1).all()
    # Unposed and with neck, jaw and eyes at rest, the open head's vertices are linear in its codes.
    assert mean_cosine(maps.free.common_pull) == pytest.approx(1.0, abs=1e-5)
    different = mean_cosine(maps.neural.common_pull)
    assert different is not None
    assert different < 0.99
    picture = gradient_picture(maps, head)
    assert picture.shape[1] > 5 * 200
    assert picture.shape[0] > 3 * 200


def test_free_parameters_are_those_that_the_network_predicts(model: FaceModel) -> None:
    inputs = torch.zeros(1, 3, 112, 112)
    prediction = model.encoder(inputs)
    assert set(predicted_fields(prediction)) == set(MOVED)
    assert predicted_fields(prediction.detach()) == ()


def test_clips_without_landmarks_and_frozen_encoders_are_refused(model: FaceModel, clip: Clip) -> None:
    with pytest.raises(InputError, match="no frame of the clip has landmarks"):
        gradient_maps(model, replace(clip, track=clip.track.map_tensors(torch.zeros_like)))
    frozen = replace(model, encoder=copy.deepcopy(model.encoder).requires_grad_(False))
    with pytest.raises(InputError, match="no weights to optimise"):
        gradient_maps(frozen, clip)
    with pytest.raises(InputError, match="images must be at least 1"):
        GradientMapConfig(images=0)
    with pytest.raises(InputError, match="loss_decrease must be in"):
        GradientMapConfig(loss_decrease=0.0)
