"""Strict loading: a network gets exactly the weights it needs, or an error says what does not fit."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

from torch import Tensor, nn

from neuface.errors import InputError

MOST_NAMED = 20


def refuse_misfits(
    path: str | os.PathLike[str], found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], owner: str
) -> None:
    """Raise one InputError that lists every missing, unexpected, misshapen, mistyped or infinite tensor.

    Args:
        owner: what the tensors are for, as it stands in the message.
    """
    common = sorted(wanted.keys() & found.keys())
    shaped = [name for name in common if found[name].shape == wanted[name].shape]
    problems = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unexpected": sorted(found.keys() - wanted.keys()),
        "misshapen": [
            f"{name} {tuple(found[name].shape)} instead of {tuple(wanted[name].shape)}"
            for name in common
            if name not in shaped
        ],
        "mistyped": [
            f"{name} {found[name].dtype} instead of {wanted[name].dtype}"
            for name in shaped
            if found[name].is_floating_point() != wanted[name].is_floating_point()
        ],
        # Only where the shape fits: a tensor that claims a huge shape would fill the memory here.
        "not finite": [name for name in shaped if not _all_finite(found[name])],
    }
    if any(problems.values()):
        listed = "; ".join(f"{kind}: {_some(names)}" for kind, names in problems.items() if names)
        raise InputError(
            f"{path} does not fit {owner}. {listed}. The file is damaged, altered or another one"
        )


def load_strictly(
    path: str | os.PathLike[str],
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    owner: str,
    *,
    copy: bool = True,
) -> None:
    """Give a network its weights; it may have been built on the meta device, without numbers.

    With `copy=False` weights of the right type become the network's own as they are. Tensors mapped from a file
    then stay mapped; changes to them never reach the file.

    Raises InputError as `refuse_misfits` does, before anything is changed.
    """
    wanted = network.state_dict()
    refuse_misfits(path, tensors, wanted, owner)
    own = {name: tensor.to(wanted[name].dtype, copy=copy).contiguous() for name, tensor in tensors.items()}
    network.load_state_dict(own, assign=True)


def _all_finite(tensor: Tensor) -> bool:
    """Whether every number is finite. A finite sum proves it, several times faster than looking at each."""
    if not tensor.is_floating_point():
        return True
    return math.isfinite(tensor.sum().item()) or bool(tensor.isfinite().all())


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
