"""Cameras as calibration programs write them in JSON, YAML and TOML: a table per camera, under the usual names.

OpenCV's conventions hold throughout: world to camera, x right, y down, z ahead, pixel centres at integers. Fields
that do not concern the geometry are passed over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuface.errors import InputError
from neuface.geometry.rotations import rotvec_to_rotmat
from neuface.io.cameras.camera_set import CameraSet, SizeHw
from neuface.io.cameras.values import (
    MOST_CAMERAS,
    ROTATION_TOLERANCE,
    OneCamera,
    camera_set,
    checked_camera,
    frame_size,
    numbers,
    short,
)

# Names of fields in small letters; the first of each is what error messages say.
MATRIX = (
    "camera_matrix", "cameramatrix", "k", "mtx", "matrix", "intrinsics", "intrinsic", "intrinsic_matrix",
)  # fmt: skip
DISTORTION = (
    "distortion_coefficients", "dist", "distcoeffs", "dist_coeffs", "distortion", "distortions", "d",
)  # fmt: skip
ROTATION_MATRIX = ("r", "rotation_matrix", "rotationmatrix")
ROTVEC = ("rvec", "rotvec", "rotation_vector")
EITHER_ROTATION = ("rotation",)
TRANSLATION = ("t", "tvec", "translation", "translation_vector")
POSE = (*ROTATION_MATRIX, *ROTVEC, *EITHER_ROTATION, *TRANSLATION)
SIZE = ("image_size", "imagesize", "size", "img_size", "resolution")
SIDES = (("image_width", "image_height"), ("width", "height"))
NAME = ("name", "id", "cam_id", "camera_id")
UNIT = ("unit", "units", "length_unit")
MODEL = ("distortion_model", "camera_model", "model")
PARTS = ("intrinsics", "intrinsic", "extrinsics", "extrinsic", "pose")
"""Tables inside a camera's table."""
GROUPS = ("cameras", "calibration", "calibrations")

METRES = {
    **dict.fromkeys(("m", "metre", "metres", "meter", "meters"), 1.0),
    **dict.fromkeys(("cm", "centimetre", "centimetres", "centimeter", "centimeters"), 1e-2),
    **dict.fromkeys(("mm", "millimetre", "millimetres", "millimeter", "millimeters"), 1e-3),
}
# Models of lenses whose first five coefficients are those of PerspectiveCamera, if the others are zero.
KNOWN_MODELS = (
    "plumb_bob",
    "radtan",
    "brown_conrady",
    "rational_polynomial",
    "opencv",
    "pinhole",
    "standard",
)
COEFFICIENTS = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6", "s1", "s2", "s3", "s4", "tau_x", "tau_y")
COUNTS = (0, 1, 2, 4, 5, 8, 12, 14)
READ_COEFFICIENTS = 5

Table = dict[str, Any]


def cameras_of_tables(file: Path, content: Any) -> CameraSet:
    """The cameras of a parsed file.

    Raises:
        InputError: no table of a camera is found, a field is missing, twice there or wrong, or the lens or unit is
            none that is understood.
    """
    tables = _stereo(file, content) or list(_tables(file, content))
    if not 0 < len(tables) <= MOST_CAMERAS:
        raise InputError(
            f"{file}: has {len(tables)} tables of cameras; expected 1 to {MOST_CAMERAS}, each with "
            f"{MATRIX[0]}, {DISTORTION[0]}, rvec or R, and t"
        )
    whole = _plain_fields(content) if isinstance(content, dict) else {}
    alone = len(tables) == 1
    units = {_metres_per_unit(file, {**whole, **_plain_fields(table)}) for _, table in tables}
    if len(units) > 1:
        raise InputError(f"{file}: its cameras have different units of length; expected one")
    (unit,) = units
    found = camera_set(file, [_camera(file, name, table, alone) for name, table in tables], metric=False)
    return found if unit is None else found.scaled(unit)


def is_camera(value: Any) -> bool:
    """Whether this is a table with a camera matrix."""
    return isinstance(value, dict) and any(name in _plain_fields(value) for name in MATRIX)


def _tables(file: Path, content: Any) -> Iterator[tuple[str, Table]]:
    """The tables of cameras with their names; a camera that has the file to itself is named like it.

    Raises InputError for a table with a camera's pose, but no matrix.
    """
    stem = file.stem
    if is_camera(content):
        yield _name_of(content, stem), content
        return
    if isinstance(content, dict):
        group = next((content[name] for name in content if str(name).lower() in GROUPS), content)
        content = group if isinstance(group, dict | list) else content
    listed = content.items() if isinstance(content, dict) else enumerate(content or ())
    if is_camera(content):
        yield _name_of(content, stem), content
        return
    for name, value in listed:
        if is_camera(value):
            yield _name_of(value, str(name)), value
        elif isinstance(value, dict) and any(field in _plain_fields(value) for field in POSE):
            raise InputError(
                f"{file}: camera {short(str(name))} has no {MATRIX[0]}; expected one beside its pose"
            )


def _stereo(file: Path, content: Any) -> list[tuple[str, Table]]:
    """The two cameras of OpenCV's stereo calibration: `K1`, `D1`, `K2`, `D2`, `R`, `T`; the first is the world."""
    if not isinstance(content, dict):
        return []
    fields = _plain_fields(content)
    tables: list[tuple[str, Table]] = []
    for number in ("1", "2"):
        matrix = next(
            (fields[f"{name}{number}"] for name in ("m", *MATRIX) if f"{name}{number}" in fields), None
        )
        if matrix is None:
            return []
        lens = next((fields[f"{name}{number}"] for name in DISTORTION if f"{name}{number}" in fields), None)
        table = {"k": matrix} if lens is None else {"k": matrix, "d": lens}
        sizes = {name: fields[name] for name in SIZE if name in fields}
        tables.append((number, table | sizes))
    where = f"{file}: stereo calibration"
    tables[0][1].update(rvec=[0.0, 0.0, 0.0], t=[0.0, 0.0, 0.0])
    tables[1][1].update(
        r=_needed(where, fields, ROTATION_MATRIX, "rotation"),
        t=_needed(where, fields, TRANSLATION, "translation"),
    )
    return tables


def _camera(file: Path, name: str, table: Table, alone: bool) -> OneCamera:
    where, fields = f"{file}: camera {short(name)}", _plain_fields(table)
    _refuse_other_lenses(where, fields)
    K = numbers(f"{where}, {MATRIX[0]}", _matrix(where, _needed(where, fields, MATRIX, MATRIX[0]), 3), (3, 3))
    rotation, translation = _rotation(where, fields), _only(where, fields, TRANSLATION)
    if alone and rotation is None and translation is None:
        # A camera alone is where its world begins.
        rotation, translation = torch.eye(3, dtype=torch.float64), [0.0, 0.0, 0.0]
    if rotation is None or translation is None:
        lacking = "rotation (R or rvec)" if rotation is None else "translation (t or tvec)"
        raise InputError(
            f"{where} has no {lacking}; expected where each camera is in the world, without which views cannot be "
            "brought together"
        )
    return checked_camera(
        where,
        OneCamera(
            name=name,
            K=K,
            distortion=_distortion(where, _only(where, fields, DISTORTION)),
            rotation=rotation,
            translation=numbers(f"{where}, t", _flat(translation), (3,)),
            size_hw=_size(where, fields),
        ),
    )


def _rotation(where: str, fields: Table) -> Tensor | None:
    """The rotation from a matrix, or a rotation vector, or both if they are the same."""
    given = [_only(where, fields, names) for names in (ROTATION_MATRIX, ROTVEC, EITHER_ROTATION)]
    found: Tensor | None = None
    for value in given:
        if value is None:
            continue
        flat = _flat(value)
        if isinstance(flat, list) and len(flat) == 3 and not isinstance(flat[0], list):
            rotvec = numbers(f"{where}, rvec", flat, (3,))
            if float(rotvec.norm()) > 2 * math.pi:
                raise InputError(
                    f"{where}, rvec is {float(rotvec.norm()):.4g} long; expected radians, up to 2 pi"
                )
            rotation = rotvec_to_rotmat(rotvec)
        else:
            rotation = numbers(f"{where}, R", _matrix(where, value, 3), (3, 3))
        if found is not None and float((found - rotation).abs().max()) > ROTATION_TOLERANCE:
            raise InputError(f"{where} has a rotation vector and a matrix R that are different rotations")
        found = rotation
    return found


def _distortion(where: str, value: Any) -> Tensor:
    flat = [] if value is None else _flat(value)
    if not isinstance(flat, list) or len(flat) not in COUNTS:
        raise InputError(
            f"{where}, {DISTORTION[0]} must be {', '.join(map(str, COUNTS[:-1]))} or {COUNTS[-1]} numbers in "
            f"OpenCV's order: {', '.join(COEFFICIENTS)}"
        )
    coefficients = numbers(f"{where}, {DISTORTION[0]}", flat, (len(flat),))
    beyond = [
        name
        for name, number in zip(COEFFICIENTS, coefficients.tolist(), strict=False)
        if number != 0 and name in COEFFICIENTS[READ_COEFFICIENTS:]
    ]
    if beyond:
        raise InputError(
            f"{where} has a lens with the coefficients {', '.join(beyond)}, which this package does not model; "
            "calibrate it with k1, k2, p1, p2 and k3 alone (OpenCV's default)"
        )
    kept = coefficients[:READ_COEFFICIENTS]
    return torch.nn.functional.pad(kept, (0, READ_COEFFICIENTS - len(kept)))


def _refuse_other_lenses(where: str, fields: Table) -> None:
    """Raises InputError for what would change the meaning of the numbers."""
    model = _only(where, fields, MODEL)
    if isinstance(model, str) and model.lower() not in KNOWN_MODELS:
        raise InputError(
            f"{where} has a lens of the model {short(model)}; expected one of {', '.join(KNOWN_MODELS)}"
        )
    for name in ("fisheye", "xi", "rotation_count"):
        if fields.get(name):
            what = "turns its frames" if name == "rotation_count" else "has a fisheye lens"
            raise InputError(
                f"{where} {what} ({name} = {short(fields[name])}), which this package does not read; expected a "
                "perspective lens and frames as they were recorded"
            )


def _size(where: str, fields: Table) -> SizeHw | None:
    size = _only(where, fields, SIZE)
    if size is not None:
        return frame_size(where, _flat(size))
    for width, height in SIDES:
        if width in fields and height in fields:
            return frame_size(where, [fields[width], fields[height]])
    return None


def _metres_per_unit(file: Path, fields: Table) -> float | None:
    unit = _only(f"{file}: the file", fields, UNIT)
    if unit is None:
        return None
    if not isinstance(unit, str) or unit.lower() not in METRES:
        raise InputError(f"{file}: the unit of length is {short(unit)}; expected m, cm or mm")
    return METRES[unit.lower()]


def _plain_fields(table: Table) -> Table:
    """The fields by their names in small letters; those of the tables PARTS stand among them."""
    fields: Table = {}
    for name, value in table.items():
        if str(name).lower() in PARTS and isinstance(value, dict) and not _is_matrix(value):
            fields |= {str(inner).lower(): item for inner, item in value.items()}
        else:
            fields[str(name).lower()] = value
    return fields


def _only(where: str, fields: Table, names: tuple[str, ...]) -> Any:
    """The value under one of the names; None if there is none, InputError if there are several."""
    there = [name for name in names if fields.get(name) is not None]
    if len(there) > 1:
        raise InputError(f"{where} has both {' and '.join(there)}; expected one of them")
    return fields[there[0]] if there else None


def _needed(where: str, fields: Table, names: tuple[str, ...], what: str) -> Any:
    value = _only(where, fields, names)
    if value is None:
        raise InputError(f"{where} has no {what}; expected it under one of the names {', '.join(names)}")
    return value


def _name_of(table: Table, default: str) -> str:
    fields = _plain_fields(table)
    name = next((fields[name] for name in NAME if isinstance(fields.get(name), str | int)), default)
    return str(name)[:200]


def _is_matrix(value: Any) -> bool:
    """Whether this is a matrix as OpenCV and ROS write it: rows, cols, data."""
    return isinstance(value, dict) and {"rows", "cols", "data"} <= {*value}


def _matrix(where: str, value: Any, columns: int) -> Any:
    """Nested lists of a matrix that may come flat, or as OpenCV writes it."""
    if _is_matrix(value):
        rows, cols, data = value["rows"], value["cols"], value["data"]
        if (
            type(rows) is not int
            or type(cols) is not int
            or not isinstance(data, list)
            or rows * cols != len(data)
        ):
            raise InputError(f"{where} has a matrix whose rows and cols do not fit its data")
        if cols != columns:
            raise InputError(f"{where} has a matrix of {short(cols)} columns; expected {columns}")
        value = data
    if isinstance(value, list) and len(value) == columns * columns:
        return [value[start : start + columns] for start in range(0, columns * columns, columns)]
    return value


def _flat(value: Any) -> Any:
    """The numbers of a row, a column or a list; other values as they are."""
    if _is_matrix(value):
        value = value["data"]
    if not isinstance(value, list):
        return value
    if len(value) == 1 and isinstance(value[0], list):
        return value[0]
    if all(isinstance(item, list) and len(item) == 1 for item in value):
        return [item[0] for item in value]
    return value
