"""Settings: frozen dataclasses that check what they are given, and that are changed by dotted paths.

The bounds of a number stand in its type (`Annotated[float, Bounds(above=0.0)]`). A choice between several ways of
doing something is a field whose type is a union of settings: each way is a class with the numbers it needs.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from neuface.errors import InputError

SettingT = TypeVar("SettingT", bound="Setting")
# Bounds whole numbers: torch takes no larger ones.
LARGEST_INT = 2**63 - 1
TRUE_WORDS, FALSE_WORDS = ("true", "yes", "1"), ("false", "no", "0")


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a number must obey besides being finite."""

    least: float = -math.inf
    above: float = -math.inf
    most: float = math.inf
    below: float = math.inf
    odd: bool = False
    remedy: str = ""
    """What to do instead, for the error message."""

    def violation(self, value: int | float) -> str | None:
        """What is wrong with a number, or None."""
        rules = (
            (value < self.least, f"at least {self.least:g}"),
            (value <= self.above, f"greater than {self.above:g}"),
            (value > self.most, f"at most {self.most:g}"),
            (value >= self.below, f"below {self.below:g}"),
            (self.odd and value % 2 == 0, "odd"),
        )
        broken = next((rule for violated, rule in rules if violated), None)
        return (
            None
            if broken is None
            else f"must be {broken}, got {value}" + (self.remedy and f": {self.remedy}")
        )


Count = Annotated[int, Bounds(least=1.0)]
"""A whole number of at least 1."""
OddCount = Annotated[int, Bounds(least=1.0, odd=True)]
"""An odd whole number of at least 1."""
Size = Annotated[int, Bounds(least=0.0)]
"""A whole number of at least 0."""
Positive = Annotated[float, Bounds(above=0.0)]
"""A number above 0."""
Share = Annotated[float, Bounds(least=0.0, below=1.0)]
"""A number of at least 0 and below 1."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A value that checks the types and bounds of its fields when it is made."""

    def __post_init__(self) -> None:
        for item in fields(self):
            _check(
                f"{type(self).__name__}.{item.name}",
                getattr(self, item.name),
                field_types(type(self))[item.name],
            )

    def changed(self: SettingT, changes: Mapping[str, Any] | None = None) -> SettingT:
        """A copy in which some fields have other values, named by dotted paths.

        A path into a setting that is None makes it, with its defaults for what is not named.

        Raises InputError for a path that does not exist, or a value that the field cannot have.

        Example:
            >>> from neuface import FitConfig
            >>> FitConfig().changed({"m_step.stop.max_passes": 30}).m_step.stop.max_passes
            30
        """
        return _changed(self, changes or {}, "", lambda _place, _hint, value: value)

    def changed_by_text(self: SettingT, changes: Mapping[str, str]) -> SettingT:
        """The same with values as text, as on a command line: numbers, true or false, none, or the name of a class.

        Dashes in paths count as underscores.
        """
        return _changed(
            self, {path.replace("-", "_"): text for path, text in changes.items()}, "", value_of_text
        )


@cache
def field_types(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields, annotations included."""
    return get_type_hints(kind, include_extras=True)


def resolve(kind: type) -> None:
    """Resolve the types of a dataclass and of those that its fields may hold.

    This evaluates code of this package: done on import, nothing is evaluated while a file is read.
    """
    for hint in field_types(kind).values():
        for held in dataclasses_of(hint):
            resolve(held)


def options_of(hint: Any) -> Iterator[Any]:
    """The members of a union, without their annotations, or the type itself."""
    if get_origin(hint) is Annotated:
        yield from options_of(get_args(hint)[0])
    elif get_origin(hint) in (Union, types.UnionType):
        for option in get_args(hint):
            yield from options_of(option)
    else:
        yield hint


def dataclasses_of(hint: Any) -> Iterator[type]:
    """The dataclasses that a field of this type may hold, derived ones included."""
    for option in options_of(hint):
        if isinstance(option, type) and is_dataclass(option):
            yield option
            for derived in option.__subclasses__():
                yield from dataclasses_of(derived)


def value_of_text(place: str, hint: Any, text: str) -> Any:
    """The value that a text stands for in a field of this type.

    A class is returned for the name of one: its fields may be given by further paths.

    Raises InputError if it stands for none.
    """
    options = list(options_of(hint))
    choices = [choice for option in options if get_origin(option) is Literal for choice in get_args(option)]
    if text.lower() == "none" and types.NoneType in options:
        return None
    kinds = {kind.__name__: kind for kind in dataclasses_of(hint)}
    if text in kinds:
        return kinds[text]
    if text in choices:
        return text
    if bool in options and text.lower() in (*TRUE_WORDS, *FALSE_WORDS):
        return text.lower() in TRUE_WORDS
    for number in (int, float):
        if number in options:
            try:
                return number(text)
            except ValueError:
                continue
    raise InputError(f"{place} must be {described(hint)}, got {text!r}")


def described(hint: Any) -> str:
    """The values that a field of this type may have, in words."""
    words = []
    for option in options_of(hint):
        if get_origin(option) is Literal:
            words += [repr(choice) for choice in get_args(option)]
        elif isinstance(option, type) and is_dataclass(option):
            words += [kind.__name__ for kind in dataclasses_of(option)]
        else:
            names = {int: "a whole number", float: "a number", bool: "True or False", types.NoneType: "None"}
            words.append(names.get(option, str(option)))
    *others, last = dict.fromkeys(words)
    return f"{', '.join(others)} or {last}" if others else last


Convert = Callable[[str, Any, Any], Any]
"""Place, type and value of a field -> the value it gets."""


def _changed(value: SettingT, changes: Mapping[str, Any], place: str, convert: Convert) -> SettingT:
    hints = field_types(type(value))
    whole: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for path, new in changes.items():
        name, _, rest = path.partition(".")
        if name not in hints or name not in {item.name for item in fields(value)}:
            known = ", ".join(item.name for item in fields(value))
            raise InputError(f"{place}{path}: {type(value).__name__} has no {name!r}; it has {known}")
        if rest:
            inner.setdefault(name, {})[rest] = new
        else:
            whole[name] = convert(place + name, hints[name], new)
    for name in {**whole, **inner}:
        current = whole.get(name, getattr(value, name))
        whole[name] = _with_inner(current, hints[name], inner.get(name, {}), f"{place}{name}.", convert)
    return replace(value, **whole)


def _with_inner(current: Any, hint: Any, inner: Mapping[str, Any], place: str, convert: Convert) -> Any:
    """A field's value with changes inside of it; a class in place of a value is made with them."""
    if isinstance(current, type):
        return _made(current, inner, place, convert)
    if not inner:
        return current
    if isinstance(current, Setting):
        return _changed(current, inner, place, convert)
    kinds = [kind for kind in dataclasses_of(hint) if not getattr(kind, "__abstractmethods__", None)]
    if current is None and len(kinds) == 1:
        return _made(kinds[0], inner, place, convert)
    where = place.removesuffix(".")
    if not kinds:
        raise InputError(f"{where} has no fields: {where}.{next(iter(inner))} does not exist")
    names = ", ".join(kind.__name__ for kind in kinds)
    raise InputError(f"{where} is None: choose what it shall be first, one of {names}")


def _made(kind: type, inner: Mapping[str, Any], place: str, convert: Convert) -> Any:
    """A setting of a class from the changes to its defaults; what has no default must be among them."""
    hints = field_types(kind)
    direct = {
        name: convert(place + name, hints[name], value)
        for name, value in inner.items()
        if "." not in name and name in hints
    }
    try:
        made = kind(**{name: value() if isinstance(value, type) else value for name, value in direct.items()})
    except TypeError as error:
        raise InputError(f"{place.removesuffix('.')}: {kind.__name__} cannot be made: {error}") from None
    return _changed(
        made, {path: value for path, value in inner.items() if path not in direct}, place, convert
    )


def _check(place: str, value: Any, hint: Any) -> None:
    """Raise InputError unless a value has the type and obeys the bounds of its field."""
    options = list(options_of(hint))
    if value is None and types.NoneType in options:
        return
    choices = [choice for option in options if get_origin(option) is Literal for choice in get_args(option)]
    if isinstance(value, str) and value in choices:
        return
    kinds = tuple(option for option in options if isinstance(option, type) and is_dataclass(option))
    if kinds and isinstance(value, kinds):
        return
    if bool in options and isinstance(value, bool):
        return
    if (
        not (int in options or float in options)
        or isinstance(value, bool)
        or not isinstance(value, int | float)
    ):
        raise InputError(f"{place} must be {described(hint)}, got {value!r}")
    _check_number(place, value, hint, whole=float not in options)


def _check_number(place: str, value: int | float, hint: Any, *, whole: bool) -> None:
    if isinstance(value, int) and abs(value) > LARGEST_INT:
        raise InputError(f"{place} must be at most 2**63 - 1 in size, got {value}")
    if not math.isfinite(value):
        raise InputError(f"{place} must be finite, got {value}")
    if whole and not isinstance(value, int):
        raise InputError(f"{place} must be a whole number, got {value}")
    for bounds in _bounds_of(hint):
        violation = bounds.violation(value)
        if violation is not None:
            raise InputError(f"{place} {violation}")


def _bounds_of(hint: Any) -> Iterator[Bounds]:
    if get_origin(hint) is Annotated:
        inner, *extras = get_args(hint)
        yield from (extra for extra in extras if isinstance(extra, Bounds))
        yield from _bounds_of(inner)
    elif get_origin(hint) in (Union, types.UnionType):
        for option in get_args(hint):
            yield from _bounds_of(option)
