"""Runs the benchmark and writes its report."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch

from neuface.io.atomic import write_json, write_text
from neuface.io.video import write_image
from neuface.models import load_model
from neuface.run_folder import make_folder
from studies.benchmark.clips import benchmark_clips
from studies.benchmark.collect import collect, footage_below
from studies.benchmark.records import Evidence
from studies.benchmark.report.explanations import LIKELY_CAUSES, UNMET_CAUSES
from studies.benchmark.report.figures import draw_figures
from studies.benchmark.report.sections import ReportExtras, html, markdown, report_pictures
from studies.benchmark.settings import FAST, BenchmarkSettings
from studies.benchmark.tables import tables
from studies.benchmark.variants import MAIN
from studies.common.kept_runs import kept_in
from studies.common.report.documents import Picture
from studies.common.variants import Variant
from studies.gradient_maps.maps import (
    GradientMapConfig,
    MapFigures,
    gradient_maps,
    gradient_picture,
    map_figures,
)

COMMAND = "python -m studies.benchmark"
RUNS = "runs"
GRADIENT_IMAGES = 3


def run_benchmark(
    out: Path,
    settings: BenchmarkSettings,
    data: str | os.PathLike[str] | None = None,
    *,
    variants: Sequence[Variant] = MAIN,
    workers: int = 1,
    command: str = COMMAND,
    progress: bool = True,
) -> Evidence:
    """Run what is missing, and write `tables.json`, `report.md`, `report.html` and `figures/*.png`.

    Finished jobs are kept in `out/runs`; an interrupted benchmark continues where it stopped.

    Args:
        data: folder of real clips (`studies.common.recordings`); None: rendered people only.
        variants: those that run on every clip.
        workers: processes that fit clips side by side.
        command: the command that the report names as its origin.

    Raises:
        InputError: the folder cannot be written, or files of the data folder cannot be used.
    """
    make_folder(out)
    evidence = collect(
        settings, data, variants=variants, keep=kept_in(out / RUNS), workers=workers, progress=progress
    )
    extras = ReportExtras(
        torch_version=torch.__version__,
        cpu=f"{cpu_name()}, {os.cpu_count()} cores",
        command=command,
        pictures=(_gradients(settings, data),),
        remarks=LIKELY_CAUSES,
        unmet=UNMET_CAUSES,
    )
    figures = draw_figures(evidence)
    for name, picture in report_pictures(figures, extras).items():
        write_image(out / name, picture)
    write_json(out / "tables.json", tables(evidence))
    write_text(out / "report.md", markdown(evidence, figures, extras))
    write_text(out / "report.html", html(evidence, figures, extras))
    return evidence


def command_line(settings: BenchmarkSettings, *, with_data: bool) -> str:
    """The command of the same benchmark, with DIR and DATA in the place of folders, which may be private.

    >>> command_line(FAST, with_data=False)
    'python -m studies.benchmark --out DIR --fast'
    """
    words = [f"{COMMAND} --out DIR", *["--data DATA"] * with_data]
    if settings == FAST:
        return " ".join([*words, "--fast"])
    for item in fields(settings):
        value, option = getattr(settings, item.name), item.name.replace("_", "-")
        if value == item.default:
            continue
        words.append(f"--settings.no-{option}" if value is False else f"--settings.{option} {value}")
    return " ".join(words)


def cpu_name() -> str:
    """The processor's name, as far as the system knows it."""
    return platform.processor() or platform.machine()


def _gradients(settings: BenchmarkSettings, data: str | os.PathLike[str] | None) -> Picture:
    """Fig. 3 of the paper for a rendered person: a report that is published should not show real faces."""
    model = load_model("open")
    clip = benchmark_clips(settings, footage_below(data))[0]
    maps = gradient_maps(model, clip.load(model.head).clip, GradientMapConfig(images=GRADIENT_IMAGES))
    everything = torch.ones(model.head.num_vertices, dtype=torch.bool)
    face = model.head.regions.get("face", everything)
    return Picture(
        name="gradient_maps",
        image=gradient_picture(maps, model.head).numpy(),
        caption=f"Where the first step acts (the paper's Fig. 3), clip {clip.name}. "
        + gradient_map_findings(map_figures(maps.free, face), map_figures(maps.neural, face)),
    )


def gradient_map_findings(free: MapFigures, neural: MapFigures) -> str:
    """The paper's claims about its Fig. 3, and what was measured."""
    lines = [
        "The paper: the step of direct fitting is sparse and alike for all pictures, the network's is dense and "
        "different. Here (free parameters / network):",
        f"share of the face that moves {free.moved_share:.2f} / {neural.moved_share:.2f}, so the first "
        + ("holds;" if free.moved_share < neural.moved_share else "does not hold;"),
    ]
    if free.pattern_similarity is None or neural.pattern_similarity is None:
        return " ".join([*lines, "the second needs several images."])
    holds = free.pattern_similarity > neural.pattern_similarity
    lines += [
        "mean cosine between the maps of different pictures, lengths alone, "
        f"{free.pattern_similarity:.2f} / {neural.pattern_similarity:.2f}, so the second "
        + ("holds." if holds else "does not hold."),
    ]
    return " ".join(lines)
