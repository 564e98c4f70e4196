"""The derivatives of unposed landmarks by both codes, against differences of landmarks, which are linear in them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from neuface.fitting.landmark_derivatives import landmark_derivatives


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("with_lids", [False, True])
@pytest.mark.parametrize("scheme", ["ibug68", "mediapipe478"])
def test_derivatives_are_differences(
    tiny_head, random_params, scheme: str, with_lids: bool, turned: bool
) -> None:
    """The contour of iBUG slides; offsets of lids do not turn with the joints; joints turn or are at rest."""
    head = tiny_head()
    if with_lids:
        generator = torch.Generator().manual_seed(3)
        lids = 0.003 * torch.randn(head.num_vertices, 3, 2, generator=generator, dtype=torch.float64)
        head = replace(head, posed_basis=lids)
    params = random_params(head, 4)
    if not turned:
        rest = head.neutral(4)
        params = replace(
            params,
            neck_rotvec=rest.neck_rotvec,
            jaw_rotvec=rest.jaw_rotvec,
            eyes_rotvec=rest.eyes_rotvec,
        )
    found = head.landmark_derivatives(params, scheme)
    unposed = params.unposed()
    before = head.landmarks(unposed, scheme, facing=params)
    columns = []
    for name in ("identity", "expression"):
        code = getattr(unposed, name)
        for number in range(code.shape[-1]):
            unit = torch.zeros_like(code)
            unit[:, number] = 1.0
            moved = replace(unposed, **{name: code + unit})
            columns.append(head.landmarks(moved, scheme, facing=params) - before)
    torch.testing.assert_close(found, torch.stack(columns, -1))


@pytest.mark.parametrize("scheme", ["ibug68", "mediapipe478"])
def test_images_of_one_kind_share_their_derivatives(tiny_head, random_params, scheme: str) -> None:
    """The jaw's columns are those of rotation vectors; images of one jaw and one row of the contour are one kind."""
    head = tiny_head()
    params = random_params(head, 2, 3)
    still = head.neutral(2, 3)
    # The views share the person, the expression and the jaw.
    params = replace(
        still,
        **{
            name: getattr(params, name)[:1].expand_as(getattr(params, name)).clone()
            for name in ("identity", "expression", "jaw_rotvec")
        },
    )
    found = landmark_derivatives(head, params, scheme)
    assert torch.equal(found.kind[0], found.kind[1])
    assert len(found.kind.unique()) == 3
    flat, kind = params.flatten_batch(2), found.kind.flatten()
    expected = head.landmark_derivatives(flat, scheme)
    torch.testing.assert_close(found.by_identity[kind], expected[..., : head.num_identity])
    size = head.num_expression
    torch.testing.assert_close(found.by_expression[kind][..., :size], expected[..., head.num_identity :])
    step = 1e-5
    for axis in range(3):
        turn = step * torch.eye(3, dtype=torch.float64)[axis]
        later, earlier = (
            head.landmarks(replace(flat.unposed(), jaw_rotvec=flat.jaw_rotvec + by), scheme, facing=flat)
            for by in (turn, -turn)
        )
        difference = (later - earlier) / (2 * step)
        torch.testing.assert_close(
            found.by_expression[kind][..., size + axis], difference, atol=1e-7, rtol=1e-4
        )
