"""The tables of README and docs are those of the stored figures; README stays short; links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from neuface.errors import InputError
from tools.update_tables import outdated_pages, stored_tables, with_tables

ROOT = Path(__file__).parents[1]
LONGEST_README_LINES = 110
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_pages_show_the_stored_figures() -> None:
    assert [page.name for page in outdated_pages(stored_tables())] == []


def test_a_changed_figure_makes_a_page_outdated() -> None:
    tables = stored_tables()
    tables["benchmark summary"] = tables["benchmark summary"].replace("1.18", "1.17")
    assert "README.md" in {page.name for page in outdated_pages(tables)}


def test_only_the_text_between_the_markers_is_replaced() -> None:
    text = "before\n<!-- table: a -->\nold | 1\n<!-- end -->\nafter\n"
    assert with_tables(text, {"a": "new | 2\n"}, "page") == text.replace("old | 1", "new | 2")


def test_an_unknown_table_and_a_missing_end_are_refused() -> None:
    with pytest.raises(InputError, match="no table is called 'b'"):
        with_tables("<!-- table: b -->\n<!-- end -->\n", {"a": ""}, "page")
    with pytest.raises(InputError, match="has no '<!-- end -->'"):
        with_tables("<!-- table: a -->\n", {"a": ""}, "page")


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= LONGEST_README_LINES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []
