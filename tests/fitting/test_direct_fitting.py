"""Direct fitting: free parameters, coarse to fine."""

from __future__ import annotations

from dataclasses import replace

import torch
from small_problems import (
    PASSES,
    RATE,
    disturbed,
    problem_of,
    same,
    turning_heads,
)

from neuface.fitting.config import FitConfig
from neuface.fitting.direct import fit_direct
from neuface.fitting.loop import fit
from neuface.fitting.parameterisation import FreeParameters
from neuface.geometry.rotations import rotation_angle_rad

COARSE, PATIENCE = "m_step.coarse_passes", "m_step.stop.patience"


def test_coarse_comes_before_fine(tiny_head) -> None:
    """Orientation and camera first, then all but the camera; the encoder's prediction is where both start."""
    head = tiny_head()
    truth = turning_heads(head, 1, 6)
    start = disturbed(truth, 0.05)
    start = replace(start, params=replace(start.params, identity=start.params.identity - 0.4))
    problem = problem_of(head, truth)
    coarse_only = FitConfig.direct({COARSE: 30, PASSES: 31, RATE: 1e-2, PATIENCE: 100})
    # max_passes leaves one pass for the second stage.
    first = fit_direct(FreeParameters(start), head, problem, coarse_only)
    whole = fit_direct(FreeParameters(start), head, problem, coarse_only.changed({PASSES: 90}))
    torch.testing.assert_close(whole.prediction.camera.magnification, first.prediction.camera.magnification)
    torch.testing.assert_close(whole.prediction.camera.position, first.prediction.camera.position)
    assert not torch.equal(whole.prediction.camera.magnification, start.camera.magnification)
    assert not torch.equal(whole.prediction.params.identity, start.params.identity)
    assert same(whole.initial, FreeParameters(start).predict(torch.arange(6)).unflatten_batch((1, 6)))
    assert len(whole.history["total"]) == len(whole.identity_spread) == 1 + 30 + 60
    angle = rotation_angle_rad(whole.prediction.params.root_rotvec, truth.params.root_rotvec)
    before = rotation_angle_rad(start.params.root_rotvec, truth.params.root_rotvec)
    assert float(angle.mean()) < 0.5 * float(before.mean())


def test_direct_fitting_all_at_once_is_the_loop_with_free_parameters(tiny_head) -> None:
    head = tiny_head()
    truth = turning_heads(head, 1, 5)
    start = disturbed(truth, 0.05)
    problem = problem_of(head, truth)
    config = FitConfig.direct({COARSE: 0, PASSES: 5, RATE: 1e-2})
    direct = fit_direct(FreeParameters(start), head, problem, config)
    looped = fit(FreeParameters(start), head, problem, config)
    assert same(direct.prediction, looped.prediction)


def test_the_progress_of_both_stages_is_one_count(tiny_head) -> None:
    head = tiny_head()
    truth = turning_heads(head, 1, 4)
    reported: list[int] = []
    config = FitConfig.direct({COARSE: 3, PASSES: 7, RATE: 1e-2, PATIENCE: 100})
    start = FreeParameters(disturbed(truth, 0.05))
    found = fit_direct(
        start, head, problem_of(head, truth), config, lambda number, _: reported.append(number)
    )
    assert reported == sorted(reported)
    assert reported[-1] == 7
    assert len(found.history["total"]) == 1 + 7
