"""A linear head model with FLAME's structure: blend shapes, joints, linear blend skinning, landmarks.

A head model is data. One forward pass serves the open head and any other model of the same form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuface.errors import InputError
from neuface.geometry.rotations import rotvec_to_rotmat
from neuface.hashing import tensors_hash
from neuface.structs import HeadParams

JOINT_NAMES = ("root", "neck", "jaw", "left_eye", "right_eye")

ContourAngle = Literal["forward_azimuth", "lateral_depth"]
"""The angle of the head's orientation that selects the row of a sliding contour: see `contour_angle_rad`."""


@dataclass(frozen=True, kw_only=True)
class LandmarkEmbedding:
    """Landmarks as points on triangles of the template: a triangle and barycentric weights for each.

    The first landmarks may slide with the head's yaw, because annotators and detectors of the iBUG-68 scheme follow
    the visible outline rather than the anatomical jaw line. In the open head all of MediaPipe's landmarks slide,
    those of the hidden part of the contour most: their rows are the points at which that detector sees them on
    rendered heads of known pose.
    """

    triangles: Int[Tensor, " points"]
    barycentric: Float[Tensor, "points 3"]
    contour_yaw_rad: Float[Tensor, " rows"]
    """Ascending yaw of each row of sliding points; empty for a static scheme."""
    contour_triangles: Int[Tensor, "rows contour"]
    contour_barycentric: Float[Tensor, "rows contour 3"]
    contour_angle: ContourAngle = "forward_azimuth"
    mesh_points: Int[Tensor, " points"] | None = None
    """Indices of these points in the detector's order, if the embedding has only a subset of its points."""

    def to(self, *args: Any, **kwargs: Any) -> LandmarkEmbedding:
        return _move_tensors(self, *args, **kwargs)


@dataclass(frozen=True, kw_only=True)
class HeadModel:
    """Template, bases, joints, skinning weights, topology and landmark embeddings; metres throughout.

    The head frame has x to the subject's left, y up, z out of the face. Joints are JOINT_NAMES in order.
    """

    name: str
    template: Float[Tensor, "vertices 3"]
    identity_basis: Float[Tensor, "vertices 3 identity"]
    """Displacement in metres per standard deviation of the population."""
    expression_basis: Float[Tensor, "vertices 3 expression"]
    joint_template: Float[Tensor, "joints 3"]
    joint_identity_basis: Float[Tensor, "joints 3 identity"]
    joint_expression_basis: Float[Tensor, "joints 3 expression"]
    skinning_weights: Float[Tensor, "vertices joints"]
    parents: tuple[int, ...]
    """Parent of each joint, -1 for the root."""
    faces: Int[Tensor, "faces 3"]
    """Counter-clockwise seen from outside."""
    uv: Float[Tensor, "texture_vertices 2"]
    """0..1 from the picture's lower left corner; no rows in a head without texture coordinates."""
    uv_faces: Int[Tensor, "textured_faces 3"]
    """Rows of `uv` for the corners of every face; no rows in a head without texture coordinates."""
    expression_names: tuple[str, ...]
    regions: Mapping[str, Bool[Tensor, " vertices"]]
    embeddings: Mapping[str, LandmarkEmbedding]
    pose_basis: Float[Tensor, "vertices 3 pose"] | None = None
    """Pose correctives: displacement in metres for every entry of R - 1 of all joints but the root, row by row. It is
    added before skinning."""
    posed_basis: Float[Tensor, "vertices 3 posed"] | None = None
    """Displacement in metres for the last coefficients of the expression code, which follow those of
    `expression_basis`. It is added after skinning and does not rotate with the head, as in SMIRK's code for its
    eyelid offsets."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Regions and landmark schemes that this head lacks and others of its kind have, each with how to obtain it."""
    _landmark_rows: dict[str, _Rows] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def num_vertices(self) -> int:
        return self.template.shape[0]

    @property
    def num_identity(self) -> int:
        return self.identity_basis.shape[-1]

    @property
    def num_expression(self) -> int:
        """Coefficients of `expression_basis` and, behind them, of `posed_basis`."""
        return self.expression_basis.shape[-1] + (
            0 if self.posed_basis is None else self.posed_basis.shape[-1]
        )

    def to(self, *args: Any, **kwargs: Any) -> HeadModel:
        """A copy moved as `Tensor.to` would; integer and boolean tensors keep their dtype."""
        return replace(
            _move_tensors(self, *args, **kwargs),
            regions={name: _move(mask, *args, **kwargs) for name, mask in self.regions.items()},
            embeddings={name: item.to(*args, **kwargs) for name, item in self.embeddings.items()},
        )

    def neutral(self, *batch: int) -> HeadParams:
        """The mean head, unposed and without expression, for the given batch sizes."""
        return HeadParams(
            identity=self.template.new_zeros(*batch, self.num_identity),
            expression=self.template.new_zeros(*batch, self.num_expression),
            root_rotvec=self.template.new_zeros(*batch, 3),
            neck_rotvec=self.template.new_zeros(*batch, 3),
            jaw_rotvec=self.template.new_zeros(*batch, 3),
            eyes_rotvec=self.template.new_zeros(*batch, 2, 3),
        )

    def vertices(self, params: HeadParams) -> Float[Tensor, "*batch vertices 3"]:
        """Posed vertices, metres: blend shapes and linear blend skinning, as in FLAME (Li et al. 2017, Eq. 2-5).

        Raises InputError if the codes are longer than the model's bases; shorter codes are padded with zeros.
        """
        return self._posed(params, self._all_rows)

    def joints(self, params: HeadParams) -> Float[Tensor, "*batch joints 3"]:
        """Rest positions of the joints for this identity and expression, metres."""
        identity, expression, _ = self._codes(params)
        return (
            self.joint_template
            + einsum(self.joint_identity_basis, identity, "j c i, ... i -> ... j c")
            + einsum(self.joint_expression_basis, expression, "j c e, ... e -> ... j c")
        )

    def landmarks(
        self, params: HeadParams, scheme: str, *, facing: HeadParams | None = None
    ) -> Float[Tensor, "*batch points 3"]:
        """3D landmarks of a scheme, metres; only the vertices they need are computed.

        Sliding landmarks depend on the head's orientation towards the camera (root and neck rotation). With `facing`
        they depend on the orientation of those heads instead, so that the same points of the surface can be followed
        while the head turns.
        Raises InputError for a scheme that this head has no embedding for.
        """
        subset = self._rows_of_landmarks(scheme)
        vertices = self._posed(params, subset)
        points = _barycentric_points(vertices, subset.corners, subset.barycentric)
        embedding = self.embeddings[scheme]
        if embedding.contour_yaw_rad.numel() == 0:
            return points
        row = contour_row(embedding, params if facing is None else facing)
        contour = _sliding_points(vertices, subset.contour_corners[row], embedding.contour_barycentric[row])
        return torch.cat((contour, points[..., contour.shape[-2] :, :]), dim=-2)

    def landmark_derivatives(self, params: HeadParams, scheme: str) -> Float[Tensor, "images points 3 code"]:
        """Derivative of unposed landmarks by the identity code and, behind it, the expression code, metres per unit.

        Landmarks are linear in both codes, so only the rotations of the other joints matter, and for sliding
        landmarks the head's orientation, which selects the points of the surface.

        Args:
            params: one batch axis.
        """
        subset, embedding = self._rows_of_landmarks(scheme), self.embeddings[scheme]
        count, behind = len(params.root_rotvec), embedding.contour_triangles.shape[1]
        corners = subset.corners[behind:].expand(count, -1, -1)
        weights = subset.barycentric[behind:].expand(count, -1, -1)
        if embedding.contour_yaw_rad.numel() > 0:
            row = contour_row(embedding, params)
            corners = torch.cat((subset.contour_corners[row], corners), 1)
            weights = torch.cat((embedding.contour_barycentric[row], weights), 1)
        codes = self.num_identity + self.expression_basis.shape[-1]
        basis = subset.basis[:, :codes].unflatten(0, (-1, 3))
        local = self._local_rotations(params.unposed())
        if bool((local == torch.eye(3).to(local)).all()):
            derivatives = einsum(weights, basis[corners], "b p k, b p k x m -> b p x m")
        else:
            derivatives = self._skinned_derivatives(
                local, basis[corners], subset.skinning_weights[corners], weights
            )
        if subset.posed_basis is None:
            return derivatives
        posed = subset.posed_basis.unflatten(0, (-1, 3))[corners]
        return torch.cat((derivatives, einsum(weights, posed, "b p k, b p k x m -> b p x m")), -1)

    def region(self, name: str) -> Bool[Tensor, " vertices"]:
        """The vertices of a named region. Raises InputError if there is none, with how to obtain it where known."""
        if name not in self.regions:
            raise InputError(
                f"head model {self.name!r} has no region {name!r}; {self._available(name, self.regions)}"
            )
        return self.regions[name]

    def log_size(self, identity: Float[Tensor, "*batch identity"]) -> Float[Tensor, "*batch"]:
        """Logarithm of the face's size relative to the template's, to first order in the identity code.

        Size is the root mean square distance of the face's vertices (all vertices, if the model names no face) from
        their centroid.
        """
        code = torch.nn.functional.pad(identity, (0, self.num_identity - identity.shape[-1]))
        return code @ self._log_size_gradient

    def content_hash(self) -> str:
        """SHA-256 over every number of the model; parameters are interchangeable between models of equal hash."""
        also = repr((self.name, self.parents, self.expression_names))
        for scheme, embedding in sorted(self.embeddings.items()):
            if embedding.contour_angle != "forward_azimuth":
                also += repr((scheme, embedding.contour_angle))
        return tensors_hash(self.named_tensors(), also.encode())

    def parameter_hash(self) -> str:
        """SHA-256 over what gives parameters their meaning: shape, bases, joints, skinning and triangles.

        Unlike `content_hash`, it does not depend on the name, the regions, the texture coordinates or the landmarks.
        A licensed model therefore has one such hash, whichever of its companion files were found.
        """
        shape = {
            name: tensor
            for name, tensor in self.named_tensors().items()
            if "." not in name and name not in ("uv", "uv_faces")
        }
        return tensors_hash(shape, repr(self.parents).encode())

    def named_tensors(self) -> dict[str, Tensor]:
        """Every tensor under a flat name: the form in which a model is stored and hashed."""
        named = {item.name: getattr(self, item.name) for item in fields(self)}
        tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
        tensors |= {f"region.{name}": mask for name, mask in self.regions.items()}
        for scheme, embedding in self.embeddings.items():
            parts = {item.name: getattr(embedding, item.name) for item in fields(embedding)}
            found = {name: part for name, part in parts.items() if isinstance(part, Tensor)}
            tensors |= {f"embedding.{scheme}.{name}": part for name, part in found.items()}
        return tensors

    def _codes(self, params: HeadParams) -> tuple[Tensor, Tensor, Tensor]:
        """Identity, the part of the expression that acts before skinning, and the part that acts after it."""
        codes = []
        for label, code, size in (
            ("identity", params.identity, self.num_identity),
            ("expression", params.expression, self.num_expression),
        ):
            if code.shape[-1] > size:
                raise InputError(
                    f"{label} has {code.shape[-1]} coefficients but head model {self.name!r} has {size}; "
                    "these parameters belong to another head model"
                )
            codes.append(torch.nn.functional.pad(code, (0, size - code.shape[-1])))
        shaping = self.expression_basis.shape[-1]
        return codes[0], codes[1][..., :shaping], codes[1][..., shaping:]

    @cached_property
    def _all_rows(self) -> _Rows:
        with torch.inference_mode(False):
            return _Rows(self, slice(None))

    @cached_property
    def _log_size_gradient(self) -> Float[Tensor, " identity"]:
        """Derivative of the logarithm of the face's size by the identity code, at the template."""
        with torch.inference_mode(False):
            face = self.regions.get("face", torch.ones_like(self.template[:, 0], dtype=torch.bool))
            centred = self.template[face] - self.template[face].mean(0)
            gradient = einsum(centred, self.identity_basis[face], "v c, v c i -> i")
            return gradient / centred.square().sum()

    def _posed(self, params: HeadParams, subset: _Rows) -> Float[Tensor, "*batch subset 3"]:
        identity, expression, posed = self._codes(params)
        local = self._local_rotations(params)
        parts = [identity, expression]
        if self.pose_basis is not None:
            behind_root = local[..., 1:, :, :]
            parts.append((behind_root - torch.eye(3).to(behind_root)).flatten(-3))
        # A single matrix product with all bases computes the blend shapes.
        shaped = subset.template + (torch.cat(parts, dim=-1) @ subset.basis.mT).unflatten(-1, (-1, 3))
        rotation, translation = self._joint_transforms(local, self.joints(params))
        moved = einsum(subset.skinning_weights, rotation.flatten(-2), "v j, ... j r -> ... v r")
        moved = moved.unflatten(-1, (3, 3))
        shift = einsum(subset.skinning_weights, translation, "v j, ... j c -> ... v c")
        vertices = (moved @ shaped[..., None])[..., 0] + shift
        if subset.posed_basis is not None:
            vertices = vertices + (posed @ subset.posed_basis.mT).unflatten(-1, (-1, 3))
        return vertices

    def _skinned_derivatives(
        self,
        local: Float[Tensor, "images joints 3 3"],
        basis: Float[Tensor, "images points 3 3 code"],
        skinning: Float[Tensor, "images points 3 joints"],
        weights: Float[Tensor, "images points 3"],
    ) -> Float[Tensor, "images points 3 code"]:
        """Derivatives of points on triangles of heads whose joints are turned; `basis` and `skinning` at the corners.

        A code moves the corners, which turn with their joints, and the joints, about which they turn.
        """
        by_joints = torch.cat((self.joint_identity_basis, self.joint_expression_basis), -1).movedim(-1, 0)
        images, codes = len(local), len(by_joints)
        rotation, translation = self._joint_transforms(
            local[:, None].expand(-1, codes, -1, -1, -1), by_joints.expand(images, -1, -1, -1)
        )
        turned = einsum(skinning, rotation[:, 0], "b p k j, b j x y -> b p k x y")
        at_corners = einsum(weights, turned, "b p k, b p k x y -> b p k x y")
        share = einsum(weights, skinning, "b p k, b p k j -> b p j")
        moved = einsum(at_corners, basis, "b p k x y, b p k y m -> b p x m")
        return moved + einsum(share, translation, "b p j, b m j x -> b p x m")

    @staticmethod
    def _local_rotations(params: HeadParams) -> Float[Tensor, "*batch joints 3 3"]:
        rotvec = torch.stack(
            (params.root_rotvec, params.neck_rotvec, params.jaw_rotvec, *params.eyes_rotvec.unbind(-2)), -2
        )
        return rotvec_to_rotmat(rotvec)

    def _joint_transforms(
        self, local: Float[Tensor, "*batch joints 3 3"], joints: Float[Tensor, "*batch joints 3"]
    ) -> tuple[Tensor, Tensor]:
        """Rotation and translation of each joint that map points of the rest pose to the posed head."""
        rotations: list[Tensor] = []
        translations: list[Tensor] = []
        for joint, parent in enumerate(self.parents):
            rotation, pivot = local[..., joint, :, :], joints[..., joint, :]
            # Rotation about the pivot: x -> R (x - pivot) + pivot.
            shift = pivot - (rotation @ pivot[..., None])[..., 0]
            if parent >= 0:
                shift = (rotations[parent] @ shift[..., None])[..., 0] + translations[parent]
                rotation = rotations[parent] @ rotation
            rotations.append(rotation)
            translations.append(shift)
        return torch.stack(rotations, -3), torch.stack(translations, -2)

    def _available(self, name: str, found: Mapping[str, Any]) -> str:
        """The end of an error message: what the head has, and how to obtain what it lacks."""
        listed = f"it has {', '.join(sorted(found)) or 'none'}"
        return f"{listed}. {self.absent[name]}" if name in self.absent else listed

    def _rows_of_landmarks(self, scheme: str) -> _Rows:
        if scheme not in self.embeddings:
            raise InputError(
                f"head model {self.name!r} has no landmark embedding {scheme!r}; "
                f"{self._available(scheme, self.embeddings)}"
            )
        if scheme not in self._landmark_rows:
            # Tensors created in inference mode cannot take part in a later fit's gradients.
            with torch.inference_mode(False):
                self._landmark_rows[scheme] = self._rows_of(self.embeddings[scheme])
        return self._landmark_rows[scheme]

    def _rows_of(self, embedding: LandmarkEmbedding) -> _Rows:
        corners = self.faces[embedding.triangles]
        contour_corners = self.faces[embedding.contour_triangles]
        used, index = torch.unique(
            torch.cat((corners.flatten(), contour_corners.flatten())), return_inverse=True
        )
        return _Rows(
            self,
            used,
            corners=index[: corners.numel()].view_as(corners),
            contour_corners=index[corners.numel() :].view_as(contour_corners),
            barycentric=embedding.barycentric,
        )


class _Rows:
    """The rows of a model for a subset of its vertices; all bases that act before skinning form one matrix."""

    def __init__(
        self,
        head: HeadModel,
        rows: Tensor | slice,
        *,
        corners: Tensor | None = None,
        contour_corners: Tensor | None = None,
        barycentric: Tensor | None = None,
    ) -> None:
        empty = head.template.new_zeros(0)
        bases = (head.identity_basis, head.expression_basis, head.pose_basis)
        self.template = head.template[rows]
        self.basis = torch.cat([basis[rows] for basis in bases if basis is not None], dim=-1).flatten(0, 1)
        self.skinning_weights = head.skinning_weights[rows]
        self.posed_basis = None if head.posed_basis is None else head.posed_basis[rows].flatten(0, 1)
        self.corners = corners if corners is not None else empty
        self.contour_corners = contour_corners if contour_corners is not None else empty
        self.barycentric = barycentric if barycentric is not None else empty


def contour_angle_rad(params: HeadParams, angle: ContourAngle) -> Float[Tensor, "*batch"]:
    """The angle of a head's orientation that selects the row of a sliding contour, radians.

    The orientation is the product of root and neck rotation, R.

    Convention:
        `forward_azimuth`: azimuth of the face's forward axis, positive to the subject's left, seen from above:
            atan2(R[0, 2], R[2, 2]).
        `lateral_depth`: angle by which the axis to the subject's left points away from the camera, within a quarter
            turn: atan2(-R[2, 0], hypot(R[0, 0], R[1, 0])), as in DECA, EMOCA and SMIRK.
        Both are 0.5 for a head that is rotated by 0.5 about y. They differ if the head also nods.
    """
    if angle == "forward_azimuth":
        return facing_yaw_rad(params)
    turn = rotvec_to_rotmat(params.root_rotvec) @ rotvec_to_rotmat(params.neck_rotvec)
    left = turn[..., :, 0]
    return torch.atan2(-left[..., 2], torch.hypot(left[..., 0], left[..., 1]))


def contour_row(embedding: LandmarkEmbedding, params: HeadParams) -> Int[Tensor, "*batch"]:
    """The row of an embedding's sliding contour for each head: the one whose yaw is nearest.

    `lateral_depth` is first rounded to whole degrees, with halves to the even number, as in the authors' code.
    """
    angle = contour_angle_rad(params, embedding.contour_angle)
    if embedding.contour_angle == "lateral_depth":
        angle = angle.rad2deg().round().deg2rad()
    return nearest_row(embedding.contour_yaw_rad, angle)


def facing_yaw_rad(params: HeadParams) -> Float[Tensor, "*batch"]:
    """Yaw of the face, radians: positive if it is turned to the subject's left."""
    turn = rotvec_to_rotmat(params.root_rotvec) @ rotvec_to_rotmat(params.neck_rotvec)
    forward = turn[..., :, 2]
    return torch.atan2(forward[..., 0], forward[..., 2])


def nearest_row(rows: Float[Tensor, " rows"], value: Float[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
    """Index of the row nearest to each value; values beyond the ends take the end row.

    Example:
        >>> nearest_row(torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([0.2, 5.0]))
        tensor([1, 2])
    """
    return (value.detach()[..., None] - rows).abs().argmin(-1)


def _barycentric_points(vertices: Tensor, corners: Tensor, barycentric: Tensor) -> Tensor:
    return (vertices[..., corners, :] * barycentric[..., None]).sum(-2)


def _sliding_points(vertices: Tensor, corners: Tensor, barycentric: Tensor) -> Tensor:
    """Like `_barycentric_points` with corners (*batch points 3) that differ from item to item."""
    index = corners.flatten(-2)[..., None].expand(*corners.shape[:-2], -1, 3)
    picked = vertices.gather(-2, index).unflatten(-2, corners.shape[-2:])
    return (picked * barycentric[..., None]).sum(-2)


def _move(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    moved = tensor.to(*args, **kwargs)
    return moved if tensor.is_floating_point() else moved.to(tensor.dtype)


def _move_tensors(item: Any, *args: Any, **kwargs: Any) -> Any:
    changed = {
        part.name: _move(getattr(item, part.name), *args, **kwargs)
        for part in fields(item)
        if part.init and isinstance(getattr(item, part.name), Tensor)
    }
    return replace(item, **changed)
