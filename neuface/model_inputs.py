"""What a model sees of a person in a recording: crops by the model's own rule, and landmarks that its head has."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from neuface.cropping import CropRule, iterate_crops, steady_crops
from neuface.encoders.predictor import Predictor
from neuface.frames import Clip, Recording
from neuface.landmarks.schemes import to_ibug68
from neuface.models import FaceModel
from neuface.structs import Crop, Selection, Track

PHOTOMETRIC_PX = 112
"""Side of the crops that the photometric term samples: about one vertex of the open head per pixel."""


@dataclass(frozen=True, kw_only=True)
class ModelInputs:
    """One person in a recording as a model sees it; made by `model_inputs`."""

    recording: Recording
    track: Track
    """The landmarks in a scheme that the model's head has."""
    usable: Bool[Tensor, "views time"]
    """Frames with enough landmarks to be fitted."""
    crops: Crop
    """The squares by `rule`, batch axes `views time`; where a frame has no landmarks, between its neighbours'."""
    rule: CropRule
    selection: Selection
    """How many people there were and who this is."""

    def encoded(self, encoder: Predictor) -> Float[Tensor, "views time c h w"]:
        """The crops of all images in the form that the encoder takes.

        Frames are read and cropped in bounded pieces; what is returned is in memory as a whole.
        """
        pictures = iterate_crops(self.recording.frames, self.crops, antialias=self.rule.antialias)
        return self._by_image([encoder.prepare(crops) for _, crops in pictures])

    def pictures(self) -> Float[Tensor, "views time 3 side side"]:
        """The crops of all images at PHOTOMETRIC_PX, 0 to 1."""
        size = (PHOTOMETRIC_PX, PHOTOMETRIC_PX)
        pictures = iterate_crops(self.recording.frames, self.crops)
        return self._by_image(
            [torch.nn.functional.interpolate(crops, size=size, mode="area") for _, crops in pictures]
        )

    def _by_image(self, pieces: list[Tensor]) -> Tensor:
        return torch.cat(pieces).unflatten(0, (self.recording.views, self.recording.time))


def model_inputs(clip: Clip, model: FaceModel) -> ModelInputs:
    """What a model sees of a clip.

    A head without MediaPipe's dense landmarks is fitted to the 68 of them that stand for the iBUG points.
    """
    track = clip.track
    return ModelInputs(
        recording=clip.recording,
        track=track if track.scheme.name in model.head.embeddings else to_ibug68(track),
        usable=track.usable,
        crops=steady_crops(
            track, clip.recording.sizes_hw, model.crop_rule, starts=clip.recording.shot_starts
        ),
        rule=model.crop_rule,
        selection=clip.selection,
    )
