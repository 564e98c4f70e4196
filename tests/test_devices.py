"""Threads: one for each operation, several for the pieces of large work, and the caller's number afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from small_problems import turning_heads

import neuface
from neuface import pipeline
from neuface.devices import cpu_threads, map_pieces, one_thread_per_operation
from neuface.errors import InputError
from neuface.fitting.config import FitConfig
from neuface.fitting.parameterisation import IMAGES_OF_A_PIECE, FreeParameters, Parameterisation, predict_clip
from neuface.head.model import HeadModel
from neuface.structs import Prediction


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    with cpu_threads(3):
        yield


def test_the_callers_number_of_threads_returns_after_an_error() -> None:
    with one_thread_per_operation():
        assert torch.get_num_threads() == 1
    with pytest.raises(ZeroDivisionError), one_thread_per_operation():
        raise ZeroDivisionError
    assert torch.get_num_threads() == 3
    with pytest.raises(ZeroDivisionError), cpu_threads(2):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 3


def test_less_than_one_thread_is_refused() -> None:
    with pytest.raises(InputError, match="at least 1, got 0"), cpu_threads(0):
        pass


def test_pieces_are_computed_at_the_same_time_and_returned_in_order() -> None:
    everyone = threading.Barrier(3, timeout=30)

    def meet(piece: int) -> tuple[int, int]:
        everyone.wait()
        return piece, torch.get_num_threads()

    with one_thread_per_operation(), one_thread_per_operation():
        assert map_pieces(meet, [5, 6, 7]) == [(5, 1), (6, 1), (7, 1)]


def test_pieces_are_computed_one_by_one_outside_of_the_block() -> None:
    main = threading.get_ident()
    assert set(map_pieces(lambda _: threading.get_ident(), [1, 2, 3])) == {main}
    with cpu_threads(1), one_thread_per_operation():
        assert set(map_pieces(lambda _: threading.get_ident(), [1, 2, 3])) == {main}


@pytest.mark.parametrize("recorded", [True, False])
def test_pieces_record_gradients_as_their_caller_does(recorded: bool) -> None:
    weight = torch.ones((), requires_grad=True)
    with one_thread_per_operation(), torch.set_grad_enabled(recorded):
        products = map_pieces(lambda factor: weight * factor, [2.0, 3.0])
    assert [item.requires_grad for item in products] == [recorded] * 2
    if recorded:
        torch.stack(products).sum().backward()
        assert weight.grad == 5


def test_the_error_of_a_piece_is_raised() -> None:
    with one_thread_per_operation(), pytest.raises(ZeroDivisionError):
        map_pieces(lambda divisor: 1 / divisor, [1, 0])


def test_predictions_do_not_depend_on_the_number_of_threads(open_head: HeadModel) -> None:
    time = 2 * IMAGES_OF_A_PIECE + 1
    free = FreeParameters(turning_heads(open_head, 1, time))
    seen = Watched(free)
    alone = predict_clip(seen, (1, time), time)
    with one_thread_per_operation():
        together = predict_clip(seen, (1, time), time)
    assert torch.equal(alone.params.root_rotvec, together.params.root_rotvec)
    assert sorted(seen.sizes) == [1, 1, *[IMAGES_OF_A_PIECE] * 4]


class Watched(Parameterisation):
    """Parameters that note how many images are predicted at a time."""

    def __init__(self, free: FreeParameters) -> None:
        super().__init__()
        self.free, self.sizes = free, []

    def predict(self, index: torch.Tensor) -> Prediction:
        self.sizes.append(len(index))
        return self.free.predict(index)

    def copy(self) -> Watched:
        return Watched(self.free.copy())


def test_a_fit_computes_in_one_thread_and_restores_the_callers_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = []

    def stop(*_: object, **__: object) -> None:
        threads.append(torch.get_num_threads())
        raise ZeroDivisionError

    monkeypatch.setattr(pipeline, "model_inputs", stop)
    frames, points = torch.zeros(4, 64, 64, 3, dtype=torch.uint8), torch.rand(4, 68, 2) * 30 + 10
    with pytest.raises(ZeroDivisionError):
        neuface.optimize(frames, landmarks=points, config=FitConfig(), progress=False)
    assert (threads, torch.get_num_threads()) == ([1], 3)
