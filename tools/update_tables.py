"""Write the tables of README and docs from stored figures, between the markers that name them.

    python tools/update_tables.py            writes the tables
    python tools/update_tables.py --check    exit status 1 and a list if a page differs from the stored figures

A page marks where a table belongs by the table's name:

    <!-- table: benchmark summary -->
    ... the table ...
    <!-- end -->

Figures come from studies/benchmark/published/tables.json, the stored report of the benchmark, and from
docs/measurements.json, which holds the results of other commands, each with the way it was measured.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuface.errors import InputError

ROOT = Path(__file__).parents[1]
BENCHMARK = ROOT / "studies/benchmark/published/tables.json"
MEASUREMENTS = ROOT / "docs/measurements.json"
PAGES = ("README.md", "docs/*.md")
MARKED = re.compile(r"(<!-- table: (?P<name>[^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
PRESETS = ("encoder alone", "direct fitting (Eq. 5)", "paper()", "official()", "best()")


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """Part of a table of the published report."""

    heading: str
    """Beginning of the subsection, of the caption or of the section of the table."""
    columns: tuple[str, ...]
    """Beginnings of the titles of the columns that are shown."""
    rows: tuple[str, ...] = PRESETS


EXCERPTS = {
    "benchmark summary": Excerpt(
        heading="Summary",
        columns=("NME to exact landmarks", "CVD", "MSI3D, vertices", "scan to mesh"),
    ),
    "rendered people, three cameras": Excerpt(
        heading="Rendered people, three cameras, clean",
        columns=("MPVE, rigid", "NME to exact landmarks", "CVD", "MSI3D, vertices"),
    ),
    "rendered people, one camera, hard": Excerpt(
        heading="Rendered people, one camera, hard",
        columns=("MPVE, rigid", "NME to exact landmarks", "MSI3D, vertices"),
    ),
    "rendered scan, one camera": Excerpt(
        heading="Rendered scan, one camera", columns=("scan to mesh", "NME, 68 points", "MSI3D, vertices")
    ),
    "real session": Excerpt(
        heading="Ours: Real session, four calibrated cameras",
        columns=("CVD", "NME", "MSI3D, vertices"),
    ),
    "real clips": Excerpt(heading="Ours: Real clips, one camera", columns=("NME", "MSI3D, vertices")),
    "the paper": Excerpt(
        heading="Table 2 of the paper",
        columns=("MEAD MSI3D V", "MEAD CVD", "MEAD NME"),
        rows=("direct fitting (Eq. 5)", "encoder alone: DECA", "NeuFace with DECA"),
    ),
}


def main() -> None:
    """Write or check the tables of all pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 on a difference")
    check = parser.parse_args().check
    changed = outdated_pages(stored_tables())
    for page, text in changed.items():
        if not check:
            page.write_text(text, encoding="utf-8")
        print(f"{page.relative_to(ROOT)}: {'differs from the stored figures' if check else 'written'}")
    if check and changed:
        sys.exit("run: python tools/update_tables.py")


def outdated_pages(tables: dict[str, str]) -> dict[Path, str]:
    """The pages whose tables differ from these, with the text that they should have."""
    pages = [page for pattern in PAGES for page in sorted(ROOT.glob(pattern))]
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    renewed = {page: with_tables(text, tables, str(page.relative_to(ROOT))) for page, text in texts.items()}
    return {page: text for page, text in renewed.items() if text != texts[page]}


def with_tables(text: str, tables: dict[str, str], page: str) -> str:
    """The text with every marked table replaced.

    Raises InputError for a name that no table has, and for a marker without an end.
    """

    def table(match: re.Match[str]) -> str:
        if match["name"] not in tables:
            raise InputError(
                f"{page}: no table is called {match['name']!r}; known: {', '.join(sorted(tables))}"
            )
        return f"{match[1]}{tables[match['name']]}{match[3]}"

    if text.count("<!-- table:") != len(MARKED.findall(text)):
        raise InputError(f"{page}: a marker '<!-- table: NAME -->' has no '<!-- end -->' after it")
    return MARKED.sub(table, text)


def stored_tables() -> dict[str, str]:
    """All tables by name, as Markdown."""
    published = json.loads(BENCHMARK.read_text(encoding="utf-8"))["tables"]
    tables = {name: _excerpt(published, excerpt) for name, excerpt in EXCERPTS.items()}
    for name, measured in json.loads(MEASUREMENTS.read_text(encoding="utf-8")).items():
        tables[name] = f"{_markdown(measured['columns'], measured['rows'])}\n{measured['how']}\n"
    return tables


def _excerpt(published: list[dict[str, Any]], excerpt: Excerpt) -> str:
    """The excerpt as Markdown. Each column comes from the first table under the heading that has it."""
    under_heading = [
        table
        for table in published
        if any((table[key] or "").startswith(excerpt.heading) for key in ("section", "subsection", "caption"))
    ]
    titles: list[str] = []
    rows: dict[str, list[str]] = {name: [] for name in excerpt.rows}
    for column in excerpt.columns:
        table, index = _find_column(under_heading, column, excerpt)
        titles.append(table["columns"][index])
        for name, cells in rows.items():
            cell = table["rows"][name][index]
            cells.append(f"**{cell['text']}**" if cell.get("best") else cell["text"])
    return _markdown(titles, [[name, *cells] for name, cells in rows.items()])


def _find_column(tables: list[dict[str, Any]], column: str, excerpt: Excerpt) -> tuple[dict[str, Any], int]:
    for table in tables:
        for index, title in enumerate(table["columns"]):
            if title.startswith(column) and set(excerpt.rows) <= set(table["rows"]):
                return table, index
    raise InputError(f"the published report has no column {column!r} under {excerpt.heading!r}")


def _markdown(columns: list[str], rows: list[list[str]]) -> str:
    lines = [["", *columns], ["---"] * (len(columns) + 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
