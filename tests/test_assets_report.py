"""The report on official files, and their verified copies. All files are synthetic, in the published layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from flame_files import flame_arrays, write_flame_folder

import neuface
from neuface.assets_report import AssetsReport, assets_report, convert_assets
from neuface.assets_text import report_text
from neuface.cli import main
from neuface.encoders.emoca import EmocaEncoder
from neuface.encoders.smirk import SmirkEncoder
from neuface.head.model import HeadModel
from neuface.io.assets import converted
from neuface.io.assets.catalogue import ASSETS_VARIABLE
from neuface.io.assets.checks import FoundFile
from neuface.io.assets.converted import read_encoder_copy, write_encoder_copy, write_head_copy
from neuface.io.assets.fingerprints import file_sha256
from neuface.io.flame.model_file import read_flame
from neuface.io.heads import read_head

SMIRK = "SMIRK_em1.pt"


@pytest.fixture(scope="module")
def smirk_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {f"smirk_encoder.{name}": tensor for name, tensor in SmirkEncoder().state_dict().items()}


@pytest.fixture
def folder(tmp_path: Path, smirk_state: dict[str, torch.Tensor]) -> Path:
    """FLAME 2020 with all companions, and SMIRK; neither DECA nor EMOCA."""
    write_flame_folder(tmp_path / "FLAME2020", flame_arrays())
    torch.save(smirk_state, tmp_path / SMIRK)
    return tmp_path


def files_of(report: AssetsReport, name: str) -> tuple[FoundFile, ...]:
    return next(asset.files for asset in report.assets if name in asset.names)


def problems(report: AssetsReport) -> dict[str, str]:
    return {state.model: state.problem for state in report.models}


# --- The report


def test_the_report_lists_present_and_missing_files(folder: Path) -> None:
    report = assets_report(folder)
    assert (report.folders, report.chosen_by) == ((str(folder),), "argument")
    (model,) = files_of(report, "generic_model.pkl")
    assert (model.path, model.version, model.problem) == (
        str(folder / "FLAME2020" / "generic_model.pkl"), "flame2020", "",
    )  # fmt: skip
    assert model.sha256 == file_sha256(folder / "FLAME2020" / "generic_model.pkl")
    # The synthetic companion is not the published one, which is known by its hash; both are said.
    assert files_of(report, "landmark_embedding.npy")[0].version == "not the published file"
    assert files_of(report, "deca_model.tar") == ()
    assert [file.problem for asset in report.assets for file in asset.files if file.problem] == []
    assert problems(report)["smirk"] == ""
    assert "deca_model.tar" in problems(report)["deca"]
    assert "cfg.yaml" in problems(report)["emoca"]
    needs = {name: asset.needed_by for asset in report.assets for name in asset.names}
    assert needs["generic_model.pkl"] == ("deca", "emoca", "smirk")
    assert needs["l_eyelid.npy"] == ("smirk",)


def test_every_damaged_file_has_its_readers_error(folder: Path) -> None:
    names = (
        "generic_model.pkl", "landmark_embedding.npy", "mediapipe_landmark_embedding.npz", "FLAME_masks.pkl",
        "l_eyelid.npy",
    )  # fmt: skip
    for name in names:
        path = folder / "FLAME2020" / name
        path.write_bytes(path.read_bytes()[:-40])
    (folder / SMIRK).write_text("<html>log in</html>")
    report = assets_report(folder)
    for name in (*names, SMIRK):
        (file,) = files_of(report, name)
        assert name in file.problem, name
        assert "\n" not in file.problem
        assert file.sha256
    assert "web page" in files_of(report, SMIRK)[0].problem
    assert all(problems(report).values())


def test_assets_are_found_in_the_environments_folder_then_in_the_users(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ASSETS_VARIABLE, str(folder))
    assert (assets_report().folders, assets_report().chosen_by) == ((str(folder),), ASSETS_VARIABLE)
    monkeypatch.delenv(ASSETS_VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "data"))
    report = assets_report()
    assert report.chosen_by == "per-user data folder"
    assert report.folders[0].startswith(str(tmp_path))
    assert not any(asset.files for asset in report.assets)
    assert "flame.is.tue.mpg.de" in report_text(report)


def test_the_assets_command_prints_the_files_and_models(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["assets", "--assets", str(folder)])
    printed = capsys.readouterr().out
    for words in ("generic_model.pkl", "flame2020", "not there   deca_model.tar", "can be loaded"):
        assert words in printed
    main(["assets", "--assets", str(folder), "--json"])
    content = json.loads(capsys.readouterr().out)
    assert {state["model"]: bool(state["problem"]) for state in content["models"]} == {
        "deca": True, "emoca": True, "smirk": False,
    }  # fmt: skip
    main(["assets", "convert", "--assets", str(folder)])
    assert capsys.readouterr().out.count("(verified)") == 3
    with pytest.raises(SystemExit):
        main(["assets", "--assets", str(folder), "--overwrite"])
    assert "assets convert" in capsys.readouterr().err


# --- Copies


def test_copies_stand_in_for_the_originals(folder: Path, tmp_path: Path) -> None:
    original = neuface.load_model("smirk", assets=folder)
    plain = neuface.load_head(folder / "FLAME2020" / "generic_model.pkl")
    copies = [Path(copy.copy) for copy in convert_assets(folder, out=tmp_path / "copies")]
    assert [path.name for path in copies] == [
        "flame2020.safetensors", "flame2020_eyelids.safetensors", "smirk.safetensors",
    ]  # fmt: skip
    # The copies alone are enough, and all is as it was.
    model = neuface.load_model("smirk", assets=tmp_path / "copies")
    assert model.head.content_hash() == original.head.content_hash()
    assert model.crop_rule == original.crop_rule
    pictures = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        answers = [item.encoder(item.encoder.prepare(pictures)) for item in (model, original)]
    assert torch.equal(answers[0].params.expression, answers[1].params.expression)
    assert torch.equal(answers[0].camera.position, answers[1].camera.position)
    again = neuface.load_head(copies[0])
    assert again.content_hash() == plain.content_hash()
    assert again.absent == plain.absent
    report = assets_report(tmp_path / "copies")
    assert problems(report)["smirk"] == ""
    assert files_of(report, "flame2020.safetensors")[0].version == "flame2020"


def test_a_copy_is_taken_before_the_original(folder: Path) -> None:
    list(convert_assets(folder))
    for path in (folder / "FLAME2020" / "generic_model.pkl", folder / SMIRK):
        path.write_bytes(b"damaged")
    assert neuface.load_model("smirk", assets=folder).head.num_expression == 102


def test_nothing_is_overwritten_unasked(folder: Path) -> None:
    copies = [Path(copy.copy) for copy in convert_assets(folder)]
    before = [(path.stat().st_mtime_ns, path.read_bytes()) for path in copies]
    head_hash = read_head(copies[0]).content_hash()
    with pytest.raises(neuface.InputError, match=r"flame2020\.safetensors: exists already; give --overwrite"):
        list(convert_assets(folder))
    assert [(path.stat().st_mtime_ns, path.read_bytes()) for path in copies] == before
    copies[0].write_text("mine")
    assert len(list(convert_assets(folder, overwrite=True))) == 3
    assert read_head(copies[0]).content_hash() == head_hash


def test_a_copy_that_reads_back_differently_never_appears(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = neuface.load_head(folder / "FLAME2020" / "generic_model.pkl")
    target = folder / "flame2020.safetensors"
    target.write_text("what was there before")

    def wrong(path: Path) -> HeadModel:
        found = read_head(path)
        found.skinning_weights[3, 1] += 1e-7
        return found

    monkeypatch.setattr(converted, "read_head", wrong)
    with pytest.raises(neuface.InputError, match="skinning_weights"):
        write_head_copy(target, head, overwrite=True)
    assert target.read_text() == "what was there before"
    assert sorted(path.name for path in folder.iterdir()) == ["FLAME2020", SMIRK, target.name]


def test_different_models_that_would_share_a_name(folder: Path) -> None:
    same_mesh = {**flame_arrays(seed=1), "f": flame_arrays()["f"]}
    write_flame_folder(folder / "other" / "FLAME2020", same_mesh)
    for path in (folder / "other" / "FLAME2020").iterdir():
        if path.name != "generic_model.pkl":
            path.unlink()
    assert len({file.sha256 for file in files_of(assets_report(folder), "generic_model.pkl")}) == 2
    with pytest.raises(neuface.InputError, match=r"differ and would both become"):
        list(convert_assets(folder, out=folder / "copies"))


def test_there_must_be_something_to_convert(tmp_path: Path) -> None:
    with pytest.raises(neuface.InputError, match="run 'neuface assets'"):
        list(convert_assets(tmp_path))


def test_a_renamed_copy_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    list(convert_assets(folder, out=tmp_path / "copies"))
    head = read_flame(folder / "FLAME2020" / "generic_model.pkl", version="flame2023", eyelids=True)
    write_head_copy(tmp_path / "copies" / "flame2020_eyelids.safetensors", head, overwrite=True)
    with pytest.raises(neuface.ModelMismatchError, match="holds flame2023"):
        neuface.load_model("smirk", assets=tmp_path / "copies")
    (tmp_path / "copies" / "smirk.safetensors").rename(tmp_path / "copies" / "deca.safetensors")
    with pytest.raises(neuface.InputError, match="no converted weights of 'deca'"):
        neuface.load_model("deca", assets=tmp_path / "copies")


def test_a_copy_without_landmarks_is_refused_with_the_remedy(folder: Path) -> None:
    (folder / "FLAME2020" / "landmark_embedding.npy").unlink()
    list(convert_assets(folder))
    with pytest.raises(
        neuface.InputError, match=r"converted without landmarks\. Put landmark_embedding\.npy"
    ):
        neuface.load_model("smirk", assets=folder)


def test_a_copy_of_emoca_keeps_the_configuration_of_its_package(tmp_path: Path) -> None:
    with torch.device("meta"):
        encoder = EmocaEncoder(jaw=True)
    encoder = encoder.to_empty(device="cpu")
    encoder.load_state_dict({name: torch.zeros_like(value) for name, value in encoder.state_dict().items()})
    write_encoder_copy(tmp_path / "emoca.safetensors", encoder)
    again = read_encoder_copy(tmp_path / "emoca.safetensors", "emoca", trainable="coarse")
    assert isinstance(again, EmocaEncoder)
    assert (again.jaw, again.root, again.trainable) == (True, False, "coarse")
    assert not any(parameter.requires_grad for parameter in again.E_expression.parameters())
    assert again.state_dict()["E_flame.layers.2.weight"].shape == (236, 1024)
    assert not again.state_dict()["E_flame.layers.2.weight"].any()
