"""Estimated against real errors of detected landmarks, on rendered faces of many sizes, angles and qualities.

    python -m studies.landmark_uncertainty --seed 3 --json uncertainty.json

With `--estimate` the coefficients of `neuface.landmarks.face_mesh.uncertainty` are estimated from these faces, too.
Those in the module come from other seeds than those that are reported (docs/face_networks.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from neuface import HeadModel
from neuface.io.face_mesh_file import read_face_networks
from neuface.landmarks.face_mesh.networks import FaceNetworks
from neuface.landmarks.face_mesh.search import search
from neuface.landmarks.face_mesh.uncertainty import (
    USUAL_SIDE_PX,
    differences,
    estimated_px,
    log_features,
)
from neuface.landmarks.schemes import MEDIAPIPE478
from neuface.models import load_head
from neuface.structs import TensorStruct, ndc_to_px
from neuface.synthetic.clips import make_talking_clip
from neuface.synthetic.people import open_head_identities

RENDERED_PX = 384
FRAME_HW = (480, 640)
PLACE_YX = (40, 100)
"""Where the picture lies in the frame."""
SIZES_PX = (384, 256, 160, 96, 72)
"""Sides of the pictures, in which the head takes up about two thirds."""
LARGEST_YAW_DEG = 70.0
LARGEST_NOISE = 12.0
"""Standard deviation of the noise of pixels, of 255."""
HIDDEN_SHARE = 0.25
"""Share of the clips in which a bar hides a part of the face."""
CLASSES = 6
DEGREES_OF_FREEDOM = 4.0
"""Of Student's t, whose likelihood the coefficients maximise."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which faces are drawn, and where the figures go."""

    seed: int = 3
    people: int = 16
    views: int = 3
    """Angles from which each person is seen."""
    frames: int = 3
    estimate: bool = False
    """Also estimate the coefficients from these faces."""
    json: Path | None = None
    """File for the figures; without it they are only printed."""


@dataclass(frozen=True, kw_only=True)
class Samples(TensorStruct):
    """Landmarks of faces that were found."""

    points_px: Float[Tensor, "faces 478 2"]
    difference_px: Float[Tensor, "faces 478"]
    """Between the two looks."""
    error_px: Float[Tensor, "faces 478"]
    """Root mean square of x and y."""


def main(options: Options) -> None:
    """Draw the faces, find their landmarks, and compare."""
    head, networks = load_head("open"), read_face_networks()
    pieces = [
        found
        for frames, true_px in _pictures(head, options)
        if (found := _measured(networks, frames, true_px)) is not None
    ]
    samples = Samples.cat(pieces)
    figures: dict[str, Any] = {
        "faces": len(samples.points_px),
        "pictures": options.people * options.views * options.frames,
        **calibration(samples),
    }
    if options.estimate:
        figures["coefficients"] = coefficients(samples)
    print(json.dumps(figures, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _pictures(
    head: HeadModel, options: Options
) -> Iterator[tuple[UInt8[Tensor, "n h w 3"], Float[Tensor, "n 478 2"]]]:
    """Frames with one face each, and the true landmarks in them."""
    generator = torch.Generator().manual_seed(options.seed)
    people = open_head_identities(options.people, options.seed)

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    for number, person in enumerate(people):
        clip = make_talking_clip(
            head,
            person,
            view_yaw_deg=(LARGEST_YAW_DEG * (2 * random(options.views) - 1)).tolist(),
            time=options.frames,
            size_px=RENDERED_PX,
            seed=1000 * options.seed + number,
        )
        true_px = ndc_to_px(clip.camera.project(head.landmarks(clip.truth, MEDIAPIPE478.name)), RENDERED_PX)
        for view in range(options.views):
            size_px = SIZES_PX[int(random(1) * len(SIZES_PX))]
            noise, hidden = float(random(1)) * LARGEST_NOISE, float(random(1)) < HIDDEN_SHARE
            picture = interpolate(
                clip.frames[view].permute(0, 3, 1, 2).float(), size=(size_px, size_px), mode="area"
            )
            picture = picture + noise * torch.randn(picture.shape, generator=generator)
            frames = torch.full((options.frames, *FRAME_HW, 3), 90, dtype=torch.uint8)
            top, left = PLACE_YX
            shown = picture.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
            frames[:, top : top + size_px, left : left + size_px] = shown
            in_frame = (true_px[view] + 0.5) * size_px / RENDERED_PX - 0.5 + torch.tensor([left, top])
            if hidden:
                middle = int(in_frame[..., 1].mean())
                frames[:, middle : middle + size_px // 4, left : left + size_px // 2] = 60
            yield frames, in_frame


@torch.inference_mode()
def _measured(
    networks: FaceNetworks, frames: UInt8[Tensor, "n h w 3"], true_px: Float[Tensor, "n 478 2"]
) -> Samples | None:
    """The landmarks of the faces that were found, if any."""
    faces = search(networks, frames)
    if len(faces) == 0:
        return None
    error = (faces.points_px[..., :2] - true_px[faces.frame]).square().mean(-1).sqrt()
    return Samples(
        points_px=faces.points_px[..., :2],
        difference_px=differences(networks, frames, faces),
        error_px=error,
    )


def calibration(samples: Samples) -> dict[str, Any]:
    """Errors in units of their estimated deviations, by classes of the deviation, and their correlation."""
    sigma = estimated_px(samples.points_px, samples.difference_px)
    side = log_features(samples.points_px, samples.difference_px)[2]
    relative, ratio = (sigma / side).flatten(), (samples.error_px / sigma).flatten()
    order = relative.argsort()
    classes = [
        {
            "sigma_percent": 100 * float(relative[some].median()),
            "median_ratio": float(ratio[some].median()),
            "rms_ratio": float(ratio[some].square().mean().sqrt()),
            "beyond_3_sigma": float((ratio[some] > 3).float().mean()),
        }
        for some in order.tensor_split(CLASSES)
    ]
    logs = torch.stack((sigma.flatten().log(), samples.error_px.flatten().clamp(min=1e-3).log()))
    return {"classes": classes, "log_correlation": float(torch.corrcoef(logs)[0, 1])}


def coefficients(samples: Samples) -> dict[str, float]:
    """The most probable coefficients of the formula under Student's t."""
    point, face, side = log_features(samples.points_px, samples.difference_px)
    size = torch.log(side / USUAL_SIDE_PX).expand_as(point)
    columns = torch.stack((torch.ones_like(point), point, face.expand_as(point), size), -1).double()
    squared = (samples.error_px / side).square().double()
    weights = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        log_sigma = columns @ weights
        spread = 2 * squared / (DEGREES_OF_FREEDOM * torch.exp(2 * log_sigma))
        value = (2 * log_sigma + (DEGREES_OF_FREEDOM + 2) / 2 * torch.log1p(spread)).mean()
        value.backward()
        return value

    optimiser.step(loss)
    names = ("BIAS", "OF_POINT", "OF_FACE", "OF_SIZE")
    return dict(zip(names, weights.detach().tolist(), strict=True))


if __name__ == "__main__":
    main(tyro.cli(Options))
