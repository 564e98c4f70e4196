"""The named choices of the E-step and of the loop: each does what its name says, on small clips."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_problems import (
    AS_ANSWERED,
    SCHEME,
    disturbed,
    merged_mesh,
    problem_of,
    same,
    silenced,
    targets_of,
    turning_heads,
)
from torch import Tensor

from neuface.encoders.predictor import Predictor
from neuface.fitting import descent, loop
from neuface.fitting import targets as targets_module
from neuface.fitting.config import FitConfig, Merge, Smoother, VisibilityTest
from neuface.fitting.direct import FreeParameters
from neuface.fitting.loop import fit
from neuface.fitting.problem import make_problem
from neuface.fitting.targets import estimate_targets, merge_views, smoothing_starts, vertex_confidence
from neuface.geometry.rotations import rotvec_to_quaternion
from neuface.geometry.smoothing import released_window_mean, smooth_quaternions
from neuface.landmarks.schemes import IBUG68, SCHEMES
from neuface.structs import Crop, Prediction, Track, WeakPerspective

# Nothing but what a test asks for.
PLAIN = replace(
    AS_ANSWERED, expression_smoothness_weight=0.0, camera_smoothness_weight=0.0, expression_prior_weight=0.0
)

# --- The E-step


@pytest.mark.parametrize("smoother", ["mean", "median", "gaussian", "local_quadratic", "adaptive"])
def test_the_smoother_of_that_name_is_used(tiny_head, random_params, smoother: Smoother) -> None:
    head = tiny_head()
    params = random_params(head, 2, 30, scale=0.3)
    found = targets_of(head, params, config=FitConfig(smoother=smoother, temporal_window=7)).quaternion
    expected = smooth_quaternions(rotvec_to_quaternion(params.root_rotvec), 7, smoother)
    torch.testing.assert_close(found, expected)


def test_released_targets_are_those_of_every_chunk(tiny_head, random_params) -> None:
    head = tiny_head()
    params = random_params(head, 2, 13, scale=0.3)
    found = targets_of(head, params, config=FitConfig(smoother="released", chunk_frames=6)).quaternion
    quaternion = rotvec_to_quaternion(params.root_rotvec)
    pieces = [released_window_mean(quaternion[:, start : start + 6]) for start in (0, 6, 12)]
    torch.testing.assert_close(found, torch.cat(pieces, dim=1))


def test_nothing_is_smoothed_across_joined_clips(tiny_head, random_params) -> None:
    head = tiny_head()
    first, second = (random_params(head, 1, time, scale=0.3) for time in (6, 9))
    joined = first.map_tensors(lambda tensor: tensor)
    joined = replace(
        joined,
        **{
            name: torch.cat((getattr(first, name), getattr(second, name)), dim=1)
            for name in ("identity", "expression", "root_rotvec", "neck_rotvec", "jaw_rotvec", "eyes_rotvec")
        },
    )
    config = FitConfig(expression_smoothness_weight=1.0, jaw_smoothness_weight=1.0)
    prediction = Prediction(params=joined, camera=camera_of(joined.root_rotvec))
    problem = replace(problem_of(head, prediction), starts=(0, 6))
    found = estimate_targets(head, prediction, problem, config)
    alone = [targets_of(head, params, config=config) for params in (first, second)]
    for name in ("quaternion", "expression", "jaw_quaternion"):
        expected = torch.cat([getattr(item, name) for item in alone], dim=1)
        torch.testing.assert_close(getattr(found, name), expected)


def test_chunks_begin_anew_with_every_clip() -> None:
    assert smoothing_starts((0,), 7, 0) == (0,)
    assert smoothing_starts((0, 5), 12, 0) == (0, 5)
    assert smoothing_starts((0, 5), 12, 3) == (0, 3, 5, 8, 11)


def camera_of(rotvec: Tensor) -> WeakPerspective:
    return WeakPerspective(scale=rotvec[..., 0] * 0 + 5, offset=rotvec[..., :2] * 0)


def test_the_camera_is_smoothed_in_the_frame_and_not_in_the_crop() -> None:
    """A head that stands still in the frame while its crop jumps about and changes its size."""
    time = 12
    generator = torch.Generator().manual_seed(0)
    side = 100 + 40 * torch.rand(1, time, generator=generator, dtype=torch.float64)
    corner = 30 * torch.rand(1, time, 2, generator=generator, dtype=torch.float64)
    matrix = torch.zeros(1, time, 3, 3, dtype=torch.float64)
    matrix[..., 0, 0] = matrix[..., 1, 1] = 64 / side
    matrix[..., :2, 2] = -corner * (64 / side)[..., None]
    matrix[..., 2, 2] = 1
    crops = Crop(T_crop_frame=matrix, size_px=64)
    landmarks = Track(
        points_px=torch.full((1, time, 478, 2), 70.0, dtype=torch.float64),
        confidence=torch.ones(1, time, 478, dtype=torch.float64),
        scheme=SCHEMES[SCHEME],
    )
    problem = make_problem(
        torch.zeros(1, time, 1, 1, 1), landmarks, crops, torch.ones(1, time, dtype=torch.bool)
    )
    place_px = torch.tensor([80.0, 75.0], dtype=torch.float64).expand(1, time, 1, 2)
    camera = WeakPerspective(
        scale=600 * crops.ndc_per_frame_px, offset=crops.frame_to_ndc(place_px)[..., 0, :]
    )
    smoothed = targets_module._smooth_camera(camera, problem, problem.valid, FitConfig(), (0,))
    torch.testing.assert_close(smoothed.magnification, camera.magnification)
    torch.testing.assert_close(smoothed.position, camera.position)
    assert float(camera.position.std(1).min()) > 0.01, "the crops do not jump: nothing is tested"


@pytest.mark.parametrize("bridge", [True, False])
def test_frames_without_landmarks_have_no_weight_in_the_trajectory(tiny_head, bridge: bool) -> None:
    """Of a head that turns steadily: its targets are on the way even where the encoder saw nothing."""
    head = tiny_head()
    truth = turning_heads(head, 1, 15)
    problem = silenced(problem_of(head, truth), [(0, 6), (0, 7)])
    rotvec, expression = truth.params.root_rotvec.clone(), truth.params.expression + 0.3
    rotvec[0, 6:8] += 0.8
    expression[0, 6:8] -= 0.5
    prediction = replace(truth, params=replace(truth.params, root_rotvec=rotvec, expression=expression))
    config = FitConfig(bridge_gaps=bridge, expression_smoothness_weight=1.0, smoother="mean")
    targets = estimate_targets(head, prediction, problem, config)
    right = rotvec_to_quaternion(truth.params.root_rotvec)
    assert targets.expression is not None
    away = float((targets.quaternion - right).abs().max()), float((targets.expression - 0.3).abs().max())
    assert (max(away) < 1e-4) == bridge


@pytest.mark.parametrize("visibility", ["angle_or_depth", "angle_and_depth", "self_occlusion", "all"])
def test_visibility_on_a_ball(ball, visibility: VisibilityTest) -> None:
    """On a ball every test hides the back; they differ near the rim and at the middle."""
    points, faces = ball(21, 28)
    config = FitConfig(visibility=visibility, visible_angle_deg=60.0, visible_depth_m=0.02)
    seen = vertex_confidence(0.1 * points, faces, config) > 0
    height = points[:, 2]
    assert not bool(seen[height < -0.1].any())
    assert bool(seen[height > 0.6].all())
    between = seen[(height > 0.25) & (height < 0.45)]  # turned away by 63 to 76 degrees, and not deep
    assert bool(between.all()) == (visibility in ("angle_and_depth", "self_occlusion"))
    assert bool(between.any()) == (visibility in ("angle_and_depth", "self_occlusion"))


@pytest.mark.parametrize("merge", ["mean", "softmax", "median", "robust"])
def test_every_way_of_merging_finds_what_all_views_agree_on(tiny_head, random_params, merge: Merge) -> None:
    head = tiny_head()
    one = random_params(head, 1, 4)
    views = one[torch.zeros(3, dtype=torch.long)]
    turn = 0.4 * torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    views = replace(views, root_rotvec=turn)
    merged = merged_mesh(head, views, config=FitConfig(merge=merge))
    torch.testing.assert_close(merged, head.vertices(one.unposed())[0])


@pytest.mark.parametrize(
    ("merge", "share"), [("mean", 1 / 3), ("softmax", 1 / 3), ("median", 0), ("robust", 0.1)]
)
def test_one_wrong_view_of_three(merge: Merge, share: float) -> None:
    """Seen alike by all: the mean moves by a third of the error, the median not at all, the robust mean hardly."""
    mesh = torch.randn(4, 9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    views = mesh.expand(3, -1, -1, -1).clone()
    views += 1e-3 * torch.randn(views.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    views[2] += 1.0
    merged = merge_views(views, torch.ones(3, 4, 9).double(), torch.ones(3, 4, dtype=torch.bool), merge)
    moved = float((merged - mesh).mean())
    if merge == "robust":
        assert abs(moved) < share
    else:
        assert moved == pytest.approx(share, abs=2e-3)


# --- Terms


def test_terms_of_no_weight_cost_nothing(tiny_head) -> None:
    head = tiny_head()
    targets = targets_of(head, turning_heads(head, 2, 4).params, config=FitConfig.paper())
    assert (targets.expression, targets.jaw_quaternion, targets.camera) == (None, None, None)


@pytest.mark.parametrize(
    ("name", "field"), [("expression", "expression"), ("jaw", "jaw_rotvec"), ("camera", "offset")]
)
def test_smoothness_terms_calm_what_they_are_named_for(tiny_head, name: str, field: str) -> None:
    head = tiny_head()
    truth = turning_heads(head, 1, 16)
    noise = 0.05 * torch.randn(1, 16, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    params, camera = truth.params, truth.camera
    if field == "offset":
        camera = camera.placed(camera.position + noise[..., :2], camera.magnification)
    else:
        old = getattr(params, field)
        params = replace(params, **{field: old + torch.nn.functional.pad(noise, (0, old.shape[-1] - 3))})
    start = Prediction(params=params, camera=camera)
    config = replace(
        AS_ANSWERED, landmark_weight=0.0, temporal_weight=0.0, expression_prior_weight=0.0,
        learning_rate=5e-3, max_passes=60, **{f"{name}_smoothness_weight": 1.0},
    )  # fmt: skip
    outcome = fit(FreeParameters(start, (field,)), head, problem_of(head, truth), config)
    noun = outcome.prediction.camera if field == "offset" else outcome.prediction.params
    first = start.camera if field == "offset" else start.params

    def roughness(values: Tensor) -> float:
        return float(values.diff(n=2, dim=1).norm(dim=-1).mean())

    assert roughness(getattr(noun, field)) < 0.4 * roughness(getattr(first, field))
    assert outcome.history[f"{name}_smoothness"][-1] < outcome.history[f"{name}_smoothness"][0]


def test_far_landmarks_pull_less_with_the_saturating_penalty(tiny_head) -> None:
    """Two fifths of the landmarks lie far off in every frame: the pose ignores them."""
    head = tiny_head()
    truth = turning_heads(head, 1, 5)
    problem = problem_of(head, truth)
    observed = problem.observed_ndc.clone()
    observed[..., : 2 * observed.shape[2] // 5, 0] += 0.6
    problem = replace(problem, observed_ndc=observed)
    missed = {}
    for penalty in ("l1", "saturating"):
        config = replace(
            AS_ANSWERED, landmark_penalty=penalty, learning_rate=5e-3, max_passes=100, temporal_weight=0.0,
            expression_prior_weight=0.0,
        )  # fmt: skip
        outcome = fit(FreeParameters(disturbed(truth, 0.03)), head, problem, config)
        points = outcome.prediction.camera.project(head.landmarks(outcome.prediction.params, SCHEME))
        true = truth.camera.project(head.landmarks(truth.params, SCHEME))
        missed[penalty] = float((points - true).norm(dim=-1).mean())
    assert missed["saturating"] < 0.5 * missed["l1"]


def test_without_confidence_every_found_landmark_counts_alike() -> None:
    landmarks = Track(points_px=torch.rand(1, 2, 68, 2), confidence=torch.rand(1, 2, 68), scheme=IBUG68)
    landmarks.confidence[0, 1, 5] = 0
    crops = Crop(T_crop_frame=torch.eye(3).expand(1, 2, 3, 3), size_px=64)
    valid = torch.ones(1, 2, dtype=torch.bool)
    found = make_problem(torch.zeros(1, 2, 1, 1, 1), landmarks, crops, valid, use_confidence=False).confidence
    assert float(found.sum()) == 2 * 68 - 1
    assert float(found[0, 1, 5]) == 0


# --- Identity


@pytest.mark.parametrize("chunk_frames", [0, 4])
def test_the_first_image_decides_the_identity(tiny_head, chunk_frames: int) -> None:
    head = tiny_head()
    start = disturbed(turning_heads(head, 2, 6))
    identity = start.params.identity + torch.linspace(0, 1, 12, dtype=torch.float64).view(2, 6, 1)
    start = replace(start, params=replace(start.params, identity=identity))
    problem = silenced(problem_of(head, start), [(0, 0)])
    config = FitConfig(
        identity_per="first",
        expected_identity="encoder",
        hold_size=False,
        max_passes=2,
        chunk_frames=chunk_frames,
    )
    found = fit(FreeParameters(start), head, problem, replace(config, learning_rate=1e-12))
    expected = start.params.identity[0, 1].expand(2, 6, -1)
    torch.testing.assert_close(found.prediction.params.identity, expected)


def test_the_spread_of_identity_codes_is_recorded_for_every_pass(tiny_head) -> None:
    head = tiny_head()
    start = disturbed(turning_heads(head, 2, 6))
    identity = start.params.identity + torch.linspace(0, 1, 12, dtype=torch.float64).view(2, 6, 1)
    start = replace(start, params=replace(start.params, identity=identity))
    outcome = fit(FreeParameters(start), head, problem_of(head, start), FitConfig(max_passes=3))
    assert len(outcome.identity_spread) == len(outcome.history["total"]) == 4
    expected = float(torch.linspace(0, 1, 12, dtype=torch.float64).std(correction=0))
    assert outcome.identity_spread[0] == pytest.approx(expected)


# --- Chunks, and targets that carry gradient


class Recorder(Predictor):
    """Remembers which images it was asked for while gradient was on."""

    def __init__(self, start: Prediction) -> None:
        super().__init__()
        self.free = FreeParameters(start)
        self.asked: list[list[int]] = []

    def prepare(self, crops: Tensor) -> Tensor:
        return crops

    def forward(self, inputs: Tensor, index: Tensor | None = None) -> Prediction:
        if torch.is_grad_enabled() and index is not None:
            self.asked.append(index.tolist())
        return self.free(inputs, index)


def test_chunks_are_all_views_of_consecutive_frames(tiny_head, monkeypatch: pytest.MonkeyPatch) -> None:
    head = tiny_head()
    truth = turning_heads(head, 2, 7)
    recorder = Recorder(disturbed(truth))
    monkeypatch.setattr(loop.copy, "deepcopy", lambda item: item)
    fit(recorder, head, problem_of(head, truth), FitConfig(chunk_frames=3, max_passes=1))
    assert recorder.asked == [[0, 1, 2, 7, 8, 9], [3, 4, 5, 10, 11, 12], [6, 13]]


def gradient_of_first_step(head, config: FitConfig, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """By one plain step of gradient descent on the orientations."""
    monkeypatch.setattr(torch.optim, "Adam", torch.optim.SGD)
    monkeypatch.setattr(descent, "GRADIENT_NORM_LIMIT", math.inf)
    truth = turning_heads(head, 1, 9)
    start = disturbed(truth, 0.05)
    config = replace(
        config, max_passes=1, learning_rate=1.0, warm_up_steps=0, keep="last", landmark_weight=0.0
    )
    outcome = fit(FreeParameters(start, ("root_rotvec",)), head, problem_of(head, truth), config)
    return start.params.root_rotvec - outcome.prediction.params.root_rotvec


def test_gradient_flows_through_targets_only_if_asked(tiny_head, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of mean(|q - smooth(q)|^2) by autograd of the whole expression, and with the target fixed."""
    head = tiny_head()
    base = replace(
        PLAIN,
        temporal_penalty="squared",
        chunk_frames=20,
        smoother="mean",
        temporal_window=5,
        temporal_weight=0.2,
    )
    rotvec = disturbed(turning_heads(head, 1, 9), 0.05).params.root_rotvec.clone().requires_grad_()
    quaternion = rotvec_to_quaternion(rotvec)
    target = smooth_quaternions(quaternion, 5)
    for detached in (True, False):
        loss = 0.2 * (quaternion - (target.detach() if detached else target)).square().mean(-1).mean()
        (expected,) = torch.autograd.grad(loss, rotvec, retain_graph=True)
        found = gradient_of_first_step(head, replace(base, detach_targets=detached), monkeypatch)
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-6)


def test_targets_of_the_whole_clip_carry_no_gradient(tiny_head) -> None:
    """Whatever the loop hands to the objective: the predictions of the whole clip are made without gradient."""
    head = tiny_head()
    truth = turning_heads(head, 2, 4)
    prediction = loop.predict_clip(FreeParameters(truth), problem_of(head, truth).inputs, 3)
    targets = estimate_targets(head, prediction, problem_of(head, truth), FitConfig())
    assert not targets.quaternion.requires_grad
    assert targets.vertices is not None
    assert not targets.vertices.requires_grad


def test_a_sample_of_times_keeps_the_expectation(tiny_head) -> None:
    parts = {"multiview": torch.ones(2, 10).flatten(), "landmark": torch.ones(20)}
    times = torch.arange(20) % 10
    generator = torch.Generator().manual_seed(0)
    sums, counts = [], set()
    for _ in range(200):
        sampled = dict(parts)
        descent._sample_multiview(sampled, times, FitConfig(multiview_sample=3), generator)
        counts.add(int((sampled["multiview"] > 0).sum()))
        sums.append(float(sampled["multiview"].sum()))
        assert sampled["landmark"] is parts["landmark"]
    assert counts == {6}
    assert sums == pytest.approx([20.0] * 200)


def test_the_last_pass_is_kept_if_asked(tiny_head) -> None:
    head = tiny_head()
    truth = turning_heads(head, 1, 5)
    # Steps that are far too long: the first pass is the best one.
    wild = replace(AS_ANSWERED, learning_rate=0.5, warm_up_steps=0, max_passes=4, patience=50)
    start = FreeParameters(disturbed(truth, 0.01))
    best = fit(start, head, problem_of(head, truth), wild)
    last = fit(start, head, problem_of(head, truth), replace(wild, keep="last"))
    assert best.history == last.history
    assert min(best.history["total"]) == best.history["total"][0]
    assert same(best.prediction, best.initial)
    assert not same(last.prediction, last.initial)
