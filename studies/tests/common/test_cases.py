"""The studies' clips are reproducible, show people who occur in no training or tuning, and have exact truth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import roma
import torch

from neuface.errors import InputError
from neuface.head.model import HeadModel
from neuface.io.scans import Scan
from neuface.synthetic.clips import head_motion
from neuface.synthetic.people import demo_identity
from neuface.synthetic.scan_clips import film_scan, paint_scan
from studies.common.cases import ALIGNING_POINTS, CaseSpec, make_case, person, upright


def spec(**changes: Any) -> CaseSpec:
    fields: dict[str, Any] = {
        "kind": "synthetic", "role": "test", "views": 1, "number": 0, "time": 4, "size_px": 96,
    }  # fmt: skip
    return CaseSpec(**{**fields, **changes})


def test_names_and_seeds_differ() -> None:
    specs = [
        spec(kind=kind, role=role, views=views, number=number)
        for kind, role in (("synthetic", "test"), ("synthetic", "tuning"), ("scan", "test"))
        for views in (1, 3)
        for number in range(30)
    ]
    assert len({item.name for item in specs}) == len(specs)
    assert len({item.clip_seed for item in specs}) == len(specs)
    assert {item.group for item in specs} == {
        "synthetic_1view", "synthetic_3views", "scan_1view", "scan_3views",
    }  # fmt: skip
    # The seeds are above all seeds of the training pictures (tens of millions) and of the demo's person.
    assert min(min(item.person_seed, item.clip_seed) for item in specs) > 1_000_000_000
    yaws = [item.view_yaw_deg() for item in specs if item.views == 1]
    assert all(len(yaw) == 1 and abs(yaw[0]) <= 25 for yaw in yaws)
    assert len(set(yaws)) == len(yaws)


def test_people_of_all_cases_differ_from_each_other_and_from_the_demo() -> None:
    people = [
        person(spec(role=role, number=number).person_seed)
        for role in ("test", "tuning")
        for number in range(5)
    ]
    everyone = torch.stack([*people, demo_identity()])
    apart = torch.cdist(everyone, everyone) + 1e3 * torch.eye(len(everyone))
    assert float(apart.min()) > 2.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "photo"}, "no 'test' clips of kind 'photo'"),
        ({"kind": "scan", "role": "tuning"}, "no 'tuning' clips of kind 'scan'"),
        ({"views": 2}, "views: expected 1 or 3, got 2"),
        ({"number": -1}, "number: expected 0 to"),
        ({"time": 3}, "at least 4 frames"),
        ({"condition": "harder"}, "no 'harder' clips of kind 'synthetic': expected clean or hard"),
        ({"kind": "scan", "condition": "hard"}, "no 'hard' clips of kind 'scan': expected clean"),
    ],
)
def test_clips_that_do_not_exist_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        spec(**changes)


def test_a_synthetic_case_is_the_same_every_time(open_head: HeadModel) -> None:
    first, again = make_case(spec(), open_head), make_case(spec(), open_head)
    assert first.clip.recording.frames.read(0, 0, 4).equal(again.clip.recording.frames.read(0, 0, 4))
    assert first.clip.track.points_px.equal(again.clip.track.points_px)
    assert first.scan is None
    assert first.truth is not None
    torch.testing.assert_close(first.truth.identity[0, 0], person(spec().person_seed))


def test_a_clean_clip_has_its_name_and_its_seeds() -> None:
    """Names and seeds do not depend on the condition, so that stored results stay valid."""
    clean = spec(views=3, number=7)
    assert clean == spec(views=3, number=7, condition="clean")
    assert (clean.name, clean.group) == ("test_synthetic_3views_07", "synthetic_3views")
    assert (clean.person_seed, clean.clip_seed) == (1_200_000_007, 1_203_000_007)


def test_hard_clips_have_names_and_seeds_of_their_own() -> None:
    twins = [
        (
            spec(role=role, views=views, number=number),
            spec(role=role, views=views, number=number, condition="hard"),
        )
        for role in ("test", "tuning")
        for views in (1, 3)
        for number in range(20)
    ]
    assert len({item.name for pair in twins for item in pair}) == 2 * len(twins)
    clean_groups, hard_groups = ({pair[index].group for pair in twins} for index in (0, 1))
    assert hard_groups == {"hard_synthetic_1view", "hard_synthetic_3views"}
    # No group is the beginning of another one's name.
    assert not any(hard.startswith(clean) for hard in hard_groups for clean in clean_groups)
    assert all(hard.clip_seed == clean.clip_seed for clean, hard in twins)
    every = [
        seed for clean, hard in twins for seed in (clean.person_seed, clean.clip_seed, hard.corruption_seed)
    ]
    people = 2 * 20
    assert len(set(every)) == people + 2 * len(twins)


@pytest.mark.parametrize("views", [1, 3])
def test_a_hard_clip_is_its_clean_twin_with_damage(open_head: HeadModel, views: int) -> None:
    clean = make_case(spec(views=views, time=5, size_px=64), open_head)
    hard = make_case(spec(views=views, time=5, size_px=64, condition="hard"), open_head)
    assert clean.truth is not None
    assert hard.truth is not None
    for name in ("identity", "expression", "root_rotvec"):
        assert getattr(hard.truth, name).equal(getattr(clean.truth, name))
    assert clean.damage is None
    assert hard.damage is not None
    assert clean.true_landmarks_px is not None
    assert hard.true_landmarks_px is not None
    assert hard.true_landmarks_px.equal(clean.true_landmarks_px)
    # Landmarks of the clean clip have white noise of 0.6 px.
    assert 0.5 < float((clean.clip.track.points_px - clean.true_landmarks_px).std()) < 0.7
    # Frames differ wherever the face is recorded as hidden, but not everywhere.
    frames = [
        torch.stack([item.clip.recording.frames.read(view, 0, 5) for view in range(views)])
        for item in (clean, hard)
    ]
    changed = (frames[0] != frames[1]).flatten(2).any(-1)
    assert bool(changed[hard.damage.hidden.any(-1)].all())
    assert bool(changed.any())
    assert not bool(changed.all())
    assert hard.clip.track.usable.equal(~hard.damage.lost)
    # Every view has one frame without landmarks.
    assert hard.damage.lost.sum(1).tolist() == [1] * views


def test_a_scan_case_needs_a_scan(open_head: HeadModel) -> None:
    with pytest.raises(InputError, match="no scan was given"):
        make_case(spec(kind="scan"), open_head)


def test_a_rotated_scan_is_set_upright(open_head: HeadModel, template_scan: Scan) -> None:
    rotmat = roma.rotvec_to_rotmat(torch.tensor([0.3, -1.0, 0.2]))
    rotated = replace(
        template_scan,
        vertices=template_scan.vertices @ rotmat.mT + 0.5,
        landmarks=template_scan.landmarks @ rotmat.mT + 0.5,
    )
    found = upright(rotated, open_head)
    torch.testing.assert_close(found.vertices, template_scan.vertices, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.landmarks, template_scan.landmarks, rtol=0, atol=1e-5)


def test_a_scan_case_has_the_face_as_its_truth(open_head: HeadModel, template_scan: Scan) -> None:
    case = make_case(spec(kind="scan", views=3), open_head, template_scan)
    assert (case.clip.views, case.clip.time) == (3, 4)
    assert case.truth is None
    assert case.scan is not None
    assert case.scan.landmarks.shape == (len(ALIGNING_POINTS), 3)
    # The points are of the face, without the back of the head and the neck.
    nose = case.scan.face_points[case.scan.face_points[:, 2].argmax()]
    assert float(torch.linalg.vector_norm(case.scan.face_points - nose, dim=-1).max()) < 0.11
    assert 500 < len(case.scan.face_points) < open_head.num_vertices


# --- Rendered clips of the scan


def test_landmarks_of_a_rendered_scan_are_projected_and_hidden_ones_missing(
    open_head: HeadModel, template_scan: Scan
) -> None:
    frames, marks = film_scan(
        template_scan, view_yaw_deg=(-35.0, 0.0, 35.0), time=4, size_px=96, noise_px=0.0, seed=5
    )
    assert frames.shape == (3, 4, 96, 96, 3)
    motion = head_motion(4, torch.Generator().manual_seed(5))
    rotmat = roma.rotvec_to_rotmat(motion[2])
    posed = (template_scan.landmarks - template_scan.landmarks.mean(0)) @ rotmat.mT
    # 6 half-widths of 48 px per metre; the picture's middle is pixel 47.5.
    expected = 47.5 + 6 * 48 * posed[:, :2] * torch.tensor([1.0, -1.0])
    torch.testing.assert_close(marks[1, 2, 17:], expected[17:], rtol=0, atol=1e-3)
    # Rotation to the picture's right hides the subject's left cheek (points 9 to 16), rotation to the left the right
    # one.
    missing = marks.isnan().any(-1)
    assert bool(missing[2, :, 12:16].all())
    assert bool(missing[0, :, 1:5].all())
    assert not bool(missing[2, :, 2:7].any())
    assert not bool(missing[..., 17:].any())


def test_a_near_camera_enlarges_what_is_near(template_scan: Scan) -> None:
    films = {
        distance_m: film_scan(
            template_scan,
            view_yaw_deg=(0.0,),
            time=2,
            size_px=96,
            noise_px=0.0,
            distance_m=distance_m,
            seed=5,
        )
        for distance_m in (None, 1e5, 0.4)
    }
    torch.testing.assert_close(films[1e5][1], films[None][1], rtol=0, atol=1e-2, equal_nan=True)
    turn = roma.rotvec_to_rotmat(head_motion(2, torch.Generator().manual_seed(5)))
    posed = (template_scan.landmarks - template_scan.landmarks.mean(0)) @ turn.mT
    expected = 47.5 + (films[None][1][0] - 47.5) * 0.4 / (0.4 - posed[..., 2:])
    torch.testing.assert_close(films[0.4][1][0], expected, rtol=0, atol=1e-3, equal_nan=True)
    # The same backdrop and light; only the head differs.
    assert torch.equal(films[0.4][0][..., 0, :, :], films[None][0][..., 0, :, :])
    assert not torch.equal(films[0.4][0], films[None][0])


def test_noise_is_independent_per_frame_and_has_the_stated_deviation(template_scan: Scan) -> None:
    marks = [
        film_scan(template_scan, view_yaw_deg=(0.0,), time=8, size_px=64, noise_px=noise, seed=1)[1]
        for noise in (0.0, 0.6)
    ]
    noise = (marks[1] - marks[0])[0, :, 17:]
    assert 0.55 < float(noise.std()) < 0.65
    assert float((noise[0] - noise[1]).std()) > 0.7


def test_the_texture_has_the_right_orientation() -> None:
    """A square that faces the camera shows red at the upper left, green at the upper right, blue at the lower
    left.
    """
    picture = torch.zeros(8, 8, 3, dtype=torch.uint8)
    picture[:4, :4, 0] = picture[:4, 4:, 1] = picture[4:, :4, 2] = 200
    corners = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    scan = Scan(
        vertices=corners,
        faces=faces,
        uv=(corners[:, :2] + 1) / 2,
        uv_faces=faces,
        texture=picture,
        landmarks=torch.zeros(68, 3),
    )
    # In crop NDC y and z have the opposite signs; the square fills the frame.
    ndc = (corners * torch.tensor([1.0, -1.0, -1.0]))[None]
    colors, cover = paint_scan(scan, ndc, torch.tensor([0.0, 0.0, -1.0]), 0.0, 16)
    assert bool((cover == 1).all())
    lit = (colors[0, [4, 4, 11, 11], [4, 11, 4, 11]] * 255).round().tolist()
    assert lit == [[200, 0, 0], [0, 200, 0], [0, 0, 200], [0, 0, 0]]
