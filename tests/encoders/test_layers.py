"""Layers are initialised as torch's are, and not at all on the meta device."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from neuface.encoders import layers

PAIRS = [(layers.Conv2d, nn.Conv2d, (3, 4, 3)), (layers.BatchNorm2d, nn.BatchNorm2d, (5,)),
         (layers.Linear, nn.Linear, (3, 4))]  # fmt: skip


@pytest.mark.parametrize(("own", "torchs", "sizes"), PAIRS)
def test_a_layer_is_initialised_as_torchs(
    own: type[nn.Module], torchs: type[nn.Module], sizes: tuple[int, ...]
) -> None:
    states = []
    for kind in (own, torchs):
        torch.manual_seed(3)
        states.append(kind(*sizes).state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])


@pytest.mark.parametrize(("own", "torchs", "sizes"), PAIRS)
def test_nothing_is_drawn_on_the_meta_device(
    own: type[nn.Module], torchs: type[nn.Module], sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[bool] = []
    monkeypatch.setattr(torchs, "reset_parameters", lambda _: drawn.append(True))
    with torch.device("meta"):
        layer = own(*sizes)
    assert not drawn
    assert {name: tensor.shape for name, tensor in layer.state_dict().items()} == {
        name: tensor.shape for name, tensor in torchs(*sizes).state_dict().items()
    }
    assert all(tensor.is_meta for tensor in layer.state_dict().values())
    own(*sizes)
    assert drawn
