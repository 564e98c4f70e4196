"""The EM loop: estimate targets from the whole clip, then take gradient steps on the encoder's weights.

A copy of the encoder is fine-tuned; the one given stays as it is, so that the next clip starts afresh.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuface import losses
from neuface.encoders.calibration import UNCALIBRATED, EncoderCalibration
from neuface.encoders.predictor import Predictor
from neuface.errors import InputError
from neuface.fitting.config import FitConfig
from neuface.fitting.person.estimate import estimate_person
from neuface.fitting.problem import Problem
from neuface.fitting.shared_identity import ClipShape, clip_shape
from neuface.fitting.targets import (
    ImageTargets,
    Targets,
    estimate_targets,
    expression_landmarks,
    smoothing_starts,
)
from neuface.fitting.terms import clip_parts, loss_parts
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
    identity_spread: list[float]
    """Per pass: standard deviation over the valid images of the identity codes as the encoder answers them, before
    they are made one, mean over coefficients (Table S3b)."""
    stop_reason: str
    """`converged`, `pass limit`, or `diverged` (the loss became infinite; the best pass is returned)."""


def fit(
    predictor: Predictor,
    head: HeadModel,
    problem: Problem,
    config: FitConfig,
    report: Report | None = None,
    *,
    calibration: EncoderCalibration = UNCALIBRATED,
) -> FitOutcome:
    """Fine-tune a copy of `predictor` on one clip (paper, Sec. 3.2, "Overall process").

    Args:
        report: called after every pass with its number and the loss and parts.
        calibration: how wrong the initial predictions are, for the estimate of the person from the landmarks.

    Raises:
        InputError: no image has a landmark, or the predictor has nothing to optimise.
    """
    if not bool(problem.valid.any()):
        raise InputError("no frame of the clip has landmarks enough (six): there is nothing to fit to")
    tuned = copy.deepcopy(predictor)
    trainable = freeze_normalisation(tuned)
    if not trainable:
        raise InputError(
            "the predictor has no parameters to optimise, other than those of normalisation layers"
        )
    descent = _Descent(trainable, config)
    initial = predict_clip(tuned, problem.inputs, config.batch_size)
    progress = _Progress(config)
    best_state = copy.deepcopy(tuned.state_dict())
    identity, expression = _expected(head, initial, problem, config, calibration)
    shape = clip_shape(head, initial, problem.valid, config, identity)
    answer, spread = initial, []
    number = 0
    while True:
        current = shape.of_clip(answer)
        targets = estimate_targets(head, current, problem, config, shape.expected, expression)
        progress.record(clip_parts(head, current, problem, targets, config))
        spread.append(float(answer.params.identity[problem.valid].std(0, correction=0).mean()))
        if report is not None:
            report(number, {name: values[-1] for name, values in progress.history.items()})
        if not progress.finite:
            stop_reason = DIVERGED
            break
        if progress.improved:
            best_state = copy.deepcopy(tuned.state_dict())
        if number == config.max_passes:
            stop_reason = PASS_LIMIT
            break
        if progress.stalled and not progress.start_again(descent.step_size):
            stop_reason = CONVERGED
            break
        descent.one_pass(tuned, head, problem, shape, targets, answer.params.identity)
        answer = predict_clip(tuned, problem.inputs, config.batch_size)
        number += 1
    if config.keep == "best" or stop_reason == DIVERGED:
        tuned.load_state_dict(best_state)
        answer = predict_clip(tuned, problem.inputs, config.batch_size)
    return FitOutcome(
        initial=initial,
        prediction=shape.of_clip(answer),
        history=progress.history,
        identity_spread=spread,
        stop_reason=stop_reason,
    )


def _expected(
    head: HeadModel,
    initial: Prediction,
    problem: Problem,
    config: FitConfig,
    calibration: EncoderCalibration,
) -> tuple[Float[Tensor, " identity"] | None, Float[Tensor, "time points 3"] | None]:
    """The most probable identity given the landmarks, and `expression_landmarks` of the most probable expressions.

    None is what the configuration does not ask for.
    """
    if config.expected_identity != "landmarks":
        return None, None
    estimate = estimate_person(head, initial, problem, calibration=calibration)
    if config.expected_expression_weight == 0:
        return estimate.identity, None
    acts = replace(initial.params[0], expression=estimate.expression, jaw_rotvec=estimate.jaw_rotvec)
    return estimate.identity, expression_landmarks(head, acts, problem.scheme.name)


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


def _steps(problem: Problem, config: FitConfig, shuffler: torch.Generator) -> Iterator[Tensor]:
    """Every image once: in random order, in batches of nearly equal size, or chunk by chunk, all views of one."""
    views, time = problem.views, problem.time
    device = problem.inputs.device
    if config.chunk_frames == 0:
        order = torch.randperm(views * time, generator=shuffler).to(device)
        yield from order.tensor_split(math.ceil(views * time / config.batch_size))
        return
    image = torch.arange(views * time, device=device).unflatten(0, (views, time))
    starts = smoothing_starts(problem.starts, time, config.chunk_frames)
    for start, end in zip(starts, (*starts[1:], time), strict=True):
        yield image[:, start:end].flatten()


def _targets_of_chunk(
    head: HeadModel,
    prediction: Prediction,
    problem: Problem,
    index: Tensor,
    config: FitConfig,
    of_clip: Targets,
) -> ImageTargets:
    """Targets from this step's own answers, through which gradient flows unless they are to be detached.

    What is expected of the codes stays that of the clip.
    """
    frames = len(index) // problem.views
    start = int(index[0])
    part = problem.cut(start, start + frames)
    with torch.set_grad_enabled(not config.detach_targets):
        answer = prediction.unflatten_batch((problem.views, frames))
        face = of_clip.expected_expression
        face = None if face is None else face[start : start + frames]
        targets = estimate_targets(head, answer, part, config, of_clip.identity, face)
    rows = targets.of_images(torch.arange(len(index), device=index.device))
    return rows.detach() if config.detach_targets else rows


def _sample_multiview(
    parts: dict[str, Tensor], times: Tensor, config: FitConfig, shuffler: torch.Generator
) -> None:
    """Keep the multi-view term of a few random times of this step, scaled so that its expectation stays."""
    if config.multiview_sample == 0 or "multiview" not in parts:
        return
    present = times.unique()
    count = min(config.multiview_sample, len(present))
    chosen = present[torch.randperm(len(present), generator=shuffler)[:count].to(present.device)]
    parts["multiview"] = parts["multiview"] * torch.isin(times, chosen) * (len(present) / count)


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


class _Descent:
    """The M-step: the optimiser, the length of its steps, and the order in which images are visited."""

    def __init__(self, trainable: list[nn.Parameter], config: FitConfig) -> None:
        self.trainable = trainable
        self.config = config
        self.optimiser = torch.optim.Adam(trainable, lr=config.learning_rate)
        self.step_size = _StepSize(config)
        self.shuffler = torch.Generator().manual_seed(config.seed)

    def one_pass(
        self,
        predictor: Predictor,
        head: HeadModel,
        problem: Problem,
        shape: ClipShape,
        targets: Targets,
        last_identity: Float[Tensor, "views time identity"],
    ) -> None:
        """Gradient steps over every image of the clip once.

        Args:
            targets: of the last E-step.
            last_identity: what the predictor answered then.
        """
        config = self.config
        for index in _steps(problem, config, self.shuffler):
            prediction = predictor(problem.inputs.flatten(0, 1)[index], index)
            prediction = shape.of_images(prediction, index, last_identity)
            if config.chunk_frames:
                rows = _targets_of_chunk(head, prediction, problem, index, config, targets)
            else:
                rows = targets.of_images(index)
            parts = loss_parts(head, prediction, problem, rows, index, config)
            _sample_multiview(parts, index % problem.time, config, self.shuffler)
            self._step(losses.weighted_sum(parts, config.term_weights()), problem)

    def _step(self, loss: Float[Tensor, " images"], problem: Problem) -> None:
        """One gradient step on some images, scaled to the clip so that it does not depend on their number."""
        self.step_size.set_next(self.optimiser)
        self.optimiser.zero_grad(set_to_none=True)
        (loss.sum() * (problem.views * problem.time / len(loss))).backward()
        nn.utils.clip_grad_norm_(self.trainable, GRADIENT_NORM_LIMIT)
        self.optimiser.step()


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
    def finite(self) -> bool:
        return math.isfinite(self.history["total"][-1])

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
