"""Heads that an encoder predicts, seen by perspective cameras."""

from __future__ import annotations

import torch
from small_problems import turning_heads

from neuface import HeadModel, Perspective
from neuface.fitting.lens import Lens, SeenThroughLens, make_lens
from neuface.fitting.parameterisation import FreeParameters
from neuface.structs import Crop

VIEWS, TIME = 2, 3


def lens_of(focal: float) -> Lens:
    return Lens(focal=torch.full((VIEWS, TIME), focal), principal=torch.zeros(VIEWS, TIME, 2))


@torch.no_grad()
def test_a_long_lens_changes_nothing(open_head: HeadModel) -> None:
    weak = turning_heads(open_head, VIEWS, TIME)
    seen = SeenThroughLens(FreeParameters(weak), open_head, lens_of(1e6))
    found = seen.predict(torch.arange(VIEWS * TIME))
    vertices = open_head.vertices(found.params)
    torch.testing.assert_close(
        found.camera.project(vertices), weak.flatten_batch(2).camera.project(vertices), atol=1e-3, rtol=0
    )


@torch.no_grad()
def test_the_face_keeps_its_place_and_size_before_a_near_camera(open_head: HeadModel) -> None:
    weak = turning_heads(open_head, VIEWS, TIME)
    found = SeenThroughLens(FreeParameters(weak), open_head, lens_of(3.0)).predict(torch.arange(VIEWS * TIME))
    assert isinstance(found.camera, Perspective)
    points = open_head.landmarks(found.params, "ibug68")
    near, far = found.camera.project(points), weak.flatten_batch(2).camera.project(points)
    size = (far - far.mean(1, keepdim=True)).norm(dim=-1).mean()
    assert float((near.mean(1) - far.mean(1)).norm(dim=-1).max()) < 0.04 * size
    spread = (near - near.mean(1, keepdim=True)).norm(dim=-1).mean(1)
    torch.testing.assert_close(
        spread, (far - far.mean(1, keepdim=True)).norm(dim=-1).mean(1), rtol=0.05, atol=0
    )
    assert float((near - far).norm(dim=-1).max()) > 0.02 * size


@torch.no_grad()
def test_a_copy_is_optimised_by_itself(open_head: HeadModel) -> None:
    seen = SeenThroughLens(FreeParameters(turning_heads(open_head, VIEWS, TIME)), open_head, lens_of(3.0))
    copied, index = seen.copy(), torch.arange(VIEWS * TIME)
    before = seen.predict(index)
    assert torch.equal(copied.predict(index).camera.position, before.camera.position)
    for parameter in copied.parameters():
        parameter.add_(0.1)
    assert torch.equal(seen.predict(index).camera.position, before.camera.position)
    assert not torch.equal(copied.predict(index).camera.position, before.camera.position)


def test_a_lens_is_converted_to_the_coordinates_of_its_crop() -> None:
    matrices = torch.eye(3).repeat(1, 2, 1, 1)
    matrices[0, 1, 0, 0] = matrices[0, 1, 1, 1] = 2.0
    crops = Crop(T_crop_frame=matrices, size_px=100)
    lens = make_lens(torch.tensor([800.0]), torch.tensor([[49.5, 49.5]]), crops)
    # Half of a crop of 100 pixels is one unit; the second crop magnifies twice.
    torch.testing.assert_close(lens.focal, torch.tensor([[16.0, 32.0]]))
    torch.testing.assert_close(lens.principal[0, 0], torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(lens.principal[0, 1], torch.tensor([0.99, 0.99]))
