"""Fit saved clips with whichever version of neuface is on the path, and save parameters and times.

This file runs alone, as `python fit_saved.py JOB.json` with PYTHONPATH at a checkout: it imports nothing of this
package, so that an older version can be measured by the same code. Only what both versions have is used, and the
differences of their results stand in `in_frame_px`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import neuface
from neuface.fitting import config as config_module
from neuface.models import load_model

PARAMETERS = ("identity", "expression", "root_rotvec", "neck_rotvec", "jaw_rotvec", "eyes_rotvec")


def main(job_file: Path) -> None:
    """Carry out a job: `tree`, `config` (a preset or an expression), `threads` (0: the default), and `fits`.

    Each fit has a `clip` (npz of `saved_clips`), the `views` that are fitted, and where its result goes (`out`). With
    `wait`, the process says "ready" when it could begin and waits for a line, so that several begin at once.
    """
    job = json.loads(job_file.read_text(encoding="utf-8"))
    found = Path(neuface.__file__).resolve()
    if not found.is_relative_to(Path(job["tree"]).resolve()):
        raise SystemExit(f"{found} was imported, but the version in {job['tree']} was to be measured")
    if job["threads"]:
        torch.set_num_threads(job["threads"])
    model, config = load_model("open"), make_config(job["config"])
    if job.get("wait"):
        print("ready", flush=True)
        sys.stdin.readline()
    for fit in job["fits"]:
        with np.load(fit["clip"]) as saved:
            frames = [saved[f"frames_{view}"] for view in fit["views"]]
            points = [saved["points"][view] for view in fit["views"]]
            fps = float(saved["fps"])
        clip = neuface.read_clip(frames, points, fps=fps)
        started, cpu = time.perf_counter(), time.process_time()
        result = neuface.optimize(clip, model=model, config=config, progress=False)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        arrays = in_frame_px(result)
        Path(fit["out"]).parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            fit["out"],
            **arrays,
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            passes=len(result.history["total"]) - 1,
            loss=np.array(result.history["total"]),
        )
        print(f"{Path(fit['out']).stem}: {seconds:.1f} s, {cpu_seconds:.1f} s of CPU", flush=True)


def make_config(expression: str) -> Any:
    """The preset of that name, or the value of a Python expression in the names of `neuface.fitting.config`."""
    if expression in ("best", "neural", "paper", "official", "direct"):
        return getattr(neuface.FitConfig, expression)()
    return eval(expression, vars(config_module).copy())


def in_frame_px(result: Any) -> dict[str, Any]:
    """Parameters and weak-perspective cameras of a result, batch axes `views time`; cameras in frame pixels.

    Results of older versions had cameras in the crops, and `crops` beside them.
    """
    arrays: dict[str, Any] = {"valid": result.valid.numpy()}
    for kind, prediction in (("", result.prediction), ("initial_", result.initial)):
        for name in PARAMETERS:
            arrays[kind + name] = getattr(prediction.params, name).numpy()
        scale, offset = prediction.camera.scale, prediction.camera.offset
        if hasattr(result, "crops"):
            scale = scale / result.crops.ndc_per_frame_px
            offset = result.crops.ndc_to_frame(offset[..., None, :])[..., 0, :]
        arrays |= {kind + "scale": scale.numpy(), kind + "offset": offset.numpy()}
    return arrays


if __name__ == "__main__":
    main(Path(sys.argv[1]))
