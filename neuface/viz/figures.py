"""Curves as pictures, drawn without matplotlib's global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from neuface.errors import InputError

__all__ = ["loss_curves"]

DPI = 100
SMALLEST_DRAWN_SHARE = 1e-5
"""Lower end of the axis as a share of its upper one. A term that starts near zero would otherwise compress the curves
of all others."""


def loss_curves(
    history: Mapping[str, Sequence[float]],
    title: str,
    size_px: tuple[int, int] = (480, 720),
    *,
    steps: Sequence[int] | None = None,
    ylabel: str = "loss",
) -> UInt8[np.ndarray, "h w 3"]:
    """Loss over the steps on a logarithmic axis, the entry named `total` as a bold black line.

    Args:
        history: name of each part -> its values, one per step; values that are not positive and finite leave
            a gap, since a logarithmic axis has no place for them. The axis ends at SMALLEST_DRAWN_SHARE of its top.
        title: written above the curves.
        size_px: height and width of the picture.
        steps: where on the axis the values lie; counted from 0 when None.
        ylabel: what the values are.

    Raises:
        InputError: the history has no values.
    """
    # On use: matplotlib loads slowly.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not any(len(values) for values in history.values()):
        raise InputError("history is empty: expected at least one named series with values, got none")
    height, width = size_px
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_yscale("log", nonpositive="mask")
    for name in sorted(history, key=lambda name: name != "total"):
        values = np.asarray(history[name], dtype=np.float64)
        drawn = np.where(np.isfinite(values) & (values > 0), values, np.nan)
        total = name == "total"
        # A single step is a point, which a line alone would not show.
        axes.plot(
            range(len(drawn)) if steps is None else steps,
            drawn,
            label=name,
            color="black" if total else None,
            linewidth=2.2 if total else 1.2,
            marker="o" if len(values) == 1 else None,
            zorder=3 if total else 2,
        )
    lowest, highest = axes.get_ylim()
    axes.set_ylim(bottom=max(lowest, SMALLEST_DRAWN_SHARE * highest))
    axes.set_title(title, parse_math=False)
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(loc="best", fontsize="small")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
