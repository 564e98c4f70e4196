"""The open head's population against published measurements of people.

Sources: L. G. Farkas (ed.), Anthropometry of the Head and Face, 2nd edition, Raven Press, 1994 (young adult North
American whites), and C. C. Gordon et al., 1988 Anthropometric Survey of U.S. Army Personnel, Natick TR-89/044,
1989. The values are cited from memory: neither book was at hand to check them, and printed tables differ by a few
millimetres. Our population is of all ancestries and ages, so agreement is only meant to be rough.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from neuface.head.model import HeadModel
from neuface.head.open_head import COEFFICIENT_UNIT
from neuface.head.population import local_target_names, sample_weights
from neuface.io.open_model.head_file import read_head_recipe

PEOPLE = 2000

# Mean and standard deviation in mm: men, women.
PUBLISHED_MM = {
    "biocular width (ex-ex), Farkas": ((91.2, 3.0), (87.8, 3.2)),
    "intercanthal width (en-en), Farkas": ((33.3, 2.7), (31.8, 2.3)),
    "face height (n-gn), Farkas": ((124.7, 5.7), (111.4, 4.8)),
    "interpupillary breadth, Army": ((64.7, 3.7), (62.3, 3.6)),
    "head breadth (eu-eu), Farkas": ((151.1, 5.9), (144.4, 4.7)),
    "face breadth (zy-zy), Farkas": ((137.1, 4.3), (130.0, 4.6)),
}
# Bounds of the mean over the published mean. (The face breadth is taken where the face meets the ear, which is an
# upper bound of zy-zy.)
CLOSE = (0.94, 1.06)

Figures = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]


@pytest.fixture(scope="module")
def figures(open_head: HeadModel) -> Figures:
    """Each measurement (mm) of all men and all women (male share above and below one half)."""
    recipe = read_head_recipe()
    _, weights, male = sample_weights(local_target_names(recipe.target_names.tolist()), PEOPLE, seed=20)
    code = (weights - recipe.mean * COEFFICIENT_UNIT) @ recipe.projection
    params = replace(open_head.neutral(PEOPLE), identity=torch.from_numpy(code).float())
    points = 1000 * open_head.landmarks(params, "ibug68")
    dense = 1000 * open_head.landmarks(params, "mediapipe478")

    def apart(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return torch.linalg.vector_norm(first - second, dim=-1)

    skull, cheek = [], []
    around = open_head.regions["scalp"] | open_head.regions["face"]
    for start in range(0, PEOPLE, 250):
        vertices = 1000 * open_head.vertices(params[start : start + 250])
        across = vertices[:, around, 0]
        skull.append(across.amax(1) - across.amin(1))
        # The breadth at the cheekbones is that of the face, without ears, between eye corners and nose base.
        face = vertices[:, open_head.regions["face"]]
        eyes, base = (points[start : start + 250, number, 1:2] for number in (36, 33))
        across = torch.where((face[..., 1] < eyes) & (face[..., 1] > base), face[..., 0], 0.0)
        cheek.append(across.amax(1) - across.amin(1))
    values = (
        apart(points[:, 36], points[:, 45]),
        apart(points[:, 39], points[:, 42]),
        apart(points[:, 27], points[:, 8]),
        apart(dense[:, 468], dense[:, 473]),
        torch.cat(skull),
        torch.cat(cheek),
    )
    man = male > 0.5
    measured = {
        name: (value.double().numpy()[man], value.double().numpy()[~man])
        for name, value in zip(PUBLISHED_MM, values, strict=True)
    }
    for name, by_sex in measured.items():
        text = ", ".join(f"{group.mean():.1f} +- {group.std():.1f}" for group in by_sex)
        print(f"{name}: {text} mm (published {PUBLISHED_MM[name]})")
    return measured


@pytest.mark.parametrize("name", PUBLISHED_MM)
def test_means_are_near_published_ones(figures: Figures, name: str) -> None:
    low, high = CLOSE
    for measured, (mean, _) in zip(figures[name], PUBLISHED_MM[name], strict=True):
        assert low < measured.mean() / mean < high, f"{name}: {measured.mean():.1f} mm, published {mean} mm"


@pytest.mark.parametrize("name", PUBLISHED_MM)
def test_standard_deviations_are_near_published_ones(figures: Figures, name: str) -> None:
    for measured, (_, deviation) in zip(figures[name], PUBLISHED_MM[name], strict=True):
        assert 0.6 < measured.std() / deviation < 2, (
            f"{name}: {measured.std():.1f} mm, published {deviation} mm"
        )


@pytest.mark.parametrize("name", PUBLISHED_MM)
def test_men_are_larger(figures: Figures, name: str) -> None:
    men, women = figures[name]
    error = np.hypot(men.std() / len(men) ** 0.5, women.std() / len(women) ** 0.5)
    assert men.mean() - women.mean() > 3 * error
