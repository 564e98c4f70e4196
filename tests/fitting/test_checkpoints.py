"""Fits that are stopped, and go on where they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from killed_fits import Killed, checkpoint, killed_after
from small_problems import PASSES, disturbed, limited, problem_of, same, turning_heads
from tiny_network import TinyNetwork, pictures

from neuface.errors import InputError
from neuface.fitting.config import FitConfig
from neuface.fitting.direct import fit_direct
from neuface.fitting.loop import fit
from neuface.fitting.parameterisation import FineTunedEncoder, FreeParameters
from neuface.io.checkpoints import CheckpointFile
from neuface.structs import Outcome


@pytest.mark.parametrize("killed", [1, 4, 7])
def test_a_fit_that_was_killed_ends_as_if_it_had_not(tiny_head, tmp_path: Path, killed: int) -> None:
    head = tiny_head()
    problem = problem_of(head, turning_heads(head, 2, 5))
    tuned = FineTunedEncoder(TinyNetwork(head).double(), pictures(2, 5))
    config = limited(8, 1e-2).changed({"m_step.batches.size": 3})
    whole = fit(tuned, head, problem, config)
    with pytest.raises(Killed):
        fit(
            tuned, head, problem, config, killed_after(killed), checkpoints=checkpoint(tmp_path, resume=False)
        )
    reported: list[int] = []
    resumed = fit(
        tuned, head, problem, config, lambda number, _: reported.append(number),
        checkpoints=checkpoint(tmp_path, resume=True),
    )  # fmt: skip
    assert reported[0] == killed
    assert same(resumed.prediction, whole.prediction)
    assert same(resumed.initial, whole.initial)
    assert resumed.history == whole.history
    assert resumed.identity_spread == whole.identity_spread
    assert resumed.outcome is whole.outcome


@pytest.mark.parametrize("killed", [2, 5])
def test_direct_fitting_goes_on_in_the_stage_that_was_killed(tiny_head, tmp_path: Path, killed: int) -> None:
    head = tiny_head()
    truth = turning_heads(head, 1, 5)
    start, problem = FreeParameters(disturbed(truth, 0.05)), problem_of(head, truth)
    config = FitConfig.direct({"m_step.coarse_passes": 3, PASSES: 8, "m_step.stop.patience": 100})
    whole = fit_direct(start, head, problem, config)
    with pytest.raises(Killed):
        fit_direct(
            start, head, problem, config, killed_after(killed), checkpoints=checkpoint(tmp_path, resume=False)
        )
    resumed = fit_direct(start, head, problem, config, checkpoints=checkpoint(tmp_path, resume=True))
    assert same(resumed.prediction, whole.prediction)
    assert resumed.history == whole.history


def test_an_interrupted_fit_returns_its_best_pass(tiny_head) -> None:
    head = tiny_head()
    truth = turning_heads(head, 1, 5)

    def interrupt(number: int, _: dict[str, float]) -> None:
        if number == 3:
            raise KeyboardInterrupt

    start, problem = FreeParameters(disturbed(truth, 0.05)), problem_of(head, truth)
    with pytest.raises(KeyboardInterrupt):
        fit(start, head, problem, limited(8, 1e-2), interrupt)
    found = fit(start, head, problem, limited(8, 1e-2), interrupt, keep_interrupted=True)
    assert found.outcome is Outcome.INTERRUPTED
    assert len(found.history["total"]) == len(found.identity_spread) == 4
    short = fit(start, head, problem, limited(2, 1e-2))
    assert short.history["total"][2] == found.history["total"][2]


def test_checkpoints_of_other_fits_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    file = checkpoint(tmp_path, resume=True)
    assert file.read("fit") is None
    file.offer("fit", lambda: {"weights": torch.ones(2)})
    again = checkpoint(tmp_path, resume=True).read("fit")
    assert again is not None
    assert torch.equal(again["weights"], torch.ones(2))
    assert checkpoint(tmp_path, resume=True).read("coarse") is None
    assert checkpoint(tmp_path, resume=False).read("fit") is None
    with pytest.raises(InputError, match="the checkpoint of another fit"):
        checkpoint(tmp_path, resume=True, key="other").read("fit")
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"checkpoint\.pt cannot be read .*; delete it"):
        file.read("fit")
    file.remove()
    assert not path.exists()


def test_checkpoints_are_written_from_time_to_time(tmp_path: Path) -> None:
    file = CheckpointFile(tmp_path / "checkpoint.pt", "key", resume=True, seconds_between=1e6)
    asked: list[int] = []
    for number in range(3):
        file.offer("fit", lambda number=number: asked.append(number) or {"passes": number})
    assert asked == [0]


class Commands:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_hostile_checkpoint_runs_no_code(tmp_path: Path) -> None:
    path, marker = tmp_path / "checkpoint.pt", tmp_path / "it_ran"
    torch.save({"key": "key", "stage": "fit", "state": Commands(marker)}, path)
    with pytest.raises(InputError, match=r"checkpoint\.pt cannot be read"):
        checkpoint(tmp_path, resume=True).read("fit")
    assert not marker.exists()
    torch.save([1, 2], path)
    with pytest.raises(InputError, match="no checkpoint of this package"):
        checkpoint(tmp_path, resume=True).read("fit")


@pytest.mark.parametrize(
    "part", ["best", "tuned", "optimiser", "step_size", "shuffler", "progress", "passes"]
)
def test_a_checkpoint_of_other_parameters_is_refused(tiny_head, tmp_path: Path, part: str) -> None:
    head = tiny_head()
    truth = turning_heads(head, 1, 4)
    start, problem = FreeParameters(disturbed(truth, 0.05)), problem_of(head, truth)
    with pytest.raises(Killed):
        fit(start, head, problem, limited(8), killed_after(2), checkpoints=checkpoint(tmp_path, resume=False))
    stored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    stored["state"][part] = {"odd": torch.zeros(3)}
    torch.save(stored, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match="the checkpoint is damaged, or of another version"):
        fit(start, head, problem, limited(8), checkpoints=checkpoint(tmp_path, resume=True))
