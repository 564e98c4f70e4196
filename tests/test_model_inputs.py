"""What a model sees of a clip: crops by its own rule, made once, and landmarks that its head has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import neuface
from neuface.cropping import DECA_CROP, OPEN_CROP, crop_images, steady_crops
from neuface.frames import ArraySource, Clip
from neuface.model_inputs import PHOTOMETRIC_PX, model_inputs
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
    encoded = seen.encoded(model.encoder)
    crop = crop_images(torch.from_numpy(FRAMES[17:18]), seen.crops.T_crop_frame[0, 17:18], 224)
    assert encoded.shape[:2] == (1, TIME)
    assert torch.equal(encoded[0, 17], model.encoder.prepare(crop)[0])
    assert clip.recording.frames.reads == [count + 1 for count in before]


def test_pictures_are_means_over_pixels_of_the_crops(model: FaceModel, clip: Clip) -> None:
    seen = model_inputs(clip, model)
    crop = crop_images(torch.from_numpy(FRAMES[:1]), seen.crops.T_crop_frame[0, :1], 224)
    pictures = seen.pictures()
    assert pictures.shape == (1, TIME, 3, PHOTOMETRIC_PX, PHOTOMETRIC_PX)
    torch.testing.assert_close(pictures[0, 0], torch.nn.functional.avg_pool2d(crop, 2)[0])
