"""Fitting a perspective camera: the lenses of a clip, and predictions that are seen through them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from neuface.fitting.parameterisation import Parameterisation
from neuface.geometry.head_perspective import Perspective
from neuface.geometry.rotations import rotvec_to_rotmat
from neuface.head.model import HeadModel
from neuface.structs import Crop, HeadParams, Prediction, TensorStruct, WeakPerspective

__all__ = ["FocalLength", "FocalSource", "Lens", "SeenThroughLens", "make_lens"]

FocalSource = Literal["given", "calibration", "footage", "landmarks"]
"""Where a focal length comes from: the user, a calibration, what a file says of itself, or an estimate."""


@dataclass(frozen=True, kw_only=True)
class FocalLength:
    """The focal length of one camera, for all frames of a clip."""

    px: float
    """Pixels of the frames."""
    source: FocalSource
    relative_std: float | None = None
    """Standard deviation given the landmarks, as a share of the focal length; None if it was not estimated."""


@dataclass(frozen=True, kw_only=True)
class Lens(TensorStruct):
    """Focal lengths and principal points in the coordinates of each image's crop (crop half-widths)."""

    focal: Float[Tensor, "*batch"]
    principal: Float[Tensor, "*batch 2"]


def make_lens(focal_px: Float[Tensor, " views"], principal_px: Float[Tensor, "views 2"], crops: Crop) -> Lens:
    """The lenses of cameras, one per view, frame pixels, as the crops (batch axes `views time`) show them."""
    per_px = crops.ndc_per_frame_px
    time = per_px.shape[1]
    principal = crops.frame_to_ndc(principal_px[:, None, None].expand(-1, time, 1, 2).to(per_px))
    return Lens(focal=focal_px[:, None].to(per_px) * per_px, principal=principal[..., 0, :])


class SeenThroughLens(Parameterisation):
    """The heads of another parameterisation, seen by perspective cameras in place of weak-perspective ones.

    Encoders predict weak-perspective cameras. Each is replaced by the perspective camera of the image's lens that
    sees the middle of the face at the same position and equally large.
    """

    face: Tensor
    root_joint: Tensor
    root_basis: Tensor

    def __init__(self, inner: Parameterisation, head: HeadModel, lens: Lens) -> None:
        """`lens` has the batch axes `views time`."""
        super().__init__()
        self.inner = inner
        self.lens = lens.flatten_batch(2)
        self._head = (head,)  # Not a submodule: the head is not optimised.
        scheme = next(iter(head.embeddings))
        self.register_buffer("face", head.landmarks(head.neutral(), scheme).mean(0), persistent=False)
        self.register_buffer("root_joint", head.joint_template[0], persistent=False)
        self.register_buffer("root_basis", head.joint_identity_basis[0], persistent=False)

    def predict(self, index: Int[Tensor, " images"]) -> Prediction:
        """The predictions for these images, with perspective cameras."""
        return self.through(self.inner.predict(index), self.lens.to(index.device)[index])

    def through(self, prediction: Prediction, lens: Lens) -> Prediction:
        """The predicted heads, any batch axes, with perspective cameras of these lenses."""
        weak = prediction.camera
        assert isinstance(weak, WeakPerspective), "encoders predict weak-perspective cameras"
        middle = self._posed_face(prediction.params)
        camera = Perspective.seeing_alike(weak, middle, lens.focal.to(middle), lens.principal.to(middle))
        return Prediction(params=prediction.params, camera=camera)

    def copy(self) -> SeenThroughLens:
        """A copy of the inner parameterisation behind the same lens."""
        return SeenThroughLens(self.inner.copy(), self._head[0], self.lens[None])

    def _posed_face(self, params: HeadParams) -> Float[Tensor, "*batch 3"]:
        """The middle of the template's face, turned with the head about its root joint, metres."""
        joint = self.root_joint + einsum(self.root_basis, params.identity, "c i, ... i -> ... c")
        return (rotvec_to_rotmat(params.root_rotvec) @ (self.face - joint)[..., None])[..., 0] + joint
