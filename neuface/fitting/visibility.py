"""Which vertices of a head a camera sees: the rules by which images weigh vertices."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuface.geometry.meshes import vertex_normals
from neuface.render.visibility import vertex_visible
from neuface.settings import Bounds, Setting
from neuface.structs import HEAD_TO_IMAGE_SIGNS

AngleDeg = Annotated[float, Bounds(above=0.0, most=90.0)]


@runtime_checkable
class VertexVisibility(Protocol):
    """A rule by which images weigh the vertices of a posed head."""

    def weights(
        self, posed: Float[Tensor, "*batch vertices 3"], faces: Int[Tensor, "faces 3"]
    ) -> Float[Tensor, "*batch vertices"]:
        """How well each vertex is seen: the cosine between its normal and the ray to the camera; 0 if it is hidden.

        Args:
            posed: the vertices, metres, in the axes of the head frame; before a perspective camera as
                `Camera.straightened` gives them.
            faces: the triangles of the head.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class _HiddenByRule(Setting):
    """Weighs vertices by the cosine, and hides those that the rule names."""

    def weights(
        self, posed: Float[Tensor, "*batch vertices 3"], faces: Int[Tensor, "faces 3"]
    ) -> Float[Tensor, "*batch vertices"]:
        """As `VertexVisibility.weights`."""
        cosine = vertex_normals(posed, faces)[..., 2]
        hidden = self._hidden(posed, faces, cosine)
        # Where both tests are needed to hide a vertex, one that faces away may pass; its weight is clamped to 0.
        return torch.where(hidden, torch.zeros_like(cosine), cosine.clamp(min=0))

    @abstractmethod
    def _hidden(self, posed: Tensor, faces: Tensor, cosine: Tensor) -> Bool[Tensor, "*batch vertices"]:
        """The vertices that the rule hides."""


@dataclass(frozen=True, kw_only=True)
class _ByAngleAndDepth(_HiddenByRule):
    angle_deg: AngleDeg = 72.0
    """A vertex faces away if its normal is further than this from the ray to the camera (tau_a), degrees."""
    depth_m: float = -0.08
    """A vertex is deep if it lies further than this behind the mean of the vertices (tau_z), metres. The paper's
    value refers to FLAME's origin, for which the mean stands in, because head models differ in their origin."""

    def _faces_away(self, cosine: Float[Tensor, "*batch vertices"]) -> Bool[Tensor, "*batch vertices"]:
        return cosine < torch.cos(torch.deg2rad(cosine.new_tensor(self.angle_deg)))

    def _deep(self, posed: Float[Tensor, "*batch vertices 3"]) -> Bool[Tensor, "*batch vertices"]:
        return posed[..., 2] - posed[..., 2].mean(-1, keepdim=True) < self.depth_m


@dataclass(frozen=True, kw_only=True)
class AngleOrDepth(_ByAngleAndDepth):
    """Hides a vertex that faces away or lies deep (the released code)."""

    def _hidden(self, posed: Tensor, faces: Tensor, cosine: Tensor) -> Tensor:
        return self._faces_away(cosine) | self._deep(posed)


@dataclass(frozen=True, kw_only=True)
class AngleAndDepth(_ByAngleAndDepth):
    """Hides a vertex that faces away and lies deep (the paper's text)."""

    def _hidden(self, posed: Tensor, faces: Tensor, cosine: Tensor) -> Tensor:
        return self._faces_away(cosine) & self._deep(posed)


@dataclass(frozen=True, kw_only=True)
class SelfOcclusion(_HiddenByRule):
    """Hides a vertex that another part of the head covers."""

    def _hidden(self, posed: Tensor, faces: Tensor, cosine: Tensor) -> Tensor:
        return _covered(posed, faces)


@dataclass(frozen=True, kw_only=True)
class AnyTest(_ByAngleAndDepth):
    """Hides a vertex that faces away, lies deep, or is covered by another part of the head."""

    def _hidden(self, posed: Tensor, faces: Tensor, cosine: Tensor) -> Tensor:
        return _covered(posed, faces) | self._faces_away(cosine) | self._deep(posed)


Visibility = AngleOrDepth | AngleAndDepth | SelfOcclusion | AnyTest


def _covered(posed: Float[Tensor, "*batch vertices 3"], faces: Tensor) -> Bool[Tensor, "*batch vertices"]:
    image = posed.detach() * posed.new_tensor(HEAD_TO_IMAGE_SIGNS)
    return ~vertex_visible(image, faces)
