"""A fit of the paper's size, seven cameras with 120 frames each and an encoder as large as DECA's, on a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from neuface.devices import one_thread_per_operation
from neuface.fitting.config import FitConfig, JointSolve
from neuface.fitting.joint.fit import fit_jointly
from neuface.fitting.loop import fit
from neuface.fitting.parameterisation import FineTunedEncoder
from neuface.models import load_head
from studies.performance.passes import INPUT_PX, ResNetOfDecaSize
from studies.performance.rendered_track import rendered_problem
from studies.performance.timing import timed

VIEWS, FRAMES = 7, 120
CONFIGS = {"best": FitConfig.best(), "neural": FitConfig.neural(), "paper": FitConfig.paper()}


def cuda(
    *,
    devices: tuple[str, ...] = ("cuda",),
    views: int = VIEWS,
    frames: int = FRAMES,
    configs: Mapping[str, FitConfig] = CONFIGS,
    rounds: int = 3,
) -> list[dict[str, Any]]:
    """Seconds and largest memory of each fit, without reading and detection; no rows for devices that are missing.

    The encoder is not trained, so that the fits say nothing about quality. The first round, which is left out, warms
    the device up.
    """
    there = [device for device in devices if device == "cpu" or torch.cuda.is_available()]
    return [
        {
            "device": device,
            "config": name,
            "views": views,
            "frames": frames,
            **_measured(config, device, views, frames, rounds),
        }
        for device in there
        for name, config in configs.items()
    ]


def _measured(config: FitConfig, device: str, views: int, frames: int, rounds: int) -> dict[str, Any]:
    head = load_head("open")
    problem = rendered_problem(head, views=views, time=frames).problem.to(device)
    encoder = ResNetOfDecaSize(head).to(device)
    crops = torch.rand(views * frames, 3, INPUT_PX, INPUT_PX, generator=torch.Generator().manual_seed(0))
    images = crops.to(device)
    on_device = head.to(device)
    run = fit_jointly if isinstance(config.m_step, JointSolve) else fit
    passes: list[int] = []

    def once() -> None:
        with one_thread_per_operation():
            found = run(FineTunedEncoder(encoder, images), on_device, problem, config)
        passes.append(len(found.history["total"]) - 1)

    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    seconds = [timed(once, device) for _ in range(rounds + 1)][1:]
    return {
        "seconds": min(seconds),
        "passes": passes[-1],
        "device_peak_mb": None if device == "cpu" else torch.cuda.max_memory_allocated() / 2**20,
    }
