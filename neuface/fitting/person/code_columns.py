"""How the landmarks of all images move with a code."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from neuface.structs import TensorStruct

__all__ = ["CodeColumns"]


@dataclass(frozen=True, kw_only=True)
class CodeColumns(TensorStruct):
    """Derivatives of the unposed landmarks by a code, mm per unit, axis by axis (all x, all y, all z).

    Images of one kind (`LandmarkDerivatives`) share one product of matrices: gathering the derivatives of every image
    would take longer than multiplying them.
    """

    table: Float[Tensor, "kinds 3 points code"]

    @property
    def size(self) -> int:
        """Number of coefficients of the code."""
        return self.table.shape[-1]

    def moved(
        self, kind: Int[Tensor, " images"], code: Float[Tensor, "images code"]
    ) -> Float[Tensor, "images points 3"]:
        """How far these codes move the landmarks of every image, mm."""
        moved = code.new_empty(len(kind), *self.table.shape[1:3])
        for number, index in _groups(kind):
            moved[index] = (code[index] @ self.table[number].flatten(0, 1).mT).view(-1, *moved.shape[1:])
        return moved.mT

    def moved_alike(
        self, kind: Int[Tensor, " images"], code: Float[Tensor, " code"]
    ) -> Float[Tensor, "images points 3"]:
        """How far one code moves the landmarks of every image, mm."""
        return (self.table @ code)[kind].mT

    def in_image(
        self, kind: Int[Tensor, " images"], camera: Float[Tensor, "images 2 3"]
    ) -> Float[Tensor, "images 2 points code"]:
        """Derivatives of the image positions, given those by the points of the unposed head."""
        seen = camera.new_empty(len(kind), 2, *self.table.shape[2:])
        for number, index in _groups(kind):
            of_kind = camera[index].flatten(0, 1) @ self.table[number].flatten(1)
            seen[index] = of_kind.view(-1, *seen.shape[1:])
        return seen

    def contracted(
        self, kind: Int[Tensor, " images"], rows: Float[Tensor, "images rows coordinates"]
    ) -> Float[Tensor, "images rows code"]:
        """Derivatives by the code of what has these derivatives by the coordinates of the landmarks."""
        contracted = rows.new_empty(*rows.shape[:2], self.size)
        for number, index in _groups(kind):
            of_kind = rows[index].flatten(0, 1) @ self.table[number].flatten(0, 1)
            contracted[index] = of_kind.view(-1, *contracted.shape[1:])
        return contracted


def _groups(kind: Int[Tensor, " images"]) -> list[tuple[int, Int[Tensor, " _"] | slice]]:
    """The kinds, and the images of each."""
    numbers = kind.unique().tolist()
    if len(numbers) == 1:
        return [(numbers[0], slice(None))]
    return [(number, (kind == number).nonzero()[:, 0]) for number in numbers]
