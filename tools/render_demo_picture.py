"""Render docs/demo.png: one frame of the demo, the encoder's prediction alone, and the fitted mesh.

python tools/render_demo_picture.py
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from neuface.demo import run_demo
from neuface.io.video import write_image
from neuface.models import load_head
from neuface.results.drawing import overlay_pictures

PICTURE = Path(__file__).parents[1] / "docs/demo.png"
FRAME, VIEW = 12, 1
"""Frame and camera of the demo that the picture shows; the camera is the one in front of the face."""


def main() -> None:
    """Fit the demo as `neuface demo` does, and write the overlay of one frame."""
    result, _ = run_demo()
    picture = next(islice(overlay_pictures(result, load_head("open")), FRAME, None))
    rows = picture.chunk(len(result.names))  # every camera is a row, and all have frames of one size
    write_image(PICTURE, rows[VIEW])
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
