"""Cameras of a COLMAP reconstruction: its cameras and images files, as text or binary.

The layout is that of https://colmap.github.io/format.html: little-endian numbers, quaternions wxyz, world to camera.
COLMAP's pixel centres are at halves (the frame's corner is 0), its scale is arbitrary.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TypeVar

import torch

from neuface.errors import InputError
from neuface.geometry.rotations import quaternion_to_rotvec, rotvec_to_rotmat
from neuface.io.cameras.camera_set import CameraSet
from neuface.io.cameras.values import (
    MOST_CAMERAS,
    OneCamera,
    camera_set,
    checked_camera,
    frame_size,
    numbers,
    read_bytes,
    short,
)

# Bound on the bytes of a file: images hold all points that were matched in them.
LARGEST_COLMAP_FILE = 2**28
MODELS = (
    "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE", "FULL_OPENCV", "FOV",
    "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "THIN_PRISM_FISHEYE",
)  # fmt: skip
"""In the order of their numbers in binary files."""
PARAMETERS = {
    "SIMPLE_PINHOLE": "f cx cy",
    "PINHOLE": "fx fy cx cy",
    "SIMPLE_RADIAL": "f cx cy k1",
    "RADIAL": "f cx cy k1 k2",
    "OPENCV": "fx fy cx cy k1 k2 p1 p2",
}
"""The models that `PerspectiveCamera` has too, and the order of their parameters."""
BYTES_PER_POINT = 24
# Bound on the length of an image's name, bytes.
LONGEST_NAME = 1000


EntryT = TypeVar("EntryT")


@dataclass(frozen=True, kw_only=True)
class _Lens:
    model: str
    width: int
    height: int
    parameters: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class _Image:
    name: str
    lens: int
    quaternion_wxyz: tuple[float, ...]
    translation: tuple[float, ...]


def colmap_folder(path: Path) -> Path | None:
    """The folder of a reconstruction that a path means, or None."""
    if path.name in {f"{part}.{ending}" for part in ("cameras", "images") for ending in ("txt", "bin")}:
        return path.parent
    for below in ("", "sparse", "sparse/0", "0"):
        folder = path / below
        if any((folder / f"cameras.{ending}").is_file() for ending in ("bin", "txt")):
            return folder
    return None


def colmap_cameras(folder: Path) -> CameraSet:
    """The cameras of the images of a reconstruction, which are named like their images without the ending.

    Raises:
        InputError: a file is missing, damaged or too large; a lens is of a model that is not read; or several images
            are of one name, as those of a moving camera.
    """
    ending = "bin" if (folder / "cameras.bin").is_file() else "txt"
    lens_file, image_file = folder / f"cameras.{ending}", folder / f"images.{ending}"
    listed = _entries(lens_file, _binary_lenses if ending == "bin" else _text_lenses)
    lenses = dict(listed)
    if len(lenses) != len(listed):
        raise InputError(f"{lens_file}: has two cameras of one number; expected different ones")
    images = _entries(image_file, _binary_images if ending == "bin" else _text_images)
    if not images:
        raise InputError(f"{image_file}: has no images; expected one of every camera")
    names = _names(image_file, [image.name for image in images])
    cameras = []
    for name, image in zip(names, images, strict=True):
        if image.lens not in lenses:
            raise InputError(
                f"{image_file}: image {short(name)} is of camera {image.lens}, which is not in {lens_file}"
            )
        cameras.append(_camera(f"{lens_file}: camera of {short(name)}", name, image, lenses[image.lens]))
    return camera_set(folder, cameras, metric=False)


def _entries(file: Path, reader: Callable[[bytes], Iterator[EntryT]]) -> list[EntryT]:
    """What a file holds; raises InputError for a damaged one."""
    data = read_bytes(file, LARGEST_COLMAP_FILE)
    try:
        entries = list(islice(reader(data), MOST_CAMERAS + 1))
    except (ValueError, IndexError, OverflowError, struct.error) as error:
        raise InputError(f"{file}: is no file of COLMAP, or damaged ({short(str(error))})") from error
    if len(entries) > MOST_CAMERAS:
        raise InputError(f"{file}: holds more than {MOST_CAMERAS} entries; expected one of every camera")
    return entries


def _camera(where: str, name: str, image: _Image, lens: _Lens) -> OneCamera:
    if lens.model not in PARAMETERS:
        raise InputError(
            f"{where} has a lens of the model {short(lens.model)}; expected one of {', '.join(PARAMETERS)}"
        )
    order = PARAMETERS[lens.model].split()
    listed = numbers(f"{where}, parameters ({', '.join(order)})", list(lens.parameters), (len(order),))
    value = dict(zip(order, listed.tolist(), strict=True))
    focal = value.get("f", 1.0)
    K = torch.eye(3, dtype=torch.float64)
    K[0, 0], K[1, 1] = value.get("fx", focal), value.get("fy", focal)
    K[0, 2], K[1, 2] = value["cx"] - 0.5, value["cy"] - 0.5
    quaternion = numbers(f"{where}, quaternion", list(image.quaternion_wxyz), (4,))
    length = float(quaternion.norm())
    if not 0.99 < length < 1.01:
        raise InputError(f"{where}, quaternion has the length {length:.3g}; expected 1")
    return checked_camera(
        where,
        OneCamera(
            name=name,
            K=K,
            distortion=torch.tensor(
                [value.get(part, 0.0) for part in ("k1", "k2", "p1", "p2", "k3")], dtype=torch.float64
            ),
            rotation=_rotation(quaternion / length),
            translation=numbers(f"{where}, translation", list(image.translation), (3,)),
            size_hw=frame_size(where, [lens.width, lens.height]),
        ),
    )


def _names(file: Path, images: list[str]) -> list[str]:
    """Different names of the cameras: their images' files, or the folders that hold these, without endings."""
    paths = [PurePosixPath(name.replace("\\", "/")) for name in images]
    for names in ([path.stem for path in paths], [path.parent.name for path in paths]):
        if len(set(names)) == len(names):
            return names
    raise InputError(
        f"{file}: has several images of equal names; expected one image of every camera, which stays where it is"
    )


def _text_lenses(data: bytes) -> Iterator[tuple[int, _Lens]]:
    for line in data.decode("utf-8").splitlines():
        parts = line.split()
        if parts and not line.startswith("#"):
            number, model, width, height, *parameters = parts
            yield (
                int(number),
                _Lens(
                    model=model,
                    width=int(width),
                    height=int(height),
                    parameters=tuple(map(float, parameters)),
                ),
            )


def _text_images(data: bytes) -> Iterator[_Image]:
    lines = iter(data.decode("utf-8").splitlines())
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        _, *pose, lens, name = line.split(maxsplit=9)
        yield _image(list(map(float, pose)), int(lens), name.strip())
        # The points that were matched in this image: x, y and a number each; the line may be empty.
        if len(next(lines, "").split()) % 3:
            raise ValueError(f"the line of points after image {name.strip()!r} is missing")


def _binary_lenses(data: bytes) -> Iterator[tuple[int, _Lens]]:
    (count,) = struct.unpack_from("<Q", data)
    at = 8
    for _ in range(count):
        number, model, width, height = struct.unpack_from("<iiQQ", data, at)
        at += 24
        if not 0 <= model < len(MODELS):
            raise ValueError(f"a lens of the unknown model {model}")
        parameters = len(PARAMETERS.get(MODELS[model], "").split())
        yield (
            number,
            _Lens(
                model=MODELS[model],
                width=width,
                height=height,
                parameters=struct.unpack_from(f"<{parameters}d", data, at),
            ),
        )
        if MODELS[model] not in PARAMETERS:
            return  # It is refused by name, and how many parameters it has does not matter.
        at += 8 * parameters


def _binary_images(data: bytes) -> Iterator[_Image]:
    (count,) = struct.unpack_from("<Q", data)
    at = 8
    for _ in range(count):
        _, *pose, lens = struct.unpack_from("<i7di", data, at)
        at += 64
        end = data.index(b"\0", at, at + LONGEST_NAME)
        yield _image(pose, lens, data[at:end].decode("utf-8"))
        (points,) = struct.unpack_from("<Q", data, end + 1)
        at = end + 9 + BYTES_PER_POINT * points
        if at > len(data):
            raise ValueError("the file ends within an image")


def _image(pose: list[float], lens: int, name: str) -> _Image:
    return _Image(name=name, lens=lens, quaternion_wxyz=tuple(pose[:4]), translation=tuple(pose[4:]))


def _rotation(quaternion_wxyz: torch.Tensor) -> torch.Tensor:
    return rotvec_to_rotmat(quaternion_to_rotvec(quaternion_wxyz[[1, 2, 3, 0]]))
