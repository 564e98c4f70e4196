"""The solver of the person: against the dense normal equations, and against itself on the same frames."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import roma
import torch
from talking_people import landmarks_of, talking, weak_prediction, white_noise_mm
from torch import Tensor

from neuface.encoders.calibration import OPEN_ENCODER
from neuface.fitting.person import estimate as module
from neuface.fitting.person import gauss_newton as solver
from neuface.fitting.person import normal_equations
from neuface.fitting.person.gauss_newton import Estimate
from neuface.fitting.person.linear_model import LinearModel, linear_model


@dataclass(frozen=True, kw_only=True)
class Dense:
    """All unknowns of a model in one vector of changes, their order: shared, expression, rotation, shift, log
    magnification."""

    model: LinearModel
    estimate: Estimate

    @property
    def sizes(self) -> tuple[int, ...]:
        views, frames = self.model.mean.shape[:2]
        per_image = [views * frames * size for size in (3, 2, 1)]
        return (len(self.estimate.shared), self.estimate.expression.numel(), *per_image)

    def changed(self, changes: Tensor) -> Estimate:
        estimate = self.estimate
        shared, expression, rotvec, shift, log_magnification = changes.split(self.sizes)
        views_frames = estimate.log_magnification.shape
        return replace(
            estimate,
            shared=estimate.shared + shared,
            expression=estimate.expression + expression.view_as(estimate.expression),
            rotation=roma.rotvec_to_rotmat(rotvec.view(*views_frames, 3)) @ estimate.rotation,
            shift=estimate.shift + shift.view(*views_frames, 2),
            log_magnification=estimate.log_magnification + log_magnification.view(views_frames),
        )

    def residual(self, changes: Tensor) -> Tensor:
        return (self.model.observed - solver.predict(self.model, self.changed(changes)).image).flatten()

    def prior_cost(self, changes: Tensor) -> Tensor:
        changed, pose = self.changed(changes), changes[sum(self.sizes[:2]) :]
        shared = changed.shared - self.model.shared_mean
        expression = changed.expression - self.model.expression_mean
        cost = shared @ solver.shared_precision(self.model, self.estimate) @ shared
        cost = cost + ((expression @ self.model.expression_precision) * expression).sum()
        return 0.5 * (cost + normal_equations.DAMPING * pose.square().sum())


@pytest.mark.parametrize("moves_jaw", [False, True])
def test_a_step_is_that_of_all_unknowns_at_once(tiny_head, moves_jaw: bool) -> None:
    """Eliminating the per-frame unknowns gives the step, and the evidence, of the dense system, whose derivatives
    autograd finds."""
    head = tiny_head()
    truth = talking(head, 2, 3)
    initial = weak_prediction(truth)
    if moves_jaw:
        jaw = torch.full_like(initial.params.jaw_rotvec, 0.1)
        initial = replace(initial, params=replace(initial.params, jaw_rotvec=jaw))
    problem = landmarks_of(head, truth, white_noise_mm(truth, 0.5))
    mean = initial.params.identity[0, 0]
    model = linear_model(head, initial, problem, torch.arange(3), mean, OPEN_ENCODER)
    dense = Dense(model=model, estimate=solver.initial_estimate(model))
    shared = dense.sizes[0]

    zero = mean.new_zeros(sum(dense.sizes))
    weight = solver.inverse_variances(model, dense.estimate)
    each = weight[..., None].expand(-1, -1, -1, 2).flatten()
    residual = dense.residual(zero)
    jacobian = -torch.func.jacrev(dense.residual)(zero)
    normal = jacobian.mT @ (each[:, None] * jacobian) + torch.func.hessian(dense.prior_cost)(zero)
    right = jacobian.mT @ (each * residual) - torch.func.grad(dense.prior_cost)(zero)
    identity, direction = head.num_identity, model.size_direction
    normal[:identity, :identity] += solver.SIZE_PRECISION * torch.outer(direction, direction)
    expected = dense.changed(torch.linalg.solve(normal, right))
    iteration = solver.gauss_newton_step(model, dense.estimate, weight)
    found = iteration.estimate
    torch.testing.assert_close(found.shared, expected.shared, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.expression, expected.expression, atol=1e-6, rtol=1e-5)
    moved = (found.shared - dense.estimate.shared)[:identity]
    assert float(moved @ direction) == pytest.approx(0, abs=1e-6)

    # Laplace: the integral of a Gaussian with this curvature over the shared unknowns alone.
    height = -0.5 * (each * residual.square()).sum() - dense.prior_cost(zero)
    cross = normal[:shared, shared:]
    curvature = normal[:shared, :shared] - cross @ torch.linalg.solve(normal[shared:, shared:], cross.mT)
    evidence = height - 0.5 * torch.logdet(curvature)
    assert iteration.log_evidence == pytest.approx(float(evidence), abs=1e-3)


def test_frames_solved_for_a_known_person_agree_with_the_joint_solution(tiny_head) -> None:
    """The same frames again, for the person that they determined, have the same expressions and poses."""
    head = tiny_head()
    truth = talking(head, 2, 6)
    initial, problem = weak_prediction(truth), landmarks_of(head, truth, white_noise_mm(truth, 0.3))
    model = linear_model(head, initial, problem, torch.arange(6), initial.params.identity[0, 0], OPEN_ENCODER)
    joint = solver.initial_estimate(model)
    for _ in range(30):
        joint = module.em_iteration(model, joint)
    again = solver.fit_frames(model, joint)
    torch.testing.assert_close(again.expression, joint.expression, atol=2e-3, rtol=0)
    torch.testing.assert_close(again.rotation, joint.rotation, atol=2e-3, rtol=0)
