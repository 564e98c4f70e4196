"""What a kept run of the study depends on: the clip, how it is fitted, the models, and the code that computes it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import torch

from neuface.io.assets.fingerprints import file_sha256, package_sha256
from neuface.models import FaceModel
from neuface.synthetic.landmark_noise import DETECTOR
from studies.common.cases import HARD, SCAN, CaseSpec
from studies.common.recordings import SCAN_FILES, RealFootage
from studies.neural_versus_direct.study import weights_hash

Json = dict[str, Any]

PRESENTATION = (
    "benchmark/causes.py",
    "benchmark/command.py",
    "benchmark/documents.py",
    "benchmark/evidence_*.py",
    "benchmark/gradient_maps.py",
    "benchmark/over_parameterisation.py",
    "benchmark/published.py",
    "benchmark/report.py",
    "cli.py",
    "demo.py",
    "training/*.py",
    "viz/*.py",
)
"""Code that shows what was found, or has no part in it: runs outlive its changes."""


def model_key(model: FaceModel) -> Json:
    """What all runs have in common."""
    return {
        "code": package_sha256(PRESENTATION),
        "encoder": weights_hash(model),
        "head": model.head.content_hash(),
        "torch": torch.__version__,
    }


def clip_key(name: str, spec: CaseSpec | None, frames: int | None, footage: RealFootage) -> Json:
    """What is in a clip, wherever its files lie.

    Args:
        spec: of a rendered clip; None for a real one.
        frames: of a real clip, at most so many.

    Raises:
        InputError: a file that cannot be read.
    """
    if spec is None:
        case = next(case for case in footage.cases if case.name == name)
        return {"frames": frames, "files": _hashes(case.files())}
    key: Json = {"spec": asdict(spec)}
    if spec.condition == HARD:
        key["corruption"] = asdict(DETECTOR)
    if spec.kind == SCAN and footage.scan_folder is not None:
        key["files"] = _hashes([f"{footage.scan_folder}/{file}" for file in SCAN_FILES])
    return key


def _hashes(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    return [file_hash(os.fspath(path)) for path in paths]


@lru_cache(maxsize=256)
def file_hash(path: str) -> str:
    """SHA-256 of a file, read once."""
    return file_sha256(path)
