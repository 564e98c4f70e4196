"""What the loop optimises: anything that predicts heads and cameras for the images of one clip."""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import fields
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from neuface.devices import map_pieces
from neuface.encoders.predictor import Predictor
from neuface.errors import InputError
from neuface.structs import Prediction, TensorStruct

# Fields of the camera, of the pose (the coarse stage), and all that direct fitting optimises besides the jaw.
CAMERA = ("scale", "offset")
POSE = (*CAMERA, "root_rotvec")
EVERYTHING = (*POSE, "identity", "expression")

IMAGES_OF_A_PIECE = 16
"""Number of images that one thread predicts at a time; an image costs more in pieces of half the size."""


@runtime_checkable
class ImageSource(Protocol):
    """The images of a clip, prepared for an encoder, by their index in the flattened (views, time) clip.

    A tensor is one; a source that reads from a file need not be in memory.
    """

    def __getitem__(self, index: Int[Tensor, " images"], /) -> Float[Tensor, "images c h w"]: ...


class Parameterisation(nn.Module):
    """Predicts the images of one clip; the loop optimises its parameters."""

    @abstractmethod
    def predict(self, index: Int[Tensor, " images"]) -> Prediction:
        """One head and camera for each of these images of the flattened (views, time) clip."""

    def forward(self, index: Int[Tensor, " images"]) -> Prediction:
        """As `predict`."""
        return self.predict(index)

    @abstractmethod
    def copy(self) -> Parameterisation:
        """One of the same state with parameters of its own."""


class FineTunedEncoder(Parameterisation):
    """An encoder whose weights predict all images of the clip (Eq. 1)."""

    def __init__(self, encoder: Predictor, images: ImageSource) -> None:
        super().__init__()
        self.encoder = encoder
        self.images = images

    def predict(self, index: Int[Tensor, " images"]) -> Prediction:
        """The encoder's predictions for the images."""
        return self.encoder(self.images[index])

    def copy(self) -> FineTunedEncoder:
        """A copy of the encoder that sees the same images."""
        return FineTunedEncoder(copy.deepcopy(self.encoder), self.images)


class FreeParameters(Parameterisation):
    """Free parameters in place of a network: the predictions are its own tensors, one row per image (Eq. 5)."""

    def __init__(self, start: Prediction, trainable: tuple[str, ...] = EVERYTHING) -> None:
        """Start at `start` (batch axes `views time` or one batch axis); only the `trainable` fields are optimised.

        Raises InputError for a name that is not a field of HeadParams or of the camera.
        """
        super().__init__()
        if start.camera.magnification.ndim > 1:
            start = start.flatten_batch(start.camera.magnification.ndim)
        tensors = start.params.named_tensors() | start.camera.named_tensors()
        unknown = set(trainable) - set(tensors)
        if unknown:
            raise InputError(
                f"unknown parameters {sorted(unknown)}: expected names among {', '.join(tensors)}"
            )
        self._start = start.detach()
        self.tensors = nn.ParameterDict(
            {name: nn.Parameter(tensors[name].detach().clone()) for name in trainable}
        )

    def predict(self, index: Int[Tensor, " images"]) -> Prediction:
        """The rows of these images."""
        start = self._start.to(index.device)[index]
        moved = {name: tensor[index] for name, tensor in self.tensors.items()}
        return Prediction(params=start.params.with_tensors(moved), camera=start.camera.with_tensors(moved))

    def copy(self) -> FreeParameters:
        """Tensors of the same values."""
        return copy.deepcopy(self)


@torch.no_grad()
def predict_clip(
    parameterisation: Parameterisation,
    shape: tuple[int, int],
    images_at_once: int,
    device: torch.device | None = None,
) -> Prediction:
    """The predictions for every image of a clip, batch axes `views time`.

    Args:
        shape: the numbers of views and frames.
        images_at_once: bounds the memory.
        device: where the parameters are; the CPU unless given.
    """
    views, time = shape
    index = torch.arange(views * time, device=device)
    first, *others = index.split(images_at_once)
    predicted = _predict_at_once(parameterisation, first)
    # The whole clip's tensors come first: small ones that stay, made between a network's large ones, would keep the
    # allocator from using the space of the large ones again.
    whole = predicted.map_tensors(lambda tensor: tensor.new_empty(len(index), *tensor.shape[1:]))
    _fill(whole, predicted, first)
    for part in others:
        _fill(whole, _predict_at_once(parameterisation, part), part)
    return whole.unflatten_batch((views, time))


def _predict_at_once(parameterisation: Parameterisation, index: Int[Tensor, " images"]) -> Prediction:
    """The predictions for these images; on a CPU a piece of them in each thread."""
    size = IMAGES_OF_A_PIECE if index.device.type == "cpu" else len(index)
    pieces = map_pieces(parameterisation.predict, index.split(size))
    return Prediction.cat(pieces)


def _fill(whole: TensorStruct, piece: TensorStruct, index: Int[Tensor, " images"]) -> None:
    """Write the tensors of some images into those of all, nested nouns included."""
    for item in fields(whole):
        into, value = getattr(whole, item.name), getattr(piece, item.name)
        if isinstance(into, Tensor):
            into[index] = value
        elif isinstance(into, TensorStruct):
            _fill(into, value, index)
