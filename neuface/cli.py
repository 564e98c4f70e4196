"""The command line: parses, calls the functions of the package, prints."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass, field
from json import dumps
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

import neuface
from neuface.assets_report import assets_report, convert_assets
from neuface.assets_text import report_text
from neuface.clips import read_people
from neuface.demo import run_demo
from neuface.devices import checked_device, cpu_threads, one_thread_per_operation
from neuface.errors import InputError, InputWarning, NeufaceError
from neuface.fitting.config import PRESETS, FitConfig, PinholeCamera, Preset, WeakPerspectiveCamera
from neuface.frames import Clip
from neuface.io.checkpoints import CheckpointFile
from neuface.io.detectors import DetectorName, load_detector
from neuface.io.results.authors_layout import write_authors_result
from neuface.model_inputs import model_inputs
from neuface.models import FaceModel, load_model
from neuface.pipeline import fit_clips, fit_key
from neuface.run_folder import check_folder, write_outputs
from neuface.settings_text import described_settings
from neuface.structs import Outcome, Status
from neuface.training.options import TrainingOptions
from neuface.training.run import train_encoder

Changes = Annotated[dict[str, str], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="PATH VALUE")]
"""Values of settings by dotted paths; `--config.PATH VALUE` is short for `--config PATH VALUE`."""
CONFIG_FLAG = "--config"
Out = Annotated[Path, tyro.conf.arg(aliases=("-o",))]
FilePerView = Annotated[tuple[Path, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="PATH")]
"""Takes one path at a time, so that inputs may follow; it is given once per file."""
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH")]
OptionalNumber = Annotated[float | None, tyro.conf.arg(metavar="NUMBER")]
OptionalCount = Annotated[int | None, tyro.conf.arg(metavar="NUMBER")]
ALL_HELP = "--help-all"
CHECKPOINT = "checkpoint.pt"
"""Name of the state of an unfinished fit, in the output folder."""


@dataclass(frozen=True)
class Optimize:
    """Fit 3D head meshes to a face video; several inputs are synchronised views of one person."""

    input: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT ...")]
    """Video files, folders or patterns of pictures, one per camera; or the pictures of one camera."""
    out: Out
    """Folder for result.npz, overlay.mp4, report.json and loss.png; with --faces all, a folder for each person."""
    faces: str = "most present"
    """Who is fitted: "most present", largest, all, a number (0: most present), or a face's x,y,time (px, s)."""
    landmarks: FilePerView = ()
    """Landmark file, one for all inputs or one for each; without it landmarks are detected."""
    calibration: OptionalPath = None
    """Calibration of the cameras: OpenCV, Anipose, Pose2Sim or COLMAP (docs/calibration.md)."""
    calibration_scale: OptionalNumber = None
    """Metres per unit, if the calibration does not say."""
    camera: Annotated[
        Literal["weak-perspective", "perspective"] | None,
        tyro.conf.arg(metavar="weak-perspective|perspective"),
    ] = None
    """How the head is seen: perspective is for faces nearer than about a metre."""
    focal_px: OptionalNumber = None
    """Focal length of perspective cameras in pixels; without it, the file's own, or an estimate."""
    offsets_s: Annotated[tuple[float, ...], tyro.conf.UseAppendAction] = ()
    """When a camera's first frame was taken, in seconds, if they do not begin together; once for each input."""
    max_frames: OptionalCount = None
    """Use only the first so many frames."""
    model: str = "open"
    """Head and encoder: open, or deca, emoca or smirk from your own files (see `neuface assets`)."""
    assets: OptionalPath = None
    """Folder with those files; the default is NEUFACE_ASSETS, else a per-user data folder."""
    detector: DetectorName = "face-mesh"
    """What finds landmarks: face-mesh is in the package; fan and mediapipe need the extras of that name."""
    device: str = "cpu"
    """Where to compute, such as cuda."""
    threads: OptionalCount = None
    """CPU threads; without it, one per core."""
    authors_layout: bool = False
    """Also write params.npz in the authors' layout; with FLAME."""
    overwrite: bool = False
    """Replace the outputs of an earlier run in the folder; inputs are never replaced."""
    resume: bool = False
    """Go on with a fit that was stopped or killed, from its last checkpoint."""
    progress: bool = True
    """Progress bars are shown without this flag."""
    preset: Preset = "best"
    """The configuration to begin with (docs/presets.md)."""
    config: Changes = field(default_factory=dict)
    """A change of it, such as --config.identity.shared image; --help-all lists every path."""

    def run(self) -> None:
        with cpu_threads(self.threads), one_thread_per_operation():
            self._run()

    def _run(self) -> None:
        config = PRESETS[self.preset].changed_by_text(self.config).changed(self._camera_change())
        if self.authors_layout and self.model == "open":
            raise InputError("--authors-layout is for models with FLAME, such as --model deca")
        # Before everything that takes long.
        check_folder(self.out, overwrite=self._may_replace, inputs=self._files)
        model = load_model(self.model, assets=self.assets)
        clips = read_people(
            _one_or_all(self.input),
            _one_or_all(self.landmarks) if self.landmarks else None,
            faces=self.faces,
            detector=None
            if self.landmarks
            else load_detector(self.detector, device=self.device, assets=self.assets),
            max_frames=self.max_frames,
            offsets_s=self.offsets_s or None,
            cameras=self.calibration,
            calibration_scale=self.calibration_scale,
            progress=self.progress,
        )
        for clip in clips:
            folder = self.out / f"person_{clip.selection.number}" if self.faces == "all" else self.out
            self._fit(clip, model, config, folder)

    def _camera_change(self) -> dict[str, Any]:
        """What --camera and --focal-px change in the configuration."""
        if self.focal_px is not None and self.camera != "perspective":
            raise InputError("--focal-px is for --camera perspective: weak perspective has no focal length")
        if self.camera is None:
            return {}
        if any(path.split(".")[0] == "camera" for path in self.config):
            raise InputError("--camera and --config.camera say the same: give one of them")
        if self.camera == "weak-perspective":
            return {"camera": WeakPerspectiveCamera()}
        return {"camera": PinholeCamera(focal_px=self.focal_px)}

    @property
    def _files(self) -> tuple[Path, ...]:
        """Everything that is read, and therefore never replaced."""
        return (*self.input, *self.landmarks, *([self.calibration] if self.calibration else []))

    @property
    def _may_replace(self) -> bool:
        """Whether outputs may be replaced; those of an interrupted fit are, by the fit that goes on."""
        return self.overwrite or (self.resume and (self.out / CHECKPOINT).exists())

    def _fit(self, clip: Clip, model: FaceModel, config: FitConfig, folder: Path) -> None:
        check_folder(folder, overwrite=self._may_replace, inputs=self._files)
        checkpoint = CheckpointFile(folder / CHECKPOINT, fit_key([clip], model, config), resume=self.resume)
        (result,) = fit_clips(
            [clip],
            model,
            config,
            checked_device(self.device),
            progress=self.progress,
            checkpoints=checkpoint,
            keep_interrupted=True,
        )
        interrupted = result.outcome is Outcome.INTERRUPTED
        report = write_outputs(
            result,
            folder,
            head=model.head,
            overwrite=self._may_replace,
            progress=self.progress,
            overlay=not interrupted,
        )
        print(table(report))
        if interrupted:
            print(f"written to {folder}: result.npz, report.json, loss.png")
            raise KeyboardInterrupt
        checkpoint.remove()
        print(f"written to {folder}: result.npz, overlay.mp4, report.json, loss.png")
        if self.authors_layout:
            # Last: the layout may lack room for a parameter, and the other files are written by then.
            crops = model_inputs(clip, model).crops
            write_authors_result(
                folder / "params.npz", result.prediction, result.landmarks, crops, result.head_name
            )
            print("and params.npz")


TABLE_ROWS = (
    ("nme_percent", "NME, 68 points (%)"),
    ("nme51_percent", "NME, inner 51 (%)"),
    ("msi3d_landmarks", "MSI3D, landmarks (frame^4/mm^2)"),
    ("msi3d_vertices", "MSI3D, vertices (frame^4/mm^2)"),
    ("cvd_mm", "cross-view distance (mm)"),
    ("mpve_mm", "error to truth, MPVE (mm)"),
)


def table(report: dict[str, Any]) -> str:
    """The report's figures before and after, the images that failed, and how the fit ended, as text."""
    before, after = report["before"], report["after"]
    lines = [f"{'':34}{'encoder alone':>15}{'optimised':>12}"]
    lines += [
        f"{label:34}{before[name]:15.3f}{after[name]:12.3f}"
        for name, label in TABLE_ROWS
        if name in before and name in after
    ]
    lines += [
        f"{report['frames']} frames x {report['views']} views: {_status_counts(report['status'])}; "
        f"{report['passes']} passes in {report['seconds']:.1f} s",
        *_about_people(report["people"]),
        *_about_world(report.get("world")),
        *_about_focal_lengths(report["focal"]),
        report["outcome"]["sentence"],
    ]
    return "\n".join(lines)


def _status_counts(status: dict[str, int]) -> str:
    return ", ".join(f"{count} {Status[name].label}" for name, count in status.items() if count)


def _about_people(people: dict[str, Any]) -> list[str]:
    """A line that says who was fitted, if there was a choice."""
    if people["found"] < 2:
        return []
    return [f"{people['found']} people; this is number {people['number']}, {people['rule']} (--faces)"]


def _about_world(world: dict[str, Any] | None) -> list[str]:
    """A line on how well calibrated views agree."""
    if world is None or world["agreement"]["after"]["mesh_mm"] is None:
        return []
    before, after = world["agreement"]["before"], world["agreement"]["after"]
    return [
        f"in the world the views differ by {after['rotation_deg']:.1f} degrees and {after['mesh_mm']:.1f} mm "
        f"(encoder alone: {before['rotation_deg']:.1f} degrees, {before['mesh_mm']:.1f} mm)"
    ]


def _about_focal_lengths(focal: list[dict[str, Any]]) -> list[str]:
    """A line with the focal length of every perspective camera."""
    spreads = ["" if item["relative_std"] is None else f" +- {item['relative_std']:.0%}" for item in focal]
    said = [
        f"{item['px']:.0f} px{spread} ({item['source']})" for item, spread in zip(focal, spreads, strict=True)
    ]
    return [f"focal length: {', '.join(said)}"] if said else []


def _one_or_all(paths: tuple[Path, ...]) -> Path | list[Path]:
    if not paths:
        raise InputError("no video was given: neuface optimize INPUT... --out DIR")
    first, *others = paths
    return [first, *others] if others else first


@dataclass(frozen=True)
class Demo:
    """Fit a rendered clip with known truth: three cameras, noisy landmarks, a person never seen before."""

    out: Out
    """Folder for result.npz, overlay.mp4, report.json and loss.png."""
    overwrite: bool = False
    """Replace the outputs of an earlier run in the folder; inputs are never replaced."""
    resume: bool = False
    """Go on with a fit that was stopped or killed, from its last checkpoint in the folder."""
    threads: OptionalCount = None
    """CPU threads; without it, one per core."""
    progress: bool = True
    """Progress bars are shown without this flag."""
    preset: Preset = "best"
    """The configuration to begin with (docs/presets.md)."""
    config: Changes = field(default_factory=dict)
    """What is changed in it, such as --config.objective.temporal.weight 0.3; --help-all lists every path."""

    def run(self) -> None:
        config = PRESETS[self.preset].changed_by_text(self.config)
        check_folder(self.out, overwrite=self.overwrite)
        with cpu_threads(self.threads), one_thread_per_operation():
            result, truth = run_demo(config=config, progress=self.progress)
            report = write_outputs(
                result, self.out, truth=truth, overwrite=self.overwrite, progress=self.progress
            )
        print(table(report))
        print(f"written to {self.out}: result.npz, overlay.mp4, report.json, loss.png")


@dataclass(frozen=True)
class TrainEncoder:
    """Train the open encoder; run it again to go on from the last checkpoint."""

    folder: Path
    """Takes the drawn pictures (2 GB), checkpoint.pt, log.jsonl, curves.png, and at last encoder.safetensors."""
    footage: Path | None = None
    """Folder of real clips to learn from: PERSON/NAME.mp4 with PERSON/NAME.landmarks.npz beside it."""
    held_out_footage: Path | None = None
    """The same, of other people, only to be measured."""
    start: tuple[Path, ...] = ()
    """Weights to begin with, such as another folder's best.safetensors, or the mean of several."""
    progress: bool = True
    """Progress bars are shown without this flag."""
    options: TrainingOptions = field(default_factory=TrainingOptions)

    def run(self) -> None:
        train_encoder(
            self.folder,
            self.options,
            footage=self.footage,
            held_out_footage=self.held_out_footage,
            start=self.start,
            progress=self.progress,
        )
        print(f"written to {self.folder}: encoder.safetensors, log.jsonl, showcase.png")


@dataclass(frozen=True)
class Assets:
    """Say which official files of FLAME, DECA, EMOCA and SMIRK are needed and which are there, or convert them."""

    action: Annotated[Literal["report", "convert"], tyro.conf.Positional] = "report"
    """report: what is there and what is wrong with it. convert: write verified copies that load many times faster."""
    assets: Path | None = None
    """Folder with the files; the default is NEUFACE_ASSETS, else a per-user data folder."""
    json: bool = False
    """report: print JSON."""
    out: Path | None = None
    """convert: folder for the copies; the default is beside each original."""
    overwrite: bool = False
    """convert: replace copies that are there."""

    def run(self) -> None:
        if self.action == "convert":
            if self.json:
                raise InputError("--json is for 'neuface assets', not for 'neuface assets convert'")
            for copy in convert_assets(self.assets, out=self.out, overwrite=self.overwrite):
                print(f"{copy.source} -> {copy.copy} (verified)")
            return
        if self.out is not None or self.overwrite:
            raise InputError("--out and --overwrite are for: neuface assets convert")
        report = assets_report(self.assets)
        print(dumps(report.as_dict(), indent=2) if self.json else report_text(report))


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `neuface` command. Errors meant for the user are one line and exit status 2."""
    given = sys.argv[1:] if arguments is None else arguments
    warnings.showwarning = _print_warning
    if given[:1] == ["--version"]:
        print(f"neuface {neuface.__version__}")
        return
    try:
        command = tyro.cli(
            Annotated[Optimize, tyro.conf.subcommand("optimize")]
            | Annotated[Demo, tyro.conf.subcommand("demo")]
            | Annotated[Assets, tyro.conf.subcommand("assets")]
            | Annotated[TrainEncoder, tyro.conf.subcommand("train-encoder")],
            prog="neuface",
            description=__doc__,
            config=(tyro.conf.FlagCreatePairsOff,),
            args=with_config_paths(["--help" if argument == ALL_HELP else argument for argument in given]),
        )
        command.run()
    except NeufaceError as error:
        print(f"neuface: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("neuface: stopped", file=sys.stderr)
        sys.exit(130)
    except SystemExit:
        if ALL_HELP in given:
            print(f"\nEvery --config path, with the value of --preset best:\n\n{_config_help()}")
        raise


def _config_help() -> str:
    return described_settings(PRESETS["best"], CONFIG_FLAG)


def _print_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any
) -> None:
    """One line for what the user should know of an input; other warnings also say where in the program they arose."""
    where = "" if issubclass(category, InputWarning) else f" ({filename}:{lineno})"
    print(f"neuface: warning: {message}{where}", file=sys.stderr)


def with_config_paths(arguments: list[str]) -> list[str]:
    """The arguments with every `--config.PATH VALUE` or `--config.PATH=VALUE` as `--config PATH VALUE`.

    Example:
        >>> with_config_paths(["--config.m-step.stop.max-passes=30", "--out", "o"])
        ['--config', 'm-step.stop.max-passes', '30', '--out', 'o']
    """
    written: list[str] = []
    for argument in arguments:
        if argument.startswith(f"{CONFIG_FLAG}."):
            path, separator, value = argument.removeprefix(f"{CONFIG_FLAG}.").partition("=")
            written += [CONFIG_FLAG, path, *([value] if separator else [])]
        else:
            written.append(argument)
    return written


if __name__ == "__main__":
    main()
