"""The command line: what it writes, prints and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import neuface
from neuface import FitConfig, InputError
from neuface.cli import Optimize, main
from neuface.geometry.rotations import rotmat_to_rotvec
from neuface.io.video import write_video
from neuface.synthetic.calibrated_clips import make_calibrated_clip
from neuface.synthetic.clips import make_talking_clip
from neuface.synthetic.people import demo_identity


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("clip")
    clip = make_talking_clip(
        neuface.load_head("open"), demo_identity(), view_yaw_deg=(10.0,), time=5, size_px=160
    )
    write_video(folder / "talk.mp4", clip.frames[0], 25)
    np.savez(folder / "talk.npz", points_px=clip.landmarks_px[0].numpy(), scheme="ibug68")
    return folder / "talk.mp4", folder / "talk.npz"


def test_optimize_writes_the_files_of_a_run(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, landmarks = files
    out = tmp_path / "out"
    main(
        ["optimize", str(video), "--out", str(out), "--landmarks", str(landmarks), "--max-frames", "4",
         "--config.m-step.stop.max-passes", "2", "--no-progress"]
    )  # fmt: skip
    report = json.loads((out / "report.json").read_text())
    assert (report["frames"], report["views"], report["passes"]) == (4, 1, 2)
    assert neuface.FitResult.load(out / "result.npz").status.shape == (1, 4)
    printed = capsys.readouterr().out
    assert "NME, 68 points" in printed
    assert f"{report['after']['nme_percent']:.3f}" in printed
    assert neuface.Outcome.PASS_LIMIT.value in printed


def test_calibrated_views_give_the_head_in_the_world(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two rendered cameras with a file as Anipose writes it: from the command line to `result.world`."""
    head = neuface.load_head("open")
    clip = make_calibrated_clip(head, demo_identity(), view_yaw_deg=(-20.0, 20.0), time=3, size_px=160)
    text, options = "", []
    for view, name in enumerate(("left", "right")):
        write_video(tmp_path / f"{name}.mp4", clip.frames[view], 25)
        np.savez(tmp_path / f"{name}.npz", points_px=clip.landmarks_px[view].numpy(), scheme="ibug68")
        options += ["--landmarks", str(tmp_path / f"{name}.npz")]
        camera = clip.cameras[view]
        fields = {
            "name": name,
            "size": [160, 160],
            "matrix": camera.K.tolist(),
            "distortions": [0.0] * 5,
            "rotation": rotmat_to_rotvec(camera.rotation).tolist(),
            "translation": camera.translation.tolist(),
        }
        text += f"[cam_{view}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items())
    (tmp_path / "rig.toml").write_text(text)
    out = tmp_path / "out"
    main(
        ["optimize", str(tmp_path / "left.mp4"), str(tmp_path / "right.mp4"), "--out", str(out), *options,
         "--calibration", str(tmp_path / "rig.toml"), "--calibration-scale", "1",
         "--config.m-step.stop.max-passes", "8", "--no-progress"]
    )  # fmt: skip
    result = neuface.FitResult.load(out / "result.npz")
    assert result.world is not None
    error_m = (result.world.vertices(head) - clip.vertices).norm(dim=-1).mean()
    assert float(error_m) < 0.02
    report = json.loads((out / "report.json").read_text())["world"]
    assert report["metric"] is True
    assert report["agreement"]["after"]["rotation_deg"] < report["agreement"]["before"]["rotation_deg"]
    assert "in the world the views differ by" in capsys.readouterr().out


def test_the_authors_layout_is_for_flame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["optimize", "talk.mp4", "--out", str(tmp_path / "out"), "--authors-layout"])
    assert stopped.value.code == 2
    assert "--authors-layout is for models with FLAME" in capsys.readouterr().err


def test_a_perspective_camera_is_an_option(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, landmarks = files
    main(
        ["optimize", str(video), "--landmarks", str(landmarks), "-o", str(tmp_path / "out"), "--no-progress",
         "--camera", "perspective", "--focal-px", "300", "--config.m-step.stop.max-passes", "1"]
    )  # fmt: skip
    assert "focal length: 300 px (given)" in capsys.readouterr().out
    result = neuface.FitResult.load(tmp_path / "out" / "result.npz")
    assert float(result.cameras().K[0, 0, 0, 0]) == pytest.approx(300.0, rel=1e-5)


@pytest.mark.parametrize("camera", [[], ["--camera", "weak-perspective"]])
def test_a_focal_length_is_for_perspective_cameras(
    camera: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["optimize", "talk.mp4", "--out", str(tmp_path / "out"), "--focal-px", "300", *camera])
    assert stopped.value.code == 2
    assert "--focal-px is for --camera perspective" in capsys.readouterr().err


def test_an_error_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["optimize", str(tmp_path / "nowhere.mp4"), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("neuface: error: ")
    assert "nowhere.mp4" in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("device", ["mps", "nonsense"])
def test_a_device_that_cannot_be_used_is_refused_by_name(
    device: str, files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without landmark files: the detector meets the device first."""
    with pytest.raises(SystemExit) as stopped:
        main(["optimize", str(files[0]), "--out", str(tmp_path / "out"), "--device", device])
    assert stopped.value.code == 2
    assert device in capsys.readouterr().err


def test_an_unusable_output_folder_is_refused_before_the_fit(
    files: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("neuface.cli.fit_clips", lambda *_, **__: pytest.fail("the clip was fitted first"))
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "report.json").write_text("{}")
    (tmp_path / "source").mkdir()
    shutil.copy(files[0], tmp_path / "source" / "overlay.mp4")
    for name, arguments, message in [
        ("taken", [str(files[0])], "output folder"),
        (
            "full",
            [str(files[0])],
            "report.json already; choose another --out, or replace them with --overwrite",
        ),
        (
            "source",
            [str(tmp_path / "source" / "overlay.mp4"), "--overwrite"],
            "is an input and would be replaced",
        ),
    ]:
        with pytest.raises(SystemExit) as stopped:
            main(["optimize", *arguments, "--out", str(tmp_path / name), "--landmarks", str(files[1])])
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ([], FitConfig()),
        (
            ["--preset", "official", "--config.m-step.stop.max-passes", "7"],
            FitConfig.official({"m_step.stop.max_passes": 7}),
        ),
        # A value that is best()'s own, and not the preset's.
        (
            ["--preset=paper", "--config.identity.shared=clip", "--config.objective.temporal", "none"],
            FitConfig.paper({"identity.shared": "clip", "objective.temporal": None}),
        ),
        (
            ["--config.identity.fix-scale", "true", "--preset", "paper"],
            FitConfig.paper({"identity.fix_scale": True}),
        ),
    ],
)
def test_a_preset_is_changed_by_what_config_names(
    files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chosen: list[str],
    expected: FitConfig,
) -> None:
    asked = []

    def remember(_: Any, __: Any, config: FitConfig, *___: Any, **____: Any) -> None:
        asked.append(config)
        raise InputError("that is all this test wants to know")

    monkeypatch.setattr("neuface.cli.fit_clips", remember)
    with pytest.raises(SystemExit):
        main(
            ["optimize", str(files[0]), "--out", str(tmp_path / "out"), "--landmarks", str(files[1]),
             *chosen]
        )  # fmt: skip
    assert asked == [expected]


def test_a_wrong_configuration_is_reported_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                "optimize",
                "talk.mp4",
                "--out",
                str(tmp_path / "out"),
                "--preset",
                "neural",
                "--config.m-step.adam.learning-rate",
                "0",
            ]
        )
    assert stopped.value.code == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "Adam.learning_rate must be greater than 0, got 0" in said
    assert "Traceback" not in said


def test_an_assets_folder_can_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(
            [
                "optimize",
                "talk.mp4",
                "--out",
                str(tmp_path / "out"),
                "--model",
                "deca",
                "--assets",
                str(tmp_path),
            ]
        )
    assert stopped.value.code == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    printed = capsys.readouterr().out
    assert "optimize" in printed
    assert "demo" in printed


# --- What users of other programs type


def asked_of(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[tuple[Path, ...], tuple[Path, ...], Path]:
    """Inputs, landmark files and the output folder that a command line stands for."""
    seen: list[Optimize] = []
    monkeypatch.setattr(Optimize, "run", lambda self: seen.append(self))
    main(["optimize", *arguments])
    return seen[0].input, seen[0].landmarks, seen[0].out


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.mp4", "b.mp4", "--landmarks", "a.npz", "--landmarks", "b.npz", "--out", "o"],
        ["--landmarks", "a.npz", "--landmarks", "b.npz", "a.mp4", "b.mp4", "-o", "o"],
        ["-o", "o", "--landmarks", "a.npz", "a.mp4", "b.mp4", "--landmarks=b.npz"],
    ],
)
def test_the_order_of_options_does_not_matter(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked_of(arguments, monkeypatch) == (
        (Path("a.mp4"), Path("b.mp4")), (Path("a.npz"), Path("b.npz")), Path("o"),
    )  # fmt: skip


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"neuface {neuface.__version__}\n"


def test_help_is_one_screen_and_all_help_has_every_path(capsys: pytest.CaptureFixture[str]) -> None:
    printed = {}
    for flag in ("--help", "--help-all"):
        with pytest.raises(SystemExit) as stopped:
            main(["optimize", flag])
        assert stopped.value.code == 0
        printed[flag] = capsys.readouterr().out
    assert printed["--help"].count("\n") <= 60
    assert "--config.m-step.stop.max-passes 30" in printed["--help-all"]
    assert "The limit: passes over the whole clip, each with one E-step." in printed["--help-all"]
    assert (
        "one of: LocalQuadratic, MovingMean, MovingMedian, Gaussian, Adaptive or ReleasedMean"
        in printed["--help-all"]
    )


@pytest.mark.parametrize("preset", ["best", "neural"])
def test_ctrl_c_keeps_the_best_pass_and_the_fit_goes_on(
    files: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    preset: str,
) -> None:
    video, landmarks = files
    common = [
        "optimize", str(video), "--landmarks", str(landmarks), "--preset", preset,
        "--config.m-step.stop.max-passes", "4", "--no-progress",
    ]  # fmt: skip
    main([*common, "--out", str(tmp_path / "whole")])
    with monkeypatch.context() as patch:
        patch.setattr("neuface.pipeline._Bar.show", interrupt_at(2))
        with pytest.raises(SystemExit) as stopped:
            main([*common, "--out", str(tmp_path / "out")])
    assert stopped.value.code == 130
    partial = neuface.FitResult.load(tmp_path / "out" / "result.npz")
    assert partial.outcome is neuface.Outcome.INTERRUPTED
    assert len(partial.history["total"]) == 3
    assert (tmp_path / "out" / "checkpoint.pt").exists()
    assert neuface.Outcome.INTERRUPTED.value in capsys.readouterr().out
    main([*common, "--out", str(tmp_path / "out"), "--resume"])
    resumed, whole = (neuface.FitResult.load(tmp_path / name / "result.npz") for name in ("out", "whole"))
    assert resumed.history == whole.history
    for name in ("identity", "expression", "root_rotvec"):
        assert torch.equal(getattr(resumed, name), getattr(whole, name))
    assert not (tmp_path / "out" / "checkpoint.pt").exists()


def interrupt_at(passes: int) -> Any:
    """In the place of the progress bar's: Ctrl-C is pressed in this pass."""

    def show(_: Any, number: int, __: dict[str, float]) -> None:
        if number == passes:
            raise KeyboardInterrupt

    return show
