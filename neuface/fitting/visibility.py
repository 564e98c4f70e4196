"""Which vertices of a head a camera sees."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor


@runtime_checkable
class VertexVisibility(Protocol):
    """A rule by which images weigh the vertices of a posed head."""

    def weights(
        self, posed: Float[Tensor, "*batch vertices 3"], faces: Int[Tensor, "faces 3"]
    ) -> Float[Tensor, "*batch vertices"]:
        """How well each vertex is seen; 0 if it is hidden.

        Args:
            posed: the vertices, metres, in the axes of the head frame.
            faces: the triangles of the head.
        """
        ...
