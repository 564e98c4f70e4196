"""Neural re-parameterisation (Eq. 1) against free parameters on the same clip with the same objective.

What all variants share: the clip, its landmarks and crops; the objective with its weights; the E-step; the loop with
its stopping rule; and the initial values, which are the encoder's predictions for this clip. Each pass takes one
gradient step, on all images at once. They differ in what the gradient moves:

    encoder   nothing: the predictions of the pretrained encoder, where all other variants start
    free      scale, offset, orientation, identity and expression of every image (`FreeParameters`)
    bounded   the same parameters behind the activations of the encoder's last layer: a sigmoid keeps expression
              within 0..1, and scale is an exponential; this variant isolates the effect of these bounds
    neural    the encoder's weights, which predict all images

Neck, jaw and eyes stay at rest in every variant. Identity is one code per clip in every variant, the mean over its
images, and the face keeps the mean size of the encoder's predictions (`neuface.fitting.shared_identity`). A rival
that fits one code per image, as the paper's baseline does, has a harder problem and is not compared here.

`free` is not `FitConfig.direct()`, the benchmark's `direct`. The paper's direct fit (Eq. 5) has regularisers towards
the mean and goes from coarse to fine (pose and camera first); both are left out here, so that the objective is the
same in all variants. Free parameters might gain from stronger priors of their own: that is another comparison.

Each variant has its own learning rate, chosen on tuning clips by the objective that it reaches, never by a figure
that uses the truth. The pass limit is high enough for the stopping rule to end the fits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from neuface.errors import InputError
from neuface.fitting.config import FitConfig
from neuface.fitting.objective import FromEncoder
from neuface.fitting.smoothing import MovingMean
from neuface.models import FaceModel
from studies.common.cases import Case
from studies.common.runs import Run, least, run_variant
from studies.common.variants import ENCODER, Variant, fit_clip

FREE, BOUNDED, NEURAL = "free", "bounded", "neural"
LEARNING_RATE = "m_step.adam.learning_rate"


def comparison_config(*, max_passes: int, patience: int) -> FitConfig:
    """The configuration of all fits, except for the learning rate.

    The figures in this folder's README.md were measured with it; FitConfig's defaults have changed since.
    """
    return FitConfig.neural(
        {
            "objective.identity_prior": FromEncoder(weight=1e-2),
            "objective.multiview.weight": 2.0,
            "objective.expression_smoothness": None,
            "objective.camera_smoothness": None,
            "e_step.smoothing": MovingMean(window=5),
            "e_step.interpolate_missing": False,
            "m_step.stop.max_passes": max_passes,
            "m_step.stop.patience": patience,
        }
    )


def with_learning_rate(variant: Variant, rate: float) -> Variant:
    """The variant with another learning rate; the variant without a fit as it is."""
    if variant.config is None:
        return variant
    return replace(variant, config=variant.config.changed({LEARNING_RATE: rate}))


def all_variants(config: FitConfig) -> tuple[Variant, ...]:
    """The rows of the tables: the encoder alone, then the fits by `config`."""
    return (
        Variant(name=ENCODER, title="encoder alone", config=None),
        Variant(name=FREE, title="free parameters", config=config, parameters="free"),
        Variant(name=BOUNDED, title="free parameters, bounded", config=config, parameters="bounded"),
        Variant(name=NEURAL, title="neural", config=config),
    )


VARIANT_TITLES = {variant.name: variant.title for variant in all_variants(FitConfig.neural())}
FITTED = (FREE, BOUNDED, NEURAL)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One learning rate tried on one tuning clip."""

    variant: str
    learning_rate: float
    start_loss: float
    final_loss: float
    passes: int
    stop_reason: str


def compare(
    case: Case,
    model: FaceModel,
    config: FitConfig,
    learning_rates: Mapping[str, float],
    *,
    clip: str,
    group: str,
) -> tuple[Run, ...]:
    """Every variant on one clip, in the order of `all_variants`.

    Args:
        config: of all variants, except for the learning rate.
        learning_rates: one for each of FITTED.
        clip: name of the clip.
        group: name of the clip's group.

    Raises:
        InputError: a variant has no learning rate.
    """
    missing = [name for name in FITTED if name not in learning_rates]
    if missing:
        raise InputError(f"no learning rate for {', '.join(missing)}: expected one for each fitted variant")
    alone, *fitted = all_variants(config)
    runs = [
        run_variant(with_learning_rate(variant, learning_rates[variant.name]), clip, group, case, model)
        for variant in fitted
    ]
    # The encoder's loss is that at which all fits start.
    unfitted = replace(run_variant(alone, clip, group, case, model), least_loss=runs[-1].start_loss)
    return (unfitted, *runs)


def try_rates(
    case: Case, model: FaceModel, config: FitConfig, grids: Mapping[str, Sequence[float]]
) -> tuple[Trial, ...]:
    """Every variant with every learning rate of its grid on one tuning clip.

    Raises InputError for a name that is not one of FITTED.
    """
    unknown = [name for name in grids if name not in FITTED]
    if unknown:
        raise InputError(f"unknown variant {unknown[0]!r}: expected one of {', '.join(FITTED)}")
    known = {variant.name: variant for variant in all_variants(config)}
    trials = []
    for name, grid in grids.items():
        for rate in grid:
            result = fit_clip(case.clip, model, config.changed({LEARNING_RATE: rate}), known[name].parameters)
            losses = result.history["total"]
            trials.append(
                Trial(
                    variant=name,
                    learning_rate=rate,
                    start_loss=losses[0],
                    final_loss=least(losses),
                    passes=len(losses) - 1,
                    stop_reason=result.outcome.label,
                )
            )
    return tuple(trials)


def choose_rates(trials: Sequence[Trial]) -> dict[str, float]:
    """For every variant the learning rate with the least objective: the mean over clips of log(final / start).

    Every variant must have tried the same rates on every clip. Of equal objectives the lower rate is chosen.
    """
    gains: dict[str, dict[float, list[float]]] = {}
    for trial in trials:
        rates = gains.setdefault(trial.variant, {})
        rates.setdefault(trial.learning_rate, []).append(math.log(trial.final_loss / trial.start_loss))
    return {
        variant: min(sorted(rates), key=lambda rate: sum(rates[rate]) / len(rates[rate]))
        for variant, rates in gains.items()
    }
