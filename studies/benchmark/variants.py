"""What is compared: the rows of the study's tables, each a name and a configuration."""

from __future__ import annotations

from dataclasses import dataclass

from neuface.fitting.config import FitConfig

ENCODER, DIRECT, PAPER, OFFICIAL, BEST = "encoder", "direct", "paper", "official", "best"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One row of a table."""

    name: str
    title: str
    config: FitConfig | None
    """None: the pretrained encoder's answer as it is."""


MAIN = (
    Arm(name=ENCODER, title="encoder alone", config=None),
    Arm(name=DIRECT, title="direct fitting (Eq. 5)", config=FitConfig.direct()),
    Arm(name=PAPER, title="paper()", config=FitConfig.paper()),
    Arm(name=OFFICIAL, title="official()", config=FitConfig.official()),
    Arm(
        name="official_fast",
        title="official(), our step size",
        config=FitConfig.official(
            learning_rate=FitConfig().learning_rate, warm_up_steps=FitConfig().warm_up_steps
        ),
    ),
    Arm(name=BEST, title="best()", config=FitConfig.best()),
)
"""The released step size was chosen for DECA, which has ten times the open encoder's weights; hence a row with ours,
and with our warm-up, without which such steps throw the encoder off."""

LOSSES = (
    Arm(
        name="only_landmarks",
        title="landmarks",
        config=FitConfig.paper(temporal_weight=0.0, multiview_weight=0.0),
    ),
    Arm(
        name="with_multiview",
        title="landmarks + multi-view",
        config=FitConfig.paper(temporal_weight=0.0),
    ),
    Arm(name="with_temporal", title="landmarks + temporal", config=FitConfig.paper(multiview_weight=0.0)),
    Arm(name=PAPER, title="all three", config=FitConfig.paper()),
)
"""Table S1: the terms of `paper()`. Without a second view the multi-view term is zero, and two rows repeat others."""

SMOOTHERS = (
    Arm(name=PAPER, title="paper(), mean", config=FitConfig.paper()),
    Arm(name="paper_median", title="paper(), median", config=FitConfig.paper(smoother="median")),
    Arm(
        name="best_mean", title="best(), mean of 5", config=FitConfig.best(smoother="mean", temporal_window=5)
    ),
    Arm(name=BEST, title="best(), as it is", config=FitConfig.best()),
)
"""Table S2, and what the choice of the smoother brings to `best()`."""

# The paper gives the photometric term's weight only as multiples of one that it does not name. This is the weight at
# which the term is about as large as the landmark term at the encoder's answer.
PHOTOMETRIC_UNIT = 0.1

PHOTOMETRIC = (
    Arm(name=PAPER, title="paper()", config=FitConfig.paper()),
    Arm(
        name="paper_photo2",
        title="paper() + 2 x photometric",
        config=FitConfig.paper(photometric_weight=2 * PHOTOMETRIC_UNIT),
    ),
    Arm(
        name="paper_photo5",
        title="paper() + 5 x photometric",
        config=FitConfig.paper(photometric_weight=5 * PHOTOMETRIC_UNIT),
    ),
)
"""Table S3a."""


def arms_of(groups: tuple[tuple[Arm, ...], ...]) -> tuple[Arm, ...]:
    """Every arm of some tables once, in order."""
    found = {arm.name: arm for table in groups for arm in table}
    return tuple(found.values())
