"""What neuface costs: every figure of docs/performance.md, with the machine that it was measured on.

    python -m studies.performance --only neighbours person --data DATA --out PERFORMANCE
    python -m studies.performance --only quality --baseline ../old --data DATA --out PERFORMANCE

Writes performance.json and performance.md into `--out`; sections that are there already and not asked for stay.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from neuface.errors import InputError
from neuface.io.atomic import write_json, write_text
from neuface.models import load_head
from studies.performance.commands import commands
from studies.performance.comparison import compared
from studies.performance.cuda import cuda
from studies.performance.long_fit import write_short_fit
from studies.performance.memory import memory
from studies.performance.neighbours import neighbours
from studies.performance.passes import passes
from studies.performance.person import person
from studies.performance.scaling import scaling
from studies.performance.tables import page
from studies.performance.timing import machine

Section = Literal["passes", "quality", "person", "commands", "neighbours", "memory", "scaling", "cuda"]
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured, and where the figures go."""

    out: Path
    """Folder for performance.json, performance.md, and what lies between."""
    only: tuple[Section, ...] = ("passes", "person", "commands", "neighbours", "memory", "scaling", "cuda")
    """Sections; `quality` needs a baseline."""
    baseline: Path | None = None
    """A checkout of an older version, with which quality and time are compared."""
    data: Path = Path("../shared/data")
    """Folder of real clips (`studies.common.recordings`); those that are missing are left out."""
    config: str = "best"
    """What is fitted beside the baseline and beside neighbours: as for `studies.performance.quality`."""
    rounds: int = 3
    """How often everything is measured that is measured in turn."""


def main(options: Options) -> None:
    """Measure the sections one after the other; each is written as soon as it is measured."""
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "performance.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in options.only:
        on = machine()
        found[name] = {"machine": on, "rows": measured(name, options)}
        write_json(path, found)
        write_text(options.out / "performance.md", page(found))
        print(page({name: found[name]}), flush=True)


def measured(name: Section, options: Options) -> list[dict[str, Any]]:
    """The rows of one section.

    Raises InputError if there is no baseline for `quality`.
    """
    folder = options.out / name
    folder.mkdir(exist_ok=True)
    sections: dict[Section, Callable[[], list[dict[str, Any]]]] = {
        "passes": lambda: passes(rounds=options.rounds),
        "quality": lambda: _quality(options),
        "person": lambda: person(rounds=options.rounds),
        "commands": lambda: commands(options.data, folder),
        "neighbours": lambda: _neighbours(options, folder),
        "memory": lambda: memory(folder),
        "scaling": lambda: scaling(folder),
        "cuda": lambda: cuda(rounds=options.rounds),
    }
    return sections[name]()


def _quality(options: Options) -> list[dict[str, Any]]:
    if options.baseline is None:
        raise InputError(
            "the section 'quality' compares with an older version: give its checkout by --baseline"
        )
    return compared(
        load_head("open"),
        baseline=options.baseline,
        now=ROOT,
        config=options.config,
        data=options.data,
        out=options.out,
    )


def _neighbours(options: Options, folder: Path) -> list[dict[str, Any]]:
    clip = write_short_fit(folder / "clip.npz")
    return [
        neighbours(tree, options.config, clip, folder, views=1, rounds=options.rounds)
        for tree in (ROOT, *([options.baseline] if options.baseline is not None else []))
    ]


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
