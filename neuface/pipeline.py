"""`neuface.optimize`: from frames to a FitResult."""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from tqdm import tqdm

from neuface.clips import read_clip, recropped
from neuface.cropping import iterate_crops
from neuface.devices import checked_device
from neuface.evaluation import image_nme_percent
from neuface.fitting.config import FitConfig
from neuface.fitting.loop import fit
from neuface.fitting.problem import make_problem
from neuface.landmarks.schemes import to_ibug68
from neuface.models import Model, load_model
from neuface.results import FITTED, NO_LANDMARKS, POOR_FIT, FitResult
from neuface.structs import Clip


def optimize(
    frames: Any,
    *,
    landmarks: Any = None,
    model: str | Model = "open",
    config: FitConfig | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> FitResult:
    """Fit 3D head meshes to a face video by fine-tuning a face encoder on it (NeuFace, TMLR 2024).

    Args:
        frames: uint8 RGB `(time, h, w, 3)` or `(views, time, h, w, 3)`, a list of such views, the path of a
            video, a list of paths (synchronised views), or a `Clip` from `neuface.read_clip`.
        landmarks: 2D landmarks in frame pixels: arrays `(time, n, 2)` or `(views, time, n, 2)` with n = 68
            (iBUG) or 478 (MediaPipe) and NaN where there is no face, or the path(s) of landmark files. None: the
            `face-alignment` package finds them.
        model: the head and encoder to use, by name or as loaded.
        config: weights and limits; the default is `FitConfig()`.
        device: where to compute, such as "cuda"; the default is the CPU.
        progress: show a progress bar with the loss and its parts.

    Returns:
        The result, on the CPU. Frames without landmarks take part in the temporal term only and are marked.

    Raises:
        InputError: frames or landmarks that cannot be used; the message says which and what to do.
        MissingDependencyError: landmarks must be detected and the detector is not available.
    """
    settings = FitConfig() if config is None else config
    loaded = load_model(model) if isinstance(model, str) else model
    place = checked_device(device)
    clip = _for_model(read_clip(frames, landmarks, progress=progress), loaded)
    started = time.perf_counter()
    head = loaded.head.to(place)
    # A module moves in place; the loaded one is to stay where and as it is.
    encoder = copy.deepcopy(loaded.encoder).to(place)
    problem = make_problem(encoder_inputs(loaded, clip), clip.landmarks, clip.crops, clip.valid).to(place)
    with _Bar(settings.max_passes, enabled=progress) as bar:
        outcome = fit(encoder, head, problem, settings, bar.show)
    prediction, initial = outcome.prediction.to("cpu"), outcome.initial.to("cpu")
    nme = image_nme_percent(loaded.head, prediction, clip.landmarks, clip.crops)
    status = torch.full_like(clip.valid, FITTED, dtype=torch.int64)
    status[nme > settings.max_nme_percent] = POOR_FIT
    status[~clip.valid] = NO_LANDMARKS
    return FitResult(
        prediction=prediction,
        initial=initial,
        crops=clip.crops,
        landmarks=clip.landmarks,
        status=status,
        image_nme_percent=nme,
        history=outcome.history,
        stop_reason=outcome.stop_reason,
        config=settings,
        model=loaded.name,
        head_name=head.name,
        head_hash=loaded.head.parameter_hash(),
        fps=clip.fps,
        names=clip.names,
        seconds=time.perf_counter() - started,
        frames=clip.frames,
        head_model=loaded.head,
    )


def _for_model(clip: Clip, model: Model) -> Clip:
    """The clip with the model's own crops, and landmarks that its head has.

    A head without MediaPipe's dense landmarks is fitted to the 68 of them that stand for the iBUG points.
    """
    fitting = recropped(clip, model.crop_rule)
    if clip.landmarks.scheme in model.head.embeddings:
        return fitting
    return replace(fitting, landmarks=to_ibug68(clip.landmarks))


def encoder_inputs(model: Model, clip: Clip) -> Float[torch.Tensor, "views time c h w"]:
    """The clip's crops as the encoder keeps them; the crops themselves are never all in memory."""
    pictures = iterate_crops(clip.frames, clip.crops, antialias=model.crop_rule.antialias)
    pieces = [model.encoder.prepare(crops) for _, crops in pictures]
    return torch.cat(pieces).unflatten(0, (clip.views, clip.time))


class _Bar:
    """A progress bar with the loss and its parts."""

    def __init__(self, passes: int, *, enabled: bool) -> None:
        self._bar = tqdm(total=passes, desc="fitting", unit="pass", disable=not enabled)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, number: int, parts: dict[str, float]) -> None:
        self._bar.set_postfix({name: f"{value:.3g}" for name, value in parts.items()}, refresh=False)
        self._bar.update(number - self._bar.n)
