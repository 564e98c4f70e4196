"""What a kept run depends on: the code that computes it, however it is worded, and the bytes of its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuface.errors import InputError
from studies.common.cache_keys import FileHashes, code_of_module_sha256, code_sha256, modules_behind

SOURCE = '''"""A module."""

class Thing:
    """Of some kind."""

    size: int = 3
    """In pixels."""

    def area(self):
        """Of the thing."""
        return self.size * self.size  # squared
'''


def test_comments_docstrings_and_layout_do_not_change_the_hash() -> None:
    bare = "class Thing:\n  size: int = 3\n  def area(self):\n    return (self.size*self.size)\n"
    assert code_sha256(SOURCE) == code_sha256(bare)
    assert code_sha256(SOURCE.replace("A module", "Another")) == code_sha256(SOURCE)


def test_other_code_changes_the_hash() -> None:
    assert code_sha256(SOURCE.replace("= 3", "= 4")) != code_sha256(SOURCE)
    assert code_sha256(SOURCE.replace("* self", "+ self")) != code_sha256(SOURCE)
    # A string that is used belongs to the code.
    assert code_sha256("name = 'a'") != code_sha256("name = 'b'")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    files = {
        "studies/run.py": "from neuface import losses\nfrom neuface.sums import total\n",
        "studies/report.py": "import studies.run\n",
        "neuface/losses.py": "def loss():\n    import neuface.late\n",
        "neuface/late.py": "value = 1\n",
        "neuface/sums/__init__.py": "from neuface.sums.exact import total\n",
        "neuface/sums/exact.py": "total = sum\n",
        "neuface/viz.py": "import neuface.losses\n",
        "other/late.py": "value = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_exactly_the_imports_are_followed(tree: Path) -> None:
    assert set(modules_behind("studies.run", tree)) == {
        "studies.run", "neuface.losses", "neuface.late", "neuface.sums", "neuface.sums.exact",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("neuface/late.py", True),
        ("neuface/sums/exact.py", True),
        ("studies/run.py", True),
        ("studies/report.py", False),
        ("neuface/viz.py", False),
        ("other/late.py", False),
    ],
)
def test_a_change_matters_only_in_files_that_the_run_imports(tree: Path, file: str, counts: bool) -> None:
    before = code_of_module_sha256("studies.run", tree)
    (tree / file).write_text((tree / file).read_text() + "\nfurther = 2\n")
    assert (code_of_module_sha256("studies.run", tree) != before) == counts


@pytest.mark.parametrize("module", ["studies.benchmark.jobs", "studies.neural_versus_direct.variants"])
def test_runs_depend_on_the_fit_and_its_scores_but_not_on_reports(module: str) -> None:
    behind = set(modules_behind(module))
    assert {"neuface.losses", "neuface.fitting.loop", "neuface.metrics", "studies.common.scores"} <= behind
    assert {"neuface.synthetic.clips", "neuface.render.zbuffer", "studies.common.cases"} <= behind
    reports = [name for name in behind if name.startswith("studies.") and ".report" in name]
    assert not reports
    assert "neuface.cli" not in behind
    assert not behind & {"studies.benchmark.tables", "studies.benchmark.paper_claims"}


def test_a_file_is_hashed_by_its_bytes_and_read_once(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(b"same")
    hashes = FileHashes()
    first = hashes.of([tmp_path / "a", tmp_path / "b"])
    assert first[0] == first[1]
    (tmp_path / "a").write_bytes(b"other")
    assert hashes.of([tmp_path / "a"]) == first[:1]
    assert FileHashes().of([tmp_path / "a"]) != first[:1]
    with pytest.raises(InputError, match="cannot be read"):
        FileHashes().of([tmp_path / "absent"])
