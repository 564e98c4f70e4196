"""One variant on one clip, with its scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from neuface.fitting.config import FitConfig
from neuface.model_inputs import model_inputs
from neuface.models import FaceModel
from studies.common.cases import Case
from studies.common.kept_runs import Json
from studies.common.scores import Scores, score
from studies.common.variants import Variant, encoder_prediction, fit_clip


@dataclass(frozen=True, kw_only=True)
class Run:
    """One variant on one clip. It holds plain numbers and text, so that it can be a JSON object."""

    clip: str
    group: str
    variant: str
    scores: Scores
    frames: int
    views: int
    passes: int | None = None
    """Number of E-steps; None without a fit, as for the following fields."""
    seconds: float | None = None
    stop_reason: str | None = None
    start_loss: float | None = None
    """The objective at the encoder's predictions."""
    least_loss: float | None = None
    """The least value of the objective over the passes."""
    identity_spread: tuple[float, ...] = ()
    """Standard deviation of the identity codes, pass by pass (Table S3b)."""


def run_variant(variant: Variant, clip: str, group: str, case: Case, model: FaceModel) -> Run:
    """Fit a clip, or predict it by the encoder alone, and score the result.

    Args:
        clip: name of the clip.
        group: name of the group over which its scores are averaged.
    """
    views, time = case.clip.track.usable.shape
    common: dict[str, Any] = {
        "clip": clip,
        "group": group,
        "variant": variant.name,
        "frames": time,
        "views": views,
    }
    if variant.config is None:
        crops = model_inputs(case.clip, model).crops
        prediction = crops.prediction_in_frame(encoder_prediction(case.clip, model, FitConfig()))
        return Run(**common, scores=score(case, model.head, prediction))
    result = fit_clip(case.clip, model, variant.config, variant.parameters)
    losses = result.history["total"]
    return Run(
        **common,
        scores=score(case, model.head, result.prediction),
        passes=len(losses) - 1,
        seconds=result.seconds,
        stop_reason=result.outcome.label,
        start_loss=losses[0],
        least_loss=least(losses),
        identity_spread=tuple(result.identity_spread),
    )


def run_from_json(kept: Json) -> Run:
    """The run whose `dataclasses.asdict` this is."""
    scores = Scores(**{name: tuples(value) for name, value in kept["scores"].items()})
    return Run(**{**kept, "scores": scores, "identity_spread": tuple(kept["identity_spread"])})


def tuples(value: Any) -> Any:
    """A list of a JSON file as the tuple that it was; other values as they are."""
    return tuple(value) if isinstance(value, list) else value


def least(losses: Sequence[float]) -> float:
    """The least finite loss; the last losses of a diverged fit are not finite."""
    return min(loss for loss in losses if math.isfinite(loss))
