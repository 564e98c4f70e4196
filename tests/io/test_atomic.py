"""The user's data folder and atomic files."""

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from neuface.errors import InputError
from neuface.io.atomic import atomic_path, check_writable, user_data_dir, write_json, write_text
from neuface.io.npz import write_arrays
from neuface.io.video import write_image, write_video


def test_the_data_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert user_data_dir() == tmp_path / "neuface"


@pytest.mark.parametrize(("platform", "part"), [("darwin", "Application Support"), ("linux", ".local")])
def test_the_data_folder_has_the_default_of_the_platform(
    monkeypatch: pytest.MonkeyPatch, platform: str, part: str
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert part in user_data_dir().parts


def test_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.bin"
    with atomic_path(target) as temporary:
        temporary.write_bytes(b"new")
        assert temporary.suffix == ".bin"
        assert not target.exists()
    assert target.read_bytes() == b"new"

    def fail_halfway() -> None:
        with atomic_path(target) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_halfway()
    assert target.read_bytes() == b"new"
    assert list(target.parent.iterdir()) == [target]


def test_paths_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"), atomic_path(tmp_path):
        pytest.fail("a folder cannot be a file")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made"), atomic_path(tmp_path / "file" / "a.bin"):
        pytest.fail("a file cannot hold a file")


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Files cannot grow beyond 4 kB, which fails as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_is_one_clear_error_and_the_old_file_stays(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)

    def write_tensors(path: Path) -> None:
        with atomic_path(path) as temporary:
            save_file({"a": torch.rand(10_000)}, temporary)

    def write_checkpoint(path: Path) -> None:
        with atomic_path(path) as temporary:
            torch.save({"a": torch.rand(10_000)}, temporary)

    writers = {
        "a.npz": lambda path: write_arrays(path, {"a": noise}),
        "a.txt": lambda path: write_text(path, "x" * 10_000),
        "a.json": lambda path: write_json(path, list(range(10_000))),
        "a.png": lambda path: write_image(path, noise[0]),
        "a.mp4": lambda path: write_video(path, noise, 25),
        "a.safetensors": write_tensors,
        "a.pt": write_checkpoint,
    }
    for name, write in writers.items():
        (tmp_path / name).write_text("old")
        with pytest.raises(InputError, match=f"{name}: cannot be written"):
            write(tmp_path / name)
        assert (tmp_path / name).read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(writers)
    with pytest.raises(InputError, match="cannot be made or written to"):
        check_writable(tmp_path)


def test_a_folder_is_tried_without_leaving_anything(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="output folder"):
        check_writable(tmp_path / "file")
