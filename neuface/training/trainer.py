"""Training of the open encoder from nothing: `train_encoder`, behind `neuface train-encoder`.

Two sources teach it: renders of the open head with exact truth (`neuface.synthetic`), drawn once into shards, and,
where a folder of footage is given, real frames with nothing but landmarks.

The shipped weights
-------------------
`neuface train-encoder --folder runs/open --footage clips/train --held-out-footage clips/held_out`, with
OMP_WAIT_POLICY=PASSIVE and GOMP_SPINCOUNT=0, on two shared cores of a Xeon (AVX-512): 48,000 pictures drawn at
110 per second with two processes, then 8,800 steps of 64 pictures and 16 real frames of four people in 65
minutes. The end of the schedule was moved twice on the way (8,500; from step 3,000 on 7,400; from 6,000 on
8,800), so that an unbroken run gives similar figures, not the same bytes.

On 2,000 held-out people: 68 landmarks 3.13 % of the outer-eye distance (median 2.73), head rotation 2.29
degrees (median), face vertices 2.58 mm after rigid alignment (mean face 3.62), variance of the face shape 0.62
of the true one. On six real clips of other people: 4.1 % on average, 2.5 to 7.8. All figures, the other
candidates, and where it fails: docs/open_encoder.md.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from neuface.encoders.open_encoder import OpenEncoder, OpenEncoderConfig
from neuface.errors import InputError
from neuface.head.model import HeadModel
from neuface.io.training_folder import TrainingFolder, list_footage
from neuface.models import load_head
from neuface.structs import Prediction
from neuface.synthetic.training import TrainingPictures
from neuface.training.augment import random_moves, random_padding, reexpose
from neuface.training.calibration import widened
from neuface.training.footage import Footage, draw_frames, mirror_order, mirror_some, read_footage
from neuface.training.optimizer import TrainingOptimizer
from neuface.training.pictures import HELD_OUT_SHARD, draw_shards, read_shards
from neuface.training.showcase import showcase
from neuface.training.supervision import Supervision, total_loss
from neuface.training.validation import measure_footage, measure_synthetic
from neuface.viz.figures import loss_curves

GRADIENT_NORM_LIMIT = 5.0
SEEDS_PER_RUN = 1_000_003
PICTURES_TO_WIDEN_BY = 2000
# What may change between a run and its continuation: how it is computed, and when it is to end.
FREE_TO_CHANGE = ("steps", "identity_variance", "workers", "threads", "device", "steps_per_check", "compiled")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How to train; the defaults are those of the shipped weights."""

    widths: tuple[int, int, int, int] = OpenEncoderConfig.widths
    """Channels of the network's four stages."""
    shards: int = 24
    """Files of rendered pictures to train on."""
    shard_pictures: int = 2000
    """Pictures in each, every one of another person."""
    workers: int = 2
    """Processes that draw pictures, one thread each."""
    threads: int = 2
    """Threads that train."""
    device: str = "cpu"
    """Where to train, such as cuda."""
    compiled: bool = False
    """Compile the backbone first; faster, but needs a C++ compiler."""
    steps: int = 8_800
    batch: int = 64
    """Rendered pictures per step."""
    footage_batch: int = 16
    """Real frames per step, if there are any."""
    footage_weight: float = 0.3
    """Weight of the loss on real frames, whose landmarks say less than a render's truth."""
    matrix_learning_rate: float = 5e-3
    """Step size for kernels and matrices (Muon), in the units of AdamW's."""
    learning_rate: float = 4e-3
    """Step size for all other weights (AdamW)."""
    warm_up_steps: int = 300
    ema_decay: float = 0.998
    """The weights that are measured and kept are a moving average of the trained ones."""
    identity_variance: float = 0.65
    """Share of the true variance of face shapes over training people that the finished encoder answers with."""
    steps_per_check: int = 1000
    """Steps between measurements on held-out people; each one also writes a checkpoint."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("shards", "shard_pictures", "workers", "threads", "steps", "batch", "steps_per_check"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.footage_batch < 0 or self.footage_weight < 0:
            raise InputError("footage_batch and footage_weight must not be negative")
        if min(self.learning_rate, self.matrix_learning_rate) <= 0 or not 0 <= self.ema_decay < 1:
            raise InputError("learning rates must be positive and ema_decay in [0, 1)")


def train_encoder(
    folder: str | os.PathLike[str],
    options: TrainingOptions | None = None,
    *,
    footage: str | os.PathLike[str] | None = None,
    held_out_footage: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> OpenEncoder:
    """Draw what is missing, train, and leave the finished weights in the folder; returns them.

    Finished are the best averaged weights (by the landmark error on held-out people), widened (see `widened`).

    A second call on the same folder goes on from its last checkpoint. Same options, seed and thread count: same
    weights.

    Args:
        folder: Takes the drawn shards, `checkpoint.pt`, `log.jsonl`, `curves.png`,
            `best.safetensors`, `encoder.safetensors` (finished) and `showcase.png`.
        footage: Folder of real clips with landmarks to learn from (layout: `neuface.io.training_folder`).
        held_out_footage: The same layout; other people, only measured.
        progress: Show progress bars.

    Raises:
        InputError: Options or files that cannot be used; a person in both kinds of footage; a folder whose
            checkpoint belongs to other options.
    """
    chosen = TrainingOptions() if options is None else options
    home = TrainingFolder(folder)
    trained_on, measured_on = _read_both(footage, held_out_footage)
    numbers = range(chosen.shards)
    size = chosen.shard_pictures
    draw_shards(home, [*numbers, HELD_OUT_SHARD], size, chosen.workers, progress=progress)
    torch.set_num_threads(chosen.threads)
    head = load_head("open")
    trainer = Trainer(head, read_shards(home, numbers, size), trained_on, chosen)
    held_out = read_shards(home, [HELD_OUT_SHARD], size)
    saved = home.read_checkpoint()
    if saved is not None:
        trainer.load(saved)
    with tqdm(initial=trainer.step, total=chosen.steps, unit="step", disable=not progress) as bar:
        while trainer.step < chosen.steps:
            parts = trainer.take_step()
            bar.update()
            if trainer.step % chosen.steps_per_check and trainer.step < chosen.steps:
                continue
            averaged = trainer.averaged()
            row = trainer.record(parts, averaged, held_out, measured_on)
            bar.set_postfix(nme68=f"{row['nme68_percent']:.2f} %", loss=f"{row['loss']:.2f}")
            if row["nme68_percent"] <= min(item["nme68_percent"] for item in trainer.rows):
                home.write_best(averaged, {"training": json.dumps(row)})
            home.write_log(trainer.rows)
            home.write_picture("curves.png", _curves(trainer.rows))
            home.write_checkpoint(trainer.state())
    best = home.read_best(head)
    finished, gain = widened(head, best, trainer.training[:PICTURES_TO_WIDEN_BY], chosen.identity_variance)
    figures = _figures(head, finished, held_out, measured_on)
    home.write_finished(finished, {"training": json.dumps({**figures, "identity_gain": round(gain, 3)})})
    home.write_picture("showcase.png", showcase(head, finished, held_out))
    return finished


class Trainer:
    """The state of a training and one step of it."""

    def __init__(
        self,
        head: HeadModel,
        training: TrainingPictures,
        footage: Sequence[Footage],
        options: TrainingOptions,
    ) -> None:
        self.head, self.training, self.footage, self.options = head, training, footage, options
        self.device = torch.device(options.device)
        torch.manual_seed(options.seed)
        self.encoder = OpenEncoder(head, OpenEncoderConfig(widths=options.widths)).train().to(self.device)
        if options.compiled:
            self.encoder.backbone.compile()
        self.moved_head = head.to(self.device)
        self.supervision = Supervision(self.moved_head)
        self.optimizer = TrainingOptimizer(self.encoder, self.encoder.readout)
        self.average = {name: value.clone() for name, value in self.encoder.state_dict().items()}
        self.mirrors = {item.scheme: mirror_order(head, item.scheme) for item in footage}
        self.rows: list[dict[str, Any]] = []
        self.step = 0
        self._began = time.monotonic()

    def take_step(self) -> dict[str, Tensor]:
        """One gradient step; returns the parts of its loss."""
        options = self.options
        share = learning_rate_share(self.step, options)
        self.optimizer.set_learning_rate(
            matrices=share * options.matrix_learning_rate, others=share * options.learning_rate
        )
        # The step is the seed, so that a continued run sees what an unbroken one would have seen.
        generator = torch.Generator().manual_seed(options.seed * SEEDS_PER_RUN + self.step)
        pictures, truth = draw_rendered(self.head, self.training, options.batch, generator)
        frames: Footage | None = None
        if self.footage and options.footage_batch:
            real_pictures, frames = draw_real(self.footage, self.mirrors, options.footage_batch, generator)
            pictures = torch.cat((pictures, real_pictures))
        answer = self.encoder(pictures.to(self.device))
        parts = self.supervision.parts(self.encoder, answer[: options.batch], truth.to(self.device))
        loss = total_loss(parts)
        if frames is not None:
            real = self.supervision.footage_parts(answer[options.batch :], frames.to(self.device))
            loss = loss + options.footage_weight * total_loss(real)
            parts |= real
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), GRADIENT_NORM_LIMIT)
        self.optimizer.step()
        self._update_average()
        self.step += 1
        return {name: value.detach() for name, value in {"loss": loss, **parts}.items()}

    @torch.no_grad()
    def _update_average(self) -> None:
        # A short memory at first, so that the untrained weights are soon forgotten.
        decay = min(self.options.ema_decay, (1 + self.step) / (10 + self.step))
        for name, value in self.encoder.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def averaged(self) -> OpenEncoder:
        """The averaged weights as an encoder of its own, on the CPU, in evaluation mode."""
        encoder = OpenEncoder(self.head, OpenEncoderConfig(widths=self.options.widths))
        encoder.load_state_dict(self.average)
        return encoder.eval()

    def record(
        self,
        parts: dict[str, Tensor],
        averaged: OpenEncoder,
        held_out: TrainingPictures,
        measured_on: Sequence[Footage],
    ) -> dict[str, Any]:
        """Measure on held-out people and remember the figures."""
        earlier = self.rows[-1]["minutes"] if self.rows else 0.0
        minutes = earlier + (time.monotonic() - self._began) / 60
        row = {"step": self.step, "minutes": round(minutes, 2)}
        row |= {name: round(float(value), 4) for name, value in parts.items()}
        row |= _figures(self.head, averaged, held_out, measured_on)
        self.rows.append(row)
        self._began = time.monotonic()
        return row

    def state(self) -> dict[str, Any]:
        """Everything a continuation needs."""
        return {
            "options": _plain(self.options),
            "step": self.step,
            "rows": self.rows,
            "encoder": self.encoder.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`. Raises InputError when it was made with other options."""
        kept, wanted = state.get("options", {}), _plain(self.options)
        other = [
            f"{name} {kept.get(name)} (now {wanted[name]})"
            for name in wanted
            if name not in FREE_TO_CHANGE and kept.get(name) != wanted[name]
        ]
        if other:
            raise InputError(
                "the folder holds a training with other options: " + ", ".join(other) + ". Take the same "
                "options to continue it, or another folder to begin anew"
            )
        self.encoder.load_state_dict(state["encoder"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = {name: value.to(self.device) for name, value in state["average"].items()}
        self.rows, self.step = list(state["rows"]), int(state["step"])


def _figures(
    head: HeadModel, encoder: OpenEncoder, held_out: TrainingPictures, measured_on: Sequence[Footage]
) -> dict[str, float]:
    """All figures of one encoder by name."""
    figures = asdict(measure_synthetic(head, encoder, held_out))
    for clip in measure_footage(head, encoder, measured_on):
        figures[f"{clip.name} nme68_percent"] = clip.nme68_percent
        figures[f"{clip.name} mean_face_nme68_percent"] = clip.mean_face_nme68_percent
    return {name: round(value, 3) for name, value in figures.items()}


def learning_rate_share(step: int, options: TrainingOptions) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    warm = min(1.0, (step + 1) / max(1, options.warm_up_steps))
    return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / options.steps)))


@torch.no_grad()
def draw_rendered(
    head: HeadModel, training: TrainingPictures, count: int, generator: torch.Generator
) -> tuple[Tensor, Prediction]:
    """Random rendered pictures, moved in their crops and re-exposed, with their truth."""
    batch = training[torch.randint(len(training.identity), (count,), generator=generator)]
    moves = random_moves(count, generator)
    pictures = moves.pictures(batch.pictures.float() / 255, random_padding(generator))
    return reexpose(pictures, generator), moves.truth(batch.truth(head), head)


@torch.no_grad()
def draw_real(
    footage: Sequence[Footage], mirrors: Mapping[str, Tensor], count: int, generator: torch.Generator
) -> tuple[Tensor, Footage]:
    """Random real frames, some mirrored, moved in their crops and re-exposed, and what was observed in them."""
    drawn = draw_frames(footage, count, generator)
    drawn = mirror_some(drawn, mirrors[drawn.scheme], generator)
    moves = random_moves(count, generator)
    pictures = moves.pictures(drawn.pictures.float() / 255, random_padding(generator))
    return reexpose(pictures, generator), replace(drawn, points_ndc=moves.points(drawn.points_ndc))


def _curves(rows: Sequence[dict[str, Any]]) -> UInt8[np.ndarray, "h w 3"]:
    names = ("loss", "nme68_percent", "rotation_median_deg", "mpve_face_mm", "identity_error_share")
    history = {name: [row[name] for row in rows] for name in names}
    steps = [row["step"] for row in rows]
    return loss_curves(history, "open encoder, held-out people", steps=steps, ylabel="figure")


def _read_both(
    footage: str | os.PathLike[str] | None, held_out: str | os.PathLike[str] | None
) -> tuple[list[Footage], list[Footage]]:
    files, held_out_files = ([] if path is None else list_footage(path) for path in (footage, held_out))
    both = sorted({file.person for file in files} & {file.person for file in held_out_files})
    if both:
        raise InputError(f"{', '.join(both)}: in the footage to train on and in the held-out footage")
    return read_footage(files), read_footage(held_out_files)


def _plain(options: TrainingOptions) -> dict[str, Any]:
    """Options as a checkpoint keeps them."""
    return {name: list(item) if isinstance(item, tuple) else item for name, item in asdict(options).items()}
