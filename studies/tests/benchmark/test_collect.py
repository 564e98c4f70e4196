"""Collecting the evidence: which clips, variants and jobs there are, that finished jobs are kept, and the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from data_folders import DATA, needs

from neuface.errors import InputError
from neuface.fitting.config import DirectFit, FitConfig
from studies.benchmark.__main__ import main
from studies.benchmark.clips import RealClip, RenderedClip, benchmark_clips
from studies.benchmark.collect import collect, jobs_of, one_per_variant, variants_for
from studies.benchmark.command import run_benchmark
from studies.benchmark.jobs import HeldOutJob
from studies.benchmark.records import HeldOutRun
from studies.benchmark.settings import BenchmarkSettings
from studies.benchmark.variants import (
    BEST,
    DIRECT,
    LOSSES,
    MAIN,
    NEURAL,
    OFFICIAL,
    PAPER,
    PHOTOMETRIC,
    SMOOTHERS,
)
from studies.common.cache_keys import FileHashes
from studies.common.kept_runs import Json, Keep, kept_in
from studies.common.recordings import RECORDINGS, SCAN_FILES, SCAN_FOLDER, RealFootage, find_footage
from studies.common.variants import ENCODER, Variant

NOTHING = RealFootage(cases=(), absent=(), scan_folder=None)
TINY = BenchmarkSettings(
    people=1, frames=8, frames_of_three=8, scans=0, size_px=96, real_clips=0, four_camera_frames=0,
    ablations=False, held_out=False,
)  # fmt: skip


def shortened(variant: Variant) -> Variant:
    if variant.config is None:
        return variant
    quick = {"m_step.stop.max_passes": 2, "m_step.stop.patience": 2}
    if isinstance(variant.config.m_step, DirectFit):
        quick["m_step.coarse_passes"] = 1
    return replace(variant, config=variant.config.changed(quick))


SHORT = tuple(shortened(variant) for variant in MAIN if variant.name != "official_fast")
ENCODER_ALONE = MAIN[:1]


class Watched:
    """Keeps jobs in a folder and remembers which of them were computed."""

    def __init__(self, folder: Path) -> None:
        self.computed: list[str] = []
        self._keep: Keep = kept_in(folder)

    def __call__(self, name: str, key: Json, make: Callable[[], Json]) -> Json:
        def counted() -> Json:
            self.computed.append(name)
            assert torch.get_num_threads() == 1
            return make()

        return self._keep(name, key, counted)


# --- What there is


def test_main_variants_are_the_presets() -> None:
    configs = {variant.name: variant.config for variant in MAIN}
    assert configs[ENCODER] is None
    assert configs[DIRECT] == FitConfig.direct()
    assert configs[PAPER] == FitConfig.paper()
    assert configs[OFFICIAL] == FitConfig.official()
    assert configs[NEURAL] == FitConfig.neural()
    assert configs[BEST] == FitConfig()


def test_a_variant_of_one_name_is_the_same_in_every_table() -> None:
    """A run is kept under its variant's name, and tables share runs."""
    configs: dict[str, Any] = {}
    for variant in (*MAIN, *LOSSES, *SMOOTHERS, *PHOTOMETRIC):
        assert configs.setdefault(variant.name, variant.config) == variant.config, variant.name


def test_rendered_clips_are_clean_and_hard_twins() -> None:
    clips = benchmark_clips(replace(TINY, people=2), NOTHING)
    assert len(clips) == len({clip.name for clip in clips}) == 8
    specs = [clip.spec for clip in clips if isinstance(clip, RenderedClip)]
    clean, hard = specs[:4], specs[4:]
    assert [spec.condition for spec in specs] == ["clean"] * 4 + ["hard"] * 4
    assert [spec.clip_seed for spec in clean] == [spec.clip_seed for spec in hard]
    # No person appears both in front of one camera and in front of three.
    assert len({spec.person_seed for spec in clean}) == 4


def test_ablations_run_on_clips_of_several_views() -> None:
    settings = BenchmarkSettings()
    assert variants_for(settings, "synthetic_1view") == MAIN
    assert {variant.name for variant in variants_for(settings, "synthetic_3views")} == {
        variant.name for variant in (*MAIN, *LOSSES, *SMOOTHERS, *PHOTOMETRIC)
    }
    assert variants_for(replace(settings, ablations=False), "synthetic_3views") == MAIN


def test_hard_clips_are_kept_for_their_corruption() -> None:
    clean, *_, hard = benchmark_clips(TINY, NOTHING)
    assert "corruption" in hard.key(FileHashes())
    assert "corruption" not in clean.key(FileHashes())


@needs(DATA)
def test_real_clips_are_limited() -> None:
    settings = replace(TINY, real_clips=2, real_frames=30, four_camera_frames=8, scans=1)
    clips = benchmark_clips(settings, find_footage(DATA))
    real = [clip for clip in clips if isinstance(clip, RealClip)]
    assert [clip.group for clip in real] == ["real_1view", "real_1view", "four_cameras"]
    assert [clip.frames for clip in real] == [30, 30, 8]
    assert sum(clip.group.startswith("scan") for clip in clips) == 2
    without = benchmark_clips(replace(settings, four_camera_frames=0), find_footage(DATA))
    assert not any(clip.group == "four_cameras" for clip in without)


@needs(DATA)
def test_every_variant_with_a_fit_is_fitted_without_each_camera() -> None:
    settings = replace(TINY, four_camera_frames=8, held_out=True)
    jobs = jobs_of(settings, benchmark_clips(settings, find_footage(DATA)))
    fitted = [variant.name for variant in MAIN if variant.config is not None]
    assert [job.name for job in jobs if isinstance(job, HeldOutJob)] == [
        f"calibration_session.held_out.{name}" for name in fitted
    ]
    assert not any(
        isinstance(job, HeldOutJob) for job in jobs_of(settings, benchmark_clips(settings, NOTHING))
    )


# --- Running it


def test_finished_runs_are_kept_and_the_report_is_written(tmp_path: Path) -> None:
    found = run_benchmark(tmp_path, TINY, variants=SHORT, progress=False)
    names = [(run.clip, run.variant) for run in found.runs]
    assert len(names) == len(set(names)) == 4 * len(SHORT)
    assert {run.group for run in found.runs} == {
        "synthetic_1view", "synthetic_3views", "hard_synthetic_1view", "hard_synthetic_3views",
    }  # fmt: skip
    for run in found.runs:
        assert run.scores.mpve_mm is not None
        assert run.scores.true_nme_percent is not None
        assert (run.scores.cvd_mm is None) == (run.views == 1)
        assert (run.passes is None) == (run.variant == ENCODER)
        assert len(run.identity_spread) == (0 if run.variant == ENCODER else (run.passes or 0) + 1)
    assert set(found.true_msi3d_vertices) == {run.clip for run in found.runs}
    written = {path.name for path in tmp_path.iterdir()}
    assert written >= {"report.html", "report.md", "tables.json", "figures", "runs"}
    assert (tmp_path / "figures" / "gradient_maps.png").stat().st_size > 10_000
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    for line in report.splitlines():
        if line.startswith("!["):
            assert (tmp_path / line.rpartition("(")[2].rstrip(")")).is_file(), line
    json.loads((tmp_path / "tables.json").read_text(encoding="utf-8"))

    watched = Watched(tmp_path / "runs")
    repeated = collect(TINY, variants=SHORT, keep=watched, progress=False)
    assert watched.computed == []
    assert repeated.runs == found.runs


def test_a_run_of_another_configuration_is_computed_again(tmp_path: Path) -> None:
    watched, threads = Watched(tmp_path), torch.get_num_threads()
    collect(TINY, variants=ENCODER_ALONE, keep=watched, progress=False)
    # The encoder alone and the truth of each of four clips.
    assert len(watched.computed) == 8
    collect(replace(TINY, frames=9), variants=ENCODER_ALONE, keep=watched, progress=False)
    assert sorted(watched.computed[8:]) == [
        f"test_{group}_00.{job}"
        for group in ("hard_synthetic_1view", "synthetic_1view")
        for job in ("encoder", "truth")
    ]
    assert torch.get_num_threads() == threads


def test_fast_and_settings_do_not_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--out", str(tmp_path), "--fast", "--settings.people", "3"])
    assert stopped.value.code == 2
    assert "--fast has settings of its own" in capsys.readouterr().err


def test_wrong_settings_are_refused_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"workers must be at least 1, got 0"):
        collect(TINY, workers=0, progress=False)
    with pytest.raises(InputError, match=r"not/there is not a folder"):
        collect(TINY, tmp_path / "not" / "there", progress=False)
    with pytest.raises(InputError, match=r"BenchmarkSettings\.people must be at least 1, got 0"):
        BenchmarkSettings(people=0)
    with pytest.raises(InputError, match=r"BenchmarkSettings\.scans must be at least 0, got -1"):
        BenchmarkSettings(scans=-1)


# --- What runs are kept for


@needs(DATA)
def test_runs_are_kept_for_the_content_of_the_files(tmp_path: Path) -> None:
    """Another folder does not matter; another video or scan of the same name is another clip."""
    settings = replace(TINY, real_clips=1, scans=1)
    recording = RECORDINGS[0]
    for name in (*recording.videos, recording.landmarks, *(f"{SCAN_FOLDER}/{file}" for file in SCAN_FILES)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((DATA / name).read_bytes())

    def keys(folder: Path) -> dict[str, Any]:
        hashes = FileHashes()
        return {
            clip.name: clip.key(hashes)
            for clip in benchmark_clips(settings, find_footage(folder))
            if clip.group in ("real_1view", "scan_1view")
        }

    there, copied = keys(DATA), keys(tmp_path)
    assert len(there) == 2
    assert there == copied
    for changed in (recording.videos[0], f"{SCAN_FOLDER}/{SCAN_FILES[0]}"):
        with (tmp_path / changed).open("ab") as stream:
            stream.write(b"x")
    after = keys(tmp_path)
    assert all(after[name] != there[name] for name in there)


def test_the_configuration_is_part_of_the_key() -> None:
    (clip, *_) = benchmark_clips(TINY, NOTHING)
    names = ("best", "paper", "paper_median")
    variants = [next(variant for variant in (*MAIN, *SMOOTHERS) if variant.name == name) for name in names]
    keys = [str(job.key(FileHashes())) for job in jobs_of(TINY, [clip], variants)[:3]]
    assert len(set(keys)) == 3


def test_the_encoder_counts_once_beside_the_variants_without_a_view() -> None:
    def run(variant: str) -> HeldOutRun:
        return HeldOutRun(
            clip="session", variant=variant, views=("a",), nme51_percent=(3.0,), nme51_head_percent=(1.0,)
        )

    runs = [run(variant) for variant in (ENCODER, DIRECT, ENCODER, PAPER)]
    assert [found.variant for found in one_per_variant(runs)] == [ENCODER, DIRECT, PAPER]
