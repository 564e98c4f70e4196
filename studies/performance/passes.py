"""What a pass of the EM loop costs beside the encoder's own forward and backward passes and its step of Adam."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.devices import cpu_threads
from neuface.encoders.predictor import Predictor
from neuface.encoders.resnet50 import CodeNetwork
from neuface.fitting.config import FitConfig
from neuface.fitting.descent import freeze_normalisation
from neuface.fitting.loop import fit
from neuface.fitting.parameterisation import FineTunedEncoder
from neuface.fitting.problem import Problem
from neuface.head.model import HeadModel
from neuface.models import load_model
from neuface.structs import Prediction, WeakPerspective
from studies.performance.rendered_track import rendered_problem
from studies.performance.timing import Seconds, in_turn, ratio, timed

INPUT_PX = 224
SMALL_CHANGE = 0.01
"""Factor of the untrained network's outputs: its heads stay near the neutral one."""
SCALE = 5.0
"""Crop half-widths per metre of the untrained network's cameras."""


class ResNetOfDecaSize(Predictor):
    """An untrained ResNet-50 with DECA's hidden layer that predicts open heads: only its cost is meant."""

    input_px = INPUT_PX

    def __init__(self, head: HeadModel) -> None:
        super().__init__()
        self._neutral = head.neutral(1)
        self._sizes = (head.num_identity, head.num_expression, 3, 3, 2, 1)
        self.network = CodeNetwork(sum(self._sizes))

    def prepare(self, crops: Float[Tensor, "n 3 h w"]) -> Tensor:
        """The crops themselves."""
        return crops

    def forward(self, inputs: Tensor) -> Prediction:
        """Heads near the neutral one, in the middle of the crop."""
        code = SMALL_CHANGE * self.network(inputs).tanh()
        identity, expression, root, jaw, offset, log_scale = code.split(self._sizes, -1)
        neutral = self._neutral.map_tensors(
            lambda tensor: tensor.to(code).expand(len(code), *tensor.shape[1:])
        )
        params = replace(neutral, identity=identity, expression=expression, root_rotvec=root, jaw_rotvec=jaw)
        camera = WeakPerspective(scale=SCALE * log_scale[:, 0].exp(), offset=offset)
        return Prediction(params=params, camera=camera)


@dataclass(frozen=True, kw_only=True)
class Case:
    """An encoder and a clip for it."""

    name: str
    encoder: Predictor
    images: Float[Tensor, "n c h w"]
    problem: Problem
    head: HeadModel


def passes(
    *, images: int = 64, images_of_resnet: int = 16, rounds: int = 5, threads: int = 1
) -> list[dict[str, Any]]:
    """The ratio for the open encoder and for a ResNet-50, on the CPU and where there is one on a CUDA device."""
    rows = []
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        for make in (partial(_open, images), partial(_resnet, images_of_resnet)):
            with cpu_threads(threads):
                rows.append({"device": device, **pass_against_encoder(make(device), device, rounds)})
    return rows


def pass_against_encoder(case: Case, device: str, rounds: int) -> dict[str, Any]:
    """Seconds of a pass of `paper()`, which fits by the network alone, and of the bare encoder."""
    size = len(case.images)
    config = FitConfig.paper({"m_step.batches.size": size, "m_step.adam.warm_up_steps": 0})
    seconds = in_turn(
        {
            "pass": lambda: _seconds_of_pass(case, config),
            "encoder": lambda: timed(_bare_step(case.encoder, case.images), device, _clock(device)),
        },
        rounds + 1,
    )
    # The first round warms up.
    kept: Seconds = {name: values[1:] for name, values in seconds.items()}
    return {
        "encoder": case.name,
        "images": size,
        "ratio": ratio(kept, "pass", "encoder"),
        "pass_s": min(kept["pass"]),
        "encoder_s": min(kept["encoder"]),
    }


def _clock(device: str) -> Callable[[], float]:
    """Seconds of this process where it computes in one thread, so that what else the machine does counts less."""
    return time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def _seconds_of_pass(case: Case, config: FitConfig) -> float:
    """The second of two passes, from the end of the first to its own."""
    times: list[float] = []
    clock = _clock(case.problem.valid.device.type)

    def noted(number: int, _: dict[str, float]) -> None:
        if case.problem.valid.is_cuda:
            torch.cuda.synchronize()
        times.append(clock())

    limited = config.changed({"m_step.stop.max_passes": 2})
    fit(FineTunedEncoder(case.encoder, case.images), case.head, case.problem, limited, noted)
    # The third time is that of the evaluation of the last parameters.
    return times[1] - times[0]


def _bare_step(encoder: Predictor, images: Tensor) -> Callable[[], None]:
    tuned = copy.deepcopy(encoder)
    trainable = freeze_normalisation(tuned)
    optimiser = torch.optim.Adam(trainable, lr=1e-5)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        found = tuned(images)
        tensors = (*found.params.named_tensors().values(), *found.camera.named_tensors().values())
        torch.stack([tensor.square().mean() for tensor in tensors if tensor.requires_grad]).sum().backward()
        optimiser.step()

    # Adam makes its state in the first step.
    step()
    return step


def _open(images: int, device: str) -> Case:
    model = load_model("open")
    return _case("open", model.encoder, model.head, images, device)


def _resnet(images: int, device: str) -> Case:
    head = load_model("open").head
    return _case("ResNet-50", ResNetOfDecaSize(head), head, images, device)


def _case(name: str, encoder: Predictor, head: HeadModel, images: int, device: str) -> Case:
    generator = torch.Generator().manual_seed(0)
    crops = torch.rand(images, 3, INPUT_PX, INPUT_PX, generator=generator)
    return Case(
        name=name,
        encoder=encoder.to(device),
        images=encoder.prepare(crops).to(device),
        problem=rendered_problem(head, views=1, time=images).problem.to(device),
        head=head.to(device),
    )
