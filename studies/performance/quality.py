"""Quality and time of one version of neuface on saved clips, judged by this version's metrics.

    python -m studies.performance.quality --tree ../old --config best --data DATA --clips CLIPS --out OLD

Every clip is fitted in a process of its own with the version in `--tree`. Parameters and figures are kept below
`--out` as they appear, and what is there already is not computed again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import tyro

from neuface.evaluation.held_out_view import held_out_view_error, mean_over_views
from neuface.head.model import HeadModel
from neuface.io.atomic import write_json
from neuface.models import load_head
from studies.benchmark.clips import BenchmarkClip
from studies.common.cases import Case
from studies.common.recordings import find_footage
from studies.common.scores import score
from studies.performance.child import fit_saved
from studies.performance.saved_clips import SavedFit, clip_path, compared_clips, load_case, read_fit


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which version is measured on which clips."""

    tree: Path
    """A checkout of neuface, the root of the repository."""
    out: Path
    """Folder for the parameters and figures of this version and configuration."""
    clips: Path
    """Folder of the saved clips; those that are missing are made."""
    data: Path = Path("../shared/data")
    """Folder of real clips (`studies.common.recordings`)."""
    config: str = "best"
    """A preset, or an expression such as `FitConfig.best({"m_step.stop.max_passes": 10})`."""
    only: tuple[str, ...] = ()
    """Clips or groups by (a part of) their names; all without it."""
    held_out: bool = True
    """Also fit every clip of several cameras without each of them."""
    threads: int = 1
    """Threads of torch while fitting; 0 leaves them as neuface has them."""


def main(options: Options) -> None:
    """Fit and judge every clip, and print a line for each."""
    head = load_head("open")
    for clip in compared_clips(find_footage(options.data)):
        if options.only and not any(
            part in (clip.name, clip.group) or part in clip.name for part in options.only
        ):
            continue
        row = figures_of(clip, head, options)
        print(json.dumps(row), flush=True)


def figures_of(clip: BenchmarkClip, head: HeadModel, options: Options) -> dict[str, Any]:
    """Figures of one clip, from a file if they were computed before."""
    kept = options.out / f"{clip.name}.json"
    if kept.exists():
        return json.loads(kept.read_text(encoding="utf-8"))
    case = load_case(clip, head, options.clips)
    views = range(case.clip.views)
    fits: dict[int | None, list[int]] = {None: list(views)}
    if options.held_out and len(views) > 1:
        fits |= {left: [view for view in views if view != left] for left in views}
    paths = {left: options.out / _name(clip, left) for left in fits}
    missing = [left for left in fits if not paths[left].exists()]
    _fit_in_child(clip, {left: fits[left] for left in missing}, paths, options)
    found = {left: read_fit(path) for left, path in paths.items()}
    row = {"clip": clip.name, "group": clip.group, "tree": str(options.tree), "config": options.config}
    row |= judged(case, head, found)
    write_json(kept, row)
    return row


def judged(case: Case, head: HeadModel, found: dict[int | None, SavedFit]) -> dict[str, Any]:
    """Figures of the fit to all views, and of those without one of them."""
    whole = found[None]
    held_out = [
        mean_over_views(
            held_out_view_error(
                head, fit.prediction, fit.valid, case.clip.track[left : left + 1]
            ).nme51_percent
        )
        for left, fit in found.items()
        if left is not None
    ]
    known = [value for value in held_out if value is not None]
    return {
        "images": case.clip.views * case.clip.time,
        "seconds": whole.seconds,
        "cpu_seconds": whole.cpu_seconds,
        "passes": whole.passes,
        "held_out_nme51_percent": fmean(known) if known else None,
        **asdict(score(case, head, whole.prediction)),
    }


def _name(clip: BenchmarkClip, left_out: int | None) -> str:
    return f"{clip.name}.npz" if left_out is None else f"{clip.name}.without_{left_out}.npz"


def _fit_in_child(
    clip: BenchmarkClip,
    fits: dict[int | None, list[int]],
    paths: dict[int | None, Path],
    options: Options,
) -> None:
    if not fits:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    job = options.out / f"{clip.name}.job.json"
    write_json(
        job,
        {
            "tree": str(options.tree.resolve()),
            "config": options.config,
            "threads": options.threads,
            "fits": [
                {
                    "clip": str(clip_path(options.clips, clip)),
                    "views": views,
                    "out": str(paths[left]),
                }
                for left, views in fits.items()
            ],
        },
    )
    environment = {**os.environ, "PYTHONPATH": str(options.tree.resolve())}
    command = [sys.executable, fit_saved.__file__, str(job)]
    subprocess.run(command, env=environment, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main(tyro.cli(Options))
