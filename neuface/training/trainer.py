"""The state of the open encoder's training, and one step of it."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from neuface.devices import checked_device, cpu_seed
from neuface.encoders.open_encoder import OpenEncoder, OpenEncoderConfig
from neuface.errors import InputError
from neuface.hashing import tensors_hash
from neuface.head.model import HeadModel
from neuface.structs import Prediction
from neuface.synthetic.training_pictures import TrainingPictures
from neuface.training.augment import random_jitter, random_padding, reexpose
from neuface.training.optimizer import TrainingOptimizer
from neuface.training.options import TrainingOptions
from neuface.training.recordings import RecordedFrames, draw_frames, mirror_some
from neuface.training.supervision import Supervision, total_loss
from neuface.training.validation import figures

# Upper bound of the gradient's norm; larger gradients are scaled down.
GRADIENT_NORM_LIMIT = 5.0
# Distance of the seeds of two runs; it bounds the number of steps with seeds of their own.
SEEDS_PER_RUN = 1_000_003


class Trainer:
    """The state of a training: network, optimiser, moving average, and measurements so far."""

    def __init__(
        self,
        head: HeadModel,
        training: TrainingPictures,
        footage: Sequence[RecordedFrames],
        options: TrainingOptions,
        start: OpenEncoder | None = None,
    ) -> None:
        """Raises InputError if the size of the network `start` differs from that in the options."""
        self.head, self.training, self.footage, self.options = head, training, footage, options
        self.device = checked_device(options.device)
        self.encoder = self._initial_encoder().train().to(self.device)
        if start is not None:
            if start.config != self.encoder.config:
                raise InputError(
                    f"the initial weights are of a network with {start.config}, the options ask for "
                    f"{self.encoder.config}"
                )
            self.encoder.load_state_dict(start.state_dict())
        self.start = None if start is None else tensors_hash(start.state_dict())
        if options.compiled:
            self.encoder.backbone.compile()
        self.moved_head = head.to(self.device)
        self.supervision = Supervision(self.moved_head)
        self.optimizer = TrainingOptimizer(self.encoder, self.encoder.readout)
        self.average = {name: value.clone() for name, value in self.encoder.state_dict().items()}
        self.rows: list[dict[str, Any]] = []
        self.step = 0
        self._began = time.monotonic()

    def take_step(self) -> dict[str, Tensor]:
        """One gradient step; returns the parts of its loss."""
        options = self.options
        share = options.learning_rate_share(self.step)
        self.optimizer.set_learning_rate(
            matrices=share * options.matrix_learning_rate, others=share * options.learning_rate
        )
        # The step determines the seed, so that a continued run draws the same batches as an uninterrupted one.
        generator = torch.Generator().manual_seed(options.seed * SEEDS_PER_RUN + self.step)
        images, truth = draw_rendered(self.head, self.training, options.batch, generator)
        frames: RecordedFrames | None = None
        if self.footage and options.footage_batch:
            real_images, frames = draw_real(self.footage, options.footage_batch, generator)
            images = torch.cat((images, real_images))
        prediction = self.encoder(images.to(self.device))
        parts = self.supervision.parts(self.encoder, prediction[: options.batch], truth.to(self.device))
        loss = total_loss(parts)
        if frames is not None:
            real = self.supervision.footage_parts(prediction[options.batch :], frames.to(self.device))
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
        # The average is short at first, so that the untrained weights lose their influence.
        decay = min(self.options.ema_decay, (1 + self.step) / (10 + self.step))
        for name, value in self.encoder.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def averaged(self) -> OpenEncoder:
        """A new encoder with the averaged weights, on the CPU, in evaluation mode."""
        encoder = self._initial_encoder()
        encoder.load_state_dict(self.average)
        return encoder.eval()

    def _initial_encoder(self) -> OpenEncoder:
        """An untrained encoder on the CPU, whose weights depend on the seed alone."""
        with cpu_seed(self.options.seed):
            return OpenEncoder(self.head, OpenEncoderConfig(widths=self.options.widths))

    def record(
        self,
        parts: dict[str, Tensor],
        averaged: OpenEncoder,
        held_out: TrainingPictures,
        measured_on: Sequence[RecordedFrames],
    ) -> dict[str, Any]:
        """Measure the averaged weights on held-out people; the result is appended to `rows`."""
        earlier = self.rows[-1]["minutes"] if self.rows else 0.0
        minutes = earlier + (time.monotonic() - self._began) / 60
        row = {"step": self.step, "minutes": round(minutes, 2)}
        row |= {name: round(float(value), 4) for name, value in parts.items()}
        row |= figures(self.head, averaged, held_out, measured_on)
        self.rows.append(row)
        self._began = time.monotonic()
        return row

    def state(self) -> dict[str, Any]:
        """The state from which a training can be continued."""
        return {
            "options": self.options.plain(),
            "footage": self._footage_names(),
            "start": self.start,
            "step": self.step,
            "rows": self.rows,
            "encoder": self.encoder.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from `state`. Raises InputError if it belongs to other options, initial weights or footage."""
        other = self.options.differences(state.get("options", {}))
        if other:
            raise InputError(
                "the folder contains a training with other options: " + ", ".join(other) + ". Use the same "
                "options to continue it, or another folder to begin anew"
            )
        if state["start"] != self.start:
            raise InputError(
                "the folder contains a training that began with other weights. Begin with the same to continue it, "
                "or use another folder"
            )
        if state["footage"] != self._footage_names():
            raise InputError(
                f"the folder contains a training with the footage {', '.join(state['footage']) or '(none)'}, now it "
                f"is {', '.join(self._footage_names()) or '(none)'}. Use the same, or another folder to begin anew"
            )
        self.encoder.load_state_dict(state["encoder"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["average"].keys() != self.average.keys():
            raise ValueError("the moving average is of other weights")
        self.average = {name: value.to(self.device) for name, value in state["average"].items()}
        self.rows, self.step = list(state["rows"]), int(state["step"])

    def _footage_names(self) -> list[str]:
        return [name for item in self.footage for name in item.clip_names]


@torch.no_grad()
def draw_rendered(
    head: HeadModel, training: TrainingPictures, count: int, generator: torch.Generator
) -> tuple[Tensor, Prediction]:
    """Random rendered pictures with random crops and exposures, and their truth."""
    batch = training[torch.randint(len(training.identity), (count,), generator=generator)]
    jitter = random_jitter(count, generator)
    images = jitter.images(batch.pictures.float() / 255, random_padding(generator))
    return reexpose(images, generator), jitter.truth(batch.truth(head), head)


@torch.no_grad()
def draw_real(
    footage: Sequence[RecordedFrames], count: int, generator: torch.Generator
) -> tuple[Tensor, RecordedFrames]:
    """Random real frames, some mirrored, with random crops and exposures, and their landmarks."""
    drawn = mirror_some(draw_frames(footage, count, generator), generator)
    jitter = random_jitter(count, generator)
    images = jitter.images(drawn.pictures.float() / 255, random_padding(generator))
    return reexpose(images, generator), replace(drawn, points_ndc=jitter.points(drawn.points_ndc))


def mean_encoder(encoders: Sequence[OpenEncoder]) -> OpenEncoder:
    """The encoder with the mean of several encoders' weights (a "model soup", Wortsman et al. 2022).

    They should be continuations of one training. Raises InputError if they differ in size.
    """
    first = encoders[0]
    if any(item.config != first.config for item in encoders):
        raise InputError(
            f"weights of different networks cannot be averaged: {[item.config for item in encoders]}"
        )
    states = [item.state_dict() for item in encoders]
    mean = copy.deepcopy(first)
    mean.load_state_dict(
        {
            name: torch.stack([state[name] for state in states]).mean(0)
            if value.is_floating_point()
            else value
            for name, value in states[0].items()
        }
    )
    return mean
