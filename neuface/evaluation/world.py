"""A fit before calibrated cameras in world coordinates, and how well its views agree there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from neuface.evaluation.common_heads import common_heads
from neuface.evaluation.figures import finite_or_none, vertices_in_chunks
from neuface.fitting.calibrated import (
    HeadsInWorld,
    face_middles,
    fitted_views,
    heads_in_world,
    view_weights,
)
from neuface.fitting.problem import at_every_time
from neuface.geometry.interpolation import interpolate_missing
from neuface.geometry.perspective import PerspectiveCamera
from neuface.geometry.rotations import (
    continuous_signs,
    quaternion_to_rotvec,
    rotmat_to_rotvec,
    rotvec_to_quaternion,
    rotvec_to_rotmat,
)
from neuface.head.model import HeadModel
from neuface.head.pieces import MESHES_PER_CHUNK
from neuface.structs import HeadParams, Prediction, TensorStruct, Track

MM_PER_M = 1000


@dataclass(frozen=True, kw_only=True)
class WorldResult(TensorStruct):
    """One head per frame in world coordinates: `x_world = scale * rotation @ x_head + translation`, metres."""

    params: HeadParams
    """What the views agree on, batch axis `time`: one identity, one expression per frame; the root rotation is zero,
    because `rotvec` says how the head is turned."""
    rotvec: Float[Tensor, "time 3"]
    """The unposed head's axes to world axes, radians."""
    translation: Float[Tensor, "time 3"]
    """The head frame's origin in world axes, metres."""
    scale: Float[Tensor, ""]
    """True size of the head over that of the fitted head model, which landmarks alone do not determine."""
    seen: Bool[Tensor, " time"]
    """Whether a camera saw the face; other frames are interpolated."""
    cameras: PerspectiveCamera
    """One batch axis, the views; frame pixels."""
    metric: bool
    """Whether the calibration determines the metres, for which two cameras must see the face; otherwise they are
    those in which the fitted head model has its own size, `scale` is 1, and the cameras' translations fit to that."""

    def vertices(self, head: HeadModel) -> Float[Tensor, "time vertices 3"]:
        """The meshes in world axes, metres."""
        unposed = vertices_in_chunks(head, self.params[None])[0]
        return self.scale * unposed @ rotvec_to_rotmat(self.rotvec).mT + self.translation[:, None]

    def project(self, head: HeadModel) -> Float[Tensor, "views time vertices 2"]:
        """Where the calibrated cameras see the meshes, frame pixels, lens distortion included."""
        vertices = self.vertices(head)
        return torch.stack([
            camera.project(vertices.flatten(0, 1)).unflatten(0, vertices.shape[:2])
            for camera in (self.cameras[view] for view in range(len(self.cameras.K)))
        ])  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ViewAgreement:
    """How far apart the views of a fit put the head; medians over frames, None where no two views saw it."""

    rotation_deg: float | None
    """Mean angle between the rotations of two views."""
    position_mm: float | None
    """Mean distance between the middles of the face of two views."""
    mesh_mm: float | None
    """Mean distance between the vertices of two views."""


def world_result(
    head: HeadModel,
    prediction: Prediction,
    landmarks: Track,
    cameras: PerspectiveCamera,
    *,
    metric: bool,
    starts: tuple[int, ...] = (0,),
) -> WorldResult:
    """The head in the world from a fit and the calibration of its cameras.

    Args:
        prediction: batch axes `views time`, frame pixels.
        landmarks: those that were fitted.
        cameras: one batch axis, the views.
        metric: whether their unit is the metre.
        starts: the first frames of the shots; nothing is interpolated across a cut.
    """
    params = common_heads(prediction.params, landmarks.usable).unposed()
    found = _in_world(head, prediction, landmarks, cameras)
    pose, seen = found.agreed, found.agreed.position.isfinite().all(-1)
    quaternion = torch.zeros(len(seen), 4).to(pose.position)
    quaternion[seen] = continuous_signs(rotvec_to_quaternion(rotmat_to_rotvec(pose.rotation[seen])))
    quaternion = interpolate_missing(quaternion[None], seen[None], starts)[0]
    # A shot in which no camera saw the face stays at rest at the origin.
    quaternion[..., 3] += (quaternion == 0).all(-1)
    position = torch.where(seen[:, None], pose.position, 0.0)
    position = interpolate_missing(position[None], seen[None], starts)[0]
    rotvec = quaternion_to_rotvec(normalize(quaternion, dim=-1))
    metric = metric and found.size_known
    if not metric:
        cameras = replace(cameras, translation=cameras.translation / found.size)
        position = position / found.size
    scale = found.size if metric else torch.ones_like(found.size)
    middle = face_middles(head, params, landmarks.scheme).to(position)
    turned = (rotvec_to_rotmat(rotvec) @ middle[..., None])[..., 0]
    dtype = prediction.params.root_rotvec.dtype
    return WorldResult(
        params=params,
        rotvec=rotvec.to(dtype),
        translation=(position - scale * turned).to(dtype),
        scale=scale.to(dtype),
        seen=seen,
        cameras=cameras.to(dtype),
        metric=metric,
    )


def view_agreement(
    head: HeadModel,
    prediction: Prediction,
    landmarks: Track,
    cameras: PerspectiveCamera,
    *,
    metric: bool,
) -> ViewAgreement:
    """How far apart the views of a fit put the head, each by its own rotation, position and size in the image.

    Args:
        prediction, landmarks, cameras, metric: as for `world_result`; lengths are in its metres.
    """
    found = _in_world(head, prediction, landmarks, cameras)
    valid, middle = landmarks.usable, face_middles(head, prediction.params.unposed(), landmarks.scheme)
    rotation, position = found.of_views.rotation, found.of_views.position
    pairs = list(combinations(range(len(valid)), 2))
    per_mm = MM_PER_M if metric else MM_PER_M / float(found.size)
    angles, apart, meshes = [], [], []
    for first, second in pairs:
        both = valid[first] & valid[second]
        cosine = ((rotation[first] * rotation[second]).sum((-1, -2)) - 1) / 2
        angles.append(_where(both, cosine.clamp(-1, 1).acos().rad2deg()))
        apart.append(_where(both, per_mm * (position[first] - position[second]).norm(dim=-1)))
        meshes.append(_where(both, torch.zeros_like(cosine)))
    for start in range(0, valid.shape[1], MESHES_PER_CHUNK):
        part = slice(start, start + MESHES_PER_CHUNK)
        placed = [
            _placed(head, prediction.params[view, part].unposed(), middle[view, part], found, view, part)
            for view in range(len(valid))
        ]
        for row, (first, second) in zip(meshes, pairs, strict=True):
            row[part] += per_mm * (placed[first] - placed[second]).norm(dim=-1).mean(-1)
    return ViewAgreement(
        rotation_deg=_median_over_frames(angles),
        position_mm=_median_over_frames(apart),
        mesh_mm=_median_over_frames(meshes),
    )


def _in_world(
    head: HeadModel, prediction: Prediction, landmarks: Track, cameras: PerspectiveCamera
) -> HeadsInWorld:
    seen = fitted_views(prediction, face_middles(head, prediction.params, landmarks.scheme))
    weight = view_weights(landmarks.confidence, landmarks.usable)
    return heads_in_world(at_every_time(cameras, landmarks.usable.shape[1]), seen, weight)


def _placed(
    head: HeadModel,
    unposed: HeadParams,
    middle: Float[Tensor, "time 3"],
    found: HeadsInWorld,
    view: int,
    part: slice,
) -> Float[Tensor, "time vertices 3"]:
    """One view's meshes where it puts them, units of the world."""
    from_middle = (head.vertices(unposed) - middle[:, None]).to(found.size)
    pose = found.of_views[view, part]
    return found.size * from_middle @ pose.rotation.mT + pose.position[:, None]


def _where(both: Bool[Tensor, " time"], values: Float[Tensor, " time"]) -> Float[Tensor, " time"]:
    return torch.where(both, values, torch.nan)


def _median_over_frames(pairs: list[Tensor]) -> float | None:
    """Median over the frames of the mean over the pairs of views that both saw the face."""
    return finite_or_none(torch.stack(pairs).nanmean(0).nanmedian()) if pairs else None
