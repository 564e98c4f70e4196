"""The evidence for the method: every arm on every clip, kept as it finishes.

Clips come in groups: rendered people with exact truth (one camera or three, clean landmarks or hard ones), a rendered
real scan, real clips, and a real session of four calibrated cameras. A group's figures are means over its clips.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from multiprocessing import get_context
from typing import Any

import torch
from tqdm import tqdm

from neuface.devices import cpu_threads
from neuface.errors import InputError
from neuface.evaluation.held_out_view import HeldOutView, leave_one_view_out, view_means
from neuface.evaluation.landmarks_3d import triangulate_inner51
from neuface.fitting.config import FitConfig
from neuface.io.scans import read_scan
from neuface.models import FaceModel, load_model
from neuface.pipeline import optimize
from studies.benchmark.cache_keys import clip_key, model_key
from studies.benchmark.variants import ENCODER, LOSSES, MAIN, PHOTOMETRIC, SMOOTHERS, Arm, arms_of
from studies.common.cases import CLEAN, HARD, NOISE_PX, SCAN, SYNTHETIC, TEST, Case, CaseSpec, make_case
from studies.common.ideal_estimator import expected_shape_error_mm
from studies.common.recordings import FOUR_CAMERAS, REAL_1VIEW, RealFootage, find_footage
from studies.common.scores import Scores, score, true_stability
from studies.neural_versus_direct.arms import encoder_answer
from studies.neural_versus_direct.study import Json, Keep

# Triangulated landmarks that miss one of their views by more than this are no truth.
LARGEST_TRIANGULATION_ERROR_PX = 8.0
MAY_BE_NONE = ("scans", "real_clips", "four_camera_frames")
# Where every term of the objective has something to do.
ABLATION_GROUPS = ("synthetic_3views", FOUR_CAMERAS)


@dataclass(frozen=True, kw_only=True)
class EvidenceSettings:
    """How large the study is."""

    people: int = 4
    """Rendered people before one camera, as many before three; each once clean and once hard."""
    frames: int = 32
    """Of a clip from one camera."""
    frames_of_three: int = 16
    """Of a clip from three cameras, each."""
    scans: int = 2
    """Filmed clips of the scan from one camera, as many from three."""
    scan_frames: int = 16
    scan_frames_of_three: int = 8
    size_px: int = 320
    """Side of rendered frames."""
    real_clips: int = 3
    """Real clips from one camera, of people whom the encoder has not seen first."""
    real_frames: int = 60
    four_camera_frames: int = 16
    """Frame sets of the session of four cameras; 0 leaves it out."""
    ablations: bool = True
    """Tables S1, S2 and S3a."""
    held_out: bool = True
    """Fit the session of four cameras once without each of them."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            least = 0 if item.name in MAY_BE_NONE else 1
            if not isinstance(value, bool) and value < least:
                raise InputError(f"EvidenceSettings.{item.name} must be at least {least}, got {value}")


FAST = EvidenceSettings(
    people=1,
    frames=24,
    frames_of_three=8,
    scans=1,
    scan_frames=12,
    scan_frames_of_three=6,
    real_clips=1,
    real_frames=30,
    four_camera_frames=8,
    ablations=False,
)
"""All main arms on a clip of every group."""


@dataclass(frozen=True, kw_only=True)
class ClipSource:
    """Where one clip of the study comes from; small, so that it can be sent to another process."""

    name: str
    group: str
    spec: CaseSpec | None = None
    """Of a rendered clip."""
    data: str | None = None
    """Folder of real clips and of the scan."""
    frames: int | None = None
    """Of a real clip: at most so many."""

    def key(self) -> Json:
        """What runs on this clip are kept for."""
        return {"name": self.name, **clip_key(self.name, self.spec, self.frames, footage_of(self.data))}

    def load(self, model: FaceModel) -> Case:
        """Render or read the clip."""
        if self.spec is not None:
            folder = footage_of(self.data).scan_folder
            scan = read_scan(folder) if self.spec.kind == SCAN and folder is not None else None
            return make_case(self.spec, model.head, scan)
        real = next(case for case in footage_of(self.data).cases if case.name == self.name)
        clip, cameras = real.load(self.frames), real.cameras()
        triangulated = None
        if cameras is not None:
            triangulated = triangulate_inner51(
                cameras.cameras, clip.landmarks, max_error_px=LARGEST_TRIANGULATION_ERROR_PX
            )
        return Case(clip=clip, triangulated=triangulated)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One arm on one clip. Plain numbers and text, so that it can be a JSON object."""

    clip: str
    group: str
    arm: str
    scores: Scores
    frames: int
    views: int
    passes: int | None = None
    """None for the encoder alone, as for what follows."""
    seconds: float | None = None
    stop_reason: str | None = None
    identity_spread: tuple[float, ...] = ()
    """Per pass (Table S3b)."""


@dataclass(frozen=True, kw_only=True)
class HeldOutRun:
    """The error in each camera of the session while it was left out of the fit, inner 51 points, percent."""

    clip: str
    arm: str
    views: tuple[str, ...]
    nme51_percent: tuple[float | None, ...]
    """Of the outer-eye distance in the picture."""
    nme51_head_percent: tuple[float | None, ...]
    """Of the head's outer-eye distance in space, which does not shrink in a profile."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was found, with all that it depends on."""

    settings: EvidenceSettings
    encoder_hash: str
    head_hash: str
    workers: int
    """Processes that fitted clips side by side; `seconds` depend on them."""
    absent: tuple[str, ...]
    """What of the real data was not there."""
    runs: tuple[Run, ...]
    true_msi3d_vertices: dict[str, float]
    """Motion stability of the truth, by clip: what a perfect fit has."""
    expected_shape_error_mm: dict[str, float]
    """MPVE at rest that an ideal estimator of the landmarks expects, by clip; of those with white noise."""
    held_out: tuple[HeldOutRun, ...]

    def of(self, arm: str, group: str) -> tuple[Run, ...]:
        """The runs of one arm on the clips of one group."""
        return tuple(run for run in self.runs if (run.arm, run.group) == (arm, group))


def collect(
    settings: EvidenceSettings,
    data: str | os.PathLike[str] | None = None,
    *,
    keep: Keep | None = None,
    workers: int = 1,
    progress: bool = True,
) -> Evidence:
    """Run what is not kept yet.

    Args:
        data: folder of real clips (`studies.common.recordings`); without it there are rendered people only.
        keep: where finished runs are kept and found again; None keeps nothing.
        workers: processes that fit clips side by side. Each has one thread, so that the figures do not depend on
            their number: with two threads sums are added in another order, and a fit takes another course.
        progress: show a progress bar, one step per run.

    Raises:
        InputError: fewer than one worker; no such data folder, or files of it that cannot be used.
    """
    if workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}")
    if data is not None and not os.path.isdir(data):
        raise InputError(f"{os.fspath(data)} is not a folder; expected one of real clips (docs/benchmark.md)")
    memory = keep or (lambda _name, _key, make: make())
    model = load_model("open")
    origin = model_key(model)
    footage = footage_of(None if data is None else os.fspath(data))
    sources = clip_sources(settings, footage, None if data is None else os.fspath(data))
    jobs = [_run_job(source, arm) for source in sources for arm in arms_for(source, settings)]
    jobs += [
        _truth_job(source) for source in sources if source.spec is not None and source.spec.kind == SYNTHETIC
    ]
    jobs += _held_out_jobs(sources, settings)
    results: dict[str, Json] = {}
    with _pool(workers) as submit, tqdm(total=len(jobs), unit="run", disable=not progress) as bar:

        def finish(job: _Job) -> None:
            key = {**origin, **job.key}
            results[job.name] = memory(job.name, key, lambda: submit(job))
            bar.set_description(job.name)
            bar.update()

        with ThreadPoolExecutor(max_workers=workers) as threads:
            # Ends with the first error; what has finished by then is kept.
            list(threads.map(finish, jobs))
    return Evidence(
        settings=settings,
        encoder_hash=origin["encoder"],
        head_hash=origin["head"],
        workers=workers,
        absent=footage.absent if data is not None else ("real clips and the scan: no data folder was given",),
        runs=tuple(run_from_json(results[job.name]) for job in jobs if job.kind == "run"),
        true_msi3d_vertices={
            job.source.name: results[job.name]["msi3d_vertices"] for job in jobs if job.kind == "truth"
        },
        expected_shape_error_mm={
            job.source.name: error
            for job in jobs
            if job.kind == "truth" and (error := results[job.name]["expected_shape_error_mm"]) is not None
        },
        held_out=_held_out_runs([results[job.name] for job in jobs if job.kind == "held_out"]),
    )


def clip_sources(
    settings: EvidenceSettings, footage: RealFootage, data: str | None
) -> tuple[ClipSource, ...]:
    """The clips of the study, in the order of its groups."""
    specs = [
        CaseSpec(
            kind=SYNTHETIC,
            role=TEST,
            views=views,
            # People before three cameras are others than those before one.
            number=number if views == 1 else settings.people + number,
            time=settings.frames if views == 1 else settings.frames_of_three,
            size_px=settings.size_px,
            condition=condition,
        )
        for condition in (CLEAN, HARD)
        for views in (1, 3)
        for number in range(settings.people)
    ]
    if footage.scan_folder is not None:
        specs += [
            CaseSpec(
                kind=SCAN,
                role=TEST,
                views=views,
                number=number,
                time=settings.scan_frames if views == 1 else settings.scan_frames_of_three,
                size_px=settings.size_px,
            )
            for views in (1, 3)
            for number in range(settings.scans)
        ]
    rendered = [ClipSource(name=spec.name, group=spec.group, spec=spec, data=data) for spec in specs]
    limits = {
        REAL_1VIEW: (settings.real_clips, settings.real_frames),
        FOUR_CAMERAS: (min(1, settings.four_camera_frames), settings.four_camera_frames),
    }
    real = [
        ClipSource(name=case.name, group=group, data=data, frames=frames)
        for group, (count, frames) in limits.items()
        for case in footage.of_group(group)[:count]
    ]
    return (*rendered, *real)


def arms_for(source: ClipSource, settings: EvidenceSettings) -> tuple[Arm, ...]:
    """The main arms; on clips that show several views also those of the tables of ablations."""
    if settings.ablations and source.group in ABLATION_GROUPS:
        return arms_of((MAIN, LOSSES, SMOOTHERS, PHOTOMETRIC))
    return MAIN


def run_from_json(kept: Json) -> Run:
    """The run whose `dataclasses.asdict` this is."""
    scores = Scores(**{name: _tuples(value) for name, value in kept["scores"].items()})
    return Run(**{**kept, "scores": scores, "identity_spread": tuple(kept["identity_spread"])})


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One thing to compute and keep."""

    kind: str
    """`run`, `truth` or `held_out`."""
    name: str
    key: Json
    source: ClipSource
    arm: Arm | None = None


def _run_job(source: ClipSource, arm: Arm) -> _Job:
    key = {**source.key(), "config": None if arm.config is None else asdict(arm.config)}
    return _Job(kind="run", name=f"{source.name}.{arm.name}", key=key, source=source, arm=arm)


def _truth_job(source: ClipSource) -> _Job:
    return _Job(kind="truth", name=f"{source.name}.truth", key=source.key(), source=source)


def _held_out_jobs(sources: Sequence[ClipSource], settings: EvidenceSettings) -> list[_Job]:
    """Fits without each camera, by every arm that fits; the encoder's own answers come with each of them."""
    if not settings.held_out:
        return []
    return [
        _Job(
            kind="held_out",
            name=f"{source.name}.held_out.{arm.name}",
            key={**source.key(), "config": asdict(arm.config)},
            source=source,
            arm=arm,
        )
        for source in sources
        if source.group == FOUR_CAMERAS
        for arm in MAIN
        if arm.config is not None
    ]


def _compute(job: _Job) -> Json:
    model = _model()
    case = _case(job.source)
    if job.kind == "truth":
        assert job.source.spec is not None
        # Only white noise is known well enough to tell what could be made of it.
        white = job.source.spec.condition == CLEAN
        return {
            "msi3d_vertices": true_stability(case, model.head),
            "expected_shape_error_mm": expected_shape_error_mm(case, model, NOISE_PX) if white else None,
        }
    assert job.arm is not None
    if job.kind == "held_out":
        assert job.arm.config is not None
        config = job.arm.config
        held_out = leave_one_view_out(
            case.clip,
            model.head,
            lambda clip: optimize(clip, model=model, config=config, progress=False),
            progress=False,
        )
        return _held_out_json(job, held_out)
    return asdict(_run(job.source, job.arm, case, model))


def _run(source: ClipSource, arm: Arm, case: Case, model: FaceModel) -> Run:
    views, time = case.clip.valid.shape
    common: dict[str, Any] = {
        "clip": source.name,
        "group": source.group,
        "arm": arm.name,
        "frames": time,
        "views": views,
    }
    if arm.config is None:
        return Run(**common, scores=score(case, model.head, encoder_answer(case, model, FitConfig())))
    result = optimize(case.clip, model=model, config=arm.config, progress=False)
    return Run(
        **common,
        scores=score(case, model.head, result.prediction),
        passes=len(result.history["total"]) - 1,
        seconds=result.seconds,
        stop_reason=result.stop_reason,
        identity_spread=tuple(result.identity_spread),
    )


def _held_out_runs(kept: Sequence[Json]) -> tuple[HeldOutRun, ...]:
    """One per clip and arm: the encoder's answers are measured beside every fit, and are always the same."""
    found: dict[tuple[str, str], HeldOutRun] = {}
    for part in (part for parts in kept for part in parts.values()):
        run = HeldOutRun(**{name: _tuples(value) for name, value in part.items()})
        found.setdefault((run.clip, run.arm), run)
    return tuple(found.values())


def _held_out_json(job: _Job, found: HeldOutView) -> Json:
    assert job.arm is not None
    common = {"clip": job.source.name, "views": found.names}
    return {
        arm: {
            **common,
            "arm": arm,
            "nme51_percent": view_means(errors.nme51_percent),
            "nme51_head_percent": view_means(errors.nme51_head_percent),
        }
        for arm, errors in ((ENCODER, found.initial), (job.arm.name, found.fitted))
    }


@contextmanager
def _pool(workers: int) -> Iterator[Callable[[_Job], Json]]:
    """How a job is computed, with one thread: here, or in one of several processes."""
    if workers == 1:
        with cpu_threads(1):
            yield _compute
        return
    pool: Executor
    with ProcessPoolExecutor(
        max_workers=workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        yield lambda job: pool.submit(_compute, job).result()


@lru_cache(maxsize=1)
def _model() -> FaceModel:
    return load_model("open")


@lru_cache(maxsize=2)
def _case(source: ClipSource) -> Case:
    return source.load(_model())


@lru_cache(maxsize=4)
def footage_of(data: str | None) -> RealFootage:
    """What a data folder holds; nothing without one."""
    return RealFootage(cases=(), absent=(), scan_folder=None) if data is None else find_footage(data)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
