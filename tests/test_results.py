"""`FitResult` as data: files, filtering, three lines of text, and the heads and videos that belong to it."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import neuface
from neuface import FitConfig, FitResult, Outcome, Status
from neuface.errors import InputError
from neuface.evaluation.quality import Quality
from neuface.evaluation.world import WorldResult
from neuface.fitting.lens import FocalLength
from neuface.frames import ArraySource
from neuface.geometry.head_perspective import Perspective
from neuface.geometry.perspective import PerspectiveCamera
from neuface.io.npz import read_arrays, write_arrays
from neuface.io.results.plain_values import as_plain
from neuface.landmarks.schemes import IBUG68
from neuface.results.drawing import overlay_pictures
from neuface.results.report import failed_frames
from neuface.structs import Prediction, Selection, TensorStruct, Track, WeakPerspective

VIEWS, TIME = 2, 4
QUALITY_PARTS = [item.name for item in fields(Quality)]


def nested_lists(depth: int) -> Any:
    """A list in a list, `depth` times."""
    return [nested_lists(depth - 1)] if depth else 0


@pytest.fixture(scope="module")
def result() -> FitResult:
    """Random parameters of the open head in two views of different size; nothing was fitted."""
    head = neuface.load_head("open")
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    camera = WeakPerspective(scale=400 + random(VIEWS, TIME), offset=30 + random(VIEWS, TIME, 2))
    neutral = head.neutral(VIEWS, TIME)
    return FitResult(
        identity=random(100),
        expression=random(*neutral.expression.shape),
        root_rotvec=0.1 * random(VIEWS, TIME, 3),
        neck_rotvec=neutral.neck_rotvec,
        jaw_rotvec=neutral.jaw_rotvec,
        eyes_rotvec=neutral.eyes_rotvec,
        camera=camera,
        initial=Prediction(params=replace(neutral, identity=random(VIEWS, TIME, 100)), camera=camera),
        landmarks=Track(
            points_px=60 * random(VIEWS, TIME, 68, 2),
            confidence=random(VIEWS, TIME, 68) * torch.tensor([[1, 1, 0, 1], [1, 1, 1, 1]])[..., None],
            uncertainty_px=random(VIEWS, TIME, 68),
            scheme=IBUG68,
        ),
        status=torch.tensor([[0, 0, Status.NO_FACE, 0], [0, Status.POOR, 0, 0]]),
        quality=Quality(**{name: random(VIEWS, TIME) for name in QUALITY_PARTS}),
        remarks=("left: 3 frames are lost",),
        shot_starts=(0, 2),
        selection=Selection(people=3, number=1, rule="the largest"),
        image_nme_percent=torch.tensor([[1.0, 2.0, torch.nan, 3.0], [1.0, 20.0, 2.0, 2.0]]),
        outcome=Outcome.CONVERGED,
        history={"total": [1.0, 0.5], "landmark": [0.9, 0.3]},
        identity_spread=[0.1, 0.2],
        config=FitConfig.paper({"m_step.stop.max_passes": 1}),
        model="open",
        head_name=head.name,
        head_hash=head.parameter_hash(),
        names=("left", "right"),
        frame_sizes_hw=((48, 64), (32, 40)),
        timestamps_s=torch.arange(TIME, dtype=torch.float64) / 25,
        fps=25.0,
        seconds=1.5,
    )


def same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return first.dtype == second.dtype and torch.equal(first.nan_to_num(-1), second.nan_to_num(-1))
    if isinstance(first, TensorStruct):
        pairs = [(getattr(first, item.name), getattr(second, item.name)) for item in fields(first)]
        return type(first) is type(second) and all(same(*pair) for pair in pairs)
    return first == second


@pytest.mark.parametrize("identity", ["shared", "per image"])
def test_saving_and_loading_give_every_field_back(result: FitResult, tmp_path: Path, identity: str) -> None:
    if identity == "per image":
        result = replace(result, identity=torch.rand(VIEWS, TIME, 100))
    result.save(tmp_path / "talk.npz")
    again = FitResult.load(tmp_path / "talk.npz")
    different = [
        item.name for item in fields(result) if not same(*(getattr(x, item.name) for x in (result, again)))
    ]
    assert different == []
    assert same(again.prediction, result.prediction)
    with np.load(tmp_path / "talk.npz", allow_pickle=False) as archive:
        assert not any(archive[name].dtype.hasobject for name in archive.files)
        assert "identity" in archive.files


def in_world(result: FitResult) -> FitResult:
    """The result before calibrated cameras; nothing fits, but everything is there."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    cameras = PerspectiveCamera(
        K=torch.diag(torch.tensor([50.0, 50.0, 1.0])).repeat(VIEWS, 1, 1),
        distortion=0.1 * random(VIEWS, 5),
        rotation=torch.eye(3).repeat(VIEWS, 1, 1),
        translation=random(VIEWS, 3) + 1,
    )
    world = WorldResult(
        params=result.params[0].unposed().map_tensors(torch.clone),
        rotvec=random(TIME, 3),
        translation=random(TIME, 3),
        scale=torch.tensor(1.02),
        seen=torch.tensor([True, False, True, True]),
        cameras=cameras,
        metric=False,
    )
    return replace(result, world=world)


def test_the_head_in_the_world_is_saved_too(result: FitResult, tmp_path: Path) -> None:
    whole = in_world(result)
    whole.save(tmp_path / "talk.npz")
    again = FitResult.load(tmp_path / "talk.npz")
    assert same(again.world, whole.world)
    arrays = dict(read_arrays(tmp_path / "talk.npz"))
    for name, value, named in [
        ("world.rotvec", None, "world.rotvec is missing"),
        ("world.translation", np.zeros((3, 3), np.float32), "world.translation has the shape"),
        ("world.scale", np.float32(np.nan), "no size in the world"),
    ]:
        damaged = {key: item for key, item in arrays.items() if key != name}
        if value is not None:
            damaged[name] = np.asarray(value)
        write_arrays(tmp_path / "damaged.npz", damaged)
        with pytest.raises(InputError, match=named):
            FitResult.load(tmp_path / "damaged.npz")


def test_a_result_is_read_and_filtered_without_any_model(
    result: FitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(result, model="deca", head_name="flame2020", head_hash="0" * 64).save(tmp_path / "talk.npz")
    monkeypatch.setattr("neuface.models.load_head", lambda *_: pytest.fail("a head was read"))
    again = FitResult.load(tmp_path / "talk.npz")
    assert (again.status == Status.POOR).nonzero().tolist() == [[1, 1]]
    assert again.valid.sum() == 7
    assert [(item["view"], item["frame"], item["status"]) for item in failed_frames(again)] == [
        ("left", 2, "NO_FACE"),
        ("right", 1, "POOR"),
    ]
    assert "model deca" in repr(again)


def test_the_repr_is_three_lines_of_text(result: FitResult) -> None:
    first, second, third = repr(result).splitlines()
    assert first == "FitResult: 4 frames of left 64x48, right 40x32; model open, one identity"
    assert second == "  6 fitted, 1 no face, 1 poor; NME 4.43 %"
    assert third == f"  1 passes in 1.5 s. {Outcome.CONVERGED.value}"


def test_another_head_is_refused(result: FitResult) -> None:
    head = neuface.load_head("open")
    other = replace(head, name="someone's own", template=1.1 * head.template)
    with pytest.raises(neuface.ModelMismatchError, match="someone's own"):
        result.vertices(other)
    with pytest.raises(neuface.ModelMismatchError, match="another shape"):
        result.report(head=other)
    with pytest.raises(neuface.ModelMismatchError, match="another shape"):
        replace(result, head_hash="0" * 64).vertices()
    owned = replace(result, head_name=other.name, head_hash=other.parameter_hash())
    assert float(owned.vertices(other).sub(result.vertices(head)).abs().max()) > 1e-3


def test_the_video_has_to_be_the_one_that_was_fitted(result: FitResult, tmp_path: Path) -> None:
    with pytest.raises(neuface.InputError, match="does not hold its video"):
        result.overlay(tmp_path / "overlay.mp4")
    views = [np.zeros((TIME, *size, 3), np.uint8) for size in result.frame_sizes_hw]
    pictures = list(overlay_pictures(result, neuface.load_head("open"), ArraySource(views)))
    assert len(pictures) == TIME
    for wrong in (views[:1], [view[:3] for view in views], [views[0], views[0]]):
        with pytest.raises(neuface.InputError, match="give the video that was fitted"):
            result.overlay(tmp_path / "overlay.mp4", ArraySource(wrong))


def changed_meta(arrays: dict[str, np.ndarray], **changes: Any) -> dict[str, np.ndarray]:
    meta = json.loads(str(arrays["meta"])) | changes
    kept = {name: value for name, value in meta.items() if value is not None}
    return arrays | {"meta": np.array(json.dumps(kept))}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, "result of format 99, and this version of neuface reads format 3"),
        ({"format": "1"}, "result of format '1'"),
        ({"head_hash": None}, "'meta' lacks head_hash"),
        ({"fps": "25"}, "'meta' lacks fps"),
        ({"names": ["left"]}, "2 view\\(s\\), but 1 name"),
        ({"frame_sizes_hw": [[1, 2], [3]]}, "not a complete"),
        ({"frame_sizes_hw": [[1, 2], [float("inf"), 3]]}, "frame sizes are no positive whole numbers"),
        ({"frame_sizes_hw": [[1, 2], [0, 3]]}, "frame sizes are no positive whole numbers"),
        ({"frame_sizes_hw": [[1, 2], ["a", "b"]]}, "frame sizes are no positive whole numbers"),
        ({"fps": float("nan")}, "frames per second are no positive number"),
        ({"outcome": "LOST"}, "LOST"),
        ({"scheme": "ibug51"}, "unknown landmark scheme 'ibug51'"),
        ({"camera": "Fisheye"}, "camera is of the kind 'Fisheye'"),
        ({"config": {}}, "FitConfig is of the kind None"),
        ({"config": {"kind": "Popen", "args": "true"}}, "FitConfig is of the kind 'Popen'"),
        ({"config": {"kind": "FitConfig"}}, "FitConfig has other fields"),
        (
            {"config": {**as_plain(FitConfig()), "seed": nested_lists(400)}},
            "not a (complete )?neuface result",
        ),
        ({"config": {**as_plain(FitConfig()), "seed": nested_lists(50)}}, "seed"),
    ],
)
def test_a_damaged_description_is_refused(
    result: FitResult, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = tmp_path / "talk.npz"
    result.save(path)
    write_arrays(path, changed_meta(read_arrays(path), **changes))
    with pytest.raises(neuface.InputError, match=message):
        FitResult.load(path)


def test_a_head_that_cannot_be_found_by_name_is_asked_for(
    result: FitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model may have been loaded from another folder than the default one."""
    monkeypatch.setenv("NEUFACE_ASSETS", str(tmp_path))
    with pytest.raises(neuface.InputError, match=r"give it, as in result\.vertices\(model\.head\)"):
        replace(result, model="deca").vertices()
    assert replace(result, model="deca").vertices(neuface.load_head("open")).shape[:2] == (VIEWS, TIME)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("meta", None, "no readable 'meta'"),
        ("camera.scale", None, "camera.scale is missing"),
        (
            "expression",
            np.zeros((VIEWS, 3, 52), "f4"),
            r"expression has the shape \(2, 3, 52\) instead of \(2, 4, 52\)",
        ),
        ("identity", np.zeros(90, "f4"), r"identity has the shape \(90,\) instead of \(100\)"),
        ("timestamps_s", np.zeros(3), r"timestamps_s has the shape \(3,\) instead of \(4\)"),
        ("root_rotvec", np.zeros((VIEWS, TIME, 3), "i4"), "root_rotvec has the type int32"),
        ("status", np.full((VIEWS, TIME), 8, "i1"), "status holds numbers"),
        ("history.total", np.zeros(5), "history"),
        ("history.total", None, "history"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    result: FitResult, tmp_path: Path, name: str, array: np.ndarray | None, message: str
) -> None:
    path = tmp_path / "talk.npz"
    result.save(path)
    arrays = read_arrays(path) | {name: array}
    write_arrays(path, {key: value for key, value in arrays.items() if value is not None})
    with pytest.raises(neuface.InputError, match=message):
        FitResult.load(path)


def test_a_cut_off_file_is_refused(result: FitResult, tmp_path: Path) -> None:
    path = tmp_path / "talk.npz"
    result.save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(neuface.InputError, match="not a readable npz"):
        FitResult.load(path)


# --- Cameras


def test_vertices_are_projected_to_frame_pixels(result: FitResult) -> None:
    found = result.project()
    expected = result.camera.project(result.vertices())
    assert torch.equal(found, expected)
    assert found.shape[:2] == (VIEWS, TIME)


@pytest.mark.parametrize("focal_px", [900.0, 1e6])
def test_perspective_cameras_see_the_origin_where_the_fit_does(result: FitResult, focal_px: float) -> None:
    cameras = result.cameras(focal_px)
    origin = torch.zeros(VIEWS, TIME, 1, 3)
    torch.testing.assert_close(cameras.project(origin)[..., 0, :], result.camera.position, atol=1e-2, rtol=0)
    # OpenCV: K (R x + t), divided by the last row.
    point = torch.tensor([0.02, 0.04, 0.06])
    in_camera = cameras.rotation[1, 2] @ point + cameras.translation[1, 2]
    seen = cameras.K[1, 2] @ in_camera
    torch.testing.assert_close(
        cameras.project(point.expand(VIEWS, TIME, 1, 3))[1, 2, 0], (seen / seen[2])[:2]
    )
    depth = focal_px / result.camera.magnification
    torch.testing.assert_close(cameras.translation[..., 2], depth)
    # The head is turned as seen along the line of sight: its z axis points along it, towards the camera.
    towards = -cameras.translation / cameras.translation.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(cameras.rotation[..., 2], towards)
    assert cameras.K[1, 0, 0, 2] == (result.frame_sizes_hw[1][1] - 1) / 2


def test_perspective_cameras_are_given_as_they_were_fitted(result: FitResult, tmp_path: Path) -> None:
    weak = result.camera
    focal = torch.full_like(weak.magnification, 800.0)
    near = replace(
        result,
        camera=Perspective(
            scale=weak.magnification, offset=weak.position, focal=focal, principal=weak.position - 30
        ),
        initial=replace(
            result.initial,
            camera=Perspective(
                scale=weak.magnification, offset=weak.position, focal=focal, principal=weak.position
            ),
        ),
        focal=tuple(FocalLength(px=800.0, source="landmarks", relative_std=0.1) for _ in range(VIEWS)),
    )
    vertices = near.vertices()
    torch.testing.assert_close(near.cameras().project(vertices), near.project(), atol=1e-2, rtol=0)
    near.save(tmp_path / "near.npz")
    again = FitResult.load(tmp_path / "near.npz")
    assert again.focal == near.focal
    assert torch.equal(again.project(), near.project())
    assert torch.equal(again.initial.camera.project(vertices), near.initial.camera.project(vertices))
    with pytest.raises(neuface.InputError, match="fitted with a focal length"):
        near.cameras(900.0)


def test_weak_perspective_cameras_need_a_focal_length(result: FitResult) -> None:
    with pytest.raises(neuface.InputError, match="state one, focal_px="):
        result.cameras()


def test_with_a_long_focal_length_both_cameras_agree_on_the_whole_head(result: FitResult) -> None:
    vertices = result.vertices()
    far = result.cameras(1e7).to(torch.float64).project(vertices.double())
    assert float((far - result.project()).abs().max()) < 0.05


def test_a_focal_length_must_be_positive(result: FitResult) -> None:
    with pytest.raises(neuface.InputError, match="focal_px must be a positive number of pixels, got 0"):
        result.cameras(0.0)
