"""Neural re-parameterisation (Eq. 1) against direct fitting (Eq. 5) of the same clip with the same objective.

What is the same in all arms: the clip, its landmarks and crops; the objective with its weights; the E-step; the
loop with its stopping rule; and the initial values, which are the encoder's answers for this clip. One gradient
step is taken per pass, on all images at once. What differs is only what the gradient moves:

    encoder   nothing: the pretrained encoder's answers, where all other arms start
    direct    scale, offset, orientation, identity and expression of every image, freely (`FreeParameters`)
    bounded   the same numbers, as the encoder's last layer writes them: expression through a sigmoid, so that it
              stays within 0..1, and scale through an exponential; tells what these bounds alone bring
    neural    the encoder's weights, which answer for all images

Neck, jaw and eyes stay at rest in every arm. Identity is one code per clip in every arm, the mean over its images,
and the face keeps the size that the encoder answered on average (`neuface.fitting.shared_identity`). A rival that
fits one code per image, as the paper's baseline does, has a harder problem; it is not what is compared here.

The priors are FitConfig's in every arm. The paper's direct fit has further regularisers towards the mean and goes
from coarse to fine (pose and camera first); both are left out, so that the objective is the same. Direct fitting
might gain from stronger priors of its own: that is another comparison.

Each arm has its own learning rate, chosen on tuning clips by the objective it reaches, never by a figure that knows
the truth. The pass limit is high enough for the stopping rule to end the fits.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float, Int
from torch import Tensor

from neuface.encoders.predictor import Predictor
from neuface.errors import InputError
from neuface.fitting.config import FitConfig
from neuface.fitting.free import FreeParameters
from neuface.fitting.loop import predict_clip
from neuface.models import FaceModel
from neuface.pipeline import clip_for_model, encoder_inputs, optimize
from neuface.results import FitResult
from neuface.structs import Prediction
from studies.common.cases import Case
from studies.common.scores import Scores, score

ENCODER, DIRECT, BOUNDED, NEURAL = "encoder", "direct", "bounded", "neural"
FITTED_ARMS = (DIRECT, BOUNDED, NEURAL)
ARMS = (ENCODER, *FITTED_ARMS)
# An amount of exactly 0 or 1 has no logit.
SMALLEST_AMOUNT = 1e-4


class BoundedParameters(FreeParameters):
    """`FreeParameters` in the numbers that the encoder's last layer writes: logits of expression, log of scale."""

    def __init__(self, start: Prediction) -> None:
        """Start at `start`, batch axes `views time` or one batch axis; scales must be positive."""
        amounts = start.params.expression.clamp(SMALLEST_AMOUNT, 1 - SMALLEST_AMOUNT)
        super().__init__(
            Prediction(
                params=replace(start.params, expression=amounts.logit()),
                camera=start.camera.placed(start.camera.position, start.camera.magnification.log()),
            )
        )

    def forward(self, inputs: Float[Tensor, "n c h w"], index: Int[Tensor, " n"] | None = None) -> Prediction:
        """The rows `index` (all of them when None)."""
        free = super().forward(inputs, index)
        return Prediction(
            params=replace(free.params, expression=free.params.expression.sigmoid()),
            camera=free.camera.placed(free.camera.position, free.camera.magnification.exp()),
        )


@dataclass(frozen=True, kw_only=True)
class ArmRow:
    """One arm on one clip. Plain numbers and text, so that it can be a JSON object."""

    arm: str
    scores: Scores
    learning_rate: float | None
    """None for the encoder alone, as for the next three."""
    passes: int | None
    """Gradient steps taken, each with one E-step."""
    seconds: float | None
    stop_reason: str | None
    final_loss: float
    """The objective at the pass that is returned; for the encoder alone, where all arms start."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One learning rate tried on one tuning clip."""

    arm: str
    learning_rate: float
    start_loss: float
    final_loss: float
    passes: int
    stop_reason: str


def compare(
    case: Case, model: FaceModel, config: FitConfig, learning_rates: Mapping[str, float]
) -> tuple[ArmRow, ...]:
    """Every arm on one clip, in the order of ARMS.

    Args:
        config: of all arms, but for its learning rate.
        learning_rates: of each of FITTED_ARMS.

    Raises:
        InputError: an arm has no learning rate.
    """
    missing = [arm for arm in FITTED_ARMS if arm not in learning_rates]
    if missing:
        raise InputError(f"no learning rate for {', '.join(missing)}: expected one for each fitted arm")
    start = encoder_answer(case, model, config)
    rows, start_loss = [], math.nan
    for arm in FITTED_ARMS:
        rate = learning_rates[arm]
        result = fit_arm(arm, case, model, start, replace(config, learning_rate=rate))
        losses = result.history["total"]
        rows.append(
            ArmRow(
                arm=arm,
                scores=score(case, model.head, result.prediction),
                learning_rate=rate,
                passes=len(losses) - 1,
                seconds=result.seconds,
                stop_reason=result.stop_reason,
                final_loss=_least(losses),
            )
        )
        start_loss = losses[0]
    alone = ArmRow(
        arm=ENCODER,
        scores=score(case, model.head, start),
        learning_rate=None,
        passes=None,
        seconds=None,
        stop_reason=None,
        final_loss=start_loss,
    )
    return (alone, *rows)


def encoder_answer(case: Case, model: FaceModel, config: FitConfig) -> Prediction:
    """The pretrained encoder's answer for the clip, batch axes `views time`: where every arm starts."""
    encoder = copy.deepcopy(model.encoder).eval()
    return predict_clip(encoder, encoder_inputs(model, clip_for_model(case.clip, model)), config.batch_size)


def fit_arm(arm: str, case: Case, model: FaceModel, start: Prediction, config: FitConfig) -> FitResult:
    """Fit the clip by `neuface.optimize` with what the arm moves in the place of the encoder.

    Raises InputError for a name that is not one of FITTED_ARMS.
    """
    if arm not in FITTED_ARMS:
        raise InputError(f"unknown arm {arm!r}: expected one of {', '.join(FITTED_ARMS)}")
    moved: Predictor
    if arm == DIRECT:
        moved = FreeParameters(start)
    elif arm == BOUNDED:
        moved = BoundedParameters(start)
    else:
        moved = model.encoder
    return optimize(case.clip, model=replace(model, encoder=moved), config=config, progress=False)


def try_rates(
    case: Case, model: FaceModel, config: FitConfig, grids: Mapping[str, Sequence[float]]
) -> tuple[Trial, ...]:
    """Every arm with every learning rate of its grid on one tuning clip."""
    start = encoder_answer(case, model, config)
    trials = []
    for arm, grid in grids.items():
        for rate in grid:
            result = fit_arm(arm, case, model, start, replace(config, learning_rate=rate))
            losses = result.history["total"]
            trials.append(
                Trial(
                    arm=arm,
                    learning_rate=rate,
                    start_loss=losses[0],
                    final_loss=_least(losses),
                    passes=len(losses) - 1,
                    stop_reason=result.stop_reason,
                )
            )
    return tuple(trials)


def choose_rates(trials: Sequence[Trial]) -> dict[str, float]:
    """For every arm the learning rate with the least objective: the mean over clips of log(final / start).

    Every arm must have tried the same rates on every clip. Equal objectives go to the lower rate.
    """
    gains: dict[str, dict[float, list[float]]] = {}
    for trial in trials:
        rates = gains.setdefault(trial.arm, {})
        rates.setdefault(trial.learning_rate, []).append(math.log(trial.final_loss / trial.start_loss))
    return {
        arm: min(sorted(rates), key=lambda rate: sum(rates[rate]) / len(rates[rate]))
        for arm, rates in gains.items()
    }


def _least(losses: Sequence[float]) -> float:
    """The loss of the pass that the loop returns; a diverged fit ends with one that is not finite."""
    return min(loss for loss in losses if math.isfinite(loss))
