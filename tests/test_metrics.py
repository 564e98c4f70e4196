"""Every yardstick on examples worked out by hand, with its unit."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from neuface import metrics
from neuface.evaluation import Figures, image_nme_percent, measure
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import MEDIAPIPE_TO_IBUG68
from neuface.structs import Crop, HeadParams, Landmarks, Prediction, WeakPerspective

CROP_PX = 200


def random_turns(count: int, seed: int) -> Rotation:
    return Rotation.from_rotvec(np.random.default_rng(seed).normal(size=(count, 3)))


# --- NME


def test_nme_of_a_worked_example() -> None:
    points = torch.tensor([[3.0, 4.0], [0.0, 0.0], [100.0, 100.0], [6.0, 8.0]])
    confidence = torch.tensor([1.0, 0.2, 0.0, 0.9])
    # Distances 5, 0, (missing), 10 px: mean 5 px; eyes 50 px apart.
    found = metrics.nme_percent(points, torch.zeros(4, 2), confidence, torch.tensor(50.0))
    assert float(found) == pytest.approx(10.0)


def test_nme_is_nan_without_points_or_eyes() -> None:
    points, observed = torch.ones(3, 4, 2), torch.zeros(3, 4, 2)
    confidence = torch.ones(3, 4)
    confidence[1] = 0
    found = metrics.nme_percent(points, observed, confidence, torch.tensor([10.0, 10.0, 0.0]))
    assert found.isnan().tolist() == [False, True, True]
    assert float(found[0]) == pytest.approx(100 * math.sqrt(2) / 10)


# --- MSI3D


def sinusoid_m(amplitude_mm: float, period: int, frames: int, points: int = 1) -> Tensor:
    wave = amplitude_mm * torch.sin(2 * math.pi * torch.arange(frames, dtype=torch.float64) / period)
    moved = torch.zeros(frames, points, 3, dtype=torch.float64)
    moved[..., 0] = wave[:, None] / 1000
    return moved


@pytest.mark.parametrize(("amplitude_mm", "period"), [(2.0, 8), (0.5, 8), (1.0, 12)])
def test_msi_of_a_sinusoid(amplitude_mm: float, period: int) -> None:
    # The second difference of A sin(w t) is -4 sin^2(w / 2) A sin(w t); over whole periods its variance is half
    # the squared amplitude.
    factor = 4 * math.sin(math.pi / period) ** 2
    variance = (factor * amplitude_mm) ** 2 / 2
    found = metrics.msi3d(sinusoid_m(amplitude_mm, period, 5 * period + 2))
    assert float(found) == pytest.approx(1 / variance, rel=1e-9)


def test_msi_adds_variance_over_axes_and_averages_over_points_and_views() -> None:
    along_x = sinusoid_m(1.0, 8, 42)
    one = float(metrics.msi3d(along_x))
    in_a_plane = along_x + along_x.roll(1, dims=-1)
    assert float(metrics.msi3d(in_a_plane)) == pytest.approx(one / 2)
    faster = 2 * along_x
    both = torch.cat((along_x, faster), dim=1)
    assert float(metrics.msi3d(both)) == pytest.approx((one + one / 4) / 2)
    assert float(metrics.msi3d(torch.stack((along_x, faster)))) == pytest.approx((one + one / 4) / 2)


def test_msi_of_perfectly_steady_motion_is_bounded() -> None:
    time = torch.arange(30, dtype=torch.float64)[:, None, None]
    direction = torch.tensor([1e-3, 2e-3, -1e-3], dtype=torch.float64)
    for motion in (0 * time * direction, time * direction, 0.5 * time**2 * direction):
        assert float(metrics.msi3d(motion)) == pytest.approx(1 / metrics.MSI_FLOOR_MM**2)


def test_msi_knows_jitter_and_short_clips() -> None:
    jitter = torch.randn(50, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(metrics.msi3d(1e-3 * jitter)) < float(metrics.msi3d(1e-4 * jitter))
    assert math.isnan(float(metrics.msi3d(jitter[:3])))
    assert math.isfinite(float(metrics.msi3d(jitter[:4])))


# --- CVD


def test_cvd_of_shifted_meshes_is_the_shift() -> None:
    mesh = torch.randn(1, 3, 10, 3)
    shift = torch.tensor([[0.0, 0.0, 0.0], [3e-3, 0.0, 4e-3], [0.0, 12e-3, 0.0]])[:, None, None]
    views = mesh + shift
    everything = torch.ones(3, 3, dtype=torch.bool)
    # Pairs: 5 mm, 12 mm, 13 mm.
    assert float(metrics.cvd_mm(views, everything)) == pytest.approx(10.0, rel=1e-4)
    assert float(metrics.cvd_mm(views[:2], everything[:2])) == pytest.approx(5.0, rel=1e-4)


def test_cvd_counts_frames_that_both_views_see() -> None:
    views = torch.zeros(2, 3, 4, 3)
    views[1, :, :, 0] = torch.tensor([1e-3, 2e-3, 50e-3])[:, None]
    valid = torch.tensor([[True, True, True], [True, True, False]])
    assert float(metrics.cvd_mm(views, valid)) == pytest.approx(1.5)
    assert math.isnan(float(metrics.cvd_mm(views, torch.tensor([[True, False, False], [False, True, True]]))))
    assert math.isnan(float(metrics.cvd_mm(views[:1], valid[:1])))


# --- MPVE


def test_mpve_ignores_rigid_motion_but_not_scale() -> None:
    generator = torch.Generator().manual_seed(1)
    truth = torch.randn(2, 400, 3, generator=generator, dtype=torch.float64)
    turn = torch.from_numpy(random_turns(2, seed=1).as_matrix())
    moved = truth @ turn.mT + torch.tensor([1.0, 2.0, 3.0])
    assert float(metrics.mpve_mm(moved, truth)) == pytest.approx(0, abs=1e-9)
    assert float(metrics.mpve_mm(1.1 * truth, truth)) > 50, "scale is an error"


def test_mpve_of_a_bump() -> None:
    """A bump in the middle of a symmetric cloud turns nothing; the best shift spreads it over all 401 points."""
    half = torch.randn(200, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    truth = torch.cat((half, -half, torch.zeros(1, 3)))
    bump = truth.clone()
    bump[-1, 1] = 0.02
    shift = 20 / 401
    assert float(metrics.mpve_mm(bump, truth)) == pytest.approx(((20 - shift) + 400 * shift) / 401)


def test_mpve_of_chosen_vertices() -> None:
    truth = torch.randn(1, 50, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    spoilt = truth.clone()
    spoilt[:, :10] += 5
    where = torch.ones(50, dtype=torch.bool)
    where[:10] = False
    assert float(metrics.mpve_mm(spoilt, truth, where)) == pytest.approx(0, abs=1e-9)


def test_mpve_of_two_opposite_shifts_is_their_size() -> None:
    """Stretched by 1 mm at both ends, which no rigid motion explains: each of two points is off by 1 mm."""
    axes = 0.1 * torch.cat((torch.eye(3), -torch.eye(3))).double()
    longer = axes * (1 + 0.001 / 0.1)
    assert float(metrics.mpve_mm(longer, axes)) == pytest.approx(1.0)


# --- A whole clip


class Case:
    """A prediction for two cameras, its perfect landmarks, and the frames' crops."""

    def __init__(self, head: HeadModel, params: HeadParams, scheme: str = "ibug68") -> None:
        views, time = params.identity.shape[:2]
        self.head, self.params = head, params
        self.camera = WeakPerspective(
            scale=torch.full((views, time), 4.0, dtype=torch.float64),
            offset=torch.zeros(views, time, 2, dtype=torch.float64),
        )
        # A crop of 200 px at half the frame's scale, its corner at (40, 60).
        to_crop = torch.tensor([[0.5, 0, -20.0], [0, 0.5, -30.0], [0, 0, 1]], dtype=torch.float64)
        self.crops = Crop(T_crop_frame=to_crop.expand(views, time, 3, 3), size_px=CROP_PX)
        points = self.crops.ndc_to_frame(self.camera.project(head.landmarks(params, scheme)))
        self.landmarks = Landmarks(
            points_px=points, confidence=torch.ones_like(points[..., 0]), scheme=scheme
        )
        self.valid = torch.ones(views, time, dtype=torch.bool)

    @property
    def prediction(self) -> Prediction:
        return Prediction(params=self.params, camera=self.camera)

    def figures(self, truth: HeadParams | None = None) -> Figures:
        return measure(self.head, self.prediction, self.landmarks, self.crops, self.valid, truth)


@pytest.mark.parametrize("scheme", ["ibug68", "mediapipe478"])
def test_a_perfect_answer_has_no_error(tiny_head, random_params, scheme: str) -> None:
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
    corners = (36, 45) if scheme == "ibug68" else (MEDIAPIPE_TO_IBUG68[36], MEDIAPIPE_TO_IBUG68[45])
    eyes = (points[..., corners[0], :] - points[..., corners[1], :]).norm(dim=-1)
    off = points + torch.tensor([3.0, 0.0])
    case.landmarks = replace(case.landmarks, points_px=off)
    expected = (300 / eyes).mean()
    assert case.figures().nme_percent == pytest.approx(float(expected))
    # The contour does not count for the inner 51.
    contour = list(range(17)) if scheme == "ibug68" else list(MEDIAPIPE_TO_IBUG68[:17])
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
    per_image = image_nme_percent(case.head, case.prediction, case.landmarks, case.crops)
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


def test_cvd_does_not_know_where_the_cameras_stand(tiny_head, random_params) -> None:
    """Another turn of each camera changes each view's root rotation, and nothing of the distance."""
    head = tiny_head()
    params = random_params(head, 3, 6)
    before = Case(head, params).figures()
    for seed in range(2):
        cameras = random_turns(3, seed)
        turned = params.root_rotvec.clone()
        for view in range(3):
            around = cameras[view] * Rotation.from_rotvec(params.root_rotvec[view].numpy())
            turned[view] = torch.from_numpy(around.as_rotvec())
        after = Case(head, replace(params, root_rotvec=turned)).figures()
        assert after.cvd_mm == pytest.approx(before.cvd_mm, rel=1e-9)
    other = Case(head, replace(params, jaw_rotvec=params.jaw_rotvec.flip(0))).figures()
    assert other.cvd_mm != pytest.approx(before.cvd_mm, rel=1e-3)


def test_views_are_compared_in_the_same_frame(tiny_head, random_params) -> None:
    """The same face seen by three cameras: no distance, whatever the orientation."""
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
