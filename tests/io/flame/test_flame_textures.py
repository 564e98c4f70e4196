"""FLAME's texture spaces: small files in every published layout against colours computed by hand; files to refuse."""

from __future__ import annotations

import io
import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuface.errors import InputError
from neuface.io.flame.textures import DECA_COMPONENTS, TextureSpace, read_texture_space

SIZE = 4
# Kind, name of the mean, name of the components, how many, white.
KINDS = {"flame": ("mean", "tex_dir", 200, 255.0), "bfm": ("MU", "PC", 199, 1.0)}
UV = np.array([[0.0, 0.0], [1.0, 0.0], [0.25, 0.75], [0.5, 0.5]])
UV_FACES = np.array([[0, 1, 2], [2, 1, 3]], np.uint32)
Arrays = dict[str, np.ndarray]


def arrays_of(kind: str, size: int = SIZE, dtype: Any = np.float64) -> Arrays:
    """The two arrays in the picture layout, random."""
    mean, basis, count, white = KINDS[kind]
    random = np.random.default_rng(3)
    return {
        mean: (random.uniform(0.2, 0.8, (size, size, 3)) * white).astype(dtype),
        basis: (random.normal(0, 0.02, (size, size, 3, count)) * white).astype(dtype),
    }


def saved(folder: Path, arrays: Arrays, save: Callable[..., None] = np.savez) -> Path:
    path = folder / "space.npz"
    save(path, **arrays)
    return path


def official_albedo(arrays: Arrays, kind: str, code: np.ndarray) -> np.ndarray:
    """The formula of the published code on flat arrays: one picture in the full size, red first, channels first."""
    mean, basis, count, white = KINDS[kind]
    flat = arrays[mean].reshape(-1) / white
    flat = flat + arrays[basis].reshape(-1, count)[:, : len(code)] / white @ code
    size = arrays[mean].shape[0]
    return flat.reshape(size, size, 3).transpose(2, 0, 1)[[2, 1, 0]]


@pytest.fixture
def space(tmp_path: Path) -> TextureSpace:
    path = saved(tmp_path, {**arrays_of("bfm"), "vt": UV, "ft": UV_FACES})
    return read_texture_space(path, components=5, dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pixel_has_the_colours_computed_by_hand(tmp_path: Path, kind: str) -> None:
    mean, basis, _, white = KINDS[kind]
    arrays = {name: np.zeros_like(array) for name, array in arrays_of(kind).items()}
    arrays[mean][1, 2] = np.array([0.25, 0.5, 0.75]) * white  # blue, green, red; row 1, column 2
    arrays[basis][1, 2, 0, 0] = 0.125 * white  # The first component adds blue,
    arrays[basis][1, 2, 2, 1] = -0.25 * white  # the second takes red away.
    space = read_texture_space(saved(tmp_path, arrays), dtype=torch.float64)
    picture = space.albedo(torch.tensor([2.0, 3.0], dtype=torch.float64))
    expected = torch.zeros(3, SIZE, SIZE, dtype=torch.float64)
    # Red 0.75 - 3 * 0.25, green 0.5, blue 0.25 + 2 * 0.125.
    expected[:, 1, 2] = torch.tensor([0.0, 0.5, 0.5])
    torch.testing.assert_close(picture, expected, atol=1e-15, rtol=0)
    assert space.kind == kind
    assert (space.size, space.num_components) == (SIZE, DECA_COMPONENTS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("dtype", "save"), [(np.float64, np.savez), (">f8", np.savez), (np.float32, np.savez_compressed)]
)
def test_pictures_match_the_published_formula(tmp_path: Path, kind: str, dtype: Any, save: Any) -> None:
    # 24 x 24 pixels take several pieces.
    arrays = arrays_of(kind, 24, dtype)
    space = read_texture_space(saved(tmp_path, arrays, save), components=7, dtype=torch.float64)
    code = np.random.default_rng(1).normal(size=7)
    expected = official_albedo({name: array.astype(float) for name, array in arrays.items()}, kind, code)
    np.testing.assert_allclose(space.albedo(torch.from_numpy(code)).numpy(), expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["flat", "flat fortran", "fortran"])
def test_every_layout_gives_the_same_texture_space(tmp_path: Path, kind: str, layout: str) -> None:
    arrays = arrays_of(kind)
    expected = read_texture_space(saved(tmp_path, arrays), components=KINDS[kind][2])
    mean, basis, count, _ = KINDS[kind]
    if "flat" in layout:
        arrays = {mean: arrays[mean].reshape(-1), basis: arrays[basis].reshape(-1, count)}
    if "fortran" in layout:
        arrays = {name: np.asfortranarray(array) for name, array in arrays.items()}
        assert not arrays[basis].flags.c_contiguous
    found = read_texture_space(saved(tmp_path, arrays), components=count)
    assert torch.equal(found.mean, expected.mean)
    assert torch.equal(found.basis, expected.basis)
    assert found.basis.dtype == torch.float32


def test_codes_of_any_leading_shape_and_length(space: TextureSpace) -> None:
    code = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pictures = space.albedo(code)
    assert pictures.shape == (2, 3, 3, SIZE, SIZE)
    torch.testing.assert_close(pictures[1, 2], space.albedo(code[1, 2]))
    padded = torch.cat((code[..., :2], torch.zeros(2, 3, 3, dtype=torch.float64)), -1)
    torch.testing.assert_close(space.albedo(code[..., :2]), space.albedo(padded))
    assert torch.equal(space.albedo(code[0, 0, :0]), space.mean)
    assert torch.autograd.gradcheck(space.albedo, code[0].clone().requires_grad_())


def test_a_code_of_another_space_is_refused(space: TextureSpace) -> None:
    with pytest.raises(InputError, match=r"6 coefficients .* 5 components"):
        space.albedo(torch.zeros(6, dtype=torch.float64))
    with pytest.raises(InputError, match=r"torch.float32 on cpu .* torch.float64 on cpu"):
        space.albedo(torch.zeros(5))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_device_and_dtype_follow_the_space(space: TextureSpace, device: str) -> None:
    moved = space.to(device, torch.float32)
    picture = moved.albedo(torch.zeros(2, 5, device=device))
    assert (picture.dtype, picture.device.type, picture.shape) == (torch.float32, device, (2, 3, SIZE, SIZE))
    assert (moved.uv.dtype, moved.uv_faces.dtype) == (torch.float32, torch.int64)
    assert moved.uv_faces.device.type == device


def test_texture_coordinates_are_optional(tmp_path: Path, space: TextureSpace) -> None:
    np.testing.assert_array_equal(space.uv.numpy(), UV)
    np.testing.assert_array_equal(space.uv_faces.numpy(), UV_FACES.astype(np.int64))
    plain = read_texture_space(saved(tmp_path, arrays_of("bfm")))
    assert (plain.uv.shape, plain.uv_faces.shape) == ((0, 2), (0, 3))


def test_a_mean_in_bytes_is_read(tmp_path: Path) -> None:
    arrays = arrays_of("flame")
    arrays["mean"] = np.full((SIZE, SIZE, 3), 51, np.uint8)
    assert torch.equal(
        read_texture_space(saved(tmp_path, arrays)).mean, torch.full((3, SIZE, SIZE), 51 / 255)
    )


def test_only_the_kept_components_take_memory_and_are_checked(tmp_path: Path) -> None:
    arrays = arrays_of("flame", 64)
    arrays["tex_dir"][-1, -1, -1, 2] = np.nan
    path = saved(tmp_path, arrays)
    assert path.stat().st_size > 18 * 2**20
    tracemalloc.start()
    read_texture_space(path, components=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 2**20
    with pytest.raises(InputError, match=r"'tex_dir' has values that are not finite.*first 3 components"):
        read_texture_space(path, components=3)


def changed(kind: str, **changes: Any) -> Arrays:
    """The arrays of a kind with some replaced, computed from the old one or (None) left out."""
    arrays: dict[str, Any] = dict(arrays_of(kind))
    for name, change in changes.items():
        if change is None:
            del arrays[name]
        else:
            arrays[name] = change(arrays[name]) if callable(change) else change
    return arrays


def with_value(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array.flat[0] = value
        return array

    return change


REFUSED = {
    "nothing": ({"other": np.zeros(3)}, r"none of them; expected 'mean' and 'tex_dir' or 'MU' and 'PC'"),
    "both kinds": ({**arrays_of("flame"), **arrays_of("bfm")}, r"has 'mean', 'tex_dir', 'MU', 'PC'"),
    "no basis": (changed("flame", tex_dir=None), r"has 'mean'; expected"),
    "no mean": (changed("bfm", MU=None), r"has 'PC'; expected"),
    "one of each": (changed("bfm", MU=None, mean=np.ones((4, 4, 3))), r"has 'mean', 'PC'; expected"),
    "mean not square": (changed("bfm", MU=np.ones((4, 5, 3))), r"'MU' has the shape \(4, 5, 3\)"),
    "mean without pixels": (changed("bfm", MU=np.ones(0)), r"'MU' has the shape \(0,\)"),
    "mean of one number": (changed("bfm", MU=np.ones(())), r"'MU' has the shape \(\)"),
    "mean of another size": (changed("bfm", MU=np.ones((5, 5, 3))), r"'PC' .* expected \(5, 5, 3, 199\)"),
    "mean too large": (changed("bfm", MU=np.ones((513, 513, 3), np.float32)), r"'MU' .* at most 512"),
    "mean far too large": (changed("bfm", MU=np.ones((600, 600, 3))), r"'MU' decompresses to more"),
    # Another albedo model has the same names, 145 components and other colours.
    "other albedo model": (changed("bfm", PC=lambda pc: pc[..., :145]), r"'PC' .* \(4, 4, 3, 145\)"),
    "whole numbers": (changed("bfm", PC=lambda pc: pc.astype(np.int32)), r"'PC' has the type int32"),
    "whole mean": (changed("flame", mean=lambda mean: mean.astype(int)), r"'mean' has the type int64"),
    "complex": (changed("bfm", PC=lambda pc: pc.astype(complex)), r"'PC' has the type complex128"),
    "text": (changed("bfm", MU=np.array(["a"])), r"'MU' has the type <U1"),
    "NaN mean": (changed("bfm", MU=with_value(np.nan)), r"'MU' has values that are not finite"),
    "NaN basis": (changed("bfm", PC=with_value(np.nan)), r"'PC' has values that are not finite"),
    "infinite": (changed("flame", tex_dir=with_value(-np.inf)), r"'tex_dir' has values that are not finite"),
    "bytes as BFM": (
        changed("bfm", MU=lambda mu: mu * 255),
        r"'MU' has values .* expected colours in 0\.\.1$",
    ),
    "units as FLAME": (changed("flame", mean=lambda mean: mean / 255), r"'mean' .* colours in 0\.\.255$"),
    "vt alone": (changed("bfm", vt=UV), r"'vt' alone"),
    "ft alone": (changed("bfm", ft=UV_FACES), r"'ft' alone"),
    "vt of three": (changed("bfm", vt=np.zeros((4, 3)), ft=UV_FACES), r"'vt' has the shape"),
    "ft beyond": (changed("bfm", vt=UV[:3], ft=UV_FACES), r"'ft' names texture coordinates .* 0 to 2"),
    "ft negative": (changed("bfm", vt=UV, ft=UV_FACES.astype(int) - 1), r"'ft' names texture coordinates"),
    "ft not whole": (changed("bfm", vt=UV, ft=UV_FACES * 1.0), r"'ft' has the type float64"),
    "vt too long": (changed("bfm", vt=np.zeros((2**20, 2)), ft=UV_FACES), r"'vt' decompresses to more"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_arrays_are_named(tmp_path: Path, case: str) -> None:
    arrays, message = REFUSED[case]
    path = saved(tmp_path, arrays)
    with pytest.raises(InputError, match=message) as caught:
        read_texture_space(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("components", [0, -1, 200])
def test_more_components_than_the_file_has_are_refused(tmp_path: Path, components: int) -> None:
    with pytest.raises(InputError, match=rf"components is {components}; expected 1 to 199"):
        read_texture_space(saved(tmp_path, arrays_of("bfm")), components=components)


def test_whole_number_colours_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dtype is torch.int64"):
        read_texture_space(saved(tmp_path, arrays_of("bfm")), dtype=torch.int64)


class Touch:
    """What would make a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["MU", "PC", "vt"])
def test_no_code_in_the_file_is_executed(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "ran"
    arrays = {**arrays_of("bfm"), "vt": UV, "ft": UV_FACES}
    arrays[name] = np.array([Touch(marker)], object)
    path = saved(tmp_path, arrays)
    with pytest.raises(InputError, match=rf"'{name}' has the type object"):
        read_texture_space(path)
    assert not marker.exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "space.npz"
    with pytest.raises(InputError, match="there is no such file"):
        read_texture_space(path)
    with pytest.raises(InputError, match="there is no such file"):
        read_texture_space(tmp_path)
    with pytest.raises(InputError, match=r"there is no such file|cannot be read"):
        read_texture_space("a\0b")
    for content, message in (
        (b"", "not an npz file"),
        (pickle.dumps(Touch(tmp_path / "ran")), "not an npz file"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_texture_space(path)
    assert not (tmp_path / "ran").exists()
    with path.open("wb") as stream:
        stream.write(b"PK\x03\x04")
        stream.truncate(2**40)  # Takes no place on the disk.
    with pytest.raises(InputError, match="no texture space is larger"):
        read_texture_space(path)


def npy(shape: str, dtype: str = "<f8", body: bytes = b"") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


@pytest.mark.parametrize(
    "member",
    [
        npy("(512, 512, 3, 199)"),
        npy("(4294967296, 4294967296)"),
        npy("(4, 4, 3, -199)"),
        npy("__import__('os').getpid()"),
        npy("(" * 500),
        b"\x93NUMPY\x02\x00" + (2**32 - 1).to_bytes(4, "little"),
        b"\x93NUMPY\x09\x00",
        b"",
    ],
)
@pytest.mark.parametrize("name", ["MU", "PC"])
def test_false_headers_are_refused(tmp_path: Path, name: str, member: bytes) -> None:
    path = tmp_path / "space.npz"
    good = arrays_of("bfm")
    with zipfile.ZipFile(path, "w") as archive:
        for key in good:
            stream = io.BytesIO()
            np.save(stream, good[key])
            archive.writestr(f"{key}.npy", member if key == name else stream.getvalue())
    tracemalloc.start()
    with pytest.raises(InputError, match=f"'{name}' is "):
        read_texture_space(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * 2**20


def test_a_huge_directory_is_not_read(tmp_path: Path) -> None:
    path = saved(tmp_path, arrays_of("bfm"))
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(20):
            archive.writestr(f"{number:060000d}", b"")
    with pytest.raises(InputError, match="directory larger than any has"):
        read_texture_space(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_is_detected(tmp_path: Path, save: Any) -> None:
    path = saved(tmp_path, arrays_of("bfm", 16), save)
    whole = path.read_bytes()
    for end in (len(whole) // 2, len(whole) - 1, 30, 5):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"space\.npz"):
            read_texture_space(path)
    # One bit, in the middle of the components that are not kept.
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 1
    path.write_bytes(broken)
    with pytest.raises(InputError, match=r"cannot be read as an npz archive"):
        read_texture_space(path, components=1)


def test_mutated_files_give_input_errors_or_a_texture_space(tmp_path: Path) -> None:
    whole = saved(tmp_path, {**arrays_of("bfm", 2, np.float32), "vt": UV, "ft": UV_FACES}).read_bytes()
    structure = np.array([at for at in range(len(whole)) if not 1200 < at < len(whole) - 1600])
    random = np.random.default_rng(0)
    path, messages = tmp_path / "mutant.npz", []
    for _ in range(200):
        mutant = np.frombuffer(whole, np.uint8).copy()
        places = random.choice(structure, random.integers(1, 4))
        mutant[places] = random.integers(0, 256, len(places))
        path.write_bytes(mutant.tobytes())
        try:
            space = read_texture_space(path)
        except InputError as error:
            messages.append(str(error))
        else:
            assert bool(torch.isfinite(space.basis).all())
    assert all(str(path) in message for message in messages)
    assert 50 < len(messages) < 200
