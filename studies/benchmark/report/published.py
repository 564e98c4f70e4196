"""The published report as data: the tables of `report.md` with their numbers, for pages that show some of them.

python -m studies.benchmark.report.published          writes published/tables.json from published/report.md
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from neuface.errors import InputError
from neuface.io.atomic import write_json

FOLDER = Path(__file__).parents[1] / "published"
REPORT, TABLES = FOLDER / "report.md", FOLDER / "tables.json"

NUMBER = r"[+-]?\d+(?:\.\d+)?"
_CELL = re.compile(
    rf"(?P<bold>\*\*)?(?P<value>{NUMBER})(?(bold)\*\*)"
    rf"(?: ± (?P<stdev>{NUMBER}))?(?: \((?P<clips>\d+) of \d+ clips\))?"
)
_ESCAPED = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True, kw_only=True)
class PublishedCell:
    """One cell: its text without emphasis and, where it is a number, that number."""

    text: str
    value: float | None
    stdev: float | None
    """Standard deviation between clips."""
    clips: int | None
    """Number of clips behind the value, where it is not all of them."""
    best: bool
    """Whether it is the best of its column."""


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """One table of the report, found by the headings above it."""

    section: str
    subsection: str | None
    caption: str | None
    """The last paragraph above the table in its subsection, such as "Ours: Real clips, one camera"."""
    columns: tuple[str, ...]
    rows: dict[str, tuple[PublishedCell, ...]]
    """Cells by the title of the row, one per column. A repeated title has " (2)", " (3)", ... appended."""


@dataclass(frozen=True, kw_only=True)
class PublishedReport:
    """All tables and lists of the report."""

    title: str
    bullets: dict[str, tuple[str, ...]]
    """Lines of the lists, by section."""
    tables: tuple[PublishedTable, ...]


def read_report(markdown: str) -> PublishedReport:
    """The tables and lists of a report that `studies.common.report.documents.to_markdown` wrote.

    Raises:
        InputError: the text has no title, or a row that does not fit its table.
    """
    title, section = "", ""
    subsection: str | None = None
    caption: str | None = None
    bullets: dict[str, list[str]] = {}
    tables: list[PublishedTable] = []
    for block in markdown.split("\n\n"):
        lines = block.strip().splitlines()
        if not lines:
            continue
        if heading := re.fullmatch(r"(#{1,3}) (.*)", lines[0]):
            level, text = len(heading[1]), heading[2]
            title = text if level == 1 else title
            section = text if level == 2 else section
            subsection = text if level == 3 else None
            caption = None
        elif lines[0].startswith("- "):
            bullets.setdefault(section, []).extend(line.removeprefix("- ") for line in lines)
        elif lines[0].startswith("|"):
            columns, rows = _table(lines)
            tables.append(
                PublishedTable(
                    section=section, subsection=subsection, caption=caption, columns=columns, rows=rows
                )
            )
        else:
            caption = lines[-1]
    if not title:
        raise InputError("the report has no title: expected a first line such as '# NeuFace: ...'")
    return PublishedReport(
        title=title,
        bullets={name: tuple(lines) for name, lines in bullets.items()},
        tables=tuple(tables),
    )


def report_as_json(report: PublishedReport) -> dict[str, Any]:
    """The report as a JSON-able object; a cell has the fields that apply to it."""
    return {**asdict(report), "tables": [_table_as_json(table) for table in report.tables]}


def _table_as_json(table: PublishedTable) -> dict[str, Any]:
    rows = {
        title: [
            {name: value for name, value in vars(cell).items() if value not in (None, False)}
            for cell in cells
        ]
        for title, cells in table.rows.items()
    }
    return {**asdict(table), "rows": rows}


def _table(lines: list[str]) -> tuple[tuple[str, ...], dict[str, tuple[PublishedCell, ...]]]:
    header, _, *body = ([_plain(cell) for cell in _ESCAPED.split(line)[1:-1]] for line in lines)
    rows: dict[str, tuple[PublishedCell, ...]] = {}
    for cells in body:
        if len(cells) != len(header):
            raise InputError(f"a table of {len(header)} columns has a row of {len(cells)} cells: {cells}")
        title, number = cells[0], 2
        while title in rows:
            title, number = f"{cells[0]} ({number})", number + 1
        rows[title] = tuple(map(_cell, cells[1:]))
    return tuple(header[1:]), rows


def _plain(cell: str) -> str:
    return cell.strip().replace("\\|", "|")


def _cell(text: str) -> PublishedCell:
    found = _CELL.fullmatch(text)
    return PublishedCell(
        text=text.replace("**", ""),
        value=float(found["value"]) if found else None,
        stdev=float(found["stdev"]) if found and found["stdev"] else None,
        clips=int(found["clips"]) if found and found["clips"] else None,
        best=text.startswith("**"),
    )


if __name__ == "__main__":
    write_json(TABLES, report_as_json(read_report(REPORT.read_text(encoding="utf-8"))))
