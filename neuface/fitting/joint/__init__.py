"""The M-step of `best()`: one least-squares step on all unknowns of a clip at once.

The objective is that of the other M-steps (`neuface.fitting.objective`). Its unknowns are the identity code of the
person, the expression (and jaw) of every frame, which all views share, and the rotation, magnification and position
of the head in every image. The method is not in the paper.

1.  Every term is replaced by a quadratic one that touches it at the current unknowns and is nowhere below it:
    |r| by r^2 / (2 |r'|) + |r'| / 2 with r' the current residual (iteratively reweighted least squares). Landmarks
    are linearised about the current unknowns (Gauss-Newton).
2.  What the E-step smooths, it smooths linearly: a smoothed trajectory is S x. Where the objective compares poses
    with their smoothed trajectory, the step lets the trajectory follow the unknowns, so that the residual is
    (I - S) x. Held fixed, as for a network, it lets a pose move only a little per pass.
3.  In the normal equations the expression of a frame meets only the poses of that frame and the identity, and the
    poses of a frame only those of the frames in the filter's window. The expressions are eliminated frame by frame,
    the poses by one banded factorisation, and what remains is a small system for the identity.

`fit.py` is the entry and cuts long clips into pieces (`pieces.py`); `solve.py` is the loop. `landmarks.py` and
`priors.py` make the equations, `smoothness.py` is (I - S), and `equations.py` solves them.
"""
