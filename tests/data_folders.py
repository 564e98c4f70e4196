"""Where the tests find what is too large for the repository: real clips and scans, and official file layouts."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
DATA = REPOSITORY.parent / "shared" / "data"
"""Real clips, a four-camera session and a scan."""
PARITY = REPOSITORY.parent / "shared" / "parity"
"""Synthetic files in the official layouts of FLAME, DECA, EMOCA and SMIRK, with reference outputs."""
