"""What a model sees of a clip: crops by its own rule, made once, and landmarks that its head has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import neuface
from neuface.cropping import DECA_CROP, OPEN_CROP, crop_images, steady_crops
from neuface.frames import ArraySource, Clip
from neuface.model_inputs import PHOTOMETRIC_PX, encode_images, model_inputs
from neuface.models import FaceModel

TIME = 20
FRAMES = np.random.default_rng(0).integers(0, 256, (TIME, 60, 80, 3), np.uint8)
POINTS = np.random.default_rng(1).uniform(20, 50, (TIME, 68, 2)).astype(np.float32)


class CountingSource(ArraySource):
    """Counts how often each frame is read."""

    def __init__(self, frames: np.ndarray) -> None:
        super().__init__(frames)
        self.reads = [0] * self.time

    def read(self, view: int, start: int, stop: int) -> torch.Tensor:
        for frame in range(start, stop):
            self.reads[frame] += 1
        return super().read(view, start, stop)


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return neuface.load_model("open")


@pytest.fixture
def clip() -> Clip:
    return neuface.read_clip(CountingSource(FRAMES), POINTS)


def test_the_crops_are_those_of_the_model_whoever_reads_the_clip(model: FaceModel, clip: Clip) -> None:
    """A clip has no crops of its own, so that those of another model cannot be fitted."""
    for rule in (OPEN_CROP, DECA_CROP):
        seen = model_inputs(clip, replace(model, crop_rule=rule))
        expected = steady_crops(clip.track, clip.recording.sizes_hw, rule)
        assert torch.equal(seen.crops.T_crop_frame, expected.T_crop_frame)
    apart = model_inputs(clip, model).crops.T_crop_frame - expected.T_crop_frame
    assert float(apart.abs().max()) > 0.1


def test_inputs_are_the_prepared_crops_and_each_frame_is_read_once(model: FaceModel, clip: Clip) -> None:
    assert isinstance(clip.recording.frames, CountingSource)
    before = list(clip.recording.frames.reads)
    seen = model_inputs(clip, model)
    encoded = encode_images([seen], model.encoder).images
    crop = crop_images(torch.from_numpy(FRAMES[17:18]), seen.crops.T_crop_frame[0, 17:18], 224)
    assert torch.equal(encoded[torch.tensor([17])], model.encoder.prepare(crop))
    assert clip.recording.frames.reads == [count + 1 for count in before]


def test_pictures_are_means_over_pixels_of_the_same_crops(model: FaceModel, clip: Clip) -> None:
    assert isinstance(clip.recording.frames, CountingSource)
    before = list(clip.recording.frames.reads)
    seen = model_inputs(clip, model)
    crop = crop_images(torch.from_numpy(FRAMES[:1]), seen.crops.T_crop_frame[0, :1], 224)
    pictures = encode_images([seen], model.encoder, with_pictures=True).pictures
    assert clip.recording.frames.reads == [count + 1 for count in before]
    assert pictures is not None
    assert pictures.shape == (1, TIME, 3, PHOTOMETRIC_PX, PHOTOMETRIC_PX)
    torch.testing.assert_close(pictures[0, 0], torch.nn.functional.avg_pool2d(crop, 2)[0])


def test_images_of_joined_clips_lie_view_by_view(model: FaceModel) -> None:
    """The index runs through the time of all clips in the first view, then in the second."""
    clips = []
    for time in (3, 2):
        frames = np.random.default_rng(time).integers(0, 256, (2, time, 60, 80, 3), np.uint8)
        clips.append(neuface.read_clip(frames, np.stack([POINTS[:time]] * 2)))
    seen = [model_inputs(clip, model) for clip in clips]
    images = encode_images(seen, model.encoder).images
    alone = [encode_images([item], model.encoder).images for item in seen]
    expected = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (0, 3), (0, 4), (0, 5), (1, 2), (1, 3)]
    for row, (clip, index) in enumerate(expected):
        assert torch.equal(images[torch.tensor([row])], alone[clip][torch.tensor([index])])
