"""The normal equations of a clip in blocks, and their solution: expressions first, then poses, then the identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor

from neuface.structs import TensorStruct

__all__ = ["CodesEliminated", "FrameEquations", "PoseBand", "Step", "solve"]

RELATIVE_DAMPING = 1e-6
"""Added to the diagonal of the normal equations, as a share of it: keeps finite what nothing determines."""
ABSOLUTE_DAMPING = 1e-12
"""Added to the diagonal as well, for unknowns that no term touches at all; the objective is of order 1e-2."""


@dataclass(frozen=True, kw_only=True)
class FrameEquations(TensorStruct):
    """`matrix @ step = right` for some frames, in blocks of their codes, of their poses, and of the identity.

    A frame's *code* is its expression, followed by the jaw's rotation where it moves; its *poses* are those of its
    images, view by view, six numbers each (`neuface.geometry.pose_jacobian`).
    """

    code: Float[Tensor, "frames code code"]
    code_pose: Float[Tensor, "frames code pose"]
    code_identity: Float[Tensor, "frames code identity"]
    code_right: Float[Tensor, "frames code"]
    pose: Float[Tensor, "frames pose pose"]
    pose_identity: Float[Tensor, "frames pose identity"]
    pose_right: Float[Tensor, "frames pose"]
    identity: Float[Tensor, "identity identity"]
    """Summed over the frames."""
    identity_right: Float[Tensor, " identity"]
    """Likewise."""


@dataclass(frozen=True, kw_only=True)
class CodesEliminated(TensorStruct):
    """Frames whose codes are expressed by their poses and the identity (Schur complement), float64."""

    factor: Float[Tensor, "frames code code"]
    """Cholesky factor L of the block of the codes."""
    by_pose: Float[Tensor, "frames code pose"]
    """L^-1 times the block `code_pose`; likewise the next two."""
    by_identity: Float[Tensor, "frames code identity"]
    right: Float[Tensor, "frames code"]
    pose: Float[Tensor, "frames pose pose"]
    """What remains of the equations of the poses and of the identity."""
    pose_identity: Float[Tensor, "frames pose identity"]
    pose_right: Float[Tensor, "frames pose"]
    identity: Float[Tensor, "identity identity"]
    identity_right: Float[Tensor, " identity"]

    @classmethod
    def of(cls, equations: FrameEquations) -> CodesEliminated:
        """The equations with damping, and without the codes."""
        exact = equations.to(torch.float64)
        factor, failed = torch.linalg.cholesky_ex(_damped(exact.code))
        # Equations that are not finite give NaN here, for which `solve` returns None.
        factor = torch.where(failed[:, None, None] == 0, factor, torch.nan)
        together = torch.cat((exact.code_pose, exact.code_identity, exact.code_right[..., None]), -1)
        solved = torch.linalg.solve_triangular(factor, together, upper=False)
        poses = exact.pose.shape[-1]
        by_pose, by_identity, right = solved[..., :poses], solved[..., poses:-1], solved[..., -1]
        flat = by_identity.flatten(0, 1)
        return cls(
            factor=factor,
            by_pose=by_pose,
            by_identity=by_identity,
            right=right,
            pose=_damped(exact.pose) - by_pose.mT @ by_pose,
            pose_identity=exact.pose_identity - by_pose.mT @ by_identity,
            pose_right=exact.pose_right - (by_pose.mT @ right[..., None])[..., 0],
            identity=exact.identity - flat.mT @ flat,
            identity_right=exact.identity_right - flat.mT @ right.flatten(),
        )

    @classmethod
    def join(cls, pieces: Sequence[CodesEliminated]) -> CodesEliminated:
        """Frames of a clip that follow each other."""
        if len(pieces) == 1:
            return pieces[0]
        joined = {
            item.name: torch.cat([getattr(piece, item.name) for piece in pieces]) for item in fields(cls)
        }
        for name in ("identity", "identity_right"):
            joined[name] = torch.stack([getattr(piece, name) for piece in pieces]).sum(0)
        return cls(**joined)

    def codes(
        self, pose: Float[Tensor, "frames pose"], identity: Float[Tensor, " identity"]
    ) -> Float[Tensor, "frames code"]:
        """The steps of the codes that follow from those of the poses and of the identity."""
        right = self.right - (self.by_pose @ pose[..., None])[..., 0] - self.by_identity @ identity
        return torch.linalg.solve_triangular(self.factor.mT, right[..., None], upper=True)[..., 0]


@dataclass(frozen=True, kw_only=True)
class PoseBand(TensorStruct):
    """What terms of smoothness add to the equations of the poses, channel by channel."""

    lags: Float[Tensor, "lags frames pose"]
    """Row l: the entries between the pose of a frame and that of the l-th frame after it."""
    right: Float[Tensor, "frames pose"]


@dataclass(frozen=True, kw_only=True)
class Step(TensorStruct):
    """What is added to the unknowns."""

    code: Float[Tensor, "frames code"]
    pose: Float[Tensor, "frames pose"]
    identity: Float[Tensor, " identity"]


def solve(
    frames: CodesEliminated,
    band: PoseBand,
    identity: Float[Tensor, "identity identity"],
    identity_right: Float[Tensor, " identity"],
) -> Step | None:
    """The solution of the equations of a clip, float64; None if they are not positive definite, or not finite.

    Args:
        frames: of all frames of the clip.
        identity, identity_right: what priors add to the equations of the identity.
    """
    count, poses = frames.pose_right.shape
    right = torch.cat((frames.pose_identity, (frames.pose_right + band.right)[..., None]), -1).flatten(0, 1)
    # The band is factorised by LAPACK, which runs on the CPU.
    stored = _banded(frames.pose.cpu(), band.lags.cpu())
    try:
        found = scipy.linalg.solveh_banded(
            stored.numpy(), right.cpu().numpy(), lower=True, overwrite_ab=True, overwrite_b=True
        )
    except (scipy.linalg.LinAlgError, ValueError):
        return None
    solved = torch.from_numpy(found).to(right)
    by_identity, pose_step = solved[:, :-1], solved[:, -1]
    cross = frames.pose_identity.flatten(0, 1)
    matrix = _damped(frames.identity + identity) - cross.mT @ by_identity
    rest = frames.identity_right + identity_right - cross.mT @ pose_step
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if bool(failed):
        return None
    identity_step = torch.cholesky_solve(rest[:, None], factor)[:, 0]
    pose = (pose_step - by_identity @ identity_step).view(count, poses)
    return Step(code=frames.codes(pose, identity_step), pose=pose, identity=identity_step)


def _banded(
    blocks: Float[Tensor, "frames pose pose"], lags: Float[Tensor, "lags frames pose"]
) -> Float[Tensor, "diagonals unknowns"]:
    """The lower band of a matrix of full blocks on the diagonal and diagonal blocks below, as LAPACK stores it."""
    frames, poses, _ = blocks.shape
    stored = blocks.new_zeros(max(poses, (len(lags) - 1) * poses + 1), frames * poses)
    for column in range(poses):
        stored[: poses - column, column::poses] = blocks[:, column:, column].mT
    stored[::poses][: len(lags)] += lags.flatten(1)
    return stored


def _damped(matrix: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    return matrix + torch.diag_embed(RELATIVE_DAMPING * diagonal + ABSOLUTE_DAMPING)
