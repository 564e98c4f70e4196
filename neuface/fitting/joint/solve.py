"""The EM loop of the joint least-squares solution: targets from the whole clip, then one step on all unknowns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.devices import map_pieces
from neuface.fitting.config import FitConfig, JointSolve
from neuface.fitting.joint.equations import CodesEliminated, Step, solve
from neuface.fitting.joint.landmarks import CodeBasis, code_basis, landmark_equations
from neuface.fitting.joint.priors import (
    add_calibrated,
    add_code_priors,
    expected_expression,
    fixed_size,
    identity_prior,
    smoothness_pulls,
)
from neuface.fitting.joint.smoothness import pose_band, smoothing_rows
from neuface.fitting.landmark_derivatives import landmark_derivatives, moves_jaw
from neuface.fitting.problem import Problem
from neuface.fitting.stopping import History, Progress
from neuface.fitting.targets import Priors, Targets
from neuface.fitting.terms import batch_of, estimate_targets, loss_parts, targets_of_images
from neuface.geometry.pose_jacobian import POSE_SIZE
from neuface.geometry.rotations import rotmat_to_rotvec, rotvec_to_rotmat
from neuface.head.model import HeadModel
from neuface.structs import HEAD_TO_IMAGE_SIGNS, HeadParams, Outcome, Prediction

__all__ = ["Solution", "solve_clip"]

LARGEST_TURN_RAD = 0.3
"""Bound of the rotation of one step, radians, and of the change of log magnification: the linearisation is not valid
beyond it."""
JAW_PASSES = 4
"""Passes after which the derivatives are computed again where the jaw moves; only they are not exact without it."""


@dataclass(frozen=True, kw_only=True)
class Solution:
    """The unknowns of a clip, and how they were found."""

    prediction: Prediction
    """Of the pass with the least loss; batch axes `views time`."""
    history: History
    outcome: Outcome


@torch.no_grad()
def solve_clip(
    head: HeadModel,
    start: Prediction,
    problem: Problem,
    config: FitConfig,
    priors: Priors,
    *,
    moves_identity: bool = True,
    fixes_size: bool = True,
    report: Callable[[int, dict[str, float]], None] | None = None,
    keep_interrupted: bool = False,
) -> Solution:
    """Solve for all unknowns of a clip, or of a piece of one.

    Args:
        start: batch axes `views time`; all images have one identity code, and the views of a frame one expression.
        moves_identity: whether the identity code is an unknown.
        fixes_size: whether the face keeps its size.
        report: called after every pass with its number and the loss and parts.
        keep_interrupted: whether Ctrl-C ends the solution with its best pass so far, in place of a KeyboardInterrupt.
    """
    solver = _Solver(
        head=head,
        problem=problem,
        config=config,
        priors=priors,
        moves_identity=moves_identity,
        fixes_size=fixes_size,
        prediction=start,
    )
    m_step = solver.m_step
    progress = Progress(stop=m_step.stop)
    best, passes, outcome = start, 0, None
    try:
        while outcome is None:
            targets = estimate_targets(head, solver.prediction, problem, config, priors)
            frames, parts = solver.equations(targets)
            progress.record(parts)
            if report is not None:
                report(passes, parts)
            if progress.improved:
                best = solver.prediction
            if not progress.finite:
                outcome = Outcome.DIVERGED
            elif passes == m_step.stop.max_passes:
                outcome = Outcome.PASS_LIMIT
            elif progress.stalled:
                outcome = Outcome.CONVERGED
            elif not solver.advance(frames, targets):
                outcome = Outcome.DIVERGED
            passes += 1
    except KeyboardInterrupt:
        if not keep_interrupted or not progress.history:
            raise
        outcome = Outcome.INTERRUPTED
    return Solution(prediction=best, history=progress.history, outcome=outcome)


class _Solver:
    """The equations of a clip at its current unknowns, and the step to the next."""

    def __init__(
        self,
        *,
        head: HeadModel,
        problem: Problem,
        config: FitConfig,
        priors: Priors,
        moves_identity: bool,
        fixes_size: bool,
        prediction: Prediction,
    ) -> None:
        assert isinstance(config.m_step, JointSolve), "whoever calls has chosen this M-step"
        self.head, self.problem, self.config, self.priors = head, problem, config, priors
        self.m_step, self.prediction = config.m_step, prediction
        self._moves_identity, self._moves_jaw = moves_identity, moves_jaw(prediction.params)
        segments = self.m_step.segments(problem)
        known = problem.valid if config.e_step.interpolate_missing else torch.ones_like(problem.valid)
        self._rows = smoothing_rows(config.e_step.smoothing, segments, known, problem.frame_times)
        self._expected = expected_expression(
            head,
            problem.scheme.name,
            expression_size=prediction.params.expression.shape[-1],
            with_jaw=self._moves_jaw,
        )
        gradient = head.log_size(torch.eye(prediction.params.identity.shape[-1]).to(priors.identity))
        self._size_direction = gradient / gradient.norm().clamp(min=1e-12) if fixes_size else 0 * gradient
        self._basis: CodeBasis | None = None
        self._steps = 0

    def equations(self, targets: Targets) -> tuple[CodesEliminated, dict[str, float]]:
        """The equations without the codes of the frames, and the current loss, `total`, with its parts."""
        basis = self._current_basis()
        views, time = self.problem.views, self.problem.time
        at_once = max(1, self.m_step.images_at_once // views)
        spans = torch.arange(time, device=self.problem.valid.device).split(at_once)
        found = map_pieces(lambda frames: self._of_frames(frames, targets, basis), spans)
        sums = {name: sum(parts[name] for _, parts in found) for name in found[0][1]}
        weights = self.config.objective.weights()
        total = sum(weights[name] * value for name, value in sums.items())
        return CodesEliminated.join([piece for piece, _ in found]), {"total": total, **sums}

    def _of_frames(
        self, frames: Tensor, targets: Targets, basis: CodeBasis
    ) -> tuple[CodesEliminated, dict[str, float]]:
        problem, config, objective = self.problem, self.config, self.config.objective
        views, time = problem.views, problem.time
        index = (torch.arange(views, device=frames.device)[:, None] * time + frames).flatten()
        prediction = self.prediction[:, frames].flatten_batch(2)
        batch = batch_of(self.head, prediction, problem, index, config)
        rows = targets_of_images(targets, index, time)
        parts = {name: float(value.sum()) for name, value in loss_parts(batch, rows, config).items()}
        landmark = objective.landmark
        assert landmark is not None, "JointSolve.unsupported refuses this"
        equations = landmark_equations(batch, landmark, basis, basis.kind[:, frames])
        add_code_priors(equations, objective, batch, rows, self._expected)
        if objective.calibrated is not None and "calibrated" in rows:
            add_calibrated(equations, objective.calibrated.weight, batch, rows["calibrated"], views)
        return CodesEliminated.of(equations), parts

    def advance(self, frames: CodesEliminated, targets: Targets) -> bool:
        """Move all unknowns by one step; whether there was one."""
        objective = self.config.objective
        pulls = smoothness_pulls(objective, self.prediction, self.problem, targets)
        band = pose_band(self._rows, pulls, POSE_SIZE)
        code = self.prediction.params.identity[0, 0]
        if self._moves_identity:
            matrix, right = identity_prior(objective, code, self.priors.identity, self.problem.views)
            matrix = matrix + fixed_size(frames.identity + matrix, self._size_direction)
        else:
            matrix, right = frames.identity, frames.identity_right
        step = solve(frames, band, matrix, right)
        if step is None:
            return False
        self.prediction = self._moved(step.to(code))
        self._steps += 1
        return True

    def _moved(self, step: Step) -> Prediction:
        """The unknowns after a step, which is bounded."""
        params, camera = self.prediction.params, self.prediction.camera
        views, size = self.problem.views, params.expression.shape[-1]
        pose = step.pose.unflatten(-1, (views, POSE_SIZE)).transpose(0, 1)
        turn, growth, shift = pose[..., :3], pose[..., 3], pose[..., 4:]
        turn = turn * (LARGEST_TURN_RAD / turn.norm(dim=-1, keepdim=True).clamp(min=LARGEST_TURN_RAD))
        growth = growth.clamp(-LARGEST_TURN_RAD, LARGEST_TURN_RAD)
        before = rotvec_to_rotmat(params.root_rotvec)
        after = rotvec_to_rotmat(turn) @ before
        moved = replace(
            params,
            identity=params.identity + step.identity if self._moves_identity else params.identity,
            expression=params.expression + step.code[:, :size],
            root_rotvec=rotmat_to_rotvec(after),
        )
        if self._moves_jaw:
            moved = replace(moved, jaw_rotvec=params.jaw_rotvec + step.code[:, size:])
        # The equations turn the head about the head frame's origin, and the head turns about its root joint.
        magnification = camera.magnification * growth.exp()
        moved_by_joint = self._by_joint(moved, after) - self._by_joint(params, before)
        position = camera.position + shift - magnification[..., None] * moved_by_joint
        return Prediction(params=moved, camera=camera.placed(position, magnification))

    def _by_joint(
        self, params: HeadParams, rotation: Float[Tensor, "views time 3 3"]
    ) -> Float[Tensor, "views time 2"]:
        """How far a head that turns about its root joint is from where it is when it turns about the origin."""
        joint = self.head.joints(params)[..., 0, :]
        moved = joint - (rotation @ joint[..., None])[..., 0]
        return moved[..., :2] * moved.new_tensor(HEAD_TO_IMAGE_SIGNS[:2])

    def _current_basis(self) -> CodeBasis:
        stale = self._moves_jaw and self._steps % JAW_PASSES == 0
        if self._basis is None or stale:
            derivatives = landmark_derivatives(self.head, self.prediction.params, self.problem.scheme.name)
            self._basis = code_basis(derivatives, with_identity=self._moves_identity)
        return self._basis
