"""The population of adults that the open head's identity modes describe, and its random sampling.

A person is a vector of weights of MakeHuman's morph targets, drawn as follows (N(s) is normal with deviation s):

    sex           male share ~ Beta(0.6, 0.6): mostly near 0 or 1, some in between
    age           ~ U(0.05, 0.9) of the way from `young` (about 25 years) to `old` (about 90)
    ancestry      African, Asian, Caucasian shares ~ Dirichlet(0.5, 0.5, 0.5)
    muscle, body weight, proportions   ~ 0.5 + N(0.12), 0.5 + N(0.20), 0.5 + N(0.12), kept in [0, 1]
    head size     an isotropic scale ~ 1 + N(0.015), because the body-height targets, which also change
                  it, stretch the head beyond human proportions
    local shape   every paired head/face target ~ N(0.15); left and right share it except for 15 % of its
                  standard deviation, drawn per side; one-sided targets (`head-oval`) take |N(0.15)|;
                  asymmetry targets take N(0.10)

CALIBRATION, constant weights that bring the mean's size to published means, is added for every person. Translations
of the head relative to the body are left out, because they are pose and not shape. The targets are an artist's work
and not measurements: the range of the population is human (see tests/head/test_anthropometry.py), but its
correlations are not data.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

POPULATION_SEED = 20_240_601
SCALE_COLUMN = "uniform-scale"
MACRO_PREFIX = "macrodetails/"

ANCESTRIES = ("african", "asian", "caucasian")
SEXES = ("female", "male")
AGES = ("young", "old")
LEVELS = ("min", "average", "max")

# Standard deviations of the weights of local targets and of the isotropic scale.
LOCAL_SD = 0.15
SCALE_SD = 0.015

# Weights added for every person. MakeHuman's average adult has eyes and a face 6 % smaller than published means. A
# scale that corrects this makes the head 7 % and the cheeks 12 % too broad; a negative weight of `head-oval`, which
# widens skull and cheeks and leaves the features in place, compensates for that.
CALIBRATION = {SCALE_COLUMN: 0.06, "head/head-oval": -0.45}
# Standard deviation of the weights of asymmetry targets.
ASYMMETRY_SD = 0.10
# Deviation between left and right, as a share of LOCAL_SD.
SIDE_SHARE = 0.15

# Endings of the names of opposite targets: negative weights use the first, positive ones the second.
OPPOSITES = (
    ("decr", "incr"), ("down", "up"), ("in", "out"), ("backward", "forward"),
    ("concave", "convex"), ("compress", "uncompress"),
)  # fmt: skip


def macro_target_names() -> tuple[str, ...]:
    """Names of the targets of sex, age, ancestry, muscle, body weight and proportions of adults."""
    names = [f"macrodetails/{a}-{s}-{g}" for a, s, g in product(ANCESTRIES, SEXES, AGES)]
    bodies = list(product(SEXES, AGES, LEVELS, LEVELS))
    names += [f"macrodetails/universal-{s}-{g}-{m}muscle-{w}weight" for s, g, m, w in bodies]
    names += [
        f"macrodetails/proportions/{s}-{g}-{m}muscle-{w}weight-{kind}proportions"
        for (s, g, m, w), kind in product(bodies, ("uncommon", "ideal"))
    ]
    return tuple(names)


def local_target_names(target_names: Sequence[str]) -> tuple[str, ...]:
    """The head and face targets among a recipe's morph targets, without those of the whole body and the scale."""
    return tuple(name for name in target_names if not name.startswith(MACRO_PREFIX) and name != SCALE_COLUMN)


def sample_macro_weights(
    generator: np.random.Generator, count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights of `macro_target_names()` for `count` people, and each person's male share."""
    male = generator.beta(0.6, 0.6, count)
    age = generator.uniform(0.05, 0.9, count)
    ancestry = generator.dirichlet((0.5, 0.5, 0.5), count)
    muscle = np.clip(generator.normal(0.5, 0.12, count), 0, 1)
    weight = np.clip(generator.normal(0.5, 0.20, count), 0, 1)
    proportions = np.clip(generator.normal(0.5, 0.12, count), 0, 1)
    return macro_weights(male, age, ancestry, muscle, weight, proportions), male


def macro_weights(
    male: NDArray[np.float64],
    age: NDArray[np.float64],
    ancestry: NDArray[np.float64],
    muscle: NDArray[np.float64],
    weight: NDArray[np.float64],
    proportions: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Weights of the macro targets by MakeHuman's rule: the product of the weights of the words in their names."""
    sex_of = {"female": 1 - male, "male": male}
    age_of = {"young": 1 - age, "old": age}
    ancestry_of = dict(zip(ANCESTRIES, ancestry.T, strict=True))
    muscle_of = dict(zip(LEVELS, _three_levels(muscle), strict=True))
    weight_of = dict(zip(LEVELS, _three_levels(weight), strict=True))
    kind_of = {"uncommon": np.clip(1 - 2 * proportions, 0, 1), "ideal": np.clip(2 * proportions - 1, 0, 1)}
    columns = [ancestry_of[a] * sex_of[s] * age_of[g] for a, s, g in product(ANCESTRIES, SEXES, AGES)]
    bodies = [
        sex_of[s] * age_of[g] * muscle_of[m] * weight_of[w]
        for s, g, m, w in product(SEXES, AGES, LEVELS, LEVELS)
    ]
    columns += bodies
    columns += [body * kind_of[kind] for body, kind in product(bodies, ("uncommon", "ideal"))]
    return np.stack(columns, axis=1)


def sample_weights(
    shape_targets: tuple[str, ...], count: int, seed: int
) -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.float64]]:
    """Random people: target names, their weights (count, names), and each person's male share (count,)."""
    generator = np.random.default_rng(seed)
    macro, male = sample_macro_weights(generator, count)
    scale = generator.normal(0.0, SCALE_SD, (count, 1))
    local_names, local = sample_local_weights(generator, shape_targets, count)
    names = (*macro_target_names(), SCALE_COLUMN, *local_names)
    offset = np.array([CALIBRATION.get(name, 0.0) for name in names])
    return names, np.concatenate((macro, scale, local), axis=1) + offset, male


def sample_local_weights(
    generator: np.random.Generator, shape_targets: tuple[str, ...], count: int
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Names and random weights of the head and face targets: paired, mirrored, one-sided and asymmetry targets."""
    usable = [name for name in shape_targets if _is_local_shape(name)]
    names: list[str] = []
    columns: list[NDArray[np.float64]] = []
    shared: dict[str, NDArray[np.float64]] = {}
    for low, high in _pairs(usable):
        if high is None:
            key = _side_free(low)
            if key not in shared:
                shared[key] = np.abs(generator.normal(0, LOCAL_SD, count))
            names.append(low)
            columns.append(shared[key])
            continue
        if low.startswith("asym/"):
            amount = generator.normal(0, ASYMMETRY_SD, count)
        else:
            key = _side_free(low)
            if key not in shared:
                shared[key] = generator.normal(0, LOCAL_SD, count)
            amount = shared[key]
            if key != low:
                amount = amount + generator.normal(0, LOCAL_SD * SIDE_SHARE, count)
        names += [low, high]
        columns += [np.maximum(-amount, 0), np.maximum(amount, 0)]
    return tuple(names), np.stack(columns, axis=1)


def _three_levels(value: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Linear weights of min, average, max for a value in [0, 1] whose average is 0.5."""
    return np.clip(1 - 2 * value, 0, 1), 1 - np.abs(2 * value - 1), np.clip(2 * value - 1, 0, 1)


def _is_local_shape(name: str) -> bool:
    moves_whole_head = name.startswith(("head/head-trans", "neck/neck-trans"))
    return not moves_whole_head and "breast" not in name and "trunk" not in name


def _pairs(names: list[str]) -> list[tuple[str, str | None]]:
    """Targets grouped with their opposites; a target without an opposite is paired with None."""
    known = set(names)
    pairs: list[tuple[str, str | None]] = []
    seconds: set[str] = set()
    for name in names:
        partner = _opposite(name, known)
        if partner is not None:
            pairs.append((name, partner))
            seconds.add(partner)
    firsts = {low for low, _ in pairs}
    pairs += [(name, None) for name in names if name not in firsts and name not in seconds]
    return sorted(pairs, key=lambda pair: pair[0])


def _opposite(name: str, known: set[str]) -> str | None:
    stem, _, ending = name.rpartition("-")
    if name.startswith("asym/") and ending == "l":
        return f"{stem}-r"
    for low, high in OPPOSITES:
        if ending == low and f"{stem}-{high}" in known:
            return f"{stem}-{high}"
    return None


def _side_free(name: str) -> str:
    folder, _, target = name.partition("/")
    return f"{folder}/{target[2:]}" if target.startswith(("l-", "r-")) else name
