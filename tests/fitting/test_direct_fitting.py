"""Direct fitting: free parameters, coarse to fine."""

from __future__ import annotations

from dataclasses import replace

import torch
from small_problems import (
    disturbed,
    problem_of,
    same,
    turning_heads,
)

from neuface.fitting.config import FitConfig
from neuface.fitting.direct import FreeParameters, fit_direct
from neuface.fitting.loop import fit
from neuface.geometry.rotations import rotation_angle_rad


def test_coarse_comes_before_fine(tiny_head) -> None:
    """Orientation and camera first, then all but the camera; the encoder's prediction is where both start."""
    head = tiny_head()
    truth = turning_heads(head, 1, 6)
    start = disturbed(truth, 0.05)
    start = replace(start, params=replace(start.params, identity=start.params.identity - 0.4))
    problem = problem_of(head, truth)
    coarse_only = FitConfig.direct(coarse_passes=30, max_passes=31, learning_rate=1e-2, patience=100)
    # max_passes leaves one pass for the second stage.
    first = fit_direct(FreeParameters(start), head, problem, coarse_only)
    whole = fit_direct(FreeParameters(start), head, problem, replace(coarse_only, max_passes=90))
    torch.testing.assert_close(whole.prediction.camera.magnification, first.prediction.camera.magnification)
    torch.testing.assert_close(whole.prediction.camera.position, first.prediction.camera.position)
    assert not torch.equal(whole.prediction.camera.magnification, start.camera.magnification)
    assert not torch.equal(whole.prediction.params.identity, start.params.identity)
    assert same(whole.initial, FreeParameters(start)(problem.inputs.flatten(0, 1)).unflatten_batch((1, 6)))
    assert len(whole.history["total"]) == len(whole.identity_spread) == 1 + 30 + 60
    angle = rotation_angle_rad(whole.prediction.params.root_rotvec, truth.params.root_rotvec)
    before = rotation_angle_rad(start.params.root_rotvec, truth.params.root_rotvec)
    assert float(angle.mean()) < 0.5 * float(before.mean())


def test_direct_fitting_all_at_once_is_the_loop_with_free_parameters(tiny_head) -> None:
    head = tiny_head()
    truth = turning_heads(head, 1, 5)
    start = disturbed(truth, 0.05)
    problem = problem_of(head, truth)
    config = FitConfig.direct(coarse_passes=0, max_passes=5, learning_rate=1e-2)
    direct = fit_direct(FreeParameters(start), head, problem, config)
    looped = fit(FreeParameters(start), head, problem, config)
    assert same(direct.prediction, looped.prediction)


def test_the_progress_of_both_stages_is_one_count(tiny_head) -> None:
    head = tiny_head()
    truth = turning_heads(head, 1, 4)
    told: list[int] = []
    config = FitConfig.direct(coarse_passes=3, max_passes=7, learning_rate=1e-2, patience=100)
    start = FreeParameters(disturbed(truth, 0.05))
    found = fit_direct(start, head, problem_of(head, truth), config, lambda number, _: told.append(number))
    assert told == sorted(told)
    assert told[-1] == 7
    assert len(found.history["total"]) == 1 + 7
