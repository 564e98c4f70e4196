"""A distribution of facial expressions: random activations of the 52 ARKit units, their mean and covariance.

The distribution is chosen by hand from the meaning of the units; it is not measured. Training images and synthetic
clips show expressions drawn from it. A fit that separates a person's identity from the expression uses its mean and
covariance as the prior of the expression code.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

# Moods are sets of units that act together: (share of faces with the unit, largest activation, unit). A name that
# ends in an asterisk stands for a left and a right unit, whose activations are nearly equal.
SPEECH = (
    (0.75, 0.75, "jawOpen"),
    (0.30, 0.7, "mouthFunnel"), (0.30, 0.8, "mouthPucker"),
    (0.45, 0.6, "mouthLowerDown*"), (0.35, 0.5, "mouthUpperUp*"), (0.30, 0.5, "mouthStretch*"),
    (0.25, 0.6, "mouthPress*"), (0.25, 0.6, "mouthRollLower"), (0.25, 0.6, "mouthRollUpper"),
    (0.30, 0.5, "mouthShrugLower"), (0.25, 0.5, "mouthShrugUpper"), (0.25, 0.4, "mouthDimple*"),
    (0.15, 0.5, "mouthSmile*"), (0.10, 0.4, "jawForward"), (0.15, 0.4, "jawLeft"), (0.15, 0.4, "jawRight"),
    (0.15, 0.5, "mouthLeft"), (0.15, 0.5, "mouthRight"), (0.05, 0.6, "tongueOut"),
)  # fmt: skip
SMILE = (
    (1.00, 1.0, "mouthSmile*"), (0.50, 0.6, "cheekSquint*"), (0.50, 0.6, "eyeSquint*"),
    (0.40, 0.6, "jawOpen"), (0.40, 0.5, "mouthUpperUp*"), (0.30, 0.4, "mouthLowerDown*"),
    (0.30, 0.5, "mouthDimple*"), (0.20, 0.4, "mouthStretch*"),
)  # fmt: skip
SURPRISE = (
    (0.90, 1.0, "browInnerUp"), (0.90, 1.0, "browOuterUp*"), (0.70, 0.9, "eyeWide*"),
    (0.60, 0.9, "jawOpen"), (0.20, 0.5, "mouthFunnel"),
)  # fmt: skip
DISPLEASURE = (
    (0.80, 1.0, "browDown*"), (0.50, 0.8, "noseSneer*"), (0.50, 0.9, "mouthFrown*"),
    (0.40, 0.7, "eyeSquint*"), (0.30, 0.6, "mouthPress*"), (0.30, 0.6, "mouthUpperUp*"),
    (0.20, 0.6, "cheekPuff"), (0.30, 0.5, "mouthShrugLower"),
)  # fmt: skip
ALWAYS = (
    (0.20, 0.5, "browInnerUp"), (0.15, 0.4, "browOuterUp*"), (0.20, 0.5, "browDown*"),
    (0.20, 0.4, "eyeSquint*"), (0.15, 0.4, "eyeWide*"), (0.05, 0.5, "cheekPuff"),
)  # fmt: skip
# Units that `sample_expressions` draws by separate rules: gaze, blinks, and the correction of an open jaw.
DRAWN_SEPARATELY = (
    ("eyeLookUp*",), ("eyeLookDown*",), ("eyeLookIn*",), ("eyeLookOut*",), ("eyeBlink*",), ("mouthClose",),
)  # fmt: skip
# Share of faces in each mood; a face can be in several.
MOOD_SHARES = ((SPEECH, 0.45), (SMILE, 0.25), (SURPRISE, 0.12), (DISPLEASURE, 0.15))
# Shares of faces that are nearly neutral, that have extreme random activations, and that blink; share of the paired
# units that act on one side only.
NEUTRAL_SHARE = 0.2
EXTREME_SHARE = 0.1
BLINK_SHARE = 0.15
ONE_SIDED_SHARE = 0.1
UNITS = frozenset(
    stem.removesuffix("*") + side
    for mood in (SPEECH, SMILE, SURPRISE, DISPLEASURE, ALWAYS, DRAWN_SEPARATELY)
    for *_, stem in mood
    for side in (("Left", "Right") if stem.endswith("*") else ("",))
)
"""The names of ARKit's 52 expression units."""
# Number of random faces from which mean and covariance are estimated.
FACES_FOR_MOMENTS = 5000
# Standard deviation of independent variation that is added to every unit: real faces deviate from the moods.
INDEPENDENT_DEVIATION = 0.05


def sample_expressions(
    names: Sequence[str], count: int, generator: torch.Generator
) -> Float[Tensor, "count expression"]:
    """Activations (0..1) of the ARKit units `names` for `count` random faces.

    A fifth of the faces is nearly neutral, a tenth extreme. Both eyes look in the same direction, and `mouthClose`,
    which only corrects an open jaw, never exceeds `jawOpen`.
    """
    column = {name: index for index, name in enumerate(names)}
    amounts = torch.zeros(count, len(names))
    for mood, share in MOOD_SHARES:
        active = torch.rand(count, generator=generator) < share
        _add_units(amounts, column, mood, active, generator)
    amounts *= (torch.rand(count, 1, generator=generator) > NEUTRAL_SHARE).float()
    _add_units(amounts, column, ALWAYS, torch.ones(count, dtype=torch.bool), generator)
    extreme = torch.rand(count, 1, generator=generator) < EXTREME_SHARE
    chosen = torch.rand(amounts.shape, generator=generator) < 0.15
    amounts += extreme * chosen * torch.rand(amounts.shape, generator=generator)
    # No face is perfectly still.
    amounts += 0.03 * torch.randn(amounts.shape, generator=generator).abs()
    _add_eyes(amounts, column, generator)
    closed = torch.rand(count, generator=generator) * (torch.rand(count, generator=generator) < 0.35)
    amounts = amounts.clamp(0, 1)
    amounts[:, column["mouthClose"]] = closed * amounts[:, column["jawOpen"]]
    return amounts


@lru_cache(maxsize=8)
def expression_moments(
    names: tuple[str, ...],
) -> tuple[Float[Tensor, " expression"], Float[Tensor, "expression expression"]]:
    """Mean and covariance of a head's expression codes over a population of faces, float64.

    For the ARKit units they are those of `sample_expressions`. The codes of any other basis (FLAME's) are in standard
    deviations: mean 0, covariance 1.

    Example:
        >>> mean, covariance = expression_moments(("expression000", "expression001"))
        >>> mean.tolist(), covariance.tolist()
        ([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]])
    """
    if set(names) != UNITS:
        return torch.zeros(len(names), dtype=torch.float64), torch.eye(len(names), dtype=torch.float64)
    drawn = sample_expressions(names, FACES_FOR_MOMENTS, torch.Generator().manual_seed(0)).double()
    return drawn.mean(0), torch.cov(drawn.mT) + INDEPENDENT_DEVIATION**2 * torch.eye(
        len(names), dtype=torch.float64
    )


def _add_units(
    amounts: Tensor,
    column: dict[str, int],
    units: Sequence[tuple[float, float, str]],
    active: Tensor,
    generator: torch.Generator,
) -> None:
    """Add the activations of a mood's units, in place, to the faces in this mood."""
    count = len(amounts)
    for share, largest, stem in units:
        drawn = active & (torch.rand(count, generator=generator) < share)
        amount = drawn * largest * torch.rand(count, generator=generator) ** 1.3
        if not stem.endswith("*"):
            amounts[:, column[stem]] += amount
            continue
        sides = 1 + 0.12 * torch.randn(count, 2, generator=generator)
        alone = torch.rand(count, 2, generator=generator) < ONE_SIDED_SHARE / 2
        sides = sides.masked_fill(alone, 0.0).clamp(min=0)
        for side, label in enumerate(("Left", "Right")):
            amounts[:, column[stem[:-1] + label]] += amount * sides[:, side]


def _add_eyes(amounts: Tensor, column: dict[str, int], generator: torch.Generator) -> None:
    """Gaze shared by both eyes, and blinks, in place."""
    count = len(amounts)
    gaze = 0.35 * torch.randn(count, 2, generator=generator)
    left, up = gaze.clamp(-0.9, 0.9).unbind(-1)
    sides = {
        "eyeLookOutLeft": left, "eyeLookInRight": left, "eyeLookInLeft": -left, "eyeLookOutRight": -left,
        "eyeLookUpLeft": up, "eyeLookUpRight": up, "eyeLookDownLeft": -up, "eyeLookDownRight": -up,
    }  # fmt: skip
    for name, amount in sides.items():
        amounts[:, column[name]] = amount.clamp(min=0)
    blink = torch.rand(count, generator=generator) ** 0.5
    blink = blink * (torch.rand(count, generator=generator) < BLINK_SHARE)
    # Half-lowered lids also occur without a blink.
    lids = torch.maximum(blink, 0.3 * torch.rand(count, generator=generator) ** 2)
    wink = torch.rand(count, 2, generator=generator) < 0.02
    for side, label in enumerate(("Left", "Right")):
        noise = 0.03 * torch.randn(count, generator=generator)
        amounts[:, column[f"eyeBlink{label}"]] = torch.where(wink[:, side], 0.9, lids + noise).clamp(0, 1)
        # A lid that closes cannot be wide open at the same time.
        amounts[:, column[f"eyeWide{label}"]] *= lids < 0.3
