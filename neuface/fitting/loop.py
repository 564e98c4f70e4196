"""The EM loop: estimate targets from the whole clip, then take gradient steps on the encoder's weights.

A copy of the encoder is fine-tuned; the one given stays as it is, so that the next clip starts afresh.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuface import losses
from neuface.encoders.predictor import Predictor
from neuface.errors import InputError
from neuface.fitting.config import FitConfig
from neuface.fitting.problem import Problem
from neuface.fitting.shape import clip_shape
from neuface.fitting.targets import Targets, estimate_targets
from neuface.head.model import HeadModel
from neuface.structs import Prediction

CONVERGED, PASS_LIMIT, DIVERGED = "converged", "pass limit", "diverged"
STEP_SIZE_DROP = 0.3
# Adam's usual step may overshoot on a curved objective; longer gradients than this are shortened.
GRADIENT_NORM_LIMIT = 1.0

History = dict[str, list[float]]
Report = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class FitOutcome:
    """What the loop found."""

    initial: Prediction
    """The pretrained encoder's answer, batch axes `views time`."""
    prediction: Prediction
    """The fine-tuned encoder's answer."""
    history: History
    """Per pass: the loss (`total`) and its named parts, unweighted."""
    stop_reason: str
    """`converged`, `pass limit`, or `diverged` (the loss became infinite; the best pass is returned)."""


def fit(
    predictor: Predictor,
    head: HeadModel,
    problem: Problem,
    config: FitConfig,
    report: Report | None = None,
) -> FitOutcome:
    """Fine-tune a copy of `predictor` on one clip (paper, Sec. 3.2, "Overall process").

    Args:
        report: called after every pass with its number and the loss and parts.

    Raises:
        InputError: no image has a landmark, or the predictor has nothing to optimise.
    """
    if not bool(problem.valid.any()):
        raise InputError("no frame of the clip has landmarks: there is nothing to fit to")
    tuned = copy.deepcopy(predictor)
    trainable = freeze_normalisation(tuned)
    if not trainable:
        raise InputError(
            "the predictor has no parameters to optimise, other than those of normalisation layers"
        )
    optimiser = torch.optim.Adam(trainable, lr=config.learning_rate)
    step_size = _StepSize(config)
    initial = predict_clip(tuned, problem.inputs, config.batch_size)
    progress = _Progress(config)
    best_state = copy.deepcopy(tuned.state_dict())
    shuffler = torch.Generator().manual_seed(config.seed)
    stop_reason = PASS_LIMIT
    shape = clip_shape(head, initial, problem.valid, config)
    answer = initial
    for number in range(config.max_passes):
        current = shape.of_clip(answer)
        targets = estimate_targets(head, current.params, problem.valid, config, shape.expected)
        before = clip_parts(head, current, problem, targets, config)
        progress.record(before)
        if report is not None:
            report(number, {name: values[-1] for name, values in progress.history.items()})
        if not math.isfinite(before["total"]):
            stop_reason = DIVERGED
            break
        if progress.improved:
            best_state = copy.deepcopy(tuned.state_dict())
        if progress.stalled and not progress.start_again(step_size):
            stop_reason = CONVERGED
            break
        for index in _batches(problem, config, shuffler):
            step_size.set_next(optimiser)
            prediction = tuned(problem.inputs.flatten(0, 1)[index], index)
            prediction = shape.of_images(prediction, index, answer.params.identity)
            _gradient_step(head, prediction, problem, targets, index, config, optimiser, trainable)
        answer = predict_clip(tuned, problem.inputs, config.batch_size)
    else:
        current = shape.of_clip(answer)
        targets = estimate_targets(head, current.params, problem.valid, config, shape.expected)
        progress.record(clip_parts(head, current, problem, targets, config))
        # At the pass limit the last steps have not been judged yet: keep them if they helped.
        best_state = copy.deepcopy(tuned.state_dict()) if progress.improved else best_state
        if not math.isfinite(progress.history["total"][-1]):
            stop_reason = DIVERGED
    tuned.load_state_dict(best_state)
    prediction = shape.of_clip(predict_clip(tuned, problem.inputs, config.batch_size))
    return FitOutcome(
        initial=initial, prediction=prediction, history=progress.history, stop_reason=stop_reason
    )


def freeze_normalisation(model: nn.Module) -> list[nn.Parameter]:
    """Evaluation mode throughout, normalisation layers and their scales fixed; the parameters left to train.

    Statistics of one clip would replace those of the training set, and dropout would blur the answer.
    """
    model.eval()
    frozen = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
    for module in model.modules():
        if isinstance(module, frozen):
            for parameter in module.parameters():
                parameter.requires_grad_(False)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@torch.no_grad()
def predict_clip(
    predictor: Predictor, inputs: Float[Tensor, "views time c h w"], batch_size: int
) -> Prediction:
    """The predictor's answer for every image, batch axes `views time`."""
    views, time = inputs.shape[:2]
    flat = inputs.flatten(0, 1)
    index = torch.arange(views * time, device=inputs.device)
    pieces = [predictor(flat[part], part) for part in index.split(batch_size)]
    return concatenate(pieces).unflatten_batch((views, time))


def concatenate(pieces: list[Prediction]) -> Prediction:
    """Predictions of several batches as one, along the first axis."""
    columns: list[list[Tensor]] = []
    for piece in pieces:
        gathered: list[Tensor] = []
        piece.map_tensors(lambda tensor, seen=gathered: seen.append(tensor) or tensor)
        columns.append(gathered)
    joined = iter([torch.cat(column) for column in zip(*columns, strict=True)])
    return pieces[0].map_tensors(lambda _: next(joined))


def loss_parts(
    head: HeadModel,
    prediction: Prediction,
    problem: Problem,
    targets: Targets,
    index: Tensor,
) -> dict[str, Float[Tensor, "images"]]:
    """The named terms of Eq. 1 for some images, each weighted so that its sum over the clip is its mean.

    Args:
        prediction: one batch axis, the images `index` of the flattened (views, time) clip.
    """
    params = prediction.params
    everything = problem.views * problem.time
    points = prediction.camera.project(head.landmarks(params, problem.scheme))
    observed = problem.observed_ndc.flatten(0, 1)[index]
    confidence = problem.confidence.flatten(0, 1)[index]
    parts = {
        "landmark": losses.landmark_loss(points, observed, confidence) / problem.valid.sum(),
        "temporal": losses.temporal_loss(params.root_rotvec, targets.quaternion.flatten(0, 1)[index])
        / everything,
        "identity_prior": losses.identity_prior(params.identity, targets.identity) / everything,
        "expression_prior": losses.expression_prior(params.expression) / everything,
    }
    if len(targets.vertices):
        merged = targets.vertices[index % problem.time]
        parts["multiview"] = losses.multiview_loss(head.vertices(params.unposed()), merged) / everything
    return parts


@torch.no_grad()
def clip_parts(
    head: HeadModel, prediction: Prediction, problem: Problem, targets: Targets, config: FitConfig
) -> dict[str, float]:
    """The loss of the whole clip, `total`, and its unweighted parts."""
    flat = prediction.flatten_batch(2)
    sums: dict[str, float] = {}
    for index in torch.arange(problem.views * problem.time, device=problem.inputs.device).split(
        config.batch_size
    ):
        for name, values in loss_parts(head, flat[index], problem, targets, index).items():
            sums[name] = sums.get(name, 0.0) + float(values.sum())
    weights = config.term_weights()
    return {"total": sum(weights[name] * value for name, value in sums.items()), **sums}


def _gradient_step(
    head: HeadModel,
    prediction: Prediction,
    problem: Problem,
    targets: Targets,
    index: Tensor,
    config: FitConfig,
    optimiser: torch.optim.Optimizer,
    trainable: list[nn.Parameter],
) -> None:
    """One M-step on some images, scaled to the size of the clip so that the step does not depend on it."""
    parts = loss_parts(head, prediction, problem, targets, index)
    share = problem.views * problem.time / len(index)
    loss = losses.weighted_sum(parts, config.term_weights()).sum() * share
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(trainable, GRADIENT_NORM_LIMIT)
    optimiser.step()


def _batches(problem: Problem, config: FitConfig, shuffler: torch.Generator) -> Iterator[Tensor]:
    """Every image once, in random order, in batches of nearly equal size."""
    count = problem.views * problem.time
    order = torch.randperm(count, generator=shuffler).to(problem.inputs.device)
    yield from order.tensor_split(math.ceil(count / config.batch_size))


class _StepSize:
    """Grows linearly over the first steps, and falls on demand."""

    def __init__(self, config: FitConfig) -> None:
        self.warm_up_steps = config.warm_up_steps
        self.largest = config.learning_rate
        self.taken = 0

    def set_next(self, optimiser: torch.optim.Optimizer) -> None:
        """The size of the step that is about to be taken."""
        self.taken += 1
        share = min(1.0, self.taken / max(1, self.warm_up_steps))
        for group in optimiser.param_groups:
            group["lr"] = share * self.largest

    def drop(self) -> None:
        self.largest *= STEP_SIZE_DROP


@dataclass(kw_only=True)
class _Progress:
    """Watches the loss: keeps its history, knows the best pass, and notices a stall."""

    config: FitConfig
    history: History = field(default_factory=dict)
    best: float = math.inf
    improved: bool = False
    _reference: float = math.inf
    _waited: int = 0
    _drops: int = 0

    def __init__(self, config: FitConfig) -> None:
        self.config = config
        self.history = {}

    def record(self, parts: dict[str, float]) -> None:
        for name, value in parts.items():
            self.history.setdefault(name, []).append(value)
        total = parts["total"]
        self.improved = total < self.best
        self.best = min(self.best, total)
        if total < self._reference * (1 - self.config.tolerance):
            self._reference, self._waited = total, 0
        else:
            self._waited += 1

    @property
    def stalled(self) -> bool:
        return self._waited >= self.config.patience

    def start_again(self, step_size: _StepSize) -> bool:
        """Lower the step size after a stall; False once it has been lowered as often as allowed."""
        if self._drops >= self.config.step_size_drops:
            return False
        self._drops += 1
        self._waited = 0
        step_size.drop()
        return True
