"""The normal equations in blocks: the solution is that of the whole matrix, the right side is the gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from joint_problems import Blocks, centred_head, noisy_problem, pairs_of, shared_start
from torch import Tensor

from neuface import losses
from neuface.fitting.config import FitConfig, JointSolve
from neuface.fitting.joint import equations, landmarks, priors
from neuface.fitting.joint.equations import CodesEliminated, Step, solve
from neuface.fitting.joint.smoothness import Pull, pose_band, smoothing_rows
from neuface.fitting.joint.solve import _Solver
from neuface.fitting.smoothing import Adaptive, LocalQuadratic
from neuface.fitting.targets import Priors, Targets
from neuface.fitting.terms import batch_of, estimate_targets, loss_parts, targets_of_images
from neuface.geometry.pose_jacobian import POSE_SIZE
from neuface.head.model import HeadModel

# --- The solution


@pytest.mark.parametrize("views", [1, 3])
def test_the_solution_is_that_of_the_whole_matrix(views: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a dense solve of the same equations, put together in one matrix."""
    for damping in ("RELATIVE_DAMPING", "ABSOLUTE_DAMPING"):
        monkeypatch.setattr(equations, damping, 0.0)
    time, code, identity, poses = 11, 4, 5, views * POSE_SIZE
    made = Blocks.random(frames=time, code=code, poses=poses, identity=identity)
    generator = torch.Generator().manual_seed(1)

    def positive(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64) + 0.1

    rows = smoothing_rows(LocalQuadratic(window=5), (0, 6), torch.ones(views, time, dtype=torch.bool))
    distance = torch.randn(views, time, 3, generator=generator, dtype=torch.float64)
    pulls = [
        Pull(
            channels=slice(0, 3), distance=distance, weight=positive(views, time), unit=positive(views, time)
        ),
        Pull(
            channels=slice(3, 4),
            distance=distance[..., :1],
            weight=positive(views, time),
            unit=positive(views, time),
        ),
    ]
    prior = torch.eye(identity, dtype=torch.float64)
    prior_right = positive(identity)
    found = solve(CodesEliminated.of(made.equations), pose_band(rows, pulls, POSE_SIZE), prior, prior_right)
    assert found is not None
    matrix, right = made.dense()
    first, behind = made.first_of_identity, made.first_of_identity + identity
    matrix[first:behind, first:behind] += prior
    right[first:behind] += prior_right
    smoothed = LocalQuadratic(window=5).values(torch.eye(time, dtype=torch.float64)[None], (0, 6))[0]
    for pull in pulls:
        for view in range(views):
            rest = (torch.eye(time, dtype=torch.float64) - smoothed) * pull.unit[view]
            for number, channel in enumerate(range(pull.channels.start, pull.channels.stop)):
                at = made.pose_rows(view * POSE_SIZE + channel)
                matrix[at[:, None], at] += rest.mT @ (pull.weight[view][:, None] * rest)
                right[at] += rest.mT @ (pull.weight[view] * pull.distance[view, :, number])
    expected = made.step_of(torch.linalg.solve(matrix, right))
    for name in ("code", "pose", "identity"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))


def test_frames_in_pieces_are_the_same_equations() -> None:
    made = Blocks.random(frames=7, code=3, poses=6, identity=4)
    whole = CodesEliminated.of(made.equations)
    joined = CodesEliminated.join(
        [CodesEliminated.of(made.part(some)) for some in (slice(0, 3), slice(3, 7))]
    )
    for name, value in vars(whole).items():
        torch.testing.assert_close(getattr(joined, name), value)


def test_equations_that_are_not_finite_have_no_solution() -> None:
    made = Blocks.random(frames=3, code=2, poses=6, identity=2)
    wrong = replace(made.equations, pose_right=made.equations.pose_right * torch.nan)
    rows = smoothing_rows(LocalQuadratic(), (0,), torch.ones(1, 3, dtype=torch.bool))
    nothing = torch.zeros(2, 2, dtype=torch.float64)
    assert solve(CodesEliminated.of(wrong), pose_band(rows, [], POSE_SIZE), nothing, nothing[0]) is None


# --- The gradient


@pytest.fixture
def no_softness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quadratics that touch the penalties at every residual that is more than rounding."""
    monkeypatch.setattr(landmarks, "LANDMARK_SOFTNESS_NDC", 1e-12)
    for name in ("ROTATION_SOFTNESS_RAD", "CAMERA_SOFTNESS", "CODE_SOFTNESS", "VIEW_SOFTNESS"):
        monkeypatch.setattr(priors, name, losses.NORM_SOFTNESS)


def right_side(solver: _Solver, targets: Targets) -> Step:
    """What the equations of a clip have on their right."""
    problem, config = solver.problem, solver.config
    frames = torch.arange(problem.time)
    index = torch.arange(problem.views * problem.time)
    batch = batch_of(solver.head, solver.prediction.flatten_batch(2), problem, index, config)
    rows = targets_of_images(targets, index, problem.time)
    assert config.objective.landmark is not None
    basis = solver._current_basis()
    made = landmarks.landmark_equations(batch, config.objective.landmark, basis, basis.kind[:, frames])
    priors.add_code_priors(made, config.objective, batch, rows, solver._expected)
    pulls = priors.smoothness_pulls(config.objective, solver.prediction, problem, targets)
    band = pose_band(solver._rows, pulls, POSE_SIZE)
    code = solver.prediction.params.identity[0, 0]
    _, of_prior = priors.identity_prior(config.objective, code, solver.priors.identity, problem.views)
    return Step(
        code=made.code_right, pose=made.pose_right + band.right, identity=made.identity_right + of_prior
    )


def gradient(solver: _Solver, targets: Targets | None) -> Step:
    """Of the weighted objective by a step of all unknowns, by autograd; None makes the targets of every step anew."""
    problem, config, params = solver.problem, solver.config, solver.prediction.params
    code_size = params.expression.shape[-1] + (3 if solver._moves_jaw else 0)
    zero = Step(
        code=torch.zeros(problem.time, code_size, dtype=torch.float64),
        pose=torch.zeros(problem.time, problem.views * POSE_SIZE, dtype=torch.float64),
        identity=torch.zeros(params.identity.shape[-1], dtype=torch.float64),
    ).map_tensors(lambda tensor: tensor.requires_grad_())
    moved = solver._moved(zero)
    if targets is None:
        targets = estimate_targets(solver.head, moved, problem, config, solver.priors)
    index = torch.arange(problem.views * problem.time)
    batch = batch_of(solver.head, moved.flatten_batch(2), problem, index, config)
    parts = loss_parts(batch, targets_of_images(targets, index, problem.time), config)
    total = losses.weighted_sum(parts, config.objective.weights()).sum()
    found = torch.autograd.grad(total, [zero.code, zero.pose, zero.identity])
    return Step(code=found[0], pose=found[1], identity=found[2])


def solver_of(head: HeadModel, config: FitConfig, *, jaw: bool = False, motion: float = 0.15) -> _Solver:
    truth, problem = noisy_problem(head, views=2, time=6, motion=motion)
    start = shared_start(truth, jaw=jaw)
    generator = torch.Generator().manual_seed(4)
    identity = 0.3 * torch.randn(head.num_identity, generator=generator, dtype=torch.float64)
    points = 0.01 * torch.randn(problem.time, 68, 3, generator=generator, dtype=torch.float64)
    # The term of the expected expression has the derivatives of a jaw at rest.
    known = Priors(identity=identity, expression_points=None if jaw else points)
    return _Solver(
        head=head,
        problem=problem,
        config=config,
        priors=known,
        moves_identity=True,
        fixes_size=True,
        prediction=start,
    )


@pytest.mark.parametrize("penalty", ["l1", "saturating"])
@pytest.mark.parametrize("jaw", [False, True])
@pytest.mark.usefixtures("no_softness")
def test_the_right_side_is_the_negative_gradient_of_the_objective(tiny_head, penalty: str, jaw: bool) -> None:
    """With targets that are fixed, as for a filter that is not linear."""
    config = FitConfig.best(
        {
            "objective.landmark.penalty": penalty,
            "objective.jaw_smoothness.weight": 0.3,
            "e_step.smoothing": Adaptive(window=5),
        }
    )
    solver = solver_of(centred_head(tiny_head()), config, jaw=jaw)
    targets = estimate_targets(solver.head, solver.prediction, solver.problem, config, solver.priors)
    found, expected = right_side(solver, targets), gradient(solver, targets)
    for name, value in pairs_of(found, expected):
        # A step of the jaw is taken for a rotation, which it is for a jaw that is hardly turned; and the distance of
        # quaternions for half an angle, which it is for small ones.
        tolerance = 5e-4 if jaw and name == "code" else 2e-5
        torch.testing.assert_close(value[0], -value[1], rtol=2e-3, atol=tolerance, msg=named(name))


def named(name: str) -> Callable[[str], str]:
    return lambda text: f"{name}: {text}"


@pytest.mark.usefixtures("no_softness")
def test_landmarks_of_a_head_that_turns_about_its_root_joint(tiny_head) -> None:
    """The root joint is away from the origin, about which the equations turn; confidences differ."""
    config = FitConfig.best(
        {
            f"objective.{name}": None
            for name in (
                "temporal", "identity_prior", "expression_prior", "expression_smoothness", "camera_smoothness",
            )
        }
    )  # fmt: skip
    solver = solver_of(tiny_head(), config)
    targets = estimate_targets(solver.head, solver.prediction, solver.problem, config, solver.priors)
    for name, value in pairs_of(right_side(solver, targets), gradient(solver, targets)):
        torch.testing.assert_close(value[0], -value[1], rtol=1e-7, atol=1e-9, msg=named(name))


@pytest.mark.parametrize("smoother", [LocalQuadratic(window=5), LocalQuadratic(window=3)])
@pytest.mark.usefixtures("no_softness")
def test_smoothed_trajectories_follow_the_poses(tiny_head, smoother: LocalQuadratic) -> None:
    """The gradient through the E-step, of heads that turn little, for which quaternions are linear."""
    config = FitConfig.best(
        {
            "objective.landmark.weight": 1e-9,
            "objective.temporal.weight": 1.0,
            "objective.camera_smoothness.weight": 1.0,
            "objective.expression_smoothness": None,
            "objective.expression_prior": None,
            "objective.identity_prior": None,
            "e_step.smoothing": smoother,
        }
    )
    solver = solver_of(centred_head(tiny_head()), config, motion=0.02)
    targets = estimate_targets(solver.head, solver.prediction, solver.problem, config, solver.priors)
    found, expected = right_side(solver, targets).pose, -gradient(solver, None).pose
    assert isinstance(config.m_step, JointSolve)
    if smoother.window == 3:
        # A parabola passes through any three points: nothing is smoothed, and nothing is pulled.
        assert float(expected.abs().max()) < 1e-6
        assert float(found.abs().max()) < 1e-6
        return
    assert float(expected.abs().max()) > 0.01
    torch.testing.assert_close(found, expected, rtol=0.02, atol=1e-3)
