"""Training pictures: reproducible, consistent with their truth, and of plausible faces."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from neuface.errors import InputError
from neuface.head.expressions import sample_expressions
from neuface.head.model import HeadModel
from neuface.io.open_model.head_file import read_head_recipe
from neuface.synthetic.appearance import Painter
from neuface.synthetic.people import sample_identities
from neuface.synthetic.training_pictures import (
    TRAINING_PX,
    TrainingPictures,
    make_training_pictures,
    sample_rotations,
)

COUNT = 6


def identities(count: int, seed: int) -> torch.Tensor:
    recipe = read_head_recipe()
    return sample_identities(recipe.target_names.tolist(), recipe.mean, recipe.projection, count, seed)


@pytest.fixture(scope="module")
def drawn(open_head: HeadModel) -> tuple[TrainingPictures, torch.Tensor]:
    return make_training_pictures(open_head, Painter(open_head), identities(COUNT, 1), 5)


def test_the_same_seed_gives_the_same_bytes(
    open_head: HeadModel, drawn: tuple[TrainingPictures, torch.Tensor]
) -> None:
    again, _ = make_training_pictures(open_head, Painter(open_head), identities(COUNT, 1), 5)
    other, _ = make_training_pictures(open_head, Painter(open_head), identities(COUNT, 1), 6)
    assert torch.equal(again.pictures, drawn[0].pictures)
    assert torch.equal(again.expression, drawn[0].expression)
    assert not torch.equal(other.pictures, drawn[0].pictures)


def test_pictures_use_the_range_of_values(drawn: tuple[TrainingPictures, torch.Tensor]) -> None:
    pictures = drawn[0].pictures
    assert pictures.shape == (COUNT, 3, TRAINING_PX, TRAINING_PX)
    assert pictures.dtype == torch.uint8
    assert (pictures.float().flatten(1).std(1) > 5).all()


def test_true_landmarks_lie_on_the_drawn_head(
    open_head: HeadModel, drawn: tuple[TrainingPictures, torch.Tensor]
) -> None:
    training, mask = drawn
    truth = training.truth(open_head)
    seen = truth.camera.project(open_head.landmarks(truth.params, "ibug68"))
    assert (seen.abs() < 1).float().mean() > 0.97
    pixels = ((seen + 1) * (TRAINING_PX / 2) - 0.5).round().long().clamp(0, TRAINING_PX - 1)
    inner = pixels[:, 17:]
    on_head = torch.stack(
        [head[points[:, 1], points[:, 0]] for head, points in zip(mask, inner, strict=True)]
    )
    assert on_head.float().mean() > 0.95


def test_identities_have_unit_spread_and_follow_their_seed() -> None:
    many = identities(500, 2)
    assert torch.equal(many, identities(500, 2))
    assert many.mean(0).abs().max() < 0.3
    assert torch.allclose(many.std(0), torch.ones(100), atol=0.35)


def test_a_recipe_of_another_population_is_refused() -> None:
    recipe = read_head_recipe()
    names = recipe.target_names.tolist()[::-1]
    with pytest.raises(InputError, match="population"):
        sample_identities(names, recipe.mean, recipe.projection, 2, 0)


def test_expressions_are_in_range_and_consistent(open_head: HeadModel) -> None:
    names = open_head.expression_names
    amounts = sample_expressions(names, 3000, torch.Generator().manual_seed(4))
    column = {name: amounts[:, index] for index, name in enumerate(names)}
    assert amounts.min() >= 0
    assert amounts.max() <= 1
    assert (column["mouthClose"] <= column["jawOpen"]).all()
    assert not (column["eyeLookUpLeft"] * column["eyeLookDownLeft"]).any()
    assert torch.equal(column["eyeLookOutLeft"], column["eyeLookInRight"])
    smiles = torch.corrcoef(torch.stack((column["mouthSmileLeft"], column["mouthSmileRight"])))[0, 1]
    assert smiles > 0.8
    assert (amounts.mean(1) < 0.06).float().mean() > 0.1, "no near-neutral faces"


def test_rotations_have_the_stated_mixture_of_angles() -> None:
    """Yaw is normal (14 degrees) for 60 % of the heads and uniform (up to 70) for 40 %; pitch and roll likewise."""
    rotvec = sample_rotations(torch.Generator().manual_seed(1), 4000)
    roll, yaw, pitch = np.abs(Rotation.from_rotvec(rotvec.numpy()).as_euler("ZYX", degrees=True)).T
    within_one_deviation = math.erf(1 / math.sqrt(2))
    for angle, deviation, largest, uniform in ((yaw, 14, 70, 0.4), (pitch, 10, 35, 0.25), (roll, 8, 35, 0.2)):
        assert angle.max() <= largest + 1e-3
        expected = uniform * deviation / largest + (1 - uniform) * within_one_deviation
        # The standard error of a share of 4,000 is at most 0.008.
        assert (angle < deviation).mean() == pytest.approx(expected, abs=0.03)
        far = uniform / 4 + (1 - uniform) * math.erfc(0.75 * largest / deviation / math.sqrt(2))
        assert (angle > 0.75 * largest).mean() == pytest.approx(far, abs=0.02)
