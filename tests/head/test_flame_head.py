"""The head model against the official programs' outputs on a synthetic model in FLAME's layout."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import roma
import torch
from data_folders import PARITY
from torch import Tensor

from neuface.errors import InputError
from neuface.head.model import HeadModel, contour_angle_rad, contour_row, nearest_row
from neuface.io.flame.model_file import read_flame
from neuface.structs import HeadParams, WeakPerspective

REFERENCE = PARITY / "reference"

DTYPES = [torch.float32, torch.float64]
TOLERANCE = 1e-6
PARAM_NAMES = tuple(item.name for item in fields(HeadParams))


@pytest.fixture(scope="module")
def heads() -> dict[torch.dtype, HeadModel]:
    model = PARITY / "flame_tiny" / "generic_model.pkl"
    return {dtype: read_flame(model, eyelids=True, dtype=dtype) for dtype in DTYPES}


@pytest.fixture(scope="module")
def flame() -> dict[str, np.ndarray]:
    return dict(np.load(REFERENCE / "flame.npz"))


@pytest.fixture(scope="module")
def lbs() -> dict[str, np.ndarray]:
    return dict(np.load(REFERENCE / "lbs.npz"))


def params_of(
    full_pose: np.ndarray, identity: np.ndarray, expression: np.ndarray, dtype: torch.dtype
) -> HeadParams:
    pose = torch.from_numpy(full_pose).to(dtype)
    return HeadParams(
        identity=torch.from_numpy(identity).to(dtype),
        expression=torch.from_numpy(expression).to(dtype),
        root_rotvec=pose[..., 0:3],
        neck_rotvec=pose[..., 3:6],
        jaw_rotvec=pose[..., 6:9],
        eyes_rotvec=pose[..., 9:15].unflatten(-1, (2, 3)),
    )


def flame_params(flame: dict[str, np.ndarray], dtype: torch.dtype) -> HeadParams:
    return params_of(flame["full_pose"], flame["shape"], flame["exp"], dtype)


def assert_near(found: Tensor, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=tolerance, rtol=0)


def row_of_table(row: Tensor) -> np.ndarray:
    """Our ascending rows as rows of the published table: 0 to +39 degrees, then -1 to -39."""
    degrees = row.numpy() - 39
    return np.where(degrees >= 0, degrees, 39 - degrees)


@pytest.mark.parametrize("dtype", DTYPES)
def test_vertices_and_landmarks_of_all_sets(
    heads: dict[torch.dtype, HeadModel], flame: dict[str, np.ndarray], dtype: torch.dtype
) -> None:
    head, params = heads[dtype], flame_params(flame, dtype)
    assert_near(head.vertices(params), flame["verts"])
    assert_near(head.landmarks(params, "ibug68"), flame["landmarks2d"])
    assert_near(head.landmarks(params, "ibug68_3d"), flame["landmarks3d"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_contour_rows_of_all_sets(
    heads: dict[torch.dtype, HeadModel], flame: dict[str, np.ndarray], dtype: torch.dtype
) -> None:
    embedding, params = heads[dtype].embeddings["ibug68"], flame_params(flame, dtype)
    row = contour_row(embedding, params)
    np.testing.assert_array_equal(row_of_table(row), flame["dynamic_row"])
    np.testing.assert_array_equal(embedding.contour_triangles[row], flame["dynamic_faces"])
    assert_near(embedding.contour_barycentric[row], flame["dynamic_bary"], 1e-7)
    angle = contour_angle_rad(params, embedding.contour_angle).rad2deg()
    assert_near(angle, flame["contour_angle_deg"], 1e-4)
    # The opposite sign gives other rows, which shows that the comparison above can fail.
    opposite = nearest_row(embedding.contour_yaw_rad, -contour_angle_rad(params, "lateral_depth"))
    assert (row_of_table(opposite) != flame["dynamic_row"]).sum() > 20


def test_the_two_angles_agree_on_turned_heads_and_differ_on_nodding_ones(
    heads: dict[torch.dtype, HeadModel],
) -> None:
    params = heads[torch.float64].neutral(2)
    params.root_rotvec[:, 1] = 0.5
    params.neck_rotvec[1, 0] = 0.6
    forward, lateral = (contour_angle_rad(params, angle) for angle in ("forward_azimuth", "lateral_depth"))
    # With R = Ry(0.5) Rx(0.6) both angles depend on Ry alone.
    assert forward.tolist() == pytest.approx([0.5, 0.5])
    assert lateral.tolist() == pytest.approx([0.5, 0.5])
    swapped = replace(params, root_rotvec=params.neck_rotvec, neck_rotvec=params.root_rotvec)
    forward, lateral = (contour_angle_rad(swapped, angle) for angle in ("forward_azimuth", "lateral_depth"))
    # With R = Rx(0.6) Ry(0.5) they also depend on Rx; the expected values use the columns written out.
    nod, yaw = torch.tensor([0.0, 0.6]).double(), torch.tensor(0.5).double()
    torch.testing.assert_close(forward, torch.atan2(yaw.sin(), nod.cos() * yaw.cos()))
    torch.testing.assert_close(lateral, torch.asin(nod.cos() * yaw.sin()))


def test_contour_rows_are_whole_degrees_up_to_39(heads: dict[torch.dtype, HeadModel]) -> None:
    head = heads[torch.float64]
    degrees = torch.tensor(
        [-90.0, -39.6, -38.51, -1.51, -0.49, 0.0, 0.51, 38.49, 40.0, 90.0], dtype=torch.float64
    )
    turns = torch.zeros(len(degrees), 3, dtype=torch.float64)
    turns[:, 1] = degrees.deg2rad()
    row = contour_row(head.embeddings["ibug68"], replace(head.neutral(len(degrees)), root_rotvec=turns))
    assert (row - 39).tolist() == [-39, -39, -39, -2, 0, 0, 1, 38, 39, 39]


def test_intermediate_results_equal_the_official_ones(
    heads: dict[torch.dtype, HeadModel], lbs: dict[str, np.ndarray]
) -> None:
    head = heads[torch.float32]
    params = params_of(lbs["full_pose"], lbs["betas"][:, :100], lbs["betas"][:, 100:], torch.float32)
    shaped = replace(head.neutral(4), identity=params.identity, expression=params.expression)
    assert_near(head.vertices(shaped), lbs["v_shaped"])
    assert_near(head.joints(params), lbs["joints_rest"])
    assert_near(head.vertices(params), lbs["verts"])
    row = contour_row(head.embeddings["ibug68"], params)
    np.testing.assert_array_equal(row_of_table(row), lbs["dynamic_row"])
    # With all weight on the unrotated root, only the pose correctives remain.
    on_root = torch.eye(5)[0].expand(209, 5)
    corrected = replace(head, skinning_weights=on_root).vertices(params.unposed())
    assert_near(corrected - head.vertices(shaped), lbs["pose_offsets"])
    # With all weight on one joint and no correctives, only that joint's transform remains.
    rest = torch.from_numpy(lbs["v_shaped"])
    for joint in range(5):
        alone = replace(head, skinning_weights=torch.eye(5)[joint].expand(209, 5), pose_basis=None)
        transform = torch.from_numpy(lbs["relative_transforms"][:, joint])
        expected = rest @ transform[:, :3, :3].mT + transform[:, None, :3, 3]
        assert_near(alone.vertices(params), expected.numpy())


def test_rotations_equal_the_official_ones(lbs: dict[str, np.ndarray]) -> None:
    expected = lbs["rodrigues_out"].copy()
    # The original divides zero by zero where the rotation vector is -1e-8 in all components.
    assert np.isnan(expected[2]).all()
    expected[2] = np.eye(3)
    assert_near(roma.rotvec_to_rotmat(torch.from_numpy(lbs["rodrigues_in"])), expected)


def test_projection_equals_the_official_one(flame: dict[str, np.ndarray]) -> None:
    stored = np.load(REFERENCE / "projection.npz")
    scale, shift = torch.from_numpy(stored["cam"][:, 0]), torch.from_numpy(stored["cam"][:, 1:])
    # DECA shifts before it scales and flips y afterwards.
    offset = scale[:, None] * shift * torch.tensor([1.0, -1.0])
    camera = WeakPerspective(scale=scale, offset=offset)
    assert_near(camera.project(torch.from_numpy(flame["landmarks2d"])), stored["landmarks2d_ndc"])
    assert_near(camera.to_image(torch.from_numpy(flame["landmarks3d"])), stored["landmarks3d_ndc"])
    assert_near(camera[:4].to_image(torch.from_numpy(flame["verts"][:4])), stored["verts_ndc"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_codes_of_the_encoders_decode_to_the_official_meshes(
    heads: dict[torch.dtype, HeadModel], dtype: torch.dtype
) -> None:
    deca, emoca = np.load(REFERENCE / "deca_encoder.npz"), np.load(REFERENCE / "emoca_encoder.npz")
    head, pose = heads[dtype], deca["code_pose"]
    for expression, posed, vertices in (
        (deca["code_exp"], pose, deca["decoded_verts"]),
        (emoca["expcode"], emoca["posecode"], emoca["verts"]),
        (emoca["jaw_expcode"], emoca["jaw_posecode"], emoca["jaw_verts"]),
    ):
        still = np.zeros((3, 3), np.float32)
        full_pose = np.concatenate((posed[:, :3], still, posed[:, 3:], still, still), axis=1)
        params = params_of(full_pose, deca["code_shape"], expression, dtype)
        assert_near(head.vertices(params), vertices)
    params = params_of(
        full_pose * 0 + np.pad(pose[:, :3], ((0, 0), (0, 12))), deca["code_shape"], expression, dtype
    )
    assert_near(head.joints(params), head.joints(params.unposed()).numpy())


@pytest.mark.parametrize("dtype", DTYPES)
def test_smirks_eyelids_and_300_identity_columns(
    heads: dict[torch.dtype, HeadModel], dtype: torch.dtype
) -> None:
    smirk, head = np.load(REFERENCE / "smirk_encoder.npz"), heads[dtype]
    still = np.zeros((3, 3), np.float32)
    full_pose = np.concatenate((smirk["pose_params"], still, smirk["jaw_params"], still, still), axis=1)
    gap = np.zeros((3, 50), np.float32)
    expression = np.concatenate((smirk["expression_params"], gap, smirk["eyelid_params"]), axis=1)
    params = params_of(full_pose, smirk["shape_params"], expression, dtype)
    assert_near(head.vertices(params), smirk["flame_vertices"])
    assert_near(head.landmarks(params, "ibug68"), smirk["flame_landmarks_fan"])
    assert_near(head.landmarks(params, "ibug68_3d"), smirk["flame_landmarks_fan_3d"])
    assert_near(head.landmarks(params, "mediapipe105"), smirk["flame_landmarks_mp"])


def test_mediapipe_points_of_emoca(heads: dict[torch.dtype, HeadModel]) -> None:
    deca, emoca = np.load(REFERENCE / "deca_encoder.npz"), np.load(REFERENCE / "emoca_encoder.npz")
    pose, still = emoca["posecode"], np.zeros((3, 3), np.float32)
    full_pose = np.concatenate((pose[:, :3], still, pose[:, 3:], still, still), axis=1)
    params = params_of(full_pose, deca["code_shape"], emoca["expcode"], torch.float32)
    assert_near(heads[torch.float32].landmarks(params, "mediapipe105"), emoca["flame_landmarks_mediapipe"])


# --- Invariants


@pytest.mark.parametrize("batch", [(), (4,), (2, 2), (2, 1, 2)])
def test_any_leading_shape_and_empty_batches(
    heads: dict[torch.dtype, HeadModel], flame: dict[str, np.ndarray], batch: tuple[int, ...]
) -> None:
    head, flat = heads[torch.float64], flame_params(flame, torch.float64)
    count = int(np.prod(batch, dtype=int))
    params = flat[20 : 20 + count].map_tensors(lambda tensor: tensor.reshape(*batch, *tensor.shape[1:]))
    vertices, points = head.vertices(params), head.landmarks(params, "ibug68")
    assert vertices.shape == (*batch, 209, 3)
    assert points.shape == (*batch, 68, 3)
    assert_near(vertices.reshape(-1, 209, 3), flame["verts"][20 : 20 + count])
    assert_near(points.reshape(-1, 68, 3), flame["landmarks2d"][20 : 20 + count])
    assert head.vertices(flat[:0]).shape == (0, 209, 3)


def test_shorter_codes_are_padded_and_longer_ones_refused(
    heads: dict[torch.dtype, HeadModel], flame: dict[str, np.ndarray]
) -> None:
    head, short = heads[torch.float32], flame_params(flame, torch.float32)[:3]
    long = replace(
        short,
        identity=torch.nn.functional.pad(short.identity, (0, 200)),
        expression=torch.nn.functional.pad(short.expression, (0, 52)),
    )
    assert torch.equal(head.vertices(short), head.vertices(long))
    assert torch.equal(head.joints(short), head.joints(long))
    for name, size in (("identity", 300), ("expression", 102)):
        with pytest.raises(InputError, match=rf"{name} has {size + 1} coefficients but .* has {size}"):
            head.vertices(replace(short, **{name: torch.zeros(3, size + 1)}))


def test_eyelids_do_not_turn_with_the_head(heads: dict[torch.dtype, HeadModel]) -> None:
    head = heads[torch.float64]
    turned = replace(head.neutral(2), root_rotvec=torch.tensor([[0.0, 1.0, 0.0], [0.3, -0.5, 0.2]]).double())
    for number, name in enumerate(("left_eyelid", "right_eyelid")):
        expression = turned.expression.clone()
        expression[:, head.expression_names.index(name)] = 0.7
        moved = head.vertices(replace(turned, expression=expression)) - head.vertices(turned)
        assert head.posed_basis is not None
        torch.testing.assert_close(moved, (0.7 * head.posed_basis[..., number]).expand(2, -1, -1))
        torch.testing.assert_close(head.joints(replace(turned, expression=expression)), head.joints(turned))


@pytest.mark.parametrize("which", ["vertices", "ibug68", "ibug68_3d"])
def test_gradients_of_vertices_and_landmarks_are_those_of_finite_differences(
    heads: dict[torch.dtype, HeadModel], flame: dict[str, np.ndarray], which: str
) -> None:
    head = heads[torch.float64]
    params = flame_params(flame, torch.float64)[20:22]
    # A few coefficients of every kind are tested, including the eyelids.
    leaves = {name: getattr(params, name).clone() for name in PARAM_NAMES}
    leaves["identity"] = leaves["identity"][:, :4]
    leaves["expression"] = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    leaves["neck_rotvec"] = torch.full((2, 3), 0.1, dtype=torch.float64)

    def run(*values: Tensor) -> Tensor:
        given = dict(zip(PARAM_NAMES, values, strict=True))
        first, eyelids = given["expression"].split((1, 2), dim=-1)
        given["expression"] = torch.cat((torch.nn.functional.pad(first, (0, 99)), eyelids), dim=-1)
        posed = HeadParams(**given)
        points = head.vertices(posed)[:, ::8] if which == "vertices" else head.landmarks(posed, which)
        return points

    inputs = tuple(leaf.requires_grad_() for leaf in leaves.values())
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


def test_gradients_are_finite_at_rest(heads: dict[torch.dtype, HeadModel]) -> None:
    head = heads[torch.float32]
    leaves = {name: getattr(head.neutral(2), name).requires_grad_() for name in PARAM_NAMES}
    params = HeadParams(**leaves)
    total = sum(head.landmarks(params, scheme).square().sum() for scheme in head.embeddings)
    gradients = torch.autograd.grad(total + head.vertices(params).square().sum(), list(leaves.values()))
    assert all(bool(gradient.isfinite().all()) and bool(gradient.abs().sum() > 0) for gradient in gradients)


def test_caches_filled_in_inference_mode_serve_a_fit(flame: dict[str, np.ndarray]) -> None:
    head = read_flame(PARITY / "flame_tiny" / "generic_model.pkl")
    params = flame_params(flame, torch.float32)[:2]
    with torch.inference_mode():
        head.vertices(params)
        head.landmarks(params, "ibug68")
    identity = params.identity.clone().requires_grad_()
    moved = replace(params, identity=identity)
    (head.vertices(moved).sum() + head.landmarks(moved, "ibug68").sum()).backward()
    assert identity.grad is not None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_gives_the_same_numbers(
    heads: dict[torch.dtype, HeadModel], flame: dict[str, np.ndarray]
) -> None:
    head = heads[torch.float32].to("cuda")
    params = flame_params(flame, torch.float32).to("cuda")
    assert_near(head.vertices(params).cpu(), flame["verts"], 2e-6)
    sure = ~flame["row_is_rounding_edge"]
    assert_near(head.landmarks(params, "ibug68").cpu()[sure], flame["landmarks2d"][sure], 2e-6)
    assert_near(head.landmarks(params, "ibug68_3d").cpu(), flame["landmarks3d"], 2e-6)
