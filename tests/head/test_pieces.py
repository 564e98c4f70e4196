"""Many heads, decoded a few at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from neuface.head import pieces
from neuface.head.model import HeadModel
from neuface.head.pieces import in_pieces
from neuface.structs import HeadParams


@pytest.mark.parametrize("batch", [(), (1,), (2, 7), (1, 8)])
def test_pieces_are_bounded_and_give_what_all_heads_at_once_give(
    open_head: HeadModel, batch: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "MESHES_PER_CHUNK", 4)
    params = open_head.neutral(*batch)
    generator = torch.Generator().manual_seed(0)
    params = replace(params, expression=torch.rand(params.expression.shape, generator=generator))
    sizes = []

    def decode(some: HeadParams) -> Tensor:
        sizes.append(len(some.root_rotvec))
        return open_head.landmarks(some, "ibug68")

    found = in_pieces(decode, params)
    assert max(sizes) <= 4
    torch.testing.assert_close(found, open_head.landmarks(params, "ibug68"))
