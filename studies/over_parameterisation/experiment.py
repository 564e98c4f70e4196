"""Gradient descent on networks of growing width: Proposition 1 of the paper as an experiment.

`python -m studies.over_parameterisation` runs it; its docstring states the findings and what does not follow from
them.
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

# Number of features that a network takes of every frame.
INPUTS = 64
# Number of identity and expression coefficients among the outputs.
IDENTITY, EXPRESSION = 10, 52
PARTS = (3, 1, 2, IDENTITY, EXPRESSION)
"""Outputs of the network: root rotation, log of the camera's scale, its offset, identity, expression."""
UNITS = (8.0, 1.0, 1.0, 8.0, 4.0)
"""One unit of each part of the output, in radians, 1, crop half-widths, standard deviations, activations. A network
starts with outputs of about 0.12, which are heads rotated by some 90 degrees about random axes, with random codes."""
OUTPUTS = sum(PARTS)
TYPICAL_SCALE = 9.0
"""True scale of the camera, crop half-widths per metre."""
LARGEST_ANGLE_DEG = 40.0
"""Largest component of the true head's rotation vectors, degrees."""
TRUTH_SEED, TRIAL_SEED = 11, 999
STEP_SIZES = [2.0**power for power in range(-16, 8)]
WRONG_DEG = 45.0
"""Smallest angle to the true orientation at which a head's final orientation counts as wrong, degrees."""
STUCK = 0.01
"""Smallest error, as a share of the distance between the eyes, at which a frame counts as stuck after its outputs
were optimised freely in short descent steps (`downhill`); the true parameters have error 0."""
SHORT_STEP = 0.02
"""Bound on the length of those steps, in units of the outputs: no step rotates a head by more than 9 degrees."""
REACHED = 0.01
"""Largest error of the outputs, as a share of the labels' length, at which random labels count as reached."""

Loss = Callable[[Tensor], Tensor]
"""Outputs `runs frames OUTPUTS` -> one loss per run and frame."""
Parameterisation = Callable[[Sequence[Tensor]], Tensor]
"""Weights with a leading axis `runs` -> outputs."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """The extent of a run of the experiment."""

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

    With neck, jaw and eyes at rest, unposed landmarks are linear in the codes. Their bases are computed from the open
    head once, which makes thousands of heads cheap. The 17 points of the contour slide and are excluded.
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
        rotvec = head_motion(4 * frames, generator)[::4]
        rotvec = rotvec * (LARGEST_ANGLE_DEG / 180 * math.pi / rotvec.abs().max())
        identity = torch.randn(IDENTITY, generator=generator).expand(frames, -1)
        expression = 0.3 * torch.rand(frames, EXPRESSION, generator=generator)
        camera = torch.zeros(frames, 3)
        self.truth = torch.cat((rotvec, camera, identity, expression), -1) / units()
        self.truth_rotmat = roma.rotvec_to_rotmat(rotvec)
        self.observed = self.project(self.truth)

    def project(self, outputs: Tensor) -> Tensor:
        """Landmarks in crop half-widths, `... 51 2`."""
        rotvec, log_scale, offset, identity, expression = (outputs * units()).split(PARTS, -1)
        codes = torch.cat((identity, expression), -1)
        points = self.rest + (codes @ self.basis.flatten(1)).unflatten(-1, (-1, 3))
        joint = (self.joint_rest + codes @ self.joint_basis)[..., None, :]
        posed = (points - joint) @ roma.rotvec_to_rotmat(rotvec).mT + joint
        flipped = posed[..., :2] * posed.new_tensor((1.0, -1.0))
        return TYPICAL_SCALE * log_scale.exp()[..., None] * flipped + offset[..., None, :]

    def __call__(self, outputs: Tensor) -> Tensor:
        error = (self.project(outputs) - self.observed) / self.eye_distance
        return error.square().sum(-1).mean(-1)


def _points(head: HeadModel, params: HeadParams) -> Tensor:
    return head.landmarks(params, IBUG68.name)[..., INNER51, :]


def units() -> Tensor:
    """UNITS repeated for every output of its part."""
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
    outputs_of: Parameterisation, start: Sequence[Tensor], loss: Loss, step: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Plain full-batch gradient descent on many runs at once: losses `steps+1 runs`, and the last outputs."""
    weights, history = [tensor.detach() for tensor in start], []
    for _ in range(steps):
        leaves = [tensor.requires_grad_() for tensor in weights]
        by_run = loss(outputs_of(leaves)).mean(-1)
        history.append(by_run.detach())
        gradients = torch.autograd.grad(by_run.sum(), leaves)
        weights = [
            (tensor - step.view(-1, *[1] * (tensor.ndim - 1)) * gradient).detach()
            for tensor, gradient in zip(leaves, gradients, strict=True)
        ]
    outputs = outputs_of(weights)
    return torch.stack([*history, loss(outputs).mean(-1)]), outputs


def chosen_step(outputs_of: Parameterisation, start: Sequence[Tensor], loss: Loss, steps: int) -> float:
    """Half the step size with the lowest final loss in a trial, among those whose loss never rises.

    The trial has a seed of its own. The largest stable step would be a wrong choice: a step that switches off all
    ReLUs of a narrow network has a constant loss, which never rises.
    """
    runs = [tensor.expand(len(STEP_SIZES), *tensor.shape[1:]) for tensor in start]
    history, _ = descend(outputs_of, runs, loss, torch.tensor(STEP_SIZES), steps)
    # A comparison with NaN is false. The search ends at the first step size whose loss rises.
    never_rises = (history[1:] <= history[:-1] * (1 + 1e-5)).all(0)
    stable = int(never_rises.long().cumprod(0).sum())
    if not stable:
        raise SystemExit(f"no step size down to {STEP_SIZES[0]} is stable: extend STEP_SIZES")
    return STEP_SIZES[int(history[-1, :stable].argmin())] / 2


def downhill(outputs: Tensor, objective: LandmarkObjective, steps: int) -> Tensor:
    """Every frame's outputs after free optimisation by Levenberg-Marquardt, in short steps that never raise its
    error.

    It progresses in narrow valleys in which gradient descent is slow; where it stops above STUCK, there is a local
    minimum.
    """
    observed = objective.observed.expand(len(outputs), -1, -1, -1).flatten(0, 1)
    found = outputs.flatten(0, 1)

    def residual(frame: Tensor, landmarks: Tensor) -> Tensor:
        return ((objective.project(frame) - landmarks) / objective.eye_distance).flatten()

    residuals, jacobians = torch.func.vmap(residual), torch.func.vmap(torch.func.jacfwd(residual))
    damping = torch.ones(len(found))
    for _ in range(steps):
        error, jacobian = residuals(found, observed), jacobians(found, observed)
        if objective(found.unflatten(0, outputs.shape[:2])).max() < (STUCK / 10) ** 2:
            break
        normal = jacobian.mT @ jacobian + damping[:, None, None] * torch.eye(OUTPUTS)
        change = torch.linalg.solve(normal, (jacobian.mT @ error[..., None])[..., 0])
        length = torch.linalg.vector_norm(change, dim=-1, keepdim=True)
        moved = found - change * (SHORT_STEP / length.clamp(min=SHORT_STEP))
        better = residuals(moved, observed).square().sum(-1) < error.square().sum(-1)
        found = torch.where(better[:, None], moved, found)
        damping = torch.where(better, damping / 2, damping * 4).clamp(1e-6, 1e6)
    return found.unflatten(0, outputs.shape[:2])


@dataclass(frozen=True, kw_only=True)
class Row:
    """The results of one width, or of the free parameters, over all seeds."""

    name: str
    step: float
    errors: list[float]
    """Root mean square error of every seed, ascending: of landmarks in parts of the distance between the eyes, of
    random labels in parts of their length."""
    falling: float
    """Share by which the last tenth of the steps reduced the loss, median over seeds."""
    wrong: float = math.nan
    """Share of frames whose final orientation is wrong by more than WRONG_DEG."""
    stuck: float = math.nan
    """Share of frames that count as stuck."""
    apart_deg: float = math.nan
    """Mean angle between the final orientations of one frame for two seeds, degrees."""

    @property
    def median(self) -> float:
        return statistics.median(self.errors)


def measured(
    name: str, outputs_of: Parameterisation, start: list[Tensor], trial: list[Tensor], loss: Loss, size: Size
) -> Row:
    """The row of a parameterisation: descent from every seed's start, with the step size chosen on the trial's
    start.
    """
    step = chosen_step(outputs_of, trial, loss, size.trial_steps)
    history, outputs = descend(outputs_of, start, loss, torch.full((size.seeds,), step), size.steps)
    row = Row(
        name=name,
        step=step,
        errors=sorted(history[-1].sqrt().tolist()),
        falling=float((1 - history[-1] / history[-1 - size.steps // 10]).median()),
    )
    if not isinstance(loss, LandmarkObjective):
        return row
    remaining = loss(downhill(outputs, loss, size.downhill_steps))
    rotmat = roma.rotvec_to_rotmat(UNITS[0] * outputs[..., :3])
    wrong = roma.rotmat_geodesic_distance(rotmat, loss.truth_rotmat.expand_as(rotmat)).rad2deg() > WRONG_DEG
    apart = roma.rotmat_geodesic_distance(*torch.broadcast_tensors(rotmat[:, None], rotmat[None])).rad2deg()
    return replace(
        row,
        wrong=float(wrong.float().mean()),
        stuck=float((remaining.sqrt() > STUCK).float().mean()),
        apart_deg=float(apart.mean((0, 1, 2)) * size.seeds / max(1, size.seeds - 1)),
    )


def run(loss: Loss, size: Size) -> list[Row]:
    """A row per width; for the landmarks also one for free parameters, which start at the widest network's
    outputs.
    """
    x = features(size.frames)

    def outputs_of(weights: Sequence[Tensor]) -> Tensor:
        return network(x, weights)

    starts = [initial_weights(width, range(size.seeds)) for width in size.widths]
    trials = [initial_weights(width, [TRIAL_SEED]) for width in size.widths]
    rows = [
        measured(str(width), outputs_of, start, trial, loss, size)
        for width, start, trial in zip(size.widths, starts, trials, strict=True)
    ]
    if isinstance(loss, LandmarkObjective):
        outputs = [outputs_of(starts[-1])], [outputs_of(trials[-1])]
        rows.append(measured("free", lambda weights: weights[0], *outputs, loss, size))
    return rows


def count_weights(width: int) -> int:
    """Number of weights of a network of this width."""
    return width * (INPUTS + width + OUTPUTS)
