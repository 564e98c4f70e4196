"""Settings as text for a command line's help: every path, its value, and what it means."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from neuface.settings import Setting, dataclasses_of, described, field_types

WIDTH = 100
"""Characters of a line."""


def described_settings(setting: Setting, flag: str) -> str:
    """Every path of a setting with its value, and under it what it means and what it may be.

    Paths of choices that the setting does not take are listed under the classes that have them.

    >>> from neuface.fitting.config import Stop
    >>> print(described_settings(Stop(), "--stop").splitlines()[0])
    --stop.max-passes 150
    """
    return "\n".join(_lines(setting, flag))


def _lines(setting: Setting, prefix: str) -> Iterator[str]:
    hints, docs = field_types(type(setting)), field_docs(type(setting))
    for item in fields(setting):
        value, path = getattr(setting, item.name), f"{prefix}.{item.name.replace('_', '-')}"
        kinds = list(dataclasses_of(hints[item.name]))
        shown = type(value).__name__ if is_dataclass(value) else str(value)
        yield f"{path} {shown}"
        meaning = docs.get(item.name) or _first_paragraph(value if is_dataclass(value) else None)
        yield from textwrap.wrap(meaning, WIDTH, initial_indent="    ", subsequent_indent="    ")
        if len(kinds) > 1 or (kinds and value is None):
            yield f"    one of: {described(hints[item.name])}"
        if isinstance(value, Setting):
            yield from _lines(value, path)


@cache
def field_docs(kind: type) -> dict[str, str]:
    """The strings that stand under the fields of a class, and under those that it inherits."""
    docs: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not is_dataclass(base):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for statement, following in zip(definition.body, definition.body[1:], strict=False):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(following, ast.Expr)
                and isinstance(following.value, ast.Constant)
            ):
                docs[statement.target.id] = " ".join(str(following.value.value).split())
    return docs


def _first_paragraph(value: Any) -> str:
    text = inspect.getdoc(type(value)) if value is not None else None
    return " ".join((text or "").split("\n\n")[0].split())
