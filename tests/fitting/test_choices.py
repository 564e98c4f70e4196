"""The named choices of the E-step and of the loop: each does what its name says, on small clips."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_problems import (
    AS_PREDICTED,
    PASSES,
    RATE,
    SCHEME,
    WARM_UP,
    disturbed,
    merged_mesh,
    only,
    problem_of,
    same,
    silenced,
    targets_of,
    turning_heads,
)
from torch import Tensor

from neuface.fitting import descent
from neuface.fitting.config import Chunks, FitConfig, RandomBatches
from neuface.fitting.loop import fit
from neuface.fitting.merging import Merge, RobustMean, Softmax, WeightedMean, WeightedMedian, merge_views
from neuface.fitting.objective import (
    Batch,
    CameraSmoothness,
    ExpressionSmoothness,
    JawSmoothness,
    LandmarkTerm,
    MultiviewTerm,
    TemporalTerm,
    Term,
)
from neuface.fitting.parameterisation import FreeParameters, predict_clip
from neuface.fitting.problem import make_problem
from neuface.fitting.smoothing import (
    Adaptive,
    Gaussian,
    LocalQuadratic,
    MovingMean,
    MovingMedian,
)
from neuface.fitting.targets import ClipState, EStep, Priors, smoothing_starts
from neuface.fitting.terms import estimate_targets
from neuface.fitting.visibility import AngleAndDepth, AngleOrDepth, AnyTest, SelfOcclusion, Visibility
from neuface.geometry.rotations import rotvec_to_quaternion
from neuface.geometry.smoothing import released_window_mean, smooth_quaternions
from neuface.landmarks.schemes import IBUG68, SCHEMES
from neuface.structs import Crop, Prediction, Track, WeakPerspective

# --- The E-step


@pytest.mark.parametrize("smoother", [MovingMean, MovingMedian, Gaussian, LocalQuadratic, Adaptive])
def test_every_filter_is_that_of_its_name(tiny_head, random_params, smoother: Any) -> None:
    head = tiny_head()
    params = random_params(head, 2, 30, scale=0.3)
    config = FitConfig(e_step=EStep(smoothing=smoother(window=7)))
    found = targets_of(head, params, config=config)["temporal"].value
    expected = smooth_quaternions(rotvec_to_quaternion(params.root_rotvec), 7, smoother.kind)
    torch.testing.assert_close(found, expected)


def test_released_targets_are_those_of_every_chunk(tiny_head, random_params) -> None:
    head = tiny_head()
    params = random_params(head, 2, 13, scale=0.3)
    config = FitConfig.official({"m_step.batches.frames": 6})
    found = targets_of(head, params, config=config)["temporal"].value
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
    config = FitConfig.neural({"objective.jaw_smoothness.weight": 1.0})
    prediction = Prediction(params=joined, camera=camera_of(joined.root_rotvec))
    problem = replace(problem_of(head, prediction), starts=(0, 6))
    found = estimate_targets(head, prediction, problem, config)
    alone = [targets_of(head, params, config=config) for params in (first, second)]
    for name in ("temporal", "expression_smoothness", "jaw_smoothness"):
        expected = torch.cat([item[name].value for item in alone], dim=1)
        torch.testing.assert_close(found[name].value, expected)


def test_chunks_begin_anew_with_every_clip() -> None:
    assert smoothing_starts((0,), 7, None) == (0,)
    assert smoothing_starts((0, 5), 12, None) == (0, 5)
    assert smoothing_starts((0, 5), 12, 3) == (0, 3, 5, 8, 11)


def camera_of(rotvec: Tensor) -> WeakPerspective:
    return WeakPerspective(scale=rotvec[..., 0] * 0 + 5, offset=rotvec[..., :2] * 0)


def test_the_camera_is_smoothed_in_the_frame_and_not_in_the_crop(tiny_head) -> None:
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
    problem = make_problem(landmarks, crops, torch.ones(1, time, dtype=torch.bool))
    place_px = torch.tensor([80.0, 75.0], dtype=torch.float64).expand(1, time, 1, 2)
    camera = WeakPerspective(
        scale=600 * crops.ndc_per_frame_px, offset=crops.frame_to_ndc(place_px)[..., 0, :]
    )
    params = tiny_head().neutral(1, time)
    smoothed = ClipState(
        head=tiny_head(), prediction=Prediction(params=params, camera=camera), problem=problem,
        e_step=EStep(), segments=(0,), priors=Priors(identity=params.identity[0, 0]),
    ).smoothed_camera()  # fmt: skip
    torch.testing.assert_close(smoothed.magnification, camera.magnification)
    torch.testing.assert_close(smoothed.position, camera.position)
    assert float(camera.position.std(1).min()) > 0.01, "the crops do not jump: nothing is tested"


@pytest.mark.parametrize("interpolate", [True, False])
def test_frames_without_landmarks_have_no_weight_in_the_trajectory(tiny_head, interpolate: bool) -> None:
    """Of a head that turns steadily: its targets are on the way even where the encoder saw nothing."""
    head = tiny_head()
    truth = turning_heads(head, 1, 15)
    problem = silenced(problem_of(head, truth), [(0, 6), (0, 7)])
    rotvec, expression = truth.params.root_rotvec.clone(), truth.params.expression + 0.3
    rotvec[0, 6:8] += 0.8
    expression[0, 6:8] -= 0.5
    prediction = replace(truth, params=replace(truth.params, root_rotvec=rotvec, expression=expression))
    config = FitConfig(e_step=EStep(smoothing=MovingMean(window=7), interpolate_missing=interpolate))
    targets = estimate_targets(head, prediction, problem, config)
    right = rotvec_to_quaternion(truth.params.root_rotvec)
    turned, shown = targets["temporal"].value, targets["expression_smoothness"].value
    away = float((turned - right).abs().max()), float((shown - 0.3).abs().max())
    assert (max(away) < 1e-4) == interpolate


@pytest.mark.parametrize(
    "visibility",
    [
        AngleOrDepth(angle_deg=60.0, depth_m=0.02),
        AngleAndDepth(angle_deg=60.0, depth_m=0.02),
        SelfOcclusion(),
        AnyTest(angle_deg=60.0, depth_m=0.02),
    ],
)
def test_visibility_on_a_ball(ball, visibility: Visibility) -> None:
    """On a ball every test hides the back; they differ near the rim and at the middle."""
    points, faces = ball(21, 28)
    seen = visibility.weights(0.1 * points, faces) > 0
    height = points[:, 2]
    assert not bool(seen[height < -0.1].any())
    assert bool(seen[height > 0.6].all())
    between = seen[(height > 0.25) & (height < 0.45)]  # turned away by 63 to 76 degrees, and not deep
    assert bool(between.all()) == isinstance(visibility, AngleAndDepth | SelfOcclusion)
    assert bool(between.any()) == isinstance(visibility, AngleAndDepth | SelfOcclusion)


@pytest.mark.parametrize("merge", [WeightedMean(), Softmax(), WeightedMedian(), RobustMean()])
def test_every_way_of_merging_finds_what_all_views_agree_on(tiny_head, random_params, merge: Merge) -> None:
    head = tiny_head()
    one = random_params(head, 1, 4)
    views = one[torch.zeros(3, dtype=torch.long)]
    turn = 0.4 * torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    views = replace(views, root_rotvec=turn)
    merged = merged_mesh(head, views, config=FitConfig.neural({"objective.multiview.merge": merge}))
    torch.testing.assert_close(merged, head.vertices(one.unposed())[0])


@pytest.mark.parametrize(
    ("merge", "share"),
    [(WeightedMean(), 1 / 3), (Softmax(), 1 / 3), (WeightedMedian(), 0), (RobustMean(), 0.1)],
)
def test_one_wrong_view_of_three(merge: Merge, share: float) -> None:
    """Seen alike by all: the mean moves by a third of the error, the median not at all, the robust mean hardly."""
    mesh = torch.randn(4, 9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    views = mesh.expand(3, -1, -1, -1).clone()
    views += 1e-3 * torch.randn(views.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    views[2] += 1.0
    merged = merge_views(views, torch.ones(3, 4, 9).double(), torch.ones(3, 4, dtype=torch.bool), merge)
    moved = float((merged - mesh).mean())
    if isinstance(merge, RobustMean):
        assert abs(moved) < share
    else:
        assert moved == pytest.approx(share, abs=2e-3)


# --- Terms


def test_terms_that_are_left_out_have_no_target(tiny_head) -> None:
    head = tiny_head()
    targets = targets_of(head, turning_heads(head, 2, 4).params, config=FitConfig.paper())
    assert set(targets) == {"landmark", "temporal", "multiview"}


@pytest.mark.parametrize(
    ("term", "field"),
    [
        (ExpressionSmoothness(weight=1.0), "expression"),
        (JawSmoothness(weight=1.0), "jaw_rotvec"),
        (CameraSmoothness(weight=1.0), "offset"),
    ],
)
def test_smoothness_terms_smooth_what_they_are_named_for(tiny_head, term: Term, field: str) -> None:
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
    config = AS_PREDICTED.changed({"objective": only(**{term.name: term}), RATE: 5e-3, PASSES: 60})
    outcome = fit(FreeParameters(start, (field,)), head, problem_of(head, truth), config)
    noun = outcome.prediction.camera if field == "offset" else outcome.prediction.params
    first = start.camera if field == "offset" else start.params

    def roughness(values: Tensor) -> float:
        return float(values.diff(n=2, dim=1).norm(dim=-1).mean())

    assert roughness(getattr(noun, field)) < 0.4 * roughness(getattr(first, field))
    assert outcome.history[term.name][-1] < outcome.history[term.name][0]


def test_far_landmarks_pull_less_with_the_saturating_penalty(tiny_head) -> None:
    """Two fifths of the landmarks lie far off in every frame: the pose ignores them."""
    head = tiny_head()
    truth = turning_heads(head, 1, 5)
    problem = problem_of(head, truth)
    observed = problem.observed_px.clone()
    observed[..., : 2 * observed.shape[2] // 5, 0] += 0.6
    problem = replace(problem, observed_px=observed)
    missed = {}
    for penalty in ("l1", "saturating"):
        objective = only(landmark=LandmarkTerm(penalty=penalty))
        config = AS_PREDICTED.changed({"objective": objective, RATE: 5e-3, PASSES: 100})
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
    found = make_problem(landmarks, crops, valid, use_confidence=False).confidence
    assert float(found.sum()) == 2 * 68 - 1
    assert float(found[0, 1, 5]) == 0


# --- Identity


@pytest.mark.parametrize("batches", [RandomBatches(), Chunks(frames=4)])
def test_the_first_image_decides_the_identity(tiny_head, batches: RandomBatches | Chunks) -> None:
    head = tiny_head()
    start = disturbed(turning_heads(head, 2, 6))
    identity = start.params.identity + torch.linspace(0, 1, 12, dtype=torch.float64).view(2, 6, 1)
    start = replace(start, params=replace(start.params, identity=identity))
    problem = silenced(problem_of(head, start), [(0, 0)])
    config = AS_PREDICTED.changed(
        {"identity.shared": "first", "m_step.batches": batches, PASSES: 2, RATE: 1e-12}
    )
    found = fit(FreeParameters(start), head, problem, config)
    expected = start.params.identity[0, 1].expand(2, 6, -1)
    torch.testing.assert_close(found.prediction.params.identity, expected)


def test_the_spread_of_identity_codes_is_recorded_for_every_pass(tiny_head) -> None:
    head = tiny_head()
    start = disturbed(turning_heads(head, 2, 6))
    identity = start.params.identity + torch.linspace(0, 1, 12, dtype=torch.float64).view(2, 6, 1)
    start = replace(start, params=replace(start.params, identity=identity))
    outcome = fit(
        FreeParameters(start), head, problem_of(head, start), FitConfig.neural({"m_step.stop.max_passes": 3})
    )
    assert len(outcome.identity_spread) == len(outcome.history["total"]) == 4
    expected = float(torch.linspace(0, 1, 12, dtype=torch.float64).std(correction=0))
    assert outcome.identity_spread[0] == pytest.approx(expected)


# --- Chunks, and targets that carry gradient


class Recorder(FreeParameters):
    """Remembers which images it was asked for while gradient was on."""

    def __init__(self, start: Prediction) -> None:
        super().__init__(start)
        self.asked: list[list[int]] = []

    def copy(self) -> Recorder:
        return self

    def predict(self, index: Tensor) -> Prediction:
        if torch.is_grad_enabled():
            self.asked.append(index.tolist())
        return super().predict(index)


def test_chunks_are_all_views_of_consecutive_frames(tiny_head) -> None:
    head = tiny_head()
    truth = turning_heads(head, 2, 7)
    recorder = Recorder(disturbed(truth))
    config = FitConfig.neural({"m_step.batches": Chunks(frames=3), PASSES: 1})
    fit(recorder, head, problem_of(head, truth), config)
    assert recorder.asked == [[0, 1, 2, 7, 8, 9], [3, 4, 5, 10, 11, 12], [6, 13]]


def gradient_of_first_step(head, config: FitConfig, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """By one plain step of gradient descent on the orientations."""
    monkeypatch.setattr(torch.optim, "Adam", torch.optim.SGD)
    monkeypatch.setattr(descent, "GRADIENT_NORM_LIMIT", math.inf)
    truth = turning_heads(head, 1, 9)
    start = disturbed(truth, 0.05)
    config = config.changed({PASSES: 1, RATE: 1.0, WARM_UP: 0, "m_step.returns": "last"})
    outcome = fit(FreeParameters(start, ("root_rotvec",)), head, problem_of(head, truth), config)
    return start.params.root_rotvec - outcome.prediction.params.root_rotvec


def test_gradient_flows_through_targets_only_if_asked(tiny_head, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of mean(|q - smooth(q)|^2) by autograd of the whole expression, and with the target fixed."""
    head = tiny_head()
    base = AS_PREDICTED.changed(
        {
            "objective": only(temporal=TemporalTerm(weight=0.2, penalty="squared")),
            "e_step.smoothing": MovingMean(window=5),
        }
    )
    rotvec = disturbed(turning_heads(head, 1, 9), 0.05).params.root_rotvec.clone().requires_grad_()
    quaternion = rotvec_to_quaternion(rotvec)
    target = smooth_quaternions(quaternion, 5)
    for detached in (True, False):
        loss = 0.2 * (quaternion - (target.detach() if detached else target)).square().mean(-1).mean()
        (expected,) = torch.autograd.grad(loss, rotvec, retain_graph=True)
        chunks = Chunks(frames=20, gradient_through_targets=not detached)
        found = gradient_of_first_step(head, base.changed({"m_step.batches": chunks}), monkeypatch)
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-6)


def test_targets_of_the_whole_clip_carry_no_gradient(tiny_head) -> None:
    """Whatever the loop hands to the objective: the predictions of the whole clip are made without gradient."""
    head = tiny_head()
    truth = turning_heads(head, 2, 4)
    prediction = predict_clip(FreeParameters(truth), (2, 4), 3)
    targets = estimate_targets(head, prediction, problem_of(head, truth), FitConfig.neural())
    assert not targets["temporal"].value.requires_grad
    assert not targets["multiview"].value.requires_grad


def test_a_sample_of_frames_keeps_the_expectation(tiny_head) -> None:
    """Of ten frames in two views three are used, in all views; without a sampler every frame is."""
    head = tiny_head()
    truth = turning_heads(head, 2, 10)
    term = MultiviewTerm(frames_per_step=3)
    batch = Batch(
        head=head, prediction=truth.flatten_batch(2), problem=problem_of(head, truth), index=torch.arange(20)
    )
    target = torch.ones(20, *head.template.shape, dtype=torch.float64)
    whole = term.values(batch, target)
    sampled = replace(batch, sampler=torch.Generator().manual_seed(0))
    found = torch.stack([term.values(sampled, target) for _ in range(400)])
    assert (found > 0).sum(1).tolist() == [6] * 400
    torch.testing.assert_close(found.mean(0), whole, rtol=0.25, atol=0)
    torch.testing.assert_close(found.max(0).values, whole * 10 / 3)


def test_the_last_pass_is_kept_if_asked(tiny_head) -> None:
    head = tiny_head()
    truth = turning_heads(head, 1, 5)
    # Steps that are far too long: the first pass is the best one.
    wild = AS_PREDICTED.changed({RATE: 0.5, WARM_UP: 0, PASSES: 4, "m_step.stop.patience": 50})
    start = FreeParameters(disturbed(truth, 0.01))
    best = fit(start, head, problem_of(head, truth), wild)
    last = fit(start, head, problem_of(head, truth), wild.changed({"m_step.returns": "last"}))
    assert best.history == last.history
    assert min(best.history["total"]) == best.history["total"][0]
    assert same(best.prediction, best.initial)
    assert not same(last.prediction, last.initial)
