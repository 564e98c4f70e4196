"""`FitResult`: what `neuface.optimize` returns, keeps and shows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm import tqdm

from neuface.errors import InputError, ModelMismatchError
from neuface.evaluation.figures import Figures, measure, vertices_in_chunks
from neuface.fitting.config import FitConfig
from neuface.head.model import HeadModel
from neuface.io.npz import read_arrays, write_arrays
from neuface.io.video import write_video
from neuface.landmarks.schemes import scheme_named
from neuface.models import load_head
from neuface.structs import Camera, Crop, FrameSource, HeadParams, Prediction, Track, WeakPerspective
from neuface.viz.overlay_video import overlay_frames

RESULT_FORMAT = 1
FITTED, NO_LANDMARKS, POOR_FIT = 0, 1, 2
STATUS_NAMES = ("fitted", "no landmarks", "poor fit")


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """Optimised parameters of a clip, with all that is needed to use, judge and redraw them."""

    prediction: Prediction
    """The fine-tuned encoder's answer; batch axes `views time`."""
    initial: Prediction
    """The pretrained encoder's answer, before any optimisation."""
    crops: Crop
    """Where each image's crop lies in its frame; leads from the camera's NDC back to frame pixels."""
    landmarks: Track
    """The landmarks that were fitted, frame pixels."""
    status: Int[Tensor, "views time"]
    """Index into STATUS_NAMES for every image."""
    image_nme_percent: Float[Tensor, "views time"]
    """Landmark error of every image after the fit, in percent of the outer-eye distance; NaN without landmarks."""
    history: dict[str, list[float]]
    """Per pass: the loss, `total`, and its unweighted parts."""
    identity_spread: list[float]
    """Per pass: standard deviation over images of what the encoder answers for the identity, mean over coefficients;
    empty in results of earlier versions."""
    stop_reason: str
    """`converged`, `pass limit` or `diverged`."""
    config: FitConfig
    model: str
    head_name: str
    head_hash: str
    fps: float
    names: tuple[str, ...]
    """One name per view."""
    seconds: float
    """Wall time of the fit, without reading the video."""
    frames: FrameSource | None = None
    """The frames that were fitted; not saved, so None after `load`."""
    head_model: HeadModel | None = None
    """The head model of these parameters, if it is at hand; not saved."""

    @property
    def params(self) -> HeadParams:
        """The head's parameters, batch axes `views time`."""
        return self.prediction.params

    @property
    def camera(self) -> Camera:
        """The camera of every image's crop."""
        return self.prediction.camera

    @property
    def valid(self) -> Bool[Tensor, "views time"]:
        """Images that had landmarks."""
        return self.status != NO_LANDMARKS

    def head(self) -> HeadModel:
        """The head model of these parameters; raises ModelMismatchError if it is another one by now."""
        head = self.head_model or load_head(self.model)
        _refuse_other_head(head, self.head_name, self.head_hash)
        return head

    def vertices(self, *, posed: bool = True) -> Float[Tensor, "views time vertices 3"]:
        """Mesh vertices in metres, head frame; `posed=False` leaves out the head's orientation."""
        params = self.params if posed else self.params.unposed()
        return vertices_in_chunks(self.head(), params)

    def report(self, truth: HeadParams | None = None) -> dict[str, Any]:
        """Figures before and after, timing and failed frames: the content of `report.json`.

        Args:
            truth: the true parameters, batch axes `views time`, where they are known.
        """
        head = self.head()
        before, after = (
            measure(head, prediction, self.landmarks, self.crops, self.valid, truth)
            for prediction in (self.initial, self.prediction)
        )
        failed = [
            {"view": self.names[view], "frame": time, "reason": STATUS_NAMES[int(self.status[view, time])]}
            for view, time in (self.status != FITTED).nonzero().tolist()
        ]
        return {
            "before": _without_none(before),
            "after": _without_none(after),
            "seconds": round(self.seconds, 3),
            "frames": self.status.shape[1],
            "views": self.status.shape[0],
            "failed_frames": len(failed),
            "failed": failed,
            "passes": len(self.history["total"]) - 1,
            "stop_reason": self.stop_reason,
            "model": self.model,
            "head": {"name": self.head_name, "sha256": self.head_hash},
        }

    def overlay_frames(self, frames: FrameSource | None = None) -> Iterator[Tensor]:
        """Pictures `uint8 h w 3`: per view a row with the frame, the encoder alone and the optimised mesh.

        Raises InputError when the frames are needed and not given (a loaded result does not hold them).
        """
        source = frames or self.frames
        if source is None:
            raise InputError(
                "this result was loaded from a file and does not hold its video; give it again: "
                "overlay(path, frames=neuface.read_clip('talk.mp4', landmarks=...).recording.frames)"
            )
        if (source.views, source.time) != tuple(self.status.shape):
            raise InputError(
                f"the video has {source.views} views of {source.time} frames, "
                f"but the result has {self.status.shape[0]} of {self.status.shape[1]}"
            )
        yield from overlay_frames(
            source, self.head(), self.crops, {"encoder alone": self.initial, "optimised": self.prediction}
        )

    def overlay(
        self, path: str | os.PathLike[str], frames: FrameSource | None = None, *, progress: bool = False
    ) -> None:
        """Write `overlay_frames` as an mp4."""
        pictures = tqdm(
            self.overlay_frames(frames),
            total=self.status.shape[1],
            desc="overlay",
            unit="frame",
            disable=not progress,
        )
        write_video(path, pictures, self.fps)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything but the frames as an npz of plain arrays."""
        arrays = {
            **_prediction_arrays("prediction", self.prediction),
            **_prediction_arrays("initial", self.initial),
            "crops.T_crop_frame": self.crops.T_crop_frame.cpu().numpy(),
            "landmarks.points_px": self.landmarks.points_px.cpu().numpy(),
            "landmarks.confidence": self.landmarks.confidence.cpu().numpy(),
            "status": self.status.cpu().numpy().astype(np.int8),
            "image_nme_percent": self.image_nme_percent.cpu().numpy(),
            **{f"history.{name}": np.array(values) for name, values in self.history.items()},
            "identity_spread": np.array(self.identity_spread),
            "meta": np.array(json.dumps(self._meta())),
        }
        write_arrays(path, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, head: HeadModel | None = None) -> FitResult:
        """Read a result written by `save`.

        Args:
            head: The head model it belongs to; None takes `neuface.load_head` of the model that was fitted.

        Raises:
            InputError: the file is missing, damaged, or not a result of a format this version reads.
            ModelMismatchError: its parameters belong to another head model than the one of that name here.
        """
        arrays = read_arrays(path)
        meta = _read_meta(path, arrays)
        head = head or load_head(meta["model"])
        _refuse_other_head(head, meta["head_name"], meta["head_hash"], f"{path}: ")
        try:
            result = replace(cls._from_arrays(arrays, meta), head_model=head)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is an incomplete neuface result ({error!r})") from error
        _check_shapes(path, result, head)
        return result

    @classmethod
    def _from_arrays(cls, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> FitResult:
        history = {
            name.removeprefix("history."): values.tolist()
            for name, values in arrays.items()
            if name.startswith("history.")
        }
        return cls(
            prediction=_read_prediction("prediction", arrays),
            initial=_read_prediction("initial", arrays),
            crops=Crop(
                T_crop_frame=torch.from_numpy(arrays["crops.T_crop_frame"]), size_px=meta["crop_size_px"]
            ),
            landmarks=Track(
                points_px=torch.from_numpy(arrays["landmarks.points_px"]),
                confidence=torch.from_numpy(arrays["landmarks.confidence"]),
                scheme=scheme_named(meta["scheme"]),
            ),
            status=torch.from_numpy(arrays["status"].astype(np.int64)),
            image_nme_percent=torch.from_numpy(arrays["image_nme_percent"]),
            history=history,
            identity_spread=arrays.get("identity_spread", np.zeros(0)).tolist(),
            stop_reason=meta["stop_reason"],
            config=FitConfig(**{**_BEFORE_THEY_WERE_OPTIONS, **meta["config"]}),
            model=meta["model"],
            head_name=meta["head_name"],
            head_hash=meta["head_hash"],
            fps=meta["fps"],
            names=tuple(meta["names"]),
            seconds=meta["seconds"],
        )

    def _meta(self) -> dict[str, Any]:
        return {
            "format": RESULT_FORMAT,
            "config": asdict(self.config),
            "crop_size_px": self.crops.size_px,
            "scheme": self.landmarks.scheme.name,
            "names": list(self.names),
            **{name: getattr(self, name) for name in _PLAIN_FIELDS},
        }


# What a result did that does not name these options, for it is older than they are.
_BEFORE_THEY_WERE_OPTIONS = {
    "expected_identity": "encoder",
    "expected_expression_weight": 0.0,
    "identity_per": "image",
    "hold_size": False,
    "warm_up_steps": 0,
    "expression_smoothness_weight": 0.0,
    "jaw_smoothness_weight": 0.0,
    "camera_smoothness_weight": 0.0,
    "landmark_penalty": "l1",
    "smoother": "mean",
    "visibility": "angle_or_depth",
    "merge": "mean",
    "bridge_gaps": False,
}
_PLAIN_FIELDS = ("stop_reason", "model", "head_name", "head_hash", "fps", "seconds")


def _refuse_other_head(head: HeadModel, name: str, expected: str, prefix: str = "") -> None:
    # Results of earlier versions hold the hash of everything, landmarks and masks included.
    if expected in (head.parameter_hash(), head.content_hash()):
        return
    raise ModelMismatchError(
        f"{prefix}these parameters belong to head model {name!r} with hash {expected[:12]}, but {head.name!r} here "
        f"is {head.parameter_hash()[:12]}; their numbers mean another shape with it. "
        "Fit the clip again, give the head that was fitted, or use the version that wrote the file"
    )


def _without_none(figures: Figures) -> dict[str, float]:
    return {name: value for name, value in asdict(figures).items() if value is not None}


def _prediction_arrays(prefix: str, prediction: Prediction) -> dict[str, np.ndarray]:
    parts = (prediction.params, prediction.camera)
    return {
        f"{prefix}.{name}": tensor.cpu().numpy()
        for part in parts
        for name, tensor in part.named_tensors().items()
    }


def _read_prediction(prefix: str, arrays: dict[str, np.ndarray]) -> Prediction:
    def read(noun: Any) -> Any:
        return noun(**{item.name: torch.from_numpy(arrays[f"{prefix}.{item.name}"]) for item in fields(noun)})

    return Prediction(params=read(HeadParams), camera=read(WeakPerspective))


def _check_shapes(path: str | os.PathLike[str], result: FitResult, head: HeadModel) -> None:
    """Every array must be about the same views and frames, and the codes as long as the head's."""
    clip = tuple(result.status.shape)
    found = {
        "crops": tuple(result.crops.T_crop_frame.shape[:2]),
        "landmarks": tuple(result.landmarks.points_px.shape[:2]),
        "confidence": tuple(result.landmarks.confidence.shape[:2]),
        "image_nme_percent": tuple(result.image_nme_percent.shape),
    }
    sizes = {"identity": head.num_identity, "expression": head.num_expression}
    wrong = [f"{name} {shape} instead of {clip}" for name, shape in found.items() if shape != clip]
    for stage, prediction in (("prediction", result.prediction), ("initial", result.initial)):
        for part in (prediction.params, prediction.camera):
            for name, tensor in part.named_tensors().items():
                shape, size = tuple(tensor.shape), sizes.get(name)
                # Shorter codes are allowed: the head pads them with zeros.
                if shape[:2] != clip or (size is not None and not 0 < shape[2] <= size):
                    wrong.append(f"{stage}.{name} {shape}")
    if len(clip) != 2 or len(result.names) != clip[0] or wrong:
        raise InputError(
            f"{path}: the parts of this result do not fit each other: {'; '.join(wrong) or clip}"
        )


def _read_meta(path: str | os.PathLike[str], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    try:
        meta = json.loads(str(arrays["meta"]))
        found, *_ = (meta[name] for name in ("format", "model", "head_name", "head_hash"))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is not a neuface result: it has no readable 'meta' entry (keys: {', '.join(arrays) or 'none'})"
        ) from error
    if found != RESULT_FORMAT:
        raise InputError(
            f"{path} is a result of format {found}, but this version of neuface reads format {RESULT_FORMAT}; "
            "update neuface"
        )
    return meta
