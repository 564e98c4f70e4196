"""What a kept run depends on: the code that computes it, the model, torch, and the clip's bytes.

The code of a run is found by following imports from the module that computes it, so no list of files is kept by
hand: code that only draws or words the findings is not imported there, and runs outlive its changes.
"""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from neuface.hashing import tensors_hash
from neuface.io.assets.fingerprints import file_sha256
from neuface.models import FaceModel
from neuface.synthetic.landmark_noise import DETECTOR
from studies.common.cases import HARD, CaseSpec
from studies.common.kept_runs import Json

ROOT = Path(__file__).parents[2]
PACKAGES = ("neuface", "studies")


def model_key(model: FaceModel, computed_by: str) -> Json:
    """What all runs of a study have in common.

    Args:
        computed_by: full name of the module that computes the runs.
    """
    return {
        "code": code_of_module_sha256(computed_by),
        "encoder": weights_hash(model),
        "head": model.head.content_hash(),
        "torch": torch.__version__,
    }


def rendered_clip_key(spec: CaseSpec) -> Json:
    """What a rendered clip follows from, except for the scan's files."""
    key: Json = {"spec": asdict(spec)}
    if spec.condition == HARD:
        key["corruption"] = asdict(DETECTOR)
    return key


def weights_hash(model: FaceModel) -> str:
    """SHA-256 over every number of the model's encoder."""
    return tensors_hash(model.encoder.state_dict())


class FileHashes:
    """SHA-256 of files; each file is read once, however many runs depend on it."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def of(self, paths: Sequence[str | os.PathLike[str]]) -> list[str]:
        """The hashes in the order of the paths. Raises InputError for a file that cannot be read."""
        return [self._of(os.fspath(path)) for path in paths]

    def _of(self, path: str) -> str:
        if path not in self._known:
            self._known[path] = file_sha256(path)
        return self._known[path]


def code_of_module_sha256(module: str, root: Path = ROOT) -> str:
    """SHA-256 of a module's code and of all modules of PACKAGES that it imports, directly or indirectly.

    Comments, docstrings and layout do not count. A package's `__init__.py` counts only where it is imported by name.
    """
    digest = hashlib.sha256()
    for name, path in sorted(modules_behind(module, root).items()):
        digest.update(f"{name} {code_sha256(path.read_text(encoding='utf-8'))}\n".encode())
    return digest.hexdigest()


def modules_behind(module: str, root: Path = ROOT) -> dict[str, Path]:
    """Files by module name: the module itself and all modules of PACKAGES that it imports, directly or indirectly."""
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file_of(name, root)
        if path is None or name in found:
            continue
        found[name] = path
        waiting += _imports_of(path.read_text(encoding="utf-8"))
    return found


def code_sha256(source: str) -> str:
    """SHA-256 of what Python code does: other comments, docstrings or layout do not change it."""
    return hashlib.sha256(ast.dump(_WithoutTexts().visit(ast.parse(source))).encode()).hexdigest()


def _file_of(module: str, root: Path) -> Path | None:
    if module.partition(".")[0] not in PACKAGES:
        return None
    path = root.joinpath(*module.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def _imports_of(source: str) -> Iterator[str]:
    """Every name that may be a module, wherever in the file the import stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            # `from neuface import losses` names a module, `from neuface.losses import landmark_loss` a function.
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


class _WithoutTexts(ast.NodeTransformer):
    """Drops strings that stand alone: docstrings of modules, classes, functions and fields."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        alone = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if alone else node
