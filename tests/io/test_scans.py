"""Scans: OBJ dialects, Menpo's landmark files, the real scan, and files that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_folders import DATA, needs

from neuface.errors import InputError
from neuface.io.scans import IBUG68_GROUPS, read_ljson, read_obj, read_scan
from neuface.io.video import write_image

JAMES = DATA / "menpo_james"

SQUARE = """\
# a square
mtllib ./some.mtl
v 0 0 0
v 1 0 0 0.5 0.5 0.5
v 1 1 0
v 0 1 0   # the last one
vt 0 0
vt 1 0
vt 1 1
vt 0 1
"""


def written(folder: Path, text: str, name: str = "a.obj") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def ljson(points: Any, labels: dict[str, list[int]], version: int = 3) -> str:
    group = {
        "labels": [{"label": label, "mask": mask} for label, mask in labels.items()],
        "landmarks": {"points": points},
    }
    content = {"groups": {"LJSON": group}} if version == 3 else group
    return json.dumps({**content, "version": version})


def menpo_face() -> tuple[list[list[float]], dict[str, list[int]]]:
    """68 points whose x is their iBUG number, stored in the order of the real file."""
    start, ibug = 0, {}
    for name, count in IBUG68_GROUPS:
        ibug[name] = range(start, start + count)
        start += count
    points: list[list[float]] = []
    labels = {}
    for name in ("chin", "leye", "reye", "leyebrow", "nose", "reyebrow", "mouth"):
        labels[name] = list(range(len(points), len(points) + len(ibug[name])))
        points += [[float(number), 0.0, 1.0] for number in ibug[name]]
    return points, labels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole scan: a square with a picture of four colours and 68 landmarks."""
    root = tmp_path / "scan"
    root.mkdir()
    written(root, SQUARE + "f 1/1 2/2 3/3 4/4\n", "face.obj")
    written(root, ljson(*menpo_face()), "face.ljson")
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[:2, :3] = (200, 0, 0)
    write_image(root / "face.png", picture)
    return root


# --- OBJ


@pytest.mark.parametrize(
    "corners",
    ["1/1 2/2 3/3 4/4", "1/1/9 2/2/9 3/3/9 4/4/9", "-4/-4 -3/-3 -2/-2 -1/-1", "1/1 \\\n2/2 3/3 4/4"],
)
def test_polygons_are_split_into_fans_of_triangles(tmp_path: Path, corners: str) -> None:
    mesh = read_obj(written(tmp_path, f"{SQUARE}f {corners}\n"))
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert mesh.faces.tolist() == mesh.uv_faces.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert mesh.uv.tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]


@pytest.mark.parametrize("corners", ["1 2 3", "1//7 2//7 3//7"])
def test_a_mesh_without_texture_has_no_texture_coordinates(tmp_path: Path, corners: str) -> None:
    mesh = read_obj(written(tmp_path, f"{SQUARE}f {corners}\n"))
    assert mesh.faces.tolist() == [[0, 1, 2]]
    assert mesh.uv.shape == (0, 2)
    assert mesh.uv_faces.shape == (0, 3)


def test_negative_corners_count_back_from_their_line(tmp_path: Path) -> None:
    mesh = read_obj(written(tmp_path, "v 0 0 0\nv 1 0 0\nv 0 1 0\nf -3 -2 -1\nv 9 9 9\nf -4 -3 -1\n"))
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 1, 3]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no vertices"),
        ("hello world\n", "no vertices"),
        ("v 0 0 0\n", "no faces"),
        ("v 0 zero 0\n", "line 1: .*'zero'"),
        ("v 0 0\n", "line 1: expected 3 finite numbers"),
        ("v 0 0 nan\n", "line 1: expected 3 finite numbers"),
        ("v 0 0 0\nv 1 0 0\nf 1 2\n", "line 3: a face needs at least 3 corners, got 2"),
        ("v 0 0 0\nv 1 0 0\nf 1 2 3\n", "line 3: corner 3 does not exist: 2 vertices"),
        ("v 0 0 0\nv 1 0 0\nf 1 2 0\n", "line 3: corner 0 does not exist"),
        ("v 0 0 0\nv 1 0 0\nf 1 2 -3\n", "line 3: corner -3 does not exist"),
        ("v 0 0 0\nf 1 1 x\n", "line 2: 'x' is not the number"),
        ("v 0 0 0\nf 1/1 1/1 1/1\n", "line 2: corner 1 does not exist: 0 texture coordinates"),
        ("v 0 0 0\nvt 0 0\nf 1/1 1/1 1\n", "line 3: some corners have texture coordinates"),
        ("v 0 0 0\nvt 0 0\nf 1/1 1/1 1/1\nf 1 1 1\n", "1 of 2 triangles have no texture coordinates"),
    ],
)
def test_unusable_obj_files_are_named_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        read_obj(path)
    assert str(path) in str(caught.value)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_obj(tmp_path / "none.obj")
    with pytest.raises(InputError, match="is a folder"):
        read_ljson(tmp_path)


# --- Landmarks


@pytest.mark.parametrize("version", [2, 3])
def test_points_are_read_by_label(tmp_path: Path, version: int) -> None:
    text = ljson([[1, 2, 3], [4, 5, 6], [7, 8, 9]], {"a": [2, 0], "b": [1]}, version)
    found = read_ljson(written(tmp_path, text, "a.ljson"))
    assert {label: points.tolist() for label, points in found.items()} == {
        "a": [[7, 8, 9], [1, 2, 3]],
        "b": [[4, 5, 6]],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a Menpo landmark file"),
        ("{}", "is not a Menpo landmark file"),
        ('{"groups": {}}', "expected one group of landmarks, found none"),
        ('{"groups": {"a": {}, "b": {}}}', "expected one group of landmarks, found a, b"),
        ('{"groups": {"a": {"labels": [], "landmarks": 3}}}', "is not a Menpo landmark file"),
        (ljson([[1, 2]], {"a": [0]}), r"expected points of shape \(n, 3\), got \(1, 2\)"),
        (ljson([[1, 2, None]], {"a": [0]}), "cannot be read as numbers"),
        (ljson([[1, 2, float("nan")]], {"a": [0]}), "not finite"),
        (ljson([[1, 2, 3]], {"a": [0, 1]}), r"label 'a' names points \[1\] of 1"),
    ],
)
def test_unusable_landmark_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_ljson(written(tmp_path, text, "a.ljson"))


# --- Whole scans


def test_a_scan_is_read_in_metres_and_in_ibug_order(folder: Path) -> None:
    scan = read_scan(folder)
    # Millimetres become metres, and the groups are put in iBUG's order.
    assert scan.vertices[2].tolist() == pytest.approx([0.001, 0.001, 0.0])
    torch.testing.assert_close(scan.landmarks[:, 0], torch.arange(68) / 1000)
    assert scan.texture.shape == (4, 6, 3)
    assert scan.texture[0, 0].tolist() == [200, 0, 0]
    assert scan.texture[3, 5].tolist() == [0, 0, 0]
    assert read_scan(folder, metres_per_unit=1.0).vertices[2].tolist() == [1, 1, 0]


def test_the_error_for_an_incomplete_scan_names_the_missing_part(folder: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_scan(folder / "none")
    with pytest.raises(InputError, match="metres_per_unit must be positive"):
        read_scan(folder, metres_per_unit=0.0)
    write_image(folder / "other.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(
        InputError, match=r"exactly one file ending in .jpg or .jpeg or .png, found face.png, other"
    ):
        read_scan(folder)
    (folder / "other.png").unlink()
    points, labels = menpo_face()
    labels["nose"] = labels["nose"][:-1]
    written(folder, ljson(points, labels), "face.ljson")
    with pytest.raises(InputError, match="nose: 8 instead of 9"):
        read_scan(folder)
    (folder / "face.ljson").unlink()
    with pytest.raises(InputError, match=r"exactly one file ending in .ljson, found none"):
        read_scan(folder)
    written(folder, SQUARE + "f 1 2 3\n", "face.obj")
    with pytest.raises(InputError, match="has no texture coordinates"):
        read_scan(folder)


def test_a_damaged_picture_is_refused(folder: Path) -> None:
    (folder / "face.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"face\.png"):
        read_scan(folder)


@needs(JAMES)
def test_the_real_scan_is_a_head_of_plausible_size() -> None:
    scan = read_scan(JAMES)
    assert (len(scan.vertices), len(scan.faces), len(scan.uv)) == (6393, 12228, 6680)
    assert scan.texture.shape == (1600, 2400, 3)
    # Landmarks lie on the surface, and the subject's right is at negative x.
    assert float(torch.cdist(scan.landmarks, scan.vertices).amin(1).max()) < 0.005
    x, y, z = scan.landmarks.unbind(-1)
    right_eye, left_eye, nose, mouth = slice(36, 42), slice(42, 48), slice(27, 36), slice(48, 68)
    assert float(x[right_eye].max()) < float(x[left_eye].min())
    assert float(x[36]) < float(x[39]) < float(x[42]) < float(x[45])
    assert float(y[37:39].mean()) > float(y[40:42].mean())
    assert float(y[mouth].max()) < float(y[nose].min())
    assert int(z.argmax()) == 30
    # The outer eye corners of an adult are 8 to 11 cm apart.
    assert 0.08 < float(torch.linalg.vector_norm(scan.landmarks[36] - scan.landmarks[45])) < 0.11
