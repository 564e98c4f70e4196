"""The study of costs, on clips of a few small frames: its processes start, and its figures mean what they say."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from neuface.encoders.open_encoder import OpenEncoder
from neuface.fitting.config import FitConfig
from neuface.head.model import HeadModel
from neuface.io.video import write_video
from studies.benchmark.clips import RenderedClip
from studies.common.cases import SYNTHETIC, TEST, CaseSpec
from studies.performance.__main__ import ROOT
from studies.performance.commands import optimize
from studies.performance.comparison import compared
from studies.performance.cost import Options, cost
from studies.performance.cuda import cuda
from studies.performance.dense_landmarks import DENSE1000, with_dense_landmarks
from studies.performance.long_fit import LongFit, RepeatedViews, measure_fit, write_short_fit
from studies.performance.memory import formula_mb, memory
from studies.performance.neighbours import neighbours
from studies.performance.passes import Case, ResNetOfDecaSize, pass_against_encoder
from studies.performance.person import person
from studies.performance.rendered_track import rendered_problem
from studies.performance.scaling import Sizes, scaling
from studies.performance.scaling_figure import draw
from studies.performance.tables import page, table
from studies.performance.timing import in_turn, machine, ratio
from tests.small_encoder import SMALL_ENCODER

ONE_PASS = {"m_step.stop.max_passes": 1}


def test_things_are_measured_in_turn() -> None:
    order = []

    def measured(name: str, seconds: float) -> float:
        order.append(name)
        return seconds

    found = in_turn({"a": lambda: measured("a", 3.0), "b": lambda: measured("b", 1.5)}, 2)
    assert order == ["a", "b", "a", "b"]
    assert ratio(found, "a", "b") == 2.0


def test_a_page_has_the_machine_of_every_section() -> None:
    text = page({"person": {"machine": machine(), "rows": [{"frames": 75, "seconds": 0.25, "list": [1]}]}})
    assert "## The estimate of the person" in text
    assert "| frames | seconds |" in text
    assert f"torch {torch.__version__}" in text
    assert "list" not in text


def test_a_table_has_a_column_for_every_plain_value() -> None:
    assert table([{"a": 1}, {"b": 12345.6}]).splitlines()[0] == "| a | b |"
    assert "12,346" in table([{"b": 12345.6}])


def test_a_pass_is_compared_with_the_encoder_on_the_same_images(open_head: HeadModel) -> None:
    encoder = OpenEncoder(open_head, SMALL_ENCODER)
    images = encoder.prepare(torch.rand(4, 3, 224, 224))
    problem = rendered_problem(open_head, views=1, time=4).problem
    case = Case(name="small", encoder=encoder, images=images, problem=problem, head=open_head)
    found = pass_against_encoder(case, "cpu", rounds=1)
    assert found["images"] == 4
    # A pass includes the encoder's work.
    assert found["ratio"] == pytest.approx(found["pass_s"] / found["encoder_s"])
    assert found["pass_s"] > 0


def test_the_network_of_decas_size_predicts_heads(open_head: HeadModel) -> None:
    network = ResNetOfDecaSize(open_head)
    assert sum(item.numel() for item in network.parameters()) == pytest.approx(26e6, rel=0.05)
    prediction = network.eval()(torch.rand(1, 3, 224, 224))
    assert torch.isfinite(open_head.vertices(prediction.params)).all()


def test_a_fit_of_several_cameras_is_timed_on_a_device() -> None:
    one_pass = {"m_step.stop.max_passes": 1}
    configs = {"best": FitConfig.best(one_pass), "paper": FitConfig.paper(one_pass)}
    rows = cuda(devices=("cpu",), views=2, frames=3, configs=configs, rounds=1)
    assert [(row["config"], row["views"], row["frames"], row["passes"]) for row in rows] == [
        ("best", 2, 3, 1), ("paper", 2, 3, 1),
    ]  # fmt: skip
    assert all(row["seconds"] > 0 for row in rows)
    assert torch.cuda.is_available() or cuda(devices=("cuda",), views=2, frames=3, configs=configs) == []


def test_the_estimate_of_the_person_is_timed() -> None:
    (row,) = person(frames=(4,), rounds=1)
    assert row["frames"] == 4
    assert row["seconds"] > 0


def test_a_short_clip_repeats_its_frames() -> None:
    frames = torch.arange(2 * 3).reshape(2, 3, 1, 1, 1).expand(2, 3, 2, 2, 3).to(torch.uint8)
    source = RepeatedViews(frames, 7)
    assert source.read(1, 2, 5)[:, 0, 0, 0].tolist() == [5, 3, 4]


def test_the_formula_of_memory_grows_with_every_size() -> None:
    least = formula_mb(100, 1, 16)
    assert formula_mb(200, 1, 16) > least
    assert formula_mb(100, 2, 16) > least
    assert formula_mb(100, 1, 80) > least
    assert formula_mb(100, 1, 8) == least
    # No more images than there are can be predicted at once.
    assert formula_mb(100, 1, 1000) == formula_mb(100, 1, 100)


def test_a_thousand_landmarks_are_far_from_each_other(open_head: HeadModel) -> None:
    head = with_dense_landmarks(open_head)
    points = head.landmarks(head.neutral(1), DENSE1000.name)[0]
    sparse = open_head.landmarks(open_head.neutral(1), "mediapipe478")[0]
    assert torch.equal(points[:478], sparse)
    apart = torch.cdist(points[478:], points[478:]) + torch.eye(522)
    assert float(apart.min()) > 1e-3


def test_a_data_set_costs_its_frames_times_what_a_frame_costs() -> None:
    found = cost(Options(hours=2.0, fps=10.0, detection_ms=30.0, fit_ms=20.0, price_per_core_hour=3.0))
    assert found["frames"] == 72000
    assert found["core-hours"] == pytest.approx(1.0)
    assert found["price on CPUs"] == pytest.approx(3.0)
    assert "GPU-hours" not in found
    with_gpu = cost(Options(hours=2.0, fps=10.0, gpu_ms_per_frame=5.0, price_per_gpu_hour=10.0))
    assert with_gpu["price on GPUs"] == pytest.approx(1.0)


@pytest.mark.slow
def test_equal_versions_have_equal_figures(open_head: HeadModel, tmp_path: Path) -> None:
    spec = CaseSpec(kind=SYNTHETIC, role=TEST, views=3, number=0, time=4, size_px=64)
    rows = compared(
        open_head,
        baseline=ROOT,
        now=ROOT,
        config="best",
        data=tmp_path,
        out=tmp_path,
        clips=(RenderedClip(spec=spec),),
    )
    ratios = {row["figure"]: row["ratio"] for row in rows if "seconds" not in row["figure"]}
    assert {"mpve_mm", "cvd_mm", "held_out_nme51_percent"} <= set(ratios)
    assert all(value == pytest.approx(1, abs=1e-6) for value in ratios.values() if value is not None)


@pytest.mark.slow
def test_fits_run_beside_others(tmp_path: Path) -> None:
    clip = write_short_fit(tmp_path / "clip.npz", frames=4)
    found = neighbours(ROOT, "best", clip, tmp_path, views=1, rounds=1, spinning=1)
    assert {name: len(values) for name, values in found["seconds"].items()} == {
        "alone": 1,
        "two side by side": 2,
        "beside spinning": 1,
    }
    assert found["two_side_by_side"] > 0


@pytest.mark.slow
def test_sizes_are_fitted_in_processes_of_their_own(tmp_path: Path) -> None:
    (row,) = memory(tmp_path, (LongFit(frames=6, views=2, changes=ONE_PASS),))
    assert 200 < row["peak_mb"] < row["formula_mb"]
    sizes = Sizes(
        frames=(4,), views=(2,), frames_of_views=4, schemes=("dense1000",), frames_of_schemes=5, whole=()
    )
    rows = scaling(tmp_path, sizes)
    assert [(item["series"], item["frames"], item["views"], item["landmarks"]) for item in rows] == [
        ("frames", 4, 1, "mediapipe478"), ("views", 4, 2, "mediapipe478"), ("landmarks", 5, 1, "dense1000"),
    ]  # fmt: skip
    for item in rows:
        stages = item["encoder_cpu_seconds"] + item["person_cpu_seconds"] + item["passes_cpu_seconds"]
        assert 0 < item["linear_system_cpu_seconds"] < item["passes_cpu_seconds"]
        assert stages < item["cpu_seconds"]
    draw(rows, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux counts it")
def test_a_fit_needs_no_more_memory_than_the_formula_says(tmp_path: Path) -> None:
    limit_mb = formula_mb(100, 1, 32)
    enough = LongFit(frames=100, changes=ONE_PASS, memory_limit_mb=limit_mb)
    assert measure_fit(enough, tmp_path)["peak_mb"] < limit_mb
    with pytest.raises(subprocess.CalledProcessError):
        measure_fit(replace(enough, memory_limit_mb=limit_mb - 150), tmp_path)


@pytest.mark.slow
def test_a_video_is_fitted_as_a_user_would(tmp_path: Path) -> None:
    with np.load(write_short_fit(tmp_path / "clip.npz", frames=4)) as made:
        frames, points = torch.from_numpy(made["frames_0"]), made["points"][0, ..., :2]
    write_video(tmp_path / "clip.mp4", frames, 25.0)
    np.savez(tmp_path / "points.npz", points_px=points)
    found = optimize(str(tmp_path / "clip.mp4"), str(tmp_path / "points.npz"), 4, passes=1)
    assert min(found["read_s"], found["fit_s"]) > 0
    assert found["read_s"] + found["fit_s"] <= found["seconds"]
