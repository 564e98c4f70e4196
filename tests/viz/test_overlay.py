from __future__ import annotations

import pytest
import torch
from torch import Tensor

from neuface.errors import InputError
from neuface.viz import contact_sheet, overlay_mesh, side_by_side

TETRAHEDRON = torch.tensor([[20.0, 10, 0], [60, 20, 5], [30, 50, 5], [35, 25, -20]])
FACES = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])


def noise(height: int = 64, width: int = 80) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (height, width, 3), generator=random, dtype=torch.uint8)


def test_pixels_outside_the_mesh_keep_their_value_and_the_frame_is_not_changed() -> None:
    frame = noise()
    before = frame.clone()
    picture = overlay_mesh(frame, TETRAHEDRON, FACES)
    changed = (picture != frame).any(-1)
    rows, columns = changed.nonzero().unbind(1)
    assert changed.sum() > 300
    assert (rows.min() >= 9, rows.max() <= 51, columns.min() >= 19, columns.max() <= 61) == (True,) * 4
    assert torch.equal(frame, before)


def test_opacity_goes_from_the_frame_to_the_mesh() -> None:
    frame = noise()
    assert torch.equal(overlay_mesh(frame, TETRAHEDRON, FACES, 0.0), frame)
    full = [overlay_mesh(picture, TETRAHEDRON, FACES, 1.0) for picture in (frame, 255 - frame)]
    assert torch.equal(full[0][25, 35], full[1][25, 35])


def test_the_region_is_only_a_speed_up() -> None:
    # The same mesh in a larger frame, moved by whole pixels, gives the same pixels; also cut off at a border.
    small = torch.zeros(64, 80, 3, dtype=torch.uint8)
    large = torch.zeros(200, 300, 3, dtype=torch.uint8)
    moved = TETRAHEDRON + torch.tensor([90.0, 70, 0])
    expected = overlay_mesh(small, TETRAHEDRON, FACES).int()
    assert (overlay_mesh(large, moved, FACES)[70:134, 90:170].int() - expected).abs().max() <= 1
    cut = overlay_mesh(small[:30, :40], TETRAHEDRON, FACES)
    assert (cut.int() - expected[:30, :40]).abs().max() <= 1


@pytest.mark.parametrize("shift", [-500.0, 500.0, float("nan")])
def test_a_mesh_out_of_view_leaves_the_frame(shift: float) -> None:
    frame = noise()
    assert torch.equal(overlay_mesh(frame, TETRAHEDRON + shift, FACES), frame)


def test_landmarks_are_dots_in_two_colours() -> None:
    frame = torch.zeros(64, 80, 3, dtype=torch.uint8)
    fitted = torch.tensor([[5.0, 5], [float("nan"), 3], [1e9, -1e9]])
    observed = torch.tensor([[70.0, 55], [79.5, 63.5]])
    picture = overlay_mesh(frame, TETRAHEDRON, FACES, 0.5, fitted, observed)
    blue, red = picture[5, 5].int(), picture[55, 70].int()
    assert blue[2] > blue[0]
    assert red[0] > red[2]
    assert picture[63, 79].any()
    assert not picture[5, 12].any()


def test_side_by_side_labels_every_picture() -> None:
    left, right = (
        torch.full((60, 100, 3), 90, dtype=torch.uint8),
        torch.full((40, 50, 3), 90, dtype=torch.uint8),
    )
    row = side_by_side([("input $1", left), ("", right)])
    assert row.shape == (60, 154, 3)
    assert row[:20, :60].max() > 200
    assert torch.equal(row[:40, 104:], right)
    assert left.eq(90).all()
    assert torch.equal(row, side_by_side([("input $1", left), ("", right)]))
    assert side_by_side([("much longer than this picture is wide", right)]).shape == right.shape


def test_contact_sheet_places_pictures_row_by_row() -> None:
    cells = [torch.full((10, 20, 3), value, dtype=torch.uint8) for value in (50, 100, 150)]
    sheet = contact_sheet(cells, 2)
    assert sheet.shape == (24, 44, 3)
    assert [sheet[5, 5, 0].item(), sheet[5, 30, 0].item(), sheet[20, 5, 0].item()] == [50, 100, 150]
    assert contact_sheet(cells, 9).shape == (10, 68, 3)


def test_errors_say_what_was_expected() -> None:
    frame = noise()
    with pytest.raises(InputError, match="opacity"):
        overlay_mesh(frame, TETRAHEDRON, FACES, 1.5)
    with pytest.raises(InputError, match="expected at least one picture"):
        side_by_side([])
    with pytest.raises(InputError, match="columns"):
        contact_sheet([frame], 0)
