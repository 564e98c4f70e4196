"""`load_model("deca" | "emoca" | "smirk")` from files in the official layout, and whole fits with these models.

The weights come from a formula and the head is a tiny one: the tests are about the path and not about accuracy.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from data_folders import PARITY
from torch import Tensor

import neuface
from neuface.cropping import DECA_CROP, SMIRK_CROP
from neuface.encoders.calibration import UNCALIBRATED
from neuface.encoders.emoca import EmocaEncoder
from neuface.encoders.flame_encoder import FlameEncoder
from neuface.frames import Clip
from neuface.io.assets.catalogue import ASSETS_VARIABLE, SMIRK_WEIGHTS, assets_dirs, only_asset
from neuface.landmarks.schemes import IBUG68, MEDIAPIPE478
from neuface.model_inputs import model_inputs
from neuface.structs import Track

SHORT = neuface.FitConfig.neural({"m_step.stop.max_passes": 2, "m_step.adam.learning_rate": 1e-4})
JOINT = neuface.FitConfig.best({"m_step.stop.max_passes": 2})
FLAME_FILES = (
    "generic_model.pkl", "landmark_embedding.npy", "mediapipe_landmark_embedding.npz", "FLAME_masks.pkl",
    "head_template.obj", "l_eyelid.npy", "r_eyelid.npy",
)  # fmt: skip
EMOCA_FILE = "EMOCA_v2_lr_mse_20/detail/checkpoints/deca-epoch=10-val_loss/dataloader_idx_0=3.25.ckpt"


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory, formula: Callable[..., dict[str, Tensor]]) -> Path:
    """A folder as users have it, with the downloads of all three models and of FLAME."""
    folder = tmp_path_factory.mktemp("assets")
    (folder / "FLAME2020").mkdir()
    for name in FLAME_FILES:
        shutil.copy(PARITY / "flame_tiny" / name, folder / "FLAME2020" / name)
    coarse, expression = formula("E_flame"), formula("E_expression")
    left_by_training = {"opt": {"state": {}, "param_groups": [{"lr": 1e-4}]}, "global_step": 7}
    detail = {"E_detail": {"layers.2.bias": torch.zeros(3)}, "D_detail": {}}
    (folder / "DECA" / "data").mkdir(parents=True)
    torch.save({"E_flame": coarse, **detail, **left_by_training}, folder / "DECA" / "data" / "deca_model.tar")
    state = {
        **{f"deca.E_flame.{name}": tensor for name, tensor in coarse.items()},
        **{f"deca.E_expression.{name}": tensor for name, tensor in expression.items()},
        "deca.flame.eye_pose": torch.zeros(1, 6),
    }
    (folder / EMOCA_FILE).parent.mkdir(parents=True)
    torch.save({"state_dict": state, "epoch": 10, "callbacks": {}}, folder / EMOCA_FILE)
    (folder / "EMOCA_v2_lr_mse_20" / "cfg.yaml").write_text(
        "coarse:\n  model:\n    exp_deca_jaw_pose: false\ndetail:\n  model:\n    exp_deca_jaw_pose: false\n"
    )
    smirk = {f"smirk_encoder.{name}": tensor for name, tensor in formula("smirk_encoder").items()}
    torch.save({**smirk, "smirk_generator.out.weight": torch.zeros(2)}, folder / "SMIRK_em1.pt")
    return folder


@pytest.fixture(scope="module")
def clip(reference: Callable[[str], dict[str, np.ndarray]]) -> Clip:
    """Two small frames, and landmarks roughly at the tiny head."""
    stored = reference("crop")
    moved = np.stack([stored["keypoints_inside"], stored["keypoints_inside"] + 2]).astype(np.float32)[None]
    # A track is not compared with a human face, which the tiny head is not.
    track = Track(points_px=torch.from_numpy(moved), confidence=torch.ones(moved.shape[:-1]), scheme=IBUG68)
    return neuface.read_clip(np.repeat(stored["source"][None], 2, 0), track)


@pytest.mark.parametrize("config", [JOINT, SHORT], ids=["best", "neural"])
@pytest.mark.parametrize("name", ["deca", "smirk"])
def test_a_fit_with_the_models_files_improves_on_the_encoder(
    name: str,
    config: neuface.FitConfig,
    assets: Path,
    clip: Clip,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ASSETS_VARIABLE, str(assets))
    assert assets_dirs() == (assets,)
    model = neuface.load_model(name, assets=assets)
    result = neuface.optimize(clip, model=model, config=config, progress=False)
    assert result.model == name
    assert result.head_name == "flame2020"
    assert len(result.history["total"]) == 3
    assert result.history["total"][-1] < result.history["total"][0]
    assert result.params.identity.shape == (1, 2, 100 if name == "deca" else 300)
    assert not result.params.neck_rotvec.any()
    assert bool(torch.isfinite(result.image_nme_percent).all())
    result.save(tmp_path / "result.npz")
    with monkeypatch.context() as without_files:
        without_files.setenv(ASSETS_VARIABLE, str(tmp_path))
        again = neuface.FitResult.load(tmp_path / "result.npz")
        assert torch.equal(again.jaw_rotvec, result.jaw_rotvec)
        assert f"model {name}" in repr(again)
        with pytest.raises(neuface.InputError, match="FLAME"):
            again.vertices()
        # The loaded model is enough: no file is read again.
        given = again.vertices(model.head)
    assert torch.equal(given, result.vertices())


def test_emoca_changes_only_the_chosen_network(assets: Path, clip: Clip) -> None:
    """With the coarse network fixed, the poses remain those that the pretrained network predicts."""
    model = neuface.load_model("emoca", assets=assets, trainable="expression")
    assert isinstance(model.encoder, EmocaEncoder)
    assert model.crop_rule == DECA_CROP
    assert model.calibration == UNCALIBRATED
    config = SHORT.changed({"m_step.stop.max_passes": 1})
    result = neuface.optimize(clip, model=model, config=config, progress=False)
    before, after = result.initial.params, result.params
    assert torch.equal(before.root_rotvec, after.root_rotvec)
    assert torch.equal(before.jaw_rotvec, after.jaw_rotvec)
    assert not torch.equal(before.expression, after.expression)


def test_a_model_carries_its_layout_and_crop(assets: Path) -> None:
    model = neuface.load_model("smirk", assets=assets)
    assert isinstance(model.encoder, FlameEncoder)
    layout = model.encoder.layout
    assert (layout.head_version, layout.identity, layout.eyelids) == ("flame2020", 300, 2)
    assert model.crop_rule == SMIRK_CROP
    assert layout.identity == model.head.num_identity
    assert layout.expression + layout.eyelids == model.head.num_expression
    assert not any(parameter.is_meta for parameter in model.encoder.parameters())


def test_dense_landmarks_are_reduced_for_a_head_without_them(assets: Path, clip: Clip) -> None:
    points = np.random.default_rng(0).uniform(80, 260, (2, 478, 2)).astype(np.float32)
    dense = neuface.read_clip(clip.recording.frames.read(0, 0, 2).numpy(), points)
    reduced = model_inputs(dense, neuface.load_model("smirk", assets=assets))
    assert dense.track.points_px.shape == (1, 2, 478, 2)
    np.testing.assert_array_equal(reduced.track.points_px[0].numpy(), points[:, list(MEDIAPIPE478.to_ibug68)])


# --- What is missing or wrong


def test_all_missing_files_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(neuface.InputError) as caught:
        neuface.load_model("smirk", assets=tmp_path / "absent")
    message = str(caught.value)
    for name in (
        "SMIRK_em1.pt",
        "generic_model.pkl",
        "landmark_embedding.npy",
        "l_eyelid.npy",
        "r_eyelid.npy",
    ):
        assert name in message
    for words in (str(tmp_path / "absent"), "flame.is.tue.mpg.de", "registration", ASSETS_VARIABLE):
        assert words in message


def test_another_flame_is_refused(assets: Path, tmp_path: Path) -> None:
    shutil.copytree(assets / "FLAME2020", tmp_path / "FLAME2023")
    shutil.copy(assets / "SMIRK_em1.pt", tmp_path)
    with pytest.raises(neuface.ModelMismatchError, match="flame2023"):
        neuface.load_model("smirk", assets=tmp_path)
    (tmp_path / "FLAME2023").rename(tmp_path / "mine")
    assert neuface.load_model("smirk", assets=tmp_path).head.name == "flame"  # its names contain no version


def test_copies_of_one_file_are_accepted_and_different_files_refused(assets: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        shutil.copy(assets / "SMIRK_em1.pt", tmp_path / folder)
    paths = [tmp_path / folder / "SMIRK_em1.pt" for folder in ("one", "two")]
    assert only_asset(SMIRK_WEIGHTS, paths) == paths[0]
    with paths[1].open("ab") as stream:
        stream.write(b"another download")
    shutil.copytree(assets / "FLAME2020", tmp_path / "FLAME2020")
    with pytest.raises(neuface.InputError, match="several candidates for SMIRK's weights"):
        neuface.load_model("smirk", assets=tmp_path)


def test_options_that_do_not_apply_are_refused() -> None:
    with pytest.raises(neuface.InputError, match="'open', 'deca', 'emoca', 'smirk'"):
        neuface.load_model("mica")
    with pytest.raises(neuface.InputError, match="only 'emoca'"):
        neuface.load_model("deca", trainable="coarse")
