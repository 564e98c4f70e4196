"""The user's data folder and atomic files."""

from pathlib import Path

import pytest

from neuface.errors import InputError
from neuface.io.atomic import atomic_path, user_data_dir


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
