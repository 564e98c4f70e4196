"""Collecting the evidence: which clips and arms there are, that finished runs are kept, and the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from data_folders import DATA, needs

from neuface.cli import main
from neuface.errors import InputError
from neuface.fitting.config import FitConfig
from studies.benchmark import cache_keys as evidence_keys
from studies.benchmark import collect as evidence
from studies.benchmark.cache_keys import file_hash
from studies.benchmark.collect import (
    ClipSource,
    EvidenceSettings,
    arms_for,
    clip_sources,
    collect,
    footage_of,
)
from studies.benchmark.command import run_benchmark
from studies.benchmark.variants import (
    BEST,
    DIRECT,
    ENCODER,
    LOSSES,
    MAIN,
    OFFICIAL,
    PAPER,
    PHOTOMETRIC,
    SMOOTHERS,
    Arm,
)
from studies.common.kept_runs import kept_in
from studies.common.recordings import RECORDINGS, SCAN_FILES, SCAN_FOLDER, RealFootage, find_footage

NOTHING = RealFootage(cases=(), absent=(), scan_folder=None)
TINY = EvidenceSettings(
    people=1, frames=8, frames_of_three=8, scans=0, size_px=96, real_clips=0, four_camera_frames=0,
    ablations=False, held_out=False,
)  # fmt: skip


def shortened(arm: Arm) -> Arm:
    if arm.config is None:
        return arm
    coarse = 1 if arm.config.coarse_passes else 0
    return replace(arm, config=replace(arm.config, max_passes=2, patience=2, coarse_passes=coarse))


@pytest.fixture
def short_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    arms = tuple(shortened(arm) for arm in MAIN if arm.name in (ENCODER, DIRECT, PAPER, OFFICIAL, BEST))
    monkeypatch.setattr(evidence, "MAIN", arms)


# --- What there is


def test_main_arms_are_the_presets() -> None:
    configs = {arm.name: arm.config for arm in MAIN}
    assert configs[ENCODER] is None
    assert configs[DIRECT] == FitConfig.direct()
    assert configs[PAPER] == FitConfig.paper()
    assert configs[OFFICIAL] == FitConfig.official()
    assert configs[BEST] == FitConfig()


def test_an_arm_of_one_name_is_the_same_in_every_table() -> None:
    """A run is kept under its arm's name, and tables share runs."""
    configs: dict[str, Any] = {}
    for arm in (*MAIN, *LOSSES, *SMOOTHERS, *PHOTOMETRIC):
        assert configs.setdefault(arm.name, arm.config) == arm.config, arm.name


def test_rendered_clips_are_clean_and_hard_twins() -> None:
    sources = clip_sources(replace(TINY, people=2), NOTHING, None)
    assert len(sources) == len({source.name for source in sources}) == 8
    specs = [source.spec for source in sources if source.spec is not None]
    clean, hard = specs[:4], specs[4:]
    assert [spec.condition for spec in specs] == ["clean"] * 4 + ["hard"] * 4
    assert [spec.clip_seed for spec in clean] == [spec.clip_seed for spec in hard]
    # Nobody stands before one camera and before three.
    assert len({spec.person_seed for spec in clean}) == 4


def test_ablations_are_run_where_every_term_has_something_to_do() -> None:
    settings = EvidenceSettings()
    several = ClipSource(name="a", group="synthetic_3views")
    single = ClipSource(name="b", group="synthetic_1view")
    assert {arm.name for arm in arms_for(single, settings)} == {arm.name for arm in MAIN}
    assert {arm.name for arm in arms_for(several, settings)} == {
        arm.name for arm in (*MAIN, *LOSSES, *SMOOTHERS, *PHOTOMETRIC)
    }
    assert arms_for(several, replace(settings, ablations=False)) == MAIN


def test_hard_clips_are_kept_for_their_corruption() -> None:
    clean, *_, hard = clip_sources(TINY, NOTHING, None)
    assert "corruption" in hard.key()
    assert "corruption" not in clean.key()


@needs(DATA)
def test_real_clips_are_limited() -> None:
    settings = replace(TINY, real_clips=2, real_frames=30, four_camera_frames=8, scans=1)
    sources = clip_sources(settings, find_footage(DATA), str(DATA))
    real = [source for source in sources if source.spec is None]
    assert [source.group for source in real] == ["real_1view", "real_1view", "four_cameras"]
    assert [source.frames for source in real] == [30, 30, 8]
    assert sum(source.group.startswith("scan") for source in sources) == 2
    without = clip_sources(replace(settings, four_camera_frames=0), find_footage(DATA), str(DATA))
    assert not any(source.group == "four_cameras" for source in without)


# --- Running it


@pytest.mark.usefixtures("short_fits")
def test_finished_runs_are_kept_and_the_report_is_written(tmp_path: Path) -> None:
    found = run_benchmark(tmp_path, TINY, progress=False)
    names = [(run.clip, run.arm) for run in found.runs]
    assert len(names) == len(set(names)) == 4 * 5
    assert {run.group for run in found.runs} == {
        "synthetic_1view", "synthetic_3views", "hard_synthetic_1view", "hard_synthetic_3views",
    }  # fmt: skip
    for run in found.runs:
        assert run.scores.mpve_mm is not None
        assert run.scores.true_nme_percent is not None
        assert (run.scores.cvd_mm is None) == (run.views == 1)
        assert (run.passes is None) == (run.arm == ENCODER)
        assert len(run.identity_spread) == (0 if run.arm == ENCODER else (run.passes or 0) + 1)
    assert set(found.true_msi3d_vertices) == {run.clip for run in found.runs}
    written = {path.name for path in tmp_path.iterdir()}
    assert written >= {"report.html", "report.md", "tables.json", "figures", "runs"}
    assert (tmp_path / "figures" / "gradient_maps.png").stat().st_size > 10_000
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    for line in report.splitlines():
        if line.startswith("!["):
            assert (tmp_path / line.rpartition("(")[2].rstrip(")")).is_file(), line
    json.loads((tmp_path / "tables.json").read_text(encoding="utf-8"))

    def refuse(_: Any) -> Any:
        raise AssertionError("everything was kept: nothing is to be computed again")

    again = pytest.MonkeyPatch()
    again.setattr(evidence, "_compute", refuse)
    repeated = collect(TINY, keep=kept_in(tmp_path / "runs"), progress=False)
    again.undo()
    assert repeated.runs == found.runs


@pytest.mark.usefixtures("short_fits")
def test_a_run_of_another_configuration_is_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(TINY, frames_of_three=8)
    monkeypatch.setattr(evidence, "clip_sources", lambda *arguments: clip_sources(*arguments)[:1])
    keep = kept_in(tmp_path)
    collect(settings, keep=keep, progress=False)
    computed: list[str] = []
    true_compute = evidence._compute

    def counting(job: Any) -> Any:
        computed.append(job.name)
        return true_compute(job)

    monkeypatch.setattr(evidence, "_compute", counting)
    changed = tuple(
        replace(arm, config=replace(arm.config, seed=5)) if arm.name == PAPER and arm.config else arm
        for arm in evidence.MAIN
    )
    monkeypatch.setattr(evidence, "MAIN", changed)
    collect(settings, keep=keep, progress=False)
    assert computed == ["test_synthetic_1view_00.paper"]


def test_fast_and_settings_do_not_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["benchmark", "--out", str(tmp_path), "--fast", "--settings.people", "3"])
    assert stopped.value.code == 2
    assert "--fast has settings of its own" in capsys.readouterr().err


def test_what_cannot_be_run_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"workers must be at least 1, got 0"):
        collect(TINY, workers=0, progress=False)
    with pytest.raises(InputError, match=r"not/there is not a folder"):
        collect(TINY, tmp_path / "not" / "there", progress=False)
    with pytest.raises(InputError, match=r"EvidenceSettings\.people must be at least 1, got 0"):
        EvidenceSettings(people=0)
    with pytest.raises(InputError, match=r"EvidenceSettings\.scans must be at least 0, got -1"):
        EvidenceSettings(scans=-1)


# --- What runs are kept for


@needs(DATA)
def test_runs_are_kept_for_what_is_in_the_files(tmp_path: Path) -> None:
    """Wherever the folder lies; but another video or scan of the same name is another clip."""
    settings = replace(TINY, real_clips=1, scans=1)
    recording = RECORDINGS[0]
    for name in (*recording.videos, recording.landmarks, *(f"{SCAN_FOLDER}/{file}" for file in SCAN_FILES)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((DATA / name).read_bytes())

    def keys(folder: Path) -> dict[str, Any]:
        footage_of.cache_clear()
        return {
            source.name: source.key()
            for source in clip_sources(settings, find_footage(folder), str(folder))
            if source.group in ("real_1view", "scan_1view")
        }

    there, copied = keys(DATA), keys(tmp_path)
    assert len(there) == 2
    assert there == copied
    for changed in (recording.videos[0], f"{SCAN_FOLDER}/{SCAN_FILES[0]}"):
        with (tmp_path / changed).open("ab") as stream:
            stream.write(b"x")
    file_hash.cache_clear()
    after = keys(tmp_path)
    assert all(after[name] != there[name] for name in there)


def test_runs_are_kept_for_the_code_that_made_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "clip_sources", lambda *arguments: clip_sources(*arguments)[:1])
    monkeypatch.setattr(evidence, "MAIN", MAIN[:1])
    computed: list[str] = []
    true_compute = evidence._compute

    def counting(job: Any) -> Any:
        computed.append(job.name)
        assert torch.get_num_threads() == 1
        return true_compute(job)

    monkeypatch.setattr(evidence, "_compute", counting)
    threads = torch.get_num_threads()
    for code, expected in (("a", 2), ("a", 2), ("b", 4)):
        monkeypatch.setattr(evidence_keys, "package_sha256", lambda _, code=code: code)
        collect(TINY, keep=kept_in(tmp_path), progress=False)
        assert len(computed) == expected
    assert torch.get_num_threads() == threads


@needs(DATA)
def test_every_arm_that_fits_is_held_out() -> None:
    settings = replace(TINY, four_camera_frames=8, held_out=True)
    jobs = evidence._held_out_jobs(clip_sources(settings, find_footage(DATA), str(DATA)), settings)
    fitted = [arm.name for arm in MAIN if arm.config is not None]
    assert [job.name for job in jobs] == [f"calibration_session.held_out.{name}" for name in fitted]
    assert evidence._held_out_jobs([], settings) == []


def test_the_encoder_counts_once_beside_the_arms_that_are_held_out() -> None:
    kept = [
        {
            arm: {
                "clip": "session",
                "arm": arm,
                "views": ["a"],
                "nme51_percent": [value],
                "nme51_head_percent": [1.0],
            }
            for arm, value in ((ENCODER, 3.0), (name, 2.0))
        }
        for name in (DIRECT, PAPER)
    ]  # fmt: skip
    assert [run.arm for run in evidence._held_out_runs(kept)] == [ENCODER, DIRECT, PAPER]
