"""Self-occlusion against a slow ray test, and on plates, a sphere and the open head."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from neuface.errors import InputError
from neuface.geometry.meshes import vertex_normals
from neuface.head.model import HeadModel
from neuface.render import visibility as visibility_module
from neuface.render.visibility import vertex_visible
from neuface.structs import HEAD_TO_IMAGE_SIGNS, WeakPerspective


def slow_visible(vertices: Tensor, faces: Tensor, tolerance: float) -> list[bool]:
    """The slow twin: one ray per vertex towards the camera against one triangle after the other, in float64."""
    points = [[float(value) for value in row] for row in vertices.double()]
    result = []
    for number, (x, y, z) in enumerate(points):
        seen = True
        for corners in faces.tolist():
            if number in corners:
                continue
            (ax, ay, az), (bx, by, bz), (cx, cy, cz) = (points[corner] for corner in corners)
            area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            if area == 0:
                continue
            u = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / area
            v = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / area
            if u >= 0 and v >= 0 and u + v <= 1:
                seen &= az + u * (bz - az) + v * (cz - az) >= z - tolerance
        result.append(seen)
    return result


def size_of(vertices: Tensor) -> float:
    return float((vertices[:, :2].amax(0) - vertices[:, :2].amin(0)).max())


def plate(side: int, half: float, depth: float) -> tuple[Tensor, Tensor]:
    """A square grid of `side` by `side` vertices facing the camera."""
    ticks = torch.linspace(-half, half, side)
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    points = torch.stack((x, y, torch.full_like(x, depth)), -1).reshape(-1, 3)
    corner = (torch.arange(side - 1)[:, None] * side + torch.arange(side - 1)).reshape(-1)
    upper = torch.stack((corner, corner + 1, corner + side), 1)
    lower = torch.stack((corner + 1, corner + side + 1, corner + side), 1)
    return points, torch.cat((upper, lower))


def two_plates(near_depth: float, far_depth: float) -> tuple[Tensor, Tensor]:
    """A small plate (49 vertices) at one depth and one of twice its width (121 vertices) at another."""
    small, small_faces = plate(7, 1.0, near_depth)
    large, large_faces = plate(11, 2.03, far_depth)
    return torch.cat((small, large)), torch.cat((small_faces, large_faces + len(small)))


def turned_head(head: HeadModel, yaw_deg: float, pitch_deg: float = 0.0) -> Tensor:
    rotvec = torch.tensor([[math.radians(pitch_deg), math.radians(yaw_deg), 0.0]])
    posed = head.vertices(replace(head.neutral(1), root_rotvec=rotvec))[0]
    return posed * posed.new_tensor(HEAD_TO_IMAGE_SIGNS)


# --- Against the slow twin


@pytest.mark.parametrize("seed", range(4))
def test_a_head_of_a_few_vertices_equals_the_slow_twin(tiny_head, random_params, seed: int) -> None:
    head = tiny_head(seed)
    vertices = head.vertices(random_params(head, 3, seed=seed, scale=0.8)) * torch.tensor(HEAD_TO_IMAGE_SIGNS)
    found = vertex_visible(vertices, head.faces)
    for mesh in range(3):
        tolerance = 0.002 * size_of(vertices[mesh])
        assert found[mesh].tolist() == slow_visible(vertices[mesh], head.faces, tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tolerance", [0.0, 0.1])
def test_random_triangles_equal_the_slow_twin(tolerance: float, dtype: torch.dtype) -> None:
    """The triangles are as large as the mesh and intersect each other, and some vertices belong to no triangle."""
    generator = torch.Generator().manual_seed(5)
    vertices = torch.randn(60, 3, generator=generator, dtype=dtype)
    faces = torch.randint(50, (40, 3), generator=generator)
    found = vertex_visible(vertices, faces, tolerance)
    assert found.tolist() == slow_visible(vertices, faces, tolerance * size_of(vertices))
    assert 0 < int(found.sum()) < 60


@pytest.mark.parametrize("pairs", [13, 40, 700])
def test_number_of_pairs_at_once_and_batching_do_not_matter(
    tiny_head, random_params, monkeypatch: pytest.MonkeyPatch, pairs: int
) -> None:
    head = tiny_head()
    vertices = head.vertices(random_params(head, 2, 3, scale=0.8))
    whole = vertex_visible(vertices, head.faces)
    monkeypatch.setattr(visibility_module, "CPU_PAIRS", pairs)
    assert torch.equal(vertex_visible(vertices, head.faces), whole)
    assert torch.equal(vertex_visible(vertices[1, 2], head.faces), whole[1, 2])


# --- Shapes of known visibility


def test_a_plate_hides_what_is_behind_it() -> None:
    vertices, faces = two_plates(near_depth=1.0, far_depth=3.0)
    found = vertex_visible(vertices, faces)
    assert bool(found[:49].all())
    beneath = vertices[49:, :2].abs().amax(1) <= 1
    assert torch.equal(found[49:], ~beneath)
    assert 0 < int(beneath.sum()) < 121


def test_smaller_depth_is_nearer() -> None:
    """With the depths exchanged, the large plate hides all of the small one."""
    vertices, faces = two_plates(near_depth=1.0, far_depth=-3.0)
    found = vertex_visible(vertices, faces)
    assert not bool(found[:49].any())
    assert bool(found[49:].all())


def test_both_sides_of_a_triangle_hide() -> None:
    vertices, faces = two_plates(near_depth=1.0, far_depth=3.0)
    assert torch.equal(vertex_visible(vertices, faces.flip(1)), vertex_visible(vertices, faces))


def test_surfaces_that_touch_do_not_hide_each_other() -> None:
    vertices, faces = two_plates(near_depth=1.0, far_depth=1.004)  # of a mesh 4.06 wide
    assert bool(vertex_visible(vertices, faces, 0.002).all())
    assert not bool(vertex_visible(vertices, faces, 0.0005).all())


@pytest.mark.parametrize("slant_deg", [0, 45, 80, 89])
def test_a_slanted_surface_does_not_hide_itself(slant_deg: float) -> None:
    vertices, faces = plate(40, 1.0, 0.0)
    slant = math.radians(slant_deg)
    slanted = torch.stack(
        (vertices[:, 0] * math.cos(slant), vertices[:, 1], 5 + vertices[:, 0] * math.sin(slant)), 1
    )
    assert bool(vertex_visible(slanted, faces, 0.0).all())


@pytest.mark.parametrize("turn", [0.0, 0.7, 2.0])
def test_a_sphere_shows_its_front_half(icosphere: tuple[Tensor, Tensor], turn: float) -> None:
    points, faces = icosphere
    axis = torch.tensor([[0.0, math.cos(turn), 0.0, math.sin(turn)]], dtype=torch.float64)
    quarter = torch.linalg.matrix_exp(
        torch.cross(torch.eye(3).double(), axis[:, [0, 1, 3]].expand(3, 3), dim=1)
    )
    turned = points @ quarter
    found = vertex_visible(turned, faces)
    edge = 0.16  # the length of an edge: the outline is a polygon
    assert bool(found[turned[:, 2] < -edge].all())
    assert not bool(found[turned[:, 2] > edge].any())


def test_unit_position_and_mirroring_do_not_matter(open_head: HeadModel) -> None:
    vertices = turned_head(open_head, 35)
    found = vertex_visible(vertices, open_head.faces)
    camera = WeakPerspective(scale=torch.tensor(6.0), offset=torch.tensor([0.2, -0.4]))
    in_ndc = camera.to_image(vertices * vertices.new_tensor(HEAD_TO_IMAGE_SIGNS))
    assert float((vertex_visible(in_ndc, open_head.faces) == found).double().mean()) > 0.999
    mirrored = vertices * vertices.new_tensor([-1.0, 1.0, 1.0])
    assert float((vertex_visible(mirrored, open_head.faces) == found).double().mean()) > 0.999


# --- The open head


def test_the_nose_hides_part_of_the_far_side(open_head: HeadModel) -> None:
    """At 45 degrees, the subject's left side away from the camera, the nose hides vertices that face the camera."""
    vertices = turned_head(open_head, 45)
    visible = vertex_visible(vertices, open_head.faces)
    facing = vertex_normals(vertices, open_head.faces)[:, 2] < -math.cos(math.radians(72))
    side = open_head.template[:, 0]
    regions = open_head.regions
    cheek = regions["face"] & regions["skin"] & ~regions["lips"] & ~regions["nose"]
    assert int((cheek & facing & ~visible & (side > 0.008)).sum()) >= 8
    assert int((cheek & facing & ~visible & (side < -0.008)).sum()) == 0
    ahead = turned_head(open_head, 0)
    facing = vertex_normals(ahead, open_head.faces)[:, 2] < -math.cos(math.radians(72))
    hidden = cheek & facing & ~vertex_visible(ahead, open_head.faces)
    assert int(hidden.sum()) <= 2


@pytest.mark.parametrize(("yaw_deg", "low", "high"), [(0.0, 0.9, 1.0), (45.0, 0.7, 0.85), (90.0, 0.35, 0.5)])
def test_the_head_shows_less_of_its_face_the_further_it_turns(
    open_head: HeadModel, yaw_deg: float, low: float, high: float
) -> None:
    visible = vertex_visible(turned_head(open_head, yaw_deg), open_head.faces)
    regions, side = open_head.regions, open_head.template[:, 0]
    assert low < float(visible[regions["face"]].double().mean()) < high
    assert not bool(visible[regions["mouth_interior"]].any())
    if yaw_deg == 90:
        assert not bool(visible[regions["face"] & (side > 0.02)].any())
        assert float(visible[regions["face"] & (side < -0.02)].double().mean()) > 0.8


def test_left_and_right_mirror_each_other(open_head: HeadModel) -> None:
    template = open_head.template
    partner = torch.cdist(template * template.new_tensor([-1.0, 1.0, 1.0]), template).argmin(1)
    left, right = (vertex_visible(turned_head(open_head, yaw), open_head.faces) for yaw in (40.0, -40.0))
    assert float((left == right[partner]).double().mean()) > 0.995
    assert abs(int(left.sum()) - int(right.sum())) <= 20
    assert float((left == right).double().mean()) < 0.8


# --- Degenerate and wrong input


def test_nothing_hides_without_triangles_or_area() -> None:
    vertices = torch.rand(2, 5, 3)
    assert bool(vertex_visible(vertices, torch.zeros(0, 3, dtype=torch.long)).all())
    assert bool(vertex_visible(vertices, torch.tensor([[0, 1, 1], [2, 2, 2]])).all())
    assert bool(vertex_visible(torch.zeros(5, 3), torch.tensor([[0, 1, 2]])).all())
    assert vertex_visible(torch.zeros(0, 5, 3), torch.tensor([[0, 1, 2]])).shape == (0, 5)


def test_wrong_input_is_refused() -> None:
    faces = torch.tensor([[0, 1, 2]])
    with pytest.raises(InputError, match="not finite"):
        vertex_visible(torch.full((3, 3), math.nan), faces)
    with pytest.raises(InputError, match="expected indices 0 to 1, got 0 to 2"):
        vertex_visible(torch.zeros(2, 3), faces)
    with pytest.raises(InputError, match="relative_tolerance must be 0 or more"):
        vertex_visible(torch.zeros(3, 3), faces, -1.0)
