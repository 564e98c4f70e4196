"""The figures of a whole clip, for predictions whose errors are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from neuface import metrics
from neuface.evaluation.figures import Figures, image_nme_percent, measure
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import SCHEMES
from neuface.structs import HeadParams, Prediction, Track, WeakPerspective


class Case:
    """A prediction for some cameras, and landmarks that it projects to exactly."""

    def __init__(self, head: HeadModel, params: HeadParams, scheme: str = "ibug68") -> None:
        views, time = params.identity.shape[:2]
        self.head, self.params = head, params
        self.camera = WeakPerspective(
            scale=torch.full((views, time), 800.0, dtype=torch.float64),
            offset=torch.full((views, time, 2), 240.0, dtype=torch.float64),
        )
        points = self.camera.project(head.landmarks(params, scheme))
        self.landmarks = Track(
            points_px=points, confidence=torch.ones_like(points[..., 0]), scheme=SCHEMES[scheme]
        )
        self.valid = torch.ones(views, time, dtype=torch.bool)

    @property
    def prediction(self) -> Prediction:
        return Prediction(params=self.params, camera=self.camera)

    def figures(self, truth: HeadParams | None = None) -> Figures:
        return measure(self.head, self.prediction, self.landmarks, self.valid, truth)


@pytest.mark.parametrize("scheme", ["ibug68", "mediapipe478"])
def test_a_perfect_prediction_has_no_error(tiny_head, random_params, scheme: str) -> None:
    params = random_params(tiny_head(), 2, 6)
    figures = Case(tiny_head(), params, scheme).figures(truth=params)
    assert figures.nme_percent == pytest.approx(0, abs=1e-9)
    assert figures.nme51_percent == pytest.approx(0, abs=1e-9)
    assert figures.mpve_mm == pytest.approx(0, abs=1e-9)
    assert figures.cvd_mm is not None
    assert figures.cvd_mm > 0


@pytest.mark.parametrize("scheme", ["ibug68", "mediapipe478"])
def test_nme_of_landmarks_that_are_all_off_by_three_pixels(tiny_head, random_params, scheme: str) -> None:
    case = Case(tiny_head(), random_params(tiny_head(), 2, 6), scheme)
    points = case.landmarks.points_px
    corners = SCHEMES[scheme].outer_eyes
    eyes = (points[..., corners[0], :] - points[..., corners[1], :]).norm(dim=-1)
    off = points + torch.tensor([3.0, 0.0])
    case.landmarks = replace(case.landmarks, points_px=off)
    expected = (300 / eyes).mean()
    assert case.figures().nme_percent == pytest.approx(float(expected))
    # The contour does not count for the inner 51.
    contour = list(SCHEMES[scheme].contour)
    off = points.clone()
    off[..., contour, 0] += 3
    case.landmarks = replace(case.landmarks, points_px=off)
    figures = case.figures()
    assert figures.nme_percent == pytest.approx(float(expected) * 17 / 68)
    assert figures.nme51_percent == pytest.approx(0, abs=1e-9)


def test_frames_that_are_not_valid_have_no_nme(tiny_head, random_params) -> None:
    case = Case(tiny_head(), random_params(tiny_head(), 2, 6))
    off = case.landmarks.points_px.clone()
    off[0, 2] += 50
    case.landmarks = replace(case.landmarks, points_px=off)
    assert case.figures().nme_percent != pytest.approx(0, abs=1e-6)
    case.valid = case.valid.clone()
    case.valid[0, 2] = False
    assert case.figures().nme_percent == pytest.approx(0, abs=1e-6)


def test_images_without_landmarks_are_nan_alone(tiny_head, random_params) -> None:
    case = Case(tiny_head(), random_params(tiny_head(), 2, 6))
    confidence = case.landmarks.confidence.clone()
    confidence[1, 3] = 0
    case.landmarks = replace(case.landmarks, confidence=confidence)
    per_image = image_nme_percent(case.head, case.prediction, case.landmarks)
    assert per_image.isnan().nonzero().tolist() == [[1, 3]]
    assert case.figures().nme_percent == pytest.approx(0, abs=1e-9)


def test_figures_that_do_not_apply_are_none(tiny_head, random_params) -> None:
    case = Case(tiny_head(), random_params(tiny_head(), 1, 3))
    case.valid = torch.zeros(1, 3, dtype=torch.bool)
    assert case.figures() == Figures(
        nme_percent=None, nme51_percent=None, msi3d_landmarks=None, msi3d_vertices=None, cvd_mm=None, mpve_mm=None
    )  # fmt: skip
    two = Case(tiny_head(), random_params(tiny_head(), 2, 3))
    two.valid = torch.tensor([[True, False, False], [False, True, True]])
    assert two.figures().cvd_mm is None


def test_cvd_does_not_depend_on_the_cameras(tiny_head, random_params) -> None:
    """Another rotation of each camera changes each view's root rotation but not the distance."""
    head = tiny_head()
    params = random_params(head, 3, 6)
    before = Case(head, params).figures()
    for seed in range(2):
        cameras = Rotation.from_rotvec(np.random.default_rng(seed).normal(size=(3, 3)))
        turned = params.root_rotvec.clone()
        for view in range(3):
            around = cameras[view] * Rotation.from_rotvec(params.root_rotvec[view].numpy())
            turned[view] = torch.from_numpy(around.as_rotvec())
        after = Case(head, replace(params, root_rotvec=turned)).figures()
        assert after.cvd_mm == pytest.approx(before.cvd_mm, rel=1e-9)
    other = Case(head, replace(params, jaw_rotvec=params.jaw_rotvec.flip(0))).figures()
    assert other.cvd_mm != pytest.approx(before.cvd_mm, rel=1e-3)


def test_views_are_compared_in_the_same_frame(tiny_head, random_params) -> None:
    """The same face in three cameras has no distance for any orientation."""
    head = tiny_head()
    alike = random_params(head, 1, 5)[torch.zeros(3, dtype=torch.long)]
    turned = replace(alike, root_rotvec=random_params(head, 3, 5, seed=4).root_rotvec)
    assert Case(head, turned).figures().cvd_mm == pytest.approx(0, abs=1e-9)


def test_mpve_leaves_out_the_neck_and_the_pose(tiny_head, random_params) -> None:
    head = tiny_head()
    truth = random_params(head, 1, 4)
    turned = replace(truth, root_rotvec=truth.root_rotvec + 0.5)
    assert Case(head, turned).figures(truth).mpve_mm == pytest.approx(0, abs=1e-9)
    plump = replace(truth, identity=truth.identity + 1)
    found = Case(head, plump).figures(truth).mpve_mm
    expected = metrics.mpve_mm(
        head.vertices(plump.unposed()), head.vertices(truth.unposed()), ~head.regions["neck"]
    )
    assert found == pytest.approx(float(expected))
    assert found is not None
    assert found > 1
