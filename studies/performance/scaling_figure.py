"""The figure of docs/performance.md: processor time and memory against frames, views and landmarks.

python -m studies.performance.scaling_figure PERFORMANCE/performance.json docs/scaling.png
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

POINTS = {"ibug68": 68, "mediapipe478": 478, "dense1000": 1000}
STAGES = {"encoder": "encoder", "person": "person's estimate", "passes": "four passes"}


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw a panel of time and one of memory for every size that was changed."""
    figure = Figure(figsize=(10.0, 5.2), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3, sharex="col")
    for column, series in enumerate(("frames", "views", "landmarks")):
        some = [row for row in rows if row["series"] == series]
        sizes = [POINTS[row[series]] if series == "landmarks" else row[series] for row in some]
        order = sorted(range(len(some)), key=sizes.__getitem__)
        some, sizes = [some[index] for index in order], [sizes[index] for index in order]
        _time(panels[0, column], some, sizes)
        panels[1, column].plot(sizes, [row["peak_mb"] for row in some], "o-", color="black")
        panels[1, column].set_ylim(0, 1.05 * max(row["peak_mb"] for row in rows))
        panels[1, column].set_xlabel(series)
        panels[1, column].set_xscale("log", base=2 if series == "views" else 10)
    panels[0, 0].set_ylabel("processor time (ms per image)")
    panels[1, 0].set_ylabel("largest memory (MiB)")
    panels[0, 0].legend(fontsize=8)
    figure.savefig(path)


def _time(panel: Axes, rows: Sequence[Mapping[str, Any]], sizes: Sequence[int]) -> None:
    panel.plot(sizes, [row["cpu_ms_per_image"] for row in rows], "o-", color="black", label="all")
    for name, title in STAGES.items():
        panel.plot(sizes, [per_image_ms(row, name) for row in rows], "o--", markersize=3, label=title)
    panel.set_ylim(bottom=0)


def per_image_ms(row: Mapping[str, Any], stage: str) -> float:
    """Processor time of a stage of a fit per image, ms."""
    return 1000 * row[f"{stage}_cpu_seconds"] / (row["frames"] * row["views"])


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    draw(found["scaling"]["rows"], Path(sys.argv[2]))
