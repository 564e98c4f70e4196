"""Missing data are skipped where nobody asked for them and an error where somebody did."""

from __future__ import annotations

import lzma
import os
from pathlib import Path

import pytest
from data_folders import REQUIRE_DATA, expand_compressed, required


def test_a_file_that_exists_is_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("0", "1"):
        monkeypatch.setenv(REQUIRE_DATA, value)
        assert required(tmp_path) == tmp_path


def test_a_missing_file_skips_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REQUIRE_DATA, raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"clip\.mp4 is missing"):
        required(tmp_path / "clip.mp4")


def test_a_missing_file_fails_the_test_where_data_are_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REQUIRE_DATA, "1")
    with pytest.raises(pytest.fail.Exception, match=r"clip\.mp4 is missing.*forbids skipping"):
        required(tmp_path / "clip.mp4")


@pytest.mark.parametrize(("value", "outcome"), [("0", "skipped"), ("1", "errors")])
def test_the_mark_skips_or_fails_likewise(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, value: str, outcome: str
) -> None:
    monkeypatch.setenv(REQUIRE_DATA, value)
    pytester.makepyfile("""
        from pathlib import Path
        from data_folders import needs

        @needs(Path("/no/such/clip"))
        def test_reads_a_clip():
            raise AssertionError("must not run")

        def test_reads_nothing():
            pass
    """)
    pytester.makeini("[pytest]\nmarkers = needs_data")
    result = pytester.runpytest_inprocess("-p", "data_folders")
    result.assert_outcomes(passed=1, **{outcome: 1})


def test_compressed_files_are_expanded_once_and_again_when_they_change(tmp_path: Path) -> None:
    packed, plain = tmp_path / "a" / "model.pkl.xz", tmp_path / "a" / "model.pkl"
    packed.parent.mkdir()
    packed.write_bytes(lzma.compress(b"first"))
    expand_compressed(tmp_path)
    assert plain.read_bytes() == b"first"
    plain.write_bytes(b"kept")
    expand_compressed(tmp_path)
    assert plain.read_bytes() == b"kept"
    packed.write_bytes(lzma.compress(b"second"))
    os.utime(plain, (0, 0))
    expand_compressed(tmp_path)
    assert plain.read_bytes() == b"second"
    assert [path.name for path in sorted(packed.parent.iterdir())] == ["model.pkl", "model.pkl.xz"]
