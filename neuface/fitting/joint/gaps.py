"""Heads in gaps without landmarks that no piece of a clip was solved with."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from neuface.fitting.problem import Problem
from neuface.geometry.interpolation import interpolate_missing
from neuface.geometry.rotations import continuous_signs, quaternion_to_rotvec, rotvec_to_quaternion
from neuface.losses import log_scale
from neuface.structs import Prediction

__all__ = ["through_gaps"]


def through_gaps(
    prediction: Prediction, unsolved: Bool[Tensor, " time"], problem: Problem, starts: tuple[int, ...]
) -> Prediction:
    """The predictions with motion interpolated through unsolved frames, as the E-step does it for short gaps.

    Args:
        prediction: of the whole clip, batch axes `views time`.
        unsolved: frames without landmarks in any view; what is predicted for them is replaced. All others are solved
            in every view, whether it sees the face there or not, so that views keep sharing their expressions.
        starts: first frames of the shots, across which nothing is interpolated. A shot of which nothing is solved
            keeps its predictions.
    """
    known = (~unsolved).expand_as(problem.valid)
    params, camera = prediction.params, prediction.camera

    def through(values: Float[Tensor, "views time c"]) -> Float[Tensor, "views time c"]:
        return torch.where(unsolved[:, None], interpolate_missing(values, known, starts), values)

    def turned(rotvec: Float[Tensor, "views time 3"]) -> Float[Tensor, "views time 3"]:
        quaternion = through(continuous_signs(rotvec_to_quaternion(rotvec)))
        return torch.where(unsolved[:, None], quaternion_to_rotvec(normalize(quaternion, dim=-1)), rotvec)

    # Crops move and change their size, the face is where it is in the frame.
    per_px, centre_px = problem.ndc_per_frame_px[..., None], problem.centre_px
    position = (through(centre_px + camera.position / per_px) - centre_px) * per_px
    log_size = through(log_scale(camera.magnification)[..., None] - per_px.log()) + per_px.log()
    magnification = log_size[..., 0].exp()
    return Prediction(
        params=replace(
            params,
            expression=through(params.expression),
            root_rotvec=turned(params.root_rotvec),
            jaw_rotvec=turned(params.jaw_rotvec),
        ),
        camera=camera.placed(
            torch.where(unsolved[:, None], position, camera.position),
            torch.where(unsolved, magnification, camera.magnification),
        ),
    )
