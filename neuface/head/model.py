"""A linear head model with FLAME's structure: blend shapes, joints, linear blend skinning, landmarks.

A head model is data. One forward pass serves the open head and any other model of the same form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import roma
import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuface.errors import InputError
from neuface.structs import HeadParams

JOINT_NAMES = ("root", "neck", "jaw", "left_eye", "right_eye")


@dataclass(frozen=True, kw_only=True)
class LandmarkEmbedding:
    """Landmarks as points on triangles of the template: a triangle and barycentric weights each.

    The first `contour_points` landmarks may slide with the head's yaw, as annotators and detectors of the
    iBUG-68 scheme follow the visible outline rather than the anatomical jaw line.
    """

    triangles: Int[Tensor, "points"]
    barycentric: Float[Tensor, "points 3"]
    contour_yaw_rad: Float[Tensor, "rows"]
    """Ascending yaw of each contour row; empty for a static scheme."""
    contour_triangles: Int[Tensor, "rows contour"]
    contour_barycentric: Float[Tensor, "rows contour 3"]

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
    uv_faces: Int[Tensor, "faces 3"]
    expression_names: tuple[str, ...]
    regions: Mapping[str, Bool[Tensor, "vertices"]]
    embeddings: Mapping[str, LandmarkEmbedding]
    _subsets: dict[str, _Subset] = field(default_factory=dict, init=False, repr=False, compare=False)
    _size_gradient: list[Tensor] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def num_vertices(self) -> int:
        return self.template.shape[0]

    @property
    def num_identity(self) -> int:
        return self.identity_basis.shape[-1]

    @property
    def num_expression(self) -> int:
        return self.expression_basis.shape[-1]

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
        """Posed vertices, metres.

        Raises InputError when the codes are longer than the model's bases; shorter codes mean zeros.
        """
        whole = _Subset(
            template=self.template,
            identity_basis=self.identity_basis,
            expression_basis=self.expression_basis,
            skinning_weights=self.skinning_weights,
        )
        return self._posed(params, whole)

    def joints(self, params: HeadParams) -> Float[Tensor, "*batch joints 3"]:
        """Rest positions of the joints for this identity and expression, metres."""
        identity, expression = self._codes(params)
        return (
            self.joint_template
            + einsum(self.joint_identity_basis, identity, "j c i, ... i -> ... j c")
            + einsum(self.joint_expression_basis, expression, "j c e, ... e -> ... j c")
        )

    def landmarks(self, params: HeadParams, scheme: str) -> Float[Tensor, "*batch points 3"]:
        """3D landmarks of a scheme, metres; only the vertices they need are computed.

        A yaw-dependent contour follows the head's orientation towards the camera (root and neck rotation).
        Raises InputError for a scheme this head has no embedding for.
        """
        subset = self._landmark_subset(scheme)
        vertices = self._posed(params, subset)
        points = _barycentric_points(vertices, subset.corners, subset.barycentric)
        embedding = self.embeddings[scheme]
        if embedding.contour_yaw_rad.numel() == 0:
            return points
        row = nearest_row(embedding.contour_yaw_rad, facing_yaw_rad(params))
        contour = _sliding_points(vertices, subset.contour_corners[row], embedding.contour_barycentric[row])
        return torch.cat((contour, points[..., contour.shape[-2] :, :]), dim=-2)

    def log_size(self, identity: Float[Tensor, "*batch identity"]) -> Float[Tensor, "*batch"]:
        """Logarithm of the face's size relative to the template's, to first order in the identity code.

        Size is the root mean square distance of the face's vertices (all vertices, if the model names no face) from
        their centroid.
        """
        if not self._size_gradient:
            face = self.regions.get("face", torch.ones_like(self.template[:, 0], dtype=torch.bool))
            centred = self.template[face] - self.template[face].mean(0)
            growth = einsum(centred, self.identity_basis[face], "v c, v c i -> i")
            self._size_gradient.append(growth / centred.square().sum())
        code = torch.nn.functional.pad(identity, (0, self.num_identity - identity.shape[-1]))
        return code @ self._size_gradient[0]

    def content_hash(self) -> str:
        """SHA-256 over every number of the model: equal hashes mean interchangeable parameters."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.named_tensors().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        digest.update(repr((self.name, self.parents, self.expression_names)).encode())
        return digest.hexdigest()

    def named_tensors(self) -> dict[str, Tensor]:
        """Every tensor under a flat name, the form in which a model is stored and hashed."""
        named = {item.name: getattr(self, item.name) for item in fields(self)}
        tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
        tensors |= {f"region.{name}": mask for name, mask in self.regions.items()}
        for scheme, embedding in self.embeddings.items():
            for item in fields(embedding):
                tensors[f"embedding.{scheme}.{item.name}"] = getattr(embedding, item.name)
        return tensors

    def _codes(self, params: HeadParams) -> tuple[Tensor, Tensor]:
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
        return codes[0], codes[1]

    def _posed(self, params: HeadParams, subset: _Subset) -> Float[Tensor, "*batch subset 3"]:
        identity, expression = self._codes(params)
        code = torch.cat((identity, expression), dim=-1)
        # One matrix product for both bases is the whole cost of the blend shapes.
        shaped = subset.template + (code @ subset.basis.mT).unflatten(-1, (-1, 3))
        rotation, translation = self._joint_transforms(params)
        moved = einsum(subset.skinning_weights, rotation.flatten(-2), "v j, ... j r -> ... v r")
        moved = moved.unflatten(-1, (3, 3))
        shift = einsum(subset.skinning_weights, translation, "v j, ... j c -> ... v c")
        return (moved @ shaped[..., None])[..., 0] + shift

    def _joint_transforms(self, params: HeadParams) -> tuple[Tensor, Tensor]:
        """Rotation and translation of each joint, as they act on points of the rest pose."""
        joints = self.joints(params)
        rotvec = torch.stack(
            (params.root_rotvec, params.neck_rotvec, params.jaw_rotvec, *params.eyes_rotvec.unbind(-2)), -2
        )
        local = roma.rotvec_to_rotmat(rotvec)
        rotations: list[Tensor] = []
        translations: list[Tensor] = []
        for joint, parent in enumerate(self.parents):
            turn, pivot = local[..., joint, :, :], joints[..., joint, :]
            # Turning about the pivot: x -> R (x - pivot) + pivot.
            shift = pivot - (turn @ pivot[..., None])[..., 0]
            if parent >= 0:
                shift = (rotations[parent] @ shift[..., None])[..., 0] + translations[parent]
                turn = rotations[parent] @ turn
            rotations.append(turn)
            translations.append(shift)
        return torch.stack(rotations, -3), torch.stack(translations, -2)

    def _landmark_subset(self, scheme: str) -> _Subset:
        if scheme not in self.embeddings:
            raise InputError(
                f"head model {self.name!r} has no landmark embedding {scheme!r}; "
                f"it has {', '.join(sorted(self.embeddings))}"
            )
        if scheme not in self._subsets:
            embedding = self.embeddings[scheme]
            corners = self.faces[embedding.triangles]
            contour_corners = self.faces[embedding.contour_triangles]
            used, index = torch.unique(
                torch.cat((corners.flatten(), contour_corners.flatten())), return_inverse=True
            )
            self._subsets[scheme] = _Subset(
                template=self.template[used],
                identity_basis=self.identity_basis[used],
                expression_basis=self.expression_basis[used],
                skinning_weights=self.skinning_weights[used],
                corners=index[: corners.numel()].view_as(corners),
                contour_corners=index[corners.numel() :].view_as(contour_corners),
                barycentric=embedding.barycentric,
            )
        return self._subsets[scheme]


class _Subset:
    """The rows of a model that a set of points needs, with both bases as one matrix."""

    def __init__(
        self,
        *,
        template: Tensor,
        identity_basis: Tensor,
        expression_basis: Tensor,
        skinning_weights: Tensor,
        corners: Tensor | None = None,
        contour_corners: Tensor | None = None,
        barycentric: Tensor | None = None,
    ) -> None:
        empty = template.new_zeros(0)
        self.template = template
        self.basis = torch.cat((identity_basis, expression_basis), dim=-1).flatten(0, 1)
        self.skinning_weights = skinning_weights
        self.corners = corners if corners is not None else empty
        self.contour_corners = contour_corners if contour_corners is not None else empty
        self.barycentric = barycentric if barycentric is not None else empty


def facing_yaw_rad(params: HeadParams) -> Float[Tensor, "*batch"]:
    """How far the face is turned to the subject's left (positive) or right, radians."""
    turn = roma.rotvec_to_rotmat(params.root_rotvec) @ roma.rotvec_to_rotmat(params.neck_rotvec)
    forward = turn[..., :, 2]
    return torch.atan2(forward[..., 0], forward[..., 2])


def nearest_row(rows: Float[Tensor, "rows"], value: Float[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
    """Index of the row nearest to each value; values beyond the ends take the end row."""
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
