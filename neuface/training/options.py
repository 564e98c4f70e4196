"""Options of the open encoder's training."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from neuface.encoders.open_encoder import OpenEncoderConfig
from neuface.errors import InputError
from neuface.training.shards import HELD_OUT_SHARD

# Upper bound of the seed's absolute value.
LARGEST_SEED = 2**63 - 1
# Options that may differ between a run and its continuation: they do not influence the steps already taken.
FREE_TO_CHANGE = ("steps", "identity_variance", "workers", "threads", "device", "steps_per_check", "compiled")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of a training; the defaults are those of the shipped weights' first run."""

    widths: tuple[int, int, int, int] = OpenEncoderConfig.widths
    """Channels of the network's four stages."""
    shards: int = 24
    """Number of files of rendered pictures to train on."""
    shard_pictures: int = 2000
    """Number of pictures in each file; every picture shows another person."""
    workers: int = 2
    """Number of processes that render pictures, each with one thread."""
    threads: int = 2
    """Number of threads for training."""
    device: str = "cpu"
    """Torch device for training, such as cuda."""
    compiled: bool = False
    """Whether the backbone is compiled, which is faster but needs a C++ compiler."""
    steps: int = 8_800
    batch: int = 64
    """Number of rendered pictures per step."""
    footage_batch: int = 16
    """Number of real frames per step, if footage is given."""
    footage_weight: float = 0.3
    """Weight of the loss on real frames, whose landmarks constrain a head less than a render's truth."""
    matrix_learning_rate: float = 5e-3
    """Step size for kernels and matrices (Muon), in the units of AdamW's."""
    learning_rate: float = 4e-3
    """Step size for all other weights (AdamW)."""
    warm_up_steps: int = 300
    ema_decay: float = 0.998
    """Decay per step of the moving average of the weights, which is measured and stored."""
    identity_variance: float = 0.63
    """Share of the true variance of face shapes over the training's people in the finished encoder's predictions."""
    steps_per_check: int = 1000
    """Number of steps between measurements on held-out people; each measurement also writes a checkpoint."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("shards", "shard_pictures", "workers", "threads", "batch", "steps_per_check"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("steps", "warm_up_steps"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("footage_weight", "matrix_learning_rate", "learning_rate", "identity_variance"):
            if not math.isfinite(getattr(self, name)):
                raise InputError(f"{name} must be finite, got {getattr(self, name)}")
        if self.identity_variance <= 0:
            raise InputError(f"identity_variance must be positive, got {self.identity_variance}")
        if abs(self.seed) > LARGEST_SEED:
            raise InputError(f"seed must be at most 2**63 - 1 in size, got {self.seed}")
        if self.shards > HELD_OUT_SHARD:
            raise InputError(f"shards must be at most {HELD_OUT_SHARD}: the next one is held out")
        if min(self.widths) < 1:
            raise InputError(f"widths must be at least 1, got {self.widths}")
        if self.footage_batch < 0 or self.footage_weight < 0:
            raise InputError("footage_batch and footage_weight must not be negative")
        if min(self.learning_rate, self.matrix_learning_rate) <= 0 or not 0 <= self.ema_decay < 1:
            raise InputError("learning rates must be positive and ema_decay in [0, 1)")

    def plain(self) -> dict[str, Any]:
        """The options in the form in which a checkpoint stores them."""
        return {name: list(item) if isinstance(item, tuple) else item for name, item in asdict(self).items()}

    def differences(self, kept: dict[str, Any]) -> list[str]:
        """Differences to a checkpoint's options, among those that may not change in a continuation."""
        return [
            f"{name} {kept.get(name)} (now {wanted})"
            for name, wanted in self.plain().items()
            if name not in FREE_TO_CHANGE and kept.get(name) != wanted
        ]

    def learning_rate_share(self, step: int) -> float:
        """Share of the full learning rate: linear warm-up, then half a cosine to zero."""
        warm = min(1.0, (step + 1) / max(1, self.warm_up_steps))
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
