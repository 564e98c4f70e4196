"""How a clip is fitted: nested values, and the presets.

`FitConfig()` is `FitConfig.best()`. The other presets are for comparison; docs/presets.md sets them side by side.
Every choice is a class that has the numbers it needs, so that no number can be set that has no effect.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from neuface.errors import InputError
from neuface.fitting.merging import Softmax
from neuface.fitting.objective import (
    ExpressionPrior,
    ExpressionSmoothness,
    FromLandmarks,
    FromPopulation,
    LandmarkTerm,
    MultiviewTerm,
    Objective,
    PosePrior,
    TemporalTerm,
)
from neuface.fitting.problem import Problem
from neuface.fitting.smoothing import MovingMean, ReleasedMean
from neuface.fitting.targets import EStep, smoothing_starts
from neuface.fitting.visibility import AngleAndDepth, AngleOrDepth
from neuface.settings import Bounds, Count, Positive, Setting, Share, Size, resolve

# Bounds the images that are predicted at once where a step does not: it bounds the memory.
IMAGES_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class WeakPerspectiveCamera(Setting):
    """All parts of the head are equally far from the camera, as in the paper."""


@dataclass(frozen=True, kw_only=True)
class PinholeCamera(Setting):
    """Near parts of the head appear larger (perspective), which matters at less than about a metre."""

    focal_px: Positive | None = None
    """Focal length of every camera, pixels of the frames; None takes what a calibration or the footage says, and
    where they say nothing estimates it from the landmarks."""


@dataclass(frozen=True, kw_only=True)
class Identity(Setting):
    """Which images share an identity code, and its size."""

    shared: Literal["clip", "image", "first"] = "clip"
    """One code for the whole clip, all views; one for every image, as in the paper; or that of the first image for
    all, as in the released code."""
    fix_scale: bool = True
    """Keep the size of the face that `FromLandmarks` estimates, or without it the encoder's: no camera determines it,
    because a large head far away looks like a small one nearby, so that it would drift. Not in the paper."""


@dataclass(frozen=True, kw_only=True)
class Adam(Setting):
    """The optimiser of the M-step."""

    learning_rate: Positive = 1e-3
    """Adam's largest step size; it falls each time the loss stalls."""
    warm_up_steps: Size = 20
    """Gradient steps over which the step size grows to its largest: Adam's first steps, which know no gradient's
    usual size yet, otherwise throw the encoder off. 0 starts at the largest."""


@dataclass(frozen=True, kw_only=True)
class RandomBatches(Setting):
    """Each step looks at random images of the clip; targets come from the whole clip."""

    size: Count = 64
    """Images per gradient step. Every image is used in every pass, whatever the size."""

    @property
    def images_at_once(self) -> int:
        """How many images are predicted at once without a gradient."""
        return self.size

    def segments(self, problem: Problem) -> tuple[int, ...]:
        """First frames of the pieces that are smoothed alone."""
        return smoothing_starts(problem.starts, problem.time, None)


@dataclass(frozen=True, kw_only=True)
class Chunks(Setting):
    """The clip is cut into chunks, one step each, in order; targets come from the chunk alone (released code)."""

    frames: Count = 20
    """Frames of a chunk, in all views."""
    gradient_through_targets: bool = False
    """The gradient flows through the targets (released code); otherwise they are fixed while a step is taken, as the
    paper's E-step and M-step say."""

    @property
    def images_at_once(self) -> int:
        """As for `RandomBatches`."""
        return IMAGES_AT_ONCE

    def segments(self, problem: Problem) -> tuple[int, ...]:
        """As for `RandomBatches`."""
        return smoothing_starts(problem.starts, problem.time, self.frames)


@dataclass(frozen=True, kw_only=True)
class Convergence(Setting):
    """When a fit ends."""

    max_passes: Count = 30
    """The limit: passes over the whole clip, each with one E-step."""
    patience: Count = 2
    """Passes without progress after which the fit has converged."""
    tolerance: Share = 5e-3
    """Relative fall of the loss that counts as progress."""


@dataclass(frozen=True, kw_only=True)
class Stop(Convergence):
    """When a fit by gradient steps ends."""

    max_passes: Count = 150
    patience: Count = 8
    """Passes without progress after which the step size falls, and at last the fit has converged."""
    tolerance: Share = 2e-3
    step_size_drops: Size = 2
    """How often the step size falls before a stall means convergence."""


@dataclass(frozen=True, kw_only=True)
class MStep(Setting):
    """How gradient steps lower the objective."""

    adam: Adam = Adam()
    batches: RandomBatches | Chunks = RandomBatches()
    stop: Stop = Stop()
    returns: Literal["best", "last"] = "best"
    """Which pass is returned: that with the least loss, or the last one, as in the released code."""

    @property
    def images_at_once(self) -> int:
        """How many images are predicted at once without a gradient."""
        return self.batches.images_at_once

    def segments(self, problem: Problem) -> tuple[int, ...]:
        """First frames of the pieces that are smoothed alone."""
        return self.batches.segments(problem)


@dataclass(frozen=True, kw_only=True)
class FineTune(MStep):
    """The gradient moves the encoder's weights (Eq. 1)."""

    micro_batch: Count | None = None
    """Images of a gradient step that go through the encoder at once, which bounds the memory; None takes all. The
    result is the same up to rounding; with a number, every image of a step goes through the encoder once more."""

    @property
    def images_at_once(self) -> int:
        """As for `MStep`."""
        most = self.batches.images_at_once
        return most if self.micro_batch is None else min(most, self.micro_batch)


@dataclass(frozen=True, kw_only=True)
class DirectFit(MStep):
    """The gradient moves the parameters of every image (the baseline, Eq. 5)."""

    adam: Adam = Adam(learning_rate=3e-2)
    coarse_passes: Size = 0
    """Passes in which only head orientation and camera move; after them the camera is fixed and everything else
    moves (paper, A.1). 0 moves all at once."""


@dataclass(frozen=True, kw_only=True)
class JointSolve(Setting):
    """Least-squares steps on the parameters of all images at once (`neuface.fitting.joint`); not in the paper.

    The views of a frame share its expression, and the clip its identity code.
    """

    stop: Convergence = Convergence()
    """When the steps end."""
    frames_at_once: Annotated[int, Bounds(least=64.0)] = 480
    """A longer clip is solved in pieces of at most this many frames, all for one identity code, which bounds the
    memory."""
    images_at_once: Count = 32
    """Images whose equations are made at once, by one thread; bounds the memory and changes nothing else."""

    def segments(self, problem: Problem) -> tuple[int, ...]:
        """First frames of the pieces that are smoothed alone: the shots."""
        return problem.starts

    def unsupported(self, config: FitConfig) -> str | None:
        """What of a configuration these steps cannot do, and what to do instead; None if nothing."""
        objective = config.objective
        if config.identity.shared != "clip":
            return f'identity.shared="{config.identity.shared}": they solve for one code per clip'
        if objective.landmark is None:
            return "objective.landmark=None: landmarks are what they fit"
        if objective.multiview is not None:
            return "objective.multiview, which has no effect where views share their codes: set it to None"
        if objective.photometric is not None:
            return "objective.photometric"
        if objective.pose_prior is not None:
            return "objective.pose_prior"
        if objective.temporal is not None and objective.temporal.penalty != "norm":
            return 'objective.temporal.penalty="squared"'
        return None


ConfigT = TypeVar("ConfigT", bound="FitConfig")


@dataclass(frozen=True, kw_only=True)
class FitConfig(Setting):
    """What is minimised, how targets are made, what all images share, and how it is minimised.

    Example:
        >>> config = FitConfig.paper({"m_step.stop.max_passes": 300, "objective.temporal.weight": 0.5})
        >>> config.m_step.stop.max_passes, config.objective.temporal.weight
        (300, 0.5)
    """

    objective: Objective = Objective()
    """The terms of the objective (Eq. 1)."""
    e_step: EStep = EStep()
    """How trajectories are smoothed."""
    camera: WeakPerspectiveCamera | PinholeCamera = WeakPerspectiveCamera()
    """How the head is seen."""
    identity: Identity = Identity()
    """Which images share an identity code."""
    m_step: JointSolve | FineTune | DirectFit = JointSolve()
    """What is optimised, and how."""
    seed: int = 0
    """Seed of the order in which images are visited."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.m_step, JointSolve) and (reason := self.m_step.unsupported(self)):
            raise InputError(
                f"FitConfig.m_step is JointSolve, which does not support {reason}, or begin from FitConfig.neural(), "
                "which fine-tunes the encoder"
            )
        of_values = [
            name
            for name in ("expression_smoothness", "camera_smoothness")
            if getattr(self.objective, name) is not None
        ]
        if isinstance(self.e_step.smoothing, ReleasedMean) and of_values:
            raise InputError(
                f"FitConfig.e_step.smoothing is ReleasedMean, which smooths rotations only, but the objective has "
                f"{' and '.join(of_values)}: choose another filter, or set these terms to None"
            )

    @property
    def gradient_steps(self) -> MStep:
        """The M-step of a configuration that takes gradient steps."""
        assert not isinstance(self.m_step, JointSolve), "a joint solution takes no gradient steps"
        return self.m_step

    @classmethod
    def best(cls, changes: Mapping[str, Any] | None = None) -> FitConfig:
        """Ours, the default, with changes by dotted paths."""
        return cls().changed(changes)

    @classmethod
    def neural(cls, changes: Mapping[str, Any] | None = None) -> FitConfig:
        """The terms of `best()` with a fine-tuned encoder, as in the paper, which `FitResult.encoder` keeps."""
        return NEURAL.changed(changes)

    @classmethod
    def paper(cls, changes: Mapping[str, Any] | None = None) -> FitConfig:
        """The published equations (Eq. 1-4, Sec. 3.2): no priors, one identity code per image.

        The paper reports no weights, window or step size: those of `best()` are used.
        """
        return PAPER.changed(changes)

    @classmethod
    def official(cls, changes: Mapping[str, Any] | None = None) -> FitConfig:
        """What the authors' released code does with its own settings, where it can run.

        Weights are the released ones in the units of our terms (docs/presets.md has the conversion, and what is not
        imitated: frames that do not fill a chunk are used, and frames without a face are allowed).
        """
        return OFFICIAL.changed(changes)

    @classmethod
    def direct(cls, changes: Mapping[str, Any] | None = None) -> FitConfig:
        """Direct fitting from the encoder's predictions (Eq. 5): the terms of `paper()`, priors, coarse to fine."""
        return DIRECT.changed(changes)


NEURAL = FitConfig(
    objective=Objective(
        landmark=LandmarkTerm(penalty="l1"),
        multiview=MultiviewTerm(),
        identity_prior=FromLandmarks(expression_weight=2e-3),
        expression_smoothness=ExpressionSmoothness(weight=0.01),
    ),
    m_step=FineTune(),
)

PAPER = FitConfig(
    objective=Objective(
        landmark=LandmarkTerm(weight=1.0, penalty="l1", use_confidence=False),
        temporal=TemporalTerm(weight=0.2),
        multiview=MultiviewTerm(weight=4.0, visibility=AngleAndDepth(angle_deg=72.0, depth_m=-0.08)),
        calibrated=None,
        identity_prior=None,
        expression_prior=None,
        expression_smoothness=None,
        camera_smoothness=None,
    ),
    e_step=EStep(smoothing=MovingMean(window=5), interpolate_missing=False),
    identity=Identity(shared="image", fix_scale=False),
    m_step=FineTune(),
)

OFFICIAL = FitConfig(
    objective=Objective(
        landmark=LandmarkTerm(weight=5.0, penalty="l1", use_confidence=False),
        temporal=TemporalTerm(weight=100.0, penalty="squared"),
        multiview=MultiviewTerm(
            weight=200.0 / 3.0,
            visibility=AngleOrDepth(angle_deg=math.degrees(math.acos(0.28)), depth_m=-0.08),
            merge=Softmax(temperature=0.1),
            frames_per_step=5,
        ),
        calibrated=None,
        identity_prior=None,
        expression_prior=None,
        expression_smoothness=None,
        camera_smoothness=None,
    ),
    e_step=EStep(smoothing=ReleasedMean(), interpolate_missing=False),
    identity=Identity(shared="first", fix_scale=False),
    m_step=FineTune(
        adam=Adam(learning_rate=2e-5, warm_up_steps=0),
        batches=Chunks(frames=20, gradient_through_targets=True),
        stop=Stop(max_passes=100, patience=100),
        returns="last",
    ),
)

DIRECT = PAPER.changed(
    {
        "objective.identity_prior": FromPopulation(weight=1e-3),
        "objective.expression_prior": ExpressionPrior(weight=1e-3),
        "objective.pose_prior": PosePrior(weight=1e-3),
        "m_step": DirectFit(adam=Adam(learning_rate=3e-2), coarse_passes=50),
    }
)

Preset = Literal["best", "neural", "paper", "official", "direct"]
PRESETS: dict[Preset, FitConfig] = {
    "best": FitConfig(),
    "neural": NEURAL,
    "paper": PAPER,
    "official": OFFICIAL,
    "direct": DIRECT,
}

# Reading a result's configuration must evaluate nothing, annotations included.
resolve(FitConfig)
