"""Pictures in memory, of whatever form programs hand around, read as RGB bytes.

Accepted forms of one picture are `(h, w, 3)`, `(3, h, w)`, grey `(h, w)` and `(h, w, 1)`, opaque `(h, w, 4)`,
pictures of PIL and frames of PyAV. A video has one axis of time before. Numbers are whole from 0 to 255, or floats
from 0 to 1 or from 0 to 255. What is none of these, or could be two of them, is refused with what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from neuface.errors import InputError

CHANNELS = (1, 3, 4)
"""Numbers of channels that a last axis can have: grey, RGB, RGB with opacity."""
OPAQUE = 255
"""Opacity of a pixel that hides what is behind it."""
PIL_DEPTHS = frozenset({"I", "F", "I;16", "I;16B", "I;16L"})
"""Modes of PIL whose numbers have no stated range, so that their conversion to bytes would be a guess."""


@dataclass(frozen=True, kw_only=True)
class PictureArray:
    """Pictures of one size in one array, which is neither copied nor converted until it is read."""

    values: np.ndarray | Tensor
    """`(time, h, w, channels)`, of any number type."""
    factor: float
    """What the numbers are multiplied by to span 0 to 255."""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width."""
        return int(self.values.shape[1]), int(self.values.shape[2])

    def read(self, start: int, stop: int) -> UInt8[Tensor, "n h w 3"]:
        """A copy of pictures `start <= t < stop`, RGB, on the CPU."""
        piece = _tensor(self.values[start:stop])
        if piece.dtype != torch.uint8:
            piece = (piece.double() * self.factor).round().to(torch.uint8)
        return piece[..., :1].repeat(1, 1, 1, 3) if piece.shape[-1] == 1 else piece[..., :3].clone()


def video_array(value: Any, what: str) -> PictureArray:
    """The frames of one camera from an array or tensor; a single picture is a video of one frame.

    Args:
        value: numpy or torch.
        what: the beginning of error messages.

    Raises:
        InputError: another type or shape, no frames, numbers of an unknown range, or pixels that are not opaque.

    >>> video_array(np.zeros((5, 3, 20, 30), np.float32), "frames").size_hw
    (20, 30)
    """
    if not isinstance(value, np.ndarray | Tensor):
        raise InputError(f"{what}: expected pictures as arrays, got {type(value).__name__}")
    shape = tuple(value.shape)
    if 0 in shape:
        raise InputError(f"{what}: no frames in an array of shape {shape}")
    values = _with_time_and_channels(value, what)
    if values.shape[-1] == 4:
        _check_opaque(values[..., 3], what)
    return PictureArray(values=values, factor=_factor(values[..., :3], what))


def picture(value: Any, what: str) -> PictureArray:
    """One picture of any accepted form, as a video of one frame. Raises InputError as `video_array` does."""
    if is_pil(value):
        return video_array(_pil_array(value, what), what)
    if hasattr(value, "to_ndarray"):  # a frame of PyAV
        return video_array(value.to_ndarray(format="rgb24"), what)
    if isinstance(value, np.ndarray | Tensor) and value.ndim == 3 and _channels_first(value.shape):
        value = value[None]
    return video_array(value, what)


def is_picture(value: Any) -> bool:
    """Whether this is one picture rather than a video; of an array's three axes one must then be of channels."""
    if isinstance(value, np.ndarray | Tensor):
        shape = value.shape
        return len(shape) == 2 or (len(shape) == 3 and (shape[-1] in CHANNELS or _channels_first(shape)))
    return is_pil(value) or hasattr(value, "to_ndarray")


def is_pil(value: Any) -> bool:
    """Whether this is a picture of PIL, which need not be installed."""
    return all(hasattr(value, name) for name in ("mode", "size", "convert", "getexif"))


def _channels_first(shape: Sequence[int]) -> bool:
    return shape[-1] not in CHANNELS and shape[-3] == 3


def _with_time_and_channels(value: Any, what: str) -> Any:
    """The array as `(time, h, w, channels)`, without a copy."""
    shape = tuple(value.shape)
    if len(shape) == 2:
        return value[None, ..., None]
    if len(shape) == 3 and shape[-1] in CHANNELS:
        return value[None]
    if len(shape) == 3 and shape[0] == 3:
        raise InputError(
            f"{what}: shape {shape} may be one picture whose channels come first, or three grey ones; give "
            "frames[None] for the one, frames[..., None] for the others"
        )
    if len(shape) == 3:
        return value[..., None]
    if len(shape) == 4 and shape[-1] in CHANNELS:
        return value
    if len(shape) == 4 and shape[1] in (1, 3):
        return value.permute(0, 2, 3, 1) if isinstance(value, Tensor) else value.transpose(0, 2, 3, 1)
    raise InputError(
        f"{what}: expected (time, h, w, 3) with 3 channels of RGB, 1 of grey or 4 of RGBA, got shape {shape}"
    )


def _check_opaque(opacity: Any, what: str) -> None:
    highest = OPAQUE if opacity.max() > 1 else 1
    if bool((opacity != highest).any()):
        raise InputError(
            f"{what}: some pixels are not opaque; lay the pictures over a background, or give frames[..., :3] "
            "if the colours are meant as they are"
        )


def _factor(values: Any, what: str) -> float:
    """What the numbers are multiplied by; the range is looked for in all of them."""
    kind = str(values.dtype).removeprefix("torch.") if isinstance(values, Tensor) else values.dtype.name
    if kind == "uint8":
        return 1.0
    lowest, highest = float(values.min()), float(values.max())
    if kind.startswith("float") or kind == "bfloat16":
        if lowest >= 0 and highest <= 1:
            return 255.0
        if lowest >= 0 and highest <= 255:
            return 1.0
        remedy = "values of -1..1 must be (frames + 1) * 127.5" if lowest >= -1 and highest <= 1 else ""
    elif kind.startswith(("int", "uint")):
        if lowest >= 0 and 1 < highest <= 255:
            return 1.0
        remedy = "divide 16 bits by 257, or 10 bits by 4.01" if highest > 255 else ""
    else:
        remedy = ""
    raise InputError(
        f"{what}: {kind} values from {lowest:g} to {highest:g} are no pictures; expected 0 to 255, or floats from "
        f"0 to 1{'; ' if remedy else ''}{remedy}"
    )


def _pil_array(value: Any, what: str) -> np.ndarray:
    # On use: whoever has a picture of PIL has PIL.
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(value)
    if upright.mode in PIL_DEPTHS:
        raise InputError(
            f"{what}: a picture of mode {upright.mode} has no range of its own; scale it to 0..255 and give "
            "picture.convert('RGB')"
        )
    opaque = "A" not in upright.getbands() and "transparency" not in upright.info
    return np.array(upright.convert("RGB" if opaque else "RGBA"))


def _tensor(values: np.ndarray | Tensor) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu()
    if values.dtype.byteorder == ">" or values.dtype in (np.uint16, np.uint32, np.uint64):
        values = values.astype(np.float64)
    return torch.from_numpy(np.array(values))
