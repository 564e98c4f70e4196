"""What a large set of videos costs, from measured milliseconds per frame.

python -m studies.performance.cost --hours 2090
python -m studies.performance.cost --hours 2090 --price-per-core-hour 0.05      # a price of your own
python -m studies.performance.cost --hours 2090 --gpu-ms-per-frame 1.5          # a figure of your own device
"""

from __future__ import annotations

from dataclasses import dataclass

import tyro

PAPER_SECONDS, PAPER_IMAGES = 480.0, 7 * 120
"""What the paper's fit took on an RTX A6000, seconds, and for how many images."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much video, and what a frame of one view costs."""

    hours: float = 2090.0
    """Hours of video of one view; the default is the paper's data set."""
    fps: float = 25.0
    detection_ms: float = 40.0
    """Processor time of finding a face and its landmarks, ms per frame (docs/face_networks.md)."""
    fit_ms: float = 30.6
    """Processor time of a whole fit by `best()`, ms per frame (docs/performance.md, 2,000 frames of one view)."""
    gpu_ms_per_frame: float | None = None
    """Time of detection and fit on a GPU, ms per frame; None where it was not measured."""
    price_per_core_hour: float | None = None
    """In any currency; None prints no price."""
    price_per_gpu_hour: float | None = None


def main(options: Options) -> None:
    """Print the cost of every part."""
    for what, value in cost(options).items():
        print(f"{what:32} {value:16,.0f}")


def cost(options: Options) -> dict[str, float]:
    """Frames, core-hours and GPU-hours, and prices where they are given.

    >>> found = cost(Options(hours=1.0, fps=25.0, detection_ms=40.0, fit_ms=20.0))
    >>> found["frames"], round(found["core-hours"], 3)
    (90000.0, 1.5)
    """
    frames = options.hours * 3600 * options.fps
    detection, fit = (hours_of(frames, ms) for ms in (options.detection_ms, options.fit_ms))
    found = {
        "frames": frames,
        "core-hours of detection": detection,
        "core-hours of fits": fit,
        "core-hours": detection + fit,
        "GPU-hours at the paper's speed": hours_of(frames, 1000 * PAPER_SECONDS / PAPER_IMAGES),
    }
    if options.price_per_core_hour is not None:
        found["price on CPUs"] = found["core-hours"] * options.price_per_core_hour
    if options.gpu_ms_per_frame is not None:
        found["GPU-hours"] = hours_of(frames, options.gpu_ms_per_frame)
        if options.price_per_gpu_hour is not None:
            found["price on GPUs"] = found["GPU-hours"] * options.price_per_gpu_hour
    return found


def hours_of(frames: float, ms_per_frame: float) -> float:
    """Hours that so many frames take.

    >>> hours_of(3600, 1000.0)
    1.0
    """
    return frames * ms_per_frame / 3.6e6


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
