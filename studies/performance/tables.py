"""The figures of the study as a page of Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]

TITLES = {
    "passes": "A pass of the EM loop beside the bare encoder",
    "quality": "Quality and time beside the baseline",
    "person": "The estimate of the person",
    "commands": "Whole commands",
    "neighbours": "Beside other programs",
    "memory": "Memory",
    "scaling": "Scaling",
    "cuda": "Seven cameras on a CUDA device",
}


def page(found: Mapping[str, Any]) -> str:
    """All sections, each with the machine that it was measured on."""
    blocks = ["# Performance"]
    for name, section in found.items():
        on = section["machine"]
        blocks += [
            f"## {TITLES[name]}",
            table(section["rows"]),
            f"{on['processor']}, {on['cores']} cores, load {on['load']:.1f}, device {on['device'] or 'none'}; "
            f"torch {on['torch']}, Python {on['python']}.",
        ]
    return "\n\n".join(blocks) + "\n"


def table(rows: Rows) -> str:
    """One table: the columns are the rows' plain values, in the order in which they first appear.

    >>> print(table([{"what": "a", "seconds": 1.234}, {"what": "b", "seconds": None}]))
    | what | seconds |
    |---|---|
    | a | 1.23 |
    | b | |
    """
    columns = list(dict.fromkeys(name for row in rows for name, value in row.items() if _is_plain(value)))
    lines = [
        "| " + " | ".join(name.replace("_", " ") for name in columns) + " |",
        "|" + "---|" * len(columns),
    ]
    for row in rows:
        lines.append("|" + "|".join(f" {_text(row.get(name))} ".replace("  ", " ") for name in columns) + "|")
    return "\n".join(lines)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
