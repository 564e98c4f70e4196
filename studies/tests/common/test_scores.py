"""Scores of predictions whose error is known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from neuface.head.model import HeadModel
from neuface.io.scans import Scan
from neuface.structs import Prediction, WeakPerspective
from studies.common.cases import Case, CaseSpec, make_case
from studies.common.scores import Scores, scan_error_mm, score, true_stability


def some_camera(views: int, time: int) -> WeakPerspective:
    return WeakPerspective(scale=torch.full((views, time), 9.0), offset=torch.zeros(views, time, 2))


@pytest.fixture(scope="module")
def talking(open_head: HeadModel) -> Case:
    return make_case(
        CaseSpec(kind="synthetic", role="tuning", views=3, number=0, time=4, size_px=64), open_head
    )


@pytest.fixture(scope="module")
def filmed(open_head: HeadModel, template_scan: Scan) -> Case:
    spec = CaseSpec(kind="scan", role="test", views=1, number=0, time=4, size_px=64)
    case = make_case(spec, open_head, template_scan)
    assert case.scan is not None
    # Every eighth point is enough and faster.
    return replace(case, scan=replace(case.scan, face_points=case.scan.face_points[::8]))


def test_the_truth_has_no_error(open_head: HeadModel, talking: Case) -> None:
    assert talking.truth is not None
    found = score(talking, open_head, Prediction(params=talking.truth, camera=some_camera(3, 4)))
    assert found.mpve_mm == pytest.approx(0, abs=1e-3)
    assert found.mpve_scaled_mm == pytest.approx(0, abs=1e-3)
    assert found.mpve_face_mm == pytest.approx(0, abs=1e-3)
    assert found.cvd_mm == pytest.approx(0, abs=1e-3)
    assert found.scan_mm is None
    assert found.scan_scaled_mm is None
    assert found.expression_outside_percent == 0
    assert true_stability(talking, open_head) == pytest.approx(found.msi3d_vertices)


def test_expression_outside_its_range_is_counted(open_head: HeadModel, talking: Case) -> None:
    assert talking.truth is not None
    activations = torch.full_like(talking.truth.expression, 0.5)
    activations[..., :13] = torch.tensor((-0.06, -0.04, 1.04, 1.06)).repeat(4)[:13]
    changed = replace(talking.truth, expression=activations)
    found = score(talking, open_head, Prediction(params=changed, camera=some_camera(3, 4)))
    # Of 13 activations, numbers 0, 4, 8, 12 and 3, 7, 11 exceed the range by more than the tolerance.
    assert found.expression_outside_percent == pytest.approx(100 * 7 / 52, rel=1e-5)


def test_the_scanned_head_itself_has_no_error(open_head: HeadModel, filmed: Case) -> None:
    neutral = Prediction(params=open_head.neutral(1, 4), camera=some_camera(1, 4))
    found = score(filmed, open_head, neutral)
    assert found.scan_mm == pytest.approx(0, abs=1e-3)
    assert found.scan_scaled_mm == pytest.approx(0, abs=1e-3)
    assert [found.mpve_mm, found.mpve_scaled_mm, found.mpve_face_mm, found.cvd_mm] == [None] * 4
    assert true_stability(filmed, open_head) is None


def test_another_head_has_an_error_that_does_not_depend_on_its_pose(
    open_head: HeadModel, filmed: Case
) -> None:
    assert filmed.scan is not None
    other = open_head.neutral(1, 4)
    other = replace(
        other, identity=torch.randn(100, generator=torch.Generator().manual_seed(0)).expand(1, 4, -1)
    )
    frontal = scan_error_mm(open_head, other, filmed.scan, with_scale=False)
    rotated = replace(other, root_rotvec=torch.tensor([0.1, 0.5, 0.0]).expand(1, 4, -1))
    assert 0.5 < frontal < 8
    assert scan_error_mm(open_head, rotated, filmed.scan, with_scale=False) == pytest.approx(
        frontal, rel=1e-4
    )


def test_scores_are_plain_numbers(open_head: HeadModel, filmed: Case) -> None:
    found = score(filmed, open_head, Prediction(params=open_head.neutral(1, 4), camera=some_camera(1, 4)))
    assert isinstance(found, Scores)
    assert all(value is None or type(value) is float for value in vars(found).values())
