"""Gradient descent on networks of growing width: Proposition 1 of the paper as an experiment.

`python -m studies.over_parameterisation` runs it; its docstring has the findings and what does not follow from them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import roma
import torch
from torch import Tensor

from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68, INNER51
from neuface.structs import HeadParams
from neuface.synthetic.clips import head_motion

INPUTS = 64
IDENTITY, EXPRESSION = 10, 52
PARTS = (3, 1, 2, IDENTITY, EXPRESSION)
"""Outputs of the network: root rotation, log of the camera's scale, its offset, identity, expression."""
UNITS = (8.0, 1.0, 1.0, 8.0, 4.0)
"""What one unit of an output is: radians, 1, crop half-widths, standard deviations, amounts. A network starts with
outputs of about 0.12: heads turned by some 90 degrees in random directions, with random faces."""
OUTPUTS = sum(PARTS)
TYPICAL_SCALE = 9.0
LARGEST_TURN_DEG = 40.0
"""How far the true head turns from the front."""
TRUTH_SEED, TRIAL_SEED = 11, 999
STEP_SIZES = [2.0**power for power in range(-16, 8)]
WRONG_DEG = 45.0
"""A head that ends further than this from its true orientation is turned wrongly."""
STUCK = 0.01
"""A frame is stuck if its error stays above this share of the distance between the eyes when its outputs go on freely
in short steps downhill; the true parameters have error 0."""
SHORT_STEP = 0.02
"""Longest of those steps, in outputs: no head turns by more than 9 degrees at once."""
REACHED = 0.01
"""Random labels are reached if the outputs' error is below this share of the labels' length."""

Loss = Callable[[Tensor], Tensor]
"""Outputs `runs frames OUTPUTS` -> one loss per run and frame."""
Answer = Callable[[Sequence[Tensor]], Tensor]
"""Weights with a leading axis `runs` -> outputs."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is run."""

    widths: tuple[int, ...]
    seeds: int
    frames: int
    steps: int
    trial_steps: int
    downhill_steps: int


SIZES = {
    "fast": Size(widths=(4, 64), seeds=2, frames=4, steps=60, trial_steps=20, downhill_steps=20),
    "default": Size(
        widths=(4, 16, 64, 256), seeds=4, frames=6, steps=400, trial_steps=50, downhill_steps=150
    ),
    "full": Size(
        widths=(4, 8, 16, 64, 256, 512),
        seeds=6,
        frames=8,
        steps=2000,
        trial_steps=100,
        downhill_steps=300,
    ),
}


class LandmarkObjective:
    """Squared distance of the projected inner 51 landmarks to those of a known motion, over the eye distance squared.

    With neck, jaw and eyes at rest, landmarks are linear in the codes before the root turns: their bases are read off
    the open head once, so that thousands of heads cost little. The 17 points of the contour slide and are left out.
    """

    def __init__(self, head: HeadModel, frames: int) -> None:
        generator = torch.Generator().manual_seed(TRUTH_SEED)
        codes = torch.eye(IDENTITY + EXPRESSION)
        rest = replace(head.neutral(), identity=torch.zeros(IDENTITY), expression=torch.zeros(EXPRESSION))
        unit = replace(head.neutral(len(codes)), identity=codes[:, :IDENTITY], expression=codes[:, IDENTITY:])
        self.rest, self.joint_rest = _points(head, rest), head.joints(rest)[0]
        self.basis, self.joint_basis = (
            _points(head, unit) - self.rest,
            head.joints(unit)[:, 0] - self.joint_rest,
        )
        eyes = self.rest[[36 - 17, 45 - 17]]
        self.eye_distance = TYPICAL_SCALE * float(torch.linalg.vector_norm(eyes[0] - eyes[1]))
        turns = head_motion(4 * frames, generator)[::4]
        turns = turns * (LARGEST_TURN_DEG / 180 * math.pi / turns.abs().max())
        identity = torch.randn(IDENTITY, generator=generator).expand(frames, -1)
        smile = 0.3 * torch.rand(frames, EXPRESSION, generator=generator)
        camera = torch.zeros(frames, 3)
        self.truth = torch.cat((turns, camera, identity, smile), -1) / units()
        self.truth_rotmat = roma.rotvec_to_rotmat(turns)
        self.observed = self.project(self.truth)

    def project(self, outputs: Tensor) -> Tensor:
        """Landmarks in crop half-widths, `... 51 2`."""
        rotvec, log_scale, offset, identity, expression = (outputs * units()).split(PARTS, -1)
        codes = torch.cat((identity, expression), -1)
        points = self.rest + (codes @ self.basis.flatten(1)).unflatten(-1, (-1, 3))
        joint = (self.joint_rest + codes @ self.joint_basis)[..., None, :]
        turned = (points - joint) @ roma.rotvec_to_rotmat(rotvec).mT + joint
        flipped = turned[..., :2] * turned.new_tensor((1.0, -1.0))
        return TYPICAL_SCALE * log_scale.exp()[..., None] * flipped + offset[..., None, :]

    def __call__(self, outputs: Tensor) -> Tensor:
        apart = (self.project(outputs) - self.observed) / self.eye_distance
        return apart.square().sum(-1).mean(-1)


def _points(head: HeadModel, params: HeadParams) -> Tensor:
    return head.landmarks(params, IBUG68.name)[..., INNER51, :]


def units() -> Tensor:
    """UNITS of every output."""
    return torch.cat([torch.full((count,), unit) for count, unit in zip(PARTS, UNITS, strict=True)])


def random_labels(frames: int) -> Loss:
    """The proposition's own setting: squared distance of the outputs to labels of length about 1."""
    generator = torch.Generator().manual_seed(TRUTH_SEED)
    labels = torch.randn(frames, OUTPUTS, generator=generator) / math.sqrt(OUTPUTS)
    return lambda outputs: (outputs - labels).square().sum(-1)


def features(frames: int) -> Tensor:
    """A random feature vector per frame, `frames INPUTS`, in [0, 1] and of length 1 (Assumption 1)."""
    x = torch.rand(frames, INPUTS, generator=torch.Generator().manual_seed(TRUTH_SEED + 1))
    return torch.nn.functional.normalize(x, dim=-1)


def initial_weights(width: int, seeds: Sequence[int]) -> list[Tensor]:
    """Three layers for every seed, with the variances of Assumption 2: 2 / rows, in the last layer 1 / rows."""
    shapes = ((width, INPUTS), (width, width), (OUTPUTS, width))
    by_seed = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        by_seed.append(
            [
                torch.randn(shape, generator=generator) * math.sqrt((1 if layer == 2 else 2) / shape[0])
                for layer, shape in enumerate(shapes)
            ]
        )
    return [torch.stack(layer) for layer in zip(*by_seed, strict=True)]


def network(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """A fully connected ReLU network without biases, one per run."""
    hidden = x.expand(len(weights[0]), -1, -1)
    for layer in weights[:-1]:
        hidden = torch.relu(hidden @ layer.mT)
    return hidden @ weights[-1].mT


def descend(
    answer: Answer, start: Sequence[Tensor], loss: Loss, step: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Plain full-batch gradient descent, many runs at once: losses `steps+1 runs`, and the last outputs."""
    weights, history = [tensor.detach() for tensor in start], []
    for _ in range(steps):
        leaves = [tensor.requires_grad_() for tensor in weights]
        by_run = loss(answer(leaves)).mean(-1)
        history.append(by_run.detach())
        slopes = torch.autograd.grad(by_run.sum(), leaves)
        weights = [
            (tensor - step.view(-1, *[1] * (tensor.ndim - 1)) * slope).detach()
            for tensor, slope in zip(leaves, slopes, strict=True)
        ]
    outputs = answer(weights)
    return torch.stack([*history, loss(outputs).mean(-1)]), outputs


def chosen_step(answer: Answer, start: Sequence[Tensor], loss: Loss, steps: int) -> float:
    """Half the step size that ends lowest in a trial, of a seed of its own, among those whose loss never rises.

    The lowest and not the largest: a step that kills all ReLUs of a narrow network at once never rises again.
    """
    runs = [tensor.expand(len(STEP_SIZES), *tensor.shape[1:]) for tensor in start]
    history, _ = descend(answer, runs, loss, torch.tensor(STEP_SIZES), steps)
    # A NaN compares as false. The first step size that is not steady ends the search.
    steady = (history[1:] <= history[:-1] * (1 + 1e-5)).all(0)
    stable = int(steady.long().cumprod(0).sum())
    if not stable:
        raise SystemExit(f"no step size down to {STEP_SIZES[0]} is stable: extend STEP_SIZES")
    return STEP_SIZES[int(history[-1, :stable].argmin())] / 2


def downhill(outputs: Tensor, objective: LandmarkObjective, steps: int) -> Tensor:
    """Every frame's outputs, moved on freely by Levenberg-Marquardt in short steps that never raise its error.

    It gets down narrow valleys where descent creeps. Where it does not, there is a floor.
    """
    observed = objective.observed.expand(len(outputs), -1, -1, -1).flatten(0, 1)
    found = outputs.flatten(0, 1)

    def residual(one: Tensor, seen: Tensor) -> Tensor:
        return ((objective.project(one) - seen) / objective.eye_distance).flatten()

    residuals, jacobians = torch.func.vmap(residual), torch.func.vmap(torch.func.jacfwd(residual))
    damping = torch.ones(len(found))
    for _ in range(steps):
        apart, slope = residuals(found, observed), jacobians(found, observed)
        if objective(found.unflatten(0, outputs.shape[:2])).max() < (STUCK / 10) ** 2:
            break
        normal = slope.mT @ slope + damping[:, None, None] * torch.eye(OUTPUTS)
        change = torch.linalg.solve(normal, (slope.mT @ apart[..., None])[..., 0])
        length = torch.linalg.vector_norm(change, dim=-1, keepdim=True)
        moved = found - change * (SHORT_STEP / length.clamp(min=SHORT_STEP))
        better = residuals(moved, observed).square().sum(-1) < apart.square().sum(-1)
        found = torch.where(better[:, None], moved, found)
        damping = torch.where(better, damping / 2, damping * 4).clamp(1e-6, 1e6)
    return found.unflatten(0, outputs.shape[:2])


@dataclass(frozen=True, kw_only=True)
class Row:
    """One width (or the free parameters), all seeds."""

    name: str
    step: float
    errors: list[float]
    """Root mean square error of every seed, ascending: of landmarks in parts of the distance between the eyes, of
    random labels in parts of their length."""
    falling: float
    """Share of the loss that the last tenth of the steps took away, median over seeds."""
    wrong: float = math.nan
    """Share of frames that end turned wrongly."""
    stuck: float = math.nan
    """Share of frames that are stuck."""
    apart_deg: float = math.nan
    """Mean angle between the orientations that two seeds give to one frame."""

    @property
    def median(self) -> float:
        return statistics.median(self.errors)


def measured(
    name: str, answer: Answer, start: list[Tensor], trial: list[Tensor], loss: Loss, size: Size
) -> Row:
    """Descend from every seed's start, with the step size chosen on the trial's."""
    step = chosen_step(answer, trial, loss, size.trial_steps)
    history, outputs = descend(answer, start, loss, torch.full((size.seeds,), step), size.steps)
    row = Row(
        name=name,
        step=step,
        errors=sorted(history[-1].sqrt().tolist()),
        falling=float((1 - history[-1] / history[-1 - size.steps // 10]).median()),
    )
    if not isinstance(loss, LandmarkObjective):
        return row
    ends = loss(downhill(outputs, loss, size.downhill_steps))
    turns = roma.rotvec_to_rotmat(UNITS[0] * outputs[..., :3])
    wrong = roma.rotmat_geodesic_distance(turns, loss.truth_rotmat.expand_as(turns)).rad2deg() > WRONG_DEG
    apart = roma.rotmat_geodesic_distance(*torch.broadcast_tensors(turns[:, None], turns[None])).rad2deg()
    return replace(
        row,
        wrong=float(wrong.float().mean()),
        stuck=float((ends.sqrt() > STUCK).float().mean()),
        apart_deg=float(apart.mean((0, 1, 2)) * size.seeds / max(1, size.seeds - 1)),
    )


def run(loss: Loss, size: Size) -> list[Row]:
    """A row per width; for the landmarks also free parameters, which start where the widest network does."""
    x = features(size.frames)

    def answer(weights: Sequence[Tensor]) -> Tensor:
        return network(x, weights)

    starts = [initial_weights(width, range(size.seeds)) for width in size.widths]
    trials = [initial_weights(width, [TRIAL_SEED]) for width in size.widths]
    rows = [
        measured(str(width), answer, start, trial, loss, size)
        for width, start, trial in zip(size.widths, starts, trials, strict=True)
    ]
    if isinstance(loss, LandmarkObjective):
        outputs = [answer(starts[-1])], [answer(trials[-1])]
        rows.append(measured("free", lambda weights: weights[0], *outputs, loss, size))
    return rows


def count_weights(width: int) -> int:
    """Of a network of this width."""
    return width * (INPUTS + width + OUTPUTS)
