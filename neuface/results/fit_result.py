"""`FitResult`: what `neuface.optimize` returns. It is data; saving, figures and drawing stand beside it.

A result means something by itself: its cameras are in frame pixels, and it is read, listed and filtered without a
head model. Only vertices, figures and pictures need the head. The modules beside this one import it; its methods
import them on use.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuface.errors import InputError, ModelMismatchError
from neuface.evaluation.figures import vertices_in_chunks
from neuface.evaluation.quality import Quality
from neuface.evaluation.relative_rotations import RelativeRotation, relative_rotations
from neuface.evaluation.world import WorldResult
from neuface.fitting.config import FitConfig
from neuface.fitting.lens import FocalLength
from neuface.geometry.perspective import PerspectiveCamera
from neuface.head.model import HeadModel
from neuface.io.results.npz_layout import read_result_arrays, write_result_arrays
from neuface.models import FaceModel
from neuface.structs import (
    ONLY_ONE,
    Camera,
    FrameSource,
    HeadParams,
    Outcome,
    Prediction,
    Selection,
    Status,
    Track,
)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FitResult:
    """Optimised parameters of a clip, with everything that is needed to use and to judge them.

    Images that need a look: `(result.status == neuface.Status.POOR).nonzero()` gives their views and frames.
    """

    identity: Float[Tensor, " identity"] | Float[Tensor, "views time identity"]
    """Identity code: one for the person if the fit shares it, else one for every image."""
    expression: Float[Tensor, "views time expression"]
    root_rotvec: Float[Tensor, "views time 3"]
    """Rotation of the head as seen along the line of sight to it, radians. Weak-perspective cameras have no other
    axes; `cameras` gives poses in the axes of perspective ones."""
    neck_rotvec: Float[Tensor, "views time 3"]
    jaw_rotvec: Float[Tensor, "views time 3"]
    eyes_rotvec: Float[Tensor, "views time 2 3"]
    """The left eye first."""
    camera: Camera
    """Projects points of the head frame (metres) to frame pixels; batch axes `views time`."""
    initial: Prediction
    """The pretrained encoder's prediction, before any optimisation; batch axes `views time`, frame pixels."""
    landmarks: Track
    """The landmarks that were fitted, frame pixels."""
    status: Int[Tensor, "views time"]
    """A `Status` for every image."""
    quality: Quality
    """How far every image can be trusted, 0 to 1, and why."""
    image_nme_percent: Float[Tensor, "views time"]
    """Landmark error of every image after the fit, in percent of the outer-eye distance; NaN without landmarks."""
    outcome: Outcome
    """Why the fit ended; the value says what to do about it."""
    history: dict[str, list[float]]
    """Per pass: the loss, `total`, and its unweighted parts."""
    identity_spread: list[float]
    """Per pass: standard deviation over images of the encoder's identity codes, mean over coefficients."""
    config: FitConfig
    model: str
    """Name of the head and encoder, as for `neuface.load_model`."""
    head_name: str
    head_hash: str
    """Hash of what the parameters mean: another head with the same name has another one."""
    names: tuple[str, ...]
    """One name per view."""
    frame_sizes_hw: tuple[tuple[int, int], ...]
    """Height and width of the frames of every view, pixels."""
    timestamps_s: Float[Tensor, " time"]
    """Seconds since the first frame."""
    fps: float
    """Nominal frames per second."""
    seconds: float
    """Wall time of the fit, without reading the video."""
    focal: tuple[FocalLength, ...] = ()
    """The focal length of every perspective camera, and where it comes from; empty for weak perspective."""
    shot_starts: tuple[int, ...] = (0,)
    """The first frames of the shots: 0, and each frame after a cut, which no motion is smoothed across."""
    remarks: tuple[str, ...] = ()
    """Sentences about what is odd in the recording: lost frames, uneven times, scaled pixels, and the like."""
    selection: Selection = ONLY_ONE
    """How many people the recording shows, and who of them this is."""
    world: WorldResult | None = None
    """The head in world coordinates; None if the cameras are not calibrated."""
    frames: FrameSource | None = None
    """The frames that were fitted; they are not saved, so this is None after `load`."""
    encoder: FaceModel | None = None
    """The fine-tuned encoder, with which `neuface.predict` sees more footage of this person. A fit with
    `FitConfig.neural()` makes one; None otherwise, and after `load`."""

    @property
    def params(self) -> HeadParams:
        """The head's parameters, batch axes `views time`; a shared identity is expanded, not copied."""
        identity = self.identity
        if identity.dim() == 1:
            identity = identity.expand(*self.status.shape, -1)
        return HeadParams(
            identity=identity,
            expression=self.expression,
            root_rotvec=self.root_rotvec,
            neck_rotvec=self.neck_rotvec,
            jaw_rotvec=self.jaw_rotvec,
            eyes_rotvec=self.eyes_rotvec,
        )

    @property
    def prediction(self) -> Prediction:
        """Parameters and cameras together, batch axes `views time`, frame pixels."""
        return Prediction(params=self.params, camera=self.camera)

    @property
    def valid(self) -> Bool[Tensor, "views time"]:
        """Images that had landmarks."""
        return self.landmarks.usable

    def vertices(
        self, head: HeadModel | None = None, *, posed: bool = True
    ) -> Float[Tensor, "views time vertices 3"]:
        """Mesh vertices in metres, head frame; `posed=False` leaves out the head's rotation.

        The head defaults to the one of `model`, read again; ModelMismatchError if that is another one by now.
        """
        params = self.params if posed else self.params.unposed()
        return vertices_in_chunks(head_of(self, head), params)

    def project(self, head: HeadModel | None = None) -> Float[Tensor, "views time vertices 2"]:
        """Where the mesh vertices are in the frames, pixels; pixel centres are at integers."""
        return self.camera.project(self.vertices(head))

    def cameras(self, focal_px: float | None = None) -> PerspectiveCamera:
        """Perspective cameras in OpenCV's convention: see `neuface.results.cameras.perspective_cameras`."""
        from neuface.results.cameras import perspective_cameras

        return perspective_cameras(self, focal_px)

    @property
    def relative_rotations(self) -> tuple[RelativeRotation, ...]:
        """How the cameras are turned to each other, as the fitted head says; empty for one view."""
        return relative_rotations(self.prediction, self.valid, self.names)

    def report(self, truth: HeadParams | None = None, *, head: HeadModel | None = None) -> dict[str, Any]:
        """Figures before and after, timing and failed frames: see `neuface.results.report.report`."""
        from neuface.results.report import report

        return report(self, head_of(self, head), truth)

    def overlay(
        self,
        path: str | os.PathLike[str],
        frames: FrameSource | None = None,
        *,
        head: HeadModel | None = None,
        progress: bool = False,
    ) -> None:
        """Write an mp4 with the meshes over the frames: see `neuface.results.drawing.write_overlay`."""
        from neuface.results.drawing import write_overlay

        write_overlay(self, head_of(self, head), path, frames, progress=progress)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything but the frames as an npz of plain arrays (`neuface.io.results.npz_layout`)."""
        from neuface.results.stored import arrays_of, plain_values_of

        write_result_arrays(path, arrays_of(self), plain_values_of(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FitResult:
        """Read a result written by `save`; no head model is needed.

        Raises InputError if the file is missing, damaged, or not a result of a format that this version reads.
        """
        from neuface.results.stored import result_from

        tensors, meta = read_result_arrays(path)
        try:
            return result_from(tensors, meta)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{path} is not a complete neuface result: {error}") from error

    def __repr__(self) -> str:
        """Three lines: the clip and its model, the images' quality, and how the fit ended."""
        sizes = ", ".join(
            f"{name} {width}x{height}"
            for name, (height, width) in zip(self.names, self.frame_sizes_hw, strict=True)
        )
        numbers = {item: int((self.status == item).sum()) for item in Status}
        counts = ", ".join(f"{number} {item.label}" for item, number in numbers.items() if number)
        shared = "one identity" if self.identity.dim() == 1 else "an identity per image"
        return (
            f"FitResult: {self.status.shape[1]} frames of {sizes}; model {self.model}, {shared}\n"
            f"  {counts}; NME {float(self.image_nme_percent.nanmean()):.2f} %\n"
            f"  {passes(self)} passes in {self.seconds:.1f} s. {self.outcome.value}"
        )


def passes(result: FitResult) -> int:
    """Number of passes over the clip: the history also has the value before the first one."""
    return len(result.history["total"]) - 1


def head_of(result: FitResult, head: HeadModel | None = None) -> HeadModel:
    """The head model that the parameters belong to: the given one, or that of the result's model, read again.

    Raises:
        ModelMismatchError: it is another head than the one that was fitted.
        InputError: none is given, and the files of the model's head are not there.
    """
    if head is None:
        # On use: a result is data, and reading models is for those who need a head.
        from neuface.models import load_head

        try:
            head = load_head(result.model)
        except InputError as error:
            raise InputError(
                f"the head of model {result.model!r} is needed for this and cannot be read by its name: give it, "
                f"as in result.vertices(model.head) or result.report(head=model.head). {error}"
            ) from error
    if head.parameter_hash() != result.head_hash:
        raise ModelMismatchError(
            f"these parameters belong to head model {result.head_name!r} with hash {result.head_hash[:12]}, but "
            f"{head.name!r} here is {head.parameter_hash()[:12]}; their numbers mean another shape with it. "
            "Fit the clip again, or give the head that was fitted (head=model.head)"
        )
    return head
