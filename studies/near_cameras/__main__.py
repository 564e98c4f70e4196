"""Weak perspective against perspective, on rendered clips of cameras half a metre away.

    python -m studies.near_cameras --distances-m 0.5 0.7 --clips 2 --json near.json

The rendered people are random ones of the open head's population, so that the figures measure what the camera costs,
and not how well the head describes real people.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

import neuface
from neuface import FitConfig, FitResult, HeadModel
from neuface.fitting.config import PinholeCamera
from neuface.geometry.alignment import align_points
from neuface.geometry.rotations import rotvec_to_rotmat
from neuface.models import load_head
from neuface.synthetic.clips import HEAD_SCALE, SyntheticClip, make_talking_clip
from neuface.synthetic.people import open_head_identities

PEOPLE_SEED = 7000
SIZE_PX = 256
KINDS = ("weak perspective", "perspective, focal length estimated", "perspective, focal length given")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which clips are made, and where the figures go."""

    distances_m: tuple[float, ...] = (0.5, 0.7)
    """Between the camera and the head frame's origin."""
    clips: int = 2
    """Per distance, each of another person with other motion."""
    frames: int = 40
    json: Path | None = None
    """File for the figures; without it they are only printed."""


def main(options: Options) -> None:
    """Fit every clip with every kind of camera, and print a line for each."""
    head = load_head("open")
    rows = []
    for row in measured(head, options):
        rows.append(row)
        print(json.dumps(row), flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")


def measured(head: HeadModel, options: Options) -> Iterator[dict[str, Any]]:
    """The figures of one fit after the other."""
    for distance_m in options.distances_m:
        focal_px = HEAD_SCALE * distance_m * SIZE_PX / 2
        configs = (
            FitConfig(),
            FitConfig(camera=PinholeCamera()),
            FitConfig(camera=PinholeCamera(focal_px=focal_px)),
        )
        for seed in range(1, options.clips + 1):
            person = open_head_identities(1, PEOPLE_SEED + seed)[0]
            clip = make_talking_clip(
                head,
                person,
                view_yaw_deg=(0.0,),
                time=options.frames,
                size_px=SIZE_PX,
                distance_m=distance_m,
                seed=seed,
            )
            read = neuface.read_clip(clip.frames, clip.landmarks_px, fps=clip.fps)
            for kind, config in zip(KINDS, configs, strict=True):
                result = neuface.optimize(read, config=config, progress=False)
                yield {
                    "distance_m": distance_m,
                    "clip": seed,
                    "camera": kind,
                    **figures(head, result, clip),
                    "true_focal_px": focal_px,
                    "focal_px": result.focal[0].px if result.focal else None,
                    "seconds": result.seconds,
                }


def figures(head: HeadModel, result: FitResult, clip: SyntheticClip) -> dict[str, float]:
    """Errors of the face, mm after the best similarity of every image, and of its orientation, degrees."""
    face, truth = head.region("face"), clip.truth
    posed, true_posed = head.vertices(result.params)[..., face, :], head.vertices(truth)[..., face, :]
    neutral = head.neutral(1)
    shapes = [
        head.vertices(neutral.with_tensors({"identity": params.identity[0, :1]}))[..., face, :]
        for params in (result.params, truth)
    ]
    turn = rotvec_to_rotmat(result.root_rotvec).double() @ rotvec_to_rotmat(truth.root_rotvec).double().mT
    cosine = (turn.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return {
        "face_mm": _distance_mm(posed, true_posed),
        "shape_mm": _distance_mm(*shapes),
        "turn_deg": math.degrees(float(cosine.clamp(-1, 1).acos().mean())),
        "nme_percent": float(result.image_nme_percent.nanmean()),
    }


def _distance_mm(points: torch.Tensor, truth: torch.Tensor) -> float:
    aligned = align_points(points.double(), truth.double(), with_scale=True)
    return 1000 * float((aligned - truth).norm(dim=-1).mean())


if __name__ == "__main__":
    main(tyro.cli(Options))
