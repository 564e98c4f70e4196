"""What a file is, told by its bytes, and what the package computes, told by its code."""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from neuface.errors import InputError

PIECE_BYTES = 1 << 20
# The first digits of the SHA-256 of the published files, enough to tell them apart.
PUBLISHED_SHA256 = {
    "landmark_embedding.npy": "8095348eeafce5a0",
    "mediapipe_landmark_embedding.npz": "88636303",
    "FLAME_masks.pkl": "ccefbe1a",
    "head_template.obj": "dd5bfbce",
    "l_eyelid.npy": "fa509971",
    "r_eyelid.npy": "dd78776f",
}


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal digits. Raises InputError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while piece := stream.read(PIECE_BYTES):
                digest.update(piece)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    return digest.hexdigest()


def is_as_published(name: str, sha256: str) -> bool | None:
    """Whether a file of that name has the known published content; None where no hash is known."""
    known = PUBLISHED_SHA256.get(name)
    return None if known is None else sha256.startswith(known)


def package_sha256(leave_out: Sequence[str] = ()) -> str:
    """SHA-256 of this package's code without comments, docstrings and layout, in hexadecimal digits.

    Args:
        leave_out: patterns of files that do not count, such as `viz/*.py`, from the package's folder.
    """
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root)
        if not any(place.match(pattern) for pattern in leave_out):
            digest.update(f"{place.as_posix()} {code_sha256(path.read_text(encoding='utf-8'))}\n".encode())
    return digest.hexdigest()


def code_sha256(source: str) -> str:
    """SHA-256 of what Python code does: the same with other comments, docstrings or layout."""
    return hashlib.sha256(ast.dump(_WithoutTexts().visit(ast.parse(source))).encode()).hexdigest()


class _WithoutTexts(ast.NodeTransformer):
    """Strings that stand alone: docstrings of modules, classes, functions and fields."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        alone = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if alone else node
