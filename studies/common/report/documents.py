"""A report as a list of blocks, written as Markdown or as one self-contained HTML file."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from matplotlib.image import imsave

from neuface.errors import InputError
from studies.common.metrics import Metric

Rgb = UInt8[np.ndarray, "h w 3"]
Colour = Literal["good", "bad"]


@dataclass(frozen=True, kw_only=True)
class Heading:
    """`level` 1 is the title."""

    level: Literal[1, 2, 3]
    text: str


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Bullets:
    """Lines of plain text."""

    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a table."""

    text: str = ""
    note: str = ""
    """A remark after the text, set smaller."""
    bold: bool = False
    verdict: Colour | None = None
    """Colour of the cell; the text must state the same."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table whose first column has the names of the rows."""

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: bool = False
    """The cells contain words, not numbers, and are set flush left."""

    def __post_init__(self) -> None:
        wrong = [len(row) for row in self.rows if len(row) != len(self.header)]
        if wrong:
            raise InputError(f"a table of {len(self.header)} columns has a row of {wrong[0]} cells")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture and its caption."""

    name: str
    """Name of its file, without ending: lower-case letters, digits and underscores."""
    caption: str
    image: Rgb

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9_]+", self.name):
            raise InputError(
                f"a picture is named {self.name!r}: expected lower-case letters, digits and underscores"
            )


LONG_TEXT = 24
"""Number of characters above which a cell keeps a minimum width on a narrow screen."""

Block = Heading | Paragraph | Bullets | Grid | Picture

ARROWS = {"less": "\u00a0↓", "more": "\u00a0↑", "one": "\u00a0→\u00a01", None: ""}
"""Marks of which values are better. The spaces do not break, so that no arrow stands alone in a line."""

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: #1c1e21;
  background: #fff; max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.7rem; line-height: 1.2; }
h2 { font-size: 1.35rem; margin: 2.5rem 0 .6rem; padding-top: .6rem; border-top: 1px solid #d8dce0; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p, li { max-width: 46rem; overflow-wrap: anywhere; }
nav ul { padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; }
a { color: #0b5394; }
.scroll { overflow-x: auto; width: fit-content; max-width: 100%; margin: .6rem 0 1.2rem;
  border: 1px solid #d8dce0; border-radius: 4px; }
table { border-collapse: separate; border-spacing: 0; font-size: .86rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: right; vertical-align: top; border-bottom: 1px solid #e7eaed; }
tr:last-child > * { border-bottom: 0; }
thead th { background: #f1f3f5; font-weight: 600; vertical-align: bottom; min-width: 4.2rem; }
tbody th { font-weight: 500; }
th:first-child { position: sticky; left: 0; background: #f1f3f5; text-align: left; min-width: 7rem; max-width: 16rem;
  border-right: 1px solid #d8dce0; }
td { white-space: nowrap; }
.words th, .words td { text-align: left; white-space: normal; }
.words td { min-width: 3.4rem; }
.words td.long { min-width: 11rem; }
.words th:first-child { max-width: 22rem; }
td small { color: #5f666d; }
td.good { background: #e6f4ea; }
td.bad { background: #fce8e6; }
figure { margin: 1rem 0 1.6rem; }
figure img { max-width: 100%; height: auto; }
figcaption { font-size: .9rem; color: #444b52; max-width: 46rem; }
@media (max-width: 40rem) { body { padding: .6rem; } th, td { padding: .3rem .4rem; }
  th:first-child { min-width: 5.5rem; max-width: 8.5rem; } .words th:first-child { min-width: 9rem; } }
"""


def number(value: float | None, digits: int | None) -> str:
    """A value with `digits` after the point; None: three significant digits, without an exponent.

    >>> number(1.2345, 2), number(123.4, None), number(0.01234, None)
    ('1.23', '123', '0.0123')
    """
    if value is None:
        return ""
    return f"{value:.{significant_digits(value) if digits is None else digits}f}"


def significant_digits(value: float) -> int:
    """Digits after the point with which a value has three significant ones."""
    return max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0


def column_title(metric: Metric) -> str:
    """Title, unit, and the mark of which values are better."""
    return f"{metric.title} ({metric.unit}){ARROWS[metric.better]}"


def to_markdown(blocks: Sequence[Block], *, picture_folder: str) -> str:
    """Markdown that refers to its pictures as `picture_folder`/name.png."""
    parts = [_markdown(block, picture_folder) for block in blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_html(blocks: Sequence[Block]) -> str:
    """One HTML page that contains its style and pictures, without scripts; it loads nothing from a network."""
    title = next((block.text for block in blocks if isinstance(block, Heading) and block.level == 1), "")
    body: list[str] = []
    contents = [block.text for block in blocks if isinstance(block, Heading) and block.level == 2]
    for block in blocks:
        body.append(_html(block))
        if isinstance(block, Heading) and block.level == 1 and contents:
            links = "".join(f'<li><a href="#{_anchor(text)}">{escape(text)}</a></li>' for text in contents)
            body.append(f"<nav><ul>{links}</ul></nav>")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # The browser then enforces that nothing is loaded.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def png_bytes(image: Rgb) -> bytes:
    """The picture as a PNG file."""
    file = BytesIO()
    imsave(file, image, format="png")
    return file.getvalue()


def _markdown(block: Block, folder: str) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {_one_line(block.text)}"
    if isinstance(block, Paragraph):
        return _one_line(block.text)
    if isinstance(block, Bullets):
        return "\n".join(f"- {_one_line(line)}" for line in block.lines)
    if isinstance(block, Picture):
        return f"![{_one_line(block.caption)}]({folder}/{block.name}.png)\n\n*{_one_line(block.caption)}*"
    lines = [block.header, tuple("---" for _ in block.header)]
    lines += [tuple(map(_markdown_cell, row)) for row in block.rows]
    return "\n".join(f"| {' | '.join(_in_table(cell) for cell in line)} |" for line in lines)


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.bold and cell.text else cell.text
    return f"{text} {cell.note}".strip()


def _in_table(text: str) -> str:
    return _one_line(text).replace("|", "\\|")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _html(block: Block) -> str:
    if isinstance(block, Heading):
        anchor = f' id="{_anchor(block.text)}"' if block.level == 2 else ""
        return f"<h{block.level}{anchor}>{escape(block.text)}</h{block.level}>"
    if isinstance(block, Paragraph):
        return f"<p>{escape(block.text)}</p>"
    if isinstance(block, Bullets):
        return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in block.lines)}</ul>"
    if isinstance(block, Picture):
        data = base64.b64encode(png_bytes(block.image)).decode("ascii")
        height, width = block.image.shape[:2]
        return (
            f'<figure><img src="data:image/png;base64,{data}" alt="{escape(block.caption)}" width="{width}" '
            f'height="{height}"><figcaption>{escape(block.caption)}</figcaption></figure>'
        )
    header = "".join(f'<th scope="col">{escape(text)}</th>' for text in block.header)
    rows = "".join(f"<tr>{_html_row(row)}</tr>\n" for row in block.rows)
    kind = ' class="words"' if block.words else ""
    return f'<div class="scroll"><table{kind}>\n<thead><tr>{header}</tr></thead>\n<tbody>{rows}</tbody></table></div>'


def _html_row(row: Sequence[Cell]) -> str:
    first, *others = row
    return f'<th scope="row">{escape(first.text)}</th>' + "".join(map(_html_cell, others))


def _html_cell(cell: Cell) -> str:
    text = f"<strong>{escape(cell.text)}</strong>" if cell.bold else escape(cell.text)
    note = f" <small>{escape(cell.note)}</small>" if cell.note else ""
    classes = [*([cell.verdict] if cell.verdict else []), *(["long"] if len(cell.text) > LONG_TEXT else [])]
    kind = f' class="{" ".join(classes)}"' if classes else ""
    return f"<td{kind}>{text}{note}</td>"


def _anchor(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
