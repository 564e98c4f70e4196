"""Small problems for the joint solution: equations at random, and clips whose landmarks are noisy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from small_problems import problem_of
from torch import Tensor

from neuface.fitting.joint.equations import FrameEquations, Step
from neuface.fitting.problem import Problem
from neuface.head.model import HeadModel
from neuface.structs import Prediction, WeakPerspective


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Normal equations of some frames, and the Jacobians of which they are made."""

    jacobian: Tensor
    """Frames, residuals, unknowns of a frame: its code, its poses, and the identity."""
    residual: Tensor
    code: int
    poses: int

    @classmethod
    def random(cls, *, frames: int, code: int, poses: int, identity: int) -> Blocks:
        generator = torch.Generator().manual_seed(0)
        size = code + poses + identity
        jacobian = torch.randn(frames, 2 * size, size, generator=generator, dtype=torch.float64)
        residual = torch.randn(frames, 2 * size, generator=generator, dtype=torch.float64)
        return cls(jacobian=jacobian, residual=residual, code=code, poses=poses)

    @property
    def equations(self) -> FrameEquations:
        return self.part(slice(None))

    def part(self, frames: slice) -> FrameEquations:
        jacobian, residual = self.jacobian[frames], self.residual[frames]
        matrix, right = jacobian.mT @ jacobian, (jacobian.mT @ residual[..., None])[..., 0]
        code = slice(0, self.code)
        pose, identity = slice(self.code, self.code + self.poses), slice(self.code + self.poses, None)
        return FrameEquations(
            code=matrix[:, code, code],
            code_pose=matrix[:, code, pose],
            code_identity=matrix[:, code, identity],
            code_right=right[:, code],
            pose=matrix[:, pose, pose],
            pose_identity=matrix[:, pose, identity],
            pose_right=right[:, pose],
            identity=matrix[:, identity, identity].sum(0),
            identity_right=right[:, identity].sum(0),
        )

    @property
    def first_of_identity(self) -> int:
        return len(self.jacobian) * (self.code + self.poses)

    def pose_rows(self, number: int) -> Tensor:
        """Where one of the numbers of a pose stands among all unknowns, frame by frame."""
        return torch.arange(len(self.jacobian)) * (self.code + self.poses) + self.code + number

    def dense(self) -> tuple[Tensor, Tensor]:
        """The whole matrix and the right side: frame after frame its code and its poses, then the identity."""
        frames, _, size = self.jacobian.shape
        own = self.code + self.poses
        wide = self.jacobian.new_zeros(frames, self.jacobian.shape[1], frames * own + size - own)
        for frame in range(frames):
            wide[frame, :, frame * own : (frame + 1) * own] = self.jacobian[frame, :, :own]
            wide[frame, :, frames * own :] = self.jacobian[frame, :, own:]
        flat = wide.flatten(0, 1)
        return flat.mT @ flat, flat.mT @ self.residual.flatten()

    def step_of(self, solution: Tensor) -> Step:
        own = solution[: self.first_of_identity].view(len(self.jacobian), -1)
        return Step(
            code=own[:, : self.code], pose=own[:, self.code :], identity=solution[self.first_of_identity :]
        )


def centred_head(head: HeadModel) -> HeadModel:
    """A head whose root joint is the origin, whatever its codes."""
    first = torch.arange(len(head.joint_template)) > 0
    return replace(
        head,
        joint_template=head.joint_template * first[:, None],
        joint_identity_basis=head.joint_identity_basis * first[:, None, None],
        joint_expression_basis=head.joint_expression_basis * first[:, None, None],
    )


def moving_heads(
    head: HeadModel, *, views: int, time: int, motion: float = 0.15, seed: int = 0
) -> Prediction:
    """One person who talks and turns before cameras; the head moves smoothly, as far as `motion` radians."""
    generator = torch.Generator().manual_seed(seed)
    params = head.neutral(views, time)
    like = params.identity

    def waves(*shape: int) -> Tensor:
        """Smooth trajectories of size one."""
        phase, speed = torch.rand(2, *shape, generator=generator)
        frame = torch.arange(time).view(-1, *[1] * len(shape))
        return (6 * phase + (0.1 + 0.3 * speed) * frame).sin().to(like)

    root = motion * waves(3).expand(views, time, 3)
    root = root + 0.2 * motion * waves(views, 3).transpose(0, 1)
    magnification = 5.0 * (0.3 * motion * waves(views).T).exp()
    return Prediction(
        params=replace(
            params,
            identity=(0.6 * torch.randn(head.num_identity, generator=generator)).to(like).expand_as(like),
            expression=(0.4 * waves(head.num_expression)).expand(views, -1, -1),
            root_rotvec=root,
        ),
        camera=WeakPerspective(scale=magnification, offset=0.5 * motion * waves(views, 2).transpose(0, 1)),
    )


def noisy_problem(
    head: HeadModel,
    *,
    views: int,
    time: int,
    motion: float = 0.15,
    noise_ndc: float = 0.03,
    scheme: str = "ibug68",
) -> tuple[Prediction, Problem]:
    """Moving heads and what a detector sees of them, with confidences that differ."""
    truth = moving_heads(head, views=views, time=time, motion=motion)
    problem = problem_of(head, truth, scheme)
    generator = torch.Generator().manual_seed(1)
    noise = noise_ndc * torch.randn(problem.observed_px.shape, generator=generator, dtype=torch.float64)
    confidence = 0.2 + torch.rand(problem.confidence.shape, generator=generator, dtype=torch.float64)
    return truth, replace(problem, observed_px=problem.observed_px + noise, confidence=confidence)


def shared_start(truth: Prediction, *, jaw: bool = False, size: float = 0.05) -> Prediction:
    """Predictions near the truth: one identity, one expression for all views of a frame, other poses."""
    generator = torch.Generator().manual_seed(2)
    params, camera = truth.params, truth.camera

    def near(tensor: Tensor) -> Tensor:
        return tensor + size * torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor)

    return Prediction(
        params=replace(
            params,
            identity=near(params.identity[0, 0]).expand_as(params.identity),
            expression=near(params.expression[0]).expand_as(params.expression),
            root_rotvec=near(params.root_rotvec),
            jaw_rotvec=near(params.jaw_rotvec[0]).expand_as(params.jaw_rotvec) if jaw else params.jaw_rotvec,
        ),
        camera=camera.placed(near(camera.position), near(camera.magnification.log()).exp()),
    )


def pairs_of(found: Step, expected: Step) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    for name in ("code", "pose", "identity"):
        yield name, (getattr(found, name), getattr(expected, name))
