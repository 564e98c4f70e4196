"""The distribution of expressions: its mean and covariance."""

from __future__ import annotations

import torch

from neuface.head.expressions import INDEPENDENT_DEVIATION, UNITS, expression_moments, sample_expressions
from neuface.head.model import HeadModel


def test_moments_agree_with_a_sample(open_head: HeadModel) -> None:
    names = open_head.expression_names
    mean, covariance = expression_moments(names)
    drawn = sample_expressions(names, 20_000, torch.Generator().manual_seed(11)).double()
    torch.testing.assert_close(mean, drawn.mean(0), atol=0.01, rtol=0)
    spread = torch.cov(drawn.mT) + INDEPENDENT_DEVIATION**2 * torch.eye(52).double()
    torch.testing.assert_close(covariance, spread, atol=0.01, rtol=0)
    assert float(torch.linalg.eigvalsh(covariance).min()) >= INDEPENDENT_DEVIATION**2 - 1e-9
    both = [names.index(name) for name in ("mouthSmileLeft", "mouthSmileRight")]
    one, other = covariance[both][:, both]
    assert float(one[1]) > 0.8 * float((one[0] * other[1]).sqrt())


def test_codes_of_any_other_basis_have_mean_zero_and_covariance_one() -> None:
    mean, covariance = expression_moments(("expression000", "expression001"))
    assert torch.equal(mean, torch.zeros(2).double())
    assert torch.equal(covariance, torch.eye(2).double())


def test_units_are_those_of_the_open_head(open_head: HeadModel) -> None:
    assert set(open_head.expression_names) == UNITS
    assert len(UNITS) == 52


def test_a_stored_head_may_mix_arkit_names_with_others() -> None:
    """Names come from a file: a mixture of ARKit's names and others must not end in an error during a fit."""
    mean, covariance = expression_moments(("jawOpen", "mine"))
    assert torch.equal(mean, torch.zeros(2).double())
    assert torch.equal(covariance, torch.eye(2).double())
