"""How a clip is fitted: one frozen value, whose field docstrings are the command line's help."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

from neuface.errors import InputError


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Weights of the objective (Eq. 1), the E-step's choices, and how the M-step is run."""

    landmark_weight: float = 1.0
    """Weight of the landmark term (Eq. 2), which is in crop half-widths."""
    temporal_weight: float = 0.2
    """Weight of the temporal term (Eq. 3), which is in quaternion units (half the angle in radians)."""
    multiview_weight: float = 4.0
    """Weight of the multi-view term (Eq. 4), which is in metres. Without a second view the term is zero."""
    identity_prior_weight: float = 1e-2
    """Weight of the squared deviation of the identity code from the pretrained encoder's mean answer for the clip: it
    keeps what landmarks do not tell. Not in the paper."""
    expression_prior_weight: float = 1e-3
    """Weight of the squared expression code. Not in the paper."""

    identity_per: Literal["clip", "image"] = "clip"
    """One identity code for the whole clip, all views, or one for every image, as in the paper."""
    hold_size: bool = True
    """Keep the face's size at the pretrained encoder's mean answer: the cameras of this package (weak perspective)
    cannot tell it, so that it would drift. Not in the paper."""

    temporal_window: int = 5
    """Frames in the moving average of head orientations, odd."""
    visible_angle_deg: float = 72.0
    """A vertex is hidden if its normal is further than this from the ray to the camera (tau_a)."""
    visible_depth_m: float = -0.08
    """A vertex is hidden if it lies further than this behind the head's centre (tau_z)."""

    learning_rate: float = 1e-3
    """Adam's largest step size; it falls each time the loss stalls."""
    warm_up_steps: int = 20
    """Gradient steps over which the step size grows to its largest: Adam's first steps, which know no gradient's
    usual size yet, otherwise throw the encoder off. 0 starts at the largest."""
    batch_size: int = 64
    """Images per gradient step. Every image is used in every pass, whatever the size."""
    max_passes: int = 150
    """The limit: passes over the whole clip, each with one E-step."""
    patience: int = 8
    """Passes without progress after which the step size falls, and at last the fit has converged."""
    tolerance: float = 2e-3
    """Relative fall of the loss that counts as progress."""
    step_size_drops: int = 2
    """How often the step size falls before a stall means convergence."""
    max_nme_percent: float = 10.0
    """An image whose landmarks are missed by more than this is marked as a poor fit in the result."""
    seed: int = 0
    """Seed of the order in which images are visited."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in ("identity_per", "hold_size"):
                continue
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise InputError(f"FitConfig.{item.name} must be a number, got {value!r}")
            if not math.isfinite(value):
                raise InputError(f"FitConfig.{item.name} must be finite, got {value}")
            if item.type == "int" and not isinstance(value, int):
                raise InputError(f"FitConfig.{item.name} must be a whole number, got {value}")
            if value < 0 and item.name not in ("visible_depth_m", "seed"):
                raise InputError(f"FitConfig.{item.name} must not be negative, got {value}")
        if self.identity_per not in ("clip", "image"):
            raise InputError(f"FitConfig.identity_per must be 'clip' or 'image', got {self.identity_per!r}")
        if not isinstance(self.hold_size, bool):
            raise InputError(f"FitConfig.hold_size must be True or False, got {self.hold_size!r}")
        for name in ("temporal_window", "batch_size", "max_passes", "patience"):
            value = getattr(self, name)
            if value < 1:
                raise InputError(f"FitConfig.{name} must be a whole number of at least 1, got {value}")
        if self.temporal_window % 2 == 0:
            raise InputError(f"FitConfig.temporal_window must be odd, got {self.temporal_window}")
        if not 0 < self.visible_angle_deg <= 90:
            raise InputError(f"FitConfig.visible_angle_deg must be in (0, 90], got {self.visible_angle_deg}")
        if self.learning_rate == 0:
            raise InputError("FitConfig.learning_rate must be positive, got 0")

    def term_weights(self) -> dict[str, float]:
        """Weight of every named term of the objective."""
        return {
            "landmark": self.landmark_weight,
            "temporal": self.temporal_weight,
            "multiview": self.multiview_weight,
            "identity_prior": self.identity_prior_weight,
            "expression_prior": self.expression_prior_weight,
        }
