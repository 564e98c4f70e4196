"""`FitResult`: what `neuface.optimize` returns. It is data; saving, figures and drawing are functions of it.

A result means something by itself: its cameras are in frame pixels, and it is read, listed and filtered without a
head model. Only vertices, figures and pictures need the head.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, get_args

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from neuface.errors import InputError, ModelMismatchError
from neuface.evaluation.figures import Figures, measure, vertices_in_chunks
from neuface.evaluation.quality import Quality
from neuface.evaluation.relative_rotations import RelativeRotation, relative_rotations
from neuface.evaluation.world import WorldResult, view_agreement
from neuface.fitting.config import FitConfig
from neuface.fitting.lens import FocalLength, FocalSource
from neuface.frames import files_of
from neuface.geometry.head_perspective import Perspective
from neuface.geometry.perspective import PerspectiveCamera
from neuface.geometry.uneven_times import frame_times_of
from neuface.head.model import HeadModel
from neuface.io.results.npz_layout import HISTORY, read_result_arrays, write_result_arrays
from neuface.io.results.plain_values import as_plain, from_plain
from neuface.io.results.world_arrays import world_of, world_tensors
from neuface.landmarks.schemes import scheme_named
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
    WeakPerspective,
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
        """Perspective cameras in OpenCV's convention: see `neuface.results.perspective_cameras`."""
        return perspective_cameras(self, focal_px)

    @property
    def relative_rotations(self) -> tuple[RelativeRotation, ...]:
        """How the cameras are turned to each other, as the fitted head says; empty for one view."""
        return relative_rotations(self.prediction, self.valid, self.names)

    def report(self, truth: HeadParams | None = None, *, head: HeadModel | None = None) -> dict[str, Any]:
        """Figures before and after, timing and failed frames: see `neuface.results.report`."""
        return report(self, head_of(self, head), truth)

    def overlay(
        self,
        path: str | os.PathLike[str],
        frames: FrameSource | None = None,
        *,
        head: HeadModel | None = None,
        progress: bool = False,
    ) -> None:
        """Write an mp4 with the meshes over the frames: see `neuface.results.write_overlay`."""
        write_overlay(self, head_of(self, head), path, frames, progress=progress)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything but the frames as an npz of plain arrays (`neuface.io.results.npz_layout`)."""
        write_result_arrays(path, _tensors(self), _meta(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FitResult:
        """Read a result written by `save`; no head model is needed.

        Raises InputError if the file is missing, damaged, or not a result of a format that this version reads.
        """
        tensors, meta = read_result_arrays(path)
        try:
            return _result(tensors, meta)
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


def perspective_cameras(result: FitResult, focal_px: float | None = None) -> PerspectiveCamera:
    """Cameras K, R, t that see the posed head as the fit does, batch axes `views time`.

    Perspective cameras are given as they were fitted. A weak-perspective camera has no focal length: with the one
    that is stated, the head is put at the distance at which it has its size, turned as it is seen along the line of
    sight, and the optical axis meets the frame's centre. The image of the head frame's origin does not move. Points
    nearer to the camera than the origin appear larger than in the fit, further ones smaller; the difference is their
    distance in depth over that distance.

    Args:
        focal_px: focal length for weak-perspective cameras, pixels; the frame's width gives a view of 53 degrees.

    Returns:
        `x_camera = R x_head + t`, metres; axes as in OpenCV: x right, y down, z along the optical axis.

    Raises:
        InputError: the focal length is no positive number, is missing, or is given for perspective cameras.
    """
    seen = result.camera
    if isinstance(seen, Perspective):
        if focal_px is not None:
            raise InputError(
                "focal_px is for weak perspective: these cameras were fitted with a focal length"
            )
    else:
        if focal_px is None:
            raise InputError("weak-perspective cameras have no focal length: state one, focal_px=...")
        if not (math.isfinite(focal_px) and focal_px > 0):
            raise InputError(f"focal_px must be a positive number of pixels, got {focal_px}")
        position = seen.position
        centre_px = position.new_tensor([((w - 1) / 2, (h - 1) / 2) for h, w in result.frame_sizes_hw])
        seen = Perspective(
            scale=seen.magnification,
            offset=position,
            focal=torch.full_like(seen.magnification, focal_px),
            principal=centre_px[:, None].expand_as(position),
        )
    K = seen.offset.new_zeros(*seen.focal.shape, 3, 3)
    K[..., 0, 0] = K[..., 1, 1] = seen.focal
    K[..., :2, 2] = seen.principal
    K[..., 2, 2] = 1.0
    return PerspectiveCamera(
        K=K,
        distortion=K.new_zeros(*seen.focal.shape, 5),
        rotation=seen.rotation,
        translation=seen.translation,
    )


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


def report(result: FitResult, head: HeadModel, truth: HeadParams | None = None) -> dict[str, Any]:
    """Figures before and after, timing and failed frames, as JSON holds them: the content of `report.json`.

    Args:
        result: the fit of a clip.
        head: the model of its parameters.
        truth: the true parameters, batch axes `views time`, where they are known.
    """
    before, after = (
        _known(
            measure(
                head,
                prediction,
                result.landmarks,
                result.valid,
                truth,
                starts=result.shot_starts,
                frame_times=frame_times_of(result.timestamps_s.tolist()),
            )
        )
        for prediction in (result.initial, result.prediction)
    )
    failed = failed_frames(result)
    return {
        "before": before,
        "after": after,
        "outcome": {"name": result.outcome.name, "sentence": result.outcome.value},
        "seconds": round(result.seconds, 3),
        "frames": result.status.shape[1],
        "views": result.status.shape[0],
        "status": {item.name: int((result.status == item).sum()) for item in Status},
        "mean_quality": round(float(result.quality.score.mean()), 3),
        "people": {
            "found": result.selection.people,
            "number": result.selection.number,
            "rule": result.selection.rule,
        },
        "focal": [asdict(length) for length in result.focal],
        "remarks": list(result.remarks),
        "shot_starts": list(result.shot_starts),
        **_about_world(result, head),
        "relative_rotations": [
            {**asdict(item), "rotvec": list(item.rotvec)} for item in result.relative_rotations
        ],
        "failed_frames": len(failed),
        "failed": failed,
        "passes": passes(result),
        "model": result.model,
        "head": {"name": result.head_name, "sha256": result.head_hash},
    }


def _about_world(result: FitResult, head: HeadModel) -> dict[str, Any]:
    """What calibrated cameras say, before and after; nothing without them."""
    world = result.world
    if world is None:
        return {}
    agreement = {
        label: asdict(view_agreement(head, prediction, result.landmarks, world.cameras, metric=world.metric))
        for label, prediction in (("before", result.initial), ("after", result.prediction))
    }
    return {
        "world": {
            "agreement": agreement,
            "metric": world.metric,
            "head_scale": round(float(world.scale), 4),
            "frames_seen": int(world.seen.sum()),
        }
    }


def failed_frames(result: FitResult) -> list[dict[str, Any]]:
    """Every image that was not fitted: view, frame, seconds, quality, the name of its status and its sentence."""
    found = []
    for view, time in (result.status != Status.FITTED).nonzero().tolist():
        status = Status(int(result.status[view, time]))
        found.append(
            {
                "view": result.names[view],
                "frame": time,
                "seconds": round(float(result.timestamps_s[time]), 3),
                "quality": round(float(result.quality.score[view, time]), 3),
                "status": status.name,
                "sentence": status.sentence,
            }
        )
    return found


def overlay_pictures(
    result: FitResult, head: HeadModel, frames: FrameSource | None = None
) -> Iterator[UInt8[Tensor, "_ _ 3"]]:
    """One picture per time: each view is a row of the frame, the encoder's mesh and the optimised mesh.

    Args:
        result: the fit of a clip.
        head: the model of its parameters.
        frames: the frames of the clip; None takes those that the result holds.

    Raises:
        InputError: a result that was read from a file holds no frames, or the given ones are of another clip.
    """
    # On use: drawing loads the renderer.
    from neuface.viz.overlay_video import overlay_frames

    source = frames or result.frames
    if source is None:
        raise InputError(
            "this result was loaded from a file and does not hold its video; give it again: "
            "overlay(path, frames=neuface.read_clip('talk.mp4', landmarks=...).recording.frames)"
        )
    sizes_hw = tuple(tuple(source.size_hw(view)) for view in range(source.views))
    if source.time != result.status.shape[1] or sizes_hw != result.frame_sizes_hw:
        raise InputError(
            f"the video has {source.time} frames of (height, width) {sizes_hw}, but the result has "
            f"{result.status.shape[1]} frames of {result.frame_sizes_hw}: give the video that was fitted"
        )
    yield from overlay_frames(source, head, {"encoder alone": result.initial, "optimised": result.prediction})


def write_overlay(
    result: FitResult,
    head: HeadModel,
    path: str | os.PathLike[str],
    frames: FrameSource | None = None,
    *,
    progress: bool = False,
) -> None:
    """Write `overlay_pictures` as an mp4, with a progress bar if asked for."""
    # On use: both load slowly, and most results are never drawn.
    from tqdm import tqdm

    from neuface.io.atomic import check_is_no_input
    from neuface.io.video import write_video

    source = frames or result.frames
    check_is_no_input(path, () if source is None else files_of(source))
    pictures = tqdm(
        overlay_pictures(result, head, frames),
        total=result.status.shape[1],
        desc="overlay",
        unit="frame",
        disable=not progress,
    )
    write_video(path, pictures, result.fps, timestamps_s=result.timestamps_s.tolist())


def _known(figures: Figures) -> dict[str, float]:
    return {name: value for name, value in asdict(figures).items() if value is not None}


_PLAIN_FIELDS = ("model", "head_name", "head_hash", "fps", "seconds")
_TENSOR_FIELDS = ("expression", "root_rotvec", "neck_rotvec", "jaw_rotvec", "eyes_rotvec")


def _tensors(result: FitResult) -> dict[str, Tensor]:
    """The arrays of the file, by the names that `neuface.io.results.npz_layout` lists."""
    initial = {**result.initial.params.named_tensors(), **_camera_tensors(result.initial.camera)}
    uncertainty = result.landmarks.uncertainty_px
    return {
        "identity": result.identity,
        **{name: getattr(result, name) for name in _TENSOR_FIELDS},
        **_camera_tensors(result.camera),
        **{f"initial.{name}": tensor for name, tensor in initial.items()},
        "landmarks.points_px": result.landmarks.points_px,
        "landmarks.confidence": result.landmarks.confidence,
        **({} if uncertainty is None else {"landmarks.uncertainty_px": uncertainty}),
        "status": result.status.to(torch.int8),
        **{f"quality.{name}": tensor for name, tensor in result.quality.named_tensors().items()},
        "image_nme_percent": result.image_nme_percent,
        "timestamps_s": result.timestamps_s,
        **{
            f"{HISTORY}{name}": torch.tensor(values, dtype=torch.float64)
            for name, values in result.history.items()
        },
        "identity_spread": torch.tensor(result.identity_spread, dtype=torch.float64),
        **({} if result.world is None else world_tensors(result.world)),
    }


def _meta(result: FitResult) -> dict[str, Any]:
    return {
        **{name: getattr(result, name) for name in _PLAIN_FIELDS},
        "scheme": result.landmarks.scheme.name,
        "camera": type(result.camera).__name__,
        "outcome": result.outcome.name,
        "focal": [asdict(length) for length in result.focal],
        "remarks": list(result.remarks),
        "shot_starts": list(result.shot_starts),
        "people": asdict(result.selection),
        "metric": result.world is None or result.world.metric,
        "names": list(result.names),
        "frame_sizes_hw": [list(size) for size in result.frame_sizes_hw],
        "config": as_plain(result.config),
    }


_CAMERAS = {kind.__name__: kind for kind in (WeakPerspective, Perspective)}


def _camera_tensors(camera: Camera) -> dict[str, Tensor]:
    return {f"camera.{name}": tensor for name, tensor in camera.named_tensors().items()}


def _result(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> FitResult:
    """The result that a file's arrays describe; ValueError, KeyError or TypeError if they do not."""
    views, _ = tensors["status"].shape
    names = tuple(str(name) for name in meta["names"])
    sizes_hw = tuple((height, width) for height, width in meta["frame_sizes_hw"])
    if not all(type(side) is int and side > 0 for size in sizes_hw for side in size):
        raise InputError(f"its frame sizes are no positive whole numbers: {sizes_hw}")
    if not (math.isfinite(meta["fps"]) and meta["fps"] > 0):
        raise InputError(f"its frames per second are no positive number: {meta['fps']}")
    if len(names) != views or len(sizes_hw) != views:
        raise InputError(
            f"it has {views} view(s), but {len(names)} name(s) and {len(sizes_hw)} frame size(s)"
        )
    kind = _CAMERAS.get(meta["camera"])
    if kind is None:
        raise InputError(f"its camera is of the kind {meta['camera']!r}, which this version does not read")
    if not bool(torch.isin(tensors["status"], torch.tensor([*Status])).all()):
        raise InputError(f"its status holds numbers that are none of {[int(item) for item in Status]}")
    return FitResult(
        identity=tensors["identity"],
        **{name: tensors[name] for name in _TENSOR_FIELDS},
        camera=_camera(kind, tensors, "camera."),
        initial=Prediction(
            params=HeadParams(
                identity=tensors["initial.identity"],
                **{name: tensors[f"initial.{name}"] for name in _TENSOR_FIELDS},
            ),
            camera=_camera(kind, tensors, "initial.camera."),
        ),
        landmarks=Track(
            points_px=tensors["landmarks.points_px"],
            confidence=tensors["landmarks.confidence"],
            uncertainty_px=tensors.get("landmarks.uncertainty_px"),
            scheme=scheme_named(meta["scheme"]),
        ),
        status=tensors["status"].long(),
        quality=Quality(
            **{
                name.removeprefix("quality."): tensor
                for name, tensor in tensors.items()
                if name.startswith("quality.")
            }
        ),
        image_nme_percent=tensors["image_nme_percent"],
        outcome=Outcome[meta["outcome"]],
        history={
            name.removeprefix(HISTORY): values.tolist()
            for name, values in tensors.items()
            if name.startswith(HISTORY)
        },
        identity_spread=tensors["identity_spread"].tolist(),
        config=from_plain(FitConfig, meta["config"]),
        focal=_focal(meta["focal"], views),
        remarks=tuple(str(remark) for remark in meta["remarks"]),
        shot_starts=_shot_starts(meta["shot_starts"], tensors["status"].shape[1]),
        selection=_selection(meta["people"]),
        world=world_of(tensors, metric=meta["metric"]) if "world.rotvec" in tensors else None,
        names=names,
        frame_sizes_hw=sizes_hw,
        timestamps_s=tensors["timestamps_s"],
        **{name: meta[name] for name in _PLAIN_FIELDS},
    )


def _shot_starts(value: list[Any], time: int) -> tuple[int, ...]:
    numbers = all(type(start) is int for start in value)
    if not numbers or value[:1] != [0] or any(a >= b for a, b in pairwise((*value, time))):
        raise InputError(f"its shot_starts are not 0 and rising numbers of its {time} frames: {value}")
    return tuple(value)


def _selection(value: Mapping[str, Any]) -> Selection:
    wanted = {"people": int, "number": int, "rule": str}
    if {name: type(item) for name, item in value.items()} != wanted:
        raise InputError(f"its people are not described by {', '.join(wanted)}: {value}")
    return Selection(**value)


def _camera(kind: type[WeakPerspective | Perspective], tensors: Mapping[str, Tensor], prefix: str) -> Camera:
    return kind(**{item.name: tensors[f"{prefix}{item.name}"] for item in fields(kind)})


def _focal(value: list[Any], views: int) -> tuple[FocalLength, ...]:
    found = tuple(FocalLength(**item) for item in value)
    positive = all(type(item.px) is float and math.isfinite(item.px) and item.px > 0 for item in found)
    sources = all(item.source in get_args(FocalSource) for item in found)
    deviations = all(isinstance(item.relative_std, float | None) for item in found)
    if len(found) not in (0, views) or not (positive and sources and deviations):
        raise InputError(f"its focal lengths are not those of {views} view(s): {value}")
    return found
