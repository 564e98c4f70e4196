"""Landmarks whose axes or sizes are wrong are recognised by the mean face, over all directions of view."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from data_folders import DATA, needs

from neuface.errors import InputError, InputWarning
from neuface.io.landmarks import read_faces
from neuface.landmarks.arrays import as_faces
from neuface.landmarks.mean_face import MEAN_FACE_MM
from neuface.landmarks.schemes import WFLW_TO_IBUG68
from neuface.models import load_head
from neuface.structs import WeakPerspective

SIZE_HW = (480, 640)


def faces_px(yaw_degrees: float = 20.0, time: int = 8) -> np.ndarray:
    """The landmarks of one person who turns up to this far, centred in a frame of `SIZE_HW`."""
    head = load_head("open")
    params = head.neutral(time)
    params.root_rotvec[:, 1] = torch.linspace(-1, 1, time) * np.radians(yaw_degrees)
    params.root_rotvec[:, 2] = torch.linspace(-0.3, 0.3, time)
    camera = WeakPerspective(
        scale=torch.full((time,), 1200.0), offset=torch.tensor([330.0, 250.0]).expand(time, 2)
    )
    return camera.project(head.landmarks(params, "ibug68")).numpy()


def test_the_mean_face_is_the_open_heads() -> None:
    head = load_head("open")
    points = head.landmarks(head.neutral(1), "ibug68")[0] * 1000
    assert torch.allclose(points - points.mean(0), torch.tensor(MEAN_FACE_MM), atol=0.06)


@pytest.mark.parametrize("yaw_degrees", [0.0, 30.0, 60.0, 75.0])
def test_good_landmarks_are_accepted_and_wrong_axes_are_named(yaw_degrees: float) -> None:
    points = faces_px(yaw_degrees)
    height, width = SIZE_HW
    as_faces(points, 1, len(points), sizes_hw=[SIZE_HW])
    x, y = points[..., 0], points[..., 1]
    for wrong, message in [
        (np.stack([width - 1 - x, y], -1), "x is mirrored"),
        (np.stack([x, height - 1 - y], -1), "y grows upwards"),
        (np.stack([y, x], -1), "x and y are swapped"),
        (np.stack([0.7 * x, y], -1), "times as wide as they should be"),
        (np.stack([x, 0.7 * y], -1), "times as wide as they should be"),
        (points * 4, "lie outside of the frame"),
        (points * 10, "lie outside of the frame"),
        (points / (width, height), "look normalised"),
    ]:
        with pytest.raises(InputError, match=message):
            as_faces(wrong, 1, len(points), sizes_hw=[SIZE_HW])
    with pytest.warns(InputWarning, match="upper left quarter"):
        as_faces(points / 2, 1, len(points), sizes_hw=[SIZE_HW])


def test_a_face_upside_down_is_no_error() -> None:
    points = (639, 479) - faces_px()
    as_faces(points, 1, len(points), sizes_hw=[SIZE_HW])


def test_a_depth_between_0_and_1_is_no_confidence() -> None:
    points = faces_px(10.0)
    depth = np.array(MEAN_FACE_MM)[:, 2]
    unit = np.broadcast_to((depth - depth.min()) / np.ptp(depth), points.shape[:2])[..., None]
    with pytest.raises(InputError, match="is the depth of a face"):
        as_faces(np.concatenate([points, unit], -1), 1, len(points))
    confidence = np.random.default_rng(0).uniform(0.2, 1, unit.shape)
    as_faces(np.concatenate([points, confidence], -1), 1, len(points))


def test_a_third_column_of_zeros_is_no_confidence_where_there_are_points() -> None:
    points = faces_px()
    nothing = np.zeros((*points.shape[:2], 1))
    with pytest.raises(InputError, match="0 for every point of every frame"):
        as_faces(np.concatenate([points, nothing], -1), 1, len(points))
    nobody = as_faces(np.concatenate([np.full_like(points, np.nan), nothing], -1), 1, len(points))
    assert not nobody.confidence.any()
    assert not as_faces(np.concatenate([0 * points, nothing], -1), 1, len(points)).confidence.any()


def test_51_and_98_points_come_to_their_places() -> None:
    points = faces_px()
    inner = as_faces(points[:, 17:], 1, len(points))
    assert inner.scheme.name == "ibug68"
    assert not inner.confidence[..., :17].any()
    assert np.allclose(inner.points_px[0, :, 0, 17:].numpy(), points[:, 17:])
    wflw = np.full((len(points), 98, 2), np.nan)
    wflw[:, list(WFLW_TO_IBUG68)] = points
    assert np.allclose(as_faces(wflw, 1, len(points)).points_px[0, :, 0].numpy(), points)


@needs(DATA / "grid_corpus")
@pytest.mark.parametrize("name", ["bbaf2n", "brbk7n", "id2_vcd_swwp2s", "lbax4n", "lbbc2a"])
def test_real_landmarks_are_accepted_and_their_mirror_images_are_not(name: str) -> None:
    faces = read_faces(DATA / "grid_corpus" / f"{name}.landmarks.npz")
    as_faces(faces, 1, 75, sizes_hw=[(288, 360)])
    mirrored = faces.points_px[0].clone()
    mirrored[..., 0] = 359 - mirrored[..., 0]
    with pytest.raises(InputError, match="x is mirrored"):
        as_faces(mirrored[None], 1, 75, sizes_hw=[(288, 360)])
