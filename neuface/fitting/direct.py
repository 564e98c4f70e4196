"""The baseline: free parameters in place of a network, coarse to fine (paper, Eq. 5 and Sec. A.1)."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuface.encoders.calibration import UNCALIBRATED, EncoderCalibration
from neuface.encoders.predictor import Predictor
from neuface.errors import InputError
from neuface.fitting.config import FitConfig
from neuface.fitting.loop import FitOutcome, Report, fit, predict_clip
from neuface.fitting.problem import Problem
from neuface.head.model import HeadModel
from neuface.structs import Prediction

# Fields of the camera, of the pose (the coarse stage), and all that direct fitting optimises besides the jaw.
CAMERA = ("scale", "offset")
POSE = (*CAMERA, "root_rotvec")
EVERYTHING = (*POSE, "identity", "expression")


class FreeParameters(Predictor):
    """A predictor that ignores the pictures: its predictions are its own tensors, one row per image (Eq. 5)."""

    input_px = 224

    def __init__(self, start: Prediction, trainable: tuple[str, ...] = EVERYTHING) -> None:
        """Start at `start` (batch axes `views time` or one batch axis); only the `trainable` fields are optimised.

        Raises InputError for a name that is not a field of HeadParams or of the camera.
        """
        super().__init__()
        if start.camera.magnification.ndim > 1:
            start = start.flatten_batch(start.camera.magnification.ndim)
        tensors = start.params.named_tensors() | start.camera.named_tensors()
        unknown = set(trainable) - set(tensors)
        if unknown:
            raise InputError(
                f"unknown parameters {sorted(unknown)}: expected names among {', '.join(tensors)}"
            )
        self._start = start.detach()
        self.tensors = nn.ParameterDict(
            {name: nn.Parameter(tensors[name].detach().clone()) for name in trainable}
        )

    def prepare(self, crops: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 1 1"]:
        """Keep nothing of the pictures."""
        return crops.new_zeros(len(crops), 1, 1, 1)

    def forward(self, inputs: Float[Tensor, "n c h w"], index: Int[Tensor, " n"] | None = None) -> Prediction:
        """The rows `index` (all of them when None)."""
        rows = torch.arange(len(inputs), device=inputs.device) if index is None else index
        start = self._start.to(inputs.device)[rows]
        moved = {name: tensor[rows] for name, tensor in self.tensors.items()}
        return Prediction(params=start.params.with_tensors(moved), camera=start.camera.with_tensors(moved))


def fit_direct(
    encoder: Predictor,
    head: HeadModel,
    problem: Problem,
    config: FitConfig,
    report: Report | None = None,
    *,
    calibration: EncoderCalibration = UNCALIBRATED,
) -> FitOutcome:
    """Fit the parameters of every image of a clip, starting at the pretrained encoder's predictions.

    With `config.coarse_passes`, head orientation and camera are optimised first; then the camera is fixed and
    orientation, jaw, identity and expression are. Otherwise everything is optimised at once. The jaw is fixed if the
    encoder never moves it.

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
    # The first value belongs to the start.
    done = len(first.history["total"]) - 1

    def report_on(number: int, parts: dict[str, float]) -> None:
        if report is not None:
            report(done + number, parts)

    fine = replace(together, max_passes=config.max_passes - coarse_passes)
    if config.expected_identity == "landmarks":
        # The first stage ends at the most probable code, so that a second estimate would use the landmarks twice.
        fine = replace(fine, expected_identity="encoder")
    details = tuple(name for name in everything if name not in CAMERA)
    second = fit(
        FreeParameters(first.prediction, details), head, problem, fine, report_on, calibration=calibration
    )
    # The second stage begins where the first ended, and both record that state.
    history = {name: [*values, *second.history[name][1:]] for name, values in first.history.items()}
    spread = [*first.identity_spread, *second.identity_spread[1:]]
    return replace(second, initial=first.initial, history=history, identity_spread=spread)
