"""The E-step: smooth head orientations over time, and one merged mesh per time from all views.

Everything here is computed without gradient from the whole clip (paper, Sec. 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuface.fitting.config import FitConfig
from neuface.geometry.meshes import vertex_normals
from neuface.geometry.rotations import rotvec_to_quaternion
from neuface.geometry.smoothing import smooth_quaternions
from neuface.head.model import HeadModel
from neuface.structs import HeadParams, TensorStruct

# How many meshes are decoded at once; bounds the memory of the E-step on long clips.
MESHES_PER_CHUNK = 64


@dataclass(frozen=True, kw_only=True)
class Targets(TensorStruct):
    """What the M-step is pulled towards."""

    quaternion: Float[Tensor, "views time 4"]
    """Smoothed head orientation of every view."""
    vertices: Float[Tensor, "merged vertices 3"]
    """The merged unposed mesh; no rows when there is a single view, which has nothing to agree with."""
    identity: Float[Tensor, "identity"]
    """The identity code that is expected before looking at landmarks."""


@torch.no_grad()
def estimate_targets(
    head: HeadModel,
    params: HeadParams,
    valid: Bool[Tensor, "views time"],
    config: FitConfig,
    expected_identity: Float[Tensor, "identity"] | None = None,
) -> Targets:
    """One E-step over the whole clip.

    Args:
        params: the encoder's answers, batch axes `views time`.
        valid: frames with landmarks; a frame without them has no say in the merged mesh if another view has.
        expected_identity: the target of the identity prior; None is the population's mean.
    """
    quaternion = smooth_quaternions(rotvec_to_quaternion(params.root_rotvec), config.temporal_window)
    views, time = valid.shape
    if views == 1 or config.multiview_weight == 0:
        vertices = head.template.new_zeros((0, head.num_vertices, 3))
    else:
        chunk = max(1, MESHES_PER_CHUNK // views)
        pieces = [
            _merge_piece(head, params[:, start : start + chunk], valid[:, start : start + chunk], config)
            for start in range(0, time, chunk)
        ]
        vertices = torch.cat(pieces)
    expected = torch.zeros_like(params.identity[0, 0]) if expected_identity is None else expected_identity
    return Targets(quaternion=quaternion, vertices=vertices, identity=expected)


def _merge_piece(
    head: HeadModel, params: HeadParams, valid: Bool[Tensor, "views time"], config: FitConfig
) -> Float[Tensor, "time vertices 3"]:
    posed = head.vertices(params)
    confidence = vertex_confidence(posed, head.faces, config.visible_angle_deg, config.visible_depth_m)
    return merge_views(head.vertices(params.unposed()), confidence, valid)


def vertex_confidence(
    posed: Float[Tensor, "*batch vertices 3"],
    faces: Int[Tensor, "faces 3"],
    visible_angle_deg: float,
    visible_depth_m: float,
) -> Float[Tensor, "*batch vertices"]:
    """How well a camera sees each vertex: the cosine between its normal and the ray to the camera, or 0.

    0 if the angle exceeds `visible_angle_deg` or the vertex lies deeper than `visible_depth_m`, measured along
    the camera's axis from the mean of the mesh's vertices. The paper joins the two tests by "and"; here
    either one hides a vertex, as in the authors' released code. Its depth of -0.08 m refers to FLAME's origin,
    for which the mean of the vertices stands in, because head models differ in their origin.
    """
    cosine = vertex_normals(posed, faces)[..., 2]
    depth = posed[..., 2] - posed[..., 2].mean(-1, keepdim=True)
    limit = torch.cos(torch.deg2rad(cosine.new_tensor(visible_angle_deg)))
    return torch.where((cosine >= limit) & (depth >= visible_depth_m), cosine, torch.zeros_like(cosine))


def merge_views(
    vertices: Float[Tensor, "views time vertices 3"],
    confidence: Float[Tensor, "views time vertices"],
    valid: Bool[Tensor, "views time"],
) -> Float[Tensor, "time vertices 3"]:
    """Confidence-weighted mean of the views' unposed meshes.

    A vertex that no valid view sees gets the plain mean of the valid views; at a time without a valid view, every
    vertex gets the plain mean of all.
    """
    say = torch.where(valid.any(0), valid, True).to(confidence.dtype)[..., None]
    seen = confidence * valid[..., None]
    total = seen.sum(0)
    weights = torch.where(total > 0, seen / total.clamp(min=1e-12), say / say.sum(0))
    return einsum(weights, vertices, "views time v, views time v c -> time v c")
