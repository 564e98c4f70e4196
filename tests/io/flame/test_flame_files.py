"""FLAME files: every wire format and companion against the published truth, and files that must be refused.

The files are synthetic, in the licensed files' layout; see tests/data/parity/README.md.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_folders import PARITY

import neuface
from neuface.errors import InputError, NeufaceError
from neuface.head import versions
from neuface.head.model import HeadModel
from neuface.head.versions import check_flame_version, flame_version
from neuface.io.flame.companions import FlameCompanions, read_masks, read_template_uv
from neuface.io.flame.landmarks import read_ibug68, read_mediapipe105
from neuface.io.flame.model_file import EYELID_NAMES, FlameArrays, read_flame, read_flame_arrays
from neuface.io.heads import HEAD_FORMAT, is_written_head, read_head, write_head

TINY, BAD = PARITY / "flame_tiny", PARITY / "bad_files"
MODEL = TINY / "generic_model.pkl"
FORMATS = (
    "generic_model.pkl", "generic_model_p1_allchumpy.pkl", "flame_plain_py3.pkl", "FLAME_NEUTRAL.npz",
    "flame_truth.npz",
)  # fmt: skip
ARRAY_NAMES = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights")


@pytest.fixture(scope="module")
def truth() -> dict[str, np.ndarray]:
    return dict(np.load(TINY / "flame_truth.npz"))


@pytest.fixture(scope="module")
def arrays() -> FlameArrays:
    return read_flame_arrays(MODEL)


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return read_flame(MODEL, eyelids=True)


def linked(folder: Path, *names: str) -> Path:
    """A folder with only these of the tiny model's files, and the path of the first."""
    for name in names:
        (folder / name).symlink_to(TINY / name)
    return folder / names[0]


def written(path: Path, truth: dict[str, np.ndarray], **changes: Any) -> Path:
    """A plain pickle of the true arrays with some changed, or left out where the change is None."""
    content = {**truth, **changes}
    path.write_bytes(pickle.dumps({name: value for name, value in content.items() if value is not None}, 4))
    return path


# --- The model file


@pytest.mark.parametrize("name", FORMATS)
def test_every_wire_format_gives_the_true_arrays_exactly(name: str, truth: dict[str, np.ndarray]) -> None:
    found = read_flame_arrays(TINY / name)
    for key in ARRAY_NAMES:
        np.testing.assert_array_equal(getattr(found, key), truth[key], err_msg=key)


def test_safetensors_give_the_true_arrays_exactly(tmp_path: Path, truth: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    save_file({key: np.ascontiguousarray(value) for key, value in truth.items()}, tmp_path / "a.safetensors")
    found = read_flame_arrays(tmp_path / "a.safetensors")
    for key in ARRAY_NAMES:
        np.testing.assert_array_equal(getattr(found, key), truth[key], err_msg=key)


def test_the_head_holds_the_true_arrays_rounded_once(head: HeadModel, truth: dict[str, np.ndarray]) -> None:
    single = {name: torch.from_numpy(value).float() for name, value in truth.items() if value.dtype == float}
    assert torch.equal(head.template, single["v_template"])
    assert torch.equal(head.identity_basis, single["shapedirs"][..., :300])
    assert torch.equal(head.expression_basis, single["shapedirs"][..., 300:])
    assert head.pose_basis is not None
    assert torch.equal(head.pose_basis, single["posedirs"])
    assert torch.equal(head.skinning_weights, single["weights"])
    assert torch.equal(head.faces, torch.from_numpy(truth["f"].astype(np.int64)))
    assert (head.num_identity, head.num_expression) == (300, 102)
    assert head.expression_names[-2:] == EYELID_NAMES
    assert head.parents == (-1, 0, 1, 1, 1)


def test_all_formats_are_the_same_model_and_other_numbers_another(
    tmp_path: Path, truth: dict[str, np.ndarray], head: HeadModel
) -> None:
    hashes = {read_flame(TINY / name).parameter_hash() for name in FORMATS}
    assert len(hashes) == 1
    # Companion files do not change what the parameters mean; eyelids add two of them.
    alone = read_flame(linked(tmp_path, "generic_model.pkl"))
    assert alone.parameter_hash() in hashes
    assert alone.content_hash() != read_flame(MODEL).content_hash()
    assert head.parameter_hash() not in hashes
    for name in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights"):
        changed = truth[name].copy()
        changed.flat[7] += 1e-3
        other = read_flame(written(tmp_path / "b.pkl", truth, **{name: changed}))
        assert other.parameter_hash() not in hashes, name


def test_neither_chumpy_nor_scipy_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    # None makes any import of these fail.
    for name in ("chumpy", "chumpy.ch", "scipy", "scipy.sparse"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError):
        importlib.import_module("chumpy")
    for name in FORMATS[:2]:
        assert read_flame_arrays(TINY / name).v_template.shape == (209, 3)


# --- Versions


@pytest.mark.parametrize(
    ("file", "folders", "expected"),
    [
        ("generic_model.pkl", (), "flame"),
        ("generic_model.pkl", ("FLAME2020", "assets"), "flame2020"),
        ("generic_model.pkl", ("data", "flame_2019"), "flame2019"),
        ("male_model.pkl", ("FLAME2020",), "flame2020_male"),
        ("female_model.pkl", ("FLAME2017",), "flame2017_female"),
        ("flame2023.pkl", ("FLAME2020",), "flame2023"),
        ("flame2023_no_jaw.pkl", (), "flame2023_no_jaw"),
        ("flame2023_Open.pkl", (), "flame2023_open"),
        ("FLAME_NEUTRAL.npz", ("2020",), "flame"),
        ("FLAME_FEMALE.pkl", ("flame2020",), "flame2020_female"),
    ],
)
def test_names_determine_the_version(file: str, folders: tuple[str, ...], expected: str) -> None:
    assert flame_version(file, folders) == expected


def test_a_known_hash_takes_precedence_over_the_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "KNOWN_PARAMETER_HASHES", {"abc": "flame2019"})
    assert flame_version("flame2023.pkl", (), "abc") == "flame2019"
    assert flame_version("flame2023.pkl", (), "abd") == "flame2023"


def test_a_stated_version_is_used_and_must_exist(tmp_path: Path) -> None:
    path = linked(tmp_path, "generic_model.pkl")
    assert read_flame(path, version="flame2020").name == "flame2020"
    assert check_flame_version("flame2020_female") == "flame2020_female"
    with pytest.raises(InputError, match=r"unknown FLAME version 'flame2021'.*flame2023_no_jaw"):
        read_flame(path, version="flame2021")
    folder = tmp_path / "FLAME2020"
    folder.mkdir()
    assert read_flame(linked(folder, "generic_model.pkl")).name == "flame2020"


# --- Companion files


def test_landmark_embeddings_are_exact() -> None:
    truth = np.load(TINY / "landmark_truth.npz")
    faces = len(np.load(TINY / "flame_truth.npz")["f"])
    found = read_ibug68(TINY / "landmark_embedding.npy", None, None, faces)
    sliding, whole = found["ibug68"], found["ibug68_3d"]
    np.testing.assert_array_equal(sliding.triangles[17:], truth["static_lmk_faces_idx"])
    np.testing.assert_array_equal(sliding.barycentric[17:], truth["static_lmk_bary_coords"])
    np.testing.assert_array_equal(whole.triangles, truth["full_lmk_faces_idx"][0])
    np.testing.assert_array_equal(whole.barycentric, truth["full_lmk_bary_coords"][0])
    # Rows of the file: 0 to +39 degrees, then -1 to -39; ours ascend.
    for row, degrees in enumerate(range(-39, 40)):
        theirs = degrees if degrees >= 0 else 39 - degrees
        assert float(sliding.contour_yaw_rad[row].rad2deg()) == pytest.approx(degrees)
        np.testing.assert_array_equal(sliding.contour_triangles[row], truth["dynamic_lmk_faces_idx"][theirs])
        np.testing.assert_array_equal(
            sliding.contour_barycentric[row], truth["dynamic_lmk_bary_coords"][theirs]
        )
    older = read_ibug68(
        None, TINY / "flame_static_embedding.pkl", TINY / "flame_dynamic_embedding.npy", faces
    )
    assert list(older) == ["ibug68"]
    for part in ("triangles", "barycentric", "contour_triangles", "contour_barycentric"):
        torch.testing.assert_close(getattr(older["ibug68"], part), getattr(sliding, part), atol=1e-7, rtol=0)
    mediapipe = np.load(TINY / "mediapipe_landmark_embedding.npz")
    dense = read_mediapipe105(TINY / "mediapipe_landmark_embedding.npz", faces)
    np.testing.assert_array_equal(dense.triangles, mediapipe["lmk_face_idx"])
    np.testing.assert_array_equal(dense.barycentric, mediapipe["lmk_b_coords"])
    assert dense.mesh_points is not None
    np.testing.assert_array_equal(dense.mesh_points, mediapipe["landmark_indices"])


def test_masks_template_and_eyelids_are_exact(head: HeadModel) -> None:
    masks = np.load(TINY / "masks_truth.npz")
    assert set(head.regions) == set(masks.files)
    for name in masks.files:
        np.testing.assert_array_equal(head.region(name).nonzero()[:, 0], np.unique(masks[name]))
    template = np.load(TINY / "template_truth.npz")
    np.testing.assert_array_equal(head.uv, template["uv"].astype(np.float32))
    np.testing.assert_array_equal(head.uv_faces, template["uv_faces"])
    assert head.posed_basis is not None
    for column, name in enumerate(("l_eyelid.npy", "r_eyelid.npy")):
        np.testing.assert_array_equal(head.posed_basis[..., column], np.load(TINY / name).astype(np.float32))


def test_uv_follows_the_models_own_order_of_triangles_and_corners(arrays: FlameArrays) -> None:
    template = np.load(TINY / "template_truth.npz")
    generator = np.random.default_rng(0)
    order = generator.permutation(len(arrays.f))
    start = generator.integers(0, 3, len(order))
    turned = (np.arange(3) + start[:, None]) % 3
    faces = np.take_along_axis(arrays.f[order], turned, 1)
    uv, uv_faces = read_template_uv(TINY / "head_template.obj", faces, len(arrays.v_template))
    np.testing.assert_array_equal(uv_faces, np.take_along_axis(template["uv_faces"][order], turned, 1))
    np.testing.assert_allclose(uv, template["uv"], atol=1e-7)
    with pytest.raises(InputError, match="other triangles"):
        read_template_uv(TINY / "head_template.obj", np.roll(faces, 1, axis=0) * 0, len(arrays.v_template))
    with pytest.raises(InputError, match="394 triangles"):
        read_template_uv(TINY / "head_template.obj", faces[1:], len(arrays.v_template))


def test_missing_companions_are_named_when_they_are_needed(tmp_path: Path) -> None:
    alone = read_flame(linked(tmp_path, "generic_model.pkl"))
    assert alone.vertices(alone.neutral()).shape == (209, 3)
    assert len(alone.uv) == len(alone.uv_faces) == 0
    for scheme, name in (
        ("ibug68", "landmark_embedding.npy"), ("ibug68_3d", "landmark_embedding.npy"),
        ("mediapipe105", "mediapipe_landmark_embedding.npz"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=rf"no landmark embedding '{scheme}'.* put {name}"):
            alone.landmarks(alone.neutral(), scheme)
    with pytest.raises(InputError, match=r"no region 'lips'.* put FLAME_masks.pkl"):
        alone.region("lips")
    with pytest.raises(InputError, match=r"no region 'elbow'; it has none$"):
        alone.region("elbow")
    with pytest.raises(InputError, match=r"eyelids were asked for.*l_eyelid\.npy"):
        read_flame(tmp_path / "generic_model.pkl", eyelids=True)


def test_companions_can_be_in_other_folders(tmp_path: Path, head: HeadModel) -> None:
    path = linked(tmp_path, "generic_model.pkl")
    given = FlameCompanions(
        landmarks=TINY / "landmark_embedding.npy",
        mediapipe=str(TINY / "mediapipe_landmark_embedding.npz"),
        masks=TINY / "FLAME_masks.pkl",
        template=TINY / "head_template.obj",
        left_eyelid=TINY / "l_eyelid.npy",
        right_eyelid=TINY / "r_eyelid.npy",
    )
    found = read_flame(path, companions=given, eyelids=True)
    assert found.content_hash() == head.content_hash()
    with pytest.raises(InputError, match=r"none\.npy: there is no such file"):
        read_flame(path, companions=FlameCompanions(landmarks=tmp_path / "none.npy"))


@pytest.mark.parametrize(
    ("name", "key", "value", "reason"),
    [
        ("FLAME_masks.pkl", "lips", np.array([3, 209]), "'lips' names vertices that do not exist"),
        ("FLAME_masks.pkl", "lips", np.array([3.5]), "'lips' has the type float64"),
        (
            "landmark_embedding.npy",
            "static_lmk_faces_idx",
            np.full(51, 394),
            "names triangles that do not exist",
        ),
        (
            "landmark_embedding.npy",
            "static_lmk_faces_idx",
            np.full(50, 3),
            r"the shape \(50,\); expected \(51\)",
        ),
        ("landmark_embedding.npy", "full_lmk_bary_coords", np.full((1, 68, 3), np.nan), "not finite"),
        ("landmark_embedding.npy", "dynamic_lmk_bary_coords", None, "has no 'dynamic_lmk_bary_coords'"),
    ],
)
def test_damaged_companions_and_those_of_another_mesh_are_refused(
    tmp_path: Path, name: str, key: str, value: np.ndarray | None, reason: str
) -> None:
    truth = "masks_truth.npz" if "masks" in name else "landmark_truth.npz"
    content = {**np.load(TINY / truth), key: value}
    content = {name: array for name, array in content.items() if array is not None}
    (tmp_path / name).write_bytes(pickle.dumps(content, 2))
    masks = "masks" in name
    with pytest.raises(InputError, match=rf"{name}: .*{reason}"):
        read_masks(tmp_path / name, 209) if masks else read_ibug68(tmp_path / name, None, None, 394)


# --- Files that must be refused


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("exec_os_system.pkl", "system"),
        ("exec_builtin_eval.pkl", "eval"),
        ("exec_builtin_eval_proto4.pkl", "eval"),
        ("exec_numpy_runstring.pkl", "runstring"),
        ("exec_inside_chumpy_state.pkl", "system"),
        ("exec_object_array.npy", "system"),
        ("exec_nested_torch_bytes.npy", "system"),
        ("exec_checkpoint_zip.tar", "without any array"),
        ("exec_checkpoint_legacy.tar", "expected a dictionary"),
        ("exec_lightning.ckpt", "without any array"),
        ("truncated.pkl", "ends too early"),
        ("missing_posedirs.pkl", "posedirs missing"),
        ("wrong_shapes.pkl", r"'shapedirs' has the shape \(4, 3, 150\); expected \(4, 3, 400\)"),
        ("nan_v_template.pkl", "'v_template' has values that are not finite"),
        ("face_index_out_of_range.pkl", "'f' names vertices that do not exist; expected 0 to 3"),
        ("not_a_dict.pkl", "holds a list; expected a dictionary"),
        ("git_lfs_pointer.pkl", "git lfs pull"),
    ],
)
def test_bad_files_are_refused_by_name_and_no_code_is_executed(
    name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"{name}: .*{reason}"):
        neuface.load_head(str(BAD / name))
    with pytest.raises(InputError, match=name):
        read_ibug68(BAD / name, None, None, 394)
    with pytest.raises(InputError, match=name):
        read_masks(BAD / name, 209)
    assert list(tmp_path.iterdir()) == []


def test_the_intact_twin_of_the_bad_files_is_accepted() -> None:
    assert read_flame_arrays(BAD / "ok_micro_model.pkl").v_template.shape == (4, 3)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"f": np.zeros((394, 3))}, "'f' has the type float64; expected whole numbers"),
        ({"f": np.full((394, 3), -1)}, "'f' names vertices"),
        ({"f": np.zeros((0, 3), int)}, "'f' names vertices"),
        ({"weights": np.ones((209, 4))}, r"'weights' has the shape \(209, 4\); expected \(209, 5\)"),
        ({"J_regressor": np.ones((5, 208))}, "'J_regressor' has the shape"),
        ({"posedirs": np.full((209, 3, 36), np.inf)}, "'posedirs' has values that are not finite"),
        ({"posedirs": "text"}, "'posedirs' is a str; expected an array"),
        ({"kintree_table": np.array([[-1, 0, 0, 1, 1], range(5)])}, "'kintree_table' has the parents"),
        ({"v_template": None, "weights": None}, "v_template, weights missing"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, truth: dict[str, np.ndarray], changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=rf"a\.pkl: .*{reason}"):
        read_flame_arrays(written(tmp_path / "a.pkl", truth, **changes))


# --- load_head and head files


def test_load_head_reads_files_folders_and_written_heads(tmp_path: Path, head: HeadModel) -> None:
    (tmp_path / "FLAME2020").mkdir()
    path = linked(tmp_path / "FLAME2020", "generic_model.pkl", "landmark_embedding.npy")
    from_file, from_folder = neuface.load_head(path), neuface.load_head(str(path.parent))
    assert from_file.name == from_folder.name == "flame2020"
    assert from_file.content_hash() == from_folder.content_hash()
    write_head(tmp_path / "a.safetensors", from_file)
    assert neuface.load_head(tmp_path / "a.safetensors").content_hash() == from_file.content_hash()
    with pytest.raises(InputError, match="several FLAME model files"):
        neuface.load_head(TINY)
    with pytest.raises(InputError, match="holds no FLAME model file"):
        neuface.load_head(tmp_path)
    for missing in (tmp_path / "none.pkl", "a\0b", "a" * 5000):
        with pytest.raises(InputError, match="no such file or folder"):
            neuface.load_head(missing)


@pytest.mark.parametrize("which", ["whole", "bare"])
def test_written_heads_are_read_back_unchanged(tmp_path: Path, head: HeadModel, which: str) -> None:
    before = head if which == "whole" else read_flame(linked(tmp_path, "generic_model.pkl"))
    write_head(tmp_path / "a.safetensors", before)
    after = read_head(tmp_path / "a.safetensors")
    assert after.content_hash() == before.content_hash()
    assert after.parameter_hash() == before.parameter_hash()
    assert after.absent == before.absent
    assert after.named_tensors().keys() == before.named_tensors().keys()
    if which == "whole":
        assert after.embeddings["ibug68"].contour_angle == "lateral_depth"


def test_heads_without_flame_parts_have_the_first_format(tmp_path: Path, tiny_head) -> None:
    from safetensors import safe_open

    for head, expected in ((tiny_head(), HEAD_FORMAT), (read_flame(MODEL), "neuface-head-2")):
        write_head(tmp_path / "a.safetensors", head)
        assert is_written_head(tmp_path / "a.safetensors")
        with safe_open(tmp_path / "a.safetensors", framework="pt") as archive:
            metadata = archive.metadata()
        assert metadata["format"] == expected
        assert ("contour_angles" in metadata) == (expected != HEAD_FORMAT)


def test_damaged_head_files_are_refused_by_part(tmp_path: Path, head: HeadModel) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    path = tmp_path / "a.safetensors"
    write_head(path, head)
    with safe_open(path, framework="pt") as archive:
        metadata = archive.metadata()
    tensors = {name: tensor.contiguous() for name, tensor in head.named_tensors().items()}
    cases: list[tuple[str, torch.Tensor]] = [
        ("faces", tensors["faces"] + 1), ("pose_basis", tensors["pose_basis"][:5].clone()),
        ("posed_basis", tensors["posed_basis"][:5].clone()), ("template", tensors["template"] * torch.nan),
        ("embedding.ibug68.contour_triangles", tensors["embedding.ibug68.contour_triangles"] - 1000),
        ("region.lips", torch.ones(3, dtype=torch.bool)),
    ]  # fmt: skip
    for name, tensor in cases:
        save_file(tensors | {name: tensor}, path, metadata=metadata)
        with pytest.raises(InputError, match=rf"(?s)damaged head model: .*{name}"):
            read_head(path)
    for key, value in (
        ("contour_angles", '{"ibug68": "up"}'),
        ("parents", "[-1, 0]"),
        ("parents", "[-1, 3, 1, 1, 1]"),
    ):
        save_file(tensors, path, metadata=metadata | {key: value})
        with pytest.raises(NeufaceError, match="damaged head model"):
            read_head(path)
