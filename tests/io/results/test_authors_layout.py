"""The authors' layout of results: written, read, and its projection worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuface.encoders.flame_encoder import flame_params
from neuface.errors import InputError
from neuface.io.results.authors_layout import SHAPES, AuthorsResult, read_authors_result, write_authors_result
from neuface.landmarks.schemes import IBUG68
from neuface.structs import Crop, Prediction, Track, WeakPerspective

VIEWS, TIME = 2, 3
IMAGES = VIEWS * TIME


@pytest.fixture
def stored() -> dict[str, np.ndarray]:
    """Random arrays as the authors' program writes them."""
    generator = np.random.default_rng(0)
    arrays = {name: generator.normal(size=(IMAGES, *shape)).astype("f4") for name, shape in SHAPES.items()}
    arrays["cam"][:, 0] = 8 + generator.random(IMAGES)
    return arrays


@pytest.fixture
def result(stored: dict[str, np.ndarray], tmp_path: Path) -> AuthorsResult:
    np.savez_compressed(tmp_path / "params.npz", allow_pickle=False, **stored)
    return read_authors_result(tmp_path / "params.npz", views=VIEWS)


def test_reading_and_writing_give_the_file_back(
    result: AuthorsResult, stored: dict[str, np.ndarray], tmp_path: Path
) -> None:
    write_authors_result(
        tmp_path / "again.npz", result.prediction, result.landmarks, result.crops, "flame2020"
    )
    with np.load(tmp_path / "again.npz") as again:
        assert set(again.files) == set(SHAPES)
        for name, array in stored.items():
            assert again[name].dtype == np.float32
            np.testing.assert_allclose(again[name], array, atol=2e-6, err_msg=name)


def test_images_go_by_time_then_by_view(result: AuthorsResult, stored: dict[str, np.ndarray]) -> None:
    for view in range(VIEWS):
        for time in range(TIME):
            image = time * VIEWS + view
            params = result.prediction.params[view, time]
            np.testing.assert_array_equal(params.jaw_rotvec, stored["pose"][image, 3:])
            np.testing.assert_array_equal(params.identity, stored["shapes"][image])


def test_the_projection_worked_out_by_hand(tmp_path: Path) -> None:
    """s = 8, t = (0.1, -0.2): the point (0.01, 0.02, 0.03) is at 8 * 0.11 = 0.88 and -8 * (-0.18) = 1.44.

    In crop pixels, (0.88 / 2 + 0.5) * 224 = 210.56 and (1.44 / 2 + 0.5) * 224 = 273.28.
    """
    arrays = {name: np.zeros((1, *shape), "f4") for name, shape in SHAPES.items()}
    arrays["cam"][0] = 8, 0.1, -0.2
    # A landmark at crop pixel (210.56, 273.28) is stored as 2 p / 224 - 1, which is that same (0.88, 1.44).
    arrays["landmarks2d"][0, 5] = 0.88, 1.44
    np.savez(tmp_path / "params.npz", allow_pickle=False, **arrays)
    found = read_authors_result(tmp_path / "params.npz")
    point = torch.tensor([0.01, 0.02, 0.03]).expand(1, 1, 1, 3)
    seen_px = found.prediction.camera.project(point)
    torch.testing.assert_close(seen_px[0, 0, 0], torch.tensor([210.56, 273.28]), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        found.landmarks.points_px[0, 0, 5], torch.tensor([210.56, 273.28]), atol=1e-4, rtol=0
    )


def test_landmarks_are_written_in_crop_units_and_missing_ones_as_nan(tmp_path: Path) -> None:
    """A frame point at (30, 50), in a crop of scale 2 that begins at (-10, 20), is crop pixel (80, 60)."""
    points = torch.full((1, 1, 68, 2), 7.0)
    points[0, 0, 0] = torch.tensor([30.0, 50.0])
    confidence = torch.ones(1, 1, 68)
    confidence[0, 0, 1] = 0
    matrix = torch.tensor([[2.0, 0, 20], [0, 2, -40], [0, 0, 1]]).expand(1, 1, 3, 3)
    params = flame_params(
        identity=torch.zeros(1, 1, 300),
        expression=torch.zeros(1, 1, 20),
        root_rotvec=torch.zeros(1, 1, 3),
        jaw_rotvec=torch.zeros(1, 1, 3),
    )
    camera = WeakPerspective(scale=torch.ones(1, 1), offset=torch.zeros(1, 1, 2))
    write_authors_result(
        tmp_path / "params.npz",
        Prediction(params=params, camera=camera),
        Track(points_px=points, confidence=confidence, scheme=IBUG68),
        Crop(T_crop_frame=matrix, size_px=224),
        "flame",
    )
    with np.load(tmp_path / "params.npz") as written:
        np.testing.assert_allclose(written["landmarks2d"][0, 0], [80 / 112 - 1, 60 / 112 - 1], atol=1e-6)
        assert np.isnan(written["landmarks2d"][0, 1]).all()
        assert written["expr"].shape == (1, 50)
        assert written["shapes"].shape == (1, 100)
    again = read_authors_result(tmp_path / "params.npz")
    assert again.landmarks.confidence[0, 0, :3].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("field", "size", "message"),
    [
        ("neck_rotvec", (3,), "neck_rotvec is not zero"),
        ("eyes_rotvec", (2, 3), "eyes_rotvec is not zero"),
        ("expression", (102,), "expression has more than 50"),
        ("identity", (300,), "identity has more than 100"),
        ("root_rotvec", (3,), "pose: has numbers that are not finite"),
    ],
)
def test_parameters_that_the_layout_cannot_hold_are_refused(
    result: AuthorsResult, tmp_path: Path, field: str, size: tuple[int, ...], message: str
) -> None:
    value = torch.full((VIEWS, TIME, *size), 0.1 if "rotvec" in field and field != "root_rotvec" else 0.0)
    value.flatten(2)[..., -1] = float("nan") if field == "root_rotvec" else 0.1
    changes: dict[str, Any] = {field: value}
    prediction = replace(result.prediction, params=replace(result.prediction.params, **changes))
    with pytest.raises(InputError, match=message):
        write_authors_result(tmp_path / "a.npz", prediction, result.landmarks, result.crops, "flame2020")
    assert not (tmp_path / "a.npz").exists()


def test_other_heads_and_crops_are_refused(result: AuthorsResult, tmp_path: Path) -> None:
    for name in ("open-v1", "flame2023"):
        with pytest.raises(InputError, match="layout is for FLAME 2020"):
            write_authors_result(tmp_path / "a.npz", result.prediction, result.landmarks, result.crops, name)
    small = replace(result.crops, size_px=112)
    with pytest.raises(InputError, match="crops of 224 px"):
        write_authors_result(tmp_path / "a.npz", result.prediction, result.landmarks, small, "flame2020")


@pytest.mark.parametrize(
    ("changes", "views", "message"),
    [
        ({"cam": None}, 1, "has no cam"),
        ({"pose": np.zeros((IMAGES, 5), "f4")}, 1, "'pose' has the shape"),
        ({"expr": np.zeros((2, 50), "f4")}, 1, "'expr' has the shape"),
        ({"shapes": np.full((IMAGES, 100), np.nan, "f4")}, 1, "'shapes' has numbers that are not finite"),
        ({"cam": np.zeros((IMAGES, 3), int)}, 1, "'cam' has the shape"),
        ({}, 4, "not a multiple of 4 views"),
        ({}, 0, "not a multiple of 0 views"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    stored: dict[str, np.ndarray], tmp_path: Path, changes: dict[str, Any], views: int, message: str
) -> None:
    content = {name: value for name, value in {**stored, **changes}.items() if value is not None}
    np.savez(tmp_path / "params.npz", allow_pickle=False, **content)
    with pytest.raises(InputError, match=message):
        read_authors_result(tmp_path / "params.npz", views=views)
