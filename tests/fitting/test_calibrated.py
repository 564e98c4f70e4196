"""The E-step of calibrated cameras and its term: nothing for views that agree, and a pull towards what they share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_problems import only
from torch import Tensor

from neuface import losses
from neuface.fitting.calibrated import calibrated_target, face_middle, fitted_views
from neuface.fitting.config import FitConfig
from neuface.fitting.joint.solve import solve_clip
from neuface.fitting.objective import CalibratedTerm, LandmarkTerm
from neuface.fitting.problem import Problem, join_problems, make_problem
from neuface.fitting.targets import Priors
from neuface.fitting.terms import clip_parts, estimate_targets
from neuface.geometry.rotations import compose_rotvecs, rotation_angle_rad, rotvec_to_rotmat
from neuface.head.model import HeadModel
from neuface.landmarks.schemes import IBUG68
from neuface.structs import Crop, Prediction, Track
from neuface.synthetic.calibrated_clips import CalibratedClip, make_calibrated_clip
from neuface.synthetic.people import demo_identity

TIME, VIEWS = 4, 3
CONFIG = FitConfig.neural({"objective": only(calibrated=CalibratedTerm(weight=1.0))})


@pytest.fixture(scope="module")
def clip(open_head: HeadModel) -> CalibratedClip:
    return make_calibrated_clip(open_head, demo_identity(), time=TIME, size_px=48, noise_px=0.0)


def crops() -> Crop:
    """Crops that differ in size and place between images."""
    shrink = 1.5 + 0.1 * torch.arange(VIEWS * TIME).reshape(VIEWS, TIME)
    matrix = torch.zeros(VIEWS, TIME, 3, 3)
    matrix[..., 0, 0] = matrix[..., 1, 1] = shrink
    matrix[..., :2, 2] = -3.0
    matrix[..., 2, 2] = 1.0
    return Crop(T_crop_frame=matrix, size_px=64)


def problem_of(clip: CalibratedClip, *, calibrated: bool = True, valid: Tensor | None = None) -> Problem:
    track = Track(
        points_px=clip.landmarks_px, confidence=torch.ones_like(clip.landmarks_px[..., 0]), scheme=IBUG68
    )
    usable = torch.ones(VIEWS, TIME, dtype=torch.bool) if valid is None else valid
    return make_problem(track, crops(), usable, cameras=clip.cameras if calibrated else None)


def in_crops(clip: CalibratedClip) -> Prediction:
    return replace(clip.truth, camera=crops().camera_in_crop(clip.truth.camera))


def term(open_head: HeadModel, prediction: Prediction, problem: Problem) -> float:
    targets = estimate_targets(open_head, prediction, problem, CONFIG)
    return clip_parts(open_head, prediction, problem, targets, CONFIG)["calibrated"]


def turned(prediction: Prediction, view: int, by_rad: float) -> Prediction:
    root = prediction.params.root_rotvec.clone()
    root[view] = compose_rotvecs(root[view], torch.tensor([0.0, by_rad, 0.0]).expand(TIME, 3))
    return replace(prediction, params=replace(prediction.params, root_rotvec=root))


def test_views_that_agree_have_no_term_and_are_their_own_targets(
    open_head: HeadModel, clip: CalibratedClip
) -> None:
    prediction, problem = in_crops(clip), problem_of(clip)
    target = calibrated_target(open_head, prediction, problem)
    assert target is not None
    assert bool((target.weight == 1).all())
    seen = fitted_views(prediction, face_middle(open_head, prediction.params, IBUG68))
    for name, value in seen.named_tensors().items():
        torch.testing.assert_close(getattr(target.view, name), value, atol=1e-3, rtol=1e-3)
    assert term(open_head, prediction, problem) < 2e-3


def test_a_view_that_is_turned_is_further_from_the_mean_than_the_others(
    open_head: HeadModel, clip: CalibratedClip
) -> None:
    """Turned by 0.3 against two others, it is 0.2 from the mean, and they are 0.1 from it."""
    prediction, problem = turned(in_crops(clip), 0, 0.3), problem_of(clip)
    target = calibrated_target(open_head, prediction, problem)
    assert target is not None
    seen = fitted_views(prediction, face_middle(open_head, prediction.params, IBUG68))
    apart = torch.linalg.matrix_norm(seen.rotation - target.view.rotation) / 2**0.5
    torch.testing.assert_close(apart.mean(1), torch.tensor([0.2, 0.1, 0.1]), atol=0.02, rtol=0)
    assert term(open_head, prediction, problem) > float(apart.mean()) / 2


def test_the_term_pulls_a_wrong_view_to_the_others(open_head: HeadModel, clip: CalibratedClip) -> None:
    prediction, problem = turned(in_crops(clip), 0, 0.3), problem_of(clip)
    target = calibrated_target(open_head, prediction, problem)
    assert target is not None
    wrong = fitted_views(prediction, face_middle(open_head, prediction.params, IBUG68)).rotation
    true = fitted_views(in_crops(clip), face_middle(open_head, clip.truth.params, IBUG68)).rotation
    before = torch.linalg.matrix_norm(wrong[0] - true[0])
    after = torch.linalg.matrix_norm(target.view.rotation[0] - true[0])
    assert bool((after < 0.5 * before).all())


def test_a_joint_solution_draws_a_wrong_view_to_the_others(
    open_head: HeadModel, clip: CalibratedClip
) -> None:
    start, problem = turned(in_crops(clip), 0, 0.3), problem_of(clip)
    config = FitConfig.best({"objective": only(landmark=LandmarkTerm(), calibrated=CalibratedTerm())})
    known = Priors(identity=start.params.identity[0, 0])
    found = solve_clip(open_head, start, problem, config, known, moves_identity=False)
    assert min(found.history["calibrated"]) < 0.3 * found.history["calibrated"][0]
    assert min(found.history["total"]) < 0.5 * found.history["total"][0]
    assert rotation_error(found.prediction, clip) < 0.2 * rotation_error(start, clip)


def rotation_error(prediction: Prediction, clip: CalibratedClip) -> float:
    """Mean angle to the truth, radians."""
    return float(rotation_angle_rad(prediction.params.root_rotvec, clip.truth.params.root_rotvec).mean())


def test_a_view_without_landmarks_gets_the_pose_of_the_others(
    open_head: HeadModel, clip: CalibratedClip
) -> None:
    valid = torch.ones(VIEWS, TIME, dtype=torch.bool)
    valid[0, 1] = False
    prediction = turned(in_crops(clip), 0, 1.0)
    problem = problem_of(clip, valid=valid)
    target = calibrated_target(open_head, prediction, problem)
    assert target is not None
    true = fitted_views(in_crops(clip), face_middle(open_head, clip.truth.params, IBUG68)).rotation
    torch.testing.assert_close(target.view.rotation[0, 1], true[0, 1], atol=5e-3, rtol=0)


def test_a_frame_that_no_view_sees_has_no_weight(open_head: HeadModel, clip: CalibratedClip) -> None:
    valid = torch.ones(VIEWS, TIME, dtype=torch.bool)
    valid[:, 2] = False
    target = calibrated_target(open_head, in_crops(clip), problem_of(clip, valid=valid))
    assert target is not None
    assert target.weight[:, 2].tolist() == [0.0] * VIEWS
    assert all(bool(tensor.isfinite().all()) for tensor in target.view.named_tensors().values())


def test_only_several_calibrated_views_have_the_term(open_head: HeadModel, clip: CalibratedClip) -> None:
    prediction, problem = in_crops(clip), problem_of(clip, calibrated=False)
    assert "calibrated" not in estimate_targets(open_head, prediction, problem, CONFIG)
    alone = problem_of(clip)
    assert alone.cameras is not None
    one = replace(alone.map_tensors(lambda tensor: tensor[:1]), starts=(0,))
    assert calibrated_target(open_head, prediction[:1], one) is None


def test_joined_clips_are_calibrated_if_all_are(clip: CalibratedClip) -> None:
    both = join_problems([problem_of(clip), problem_of(clip)])
    assert both.cameras is not None
    assert both.cameras.K.shape == (VIEWS, 2 * TIME, 3, 3)
    assert join_problems([problem_of(clip), problem_of(clip, calibrated=False)]).cameras is None
    assert both.cut(1, 3).cameras is not None


def test_the_loss_is_half_the_angle_plus_distance_plus_log_size() -> None:
    rotation = rotvec_to_rotmat(torch.tensor([[0.0, 0.2, 0.0], [0.0, 0.0, 0.0]]).double())
    position = torch.tensor([[0.0, 0.0], [0.3, 0.4]]).double()
    size = torch.tensor([2.0, 2.0]).double()
    eye, zero = torch.eye(3).double().expand(2, 3, 3), torch.zeros(2, 2).double()
    found = losses.calibrated_views_loss(
        rotation, position, size, eye, zero, torch.tensor([2.0, 1.0]).double()
    )
    np.testing.assert_allclose(found.numpy(), [np.sin(0.1), 0.5 + np.log(2.0)], atol=1e-5)


def test_the_gradient_of_the_term_is_right() -> None:
    target = rotvec_to_rotmat(torch.tensor([[0.1, 0.2, -0.3]]).double())

    def loss(rotvec: Tensor, position: Tensor, size: Tensor) -> Tensor:
        zero = torch.zeros(1, 2).double()
        return losses.calibrated_views_loss(
            rotvec_to_rotmat(rotvec), position, size, target, zero, torch.ones(1).double()
        )

    inputs = (torch.zeros(1, 3), torch.full((1, 2), 0.2), torch.full((1,), 1.3))
    assert torch.autograd.gradcheck(loss, tuple(item.double().requires_grad_() for item in inputs))
