"""How a face moves: constant velocity with damping, and the assignment of faces to predictions.

Lengths are in face sizes (the longer side of the landmarks' box), times in frames. Costs are negative
log-likelihoods of Student's t distribution up to constants, so that one sudden movement does not end a track::

    cost = T_FREEDOM log(1 + m^2 / T_FREEDOM),   m^2 = sum of (deviation / its standard deviation)^2
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

DAMPING = 0.92
"""Share of a face's velocity that remains after a frame: a face that is out of sight does not move on for ever."""
T_FREEDOM = 4.0
"""Degrees of freedom of Student's t distribution: fewer make sudden movements more probable."""
MOST_OF_SHAPE = 16.0
"""Upper bound of the squared deviation of a face's shape: who turns quickly, or is found badly, is still the same."""
# Stands for an assignment that is impossible; finite, because the solver needs one solution.
IMPOSSIBLE = 1e6


def damped_frames(frames: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """The number of frames of undamped motion that lead as far as this many damped ones.

    >>> damped_frames(np.array([1.0, 1000.0])).round(2).tolist()
    [0.92, 11.5]
    """
    return DAMPING * (1 - DAMPING**frames) / (1 - DAMPING)


def t_cost(squared_deviations: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """The cost of deviations, squared and in standard deviations; the module's docstring has the formula."""
    return T_FREEDOM * np.log1p(squared_deviations / T_FREEDOM)


def assign(cost: Float[np.ndarray, "rows columns"], unassigned: float) -> tuple[list[tuple[int, int]], float]:
    """The pairs of the cheapest assignment, and its cost.

    Args:
        cost: of every pair; IMPOSSIBLE or more for pairs that cannot be.
        unassigned: the cost of each row and of each column that stays alone.

    >>> assign(np.array([[1.0, 5.0], [5.0, 30.0]]), 10.0)
    ([(0, 1), (1, 0)], 10.0)
    """
    rows, columns = cost.shape
    padded = np.full((rows + columns, rows + columns), IMPOSSIBLE)
    padded[:rows, :columns] = cost
    padded[:rows, columns:][np.diag_indices(rows)] = unassigned
    padded[rows:, :columns][np.diag_indices(columns)] = unassigned
    padded[rows:, columns:] = 0.0
    left, right = linear_sum_assignment(padded)
    pairs = [(int(a), int(b)) for a, b in zip(left, right, strict=True) if a < rows and b < columns]
    return pairs, float(padded[left, right].sum())
