"""The work of fits of two small clips, compared with stored limits by tests/test_work.py.

    python -m studies.performance.work_limits            # prints what is done now, and the limits
    python -m studies.performance.work_limits --write    # makes it the limits, after a change that is meant

Seconds differ between machines and from run to run; the numbers of images, vertices and linear systems do not.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

import neuface
from neuface import Clip, FitConfig
from neuface.io.atomic import write_json
from neuface.models import load_head, load_model
from neuface.synthetic.clips import make_talking_clip
from neuface.synthetic.people import open_head_identities
from studies.common.work import Work, counted_work

LIMITS = Path(__file__).parents[2] / "tests" / "data" / "work_limits.json"
LARGEST_GROWTH = 1.05
"""Factor by which work may exceed its limit: rounding on another machine may cost an iteration more."""
STALE = 0.5
"""Factor of a limit below which it says nothing any more and has to be written anew."""
PASSES = {"m_step.stop.max_passes": 2}
"""So few passes that rounding does not decide how many there are."""
CONFIGS = {
    "best": FitConfig.best(PASSES),
    "neural": FitConfig.neural(PASSES),
    "paper": FitConfig.paper(PASSES),
    "official": FitConfig.official(PASSES),
    "direct": FitConfig.direct(PASSES),
}
CLIPS = {"one camera": (0.0,), "two cameras": (0.0, 30.0)}
"""The yaw of each camera, degrees."""
FRAMES, SIZE_PX, SEED, NOISE_PX = 6, 96, 5, 0.3

Counts = dict[str, dict[str, int]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Whether the limits are replaced."""

    write: bool = False
    """Make the work that is done now the limits."""


def main(options: Options) -> None:
    """Print the work of every fit beside its limit, or make it the limit."""
    found = all_counts()
    if options.write:
        write_json(LIMITS, found)
    limits = read_limits()
    for name, counts in found.items():
        for what, count in counts.items():
            print(f"{name:24} {what.replace('_', ' '):28} {count:12,} of {limits[name][what]:12,}")


def all_counts() -> Counts:
    """The work of every configuration on every clip, by `clip, configuration`."""
    return {
        f"{clip}, {config}": asdict(work_of(clip_of(yaw_deg), CONFIGS[config]))
        for clip, yaw_deg in CLIPS.items()
        for config in CONFIGS
    }


def clip_of(view_yaw_deg: tuple[float, ...]) -> Clip:
    """A small rendered clip with noisy landmarks."""
    (person,) = open_head_identities(1, SEED)
    made = make_talking_clip(
        load_head("open"),
        person,
        view_yaw_deg=view_yaw_deg,
        time=FRAMES,
        size_px=SIZE_PX,
        noise_px=NOISE_PX,
        seed=SEED,
    )
    return neuface.read_clip(made.frames, made.landmarks_px, fps=made.fps)


def work_of(clip: Clip, config: FitConfig) -> Work:
    """What a fit of the clip does."""
    model = load_model("open")
    with counted_work() as work:
        neuface.optimize(clip, model=model, config=config, progress=False)
    return work


def read_limits() -> Counts:
    """The stored limits."""
    return json.loads(LIMITS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
