"""Where the tests find their files, and what happens when a file is missing.

Synthetic files in the official layouts of FLAME, DECA, EMOCA and SMIRK are part of the repository (`PARITY`), so no
test may skip for want of them. Real clips show people and therefore stay outside of it (`DATA`): a test that needs
them says so with `@needs(DATA / "name")`, is skipped where they are missing, and fails where the environment variable
NEUFACE_REQUIRE_DATA is 1, as it is in the project's own CI.
"""

from __future__ import annotations

import lzma
import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
DATA = REPOSITORY.parent / "shared" / "data"
"""Real clips, a recording of four cameras and a scan."""
PARITY = REPOSITORY / "tests" / "data" / "parity"
"""Synthetic model files, hostile files and reference outputs of the official programs; see its README."""
REQUIRE_DATA = "NEUFACE_REQUIRE_DATA"


def needs(*paths: Path) -> pytest.MarkDecorator:
    """Marks a test (or, as `pytestmark`, a module) that reads files from outside of the repository."""
    return pytest.mark.needs_data(*paths)


def required(path: Path) -> Path:
    """The path, if it exists.

    Otherwise the running test is skipped, or fails if the environment says that all data must be there.
    """
    if path.exists():
        return path
    message = f"{path} is missing; it belongs to the data outside of the repository"
    if os.environ.get(REQUIRE_DATA) == "1":
        pytest.fail(f"{message}, and {REQUIRE_DATA}=1 forbids skipping this test", pytrace=False)
    pytest.skip(message)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Checks the files that a test is marked with before the test runs; conftest.py loads this module as a plugin."""
    for marker in item.iter_markers("needs_data"):
        for path in marker.args:
            required(path)


def expand_compressed(folder: Path) -> None:
    """Writes every `NAME.xz` below the folder also as `NAME`, unless a newer one is there.

    Three pickles are stored compressed, since their 8 MB compress to 1 MB. Processes that expand at the same time
    do no harm: each writes a file of its own and renames it.
    """
    for packed in folder.rglob("*.xz"):
        plain = packed.with_suffix("")
        if not plain.exists() or plain.stat().st_mtime < packed.stat().st_mtime:
            partial = plain.with_name(f"{plain.name}.{os.getpid()}.partial")
            partial.write_bytes(lzma.decompress(packed.read_bytes()))
            partial.replace(plain)


expand_compressed(PARITY)
