"""Weak perspective against perspective, on rendered clips of cameras half a metre away.

    python -m studies.near_cameras --distances-m 0.5 0.7 --clips 2 --data DATA --json near.json

The rendered people are random ones of the open head's population, so that the figures measure what the camera costs,
and not how well the head describes real people. The scan of `--data` is a real person.
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
from neuface import Clip, FitConfig, FitResult, HeadModel, InputError
from neuface.fitting.config import PinholeCamera, WeakPerspectiveCamera
from neuface.geometry.alignment import align_points
from neuface.geometry.rotations import rotvec_to_rotmat
from neuface.io.scans import read_scan
from neuface.models import load_head
from neuface.synthetic.clips import HEAD_SCALE, SyntheticClip, make_talking_clip
from neuface.synthetic.people import open_head_identities
from neuface.synthetic.scan_clips import SCAN_SCALE, film_scan
from studies.common.cases import NOISE_PX, scan_truth, upright
from studies.common.recordings import SCAN_FOLDER, find_footage
from studies.common.scores import scan_error_mm

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
    data: Path | None = None
    """Folder of real clips with the scan (`studies.common.recordings`); without it there is no clip of the scan."""
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
            for row, result in _fits(read, distance_m, HEAD_SCALE):
                yield {"clip": f"rendered person {seed}", **row, **figures(head, result, clip)}
        if options.data is not None:
            yield from _of_scan(head, options, options.data, distance_m)


def _of_scan(head: HeadModel, options: Options, data: Path, distance_m: float) -> Iterator[dict[str, Any]]:
    """The scan's distance from the fitted mesh, mm, after the best similarity: a near camera leaves the size open."""
    folder = find_footage(data).scan_folder
    if folder is None:
        raise InputError(f"{data} has no scan: expected it in {SCAN_FOLDER}")
    scan = upright(read_scan(folder), head)
    frames, landmarks_px = film_scan(
        scan,
        view_yaw_deg=(0.0,),
        time=options.frames,
        size_px=SIZE_PX,
        noise_px=NOISE_PX,
        distance_m=distance_m,
        seed=1,
    )
    for row, result in _fits(neuface.read_clip(frames, landmarks_px), distance_m, SCAN_SCALE):
        error_mm = scan_error_mm(head, result.params, scan_truth(scan), with_scale=True)
        yield {"clip": "scan", **row, "scan_mm": error_mm}


def _fits(clip: Clip, distance_m: float, scale: float) -> Iterator[tuple[dict[str, Any], FitResult]]:
    """A fit with every kind of camera, and what is said about it.

    Args:
        scale: frame half-widths per metre at that distance.
    """
    focal_px = scale * distance_m * SIZE_PX / 2
    cameras = (WeakPerspectiveCamera(), PinholeCamera(), PinholeCamera(focal_px=focal_px))
    for kind, camera in zip(KINDS, cameras, strict=True):
        result = neuface.optimize(clip, config=FitConfig(camera=camera), progress=False)
        yield (
            {
                "distance_m": distance_m,
                "camera": kind,
                "true_focal_px": focal_px,
                "focal_px": result.focal[0].px if result.focal else None,
                "nme_percent": float(result.image_nme_percent.nanmean()),
                "seconds": result.seconds,
            },
            result,
        )


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
    }


def _distance_mm(points: torch.Tensor, truth: torch.Tensor) -> float:
    aligned = align_points(points.double(), truth.double(), with_scale=True)
    return 1000 * float((aligned - truth).norm(dim=-1).mean())


if __name__ == "__main__":
    main(tyro.cli(Options))
