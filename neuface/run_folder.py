"""The files of a run: result, report, loss curves and overlay video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuface.errors import InputError
from neuface.head.model import HeadModel
from neuface.io.atomic import write_json
from neuface.io.video import write_image
from neuface.results import FitResult, head_of
from neuface.structs import HeadParams
from neuface.viz.figures import loss_curves


def make_folder(folder: Path) -> None:
    """Make the output folder, before the work that fills it; raises InputError if that is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the output folder {folder} cannot be made ({error}); choose another --out"
        ) from error


def write_outputs(
    result: FitResult,
    folder: Path,
    *,
    head: HeadModel | None = None,
    truth: HeadParams | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Write `result.npz`, `report.json`, `loss.png` and `overlay.mp4` into a folder.

    Args:
        result: the fit of a clip; it must hold its frames.
        folder: made if it is not there.
        head: the model of the result's parameters; None reads it again by name.
        truth: the true parameters, batch axes `views time`, where they are known.
        progress: show a progress bar while the video is drawn.

    Returns:
        The content of `report.json`.

    Raises:
        InputError: the folder or the files cannot be written.
        ModelMismatchError: the head is another one than the one that was fitted.
    """
    make_folder(folder)
    fitted = head_of(result, head)
    result.save(folder / "result.npz")
    report = result.report(truth, head=fitted)
    write_json(folder / "report.json", report)
    title = f"{result.model}: {result.outcome.label}"
    write_image(folder / "loss.png", loss_curves(weighted_history(result), title, ylabel="part of the loss"))
    result.overlay(folder / "overlay.mp4", head=fitted, progress=progress)
    return report


def weighted_history(result: FitResult) -> dict[str, list[float]]:
    """The parts of the loss times their weights, which add up to `total`; the bare parts have different units."""
    weights = {"total": 1.0, **result.config.objective.weights()}
    return {name: [weights[name] * value for value in values] for name, values in result.history.items()}
