"""The evidence as pictures, drawn without the global state of matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from studies.benchmark.aggregate import (
    clips_of,
    cvd_per_view,
    group_mean,
    groups_of,
    identity_spread_curve,
    true_stability_of,
    variant_title,
)
from studies.benchmark.records import Evidence
from studies.benchmark.variants import BEST, DIRECT, MAIN, NEURAL, OFFICIAL, PAPER
from studies.common.cases import VIEW_YAW_DEG
from studies.common.metrics import Mean, group_title
from studies.common.recordings import FOUR_CAMERAS
from studies.common.variants import ENCODER

__all__ = [
    "CAPTIONS",
    "cvd_view_bars",
    "draw_figures",
    "identity_spread_curves",
    "mpve_bars",
    "steadiness_scatter",
]

DPI = 120
WIDTH_IN = 8.0
PANEL_IN = 2.9
MOST_LABELLED_THRICE = 1e3
"""Range of a logarithmic axis up to which labels stand at 1, 2 and 5; wider axes have them at powers of ten alone."""
# Each variant has one colour and one mark in every picture; the colour-blind can distinguish the colours.
STYLES = {
    ENCODER: ("#7f7f7f", "o"),
    DIRECT: ("#e69f00", "s"),
    PAPER: ("#0072b2", "^"),
    OFFICIAL: ("#cc79a7", "v"),
    "official_fast": ("#56b4e9", "D"),
    NEURAL: ("#009e73", "P"),
    BEST: ("#d55e00", "*"),
}
VARIANTS = tuple(variant.name for variant in MAIN)
Picture = UInt8[np.ndarray, "h w 3"]


def mpve_bars(evidence: Evidence) -> Picture | None:
    """Fig. 4: vertex error of every variant after rigid alignment, one panel per group, the value on each bar.

    Whiskers are the standard deviation between clips. None where no group has a vertex error.
    """
    groups = [group for group in groups_of(evidence) if _any(evidence, group, "mpve_mm")]
    if not groups:
        return None
    figure, panels = _panels(len(groups))
    for axes, group in zip(panels, groups, strict=True):
        means = {variant: group_mean(evidence, variant, group, "mpve_mm") for variant in VARIANTS}
        _bars(axes, means)
        clips = len(clips_of(evidence, group))
        axes.set_title(f"{group_title(group)}\n{clips} clip{'s' if clips > 1 else ''}", fontsize=9)
        axes.set_xlabel("MPVE, rigid (mm)")
    return _finished(figure, "Vertex error per variant (as Fig. 4 of the paper), less is better")


def cvd_view_bars(evidence: Evidence) -> Picture | None:
    """Fig. S3: distance of each view's meshes to those of the others, one panel per group of several views."""
    groups = [
        group
        for group in groups_of(evidence)
        if any(cvd_per_view(evidence, variant, group) for variant in VARIANTS)
    ]
    if not groups:
        return None
    figure, panels = _panels(len(groups))
    for axes, group in zip(panels, groups, strict=True):
        curves = {variant: cvd_per_view(evidence, variant, group) for variant in VARIANTS}
        drawn = [variant for variant in VARIANTS if curves[variant]]
        views = max(len(curves[variant]) for variant in drawn)
        width = 0.8 / len(drawn)
        for number, variant in enumerate(drawn):
            places = np.arange(len(curves[variant])) + (number - (len(drawn) - 1) / 2) * width
            heights = [np.nan if mean is None else mean.mean for mean in curves[variant]]
            axes.bar(places, heights, width, color=STYLES[variant][0], label=variant_title(variant))
        axes.set_xticks(range(views), view_names(evidence, group, views), fontsize=8)
        axes.set_title(group_title(group), fontsize=9)
        axes.set_ylabel("CVD (mm)")
        axes.grid(True, axis="y", alpha=0.3)
    _legend_below(figure, panels)
    return _finished(figure, "Distance between views, per view (as Fig. S3 of the paper), less is better")


def identity_spread_curves(evidence: Evidence) -> Picture | None:
    """Table S3b: spread of the identity codes over the passes, one line per variant, mean over clips."""
    groups = [group for group in groups_of(evidence) if any(_curves(evidence, group).values())]
    if not groups:
        return None
    figure, panels = _panels(len(groups))
    for axes, group in zip(panels, groups, strict=True):
        for variant, curve in _curves(evidence, group).items():
            if curve:
                mark = STYLES[variant][1] if len(curve) == 1 else None
                axes.plot(
                    curve, color=STYLES[variant][0], marker=mark, linewidth=1.6, label=variant_title(variant)
                )
        axes.set_title(group_title(group), fontsize=9)
        axes.set_xlabel("pass")
        axes.set_ylabel("spread (code units)")
        axes.set_ylim(bottom=0)
        axes.grid(True, alpha=0.3)
    _legend_below(figure, panels)
    return _finished(figure, "Standard deviation of identity codes over a clip's images (as Table S3b)")


def steadiness_scatter(evidence: Evidence) -> Picture | None:
    """Motion stability of the vertices against the error of head rotation: right and low is good.

    A dashed line marks the stability of the truth. Points right of it and high have lost true motion.
    """
    groups = [group for group in groups_of(evidence) if _steadiness(evidence, group)]
    if not groups:
        return None
    figure, panels = _panels(len(groups))
    for axes, group in zip(panels, groups, strict=True):
        for variant, (steadiness, error) in _steadiness(evidence, group).items():
            colour, mark = STYLES[variant]
            size = 150 if variant == BEST else 60
            axes.scatter(
                steadiness, error, s=size, color=colour, marker=mark, label=variant_title(variant), zorder=3
            )
        true = true_stability_of(evidence, group)
        if true is not None and true.mean > 0:
            axes.axvline(true.mean, color="black", linestyle="--", linewidth=1.2, label="truth")
        axes.set_xscale("log")
        axes.margins(x=0.12)
        least, most = axes.get_xlim()
        axes.xaxis.set_major_locator(
            LogLocator(subs=(1, 2, 5) if most < MOST_LABELLED_THRICE * least else (1,))
        )
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(0, 1.15 * max(error for _, error in _steadiness(evidence, group).values()) or 1.0)
        axes.set_title(group_title(group), fontsize=9)
        axes.set_xlabel("MSI3D, vertices (frame⁴/mm²), more is steadier")
        axes.set_ylabel("error of turning (°/frame)")
        axes.grid(True, which="major", alpha=0.3)
    _legend_below(figure, panels)
    return _finished(figure, "Steadiness against error of head turning")


def view_names(evidence: Evidence, group: str, views: int) -> tuple[str, ...]:
    """Names of the views of a group: the yaw of rendered views, the names of the session's cameras."""
    if group == FOUR_CAMERAS:
        named = [run.views for run in evidence.held_out if len(run.views) == views]
        if named:
            return named[0]
    elif views == len(VIEW_YAW_DEG):
        return tuple(f"{yaw:+.0f}°" if yaw else "0°" for yaw in VIEW_YAW_DEG)
    return tuple(f"view {number + 1}" for number in range(views))


def _any(evidence: Evidence, group: str, metric: str) -> bool:
    return any(group_mean(evidence, variant, group, metric) is not None for variant in VARIANTS)


def _curves(evidence: Evidence, group: str) -> dict[str, tuple[float, ...]]:
    return {variant: identity_spread_curve(evidence, variant, group) for variant in VARIANTS}


def _steadiness(evidence: Evidence, group: str) -> dict[str, tuple[float, float]]:
    """By variant: MSI3D of vertices and error of rotation, where both are known; the logarithm needs MSI3D > 0."""
    found = {}
    for variant in VARIANTS:
        steadiness = group_mean(evidence, variant, group, "msi3d_vertices")
        error = group_mean(evidence, variant, group, "angular_velocity_error_deg")
        if steadiness is not None and error is not None and steadiness.mean > 0:
            found[variant] = (steadiness.mean, error.mean)
    return found


def _bars(axes: Axes, means: dict[str, Mean | None]) -> None:
    """Horizontal bars, because the titles of the variants are long."""
    known = {variant: mean for variant, mean in means.items() if mean is not None}
    places = range(len(known))
    spread = [mean.stdev or 0.0 for mean in known.values()]
    drawn = axes.barh(
        places,
        [mean.mean for mean in known.values()],
        xerr=spread if any(spread) else None,
        color=[STYLES[variant][0] for variant in known],
        error_kw={"elinewidth": 1, "alpha": 0.6},
    )
    axes.bar_label(drawn, fmt="%.2f", padding=3, fontsize=8)
    axes.set_yticks(places, [variant_title(variant) for variant in known], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.grid(True, axis="x", alpha=0.3)


def _panels(count: int) -> tuple[Figure, Sequence[Axes]]:
    """A figure of panels in at most two columns, as tall as it needs to be."""
    columns = min(2, count)
    rows = -(-count // columns)
    figure = Figure(
        figsize=(WIDTH_IN, PANEL_IN * rows + 0.9), dpi=DPI, layout="constrained", facecolor="white"
    )
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(rows, columns, number + 1) for number in range(count)]


def _legend_below(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend for all panels: every label once."""
    handles = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=min(4, len(handles)),
        fontsize=8,
        frameon=False,
    )


def _finished(figure: Figure, title: str) -> Picture:
    figure.suptitle(title, fontsize=11, parse_math=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


_FIGURES: dict[str, tuple[Callable[[Evidence], Picture | None], str]] = {
    "mpve": (mpve_bars, "Vertex error per variant; whiskers are the standard deviation between clips."),
    "cvd_per_view": (cvd_view_bars, "Distance of each view's meshes to those of the other views."),
    "identity_spread": (
        identity_spread_curves,
        "Spread of the identity codes that the network predicts, before any sharing; mean over clips. A clip "
        "whose fit ended earlier keeps its last value.",
    ),
    "steadiness": (
        steadiness_scatter,
        "Steadiness against the error of the head's turning. The dashed line is the truth: a fit right of it that "
        "lies high has smoothed true motion away.",
    ),
}
CAPTIONS = {name: caption for name, (_, caption) in _FIGURES.items()}
"""The caption of each figure, by name, in the order of the report."""


def draw_figures(evidence: Evidence) -> dict[str, Picture]:
    """All figures for which the evidence has data, by the names of CAPTIONS; RGB pictures."""
    drawn = {name: draw(evidence) for name, (draw, _) in _FIGURES.items()}
    return {name: picture for name, picture in drawn.items() if picture is not None}
