"""One look of a network at regions of frames: where faces are in a window, and the landmarks in a face's region."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from neuface.devices import map_pieces
from neuface.landmarks.face_mesh.boxes import Boxes, faces_of
from neuface.landmarks.face_mesh.networks import DETECTOR_PX, LANDMARKER_PX, FaceNetworks
from neuface.landmarks.face_mesh.regions import Regions, sampled, upright
from neuface.structs import TensorStruct

REGION_PER_BOX = 1.5
"""Side of the region that the landmark network sees, in longer sides of the detector's box."""
RIGHT_EYE, LEFT_EYE = 0, 1
# Number of pictures that a network sees at a time in one thread: bounds the memory, some 20 MB each for the landmark
# network.
PICTURES_AT_A_TIME = 8


@dataclass(frozen=True, kw_only=True)
class LookedAt(TensorStruct):
    """What the landmark network found in regions."""

    points_px: Float[Tensor, "n 478 3"]
    """Frame pixels, pixel centres at integers; the depth has the same unit and is negative towards the camera."""
    presence: Float[Tensor, " n"]
    """Probability that the region shows a face, 0..1."""


def whole_frames(frames: UInt8[Tensor, "n h w 3"]) -> Regions:
    """The smallest square around every frame."""
    count, height, width = frames.shape[:3]
    centre = torch.tensor([[width / 2, height / 2]], dtype=torch.float64).expand(count, 2)
    return upright(
        torch.arange(count), centre, torch.full((count,), float(max(height, width)), dtype=torch.float64)
    )


@dataclass(frozen=True, kw_only=True)
class DetectorOutputs(TensorStruct):
    """What the detector said of windows; it is read with more than one score."""

    raw_boxes: Float[Tensor, "n anchors 16"]
    logits: Float[Tensor, "n anchors"]


def detector_outputs(
    networks: FaceNetworks, frames: UInt8[Tensor, "n h w 3"], windows: Regions
) -> DetectorOutputs:
    """The detector's outputs for upright windows, on the CPU."""

    def outputs(some: Regions) -> DetectorOutputs:
        pictures = sampled(frames, some, DETECTOR_PX, repeat_border=False) / 127.5 - 1
        raw_boxes, logits = networks.detector(pictures)
        return DetectorOutputs(raw_boxes=raw_boxes.cpu(), logits=logits.cpu())

    if not len(windows):
        return DetectorOutputs(raw_boxes=torch.zeros(0, 0, 16), logits=torch.zeros(0, 0))
    return DetectorOutputs.cat(map_pieces(outputs, _few_at_a_time(windows)))


def placed_faces(outputs: DetectorOutputs, windows: Regions, lowest_score: float) -> list[Boxes]:
    """The faces in every window whose score is at least `lowest_score`.

    Boxes are in frame pixels with the origin at the first pixel's corner.
    """
    found = faces_of(outputs.raw_boxes, outputs.logits, lowest_score)
    corners = (windows.centre - windows.side[:, None] / 2).numpy()
    return [
        Boxes(
            corners=boxes.corners * side + np.tile(corner, 2),
            keypoints=boxes.keypoints * side + corner,
            score=boxes.score,
        )
        for boxes, corner, side in zip(found, corners, windows.side.numpy(), strict=True)
    ]


def region_of(boxes: Boxes, frame: int) -> Regions:
    """The regions that the landmark network should see: around the boxes, turned so that the eyes are level."""
    low, high = boxes.corners[:, :2], boxes.corners[:, 2:]
    eyes = boxes.keypoints[:, LEFT_EYE] - boxes.keypoints[:, RIGHT_EYE]
    return Regions(
        frame=torch.full((len(low),), frame),
        centre=torch.from_numpy((low + high) / 2),
        side=torch.from_numpy((high - low).max(-1) * REGION_PER_BOX),
        angle=torch.from_numpy(np.arctan2(eyes[:, 1], eyes[:, 0])),
    )


def landmarks_in(networks: FaceNetworks, frames: UInt8[Tensor, "n h w 3"], regions: Regions) -> LookedAt:
    """The landmarks that the network sees in regions, on the CPU."""

    def looked_at(some: Regions) -> LookedAt:
        crops = sampled(frames, some, LANDMARKER_PX, repeat_border=True) / 255
        raw = networks.landmarker(crops)
        share = raw.points.double().cpu() / LANDMARKER_PX
        flat = some.to_frame(share[..., :2]) - 0.5
        depth = share[..., 2] * some.side[:, None]
        return LookedAt(
            points_px=torch.cat([flat, depth[..., None]], -1).float(),
            presence=torch.sigmoid(raw.presence_logit).cpu(),
        )

    nothing = LookedAt(points_px=torch.zeros(0, 478, 3), presence=torch.zeros(0))
    return LookedAt.cat([nothing, *map_pieces(looked_at, _few_at_a_time(regions))])


def _few_at_a_time(regions: Regions) -> list[Regions]:
    starts = range(0, len(regions), PICTURES_AT_A_TIME)
    return [regions[start : start + PICTURES_AT_A_TIME] for start in starts]
