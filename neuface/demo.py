"""The demo: a rendered person the encoder has never seen, three cameras, noisy landmarks, exact truth."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from neuface.fitting.config import FitConfig
from neuface.io.open_model.head_file import read_head_recipe
from neuface.models import load_head
from neuface.pipeline import optimize
from neuface.results import FitResult
from neuface.structs import HeadParams
from neuface.synthetic.clips import SyntheticClip, make_talking_clip
from neuface.synthetic.people import sample_identities

# Far from the seeds of the training pictures: the person is new to the encoder.
IDENTITY_SEED = 987_654_321
CLIP_SEED = 4


def demo_identity() -> Float[Tensor, " identity"]:
    """The identity code of a person of the open head's population whom the encoder was not trained on."""
    recipe = read_head_recipe()
    names = recipe.target_names.tolist()
    return sample_identities(names, recipe.mean, recipe.projection, 1, IDENTITY_SEED)[0]


def make_demo_clip(time: int = 24) -> SyntheticClip:
    """So many frames of one person before three cameras, 35 degrees apart."""
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
