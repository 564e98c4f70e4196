"""What is compared: the rows of the benchmark's tables."""

from __future__ import annotations

from collections.abc import Sequence

from neuface.fitting.config import FitConfig
from neuface.fitting.objective import PhotometricTerm
from neuface.fitting.smoothing import MovingMean, MovingMedian
from neuface.fitting.visibility import AngleAndDepth
from studies.common.variants import ENCODER, Variant

DIRECT, PAPER, OFFICIAL, NEURAL, BEST = "direct", "paper", "official", "neural", "best"
"""Names of the variants that have a preset of FitConfig. `direct` is `FitConfig.direct()`: free parameters with the
regularisers of Eq. 5, fitted from coarse to fine."""

MAIN = (
    Variant(name=ENCODER, title="encoder alone", config=None),
    Variant(name=DIRECT, title="direct fitting (Eq. 5)", config=FitConfig.direct()),
    Variant(name=PAPER, title="paper()", config=FitConfig.paper()),
    Variant(name=OFFICIAL, title="official()", config=FitConfig.official()),
    Variant(
        name="official_fast",
        title="official(), our step size",
        config=FitConfig.official({"m_step.adam": FitConfig.neural().gradient_steps.adam}),
    ),
    Variant(name=NEURAL, title="neural()", config=FitConfig.neural()),
    Variant(name=BEST, title="best()", config=FitConfig.best()),
)
"""The variants that run on every clip. The released step size was chosen for DECA, which has ten times the weights of
the open encoder. One row therefore has our step size, with our warm-up, without which the first steps of this size
destroy the encoder's predictions."""

LOSSES = (
    Variant(
        name="only_landmarks",
        title="landmarks",
        config=FitConfig.paper({"objective.temporal": None, "objective.multiview": None}),
    ),
    Variant(
        name="with_multiview",
        title="landmarks + multi-view",
        config=FitConfig.paper({"objective.temporal": None}),
    ),
    Variant(
        name="with_temporal",
        title="landmarks + temporal",
        config=FitConfig.paper({"objective.multiview": None}),
    ),
    Variant(name=PAPER, title="all three", config=FitConfig.paper()),
)
"""Table S1: the terms of `paper()`. With one view the multi-view term is zero, and two rows would repeat others."""

SMOOTHERS = (
    Variant(name=PAPER, title="paper(), mean", config=FitConfig.paper()),
    Variant(
        name="paper_median",
        title="paper(), median",
        config=FitConfig.paper({"e_step.smoothing": MovingMedian(window=5)}),
    ),
    Variant(
        name="best_mean",
        title="best(), mean of 5",
        config=FitConfig.best({"e_step.smoothing": MovingMean(window=5)}),
    ),
    Variant(name=BEST, title="best(), as it is", config=FitConfig.best()),
)
"""Table S2, and the effect of the smoother on `best()`."""

PHOTOMETRIC_UNIT = 0.1
"""Weight of the photometric term that the titles multiply. The paper gives multiples of a weight that it does not
state; with this one the term is about as large as the landmark term at the encoder's predictions."""


def photometric(multiple: float) -> PhotometricTerm:
    """The term that the titles name, with the visibility of `paper()`."""
    return PhotometricTerm(weight=multiple * PHOTOMETRIC_UNIT, visibility=AngleAndDepth())


PHOTOMETRIC = (
    Variant(name=PAPER, title="paper()", config=FitConfig.paper()),
    Variant(
        name="paper_photo2",
        title="paper() + 2 x photometric",
        config=FitConfig.paper({"objective.photometric": photometric(2)}),
    ),
    Variant(
        name="paper_photo5",
        title="paper() + 5 x photometric",
        config=FitConfig.paper({"objective.photometric": photometric(5)}),
    ),
)
"""Table S3a."""


def every_variant(tables: Sequence[Sequence[Variant]]) -> tuple[Variant, ...]:
    """Every variant of some tables once, in order."""
    found = {variant.name: variant for table in tables for variant in table}
    return tuple(found.values())
