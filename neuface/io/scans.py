"""Textured face scans: Wavefront OBJ meshes, their texture picture, and Menpo's landmark files (.ljson)."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from neuface.errors import InputError
from neuface.io.video import VideoSource
from neuface.structs import TensorStruct

__all__ = ["ObjMesh", "Scan", "read_ljson", "read_obj", "read_scan"]

# Menpo's groups in the order of iBUG-68, with the number of points of each. "l" is the left of the picture, which is
# the subject's right.
IBUG68_GROUPS = (
    ("chin", 17), ("leyebrow", 5), ("reyebrow", 5), ("nose", 9), ("leye", 6), ("reye", 6), ("mouth", 20),
)  # fmt: skip
PICTURE_ENDINGS = (".jpg", ".jpeg", ".png")
# Number of names that an error message lists.
MOST_NAMED = 5
# Bound on the absolute value of a coordinate, in the file's unit: just below the largest float32. NaN fails the
# comparison, too.
LARGEST_COORDINATE = 3e38


@dataclass(frozen=True, kw_only=True)
class ObjMesh(TensorStruct):
    """The surface that an OBJ file describes, in the file's own unit."""

    vertices: Float[Tensor, "vertices 3"]
    faces: Int[Tensor, "faces 3"]
    uv: Float[Tensor, "texture_vertices 2"]
    """Texture coordinates, 0..1 from the picture's lower left corner; no rows in a file without texture."""
    uv_faces: Int[Tensor, "uv_faces 3"]
    """Rows of `uv` for the corners of every face; no rows in a file without texture."""


@dataclass(frozen=True, kw_only=True)
class Scan(TensorStruct):
    """A textured surface with 68 landmarks on it."""

    vertices: Float[Tensor, "vertices 3"]
    """Metres, in the scanner's axes."""
    faces: Int[Tensor, "faces 3"]
    """Counter-clockwise seen from outside."""
    uv: Float[Tensor, "texture_vertices 2"]
    """0..1 from the picture's lower left corner, which is the corner of the corner pixel."""
    uv_faces: Int[Tensor, "faces 3"]
    texture: UInt8[Tensor, "h w 3"]
    """RGB."""
    landmarks: Float[Tensor, "68 3"]
    """iBUG-68 order, metres."""


def read_scan(folder: str | os.PathLike[str], *, metres_per_unit: float = 1e-3) -> Scan:
    """Read a folder that holds one scan: one .obj, one .ljson and one picture (.jpg or .png), by any names.

    Args:
        metres_per_unit: length of one unit of the mesh and its landmarks, which neither format states. The default
            is for files in millimetres.

    Raises:
        InputError: the folder does not hold these three files; `read_obj`, `read_ljson` or the picture
            decoder refuses one of them; the mesh has no texture coordinates; or the landmarks are not the 68 of
            iBUG under Menpo's group names.
    """
    if not (math.isfinite(metres_per_unit) and metres_per_unit > 0):
        raise InputError(f"metres_per_unit must be positive and finite, got {metres_per_unit}")
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder; expected one with a scan (.obj, .ljson and .jpg)")
    obj = _only(root, (".obj",))
    mesh = read_obj(obj)
    if len(mesh.uv_faces) == 0:
        raise InputError(
            f"{obj}: has no texture coordinates; expected faces like 'f 1/1 2/2 3/3' and vt lines"
        )
    return Scan(
        vertices=mesh.vertices * metres_per_unit,
        faces=mesh.faces,
        uv=mesh.uv,
        uv_faces=mesh.uv_faces,
        texture=VideoSource(_only(root, PICTURE_ENDINGS)).read(0, 0, 1)[0],
        landmarks=_ibug68(_only(root, (".ljson",))) * metres_per_unit,
    )


def read_obj(path: str | os.PathLike[str]) -> ObjMesh:
    """Read the surface of a Wavefront OBJ file: its v, vt and f lines; all others are ignored.

    Polygons become fans about their first corner. Corners may be `v`, `v/vt`, `v//vn` or `v/vt/vn`, and count
    from 1 or, if negative, back from the last one so far. Colours after a vertex' coordinates are ignored.

    Raises:
        InputError: the file is missing or unreadable or has no vertices or no faces; a word is not a finite number; a
            polygon has fewer than three corners; a corner does not exist; or some corners but not all have texture
            coordinates. The message names the line.
    """
    file = Path(path)
    parser = _ObjParser(file)
    for number, line in enumerate(_text(file).replace("\\\n", " ").splitlines(), start=1):
        parser.read_line(number, line)
    return parser.finished()


def read_ljson(path: str | os.PathLike[str]) -> dict[str, Float[Tensor, "_ 3"]]:
    """Read 3D landmarks in Menpo's JSON format (versions 2 and 3): the points of every label, in the file's unit.

    Raises:
        InputError: the file is missing, not JSON, not in this format or has several groups; a point is not
            three finite numbers; or a label names points that do not exist.
    """
    file = Path(path)
    try:
        content = json.loads(_text(file))
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{file}: is not JSON ({error}); expected a Menpo landmark file") from error
    group = _only_group(file, content)
    try:
        listed = group["landmarks"]["points"]
        labels = [(str(item["label"]), [int(index) for index in item["mask"]]) for item in group["labels"]]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{file}: is not a Menpo landmark file (no usable {error}); "
            "expected 'labels' with 'label' and 'mask', and 'landmarks' with 'points'"
        ) from error
    points = _checked_points(file, listed)
    for label, mask in labels:
        outside = [index for index in mask if not 0 <= index < len(points)]
        if outside:
            raise InputError(f"{file}: label {label!r} names points {outside[:MOST_NAMED]} of {len(points)}")
    return {label: points[mask] for label, mask in labels}


def _ibug68(path: Path) -> Float[Tensor, "68 3"]:
    """The 68 landmarks in iBUG's order, whatever the order of the file's groups."""
    groups = read_ljson(path)
    wrong = [
        f"{name}: {len(groups[name]) if name in groups else 'missing'} instead of {count}"
        for name, count in IBUG68_GROUPS
        if name not in groups or len(groups[name]) != count
    ]
    if wrong:
        raise InputError(
            f"{path}: is not marked with the 68 iBUG points ({'; '.join(wrong)}); "
            f"its groups: {', '.join(groups) or 'none'}"
        )
    return torch.cat([groups[name] for name, _ in IBUG68_GROUPS])


def _only(folder: Path, endings: tuple[str, ...]) -> Path:
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in endings)
    if len(found) != 1:
        names = ", ".join(path.name for path in found[:MOST_NAMED]) or "none"
        raise InputError(
            f"{folder}: expected exactly one file ending in {' or '.join(endings)}, found {names}"
        )
    return found[0]


def _text(file: Path) -> str:
    if file.is_dir():
        raise InputError(f"{file}: is a folder; expected a file")
    try:
        # Names of materials and comments may have any encoding; numbers are ASCII.
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error})") from error


def _only_group(file: Path, content: Any) -> dict[str, Any]:
    if isinstance(content, dict) and isinstance(content.get("groups"), dict):
        groups = content["groups"]
        if len(groups) != 1:
            raise InputError(f"{file}: expected one group of landmarks, found {', '.join(groups) or 'none'}")
        content = next(iter(groups.values()))
    if not isinstance(content, dict):
        raise InputError(f"{file}: is not a Menpo landmark file; expected a JSON object with 'groups'")
    return content


def _checked_points(file: Path, listed: Any) -> Float[Tensor, "points 3"]:
    try:
        points = torch.tensor(listed, dtype=torch.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise InputError(f"{file}: its points cannot be read as numbers ({error})") from error
    if points.ndim != 2 or points.shape[-1] != 3:
        raise InputError(f"{file}: expected points of shape (n, 3), got {tuple(points.shape)}")
    if not bool(points.float().isfinite().all()):
        raise InputError(f"{file}: has points that are not finite numbers, or too large")
    return points.float()


class _ObjParser:
    """Collects the vertices, texture coordinates and triangles of an OBJ file line by line."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.vertices: list[tuple[float, ...]] = []
        self.uv: list[tuple[float, ...]] = []
        self.faces: list[tuple[int, int, int]] = []
        self.uv_faces: list[tuple[int, int, int]] = []

    def read_line(self, number: int, line: str) -> None:
        words = line.split("#", 1)[0].split()
        if not words:
            return
        if words[0] == "v":
            self.vertices.append(self._numbers(number, words, 3))
        elif words[0] == "vt":
            self.uv.append(self._numbers(number, words, 2))
        elif words[0] == "f":
            self._add_polygon(number, words[1:])

    def finished(self) -> ObjMesh:
        if not self.vertices or not self.faces:
            missing = "vertices (v lines)" if not self.vertices else "faces (f lines)"
            raise InputError(f"{self.file}: has no {missing}; expected a Wavefront OBJ mesh")
        if self.uv_faces and len(self.uv_faces) != len(self.faces):
            raise InputError(
                f"{self.file}: {len(self.faces) - len(self.uv_faces)} of {len(self.faces)} triangles have no "
                "texture coordinates; expected them on all faces or on none"
            )
        textured = bool(self.uv_faces)
        return ObjMesh(
            vertices=torch.tensor(self.vertices, dtype=torch.float64).float(),
            faces=torch.tensor(self.faces, dtype=torch.int64),
            uv=torch.tensor(self.uv if textured else [], dtype=torch.float64).float().reshape(-1, 2),
            uv_faces=torch.tensor(self.uv_faces, dtype=torch.int64).reshape(-1, 3),
        )

    def _numbers(self, number: int, words: list[str], count: int) -> tuple[float, ...]:
        try:
            values = tuple(float(word) for word in words[1 : count + 1])
        except ValueError as error:
            raise self._error(number, f"{error}, in {' '.join(words)!r}") from error
        if len(values) < count or not all(abs(value) < LARGEST_COORDINATE for value in values):
            raise self._error(number, f"expected {count} finite numbers after {words[0]!r}, got {words[1:]}")
        return values

    def _add_polygon(self, number: int, words: list[str]) -> None:
        if len(words) < 3:
            raise self._error(number, f"a face needs at least 3 corners, got {len(words)}")
        corners = [self._corner(number, word) for word in words]
        textured = [uv for _, uv in corners if uv is not None]
        if textured and len(textured) != len(corners):
            raise self._error(number, "some corners have texture coordinates, others have none")
        for last in range(2, len(corners)):
            fan = corners[0], corners[last - 1], corners[last]
            self.faces.append((fan[0][0], fan[1][0], fan[2][0]))
            if textured:
                self.uv_faces.append((textured[0], textured[last - 1], textured[last]))

    def _corner(self, number: int, word: str) -> tuple[int, int | None]:
        """Rows of the vertex and, if there are any, of its texture coordinates."""
        vertex, *rest = word.split("/")
        uv = rest[0] if rest else ""
        return (
            self._row(number, vertex, len(self.vertices), "vertices"),
            self._row(number, uv, len(self.uv), "texture coordinates") if uv else None,
        )

    def _row(self, number: int, word: str, count: int, what: str) -> int:
        try:
            index = int(word)
        except ValueError as error:
            raise self._error(number, f"{word!r} is not the number of a corner") from error
        row = index - 1 if index > 0 else count + index
        if index == 0 or not 0 <= row < count:
            raise self._error(number, f"corner {index} does not exist: {count} {what} so far")
        return row

    def _error(self, number: int, text: str) -> InputError:
        return InputError(f"{self.file}, line {number}: {text}")
