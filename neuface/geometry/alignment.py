"""Least-squares rigid and similarity alignment of corresponding points (Procrustes)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from neuface.geometry.rotations import nearest_rotation


def align_points(
    source: Float[Tensor, "*batch points 3"],
    target: Float[Tensor, "*batch points 3"],
    *,
    with_scale: bool = False,
    fit_on: Float[Tensor, " points"] | None = None,
) -> Float[Tensor, "*batch points 3"]:
    """`source` moved onto `target` by the rotation and translation (and scale) of least squares.

    Every batch item has its own motion. The closed form is that of Umeyama (1991); it never reflects.

    Args:
        source, target: corresponding points in one unit, which is also that of the result.
        with_scale: whether the size of `source` may change.
        fit_on: weights (0 or more) of the points in the sum of squares; all points are moved.

    Example:
        >>> import torch
        >>> triangle = torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        >>> shifted = triangle + torch.tensor([5.0, -1.0, 3.0])
        >>> torch.allclose(align_points(triangle, shifted), shifted, atol=1e-5)
        True
    """
    weight = source.new_ones(source.shape[-2]) if fit_on is None else fit_on
    weight = (weight / weight.sum())[:, None]
    source_centre = (weight * source).sum(-2, keepdim=True)
    target_centre = (weight * target).sum(-2, keepdim=True)
    around, wanted = source - source_centre, target - target_centre
    covariance = (weight * wanted).mT @ around
    rotation = nearest_rotation(covariance)
    moved = around @ rotation.mT
    if with_scale:
        spread = (weight * around.square()).sum((-2, -1))
        agreement = (rotation * covariance).sum((-2, -1))
        moved = moved * (agreement / spread)[..., None, None]
    return moved + target_centre
