"""How a clip is fitted: one frozen value, whose field docstrings are the command line's help.

`FitConfig()` is `FitConfig.best()`. The other presets are for comparison; docs/presets.md sets them side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_type_hints

from neuface.errors import InputError

Smoother = Literal["mean", "median", "gaussian", "local_quadratic", "adaptive", "released"]
VisibilityTest = Literal["angle_or_depth", "angle_and_depth", "self_occlusion", "all"]
Merge = Literal["mean", "softmax", "median", "robust"]
MAY_BE_NEGATIVE = ("visible_depth_m", "seed")
AT_LEAST_ONE = ("temporal_window", "batch_size", "max_passes", "patience")
# What torch takes for a whole number.
LARGEST_INT = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Weights of the objective (Eq. 1), the E-step's choices, and how the M-step is run."""

    parameters: Literal["network", "free"] = "network"
    """What the gradient moves: the encoder's weights (Eq. 1), or every image's parameters (the baseline, Eq. 5)."""

    landmark_weight: float = 1.0
    """Weight of the landmark term (Eq. 2), which is in crop half-widths."""
    landmark_penalty: Literal["l1", "saturating"] = "l1"
    """L1 distance, or one that levels off for points that are far away."""
    use_confidence: bool = True
    """Weigh every landmark by its confidence; else all that were found count alike."""
    temporal_weight: float = 0.2
    """Weight of the temporal term (Eq. 3), which is in quaternion units (half the angle in radians)."""
    temporal_penalty: Literal["norm", "squared"] = "norm"
    """The norm of Eq. 3, or the released code's square: mean over the four numbers, summed over views."""
    expression_smoothness_weight: float = 0.01
    """Weight of the L1 distance of expression codes to their smoothed trajectory. Not in the paper."""
    jaw_smoothness_weight: float = 0.0
    """Weight of the distance of the jaw's quaternion to its smoothed trajectory. Not in the paper."""
    camera_smoothness_weight: float = 0.02
    """Weight of the distance of the head's position and size in the frame to their smoothed trajectories, in crop
    half-widths. Not in the paper."""
    multiview_weight: float = 4.0
    """Weight of the multi-view term (Eq. 4), which is in metres. Without a second view the term is zero."""
    multiview_sample: int = 0
    """How many frames of a step the multi-view term uses, sampled at random; 0 is all."""
    photometric_weight: float = 0.0
    """Weight of the photometric term: colours of the picture against one texture per clip under estimated light."""
    identity_prior_weight: float = 0.3
    """Weight of the squared deviation of the identity code from the prior's mean: it constrains what the landmarks of
    a step do not determine. It is divided by the number of views that share one code. Not in the paper."""
    expected_identity: Literal["encoder", "landmarks", "population"] = "landmarks"
    """Mean of the identity prior: the pretrained encoder's mean prediction for the clip; what this and all
    the clip's landmarks together make most probable, from which the fit then starts; or the population's mean, as in
    the regularisers of direct fitting (paper, Eq. 5). The first two are not in the paper."""
    expected_expression_weight: float = 2e-3
    """Weight of the squared distance, on the face's landmarks in mm^2, of the expression to the one that all the
    clip's landmarks together make most probable. There is one only with `expected_identity="landmarks"`. Not in the
    paper."""
    expression_prior_weight: float = 1e-3
    """Weight of the squared expression code. Not in the paper."""
    pose_prior_weight: float = 0.0
    """Weight of the squared rotation of head, neck and jaw, in radians: a regulariser of Eq. 5."""

    identity_per: Literal["clip", "image", "first"] = "clip"
    """One identity code for the whole clip, all views; one for every image, as in the paper; or that of the first
    image for all, as in the released code."""
    hold_size: bool = True
    """Keep the size of the face that `expected_identity` has, or the encoder's if that is the population's mean: the
    cameras of this package (weak perspective) do not determine it, so that it would drift. Not in the paper."""

    smoother: Smoother = "local_quadratic"
    """How trajectories are smoothed; `released` is the released code's four frames t-2 to t+1."""
    temporal_window: int = 7
    """Frames that the smoother looks at, odd."""
    bridge_gaps: bool = True
    """Trajectories are interpolated through frames without landmarks; otherwise their predictions count, too."""
    visibility: VisibilityTest = "angle_or_depth"
    """What hides a vertex: a normal turned away or lying deep (released code), only both together (the paper's
    text), another part of the face in front of it, or any of the three."""
    visible_angle_deg: float = 72.0
    """A vertex is turned away if its normal is further than this from the ray to the camera (tau_a)."""
    visible_depth_m: float = -0.08
    """A vertex is deep if it lies further than this behind the head's centre (tau_z)."""
    merge: Merge = "mean"
    """How the views' meshes are merged: weighted by visibility, by its softmax (released code), the weighted
    median, or a mean that leaves out views that contradict the others."""
    detach_targets: bool = True
    """Targets are fixed while a step is taken, as the paper's E-step and M-step say. The released code lets the
    gradient flow through them; this needs `chunk_frames`."""
    chunk_frames: int = 0
    """0: targets come from the whole clip, and each step looks at random images. Else the clip is cut into chunks of
    so many frames, one step each, all views, in order, and targets come from the chunk alone (released code)."""

    learning_rate: float = 1e-3
    """Adam's largest step size; it falls each time the loss stalls."""
    warm_up_steps: int = 20
    """Gradient steps over which the step size grows to its largest: Adam's first steps, which know no gradient's
    usual size yet, otherwise throw the encoder off. 0 starts at the largest."""
    batch_size: int = 64
    """Images per gradient step. Every image is used in every pass, whatever the size."""
    max_passes: int = 150
    """The limit: passes over the whole clip, each with one E-step."""
    coarse_passes: int = 0
    """Free parameters only: passes in which only head orientation and camera move; after them the camera is
    fixed and everything else moves (paper, A.1). 0 moves all at once."""
    patience: int = 8
    """Passes without progress after which the step size falls, and at last the fit has converged."""
    tolerance: float = 2e-3
    """Relative fall of the loss that counts as progress."""
    step_size_drops: int = 2
    """How often the step size falls before a stall means convergence."""
    keep: Literal["best", "last"] = "best"
    """Which pass is returned: that with the least loss, or the last one, as in the released code."""
    seed: int = 0
    """Seed of the order in which images are visited."""

    @classmethod
    def best(cls, **changes: Any) -> FitConfig:
        """Ours, the default, with `changes` to single fields."""
        return cls(**changes)

    @classmethod
    def paper(cls, **changes: Any) -> FitConfig:
        """The published equations (Eq. 1-4, Sec. 3.2): no priors, one identity code per image.

        The paper reports no weights, window or step size: those of `best()` are used.
        """
        published: dict[str, Any] = {
            "landmark_weight": 1.0,
            "use_confidence": False,
            "temporal_weight": 0.2,
            "multiview_weight": 4.0,
            "identity_prior_weight": 0.0,
            "expression_prior_weight": 0.0,
            "identity_per": "image",
            "hold_size": False,
            "smoother": "mean",
            "temporal_window": 5,
            "visibility": "angle_and_depth",
            "merge": "mean",
            **WITHOUT_EXTRAS,
        }
        return cls(**{**published, **changes})

    @classmethod
    def official(cls, **changes: Any) -> FitConfig:
        """What the authors' released code does with its own settings, where it can run.

        Weights are the released ones in the units of our terms (docs/presets.md has the conversion, and what is not
        imitated: frames that do not fill a chunk are used, and frames without a face are allowed).
        """
        released: dict[str, Any] = {
            "landmark_weight": 5.0,
            "use_confidence": False,
            "temporal_weight": 100.0,
            "temporal_penalty": "squared",
            "multiview_weight": 200.0 / 3.0,
            "multiview_sample": 5,
            "identity_prior_weight": 0.0,
            "expression_prior_weight": 0.0,
            "identity_per": "first",
            "hold_size": False,
            "smoother": "released",
            "visibility": "angle_or_depth",
            "visible_angle_deg": math.degrees(math.acos(0.28)),
            "merge": "softmax",
            "detach_targets": False,
            "chunk_frames": 20,
            "learning_rate": 2e-5,
            "warm_up_steps": 0,
            "max_passes": 100,
            "patience": 100,
            "keep": "last",
            **WITHOUT_EXTRAS,
        }
        return cls(**{**released, **changes})

    @classmethod
    def direct(cls, **changes: Any) -> FitConfig:
        """Direct fitting from the encoder's predictions (Eq. 5): the terms of `paper()`, priors, coarse to fine."""
        baseline: dict[str, Any] = {
            "parameters": "free",
            "identity_prior_weight": 1e-3,
            "expected_identity": "population",
            "expression_prior_weight": 1e-3,
            "pose_prior_weight": 1e-3,
            "learning_rate": 3e-2,
            "coarse_passes": 50,
        }
        return cls.paper(**{**baseline, **changes})

    def __post_init__(self) -> None:
        for item in fields(self):
            _check_type(item.name, getattr(self, item.name), _TYPES[item.name])
        for name in AT_LEAST_ONE:
            value = getattr(self, name)
            if value < 1:
                raise InputError(f"FitConfig.{name} must be a whole number of at least 1, got {value}")
        if self.temporal_window % 2 == 0:
            raise InputError(f"FitConfig.temporal_window must be odd, got {self.temporal_window}")
        if not 0 < self.visible_angle_deg <= 90:
            raise InputError(f"FitConfig.visible_angle_deg must be in (0, 90], got {self.visible_angle_deg}")
        if self.tolerance >= 1:
            raise InputError(f"FitConfig.tolerance is a share and must be below 1, got {self.tolerance}")
        if self.learning_rate == 0:
            raise InputError("FitConfig.learning_rate must be positive, got 0")
        if not self.detach_targets and self.chunk_frames == 0:
            raise InputError(
                "FitConfig.detach_targets=False needs chunk_frames of at least 1: gradient can flow only "
                "through targets that come from the same step"
            )
        if self.photometric_weight > 0 and self.chunk_frames > 0:
            raise InputError(
                "FitConfig.photometric_weight needs chunk_frames=0: the face's colours are those of the whole clip"
            )
        if self.coarse_passes and self.parameters != "free":
            raise InputError("FitConfig.coarse_passes is for parameters='free' only")

    def term_weights(self) -> dict[str, float]:
        """Weight of every named term of the objective."""
        return {
            "landmark": self.landmark_weight,
            "temporal": self.temporal_weight,
            "expression_smoothness": self.expression_smoothness_weight,
            "jaw_smoothness": self.jaw_smoothness_weight,
            "camera_smoothness": self.camera_smoothness_weight,
            "multiview": self.multiview_weight,
            "photometric": self.photometric_weight,
            "identity_prior": self.identity_prior_weight,
            "expected_expression": self.expected_expression_weight,
            "expression_prior": self.expression_prior_weight,
            "pose_prior": self.pose_prior_weight,
        }


# Found once, on import: reading annotations runs code, which reading a result's configuration must never do.
_TYPES = get_type_hints(FitConfig)

Preset = Literal["best", "paper", "official", "direct"]
PRESETS: dict[Preset, Callable[..., FitConfig]] = {
    "best": FitConfig.best,
    "paper": FitConfig.paper,
    "official": FitConfig.official,
    "direct": FitConfig.direct,
}


# What neither the paper's objective nor the released code's has.
WITHOUT_EXTRAS: dict[str, Any] = {
    "expected_identity": "encoder",
    "expected_expression_weight": 0.0,
    "landmark_penalty": "l1",
    "bridge_gaps": False,
    "expression_smoothness_weight": 0.0,
    "jaw_smoothness_weight": 0.0,
    "camera_smoothness_weight": 0.0,
    "photometric_weight": 0.0,
    "pose_prior_weight": 0.0,
}


def _check_type(name: str, value: Any, hint: Any) -> None:
    """Raise InputError unless the value is of the field's kind, finite, and not negative where it must not be."""
    choices = get_args(hint)
    if choices:
        if value not in choices:
            known = ", ".join(repr(choice) for choice in choices)
            raise InputError(f"FitConfig.{name} must be one of {known}, got {value!r}")
        return
    if hint is bool:
        if not isinstance(value, bool):
            raise InputError(f"FitConfig.{name} must be True or False, got {value!r}")
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(
            f"FitConfig.{name} must be a number, got {value!r}; expected Python's own int or float"
        )
    if isinstance(value, int) and abs(value) > LARGEST_INT:
        raise InputError(f"FitConfig.{name} must be at most 2**63 - 1 in size, got {value}")
    if not math.isfinite(value):
        raise InputError(f"FitConfig.{name} must be finite, got {value}")
    if hint is int and not isinstance(value, int):
        raise InputError(f"FitConfig.{name} must be a whole number, got {value}")
    if value < 0 and name not in MAY_BE_NEGATIVE:
        raise InputError(f"FitConfig.{name} must not be negative, got {value}")
