"""The evidence as pictures, drawn without matplotlib's global state."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from studies.benchmark.aggregate import (
    Mean,
    arm_title,
    clips_of,
    cvd_per_view,
    group_mean,
    group_title,
    groups_of,
    identity_spread_course,
    true_stability_of,
)
from studies.benchmark.collect import Evidence
from studies.benchmark.variants import BEST, DIRECT, ENCODER, MAIN, OFFICIAL, PAPER
from studies.common.cases import VIEW_YAW_DEG
from studies.common.recordings import FOUR_CAMERAS

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
# A wider range on a logarithmic axis has labels at powers of ten only: at 1, 2 and 5 they would overlap.
MOST_LABELLED_THRICE = 1e3
# One colour and one mark per arm in every picture; the colours can be told apart by the colour-blind.
STYLES = {
    ENCODER: ("#7f7f7f", "o"),
    DIRECT: ("#e69f00", "s"),
    PAPER: ("#0072b2", "^"),
    OFFICIAL: ("#cc79a7", "v"),
    "official_fast": ("#56b4e9", "D"),
    BEST: ("#d55e00", "*"),
}
ARMS = tuple(arm.name for arm in MAIN)
Picture = UInt8[np.ndarray, "h w 3"]


def mpve_bars(evidence: Evidence) -> Picture | None:
    """Fig. 4: vertex error after rigid alignment of every arm, one cluster of bars per group, the value on each bar.

    Whiskers are the standard deviation between clips. None where no group has a vertex error.
    """
    groups = [group for group in groups_of(evidence) if _any(evidence, group, "mpve_mm")]
    if not groups:
        return None
    figure, panels = _panels(len(groups))
    for axes, group in zip(panels, groups, strict=True):
        means = {arm: group_mean(evidence, arm, group, "mpve_mm") for arm in ARMS}
        _bars(axes, means)
        clips = len(clips_of(evidence, group))
        axes.set_title(f"{group_title(group)}\n{clips} clip{'s' if clips > 1 else ''}", fontsize=9)
        axes.set_xlabel("MPVE, rigid (mm)")
    return _finished(figure, "Vertex error per arm (as Fig. 4 of the paper), less is better")


def cvd_view_bars(evidence: Evidence) -> Picture | None:
    """Fig. S3: distance of each view's meshes to those of the others, one panel per group of several views."""
    groups = [
        group for group in groups_of(evidence) if any(cvd_per_view(evidence, arm, group) for arm in ARMS)
    ]
    if not groups:
        return None
    figure, panels = _panels(len(groups))
    for axes, group in zip(panels, groups, strict=True):
        courses = {arm: cvd_per_view(evidence, arm, group) for arm in ARMS}
        drawn = [arm for arm in ARMS if courses[arm]]
        views = max(len(courses[arm]) for arm in drawn)
        width = 0.8 / len(drawn)
        for number, arm in enumerate(drawn):
            places = np.arange(len(courses[arm])) + (number - (len(drawn) - 1) / 2) * width
            heights = [np.nan if mean is None else mean.mean for mean in courses[arm]]
            axes.bar(places, heights, width, color=STYLES[arm][0], label=arm_title(arm))
        axes.set_xticks(range(views), view_names(evidence, group, views), fontsize=8)
        axes.set_title(group_title(group), fontsize=9)
        axes.set_ylabel("CVD (mm)")
        axes.grid(True, axis="y", alpha=0.3)
    _legend_below(figure, panels)
    return _finished(figure, "Distance between views, per view (as Fig. S3 of the paper), less is better")


def identity_spread_curves(evidence: Evidence) -> Picture | None:
    """Table S3b: spread of the identity codes over the passes, one line per arm, mean over clips."""
    groups = [group for group in groups_of(evidence) if any(_courses(evidence, group).values())]
    if not groups:
        return None
    figure, panels = _panels(len(groups))
    for axes, group in zip(panels, groups, strict=True):
        for arm, course in _courses(evidence, group).items():
            if course:
                mark = STYLES[arm][1] if len(course) == 1 else None
                axes.plot(course, color=STYLES[arm][0], marker=mark, linewidth=1.6, label=arm_title(arm))
        axes.set_title(group_title(group), fontsize=9)
        axes.set_xlabel("pass")
        axes.set_ylabel("spread (code units)")
        axes.set_ylim(bottom=0)
        axes.grid(True, alpha=0.3)
    _legend_below(figure, panels)
    return _finished(figure, "Standard deviation of identity codes over a clip's images (as Table S3b)")


def steadiness_scatter(evidence: Evidence) -> Picture | None:
    """How steady the vertices are against the error of the head's turning: right and low is good.

    A dashed line is the steadiness of the truth. Right of it and high is motion that was smoothed away.
    """
    groups = [group for group in groups_of(evidence) if _steadiness(evidence, group)]
    if not groups:
        return None
    figure, panels = _panels(len(groups))
    for axes, group in zip(panels, groups, strict=True):
        for arm, (steadiness, error) in _steadiness(evidence, group).items():
            colour, mark = STYLES[arm]
            size = 150 if arm == BEST else 60
            axes.scatter(steadiness, error, s=size, color=colour, marker=mark, label=arm_title(arm), zorder=3)
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
    """What the views of a group are called: the yaw of rendered ones, the names of the session's cameras."""
    if group == FOUR_CAMERAS:
        named = [run.views for run in evidence.held_out if len(run.views) == views]
        if named:
            return named[0]
    elif views == len(VIEW_YAW_DEG):
        return tuple(f"{yaw:+.0f}°" if yaw else "0°" for yaw in VIEW_YAW_DEG)
    return tuple(f"view {number + 1}" for number in range(views))


def _any(evidence: Evidence, group: str, metric: str) -> bool:
    return any(group_mean(evidence, arm, group, metric) is not None for arm in ARMS)


def _courses(evidence: Evidence, group: str) -> dict[str, tuple[float, ...]]:
    return {arm: identity_spread_course(evidence, arm, group) for arm in ARMS}


def _steadiness(evidence: Evidence, group: str) -> dict[str, tuple[float, float]]:
    """By arm: MSI3D of vertices and error of turning, where it has both; a logarithm needs a positive MSI3D."""
    found = {}
    for arm in ARMS:
        steadiness = group_mean(evidence, arm, group, "msi3d_vertices")
        error = group_mean(evidence, arm, group, "angular_velocity_error_deg")
        if steadiness is not None and error is not None and steadiness.mean > 0:
            found[arm] = (steadiness.mean, error.mean)
    return found


def _bars(axes: Axes, means: dict[str, Mean | None]) -> None:
    """Lying bars, for the titles of the arms are long."""
    known = {arm: mean for arm, mean in means.items() if mean is not None}
    places = range(len(known))
    spread = [mean.stdev or 0.0 for mean in known.values()]
    drawn = axes.barh(
        places,
        [mean.mean for mean in known.values()],
        xerr=spread if any(spread) else None,
        color=[STYLES[arm][0] for arm in known],
        error_kw={"elinewidth": 1, "alpha": 0.6},
    )
    axes.bar_label(drawn, fmt="%.2f", padding=3, fontsize=8)
    axes.set_yticks(places, [arm_title(arm) for arm in known], fontsize=8)
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
    "mpve": (mpve_bars, "Vertex error per arm; whiskers are the standard deviation between clips."),
    "cvd_per_view": (cvd_view_bars, "Distance of each view's meshes to those of the other views."),
    "identity_spread": (
        identity_spread_curves,
        "Spread of the identity codes as the network answers them, before any sharing; mean over clips. A clip "
        "whose fit ended sooner keeps its last value.",
    ),
    "steadiness": (
        steadiness_scatter,
        "Steadiness against the error of the head's turning. The dashed line is the truth: a fit right of it that "
        "lies high has smoothed true motion away.",
    ),
}
CAPTIONS = {name: caption for name, (_, caption) in _FIGURES.items()}
"""What is to be seen in each figure, by name, in the order of the report."""


def draw_figures(evidence: Evidence) -> dict[str, Picture]:
    """All figures that the evidence has something for, by the names of CAPTIONS; RGB pictures."""
    drawn = {name: draw(evidence) for name, (draw, _) in _FIGURES.items()}
    return {name: picture for name, picture in drawn.items() if picture is not None}
