"""DECA, EMOCA and SMIRK against the official programs' outputs on the same weights and images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from data_folders import PARITY
from torch import Tensor

from neuface.encoders.deca import DecaEncoder, decode_flame_code
from neuface.encoders.emoca import EmocaEncoder, pose_parts
from neuface.encoders.flame_encoder import FlameEncoder, camera_from_code, code_from_camera
from neuface.encoders.smirk import SmirkEncoder
from neuface.errors import InputError
from neuface.fitting.descent import freeze_normalisation
from neuface.io.flame.model_file import read_flame
from neuface.structs import Prediction

TOLERANCE = 5e-5
Reference = Callable[[str], dict[str, np.ndarray]]
LoadFormula = Callable[..., Any]
EncoderT = TypeVar("EncoderT", bound=FlameEncoder)


def close(found: Tensor, expected: np.ndarray, atol: float = TOLERANCE) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=atol, rtol=0)


def bare(make: Callable[[], EncoderT]) -> EncoderT:
    """An encoder built on the meta device, whose weights have no values."""
    with torch.device("meta"):
        return make()


@pytest.fixture(scope="module")
def deca(load_formula: LoadFormula) -> DecaEncoder:
    return load_formula(bare(DecaEncoder), E_flame=None)


@pytest.fixture(scope="module")
def smirk(formula: Callable[..., dict[str, Tensor]]) -> SmirkEncoder:
    encoder = bare(SmirkEncoder)
    encoder.load_state_dict(formula("smirk_encoder"), assign=True)
    return encoder.eval()


def emoca(load_formula: LoadFormula, *, jaw: bool = False) -> EmocaEncoder:
    return load_formula(bare(lambda: EmocaEncoder(jaw=jaw)), E_flame=None, E_expression=53 if jaw else None)


# --- The weights


def test_formula_reproduces_the_listed_numbers(formula_number: Callable[..., tuple[int, np.float32]]) -> None:
    shapes = {
        line.split("\t")[0]: tuple(int(n) for n in line.split("\t")[1].split("x") if n != "scalar")
        for name in ("SMIRK", "E_flame", "E_expression", "E_detail", "D_detail")
        for line in _prefixed(PARITY / "checkpoints" / f"keys_{name}.tsv", name)
    }
    rows = (PARITY / "checkpoints" / "formula_values.tsv").read_text().splitlines()[1:]
    assert len(rows) == 41
    for row in rows:
        key, index, known_hash, _, _, bits = row.split("\t")
        key_hash, value = formula_number(key, shapes[key], int(index))
        assert f"{key_hash:016x}" == known_hash
        assert np.array(value, dtype=">f4").tobytes().hex() == bits, row


def _prefixed(path: Path, name: str) -> list[str]:
    lines = path.read_text().splitlines()[1:]
    return lines if name == "SMIRK" else [f"{name}.{line}" for line in lines]


@pytest.mark.parametrize(
    ("network", "outputs", "row"),
    [
        ("E_flame", None, "E_flame"),
        ("E_expression", None, "E_expression"),
        ("E_expression", 53, "E_expression_53"),
        ("smirk_encoder", None, "smirk_encoder"),
    ],
)
def test_formula_reproduces_the_whole_networks(
    formula: Callable[..., dict[str, Tensor]], network: str, outputs: int | None, row: str
) -> None:
    lines = (PARITY / "checkpoints" / "formula_sha256.tsv").read_text().splitlines()
    known = {line.split("\t")[0]: line.split("\t")[3] for line in lines}
    digest = hashlib.sha256()
    for tensor in formula(network, outputs).values():
        digest.update(tensor.numpy().tobytes())
    assert digest.hexdigest() == known[row]


# --- The networks


@torch.no_grad()
def test_deca_equals_the_official_encoder(deca: DecaEncoder, pictures: Tensor, reference: Reference) -> None:
    known = reference("deca_encoder")
    features = deca.E_flame.encoder(pictures)
    close(features, known["E_flame_features"], 1e-4)
    code = deca.E_flame.layers(features)
    close(code, known["E_flame_parameters"])
    prediction = deca(deca.prepare(pictures[1:2]))
    _check_common(prediction, {name: known[f"code_{name}"][1:2] for name in ("shape", "exp", "pose", "cam")})


@torch.no_grad()
def test_emoca_equals_the_official_encoder(
    pictures: Tensor, reference: Reference, load_formula: LoadFormula
) -> None:
    coarse, known = reference("deca_encoder"), reference("emoca_encoder")
    shared = {"shape": coarse["code_shape"], "cam": coarse["code_cam"]}
    encoder = emoca(load_formula)
    plain = encoder(encoder.prepare(pictures))
    _check_common(plain, {**shared, "exp": known["expcode"], "pose": known["posecode"]})
    encoder = emoca(load_formula, jaw=True)
    jaw = encoder(encoder.prepare(pictures))
    _check_common(jaw, {**shared, "exp": known["jaw_expcode"], "pose": known["jaw_posecode"]})
    assert not torch.allclose(jaw.params.jaw_rotvec, plain.params.jaw_rotvec, atol=1e-3)


@torch.no_grad()
def test_smirk_equals_the_official_encoder(
    smirk: SmirkEncoder, pictures: Tensor, reference: Reference
) -> None:
    known = reference("smirk_encoder")
    for name, branch in (
        ("pose", smirk.pose_encoder),
        ("shape", smirk.shape_encoder),
        ("expression", smirk.expression_encoder),
    ):
        close(branch.encoder(pictures), known[f"features_{name}"], 1e-4)
    close(smirk.pose_encoder(pictures), known["pose_head_raw"])
    close(smirk.expression_encoder(pictures), known["expression_head_raw"])
    prediction = smirk(smirk.prepare(pictures))
    params = prediction.params
    close(params.identity, known["shape_params"])
    close(params.expression[:, :50], known["expression_params"])
    assert bool((params.expression[:, 50:100] == 0).all())
    close(params.expression[:, 100:], known["eyelid_params"])
    close(params.root_rotvec, known["pose_params"])
    close(params.jaw_rotvec, known["jaw_params"])
    close(code_from_camera(prediction.camera), known["cam"])


def test_smirk_truncates_grey_values(smirk: SmirkEncoder, pictures: Tensor) -> None:
    steps = smirk.prepare(pictures)
    assert torch.equal(steps, (pictures * 255).round().half())  # integers are unchanged
    assert torch.equal(smirk.prepare(pictures * 0 + 100.9 / 255), torch.full_like(steps, 100))


def _check_common(prediction: Prediction, code: dict[str, np.ndarray]) -> None:
    params = prediction.params
    close(params.identity, code["shape"])
    close(params.expression, code["exp"])
    close(params.root_rotvec, code["pose"][:, :3])
    close(params.jaw_rotvec, code["pose"][:, 3:])
    assert not params.neck_rotvec.any()
    assert not params.eyes_rotvec.any()
    close(code_from_camera(prediction.camera), code["cam"])


# --- The camera


@pytest.mark.parametrize(
    ("points", "seen"),
    [("landmarks2d", "landmarks2d_ndc"), ("landmarks3d", "landmarks3d_ndc"), ("verts", "verts_ndc")],
)
def test_projection_equals_the_official_one(reference: Reference, points: str, seen: str) -> None:
    known = reference("projection")
    cam = torch.from_numpy(known["cam"]).double()[: len(known[seen])]
    camera = camera_from_code(cam)
    head_frame = torch.from_numpy(reference("flame")[points]).double()[: len(cam)]
    # The official NDC has the centre of pixel 0 at -1, ours its edge: the difference is half a pixel of 224.
    half_pixel = torch.tensor([1 / 224, 1 / 224, 0.0])
    found = (camera.to_image(head_frame) - half_pixel)[..., : known[seen].shape[-1]]
    close(found, known[seen], 1e-6)
    torch.testing.assert_close(code_from_camera(camera), cam)


@pytest.mark.parametrize(
    ("scheme", "seen"), [("ibug68", "decoded_landmarks2d"), ("ibug68_3d", "decoded_landmarks3d")]
)
def test_codes_are_decoded_to_the_same_landmarks(reference: Reference, scheme: str, seen: str) -> None:
    known = reference("deca_encoder")
    head = read_flame(PARITY / "flame_tiny" / "generic_model.pkl")
    params, camera = decode_flame_code(torch.from_numpy(known["E_flame_parameters"]))
    half_pixel = torch.tensor([1 / 224, 1 / 224, 0.0])
    found = camera.to_image(head.landmarks(params, scheme)) - half_pixel
    close(found[..., : known[seen].shape[-1]], known[seen], 1e-5)


# --- What a fit may change


@pytest.mark.parametrize(
    ("trainable", "changing"),
    [("both", {"E_flame", "E_expression"}), ("coarse", {"E_flame"}), ("expression", {"E_expression"})],
)
def test_emoca_trains_the_chosen_networks(trainable: str, changing: set[str]) -> None:
    encoder = bare(lambda: EmocaEncoder(trainable=trainable))
    left = {id(parameter) for parameter in freeze_normalisation(encoder)}
    names = {name for name, parameter in encoder.named_parameters() if id(parameter) in left}
    assert {name.split(".")[0] for name in names} == changing
    # As in the paper's code, statistics and scales of BatchNorm stay fixed and everything else is optimised.
    assert not any(".bn" in name or "downsample.1" in name for name in names)
    assert len(names) == len(changing) * (53 + 4)
    assert not any(module.training for module in encoder.modules())
    with pytest.raises(InputError, match="both, coarse, expression"):
        bare(lambda: EmocaEncoder(trainable="detail"))


def test_rotations_of_the_expression_network_follow_from_its_size_and_configuration() -> None:
    assert pose_parts(50, jaw=True, root=None) == (False, False)
    assert pose_parts(53, jaw=True, root=False) == (True, False)
    assert pose_parts(53, jaw=None, root=True) == (False, True)
    assert pose_parts(56, jaw=None, root=None) == (True, True)
    with pytest.raises(InputError, match="does not say which"):
        pose_parts(53, jaw=None, root=None)
    with pytest.raises(InputError, match="expected 50, 53 or 56"):
        pose_parts(4, jaw=None, root=None)


def test_crops_of_another_size_are_refused() -> None:
    for make in (DecaEncoder, EmocaEncoder, SmirkEncoder):
        with pytest.raises(InputError, match="224"):
            bare(make).prepare(torch.zeros(1, 3, 112, 112))
