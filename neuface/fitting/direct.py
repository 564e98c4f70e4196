"""The baseline: direct fitting from the encoder's answer, coarse to fine (paper, Eq. 5 and Sec. A.1)."""

from __future__ import annotations

from dataclasses import replace

from neuface.encoders.calibration import UNCALIBRATED, EncoderCalibration
from neuface.encoders.predictor import Predictor
from neuface.fitting.config import FitConfig
from neuface.fitting.free import CAMERA, EVERYTHING, POSE, FreeParameters
from neuface.fitting.loop import FitOutcome, Report, fit, predict_clip
from neuface.fitting.problem import Problem
from neuface.head.model import HeadModel


def fit_direct(
    encoder: Predictor,
    head: HeadModel,
    problem: Problem,
    config: FitConfig,
    report: Report | None = None,
    *,
    calibration: EncoderCalibration = UNCALIBRATED,
) -> FitOutcome:
    """Fit the parameters of every image of a clip, from what the pretrained encoder answers.

    With `config.coarse_passes` head orientation and camera move first; then the camera is fixed and orientation,
    jaw, identity, and expression move. Else everything moves at once. The jaw moves only if the encoder moves it.

    Raises InputError if no image has a landmark.
    """
    start = predict_clip(encoder.eval(), problem.inputs, config.batch_size)
    moves_jaw = bool((start.params.jaw_rotvec != 0).any())
    everything = (*EVERYTHING, "jaw_rotvec") if moves_jaw else EVERYTHING
    together = replace(config, coarse_passes=0)
    coarse_passes = min(config.coarse_passes, config.max_passes - 1)
    if coarse_passes == 0:
        return fit(
            FreeParameters(start, everything), head, problem, together, report, calibration=calibration
        )

    coarse = replace(together, max_passes=coarse_passes)
    first = fit(FreeParameters(start, POSE), head, problem, coarse, report, calibration=calibration)
    # The first value is of the start.
    done = len(first.history["total"]) - 1

    def report_on(number: int, parts: dict[str, float]) -> None:
        if report is not None:
            report(done + number, parts)

    fine = replace(together, max_passes=config.max_passes - coarse_passes)
    if config.expected_identity == "landmarks":
        # The answers of the first stage have the most probable code: landmarks are not to be counted twice.
        fine = replace(fine, expected_identity="encoder")
    details = tuple(name for name in everything if name not in CAMERA)
    second = fit(
        FreeParameters(first.prediction, details), head, problem, fine, report_on, calibration=calibration
    )
    # The second begins where the first ended, with one value of the same state.
    history = {name: [*values, *second.history[name][1:]] for name, values in first.history.items()}
    spread = [*first.identity_spread, *second.identity_spread[1:]]
    return replace(second, initial=first.initial, history=history, identity_spread=spread)
