"""The head model against its slow twin: loops over vertices, 4x4 matrices, sums written out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from neuface.errors import InputError
from neuface.head.model import HeadModel, LandmarkEmbedding
from neuface.structs import HeadParams, WeakPerspective

BATCHES = [(), (3,), (2, 3)]
PARAM_NAMES = tuple(item.name for item in fields(HeadParams))


def rows(tensor: Tensor, batch: tuple[int, ...]) -> list[NDArray[np.float64]]:
    """One array per batch item, in order."""
    count = int(np.prod(batch, dtype=int))
    return list(tensor.detach().numpy().reshape(count, *tensor.shape[len(batch) :]))


def params_items(params: HeadParams, batch: tuple[int, ...]) -> list[dict[str, NDArray[np.float64]]]:
    columns = {name: rows(getattr(params, name), batch) for name in PARAM_NAMES}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def slow_blend(
    template: Tensor, identity_basis: Tensor, expression_basis: Tensor, item: dict[str, NDArray[np.float64]]
) -> NDArray[np.float64]:
    points = template.numpy().copy()
    for number, amount in enumerate(item["identity"]):
        points += amount * identity_basis.numpy()[:, :, number]
    for number, amount in enumerate(item["expression"]):
        points += amount * expression_basis.numpy()[:, :, number]
    return points


def slow_vertices(head: HeadModel, item: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Blend shapes, a chain of 4x4 matrices, and the weighted sum of each vertex after every joint's transform."""
    shaped = slow_blend(head.template, head.identity_basis, head.expression_basis, item)
    joints = slow_blend(head.joint_template, head.joint_identity_basis, head.joint_expression_basis, item)
    turns = (item["root_rotvec"], item["neck_rotvec"], item["jaw_rotvec"], *item["eyes_rotvec"])
    world: list[NDArray[np.float64]] = []
    for joint, parent in enumerate(head.parents):
        # As in FLAME's code, each joint's frame is at its offset from the parent's.
        local = np.eye(4)
        local[:3, :3] = Rotation.from_rotvec(turns[joint]).as_matrix()
        local[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        world.append(local if parent < 0 else world[parent] @ local)
    posed = np.zeros_like(shaped)
    for vertex in range(len(shaped)):
        for joint in range(len(head.parents)):
            from_rest = np.eye(4)
            from_rest[:3, 3] = -joints[joint]
            moved = world[joint] @ from_rest @ np.append(shaped[vertex], 1.0)
            posed[vertex] += head.skinning_weights.numpy()[vertex, joint] * moved[:3]
    return posed


def slow_landmarks(head: HeadModel, item: dict[str, NDArray[np.float64]], scheme: str) -> NDArray[np.float64]:
    vertices, embedding = slow_vertices(head, item), head.embeddings[scheme]
    triangles, weights = embedding.triangles.numpy().copy(), embedding.barycentric.numpy().copy()
    yaws = embedding.contour_yaw_rad.numpy()
    if len(yaws):
        facing = Rotation.from_rotvec(item["root_rotvec"]) * Rotation.from_rotvec(item["neck_rotvec"])
        x, _, z = facing.apply([0.0, 0.0, 1.0])
        row = min(range(len(yaws)), key=lambda index: abs(yaws[index] - np.arctan2(x, z)))
        count = embedding.contour_triangles.shape[1]
        triangles[:count] = embedding.contour_triangles[row].numpy()
        weights[:count] = embedding.contour_barycentric[row].numpy()
    points = np.zeros((len(triangles), 3))
    for point, triangle in enumerate(triangles):
        for corner in range(3):
            points[point] += weights[point, corner] * vertices[head.faces[triangle, corner]]
    return points


@pytest.mark.parametrize("batch", BATCHES)
def test_vertices_equal_the_slow_twin(tiny_head, random_params, batch: tuple[int, ...]) -> None:
    head = tiny_head()
    params = random_params(head, *batch, seed=len(batch), scale=0.8)
    vertices = head.vertices(params)
    assert vertices.shape == (*batch, 30, 3)
    for found, item in zip(rows(vertices, batch), params_items(params, batch), strict=True):
        np.testing.assert_allclose(found, slow_vertices(head, item), atol=1e-12)


@pytest.mark.parametrize("scheme", ["ibug68", "mediapipe478"])
@pytest.mark.parametrize("batch", BATCHES)
def test_landmarks_equal_the_slow_twin(tiny_head, random_params, batch: tuple[int, ...], scheme: str) -> None:
    head = tiny_head(seed=1)
    params = random_params(head, *batch, seed=5 + len(batch), scale=0.6)
    points = head.landmarks(params, scheme)
    assert points.shape == (*batch, 68 if scheme == "ibug68" else 478, 3)
    for found, item in zip(rows(points, batch), params_items(params, batch), strict=True):
        np.testing.assert_allclose(found, slow_landmarks(head, item, scheme), atol=1e-12)


def test_contour_rows_follow_the_yaw_and_clamp_at_the_ends(tiny_head, random_params) -> None:
    head = tiny_head()
    yaws = head.embeddings["ibug68"].contour_yaw_rad
    cases = {-1.5: 0, -0.81: 0, -0.54: 1, -0.2: 1, 0.1: 2, 0.19: 2, 0.21: 3, 0.66: 4, 1.5: 4, 3.0: 4}
    for yaw, row in cases.items():
        assert int((yaws - yaw).abs().argmin()) == row, "the expected row of this test is wrong"
        # Root and neck each contribute half of the rotation.
        half = torch.tensor([0.0, yaw / 2, 0.0], dtype=torch.float64)
        params = replace(random_params(head, scale=0.2), root_rotvec=half, neck_rotvec=half)
        embedding = head.embeddings["ibug68"]
        corners = head.faces[embedding.contour_triangles[row]]
        expected = (head.vertices(params)[corners] * embedding.contour_barycentric[row][..., None]).sum(-2)
        torch.testing.assert_close(head.landmarks(params, "ibug68")[:17], expected)


def test_sliding_points_can_be_fixed_while_the_head_turns(tiny_head, random_params) -> None:
    head = tiny_head()
    drawn = random_params(head, 3, seed=2, scale=0.6)
    turned = replace(drawn, neck_rotvec=torch.zeros_like(drawn.neck_rotvec))
    fixed = head.landmarks(turned, "ibug68", facing=turned.unposed())
    row = int(head.embeddings["ibug68"].contour_yaw_rad.abs().argmin())
    corners = head.faces[head.embeddings["ibug68"].contour_triangles[row]]
    weights = head.embeddings["ibug68"].contour_barycentric[row][..., None]
    torch.testing.assert_close(fixed[:, :17], (head.vertices(turned)[:, corners] * weights).sum(-2))
    torch.testing.assert_close(fixed[:, 17:], head.landmarks(turned, "ibug68")[:, 17:])
    torch.testing.assert_close(
        head.landmarks(turned, "ibug68", facing=turned), head.landmarks(turned, "ibug68")
    )


def test_each_image_of_a_batch_has_its_own_contour_row(tiny_head) -> None:
    head = tiny_head()
    turns = torch.zeros(3, 3, dtype=torch.float64)
    turns[:, 1] = torch.tensor([-1.0, 0.0, 1.0])
    together = head.landmarks(replace(head.neutral(3), root_rotvec=turns), "ibug68")
    for number in range(3):
        alone = head.landmarks(replace(head.neutral(), root_rotvec=turns[number]), "ibug68")
        torch.testing.assert_close(together[number], alone)


@pytest.mark.parametrize("which", ["vertices", "landmarks"])
def test_gradients_of_vertices_and_landmarks_are_those_of_finite_differences(
    tiny_head, random_params, which: str
) -> None:
    head = tiny_head()
    params = random_params(head, 2, seed=3)
    leaves = [getattr(params, name).requires_grad_() for name in PARAM_NAMES]

    def run(*values: Tensor) -> Tensor:
        given = HeadParams(**dict(zip(PARAM_NAMES, values, strict=True)))
        return head.vertices(given) if which == "vertices" else head.landmarks(given, "ibug68")

    assert torch.autograd.gradcheck(run, leaves)


def test_gradients_of_the_projection() -> None:
    scale = torch.tensor([3.0, 5.0], dtype=torch.float64, requires_grad=True)
    offset = torch.tensor([[0.1, -0.2], [0.0, 0.3]], dtype=torch.float64, requires_grad=True)
    points = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)

    def project(scale: Tensor, offset: Tensor, points: Tensor) -> Tensor:
        return WeakPerspective(scale=scale, offset=offset).project(points)

    assert torch.autograd.gradcheck(project, (scale, offset, points))


def test_projection_maps_left_up_and_forward_to_image_axes() -> None:
    camera = WeakPerspective(scale=torch.tensor(4.0), offset=torch.tensor([0.5, -0.25]))
    point = torch.tensor([[0.1, 0.2, 0.3]])
    torch.testing.assert_close(camera.project(point), torch.tensor([[0.4 + 0.5, -0.8 - 0.25]]))
    torch.testing.assert_close(camera.to_image(point)[0, 2], torch.tensor(-1.2))


@pytest.mark.parametrize("length", [0.0, 1e-12, 1e-7, 1e-4, torch.pi - 1e-7, torch.pi, torch.pi + 1e-7])
def test_gradients_are_finite_near_the_identity_and_half_turns(tiny_head, length: float) -> None:
    head = tiny_head(dtype=torch.float32)
    direction = torch.nn.functional.normalize(torch.tensor([1.0, -2.0, 0.5]), dim=0)
    for name in ("root_rotvec", "neck_rotvec", "jaw_rotvec", "eyes_rotvec"):
        neutral = head.neutral()
        turn = (getattr(neutral, name) + length * direction).requires_grad_()
        params = replace(neutral, **{name: turn})
        loss = head.vertices(params).square().sum() + head.landmarks(params, "ibug68").square().sum()
        (gradient,) = torch.autograd.grad(loss, turn)
        assert bool(gradient.isfinite().all()), name


def test_the_root_turns_the_head_rigidly_about_its_joint(tiny_head, random_params) -> None:
    head = tiny_head()
    params = random_params(head, 4, seed=9, scale=0.7)
    rest = head.vertices(params.unposed())
    pivot = head.joints(params)[:, :1]
    turn = torch.from_numpy(Rotation.from_rotvec(params.root_rotvec.numpy()).as_matrix())
    expected = (rest - pivot) @ turn.mT + pivot
    torch.testing.assert_close(head.vertices(params), expected)


def test_shorter_codes_are_padded_with_zeros(tiny_head, random_params) -> None:
    head = tiny_head()
    params = random_params(head, 2)
    short = replace(params, identity=params.identity[:, :4], expression=params.expression[:, :2])
    padded = replace(params, identity=params.identity.clone(), expression=params.expression.clone())
    padded.identity[:, 4:] = 0
    padded.expression[:, 2:] = 0
    torch.testing.assert_close(head.vertices(short), head.vertices(padded))
    torch.testing.assert_close(head.joints(short), head.joints(padded))


@pytest.mark.parametrize(("name", "size"), [("identity", 6), ("expression", 5)])
def test_longer_codes_belong_to_another_head(tiny_head, name: str, size: int) -> None:
    head = tiny_head()
    params = replace(head.neutral(), **{name: torch.zeros(size + 1, dtype=torch.float64)})
    with pytest.raises(InputError, match=rf"{name} has {size + 1} coefficients .*'tiny-0' has {size}"):
        head.vertices(params)
    with pytest.raises(InputError, match="another head model"):
        head.joints(params)


def test_an_unknown_scheme_is_refused(tiny_head) -> None:
    head = tiny_head()
    with pytest.raises(InputError, match=r"no landmark embedding 'wflw98'.*ibug68, mediapipe478"):
        head.landmarks(head.neutral(), "wflw98")


def test_moving_to_another_dtype_keeps_integers(tiny_head) -> None:
    head = tiny_head()
    head.landmarks(head.neutral(), "ibug68")
    moved = head.to(torch.float32)
    for name, tensor in moved.named_tensors().items():
        before = head.named_tensors()[name]
        assert tensor.dtype == (torch.float32 if before.is_floating_point() else before.dtype), name
    # The second copy uses nothing that was computed and cached for the first.
    assert moved.landmarks(moved.neutral(), "ibug68").dtype == torch.float32
    torch.testing.assert_close(
        moved.vertices(moved.neutral()).double(), head.vertices(head.neutral()), atol=1e-7, rtol=0
    )


def test_the_hash_depends_on_every_number(tiny_head) -> None:
    head = tiny_head()
    reference = head.content_hash()
    assert tiny_head().content_hash() == reference
    assert replace(head).content_hash() == reference
    head.landmarks(head.neutral(), "ibug68")
    assert head.content_hash() == reference, "using a model must not change its hash"
    changed_hashes = set()
    for name, tensor in head.named_tensors().items():
        if tensor.numel() == 0:
            continue
        changed = tensor.clone()
        first = changed.view(-1)[:1]
        first.copy_(~first if tensor.dtype == torch.bool else first + 1)
        changed_hashes.add(with_tensor(head, name, changed).content_hash())
    non_empty = sum(tensor.numel() > 0 for tensor in head.named_tensors().values())
    assert len(changed_hashes | {reference}) == non_empty + 1
    assert replace(head, name="other").content_hash() != reference
    assert replace(head, parents=(-1, 0, 0, 1, 1)).content_hash() != reference
    assert replace(head, expression_names=("a", "b", "c", "d", "e")).content_hash() != reference


def with_tensor(head: HeadModel, name: str, tensor: Tensor) -> HeadModel:
    """A copy with the tensor of that flat name replaced."""
    kind, _, rest = name.partition(".")
    if kind == "region":
        return replace(head, regions={**head.regions, rest: tensor})
    if kind == "embedding":
        scheme, _, part = rest.partition(".")
        changed = replace(head.embeddings[scheme], **{part: tensor})
        return replace(head, embeddings={**head.embeddings, scheme: changed})
    return replace(head, **{name: tensor})


def test_regions_and_embeddings_have_names_in_the_flat_form(tiny_head) -> None:
    names = set(tiny_head().named_tensors())
    parts = {item.name for item in fields(LandmarkEmbedding)} - {"contour_angle", "mesh_points"}
    assert {"region.neck", "region.face"} <= names
    assert {f"embedding.ibug68.{part}" for part in parts} <= names


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_gives_the_same_numbers(open_head: HeadModel, random_params: Callable[..., HeadParams]) -> None:
    params = random_params(open_head, 3)
    on_device = open_head.to("cuda")
    moved = params.to("cuda")
    torch.testing.assert_close(on_device.vertices(moved).cpu(), open_head.vertices(params), atol=2e-6, rtol=0)
    for scheme in ("ibug68", "mediapipe478"):
        torch.testing.assert_close(
            on_device.landmarks(moved, scheme).cpu(), open_head.landmarks(params, scheme), atol=2e-6, rtol=0
        )


def test_log_size_is_the_logarithm_of_the_mean_radius_to_first_order(tiny_head, random_params) -> None:
    head = tiny_head()
    face = head.regions["face"]
    radial = head.template - head.template[face].mean(0)
    basis = torch.cat((head.identity_basis[..., :5], radial[..., None]), dim=-1)
    head = replace(head, identity_basis=basis)
    code = torch.zeros(2, 6, dtype=torch.float64)
    code[1, 5] = 0.05
    torch.testing.assert_close(head.log_size(code), torch.tensor([0.0, 0.05], dtype=torch.float64))
    small = 1e-3 * random_params(head, 7).identity
    vertices = head.vertices(replace(head.neutral(7), identity=small))[:, face]
    radius, mean = (
        (points - points.mean(-2, keepdim=True)).square().sum((-1, -2)).sqrt()
        for points in (vertices, head.template[face])
    )
    torch.testing.assert_close(head.log_size(small), (radius / mean).log(), atol=1e-6, rtol=1e-3)
    # Shorter codes are padded with zeros here too.
    padded = torch.cat((small[:, :3], 0 * small[:, 3:]), dim=-1)
    torch.testing.assert_close(head.log_size(small[:, :3]), head.log_size(padded))


def test_what_is_cached_in_inference_mode_serves_gradients_later(tiny_head) -> None:
    """A copy of the model starts with empty caches, so that no cached tensor is of another dtype or basis."""
    head = tiny_head()
    code = torch.zeros(1, head.num_identity, dtype=torch.float64, requires_grad=True)
    with torch.inference_mode():
        head.log_size(head.neutral(1).identity)
        head.vertices(head.neutral(1))
    (head.log_size(code) + head.vertices(replace(head.neutral(1), identity=code)).sum()).sum().backward()
    assert code.grad is not None
    assert float(code.grad.abs().max()) > 0
    halved = replace(head, identity_basis=head.identity_basis / 2)
    ones = torch.ones(1, head.num_identity, dtype=torch.float64)
    torch.testing.assert_close(halved.log_size(ones), head.log_size(ones) / 2)
    assert head.to(torch.float32).log_size(ones.float()).dtype == torch.float32
