"""Networks of growing width under plain gradient descent, at a size that takes seconds."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68, INNER51
from neuface.structs import WeakPerspective
from studies.over_parameterisation.experiment import (
    IDENTITY,
    OUTPUTS,
    PARTS,
    TYPICAL_SCALE,
    LandmarkObjective,
    Size,
    chosen_step,
    count_weights,
    features,
    initial_weights,
    network,
    random_labels,
    run,
    units,
)

SMALL = Size(widths=(4, 128), seeds=2, frames=3, steps=150, trial_steps=30, downhill_steps=5)


def test_a_wide_network_fits_random_labels_and_a_narrow_one_does_not() -> None:
    narrow, wide = run(random_labels(SMALL.frames), SMALL)
    assert wide.median < 0.1
    assert narrow.median > 0.3
    assert math.isnan(wide.wrong), "random labels have no orientation"


def test_the_network_is_two_layers_of_relu_as_counted() -> None:
    weights = initial_weights(8, [0, 1])
    assert all(tensor.shape[0] == 2 for tensor in weights)
    assert sum(tensor[0].numel() for tensor in weights) == count_weights(8)
    x = features(3)
    first, second, last = (tensor[1] for tensor in weights)
    hidden = torch.relu(torch.relu(x @ first.mT) @ second.mT)
    torch.testing.assert_close(network(x, weights)[1], hidden @ last.mT)
    assert network(x, weights).shape == (2, 3, OUTPUTS)


def test_the_last_row_of_the_landmark_fit_is_free_parameters(open_head: HeadModel) -> None:
    size = Size(widths=(4,), seeds=2, frames=2, steps=10, trial_steps=5, downhill_steps=2)
    rows = run(LandmarkObjective(open_head, size.frames), size)
    assert [row.name for row in rows] == ["4", "free"]
    for row in rows:
        assert row.errors == sorted(row.errors)
        assert 0 <= row.wrong <= 1
        assert 0 <= row.stuck <= 1
    again = run(LandmarkObjective(open_head, size.frames), size)
    assert again == rows, "same seeds, same result"


def test_landmarks_are_those_of_the_head_model(open_head: HeadModel) -> None:
    """The short way by bases against the head's own, for a random head before a random camera."""
    objective = LandmarkObjective(open_head, 2)
    assert float(objective(objective.truth).max()) < 1e-9
    outputs = 0.2 * torch.randn(2, OUTPUTS, generator=torch.Generator().manual_seed(0))
    rotvec, log_scale, offset, identity, expression = (outputs * units()).split(PARTS, -1)
    padded = torch.nn.functional.pad(identity, (0, open_head.num_identity - IDENTITY))
    params = replace(open_head.neutral(2), root_rotvec=rotvec, identity=padded, expression=expression)
    camera = WeakPerspective(scale=TYPICAL_SCALE * log_scale[..., 0].exp(), offset=offset)
    expected = camera.project(open_head.landmarks(params, IBUG68.name)[..., INNER51, :])
    torch.testing.assert_close(objective.project(outputs), expected, atol=1e-5, rtol=1e-5)


def test_the_chosen_step_lowers_the_loss() -> None:
    loss = random_labels(3)
    start = initial_weights(16, [5])
    x = features(3)
    step = chosen_step(lambda weights: network(x, weights), start, loss, 20)
    assert step > 0
