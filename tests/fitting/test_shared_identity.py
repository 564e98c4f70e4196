"""One identity and one size per clip: shared over images, with the right value and the right gradient."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
from small_problems import BATCH, PASSES, RATE

from neuface.fitting.config import FitConfig, Identity
from neuface.fitting.loop import fit
from neuface.fitting.objective import FromEncoder, FromPopulation
from neuface.fitting.parameterisation import FreeParameters
from neuface.fitting.problem import Problem
from neuface.fitting.shared_identity import shared_identity
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import MEDIAPIPE478
from neuface.structs import Prediction, WeakPerspective

VIEWS, TIME = 2, 4
FREE = Identity(shared="image", fix_scale=False)
SHARED = Identity(shared="clip", fix_scale=False)
FIXED = Identity(shared="image", fix_scale=True)
BOTH = Identity(shared="clip", fix_scale=True)


def predictions(head: HeadModel, seed: int = 0) -> Prediction:
    generator = torch.Generator().manual_seed(seed)
    params = head.neutral(VIEWS, TIME)
    identity = torch.randn(params.identity.shape, generator=generator, dtype=params.identity.dtype)
    turn = 0.2 * torch.randn(VIEWS, TIME, 3, generator=generator, dtype=identity.dtype)
    camera = WeakPerspective(scale=identity.new_full((VIEWS, TIME), 5.0), offset=turn[..., :2] * 0)
    return Prediction(params=replace(params, identity=identity, root_rotvec=turn), camera=camera)


VALID = torch.ones(VIEWS, TIME, dtype=torch.bool).index_put(
    (torch.tensor(1), torch.tensor(2)), torch.tensor(False)
)


def test_free_codes_stay_as_predicted(tiny_head) -> None:
    head = tiny_head()
    initial, later = predictions(head), predictions(head, seed=1)
    shape = shared_identity(head, initial, VALID, FREE)
    assert torch.equal(shape.of_clip(later).params.identity, later.params.identity)


def test_a_shared_code_is_the_mean_over_images_with_landmarks(tiny_head) -> None:
    head = tiny_head()
    later = predictions(head, seed=1)
    found = shared_identity(head, predictions(head), VALID, SHARED).of_clip(later)
    rows = [later.params.identity[v, t] for v in range(VIEWS) for t in range(TIME) if VALID[v, t]]
    expected = torch.stack(rows).sum(0) / 7
    torch.testing.assert_close(found.params.identity, expected.expand(VIEWS, TIME, -1))
    assert torch.equal(found.params.root_rotvec, later.params.root_rotvec)


@pytest.mark.parametrize("identity", [FIXED, BOTH])
def test_the_size_is_kept_by_the_smallest_change_of_the_code(tiny_head, identity: Identity) -> None:
    head = tiny_head()
    initial, later = predictions(head), predictions(head, seed=1)
    found = shared_identity(head, initial, VALID, identity).of_clip(later).params.identity
    size = head.log_size(initial.params.identity)[VALID].mean()
    torch.testing.assert_close(head.log_size(found), size.expand(VIEWS, TIME))
    # No other code of that size is nearer: the difference is along the gradient of the size.
    free = (
        shared_identity(head, initial, VALID, replace(identity, fix_scale=False))
        .of_clip(later)
        .params.identity
    )
    growth = head.log_size(torch.eye(head.num_identity, dtype=free.dtype))
    moved = (found - free).flatten(0, 1)
    along = (moved @ growth)[:, None] * growth / growth.square().sum()
    torch.testing.assert_close(moved, along)


@pytest.mark.parametrize("identity", [FREE, BOTH])
def test_the_camera_compensates_for_the_size_of_the_prior_mean(tiny_head, identity: Identity) -> None:
    head = tiny_head()
    initial, later = predictions(head), predictions(head, seed=1)
    mean = initial.params.identity[VALID].mean(0)
    expected = mean + torch.linspace(-3, 2, head.num_identity).to(mean)
    growth = float(head.log_size(expected) - head.log_size(mean))
    assert abs(growth) > 0.01
    shape = shared_identity(head, initial, VALID, identity, None, expected)
    start = shape.of_clip(initial)
    torch.testing.assert_close(start.params.identity[VALID].mean(0), expected)
    torch.testing.assert_close(start.camera.magnification, initial.camera.magnification * math.exp(-growth))
    assert torch.equal(start.camera.position, initial.camera.position)
    if identity.fix_scale:
        size = head.log_size(shape.of_clip(later).params.identity)
        torch.testing.assert_close(size, head.log_size(expected).expand(VIEWS, TIME))


def test_the_population_is_expected_without_a_move_of_the_start(tiny_head) -> None:
    """As in Eq. 5: the fit starts at the encoder's predictions, and the prior's mean is the population's."""
    head = tiny_head()
    initial = predictions(head)
    shape = shared_identity(head, initial, VALID, FREE, FromPopulation())
    assert torch.equal(shape.prior_mean, torch.zeros(head.num_identity, dtype=shape.prior_mean.dtype))
    assert torch.equal(shape.of_clip(initial).params.identity, initial.params.identity)
    held = shared_identity(head, initial, VALID, FIXED, FromPopulation())
    size = head.log_size(initial.params.identity)[VALID].mean()
    found = head.log_size(held.of_clip(initial).params.identity)
    torch.testing.assert_close(found, size.expand(VIEWS, TIME))


def test_a_batch_has_the_value_and_the_gradient_of_the_clip(tiny_head) -> None:
    """All images at once: as if the whole clip had been shared with gradient."""
    head = tiny_head()
    last, later = predictions(head), predictions(head, seed=1)
    shape = shared_identity(head, last, VALID, BOTH)
    identity = later.params.identity.clone().requires_grad_()
    whole = replace(later, params=replace(later.params, identity=identity))
    pull = torch.randn(VIEWS * TIME, head.num_identity, generator=torch.Generator().manual_seed(3)).double()
    index = torch.tensor([3, 1, 7, 6, 0, 2, 5, 4])
    batch = shape.of_images(whole.flatten_batch(2)[index], index, last.params.identity).params.identity
    clip = shape.of_clip(whole).params.identity.flatten(0, 1)[index]
    torch.testing.assert_close(batch, clip)
    (found,) = torch.autograd.grad((batch * pull).sum(), identity, retain_graph=True)
    (expected,) = torch.autograd.grad((clip * pull).sum(), identity)
    torch.testing.assert_close(found, expected)
    assert float(found[1, 2].abs().max()) == 0


@pytest.mark.parametrize("prior", [None, FromEncoder(weight=10.0)])
def test_what_landmarks_do_not_observe_stays_as_predicted(tiny_head, prior: FromEncoder | None) -> None:
    """Landmarks pull the identity away: the prior keeps it near the initial predictions, not near zero."""
    head = tiny_head()
    start = predictions(head)
    points = start.camera.project(head.landmarks(head.neutral(VIEWS, TIME), "mediapipe478"))
    problem = Problem.in_one_crop(
        observed_ndc=points,
        confidence=torch.ones(points.shape[:-1], dtype=points.dtype),
        valid=VALID,
        scheme=MEDIAPIPE478,
    )
    config = FitConfig.neural({"identity": SHARED, "objective.identity_prior": prior, RATE: 0.02, PASSES: 60})
    found = fit(FreeParameters(start, ("identity",)), head, problem, config).prediction.params.identity[0, 0]
    moved = float((found - start.params.identity[VALID].mean(0)).abs().max())
    assert moved < 0.01 if prior else moved > 0.1


def test_part_of_a_clip_moves_the_shared_code_by_what_it_moved(tiny_head) -> None:
    head = tiny_head()
    last = predictions(head)
    shape = shared_identity(head, last, VALID, SHARED)
    index = torch.tensor([2, 5, 6])  # the image (1, 2) has no landmarks
    part = last.flatten_batch(2)[index]
    step = torch.linspace(-0.3, 0.4, head.num_identity).double()
    moved = replace(part, params=replace(part.params, identity=part.params.identity + step))
    mean = last.params.identity[VALID].mean(0)
    found = shape.of_images(moved, index, last.params.identity).params.identity
    torch.testing.assert_close(found, (mean + step).expand(3, -1))
    silent = torch.tensor([6])
    found = shape.of_images(moved[2:], silent, last.params.identity).params.identity
    torch.testing.assert_close(found, mean.expand(1, -1))


@pytest.mark.parametrize("batch_size", [64, 3])
def test_a_fit_returns_one_identity_of_the_initial_size(tiny_head, batch_size: int) -> None:
    """A truth of the size that is held is recovered, from codes that differ from image to image."""
    head = tiny_head()
    start = predictions(head)
    wanted = replace(
        start, params=replace(start.params, identity=torch.full_like(start.params.identity, 0.6))
    )
    valid = torch.ones(VIEWS, TIME, dtype=torch.bool)
    truth = shared_identity(head, start, valid, FIXED).of_clip(wanted)
    points = truth.camera.project(head.landmarks(truth.params, "mediapipe478"))
    problem = Problem.in_one_crop(
        observed_ndc=points,
        confidence=torch.ones(points.shape[:-1], dtype=points.dtype),
        valid=valid,
        scheme=MEDIAPIPE478,
    )
    config = FitConfig.neural(
        {
            "identity": BOTH,
            "objective.temporal": None,
            "objective.multiview": None,
            "objective.identity_prior": None,
            RATE: 0.02,
            PASSES: 150,
            BATCH: batch_size,
        }
    )
    outcome = fit(FreeParameters(start), head, problem, config)
    identity = outcome.prediction.params.identity
    assert torch.equal(identity, identity[:1, :1].expand_as(identity))
    size = head.log_size(start.params.identity).mean()
    torch.testing.assert_close(head.log_size(identity[0, 0]), size)
    torch.testing.assert_close(identity, truth.params.identity, atol=0.1, rtol=0)
    assert torch.equal(outcome.initial.params.identity, start.params.identity)


@pytest.mark.parametrize("shared", ["clip", "first", "image"])
def test_the_fit_starts_at_the_expected_code(tiny_head, shared: Literal["clip", "first", "image"]) -> None:
    """All codes are shifted alike: the shared one becomes the prior's mean, differences between images stay."""
    head = tiny_head()
    initial = predictions(head)
    expected = torch.linspace(-1, 1, head.num_identity).double()
    shape = shared_identity(head, initial, VALID, replace(FREE, shared=shared), None, expected)
    found = shape.of_clip(initial).params.identity
    if shared == "image":
        torch.testing.assert_close(found[VALID].mean(0), expected)
        torch.testing.assert_close(found.diff(dim=1), initial.params.identity.diff(dim=1))
    else:
        torch.testing.assert_close(found, expected.expand_as(found))
    assert torch.equal(shape.prior_mean, expected)
