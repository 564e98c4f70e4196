"""Calibrations of other programs: the same four cameras in every format, what is refused, and matching to views."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from data_folders import DATA, needs

from neuface.errors import InputError
from neuface.geometry.perspective import PerspectiveCamera
from neuface.geometry.rotations import rotmat_to_rotvec, rotvec_to_quaternion, rotvec_to_rotmat
from neuface.io.cameras import CameraSet, read_cameras
from neuface.io.cameras.given import given_cameras

SESSION = DATA / "caliscope_4view" / "calibration_session"
NAMES = ("cam_0", "cam_1", "cam_2")
SIZE_HW = (480, 640)
Tables = dict[str, dict[str, Any]]


def rig(lens: tuple[float, ...] = (-0.1, 0.02, 0.001, -0.002, 0.0)) -> PerspectiveCamera:
    generator = torch.Generator().manual_seed(0)
    rotvec = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    K = torch.tensor([[700.0, 0.0, 311.0], [0.0, 710.0, 244.5], [0.0, 0.0, 1.0]], dtype=torch.float64)
    return PerspectiveCamera(
        K=K.repeat(3, 1, 1) * torch.tensor([[1.0], [1.0], [1.0]]).double(),
        distortion=torch.tensor(lens, dtype=torch.float64).repeat(3, 1),
        rotation=rotvec_to_rotmat(rotvec),
        translation=torch.randn(3, 3, generator=generator, dtype=torch.float64),
    )


def tables() -> Tables:
    """As most programs have them in memory."""
    cameras = rig()
    return {
        name: {
            "name": name,
            "size": [SIZE_HW[1], SIZE_HW[0]],
            "matrix": cameras.K[view].tolist(),
            "distortions": cameras.distortion[view, :4].tolist(),
            "rotation": rotmat_to_rotvec(cameras.rotation[view]).tolist(),
            "translation": cameras.translation[view].tolist(),
        }
        for view, name in enumerate(NAMES)
    }


def as_toml(folder: Path) -> Path:
    """As Anipose and Pose2Sim write it."""
    lines = []
    for name, table in tables().items():
        lines.append(f"[{name}]")
        lines += [f"{field} = {json.dumps(value)}" for field, value in table.items()]
        lines += ["fisheye = false", ""]
    path = folder / "calibration.toml"
    path.write_text("\n".join([*lines, "[metadata]", "adjusted = false", "error = 0.0"]))
    return path


def opencv_matrix(values: list[list[float]]) -> str:
    flat = ", ".join(repr(number) for row in values for number in row)
    return (
        f"!!opencv-matrix\n   rows: {len(values)}\n   cols: {len(values[0])}\n   dt: d\n   data: [ {flat} ]"
    )


def as_opencv_yaml(folder: Path) -> Path:
    """A file per camera, as OpenCV's FileStorage writes it."""
    for name, table in tables().items():
        rotvec, translation = ([[number] for number in table[key]] for key in ("rotation", "translation"))
        text = (
            "%YAML:1.0\n---\nimage_width: 640\nimage_height: 480\n"
            f"camera_matrix: {opencv_matrix(table['matrix'])}\n"
            f"distortion_coefficients: {opencv_matrix([[*table['distortions'], 0.0]])}\n"
            f"rvec: {opencv_matrix(rotvec)}\ntvec: {opencv_matrix(translation)}\n"
        )
        (folder / f"{name}.yml").write_text(text)
    return folder


def as_json(folder: Path) -> Path:
    """A list of cameras with nested tables, matrices as OpenCV's JSON has them, and a rotation given twice."""
    cameras = []
    for name, table in tables().items():
        flat = [number for row in table["matrix"] for number in row]
        K = {"type_id": "opencv-matrix", "rows": 3, "cols": 3, "dt": "d", "data": flat}
        rotation = rotvec_to_rotmat(torch.tensor(table["rotation"], dtype=torch.float64))
        pose = {"R": rotation.tolist(), "rvec": table["rotation"], "t": [[x] for x in table["translation"]]}
        cameras.append(
            {"id": name, "intrinsics": {"K": K, "dist": [table["distortions"]]}, "extrinsics": pose}
        )
    path = folder / "rig.json"
    path.write_text(json.dumps({"cameras": cameras}))
    return path


def as_colmap_text(folder: Path) -> Path:
    lenses, images = ["# Camera list"], ["# Image list"]
    for view, (name, table) in enumerate(tables().items()):
        (fx, _, cx), (_, fy, cy), _ = table["matrix"]
        lens = (fx, fy, cx + 0.5, cy + 0.5, *table["distortions"])
        lenses.append(f"{view + 7} OPENCV 640 480 {' '.join(map(repr, lens))}")
        quaternion = quaternion_wxyz(table["rotation"])
        pose = " ".join(map(repr, (*quaternion, *table["translation"])))
        images += [f"{view + 1} {pose} {view + 7} shots/{name}.png", "1.5 2.5 -1 3.5 4.5 12" if view else ""]
    (folder / "cameras.txt").write_text("\n".join(lenses) + "\n")
    (folder / "images.txt").write_text("\n".join(images) + "\n")
    return folder


def as_colmap_binary(folder: Path) -> Path:
    below = folder / "sparse" / "0"
    below.mkdir(parents=True)
    lenses, images = struct.pack("<Q", 3), struct.pack("<Q", 3)
    for view, (name, table) in enumerate(tables().items()):
        (fx, _, cx), (_, fy, cy), _ = table["matrix"]
        lenses += struct.pack("<iiQQ", view, 4, 640, 480)
        lenses += struct.pack("<8d", fx, fy, cx + 0.5, cy + 0.5, *table["distortions"])
        images += struct.pack("<i7di", view, *quaternion_wxyz(table["rotation"]), *table["translation"], view)
        images += f"{name}.png".encode() + b"\0" + struct.pack("<Q", 1) + struct.pack("<ddq", 1.5, 2.5, -1)
    (below / "cameras.bin").write_bytes(lenses)
    (below / "images.bin").write_bytes(images)
    return folder


def quaternion_wxyz(rotvec: list[float]) -> list[float]:
    x, y, z, w = rotvec_to_quaternion(torch.tensor(rotvec, dtype=torch.float64)).tolist()
    return [w, x, y, z]


FORMATS = (as_toml, as_opencv_yaml, as_json, as_colmap_text, as_colmap_binary)


@pytest.mark.parametrize("write", FORMATS)
def test_every_format_holds_the_same_cameras(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    found, expected = read_cameras(write(tmp_path)), rig()
    assert found.names == NAMES
    assert not found.metric
    for name, value in expected.named_tensors().items():
        torch.testing.assert_close(getattr(found.cameras, name), value, atol=1e-9, rtol=1e-9)
    if write is not as_json:
        assert found.sizes_hw == (SIZE_HW,) * 3


def test_the_stereo_calibration_of_opencv_has_two_cameras(tmp_path: Path) -> None:
    first, second = (table for _, table in list(tables().items())[:2])
    rotation = rotvec_to_rotmat(torch.tensor(second["rotation"], dtype=torch.float64))
    text = (
        f"%YAML:1.0\nK1: {opencv_matrix(first['matrix'])}\nD1: {opencv_matrix([first['distortions']])}\n"
        f"K2: {opencv_matrix(second['matrix'])}\nD2: {opencv_matrix([second['distortions']])}\n"
        f"R: {opencv_matrix(rotation.tolist())}\nT: {opencv_matrix([[x] for x in second['translation']])}\n"
    )
    path = tmp_path / "stereo.yml"
    path.write_text(text)
    found = read_cameras(path)
    torch.testing.assert_close(found.cameras.rotation[0], torch.eye(3).double())
    torch.testing.assert_close(found.cameras.rotation[1], rotation)
    assert found.cameras.translation[1].tolist() == second["translation"]


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("distortions", [0.1, 0, 0, 0, 0, 0.2, 0, 0], "k4"),
        ("distortions", [0.1, 0, 0], "distortion_coefficients"),
        ("distortions", [0.1, 0, 0, "a"], "distortion_coefficients"),
        ("fisheye", True, "fisheye"),
        ("model", "equidistant", "equidistant"),
        ("rotation_count", 1, "rotation_count"),
        ("rotation", None, "no rotation"),
        ("translation", None, "no translation"),
        ("rotation", [[1, 0, 0], [0, 1, 0], [0, 0, -1]], "R is no rotation"),
        ("rvec", [0.0, 0.0, 0.0], "different rotations"),
        ("mtx", [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "both mtx and matrix"),
        ("matrix", [[700, 0, 900], [0, 700, 240], [0, 0, 1]], "principal point"),
        ("size", [640], "frame size"),
        ("unit", "furlong", "furlong"),
        ("translation", [0, 0, float("nan")], "t has a number"),
        ("rotation", [0, 90, 0], "expected radians"),
        ("matrix", [[1e-3, 0, 320], [0, 1e-3, 240], [0, 0, 1]], "focal length of 0.001"),
        ("matrix", [[1e6, 0, 320], [0, 1e6, 240], [0, 0, 1]], "in pixels"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(
    tmp_path: Path, field: str, value: Any, named: str
) -> None:
    content = tables()
    content["cam_1"][field] = value
    path = tmp_path / "rig.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        read_cameras(path)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_camera_without_a_matrix_is_named(tmp_path: Path) -> None:
    content = tables()
    del content["cam_1"]["matrix"]
    path = tmp_path / "rig.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="'cam_1' has no camera_matrix"):
        read_cameras(path)


def test_a_name_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    path = as_json(tmp_path).rename(tmp_path / "rig.yaml")
    path.write_text(path.read_text().replace('"cameras"', '"cameras": 1, "cameras"', 1))
    with pytest.raises(InputError, match="'cameras' is given twice"):
        read_cameras(path)


@pytest.mark.parametrize("write", [as_json, as_toml])
def test_a_byte_order_mark_does_not_matter(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_cameras(path).names == NAMES


def test_an_empty_path_is_not_the_current_folder() -> None:
    with pytest.raises(InputError, match="is empty"):
        read_cameras("")


@pytest.mark.parametrize("scale", ["1", True, None, [1]])
def test_a_scale_is_a_number(tmp_path: Path, scale: Any) -> None:
    with pytest.raises(InputError, match="expected a positive number of metres per unit"):
        read_cameras(as_toml(tmp_path)).scaled(scale)


def test_an_image_of_colmap_without_its_line_of_points_is_named(tmp_path: Path) -> None:
    images = as_colmap_text(tmp_path) / "images.txt"
    lines = images.read_text().splitlines()
    images.write_text("\n".join(lines[:1] + lines[1::2]) + "\n")
    with pytest.raises(InputError, match="line of points after image"):
        read_cameras(tmp_path)


def test_two_cameras_of_one_number_in_colmap_are_refused(tmp_path: Path) -> None:
    lenses = as_colmap_text(tmp_path) / "cameras.txt"
    lines = lenses.read_text().splitlines()
    lenses.write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.raises(InputError, match="two cameras of one number"):
        read_cameras(tmp_path)


def test_a_reconstruction_of_very_many_images_is_refused_at_once(tmp_path: Path) -> None:
    folder = as_colmap_binary(tmp_path) / "sparse" / "0"
    images = (folder / "images.bin").read_bytes()
    (folder / "images.bin").write_bytes(struct.pack("<Q", 3000) + images[8:] * 1000)
    with pytest.raises(InputError, match="holds more than 256"):
        read_cameras(tmp_path)


def test_a_stated_unit_makes_metres(tmp_path: Path) -> None:
    path = tmp_path / "rig.json"
    path.write_text(json.dumps({"unit": "mm", **tables()}))
    found = read_cameras(path)
    assert found.metric
    torch.testing.assert_close(found.cameras.translation, rig().translation / 1000)
    with pytest.raises(InputError, match="states that its unit"):
        found.scaled(0.5)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rig.yaml", "a: &x [1, 2]\nb: *x\n"),
        ("rig.yaml", "a: !!python/object/apply:os.system ['true']\n"),
        ("rig.yaml", "camera_matrix: [[["),
        ("rig.yaml", "[" * 50_000),
        ("rig.toml", "[cam_0\n"),
        ("rig.toml", "a = " + "[" * 50_000),
        ("rig.xyz", "{}"),
        ("rig.json", "{}"),
        ("cameras.txt", "1 OPENCV 640"),
    ],
)
def test_a_file_without_cameras_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        read_cameras(tmp_path / name)


def test_lenses_of_colmap_that_are_not_read_are_named(tmp_path: Path) -> None:
    folder = as_colmap_text(tmp_path)
    lenses = folder / "cameras.txt"
    lenses.write_text(lenses.read_text().replace("OPENCV", "OPENCV_FISHEYE"))
    with pytest.raises(InputError, match="OPENCV_FISHEYE"):
        read_cameras(folder)


@pytest.mark.parametrize("write", [as_toml, as_colmap_text, as_colmap_binary])
def test_damaged_files_are_read_or_refused(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path, chance = write(tmp_path), random.Random(1)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    whole = {file: file.read_bytes() for file in files}
    for _ in range(150):
        file = chance.choice(files)
        data = bytearray(whole[file])
        for _ in range(chance.randint(1, 3)):
            place = chance.randrange(len(data))
            if chance.random() < 0.5:
                data[place] = chance.randrange(256)
            else:
                del data[place : place + chance.randint(1, 40)]
        file.write_bytes(data)
        with suppress(InputError):
            assert bool(read_cameras(path).cameras.K.isfinite().all())
        file.write_bytes(whole[file])


# --- Which camera is whose


def a_set(names: tuple[str, ...] = NAMES, **changes: Any) -> CameraSet:
    found = CameraSet(cameras=rig(), names=names, sizes_hw=(SIZE_HW,) * 3, metric=False)
    return replace(found, **changes)


def test_cameras_are_matched_by_name_whatever_their_order() -> None:
    cameras, remarks = a_set().for_views(["cam_2", "cam_0", "cam_1"], [SIZE_HW] * 3)
    torch.testing.assert_close(cameras.translation, rig().translation[[2, 0, 1]])
    assert remarks == ()


def test_numbers_in_names_match_and_then_the_order_does() -> None:
    numbered, remarks = a_set(("2", "0", "1")).for_views(NAMES, [SIZE_HW] * 3)
    torch.testing.assert_close(numbered.translation, rig().translation[[1, 2, 0]])
    assert "cam_0: 0" in remarks[0]
    ordered, remarks = a_set(("left", "middle", "right")).for_views(NAMES, [SIZE_HW] * 3)
    torch.testing.assert_close(ordered.translation, rig().translation)
    assert "order" in remarks[0]


def test_missing_and_additional_cameras_are_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"no view for the camera\(s\) cam_1"):
        a_set().for_views(["cam_0", "cam_2"], [SIZE_HW] * 2)
    with pytest.raises(InputError, match=r"no camera for the view\(s\) side"):
        a_set().for_views(["cam_0", "cam_1", "cam_2", "side"], [SIZE_HW] * 4)


def test_scaled_frames_have_scaled_cameras() -> None:
    cameras, remarks = a_set().for_views(NAMES, [SIZE_HW, (240, 320), SIZE_HW])
    assert len(remarks) == 1
    assert "320 x 240" in remarks[0]
    point = torch.tensor([[0.2, 0.1, 0.3]]).double() - rig().rotation.mT[1] @ (
        rig().translation[1] - torch.tensor([0, 0, 2.0]).double()
    )
    before, after = rig()[1].project(point), cameras[1].project(point)
    # The middle of a 2 x 2 block of pixels is the middle of the pixel that stands for them.
    torch.testing.assert_close(after, (before + 0.5) / 2 - 0.5)
    with pytest.raises(InputError, match="no scaled copy"):
        a_set().for_views(NAMES, [SIZE_HW, (240, 300), SIZE_HW])


def test_the_unit_is_said_or_asked_for() -> None:
    found = given_cameras(a_set(), None, NAMES, [SIZE_HW] * 3)
    assert not found.metric
    assert "--calibration-scale" in found.remarks[0]
    scaled = given_cameras(a_set(), 0.001, NAMES, [SIZE_HW] * 3)
    assert scaled.metric
    assert scaled.cameras is not None
    torch.testing.assert_close(scaled.cameras.translation, rig().translation / 1000)
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="calibration scale"):
            given_cameras(a_set(), wrong, NAMES, [SIZE_HW] * 3)
    with pytest.raises(InputError, match="calibration scale"):
        given_cameras(None, 1.0, NAMES, [SIZE_HW] * 3)
    with pytest.raises(InputError, match="CameraSet"):
        given_cameras(3, None, NAMES, [SIZE_HW] * 3)


@needs(SESSION)
def test_the_file_of_the_real_session_is_that_of_its_cameras() -> None:
    """Caliscope's own TOML against the same numbers in this package's JSON."""
    own, copied = read_cameras(SESSION / "camera_array.toml"), read_cameras(SESSION / "cameras.json")
    assert own.names == copied.names
    assert own.sizes_hw == copied.sizes_hw
    for name, value in copied.cameras.named_tensors().items():
        torch.testing.assert_close(getattr(own.cameras, name), value)
