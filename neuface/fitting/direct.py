"""The baseline: free parameters in place of a network, coarse to fine (paper, Eq. 5 and Sec. A.1)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from neuface.encoders.calibration import UNCALIBRATED, EncoderCalibration
from neuface.fitting.checkpoint import Checkpoints
from neuface.fitting.config import DirectFit, FitConfig
from neuface.fitting.loop import FitOutcome, Report, fit
from neuface.fitting.objective import FromEncoder, FromLandmarks
from neuface.fitting.parameterisation import (
    CAMERA,
    EVERYTHING,
    POSE,
    FreeParameters,
    Parameterisation,
    predict_clip,
)
from neuface.fitting.problem import Problem
from neuface.head.model import HeadModel
from neuface.structs import Outcome


def fit_direct(
    encoder: Parameterisation,
    head: HeadModel,
    problem: Problem,
    config: FitConfig,
    report: Report | None = None,
    *,
    calibration: EncoderCalibration = UNCALIBRATED,
    checkpoints: Checkpoints | None = None,
    keep_interrupted: bool = False,
) -> FitOutcome:
    """Fit the parameters of every image of a clip, starting at the pretrained encoder's predictions.

    With `DirectFit.coarse_passes`, head orientation and camera are optimised first; then the camera is fixed and
    orientation, jaw, identity and expression are. Otherwise everything is optimised at once. The jaw is fixed if the
    encoder never moves it.

    Arguments and errors are those of `fit`.
    """
    run = partial(fit, calibration=calibration, checkpoints=checkpoints, keep_interrupted=keep_interrupted)
    m_step = config.m_step
    start = predict_clip(
        encoder.eval(), (problem.views, problem.time), m_step.images_at_once, problem.valid.device
    )
    moves_jaw = bool((start.params.jaw_rotvec != 0).any())
    everything = (*EVERYTHING, "jaw_rotvec") if moves_jaw else EVERYTHING
    most = m_step.stop.max_passes
    coarse_passes = min(m_step.coarse_passes if isinstance(m_step, DirectFit) else 0, most - 1)
    if coarse_passes == 0:
        return run(FreeParameters(start, everything), head, problem, config, report)

    coarse = config.changed({"m_step.stop.max_passes": coarse_passes})
    first = run(FreeParameters(start, POSE), head, problem, coarse, report, stage="coarse")
    if first.outcome is Outcome.INTERRUPTED:
        return first
    # The first value belongs to the start.
    done = len(first.history["total"]) - 1

    def report_on(number: int, parts: dict[str, float]) -> None:
        if report is not None:
            report(done + number, parts)

    fine = config.changed({"m_step.stop.max_passes": most - coarse_passes})
    prior = config.objective.identity_prior
    if isinstance(prior, FromLandmarks):
        # The first stage ends at the most probable code, so that a second estimate would use the landmarks twice.
        fine = fine.changed({"objective.identity_prior": FromEncoder(weight=prior.weight)})
    details = tuple(name for name in everything if name not in CAMERA)
    second = run(FreeParameters(first.prediction, details), head, problem, fine, report_on, stage="fine")
    # The second stage begins where the first ended, and both record that state.
    history = {
        name: [*values, *second.history[name][1:]]
        for name, values in first.history.items()
        if name in second.history
    }
    spread = [*first.identity_spread, *second.identity_spread[1:]]
    return replace(second, initial=first.initial, history=history, identity_spread=spread)
