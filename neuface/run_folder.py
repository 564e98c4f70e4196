"""The files of a run: result, report, loss curves and overlay video."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from neuface.errors import InputError
from neuface.head.model import HeadModel
from neuface.io.atomic import check_is_no_input, check_writable, write_json
from neuface.io.video import write_image
from neuface.results.fit_result import FitResult, head_of
from neuface.structs import HeadParams
from neuface.viz.figures import loss_curves

OUTPUT_NAMES = ("result.npz", "report.json", "loss.png", "overlay.mp4", "params.npz")
"""The files that a run writes; the last one only on demand."""


def make_folder(folder: Path) -> None:
    """Make the output folder and try to write into it; raises InputError if that is impossible."""
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)


def check_folder(
    folder: Path, *, overwrite: bool = False, inputs: Iterable[str | PathLike[str]] = ()
) -> None:
    """Whether outputs can be written into a folder, tried before the work that fills it. Nothing is left behind.

    Args:
        folder: where the outputs will lie.
        overwrite: replace the outputs of an earlier run.
        inputs: the files that are read; none of them is ever replaced.

    Raises:
        InputError: the folder cannot be written to, holds outputs that must stay, or an output would replace an
            input.
    """
    there = [folder / name for name in OUTPUT_NAMES if (folder / name).exists()]
    for output in there:
        check_is_no_input(output, inputs)
    if there and not overwrite:
        raise InputError(
            f"the output folder {folder} holds {', '.join(path.name for path in there)} already; choose another "
            "--out, or replace them with --overwrite"
        )
    check_writable(folder)


def write_outputs(
    result: FitResult,
    folder: Path,
    *,
    head: HeadModel | None = None,
    truth: HeadParams | None = None,
    overwrite: bool = False,
    progress: bool = True,
    overlay: bool = True,
) -> dict[str, Any]:
    """Write `result.npz`, `report.json`, `loss.png` and `overlay.mp4` into a folder.

    Args:
        result: the fit of a clip; it must hold its frames.
        folder: made if it is not there.
        head: the model of the result's parameters; None reads it again by name.
        truth: the true parameters, batch axes `views time`, where they are known.
        overwrite: replace the outputs of an earlier run.
        progress: show a progress bar while the video is drawn.
        overlay: whether to draw it.

    Returns:
        The content of `report.json`.

    Raises:
        InputError: the folder or the files cannot be written, or are there already. What was written before is kept.
        ModelMismatchError: the head is another one than the one that was fitted.
    """
    check_folder(folder, overwrite=overwrite)
    fitted = head_of(result, head)
    result.save(folder / "result.npz")
    report = result.report(truth, head=fitted)
    write_json(folder / "report.json", report)
    title = f"{result.model}: {result.outcome.label}"
    write_image(folder / "loss.png", loss_curves(weighted_history(result), title, ylabel="part of the loss"))
    if overlay:
        result.overlay(folder / "overlay.mp4", head=fitted, progress=progress)
    return report


def weighted_history(result: FitResult) -> dict[str, list[float]]:
    """The parts of the loss times their weights, which add up to `total`; the bare parts have different units."""
    weights = {"total": 1.0, **result.config.objective.weights()}
    return {name: [weights[name] * value for value in values] for name, values in result.history.items()}
