"""Frozen dataclasses as plain JSON values and back, by the types of their fields.

A choice between several classes is stored by the class's name. Names are looked up only among the classes that the
field's type allows, so a file cannot choose what is constructed.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin

from neuface.errors import InputError
from neuface.settings import dataclasses_of, field_types, options_of

ValueT = TypeVar("ValueT")
KIND = "kind"


def as_plain(value: Any) -> Any:
    """The value as JSON can hold it: dataclasses as objects with their class's name, tuples as lists.

    >>> from neuface.cropping import OPEN_CROP
    >>> as_plain(OPEN_CROP)["kind"], as_plain(OPEN_CROP)["margin"]
    ('CropRule', 1.45)
    """
    if is_dataclass(value) and not isinstance(value, type):
        items = {item.name: as_plain(getattr(value, item.name)) for item in fields(value) if item.init}
        return {KIND: type(value).__name__, **items}
    if isinstance(value, tuple | list):
        return [as_plain(item) for item in value]
    return value


def from_plain(kind: type[ValueT], plain: Any) -> ValueT:
    """The value of class `kind` that `as_plain` made this of.

    Raises:
        InputError: a class or a field that `kind` does not have, a missing field, or what the class refuses.
    """
    return _built(kind, plain, kind.__name__)


def _built(hint: Any, plain: Any, place: str) -> Any:
    if isinstance(plain, dict):
        name = plain.get(KIND)
        chosen = {found.__name__: found for found in dataclasses_of(hint)}.get(str(name))
        if chosen is None:
            raise InputError(
                f"{place} is of the kind {name!r}, which this version of neuface does not have here"
            )
        hints = field_types(chosen)
        known = {item.name for item in fields(chosen) if item.init}
        if known != plain.keys() - {KIND}:
            different = sorted(known ^ (plain.keys() - {KIND}))
            raise InputError(
                f"{place} has other fields than in this version of neuface: {', '.join(different)}"
            )
        return chosen(**{item: _built(hints[item], plain[item], f"{place}.{item}") for item in sorted(known)})
    if isinstance(plain, list):
        inner = next((get_args(option) for option in options_of(hint) if get_origin(option) is tuple), ())
        item_hint = inner[0] if inner else Any
        return tuple(_built(item_hint, item, place) for item in plain)
    return plain
