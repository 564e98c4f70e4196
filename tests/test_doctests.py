"""Every example in a docstring gives what stands below it."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import neuface

PACKAGE = Path(str(neuface.__file__)).parent
WITH_EXAMPLES = sorted(path for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))


class Finder(doctest.DocTestFinder):
    """Also finds the functions that jaxtyping has wrapped, whose code belongs to another module."""

    def _from_module(self, module: ModuleType, object: Any) -> bool:
        return super()._from_module(module, inspect.unwrap(object))  # type: ignore[misc]


def module_of(path: Path) -> ModuleType:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_examples_give_what_stands_below_them(path: Path) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    module = module_of(path)
    found = 0
    for test in Finder().find(module, module.__name__):
        found += len(test.examples)
        assert runner.run(test).failed == 0, f"{test.name}: the output says which line"
    # An example that the finder overlooks would pass unseen.
    written = sum(line.lstrip().startswith(">>> ") for line in path.read_text(encoding="utf-8").splitlines())
    assert found == written
