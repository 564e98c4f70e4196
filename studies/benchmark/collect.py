"""Collects the evidence: every variant on every clip, kept as it finishes.

Clips come in groups: rendered people with exact truth (one camera or three, clean landmarks or hard ones), a rendered
real scan, real clips, and a real session of four calibrated cameras. A group's figures are means over its clips.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import torch
from tqdm import tqdm

from neuface.errors import InputError
from neuface.models import load_model
from studies.benchmark import jobs as computing
from studies.benchmark.clips import BenchmarkClip, RenderedClip, benchmark_clips
from studies.benchmark.jobs import Computer, HeldOutJob, Job, TruthJob, VariantJob
from studies.benchmark.records import Evidence, HeldOutRun
from studies.benchmark.settings import BenchmarkSettings
from studies.benchmark.variants import LOSSES, MAIN, PHOTOMETRIC, SMOOTHERS, every_variant
from studies.common.cache_keys import FileHashes, model_key
from studies.common.cases import SYNTHETIC
from studies.common.kept_runs import Json, Keep, keep_nothing
from studies.common.recordings import FOUR_CAMERAS, RealFootage, find_footage
from studies.common.variants import Variant

ABLATION_GROUPS = ("synthetic_3views", FOUR_CAMERAS)
"""Groups with several views, where every term of the objective has an effect."""


def collect(
    settings: BenchmarkSettings,
    data: str | os.PathLike[str] | None = None,
    *,
    variants: Sequence[Variant] = MAIN,
    keep: Keep = keep_nothing,
    workers: int = 1,
    progress: bool = True,
) -> Evidence:
    """Compute what is not kept yet.

    Args:
        data: folder of real clips (`studies.common.recordings`); without it there are rendered people only.
        variants: those that run on every clip.
        keep: where finished jobs are kept and found again.
        workers: processes that fit clips side by side. Each has one thread, so that the figures do not depend on
            their number: a sum over two threads has another order, and a fit then ends elsewhere.
        progress: show a progress bar, one step per job.

    Raises:
        InputError: fewer than one worker; no such data folder, or files of it that cannot be used.
    """
    if workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}")
    footage = footage_below(data)
    jobs = jobs_of(settings, benchmark_clips(settings, footage), variants)
    origin, hashes = model_key(load_model("open"), computing.__name__), FileHashes()
    results: dict[str, Json] = {}
    with _computing(workers) as compute, tqdm(total=len(jobs), unit="job", disable=not progress) as bar:

        def finish(job: Job) -> None:
            key = {**origin, **job.key(hashes)}
            results[job.name] = keep(job.name, key, lambda: compute(job))
            bar.set_description(job.name)
            bar.update()

        with ThreadPoolExecutor(max_workers=workers) as threads:
            # The first error ends the run; what has finished by then is kept.
            list(threads.map(finish, jobs))
    truths = [job.read(results[job.name]) for job in jobs if isinstance(job, TruthJob)]
    held_out = [run for job in jobs if isinstance(job, HeldOutJob) for run in job.read(results[job.name])]
    return Evidence(
        settings=settings,
        encoder_hash=origin["encoder"],
        head_hash=origin["head"],
        workers=workers,
        absent=footage.absent,
        runs=tuple(job.read(results[job.name]) for job in jobs if isinstance(job, VariantJob)),
        true_msi3d_vertices={truth.clip: truth.msi3d_vertices for truth in truths},
        expected_shape_error_mm={
            truth.clip: truth.expected_shape_error_mm
            for truth in truths
            if truth.expected_shape_error_mm is not None
        },
        held_out=one_per_variant(held_out),
    )


def footage_below(data: str | os.PathLike[str] | None) -> RealFootage:
    """The real data in a folder; without one, none of it.

    Raises InputError if `data` is not a folder.
    """
    if data is None:
        nothing = "real clips and the scan: no data folder was given"
        return RealFootage(cases=(), absent=(nothing,), scan_folder=None)
    if not os.path.isdir(data):
        raise InputError(
            f"{os.fspath(data)} is not a folder; expected one of real clips (studies/benchmark/README.md)"
        )
    return find_footage(data)


def jobs_of(
    settings: BenchmarkSettings, clips: Sequence[BenchmarkClip], variants: Sequence[Variant] = MAIN
) -> tuple[Job, ...]:
    """Every job, clip by clip: its variants, its truth, and the fits without each view."""
    return tuple(job for clip in clips for job in _jobs_of_clip(settings, clip, variants))


def variants_for(
    settings: BenchmarkSettings, group: str, variants: Sequence[Variant] = MAIN
) -> tuple[Variant, ...]:
    """Those that run on every clip; on clips of several views also those of the ablations."""
    if settings.ablations and group in ABLATION_GROUPS:
        return every_variant((variants, LOSSES, SMOOTHERS, PHOTOMETRIC))
    return tuple(variants)


def one_per_variant(runs: Sequence[HeldOutRun]) -> tuple[HeldOutRun, ...]:
    """One run per clip and variant: the encoder alone is measured beside every fit, always with the same result."""
    found: dict[tuple[str, str], HeldOutRun] = {}
    for run in runs:
        found.setdefault((run.clip, run.variant), run)
    return tuple(found.values())


def _jobs_of_clip(
    settings: BenchmarkSettings, clip: BenchmarkClip, variants: Sequence[Variant]
) -> Iterator[Job]:
    for variant in variants_for(settings, clip.group, variants):
        yield VariantJob(clip=clip, variant=variant)
    if isinstance(clip, RenderedClip) and clip.spec.kind == SYNTHETIC:
        yield TruthJob(clip=clip)
    if settings.held_out and clip.group == FOUR_CAMERAS:
        for variant in variants:
            if variant.config is not None:
                yield HeldOutJob(clip=clip, variant=variant)


@contextmanager
def _computing(workers: int) -> Iterator[Callable[[Job], Json]]:
    """How a job is computed, with one thread: here, or in one of several processes."""
    if workers == 1:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield Computer().compute
        finally:
            torch.set_num_threads(before)
        return
    with ProcessPoolExecutor(
        max_workers=workers, mp_context=get_context("spawn"), initializer=_start_worker
    ) as pool:
        yield lambda job: pool.submit(_compute_in_worker, job).result()


_computer_of_worker: list[Computer] = []
"""The computer of this process, if it is a worker: a pool hands its tasks nothing but their arguments."""


def _start_worker() -> None:
    torch.set_num_threads(1)
    _computer_of_worker.append(Computer())


def _compute_in_worker(job: Job) -> Json:
    return _computer_of_worker[0].compute(job)
