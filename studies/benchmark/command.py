"""`neuface benchmark`: collect the evidence and write the report."""

from __future__ import annotations

import os
import platform
from dataclasses import fields
from pathlib import Path

import torch

from neuface.io.npz import write_json, write_text
from neuface.io.video import write_image
from neuface.models import load_model
from neuface.run_folder import make_folder
from studies.benchmark.collect import FAST, Evidence, EvidenceSettings, clip_sources, collect, footage_of
from studies.benchmark.report.documents import Picture
from studies.benchmark.report.explanations import LIKELY_CAUSES, UNMET_CAUSES
from studies.benchmark.report.figures import draw_figures
from studies.benchmark.report.sections import ReportExtras, html, markdown, report_pictures
from studies.benchmark.tables import tables
from studies.common.kept_runs import kept_in
from studies.gradient_maps.maps import (
    GradientMapConfig,
    MapFigures,
    gradient_maps,
    gradient_picture,
    map_figures,
)

RUNS = "runs"
GRADIENT_IMAGES = 3


def run_benchmark(
    out: Path,
    settings: EvidenceSettings,
    data: str | os.PathLike[str] | None = None,
    *,
    workers: int = 1,
    command: str = "neuface benchmark",
    progress: bool = True,
) -> Evidence:
    """Run what is not there yet, and write `tables.json`, `report.md`, `report.html` and `figures/*.png`.

    Finished runs are kept in `out/runs`; an interrupted benchmark goes on where it stopped.

    Args:
        data: folder of real clips (`studies.common.recordings`); None: rendered people only.
        workers: processes that fit clips side by side.
        command: what the report names as its origin.

    Raises:
        InputError: the folder cannot be written, or files of the data folder cannot be used.
    """
    make_folder(out)
    evidence = collect(settings, data, keep=kept_in(out / RUNS), workers=workers, progress=progress)
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


def command_line(settings: EvidenceSettings, *, with_data: bool) -> str:
    """What to type for the same study; DIR and DATA stand for folders, which are nobody else's affair."""
    words = ["neuface benchmark --out DIR", *["--data DATA"] * with_data]
    if settings == FAST:
        return " ".join([*words, "--fast"])
    for item in fields(settings):
        value, option = getattr(settings, item.name), item.name.replace("_", "-")
        if value == item.default:
            continue
        words.append(f"--settings.no-{option}" if value is False else f"--settings.{option} {value}")
    return " ".join(words)


def cpu_name() -> str:
    """The processor's name, as far as the system tells it."""
    return platform.processor() or platform.machine()


def _gradients(settings: EvidenceSettings, data: str | os.PathLike[str] | None) -> Picture:
    """Fig. 3 of the paper for a rendered person: a report that is passed on should show nobody's face."""
    model = load_model("open")
    place = None if data is None else os.fspath(data)
    source = clip_sources(settings, footage_of(place), place)[0]
    maps = gradient_maps(model, source.load(model).clip, GradientMapConfig(images=GRADIENT_IMAGES))
    everything = torch.ones(model.head.num_vertices, dtype=torch.bool)
    face = model.head.regions.get("face", everything)
    return Picture(
        name="gradient_maps",
        image=gradient_picture(maps, model.head).numpy(),
        caption=f"Where the first step acts (the paper's Fig. 3), clip {source.name}. "
        + said_of_gradients(map_figures(maps.direct, face), map_figures(maps.neural, face)),
    )


def said_of_gradients(direct: MapFigures, neural: MapFigures) -> str:
    """What the paper claims of its Fig. 3, and what was measured."""
    lines = [
        "The paper: the step of direct fitting is sparse and alike for all pictures, the network's is dense and "
        "different. Here (direct fitting / network):",
        f"share of the face that moves {direct.moved_share:.2f} / {neural.moved_share:.2f}, so the first "
        + ("holds;" if direct.moved_share < neural.moved_share else "does not hold;"),
    ]
    if direct.pattern_similarity is None or neural.pattern_similarity is None:
        return " ".join([*lines, "the second needs several images."])
    holds = direct.pattern_similarity > neural.pattern_similarity
    lines += [
        "mean cosine between the maps of different pictures, lengths alone, "
        f"{direct.pattern_similarity:.2f} / {neural.pattern_similarity:.2f}, so the second "
        + ("holds." if holds else "does not hold."),
    ]
    return " ".join(lines)
