"""What a run leaves behind: result, overlay video, report, loss curves, and a table on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuface.errors import InputError
from neuface.io.npz import write_json
from neuface.io.video import write_image
from neuface.results import FitResult
from neuface.structs import HeadParams
from neuface.viz.figures import loss_curves

TABLE_ROWS = (
    ("nme_percent", "NME, 68 points (%)"),
    ("nme51_percent", "NME, inner 51 (%)"),
    ("msi3d_landmarks", "MSI3D, landmarks (frame^4/mm^2)"),
    ("msi3d_vertices", "MSI3D, vertices (frame^4/mm^2)"),
    ("cvd_mm", "cross-view distance (mm)"),
    ("mpve_mm", "error to truth, MPVE (mm)"),
)


def make_folder(folder: Path) -> None:
    """Make the output folder before the work that is to fill it; raises InputError if that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the output folder {folder} cannot be made ({error}); choose another --out"
        ) from error


def write_outputs(
    result: FitResult, folder: Path, *, truth: HeadParams | None = None, progress: bool = True
) -> dict[str, Any]:
    """Write `result.npz`, `report.json`, `loss.png` and `overlay.mp4` into a folder; returns the report."""
    make_folder(folder)
    result.save(folder / "result.npz")
    report = result.report(truth)
    write_json(folder / "report.json", report)
    title = f"{result.model}: {result.stop_reason}"
    write_image(folder / "loss.png", loss_curves(weighted_history(result), title, ylabel="part of the loss"))
    result.overlay(folder / "overlay.mp4", progress=progress)
    return report


def weighted_history(result: FitResult) -> dict[str, list[float]]:
    """The parts of the loss times their weights, which add up to `total`: by themselves, their units differ."""
    weights = {"total": 1.0, **result.config.term_weights()}
    return {name: [weights[name] * value for value in values] for name, values in result.history.items()}


def table(report: dict[str, Any]) -> str:
    """The report's figures before and after as text."""
    before, after = report["before"], report["after"]
    lines = [f"{'':34}{'encoder alone':>15}{'optimised':>12}"]
    lines += [
        f"{label:34}{before[name]:15.3f}{after[name]:12.3f}"
        for name, label in TABLE_ROWS
        if name in before and name in after
    ]
    lines.append(
        f"{report['frames']} frames x {report['views']} views, {report['failed_frames']} failed; "
        f"{report['passes']} passes in {report['seconds']:.1f} s ({report['stop_reason']})"
    )
    return "\n".join(lines)
