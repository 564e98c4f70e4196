"""The demo: a rendered person the encoder has never seen, three cameras, noisy landmarks, exact truth."""

from __future__ import annotations

from neuface.fitting.config import FitConfig
from neuface.models import load_head
from neuface.pipeline import optimize
from neuface.results.fit_result import FitResult
from neuface.structs import HeadParams
from neuface.synthetic.clips import SyntheticClip, make_talking_clip
from neuface.synthetic.people import demo_identity

CLIP_SEED = 4


def make_demo_clip(time: int = 24) -> SyntheticClip:
    """A clip of `time` frames: one person, three cameras 35 degrees apart."""
    return make_talking_clip(load_head("open"), demo_identity(), time=time, seed=CLIP_SEED)


def run_demo(
    *, config: FitConfig | None = None, time: int = 24, progress: bool = True
) -> tuple[FitResult, HeadParams]:
    """Fit the demo clip; returns the result and the true parameters."""
    clip = make_demo_clip(time)
    result = optimize(
        clip.frames.numpy(), landmarks=clip.landmarks_px.numpy(), config=config, progress=progress
    )
    return result, clip.truth
