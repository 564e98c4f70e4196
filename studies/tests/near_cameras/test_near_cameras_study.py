"""The figures of the study of near cameras: none for the truth itself, and a turn is measured in degrees."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import neuface
from neuface.geometry.rotations import compose_rotvecs
from neuface.models import load_head
from neuface.synthetic.clips import make_talking_clip
from studies.near_cameras.__main__ import figures


def test_the_truth_has_no_error_and_a_turned_head_that_of_its_turn() -> None:
    head = load_head("open")
    clip = make_talking_clip(
        head, torch.zeros(head.num_identity), view_yaw_deg=(0.0,), time=3, size_px=64, distance_m=0.5
    )
    fitted = neuface.optimize(
        neuface.read_clip(clip.frames, clip.landmarks_px, fps=clip.fps),
        config=neuface.FitConfig.best({"m_step.stop.max_passes": 1}),
        progress=False,
    )
    truth = clip.truth
    exact = replace(
        fitted,
        identity=truth.identity[0, 0],
        expression=truth.expression,
        root_rotvec=truth.root_rotvec,
        neck_rotvec=truth.neck_rotvec,
        jaw_rotvec=truth.jaw_rotvec,
        eyes_rotvec=truth.eyes_rotvec,
    )
    none = figures(head, exact, clip)
    assert none["face_mm"] < 1e-3
    assert none["shape_mm"] < 1e-3
    assert none["turn_deg"] < 0.05
    turn = torch.tensor([0.0, math.radians(3.0), 0.0]).expand_as(truth.root_rotvec)
    turned = replace(exact, root_rotvec=compose_rotvecs(turn, truth.root_rotvec))
    found = figures(head, turned, clip)
    assert found["turn_deg"] == pytest.approx(3.0, abs=0.01)
    # The face is compared after the best similarity.
    assert found["face_mm"] < 1e-2
