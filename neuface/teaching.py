"""`neuface.teach_encoder`: from fitted footage of a person to an encoder for more footage of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from tqdm import tqdm

from neuface.devices import checked_device, one_thread_per_operation
from neuface.encoders.calibration import UNCALIBRATED
from neuface.errors import InputError
from neuface.fitting.teaching import PASSES, teach
from neuface.frames import Clip, Recording
from neuface.model_inputs import ModelInputs, encode_images, model_inputs
from neuface.models import FaceModel, load_model
from neuface.results.drawing import frames_of
from neuface.results.fit_result import FitResult, head_of
from neuface.structs import Prediction, Status, WeakPerspective


@one_thread_per_operation()
def teach_encoder(
    results: FitResult | Sequence[FitResult],
    *,
    model: str | FaceModel | None = None,
    passes: int = PASSES,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> FaceModel:
    """An encoder for one person, taught by the result of a fit: a model for more footage at the network's speed.

    Args:
        results: of one clip, or those that `optimize_person` gave for several clips of the person. They hold their
            frames, as results do that were not loaded from a file.
        model: whose encoder is taught; the default is the one with which the clips were fitted.
        passes: over all images.
        seed: of the order of the images.
        device: where to compute, such as "cuda"; the default is the CPU.
        progress: show a progress bar with the loss.

    Returns:
        The model with the taught encoder, on the CPU, for `neuface.predict` and as any model for `neuface.optimize`.

    Raises:
        InputError: there is nothing to teach, the results do not share one identity code or hold no frames, or their
            cameras have perspective, which encoders do not predict.
        ModelMismatchError: the results are of another head than the model's.
    """
    given = [results] if isinstance(results, FitResult) else list(results)
    if not given or not all(isinstance(result, FitResult) for result in given):
        raise InputError("results: expected a FitResult or a list of them, as neuface.optimize gives")
    if passes < 1:
        raise InputError(f"passes: expected at least 1, got {passes}")
    chosen = given[0].model if model is None else model
    loaded = load_model(chosen) if isinstance(chosen, str) else chosen
    place = checked_device(device)
    _check_is_one_person(given, loaded)
    seen = [_inputs(result, loaded) for result in given]
    trusted = torch.cat([(result.status == int(Status.FITTED)) for result in given], 1).flatten()
    if not bool(trusted.any()):
        raise InputError(
            f"results: no image has the status {Status.FITTED.name}, so there is nothing to teach"
        )
    solved = [
        replace(result.prediction, camera=inputs.crops.camera_in_crop(result.camera))
        for result, inputs in zip(given, seen, strict=True)
    ]
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        tqdm(total=passes, desc="teaching", unit="pass", disable=not progress) as bar,
    ):

        def show(_: int, loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.3g}", refresh=False)
            bar.update()

        taught = teach(
            loaded.encoder,
            loaded.head.to(place),
            encode_images(seen, loaded.encoder, device=place).images,
            Prediction.cat(solved, dim=1).flatten_batch(2).to(place),
            trusted.to(place),
            passes=passes,
            seed=seed,
            report=show,
        )
    return replace(loaded, encoder=taught.cpu(), calibration=UNCALIBRATED)


def _check_is_one_person(results: Sequence[FitResult], model: FaceModel) -> None:
    """Raises InputError or ModelMismatchError for what `teach_encoder` cannot use."""
    first, *_ = results
    for result in results:
        head_of(result, model.head)
        if result.identity.ndim > 1 or not torch.equal(result.identity, first.identity):
            raise InputError(
                "results: expected one identity code for all images of all clips: fit with the default "
                'identity.shared="clip", and several clips of a person together (neuface.optimize_person)'
            )
        if not isinstance(result.camera, WeakPerspective):
            raise InputError(
                "results: their cameras have perspective, and encoders predict weak-perspective ones: fit without "
                "FitConfig.camera"
            )
        if len(result.status) != len(first.status):
            raise InputError(
                f"results: expected clips of the same number of cameras, got {len(first.status)} and "
                f"{len(result.status)}: teach with those of one number"
            )


def _inputs(result: FitResult, model: FaceModel) -> ModelInputs:
    """What the encoder saw of the clip of a result."""
    recording = Recording(
        frames=frames_of(result),
        timestamps_s=tuple(result.timestamps_s.tolist()),
        names=result.names,
        shot_starts=result.shot_starts,
    )
    return model_inputs(Clip(recording=recording, track=result.landmarks), model)
