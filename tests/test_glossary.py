"""The glossary's references to the code."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

GLOSSARY = Path(__file__).parents[1] / "docs" / "glossary.md"
ROWS = [line for line in GLOSSARY.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][1:]
REFERENCES = sorted({name for row in ROWS for name in re.findall(r"`(neuface\.[\w.]+)`", row)})


def resolve(name: str) -> object:
    """The module or member of a module of that dotted name."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, member = name.rpartition(".")
        return getattr(importlib.import_module(module), member)


@pytest.mark.parametrize("name", REFERENCES)
def test_references_exist(name: str) -> None:
    resolve(name)


def test_terms_are_unique_and_in_alphabetical_order() -> None:
    terms = [row.split("|")[1].strip().lower() for row in ROWS]
    assert len(terms) > 30
    assert terms == sorted(set(terms))
