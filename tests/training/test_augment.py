"""Crop jitter transforms images, landmarks and truth consistently."""

from __future__ import annotations

import torch

from neuface.head.model import HeadModel
from neuface.structs import Prediction
from neuface.training.augment import random_jitter, reexpose

COUNT, SIZE = 5, 112


def test_jitter_transforms_the_image_like_the_truth(open_head: HeadModel, truth: Prediction) -> None:
    """A soft spot painted at a landmark appears at the landmark of the transformed truth."""
    nose = truth.camera.project(open_head.landmarks(truth.params, "mediapipe478"))[:, 4]
    along = (torch.arange(SIZE) + 0.5) * 2 / SIZE - 1
    y, x = torch.meshgrid(along, along, indexing="ij")
    far = (x - nose[:, 0, None, None]) ** 2 + (y - nose[:, 1, None, None]) ** 2
    spots = torch.exp(-far / 0.01)[:, None].expand(-1, 3, -1, -1)
    jitter = random_jitter(COUNT, torch.Generator().manual_seed(9))
    moved, moved_truth = jitter.images(spots, "border"), jitter.truth(truth, open_head)
    weight = moved[:, 0] / moved[:, 0].sum((1, 2), keepdim=True)
    found = torch.stack(((weight * x).sum((1, 2)), (weight * y).sum((1, 2))), dim=-1)
    # `facing` selects the same point of the skin, although the transformed head is rolled.
    same_points = open_head.landmarks(moved_truth.params, "mediapipe478", facing=truth.params)
    expected = moved_truth.camera.project(same_points)[:, 4]
    assert (expected - nose).norm(dim=-1).max() > 0.03
    assert torch.allclose(found, expected, atol=0.01)
    assert torch.allclose(jitter.points(nose[:, None])[:, 0], expected, atol=1e-5)


def test_jitter_is_a_similarity_of_all_projected_points(open_head: HeadModel, truth: Prediction) -> None:
    moved = random_jitter(COUNT, torch.Generator().manual_seed(1)).truth(truth, open_head)
    before = truth.camera.project(open_head.vertices(truth.params))
    after = moved.camera.project(open_head.vertices(moved.params))
    sizes = [(item - item.mean(1, keepdim=True)).norm(dim=(1, 2)) for item in (before, after)]
    assert torch.allclose(
        sizes[1] / sizes[0], moved.camera.magnification / truth.camera.magnification, rtol=1e-4
    )


def test_reexposed_images_stay_in_range_and_differ() -> None:
    grey = torch.full((4, 3, 8, 8), 0.5)
    changed = reexpose(grey, torch.Generator().manual_seed(3))
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert len(changed[:, 0, 0, 0].unique()) == 4
    assert torch.equal(reexpose(grey, torch.Generator().manual_seed(3), strength=0.0), grey)
