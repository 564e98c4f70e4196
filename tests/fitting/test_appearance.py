"""The photometric term: colours where vertices land, and the texture and light that explain them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from neuface.fitting import appearance as module
from neuface.fitting.appearance import (
    EstimatedAppearance,
    PhotometricResiduals,
    estimate_appearance,
    photometric_residuals,
)
from neuface.geometry.meshes import vertex_normals
from neuface.head.model import HeadModel
from neuface.losses import COLOUR_SOFTNESS, photometric_loss
from neuface.structs import Prediction, WeakPerspective
from neuface.synthetic.clips import make_talking_clip

VIEWS, TIME, SIDE = 2, 8, 224


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Cosine:
    """A vertex counts by the cosine of its angle to the camera, if that is above 0.3."""

    def weights(self, posed: Tensor, faces: Tensor) -> Tensor:
        facing = vertex_normals(posed, faces)[..., 2]
        return facing * (facing > 0.3)


@dataclass(frozen=True)
class Fixed:
    """The same weights for every pose."""

    values: Tensor

    def weights(self, posed: Tensor, faces: Tensor) -> Tensor:
        return self.values


@dataclass(frozen=True, kw_only=True)
class Painted:
    """A clip of a ball whose vertices' colours follow from a known albedo and light."""

    head: HeadModel
    prediction: Prediction
    pictures: Tensor
    albedo: Tensor
    valid: Tensor

    def estimate(self) -> EstimatedAppearance:
        return estimate_appearance(self.head, self.prediction, self.pictures, self.valid, Cosine())

    def residuals(self, appearance: EstimatedAppearance) -> PhotometricResiduals:
        return photometric_residuals(
            self.head,
            self.prediction.flatten_batch(2),
            self.pictures.flatten(0, 1),
            appearance,
            torch.arange(self.valid.numel()),
            Cosine(),
        )


def ball_head(tiny: HeadModel, template: Tensor, faces: Tensor) -> HeadModel:
    """A rigid ball of 10 cm with a back that is no face."""
    count = len(template)
    return replace(
        tiny,
        template=0.1 * template,
        identity_basis=template.new_zeros(count, 3, 6),
        expression_basis=template.new_zeros(count, 3, 5),
        skinning_weights=torch.eye(5, dtype=template.dtype)[:1].repeat(count, 1),
        faces=faces,
        uv=template.new_zeros(0, 2),
        uv_faces=faces[:0],
        regions={"face": template[:, 2] > -0.5},
        embeddings={},
    )


@pytest.fixture(scope="module")
def painted(tiny_head, ball) -> Painted:
    """Every vertex in front is a patch of 3 x 3 pixels on grey."""
    head = ball_head(tiny_head(), *ball(9, 14))
    prediction = turned_heads(head)
    posed = head.vertices(prediction.params)
    albedo = 0.25 + 0.35 * uniform(head.num_vertices, 3, seed=1)
    pictures = torch.full((VIEWS, TIME, 3, SIDE, SIDE), 0.5, dtype=torch.float64)
    exposure = 0.7 + 0.6 * uniform(VIEWS, TIME, seed=2)
    for view in range(VIEWS):
        for time in range(TIME):
            shading = lit(posed[view, time], head, seed=10 + view) * exposure[view, time]
            pixels = (prediction.camera[view, time].project(posed[view, time]) + 1) * SIDE / 2 - 0.5
            for vertex in posed[view, time, :, 2].argsort().tolist():
                column, row = pixels[vertex].round().long().tolist()
                colour = albedo[vertex] * shading[vertex]
                pictures[view, time, :, row - 1 : row + 2, column - 1 : column + 2] = colour[:, None, None]
    valid = torch.ones(VIEWS, TIME, dtype=torch.bool)
    return Painted(head=head, prediction=prediction, pictures=pictures, albedo=albedo, valid=valid)


@pytest.fixture(scope="module")
def estimated(painted: Painted) -> EstimatedAppearance:
    return painted.estimate()


def turned_heads(head: HeadModel) -> Prediction:
    turns = Rotation.from_rotvec(0.5 * normal(VIEWS * TIME, 3, seed=4).numpy()).as_rotvec()
    params = replace(head.neutral(VIEWS, TIME), root_rotvec=torch.from_numpy(turns).view(VIEWS, TIME, 3))
    middle = head.vertices(params).mean(-2)[..., :2] * torch.tensor([1.0, -1.0])
    scale = torch.full((VIEWS, TIME), 7.0, dtype=torch.float64)
    return Prediction(params=params, camera=WeakPerspective(scale=scale, offset=-7.0 * middle))


def lit(posed: Tensor, head: HeadModel, seed: int) -> Tensor:
    """Coloured light in the form of a polynomial of degree 2 of the normal, camera axes, written out."""
    x, y, z = (vertex_normals(posed, head.faces) * torch.tensor([1.0, -1.0, -1.0])).unbind(-1)
    terms = torch.stack((torch.ones_like(x), x, y, z, x * y, x * z, y * z, z * z, x * x - y * y), -1)
    gains = normal(9, 3, seed=seed) * torch.tensor([[0.1]] + [[0.15]] * 3 + [[0.05]] * 5)
    return terms @ (gains + torch.tensor([[0.9]] + [[0.0]] * 8))


# --- What is estimated


def test_painted_colours_are_explained(painted: Painted, estimated: EstimatedAppearance) -> None:
    colour, expected, weight = painted.residuals(estimated)
    weighed = weight > 0
    assert int(weighed.sum()) > 30 * VIEWS * TIME
    assert float((colour - expected)[weighed].abs().max()) < 1e-3
    assert float(photometric_loss(colour, expected, weight).max()) < 1e-5


def test_the_albedo_is_found_up_to_one_factor_per_colour(
    painted: Painted, estimated: EstimatedAppearance
) -> None:
    certain = estimated.vertex_weight > 0.5
    ratio = estimated.albedo[certain] / painted.albedo[certain]
    assert int(certain.sum()) >= 60
    np.testing.assert_allclose(ratio / ratio.mean(0), 1, atol=5e-3)
    # The factor: over all that is seen the light's mean is 1.
    _, expected, weight = painted.residuals(estimated)
    face = painted.head.regions["face"]
    sight = (weight / estimated.vertex_weight[face].clamp(min=1e-9))[..., None]
    shading = expected / estimated.albedo[face].clamp(min=1e-9)
    np.testing.assert_allclose((sight * shading).sum((0, 1)) / sight.sum(), 1, atol=5e-3)


def test_only_the_face_is_looked_at(painted: Painted, estimated: EstimatedAppearance) -> None:
    outside = ~painted.head.regions["face"]
    assert float(estimated.vertex_weight[outside].abs().max()) == 0
    assert painted.residuals(estimated)[0].shape[1] == int(painted.head.regions["face"].sum())
    whole = replace(painted, head=replace(painted.head, regions={}))
    assert whole.residuals(whole.estimate())[0].shape[1] == painted.head.num_vertices


def test_the_order_of_the_images_does_not_matter(painted: Painted, estimated: EstimatedAppearance) -> None:
    order = torch.randperm(TIME, generator=torch.Generator().manual_seed(3))
    mixed = replace(
        painted, prediction=painted.prediction[:, order].map_tensors(lambda part: part.flip(0)),
        pictures=painted.pictures[:, order].flip(0),
    )  # fmt: skip
    found, expected = mixed.estimate(), estimated
    torch.testing.assert_close(found.albedo, expected.albedo, atol=1e-9, rtol=0)
    torch.testing.assert_close(found.vertex_weight, expected.vertex_weight, atol=1e-9, rtol=0)
    torch.testing.assert_close(found.light.flip(0), expected.light[:, order], atol=1e-6, rtol=0)


def test_a_frame_that_is_not_valid_has_no_weight(painted: Painted, estimated: EstimatedAppearance) -> None:
    valid = painted.valid.clone()
    valid[1, 2] = False
    some = replace(painted, valid=valid)
    spoiled = painted.pictures.clone()
    spoiled[1, 2] = uniform(3, SIDE, SIDE)
    appearance, other = some.estimate(), replace(some, pictures=spoiled).estimate()
    assert torch.equal(appearance.albedo, other.albedo)
    assert torch.equal(appearance.light, other.light)
    weight = some.residuals(appearance)[2]
    assert float(weight[TIME + 2].max()) == 0
    assert float(weight.sum(1).sort().values[1]) > 0
    # The same picture matters when its frame is valid.
    assert not torch.equal(replace(painted, pictures=spoiled).estimate().albedo, estimated.albedo)


def test_a_few_strange_colours_hardly_move_the_albedo(
    painted: Painted, estimated: EstimatedAppearance
) -> None:
    """Something green before a sixth of the face in two of sixteen images; a plain mean would move by 0.05."""
    middle = slice(SIDE * 3 // 8, SIDE * 5 // 8)
    spoiled = painted.pictures.clone()
    spoiled[0, :2, :, middle, middle] = torch.tensor([0.1, 0.9, 0.1], dtype=torch.float64)[:, None, None]
    found = replace(painted, pictures=spoiled).estimate()
    assert not torch.equal(found.albedo, estimated.albedo)
    moved = (found.albedo - estimated.albedo)[estimated.vertex_weight > 0.8].abs()
    assert float(moved.max()) < 0.02


def test_a_long_clip_is_thinned_out_for_the_albedo_alone(
    painted: Painted, estimated: EstimatedAppearance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_ALBEDO_IMAGES", 10)
    monkeypatch.setattr(module, "IMAGES_PER_CHUNK", 3)
    appearance = painted.estimate()
    colour, expected, weight = painted.residuals(appearance)
    # Images that the albedo was not made from have a gain all the same; wrong by a tenth it would cost 0.02.
    assert float(photometric_loss(colour, expected, weight).max()) < 1e-3
    whole = painted.residuals(estimated)[2]
    assert float(weight.sum()) < float(whole.sum())


def test_a_single_image_has_no_residuals(painted: Painted) -> None:
    one = replace(
        painted,
        prediction=painted.prediction[:1, :1],
        pictures=painted.pictures[:1, :1],
        valid=painted.valid[:1, :1],
    )
    appearance = one.estimate()
    assert float(appearance.vertex_weight.max()) < 1e-9
    assert float(appearance.albedo.max()) > 0.2
    assert float(photometric_loss(*one.residuals(appearance))) == pytest.approx(0, abs=1e-9)


def test_the_weight_of_a_vertex_counts_the_other_images(
    painted: Painted, estimated: EstimatedAppearance
) -> None:
    posed = painted.head.vertices(painted.prediction.params)
    weight = Cosine().weights(posed, painted.head.faces).flatten(0, 1)
    for vertex in painted.head.regions["face"].nonzero()[:, 0].tolist():
        seen = weight[:, vertex]
        images = float(seen.sum() ** 2 / (seen**2).sum()) if bool((seen > 0).any()) else 1.0
        assert float(estimated.vertex_weight[vertex]) == pytest.approx(1 - 1 / images, abs=1e-7)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_plain_picture_breaks_nothing(painted: Painted, level: float) -> None:
    plain = replace(painted, pictures=torch.full_like(painted.pictures, level))
    appearance = plain.estimate()
    for part in (appearance.albedo, appearance.vertex_weight, appearance.light):
        assert bool(part.isfinite().all())
    moving = plain.prediction.map_tensors(lambda part: part.clone().requires_grad_())
    colour, expected, weight = replace(plain, prediction=moving).residuals(appearance)
    loss = photometric_loss(colour, expected, weight).sum()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert moving.params.root_rotvec.grad is not None
    assert bool(moving.params.root_rotvec.grad.isfinite().all())
    # Black and white are no colours of a surface.
    assert bool((weight.max() > 0) == (level == 0.5))


def test_no_valid_frame_is_an_even_light(painted: Painted) -> None:
    unusable = replace(painted, valid=torch.zeros_like(painted.valid))
    appearance = unusable.estimate()
    assert float(appearance.vertex_weight.max()) == 0
    colour, _, weight = unusable.residuals(appearance)
    assert float(weight.max()) == 0
    assert bool(colour.isfinite().all())
    expected = torch.zeros(9, dtype=torch.float64)
    expected[0] = math.sqrt(4 * math.pi)
    torch.testing.assert_close(appearance.light, expected[:, None].expand(VIEWS, TIME, 9, 3))


def test_whole_numbers_and_fractions_are_one_picture(painted: Painted) -> None:
    whole = (painted.pictures * 255).round().to(torch.uint8)
    found = replace(painted, pictures=whole).estimate()
    expected = replace(painted, pictures=whole.double() / 255).estimate()
    torch.testing.assert_close(found.albedo, expected.albedo, atol=1e-12, rtol=0)
    torch.testing.assert_close(found.light, expected.light, atol=1e-9, rtol=0)


def test_what_is_estimated_carries_no_gradient(painted: Painted) -> None:
    moving = painted.prediction.map_tensors(lambda part: part.clone().requires_grad_())
    appearance = replace(painted, prediction=moving).estimate()
    assert not appearance.albedo.requires_grad
    assert not appearance.light.requires_grad


# --- The pull on the geometry


def test_residuals_have_the_right_gradient(tiny_head, random_params) -> None:
    head = tiny_head(1)
    params = random_params(head, 2, seed=3, scale=0.2)
    pictures = 0.2 + 0.6 * uniform(2, 3, 9, 9)
    light = 0.2 * normal(1, 2, 9, 3, seed=6)
    light[:, :, 0] += 3.5
    appearance = EstimatedAppearance(
        albedo=uniform(head.num_vertices, 3, seed=4),
        vertex_weight=uniform(head.num_vertices, seed=5),
        light=light,
        valid=torch.ones(1, 2, dtype=torch.bool),
    )
    sight = uniform(2, head.num_vertices, seed=7)

    def summed(root: Tensor, expression: Tensor, scale: Tensor, offset: Tensor) -> tuple[Tensor, ...]:
        prediction = Prediction(
            params=replace(params, root_rotvec=root, expression=expression),
            camera=WeakPerspective(scale=scale, offset=offset),
        )
        colour, expected, weight = photometric_residuals(
            head, prediction, pictures, appearance, torch.tensor([1, 0]), Fixed(sight)
        )
        assert not weight.requires_grad
        gains = normal(*colour.shape, seed=8)
        loss = photometric_loss(colour, expected, weight)
        return (colour * gains).sum((1, 2)), (expected * gains).sum((1, 2)), loss

    scale = torch.tensor([6.0, 5.0], dtype=torch.float64)
    inputs = (params.root_rotvec, params.expression, scale, 0.1 * normal(2, 2))
    assert torch.autograd.gradcheck(summed, tuple(part.clone().requires_grad_() for part in inputs))


@pytest.fixture(scope="module")
def filmed(open_head: HeadModel) -> tuple[Prediction, Tensor, EstimatedAppearance]:
    """A rendered clip, its truth, and what is estimated there."""
    identity = open_head.template.new_zeros(open_head.num_identity)
    clip = make_talking_clip(open_head, identity, view_yaw_deg=(10.0,), time=8, size_px=160, seed=5)
    truth = Prediction(params=clip.truth, camera=clip.camera)
    pictures = clip.frames.permute(0, 1, 4, 2, 3)
    valid = torch.ones(pictures.shape[:2], dtype=torch.bool)
    return truth, pictures, estimate_appearance(open_head, truth, pictures, valid, Cosine())


@pytest.mark.parametrize("shift_px", [(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0), (1.5, -1.5)])
def test_a_shifted_head_is_pulled_back(
    open_head: HeadModel,
    filmed: tuple[Prediction, Tensor, EstimatedAppearance],
    shift_px: tuple[float, float],
) -> None:
    truth, pictures, appearance = filmed
    index = torch.arange(pictures.shape[1])

    def losses(offset: Tensor) -> Tensor:
        shifted = replace(truth[0], camera=truth[0].camera.placed(offset, truth[0].camera.magnification))
        found = photometric_residuals(open_head, shifted, pictures[0], appearance, index, Cosine())
        return photometric_loss(*found)

    shift = torch.tensor(shift_px) * (2 / pictures.shape[-1])
    offset = (truth[0].camera.position + shift).requires_grad_()
    away = losses(offset)
    away.sum().backward()
    assert offset.grad is not None
    # In every image: downhill is towards the truth, where the loss is lower.
    assert float((offset.grad * shift).sum(-1).min()) > 0
    assert bool((away.detach() > 1.3 * losses(truth[0].camera.position)).all())


# --- The loss itself


def test_photometric_loss_equals_its_slow_twin() -> None:
    colour, expected, weight = uniform(3, 5, 3), uniform(3, 5, 3, seed=1), uniform(3, 5, seed=2)
    weight[0, 1:3] = 0
    weight[2] = 0
    found = photometric_loss(colour, expected, weight)
    for image in range(2):
        total = 0.0
        for point in range(5):
            squared = sum(float(colour[image, point, c] - expected[image, point, c]) ** 2 for c in range(3))
            distance = math.sqrt(squared + COLOUR_SOFTNESS**2) - COLOUR_SOFTNESS
            total += float(weight[image, point]) * distance
        assert float(found[image]) == pytest.approx(total / float(weight[image].sum()), abs=1e-12)
    assert float(found[2]) == 0
