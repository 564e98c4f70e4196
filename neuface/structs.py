"""The nouns: frozen, keyword-only dataclasses of tensors with any leading batch axes.

Conventions, once for the whole package:
    * Every clip is `views x time`; a monocular video has one view, a photograph also one time step.
    * Head frame: metres, x to the subject's left, y up, z out of the face.
    * Image: x right, y down, in pixels, pixel centres at integers.
    * Crop NDC: the crop square, -1..1 from edge to edge, x right, y down; z scaled like x, smaller is nearer.
    * Rotation vectors in radians, quaternions xyzw; `T_a_b` maps coordinates in b to coordinates in a.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

StructT = TypeVar("StructT", bound="TensorStruct")

# Head frame (x left, y up, z out of the face) to crop NDC axes (x right of the image, y down, z away):
# a subject facing the camera has their left on the image's right, so x keeps its sign.
HEAD_TO_NDC_SIGNS = (1.0, -1.0, -1.0)


@dataclass(frozen=True, kw_only=True)
class TensorStruct:
    """Shared behaviour of the nouns whose fields are tensors with common leading axes."""

    def map_tensors(self: StructT, function: Callable[[Tensor], Tensor]) -> StructT:
        """A copy with `function` applied to every tensor, nested nouns included."""
        changed: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                changed[item.name] = function(value)
            elif isinstance(value, TensorStruct):
                changed[item.name] = value.map_tensors(function)
        return replace(self, **changed)

    def to(self: StructT, *args: Any, **kwargs: Any) -> StructT:
        """A copy with every tensor moved as `Tensor.to` would."""
        return self.map_tensors(lambda tensor: tensor.to(*args, **kwargs))

    def detach(self: StructT) -> StructT:
        """A copy that carries no gradient."""
        return self.map_tensors(lambda tensor: tensor.detach())

    def __getitem__(self: StructT, index: Any) -> StructT:
        """Index the leading (batch) axes of every tensor alike."""
        return self.map_tensors(lambda tensor: tensor[index])

    def flatten_batch(self: StructT, axes: int) -> StructT:
        """Merge the first `axes` leading axes into one."""
        return self.map_tensors(lambda tensor: tensor.flatten(0, axes - 1))

    def unflatten_batch(self: StructT, sizes: tuple[int, ...]) -> StructT:
        """Split the first leading axis into `sizes`."""
        return self.map_tensors(lambda tensor: tensor.unflatten(0, sizes))


@dataclass(frozen=True, kw_only=True)
class HeadParams(TensorStruct):
    """Parameters of a linear head model with FLAME's structure; all rotations are radians."""

    identity: Float[Tensor, "*batch identity"]
    expression: Float[Tensor, "*batch expression"]
    root_rotvec: Float[Tensor, "*batch 3"]
    neck_rotvec: Float[Tensor, "*batch 3"]
    jaw_rotvec: Float[Tensor, "*batch 3"]
    eyes_rotvec: Float[Tensor, "*batch 2 3"]
    """The left eye first."""

    def unposed(self) -> HeadParams:
        """The same head turned to the canonical view: root rotation zeroed (paper, Sec. 3.2)."""
        return replace(self, root_rotvec=torch.zeros_like(self.root_rotvec))


@dataclass(frozen=True, kw_only=True)
class WeakPerspective(TensorStruct):
    """Scaled orthographic camera of a square crop: `ndc = scale * flip(point) + offset`."""

    scale: Float[Tensor, "*batch"]
    """Crop half-widths per metre, positive."""
    offset: Float[Tensor, "*batch 2"]
    """Where the head frame's origin lands, in crop half-widths from the crop's centre."""

    def to_ndc(self, points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points 3"]:
        """Points of the head frame (metres) in crop NDC; z grows away from the camera."""
        flipped = points * points.new_tensor(HEAD_TO_NDC_SIGNS)
        scaled = self.scale[..., None, None] * flipped
        offset = torch.nn.functional.pad(self.offset, (0, 1))
        return scaled + offset[..., None, :]

    def project(self, points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points 2"]:
        """The image position of points of the head frame, in crop NDC."""
        return self.to_ndc(points)[..., :2]


@dataclass(frozen=True, kw_only=True)
class Prediction(TensorStruct):
    """What a Predictor answers for every image: a head and the camera that sees it."""

    params: HeadParams
    camera: WeakPerspective


@dataclass(frozen=True, kw_only=True)
class Landmarks(TensorStruct):
    """2D landmarks of a clip in frame pixels. A missing point has confidence 0 and position 0."""

    points_px: Float[Tensor, "views time points 2"]
    confidence: Float[Tensor, "views time points"]
    """0 (missing) to 1."""
    scheme: str
    """`ibug68` or `mediapipe478`: see `neuface.landmarks.schemes`."""

    @property
    def found(self) -> Bool[Tensor, "views time"]:
        """Frames that have at least one landmark."""
        return (self.confidence > 0).any(-1)


@dataclass(frozen=True, kw_only=True)
class Crop(TensorStruct):
    """The square region of each frame that the encoder sees; always invertible back to the frame."""

    T_crop_frame: Float[Tensor, "*batch 3 3"]
    """Maps homogeneous frame pixels to crop pixels (a similarity: scale and shift)."""
    size_px: int

    def to_crop_px(self, points_px: Float[Tensor, "*batch points 2"]) -> Float[Tensor, "*batch points 2"]:
        """Frame pixels to crop pixels."""
        return _apply_affine(self.T_crop_frame, points_px)

    def to_frame_px(self, points_px: Float[Tensor, "*batch points 2"]) -> Float[Tensor, "*batch points 2"]:
        """Crop pixels to frame pixels."""
        return _apply_affine(torch.linalg.inv(self.T_crop_frame), points_px)

    def px_to_ndc(self, points_px: Float[Tensor, "*batch points 2"]) -> Float[Tensor, "*batch points 2"]:
        """Crop pixels to crop NDC: pixel centres are integers, the crop's edges are -1 and 1."""
        return (points_px + 0.5) * (2.0 / self.size_px) - 1.0

    def ndc_to_px(self, points_ndc: Float[Tensor, "*batch points 2"]) -> Float[Tensor, "*batch points 2"]:
        """Crop NDC to crop pixels."""
        return (points_ndc + 1.0) * (self.size_px / 2.0) - 0.5

    def frame_to_ndc(self, points_px: Float[Tensor, "*batch points 2"]) -> Float[Tensor, "*batch points 2"]:
        """Frame pixels to crop NDC."""
        return self.px_to_ndc(self.to_crop_px(points_px))

    def ndc_to_frame(self, points_ndc: Float[Tensor, "*batch points 2"]) -> Float[Tensor, "*batch points 2"]:
        """Crop NDC to frame pixels."""
        return self.to_frame_px(self.ndc_to_px(points_ndc))

    @property
    def ndc_per_frame_px(self) -> Float[Tensor, "*batch"]:
        """How many NDC units one frame pixel spans."""
        return self.T_crop_frame[..., 0, 0] * (2.0 / self.size_px)


def _apply_affine(
    matrix: Float[Tensor, "*batch 3 3"], points: Float[Tensor, "*batch points 2"]
) -> Float[Tensor, "*batch points 2"]:
    matrix = matrix.to(points.dtype)
    return points @ matrix[..., :2, :2].mT + matrix[..., None, :2, 2]


@runtime_checkable
class FrameSource(Protocol):
    """Frames of a clip, read in bounded pieces so that a long video never has to fit in memory."""

    @property
    def views(self) -> int:
        """Number of cameras."""
        ...

    @property
    def time(self) -> int:
        """Number of frames of every camera."""
        ...

    def size_hw(self, view: int) -> tuple[int, int]:
        """Height and width of one camera's frames; cameras may differ."""
        ...

    def read(self, view: int, start: int, stop: int) -> UInt8[Tensor, "n h w 3"]:
        """Frames `start <= t < stop` of one camera, RGB."""
        ...


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A face video ready to be fitted: frames, landmarks, crops, and which frames can be used."""

    frames: FrameSource
    landmarks: Landmarks
    crops: Crop
    """Batch axes `views time`."""
    valid: Bool[Tensor, "views time"]
    """False where a frame has no usable landmarks; such frames have no landmark term."""
    fps: float
    names: tuple[str, ...]
    """One name per view."""

    @property
    def views(self) -> int:
        return self.frames.views

    @property
    def time(self) -> int:
        return self.frames.time
