"""Merging views: results worked out by hand, invariants, and the influence of one wrong view."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from neuface.errors import InputError
from neuface.geometry.merging import robust_mean, softmax_weights, weighted_mean, weighted_median


def along_x(*values: float) -> Tensor:
    """One vertex per view, at these x."""
    return torch.tensor([[[value, 0.0, -value]] for value in values], dtype=torch.float64)


def per_view(*weights: float) -> Tensor:
    return torch.tensor([[weight] for weight in weights], dtype=torch.float64)


def random_views(views: int, *batch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    vertices = 0.1 * torch.randn(views, *batch, 7, 3, generator=generator, dtype=torch.float64)
    return vertices, torch.rand(views, *batch, 7, generator=generator, dtype=torch.float64)


MERGERS = [weighted_mean, weighted_median, robust_mean]


# --- By hand


def test_weighted_mean_by_hand() -> None:
    found = weighted_mean(along_x(0.0, 4.0, 8.0), per_view(1.0, 1.0, 2.0))
    torch.testing.assert_close(found, along_x(5.0)[0])


@pytest.mark.parametrize(
    ("values", "weights", "expected"),
    [
        ((3.0, 1.0, 2.0), (1.0, 1.0, 1.0), 2.0),
        ((3.0, 1.0, 2.0), (0.6, 0.2, 0.2), 3.0),
        ((1.0, 2.0, 3.0), (0.2, 0.7, 0.1), 2.0),
        ((1.0, 2.0, 3.0), (0.5, 0.25, 0.25), 1.5),  # half of the weight lies on either side: the midpoint
        ((0.0, 4.0), (1.0, 1.0), 2.0),
        ((0.0, 4.0), (1.0, 1.01), 4.0),
        ((0.0, 1.0, 5.0, 9.0), (0.1, 0.1, 0.1, 0.1), 3.0),
        ((0.0, 1.0, 5.0, 9.0), (1.0, 0.0, 0.0, 1.0), 4.5),  # views of weight 0 in between are ignored
        ((7.0, 1.0), (1.0, 0.0), 7.0),
        ((2.0,), (0.3,), 2.0),
    ],
)
def test_weighted_median_by_hand(
    values: tuple[float, ...], weights: tuple[float, ...], expected: float
) -> None:
    torch.testing.assert_close(weighted_median(along_x(*values), per_view(*weights)), along_x(expected)[0])


def test_weighted_median_treats_each_coordinate_separately() -> None:
    vertices = torch.tensor([[[0.0, 9.0, 1.0]], [[5.0, 0.0, 2.0]], [[9.0, 5.0, 0.0]]])
    found = weighted_median(vertices, torch.ones(3, 1))
    torch.testing.assert_close(found, torch.tensor([[5.0, 5.0, 1.0]]))


def test_weighted_median_minimises_the_weighted_distance() -> None:
    """This defines the median: no coordinate of any view has a smaller sum of weighted distances."""
    vertices, weights = random_views(5, 2)
    found = weighted_median(vertices, weights)

    def cost(candidate: Tensor) -> Tensor:
        return (weights[..., None] * (vertices - candidate).abs()).sum(0)

    for view in range(5):
        assert bool((cost(found) <= cost(vertices[view]) + 1e-12).all())


def test_softmax_weights_by_hand() -> None:
    confidence = torch.tensor([[0.5, 0.0, 0.0], [0.4, 0.3, 0.0], [0.0, 0.3, 0.0]], dtype=torch.float64)
    found = softmax_weights(confidence)
    share = math.e / (math.e + 1)  # exp(5) : exp(4)
    expected = torch.tensor(
        [[share, 0.0, 1 / 3], [1 - share, 0.5, 1 / 3], [0.0, 0.5, 1 / 3]], dtype=torch.float64
    )
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(softmax_weights(confidence, 1.0).sum(0), torch.ones(3, dtype=torch.float64))
    cooler = softmax_weights(confidence, 0.2)[0, 0]
    torch.testing.assert_close(float(cooler), math.exp(0.5) / (math.exp(0.5) + 1))


def test_a_single_view_is_its_own_merged_mesh() -> None:
    vertices, weights = random_views(1, 3)
    weights[0, 0] = 0
    for merger in MERGERS:
        torch.testing.assert_close(merger(vertices, weights), vertices[0])
    torch.testing.assert_close(softmax_weights(weights), torch.ones_like(weights))


# --- Properties of every merger


@pytest.mark.parametrize("merger", MERGERS)
def test_equal_views_merge_to_themselves(merger) -> None:
    vertices, _ = random_views(1, 2)
    weights = torch.rand(4, 2, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights[:, :, 3] = 0
    torch.testing.assert_close(merger(vertices.expand(4, -1, -1, -1), weights), vertices[0])


@pytest.mark.parametrize("merger", MERGERS)
def test_batching_order_of_views_and_scale_of_weights_do_not_matter(merger) -> None:
    vertices, weights = random_views(4, 2, 3)
    found = merger(vertices, weights)
    assert found.shape == (2, 3, 7, 3)
    torch.testing.assert_close(merger(vertices[:, 1, 2], weights[:, 1, 2]), found[1, 2])
    torch.testing.assert_close(merger(vertices.flip(0), 100 * weights.flip(0)), found)
    torch.testing.assert_close(merger(vertices.float(), weights.float()).double(), found, atol=1e-5, rtol=0)


@pytest.mark.parametrize("merger", MERGERS)
def test_moving_all_views_moves_the_merged_mesh(merger) -> None:
    vertices, weights = random_views(3)
    shift = torch.tensor([1.0, -2.0, 0.5])
    torch.testing.assert_close(merger(vertices + shift, weights), merger(vertices, weights) + shift)


@pytest.mark.parametrize("merger", MERGERS)
def test_views_of_weight_zero_have_no_influence(merger) -> None:
    vertices, weights = random_views(4, 2)
    weights[2] = 0
    expected = merger(vertices[[0, 1, 3]], weights[[0, 1, 3]])
    vertices[2] += 5
    torch.testing.assert_close(merger(vertices, weights), expected)


@pytest.mark.parametrize("merger", MERGERS)
def test_fallback_applies_where_all_weights_are_zero(merger) -> None:
    vertices, weights = random_views(3, 2)
    weights[:, :, 4] = 0
    everywhere = merger(vertices, torch.ones_like(weights))
    torch.testing.assert_close(merger(vertices, weights)[:, 4], everywhere[:, 4])
    fallback = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)[:, None, None]
    found = merger(vertices, weights, fallback)
    torch.testing.assert_close(found[:, 4], vertices[0, :, 4])
    torch.testing.assert_close(found[:, :4], merger(vertices, weights)[:, :4])
    nothing = torch.zeros_like(weights)
    torch.testing.assert_close(merger(vertices, nothing, nothing), everywhere)


@pytest.mark.parametrize("merger", MERGERS)
def test_gradients_reach_the_vertices(merger) -> None:
    vertices, weights = random_views(3)
    vertices.requires_grad_()
    merger(vertices, weights).sum().backward()
    # Every merged coordinate is an average, so that its derivatives by the views sum to one.
    assert vertices.grad is not None
    torch.testing.assert_close(vertices.grad.sum(0), torch.ones(7, 3, dtype=torch.float64))


def test_gradients_of_mean_and_softmax() -> None:
    vertices, weights = random_views(3)
    inputs = (vertices.requires_grad_(), weights.requires_grad_())
    assert torch.autograd.gradcheck(lambda v, w: weighted_mean(v, softmax_weights(w)), inputs)


# --- The robust mean


@pytest.mark.parametrize("views", [3, 4, 7])
@pytest.mark.parametrize("error_m", [0.05, 1.0, 100.0])
def test_one_grossly_wrong_view_has_little_influence(views: int, error_m: float) -> None:
    """The other views agree to a millimetre; the wrong one has the largest weight."""
    generator = torch.Generator().manual_seed(views)
    truth = 0.1 * torch.randn(1, 500, 3, generator=generator, dtype=torch.float64)
    vertices = truth + 0.001 * torch.randn(views, 500, 3, generator=generator, dtype=torch.float64)
    weights = 0.2 + 0.3 * torch.rand(views, 500, generator=generator, dtype=torch.float64)
    weights[0] = 1.0
    before = robust_mean(vertices, weights)
    wrong = vertices.clone()
    wrong[0] += error_m * torch.tensor([0.6, 0.0, -0.8])
    moved = (robust_mean(wrong, weights) - before).norm(dim=-1)
    assert float(moved.max()) < 0.1 * error_m
    assert float(moved.mean()) < 0.002  # the change from losing that view's observation
    assert float((weighted_mean(wrong, weights) - before).norm(dim=-1).mean()) > 0.1 * error_m


def test_equal_views_outvote_a_wrong_one() -> None:
    torch.testing.assert_close(
        robust_mean(along_x(1.0, 1.0, 1.5), per_view(0.1, 0.1, 0.9)), along_x(1.0)[0], atol=1e-6, rtol=0
    )


def test_robust_mean_is_near_the_mean_under_gaussian_noise() -> None:
    """Its error under Gaussian noise is at most 10 % above that of the mean, which is optimal there."""
    generator = torch.Generator().manual_seed(3)
    vertices = 0.002 * torch.randn(5, 2000, 3, generator=generator, dtype=torch.float64)
    weights = torch.ones(5, 2000, dtype=torch.float64)
    plain = weighted_mean(vertices, weights).square().mean().sqrt()
    robust = robust_mean(vertices, weights).square().mean().sqrt()
    assert float(robust) < 1.1 * float(plain)


def test_of_two_views_neither_dominates() -> None:
    found = robust_mean(along_x(0.0, 0.01), per_view(0.6, 0.4))
    assert 0.003 < float(found[0, 0]) < 0.005
    torch.testing.assert_close(robust_mean(along_x(0.0, 0.01), per_view(2.0, 2.0)), along_x(0.005)[0])


def test_robust_mean_is_equivariant_to_rotations() -> None:
    """Only its start, the median, depends on the axes; after 40 steps the start has lost its influence."""
    generator = torch.Generator().manual_seed(4)
    vertices = 0.01 * torch.randn(5, 50, 3, generator=generator, dtype=torch.float64)
    weights = torch.ones(5, 50, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
    turned = robust_mean(vertices @ turn.mT, weights, steps=40)
    torch.testing.assert_close(turned, robust_mean(vertices, weights, steps=40) @ turn.mT, atol=1e-4, rtol=0)


# --- Wrong arguments


@pytest.mark.parametrize("merger", MERGERS)
@pytest.mark.parametrize("bad", [-0.1, math.nan])
def test_negative_and_nan_weights_are_refused(merger, bad: float) -> None:
    with pytest.raises(InputError, match="weights of views must be 0 or more"):
        merger(along_x(1.0, 2.0), per_view(1.0, bad))
    with pytest.raises(InputError, match="fallback weights of views must be 0 or more"):
        merger(along_x(1.0, 2.0), per_view(1.0, 1.0), per_view(1.0, bad))


def test_other_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="temperature of the softmax must be positive, got 0"):
        softmax_weights(per_view(1.0, 0.5), 0.0)
    with pytest.raises(InputError, match="at least 1 step, got 0"):
        robust_mean(along_x(1.0, 2.0), per_view(1.0, 1.0), steps=0)
