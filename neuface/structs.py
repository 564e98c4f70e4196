"""The nouns: frozen, keyword-only dataclasses of tensors with any leading batch axes.

Conventions, once for the whole package:
    * Every clip is `views x time`; a monocular video has one view, a photograph also one time step.
    * Head frame: metres, x to the subject's left, y up, z out of the face.
    * Image: x right, y down. In a frame its unit is the pixel, pixel centres at integers. In a crop it is half the
      crop's width (crop NDC), -1..1 from edge to edge. Depth has the image's unit and grows away from the camera.
    * Rotation vectors in radians, quaternions xyzw; `T_a_b` maps coordinates in b to coordinates in a.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum, IntEnum
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

StructT = TypeVar("StructT", bound="TensorStruct")

CameraT = TypeVar("CameraT", bound="Camera")

# Signs that turn the head frame (x left, y up, z out of the face) into image axes (x right, y down, z away): a
# subject who faces the camera has their left on the image's right, so x keeps its sign.
HEAD_TO_IMAGE_SIGNS = (1.0, -1.0, -1.0)

FEWEST_USABLE_POINTS = 6
"""Number of landmarks below which a frame cannot be fitted, because they do not determine the head's pose."""


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

    def named_tensors(self) -> dict[str, Tensor]:
        """The tensors of this noun's own fields by the fields' names."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def with_tensors(self: StructT, changed: Mapping[str, Tensor]) -> StructT:
        """A copy with those fields replaced that `changed` names; names of other nouns' fields are passed over."""
        return replace(self, **{name: changed[name] for name in self.named_tensors() if name in changed})

    def to(self: StructT, *args: Any, **kwargs: Any) -> StructT:
        """A copy with every tensor moved as `Tensor.to` would."""
        return self.map_tensors(lambda tensor: tensor.to(*args, **kwargs))

    def detach(self: StructT) -> StructT:
        """A copy that carries no gradient."""
        return self.map_tensors(lambda tensor: tensor.detach())

    def __getitem__(self: StructT, index: Any) -> StructT:
        """Index the leading (batch) axes of every tensor alike."""
        return self.map_tensors(lambda tensor: tensor[index])

    @classmethod
    def cat(cls: type[StructT], pieces: Sequence[StructT], dim: int = 0) -> StructT:
        """Pieces joined along a batch axis, field by field, nested nouns included.

        A field that is neither a tensor nor a noun is taken from the first piece, and a single piece is not copied.
        """
        first, *others = pieces
        if not others:
            return first
        joined: dict[str, Any] = {}
        for item in fields(first):
            values = [getattr(piece, item.name) for piece in pieces]
            if isinstance(values[0], Tensor):
                joined[item.name] = torch.cat(values, dim)
            elif isinstance(values[0], TensorStruct):
                joined[item.name] = type(values[0]).cat(values, dim)
        return replace(first, **joined)

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


@runtime_checkable
class Camera(Protocol):
    """What sees the head: one camera per image, any leading batch axes.

    Image coordinates are frame pixels in everything that a user receives, and crop NDC between a crop and the encoder
    that looks at it. The head frame's origin is what position and magnification refer to.
    """

    def project(self, points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points 2"]:
        """The image positions of points of the head frame (metres)."""
        ...

    def depth(self, points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points"]:
        """How far points of the head frame lie from the camera, up to a constant: for comparison among them."""
        ...

    def to_image(self, points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points 3"]:
        """Image position and depth side by side, as a rasteriser takes them."""
        ...

    def jacobian(self, points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points 2 3"]:
        """Derivative of `project` by the point: image units per metre."""
        ...

    def straightened(self, points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points 3"]:
        """Points of the head frame that a weak-perspective camera would see where this one sees the given ones.

        What hides what is the same among them, and there the rays to the camera are parallel.
        """
        ...

    def without_perspective(
        self, observed: Float[Tensor, "*batch points 2"], points: Float[Tensor, "*batch points 3"]
    ) -> Float[Tensor, "*batch points 2"]:
        """Where a weak-perspective camera of this position and magnification would observe what this one observed.

        The points (metres, head frame) say how far away the observed ones are.
        """
        ...

    @property
    def position(self) -> Float[Tensor, "*batch 2"]:
        """The image position of the head frame's origin."""
        ...

    @property
    def magnification(self) -> Float[Tensor, "*batch"]:
        """Image units per metre at the head frame's origin."""
        ...

    def placed(
        self: CameraT, position: Float[Tensor, "*batch 2"], magnification: Float[Tensor, "*batch"]
    ) -> CameraT:
        """The camera of the same kind that sees the origin at this position, this much magnified."""
        ...

    def in_image(self: CameraT, scale: Float[Tensor, "*batch"], shift: Float[Tensor, "*batch 2"]) -> CameraT:
        """The same camera in other image coordinates, `new = scale * old + shift`."""
        ...

    def map_tensors(self: CameraT, function: Callable[[Tensor], Tensor]) -> CameraT:
        """A copy with `function` applied to every tensor: cameras are `TensorStruct`s."""
        ...

    def named_tensors(self) -> dict[str, Tensor]:
        """The camera's tensors by name: what free parameters optimise and files hold."""
        ...

    def with_tensors(self: CameraT, changed: Mapping[str, Tensor]) -> CameraT:
        """A copy with some tensors replaced by name."""
        ...

    def detach(self: CameraT) -> CameraT:
        """A copy that carries no gradient."""
        ...

    def flatten_batch(self: CameraT, axes: int) -> CameraT:
        """Merge the first `axes` leading axes into one."""
        ...

    def __getitem__(self: CameraT, index: Any) -> CameraT:
        """Index the leading (batch) axes."""
        ...


@dataclass(frozen=True, kw_only=True)
class WeakPerspective(TensorStruct):
    """Scaled orthographic camera: `image = scale * flip(point) + offset`.

    It is the perspective camera far away: it does not determine the head's size, nor its distance.
    """

    scale: Float[Tensor, "*batch"]
    """Image units per metre, positive."""
    offset: Float[Tensor, "*batch 2"]
    """The image position of the head frame's origin."""

    def to_image(self, points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points 3"]:
        """Image position and depth of points of the head frame (metres), all three in image units.

        Convention:
            With scale 10 and offset (0.5, 0), the point (0.02, 0.01, 0.1) has the image position (0.7, -0.1) and
            the depth -1.

        >>> camera = WeakPerspective(scale=torch.tensor(10.0), offset=torch.tensor([0.5, 0.0]))
        >>> camera.to_image(torch.tensor([[0.02, 0.01, 0.1]]))
        tensor([[ 0.7000, -0.1000, -1.0000]])
        """
        flipped = points * points.new_tensor(HEAD_TO_IMAGE_SIGNS)
        scaled = self.scale[..., None, None] * flipped
        offset = torch.nn.functional.pad(self.offset, (0, 1))
        return scaled + offset[..., None, :]

    def project(self, points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points 2"]:
        """The image positions of points of the head frame (metres)."""
        return self.to_image(points)[..., :2]

    def depth(self, points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points"]:
        """Depth behind the head frame's origin, image units."""
        return self.to_image(points)[..., 2]

    def jacobian(self, points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points 2 3"]:
        """Derivative of `project` by the point, the same for all points: image units per metre."""
        rows = torch.diag(points.new_tensor(HEAD_TO_IMAGE_SIGNS))[:2]
        return (self.scale[..., None, None, None] * rows).expand(*points.shape[:-1], 2, 3)

    def straightened(self, points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points 3"]:
        """The points themselves."""
        return points

    def without_perspective(
        self, observed: Float[Tensor, "*batch points 2"], points: Float[Tensor, "*batch points 3"]
    ) -> Float[Tensor, "*batch points 2"]:
        """The observations themselves."""
        return observed

    @property
    def position(self) -> Float[Tensor, "*batch 2"]:
        """The image position of the head frame's origin."""
        return self.offset

    @property
    def magnification(self) -> Float[Tensor, "*batch"]:
        """Image units per metre."""
        return self.scale

    def placed(
        self, position: Float[Tensor, "*batch 2"], magnification: Float[Tensor, "*batch"]
    ) -> WeakPerspective:
        """The camera that sees the origin at this position, this much magnified."""
        return WeakPerspective(scale=magnification, offset=position)

    def in_image(self, scale: Float[Tensor, "*batch"], shift: Float[Tensor, "*batch 2"]) -> WeakPerspective:
        """The same camera in other image coordinates, `new = scale * old + shift`."""
        return WeakPerspective(scale=self.scale * scale, offset=self.offset * scale[..., None] + shift)


@dataclass(frozen=True, kw_only=True)
class Prediction(TensorStruct):
    """A head and the camera that sees it, for every image."""

    params: HeadParams
    camera: Camera


class Status(IntEnum):
    """What became of one image; `sentence` says it to people. A tensor of statuses compares with a member."""

    sentence: str

    def __new__(cls, number: int, sentence: str) -> Status:
        """A member with its number, by which files and tensors hold it, and its sentence."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.sentence = sentence
        return member

    FITTED = 0, "The head was fitted to the landmarks of this frame."
    INTERPOLATED = (
        1,
        "The face was missed for a few frames; the head follows from the frames just before and after.",
    )
    OCCLUDED = (
        2,
        "A part of the face is hidden or uncertain; the hidden part of the head follows from other frames.",
    )
    NO_FACE = 3, "No face was found in this frame; the head is a guess from the nearest frames."
    ANOTHER_PERSON = (
        4,
        "The faces in this frame belong to other people; the head is a guess from the nearest frames.",
    )
    CUT_OFF = (
        5,
        "A part of the face lies outside the picture; that part of the head follows from other frames.",
    )
    UNREADABLE = (
        6,
        "The picture shows nothing or could not be read; the head is a guess from the nearest frames.",
    )
    POOR = 7, "The head misses the landmarks, or they jump; look at this frame before using it."

    @property
    def label(self) -> str:
        """The member's name in words, for titles and tables: `no face`."""
        return self.name.lower().replace("_", " ")


class Outcome(Enum):
    """Why a fit ended, and what to do about it; the value is the sentence."""

    CONVERGED = "The loss no longer fell: the fit has converged."
    PASS_LIMIT = (
        "The limit of passes over the clip was reached before the loss stopped falling; "
        "allow more passes if the landmarks are still missed."
    )
    DIVERGED = (
        "The loss became infinite and the best pass before was returned; "
        "lower the learning rate, and look for frames without a picture."
    )

    INTERRUPTED = (
        "The fit was stopped before its end and the best pass so far was returned; "
        "run it again with --resume to go on from its last checkpoint."
    )
    NOTHING_TO_FIT = (
        "No frame has a face that could be fitted: what is here is what the encoder sees without any landmark; "
        "look at the video, try another detector, or give landmarks."
    )

    @property
    def label(self) -> str:
        """The member's name in words, for titles and tables: `pass limit`."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """A numbering of facial landmarks: how many points there are, and what they mark.

    Left and right are the subject's. The schemes that neuface knows are values in `neuface.landmarks.schemes`.
    """

    name: str
    """The key of the scheme in files and among a head's embeddings."""
    count: int
    groups: tuple[tuple[str, tuple[int, ...]], ...]
    """Names and indices of the parts of the face: contour, brows, nose, eyes, lips."""
    outer_eyes: tuple[int, int]
    """The right and the left eye's outer corner; errors are measured in units of their distance."""
    to_ibug68: tuple[int, ...]
    """`points[..., scheme.to_ibug68, :]` are the counterparts of the 68 iBUG points."""
    mirrored: tuple[int, ...]
    """`points[..., scheme.mirrored, :]` renumbers the points of a left-right flipped image; its own inverse."""
    contour_noise: float
    """Standard deviation of the errors of contour points on real video, over that of the other points."""

    def group(self, name: str) -> tuple[int, ...]:
        """The indices of one part of the face.

        Raises:
            KeyError: the scheme has no group of this name.
        """
        return dict(self.groups)[name]

    @property
    def contour(self) -> tuple[int, ...]:
        """The points along the jaw, which lie on no feature of the face and move over the skin with the view."""
        return self.group("contour")


@dataclass(frozen=True, kw_only=True)
class Track(TensorStruct):
    """One person's 2D landmarks through a recording, in frame pixels.

    A missing point has confidence 0 and position 0.
    """

    points_px: Float[Tensor, "views time points 2"]
    confidence: Float[Tensor, "views time points"]
    """0 (missing) to 1."""
    uncertainty_px: Float[Tensor, "views time points"] | None = None
    """Standard deviation of the points per axis, frame pixels, where the detector estimates it."""
    scheme: Scheme
    status: Int[Tensor, "views time"] | None = None
    """A `Status` for every image as far as it is known before a fit: why there are no landmarks, or FITTED where
    there are some; None if nothing is known."""

    @property
    def found(self) -> Bool[Tensor, "views time"]:
        """Frames that have at least one landmark."""
        return (self.confidence > 0).any(-1)

    @property
    def usable(self) -> Bool[Tensor, "views time"]:
        """Frames with enough landmarks to determine the head's pose; the others have no landmark term."""
        return (self.confidence > 0).sum(-1) >= FEWEST_USABLE_POINTS


@dataclass(frozen=True, kw_only=True)
class Selection:
    """How many people there were and who was taken."""

    people: int
    """The number of people whom any camera sees."""
    number: int
    """Who was taken, counted from 0 by the number of frames in which any camera sees them."""
    rule: str
    """Why, as the end of a sentence."""


ONLY_ONE = Selection(people=1, number=0, rule="the only person with landmarks")
"""Nobody had to be chosen."""


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
        return ndc_to_px(points_ndc, self.size_px)

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

    def camera_in_frame(self, camera: CameraT) -> CameraT:
        """The camera that projects to frame pixels, of one that projects to this crop's NDC.

        The maps between the coordinates are computed in float64, the result has the given camera's type.
        """
        exact = self.to(torch.float64)
        origin = exact.T_crop_frame.new_zeros(*exact.T_crop_frame.shape[:-2], 1, 2)
        frame = camera.in_image(1.0 / exact.ndc_per_frame_px, exact.ndc_to_frame(origin)[..., 0, :])
        return frame.map_tensors(lambda tensor: tensor.to(camera.position))

    def camera_in_crop(self, camera: CameraT) -> CameraT:
        """The camera that projects to this crop's NDC, of one that projects to frame pixels."""
        exact = self.to(torch.float64)
        origin = exact.T_crop_frame.new_zeros(*exact.T_crop_frame.shape[:-2], 1, 2)
        crop = camera.in_image(exact.ndc_per_frame_px, exact.frame_to_ndc(origin)[..., 0, :])
        return crop.map_tensors(lambda tensor: tensor.to(camera.position))

    def prediction_in_frame(self, prediction: Prediction) -> Prediction:
        """The same heads, their cameras in frame pixels instead of this crop's NDC."""
        return replace(prediction, camera=self.camera_in_frame(prediction.camera))


def ndc_to_px(points_ndc: Float[Tensor, "*batch points 2"], size_px: int) -> Float[Tensor, "*batch points 2"]:
    """Crop NDC to pixels of a square image whose side is `size_px`.

    Example:
        >>> ndc_to_px(torch.tensor([[-1.0, 0.0]]), 100)
        tensor([[-0.5000, 49.5000]])
    """
    return (points_ndc + 1.0) * (size_px / 2.0) - 0.5


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
