"""What a model sees of a person in a recording: crops by the model's own rule, and landmarks that its head has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from neuface.cropping import CropRule, iterate_crops, steady_crops
from neuface.encoders.predictor import Predictor
from neuface.frames import Clip, Recording
from neuface.io.image_store import ImageStore
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

    def encoded(
        self, encoder: Predictor, *, with_pictures: bool = False
    ) -> Iterator[tuple[int, Float[Tensor, "n c h w"], Float[Tensor, "n 3 side side"] | None]]:
        """The crops in bounded pieces, view by view: the view, the images in the form that the encoder takes, and
        with `with_pictures` the pictures of PHOTOMETRIC_PX, 0 to 1, that the photometric term samples.
        """
        size = (PHOTOMETRIC_PX, PHOTOMETRIC_PX)
        for view, crops in iterate_crops(self.recording.frames, self.crops, antialias=self.rule.antialias):
            pictures = (
                torch.nn.functional.interpolate(crops, size=size, mode="area") if with_pictures else None
            )
            yield view, encoder.prepare(crops), pictures


@dataclass(frozen=True, kw_only=True)
class EncodedImages:
    """The images of the clips of a fit, as the encoder takes them; made by `encode_images`."""

    images: ImageStore
    """By the index in the flattened (views, time) clip, where time runs through all clips."""
    pictures: Float[Tensor, "views time 3 side side"] | None
    """For the photometric term."""


def encode_images(
    clips: Sequence[ModelInputs],
    encoder: Predictor,
    *,
    with_pictures: bool = False,
    device: torch.device | None = None,
) -> EncodedImages:
    """Read and crop every frame of some clips once.

    Args:
        clips: with the same number of views.
        with_pictures: whether to keep the pictures for the photometric term, too.
        device: where the images are wanted.
    """
    views, time = clips[0].recording.views, sum(clip.recording.time for clip in clips)
    store: ImageStore | None = None
    side = PHOTOMETRIC_PX
    pictures = torch.zeros(views, time, 3, side, side, device=device) if with_pictures else None
    offset = 0
    for clip in clips:
        done = [0] * views
        for view, images, of_term in clip.encoded(encoder, with_pictures=with_pictures):
            if store is None:
                store = ImageStore(views * time, tuple(images.shape[1:]), device=device)
            first = offset + done[view]
            store.write(view * time + first, images)
            done[view] += len(images)
            if pictures is not None and of_term is not None:
                pictures[view, first : first + len(of_term)] = of_term.to(device)
        offset += clip.recording.time
    assert store is not None, "a recording has frames"
    return EncodedImages(images=store, pictures=pictures)


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
