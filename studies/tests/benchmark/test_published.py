"""The published report and its data file: they agree, and numbers are read as they are printed."""

from __future__ import annotations

import json

import pytest

from neuface.errors import InputError
from studies.benchmark.report.published import FOLDER, REPORT, TABLES, read_report, report_as_json
from studies.common.report.documents import Bullets, Cell, Grid, Heading, Paragraph, to_markdown


def test_the_published_tables_are_those_of_the_published_report() -> None:
    report = read_report(REPORT.read_text(encoding="utf-8"))
    stored = json.loads(TABLES.read_text(encoding="utf-8"))
    assert json.loads(json.dumps(report_as_json(report))) == stored
    # A number of the summary, read by eye.
    summary = report.tables[0]
    assert summary.section == "Summary"
    best = summary.rows["best()"][summary.columns.index("MPVE, rigid (mm) ↓, 4 groups")]
    assert (best.value, best.best) == (2.25, True)


def test_the_pictures_of_the_published_report_are_there() -> None:
    text = REPORT.read_text(encoding="utf-8")
    pictures = [line.rpartition("(")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert pictures
    assert all((FOLDER / picture).is_file() for picture in pictures)


def test_a_written_report_is_read_back() -> None:
    grid = Grid(
        header=("", "MPVE (mm) ↓", "seen"),
        rows=(
            (Cell(text="a|b"), Cell(text="1.50", note="± 0.25 (1 of 2 clips)", bold=True), Cell(text="yes")),
            (Cell(text="a|b"), Cell(text="-2"), Cell()),
        ),
    )
    blocks = [
        Heading(level=1, text="A report"),
        Heading(level=2, text="Part"),
        Bullets(lines=("one", "two")),
        Heading(level=3, text="Group"),
        Paragraph(text="Ours: people"),
        grid,
    ]
    report = read_report(to_markdown(blocks, picture_folder="figures"))
    assert (report.title, report.bullets) == ("A report", {"Part": ("one", "two")})
    (table,) = report.tables
    assert (table.section, table.subsection, table.caption) == ("Part", "Group", "Ours: people")
    assert table.columns == ("MPVE (mm) ↓", "seen")
    assert list(table.rows) == ["a|b", "a|b (2)"]
    number, word = table.rows["a|b"]
    assert (number.text, number.value, number.stdev, number.clips, number.best) == (
        "1.50 ± 0.25 (1 of 2 clips)", 1.5, 0.25, 1, True,
    )  # fmt: skip
    assert (word.text, word.value, word.best) == ("yes", None, False)
    negative, empty = table.rows["a|b (2)"]
    assert (negative.value, empty.text, empty.value) == (-2.0, "", None)


def test_a_text_that_is_no_report_is_refused() -> None:
    with pytest.raises(InputError, match="no title"):
        read_report("Some text.")
    with pytest.raises(InputError, match="2 columns has a row of 1 cells"):
        read_report("# A report\n\n|  | a |\n| --- | --- |\n| b |\n")
