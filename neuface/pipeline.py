"""`neuface.optimize`: from frames to a FitResult."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, overload

import torch
from tqdm import tqdm

from neuface.clips import read_clip, read_people
from neuface.devices import checked_device, one_thread_per_operation
from neuface.encoders.calibration import UNCALIBRATED
from neuface.encoders.personal import PersonalEncoder
from neuface.errors import InputError, InputWarning
from neuface.evaluation.figures import image_nme_percent
from neuface.evaluation.quality import judge
from neuface.evaluation.world import view_agreement, world_result
from neuface.fitting.checkpoint import Checkpoints
from neuface.fitting.config import IMAGES_AT_ONCE, DirectFit, FitConfig, JointSolve, PinholeCamera
from neuface.fitting.direct import fit_direct
from neuface.fitting.joint.fit import fit_jointly
from neuface.fitting.lens import FocalLength
from neuface.fitting.loop import FitOutcome, fit
from neuface.fitting.parameterisation import FineTunedEncoder, Parameterisation, predict_clip
from neuface.fitting.problem import Problem, join_problems, make_problem
from neuface.frames import Clip
from neuface.hashing import tensors_hash
from neuface.landmarks.tracking.choice import OnePerson
from neuface.lenses import through_lenses
from neuface.model_inputs import ModelInputs, encode_images, model_inputs
from neuface.models import FaceModel, load_model
from neuface.results.fit_result import FitResult
from neuface.structs import Outcome, Prediction

LARGEST_DISAGREEMENT_DEG = 30.0
"""Bound of the angle between the heads of the encoder in two calibrated views, degrees; encoders err by up to ten."""
Parameterise = Callable[[FineTunedEncoder, Problem], Parameterisation]
"""What is optimised in the place of an encoder, made from the encoder and the observations of a clip."""


@overload
def optimize(
    frames: Any,
    *,
    landmarks: Any = None,
    cameras: Any = None,
    calibration_scale: float | None = None,
    faces: Literal["all"],
    model: str | FaceModel = "open",
    config: FitConfig | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> tuple[FitResult, ...]: ...


@overload
def optimize(
    frames: Any,
    *,
    landmarks: Any = None,
    cameras: Any = None,
    calibration_scale: float | None = None,
    faces: Literal["most present", "largest"] | int | tuple[float, float, float] | OnePerson = "most present",
    model: str | FaceModel = "open",
    config: FitConfig | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> FitResult: ...


@one_thread_per_operation()
def optimize(
    frames: Any,
    *,
    landmarks: Any = None,
    cameras: Any = None,
    calibration_scale: float | None = None,
    faces: Any = "most present",
    model: str | FaceModel = "open",
    config: FitConfig | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> FitResult | tuple[FitResult, ...]:
    """Fit 3D head meshes to a face video, from the predictions of a face encoder (after NeuFace, TMLR 2024).

    Args:
        frames: uint8 RGB `(time, h, w, 3)` or `(views, time, h, w, 3)`, a list of such views, the path of a
            video, a list of paths (synchronised views), or a `Clip` from `neuface.read_clip`.
        landmarks: 2D landmarks in frame pixels: arrays `(time, n, 2)` or `(views, time, n, 2)` with n = 68
            (iBUG) or 478 (MediaPipe) and NaN where there is no face, or the path(s) of landmark files. None: the
            networks inside this package find them.
        cameras: the calibration of several views, as for `neuface.read_clip`: their heads are then drawn to one pose
            in the world, and `result.world` has the meshes in its coordinates.
        calibration_scale: metres per unit of a calibration that does not state its unit.
        faces: who is fitted if there are several people, as for `neuface.read_clip`: "most present", "largest", a
            number, or `(x, y, time)`. "all" fits each of them alone.
        model: the head and encoder to use, by name or as loaded.
        config: weights and limits; the default is `FitConfig()`.
        device: where to compute, such as "cuda"; the default is the CPU.
        progress: show a progress bar with the loss and its parts.

    Returns:
        The result, on the CPU; with `faces="all"` one for each person, the most present first. Frames without
            landmarks are marked; they take part in every term but those of landmarks and colours. A clip without any
            face gives what the encoder predicts, and an outcome that says so.

    Raises:
        InputError: frames or landmarks that cannot be used; the message says which and what to do.
        MissingDependencyError: landmarks must be detected and the detector is not available.
    """
    settings = FitConfig() if config is None else config
    loaded = load_model(model) if isinstance(model, str) else model
    place = checked_device(device)
    if faces == "all":
        clips = read_people(
            frames, landmarks, cameras=cameras, calibration_scale=calibration_scale, progress=progress
        )
        return tuple(fit_clips([clip], loaded, settings, place, progress=progress)[0] for clip in clips)
    clip = read_clip(
        frames,
        landmarks,
        faces=faces,
        cameras=cameras,
        calibration_scale=calibration_scale,
        progress=progress,
    )
    return fit_clips([clip], loaded, settings, place, progress=progress)[0]


@one_thread_per_operation()
def optimize_person(
    clips: Sequence[Any],
    *,
    model: str | FaceModel = "open",
    config: FitConfig | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> tuple[FitResult, ...]:
    """Fit several clips of one person together, with one identity code for all of them.

    Args:
        clips: each as `optimize` takes its frames; clips with landmarks of their own come as `Clip` from
            `neuface.read_clip`. All must have the same number of cameras and landmarks of one scheme.
        model, config, device, progress: as for `optimize`. With `Identity(shared="image")` nothing ties the clips
            together but the encoder.

    Returns:
        One result per clip, in order. `history` and `seconds` are those of the fit as a whole.

    Raises:
        InputError: no clip, clips that cannot be fitted together, or frames or landmarks that cannot be used.
        MissingDependencyError: as for `optimize`.
    """
    if not isinstance(clips, Sequence) or not clips:
        raise InputError("no clips were given: expected a list of clips of one person")
    settings = FitConfig() if config is None else config
    loaded = load_model(model) if isinstance(model, str) else model
    place = checked_device(device)
    read = [read_clip(clip, progress=progress) for clip in clips]
    schemes = sorted({clip.track.scheme.name for clip in read})
    if len(schemes) > 1:
        raise InputError(
            f"clips that are fitted together must have landmarks of one scheme, got {' and '.join(schemes)}"
        )
    return fit_clips(read, loaded, settings, place, progress=progress)


@one_thread_per_operation()
def predict(
    frames: Any,
    *,
    landmarks: Any = None,
    faces: Literal["most present", "largest"] | int | tuple[float, float, float] | OnePerson = "most present",
    model: str | FaceModel = "open",
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Prediction:
    """What an encoder alone sees in a face video, at the speed of the network; nothing is fitted or smoothed.

    Landmarks only say where the face is. `FitResult.encoder`, the product of a fit with `FitConfig.neural()`, is a
    model for more footage of the same person.

    Args:
        frames, landmarks, faces, device, progress: as for `optimize`.
        model: the head and encoder to use, by name or as loaded.

    Returns:
        Heads and cameras, batch axes `views time`, which project to frame pixels; on the CPU.

    Raises:
        InputError: frames or landmarks that cannot be used; the message says which and what to do.
        MissingDependencyError: landmarks must be detected and the detector is not available.
    """
    loaded = load_model(model) if isinstance(model, str) else model
    place = checked_device(device)
    clip = read_clip(frames, landmarks, faces=faces, progress=progress)
    inputs = model_inputs(clip, loaded)
    images = encode_images([inputs], loaded.encoder, device=place).images
    encoder = FineTunedEncoder(copy.deepcopy(loaded.encoder).to(place).eval(), images)
    predicted = predict_clip(encoder, (clip.views, clip.time), IMAGES_AT_ONCE, place)
    return inputs.crops.prediction_in_frame(predicted.to("cpu"))


@one_thread_per_operation()
def fit_clips(
    clips: Sequence[Clip],
    model: FaceModel,
    config: FitConfig,
    device: torch.device,
    *,
    progress: bool,
    parameterise: Parameterise | None = None,
    checkpoints: Checkpoints | None = None,
    keep_interrupted: bool = False,
) -> tuple[FitResult, ...]:
    """Fit clips of one person that are read already; one result per clip.

    Args:
        parameterise: makes what is optimised in the place of the encoder; None optimises what `config.m_step` names.
        checkpoints, keep_interrupted: as for `neuface.fitting.loop.fit`.

    Raises:
        InputError: the configuration or the model is none, or the clips cannot be fitted together.
    """
    if not isinstance(config, FitConfig):
        raise InputError(f"config: expected a FitConfig, got {type(config).__name__}")
    if not isinstance(model, FaceModel):
        raise InputError(f"model: expected a name or what load_model gives, got {type(model).__name__}")
    if parameterise is not None and isinstance(config.m_step, JointSolve):
        raise InputError(
            "what is optimised in the place of an encoder needs gradient steps, and FitConfig.m_step is JointSolve: "
            "begin from FitConfig.neural()"
        )
    fitting = [model_inputs(clip, model) for clip in clips]
    started = time.perf_counter()
    head = model.head.to(device)
    # `Module.to` moves a module in place, and the caller's own must not move.
    encoder = copy.deepcopy(model.encoder).to(device)
    problem = join_problems([_problem_of(seen, config) for seen in fitting]).to(device)
    photometric = config.objective.photometric is not None
    seen = encode_images(fitting, model.encoder, with_pictures=photometric, device=device)
    problem = replace(problem, pictures=seen.pictures)
    run = _run_of(config)
    # Whoever calls from code that computes without gradients needs them here all the same.
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        _Bar(config.m_step.stop.max_passes, enabled=progress) as bar,
    ):
        tuned = FineTunedEncoder(encoder, seen.images)
        optimised: Parameterisation = tuned
        focal: tuple[tuple[FocalLength, ...], ...] = ((),) * len(clips)
        if isinstance(config.camera, PinholeCamera):
            optimised, focal = through_lenses(
                tuned, head, problem, fitting, config, calibration=model.calibration
            )
        if parameterise is not None:
            optimised = parameterise(tuned, problem)
        if bool(problem.valid.any()):
            found = run(
                optimised,
                head,
                problem,
                config,
                bar.show,
                calibration=model.calibration,
                checkpoints=checkpoints,
                keep_interrupted=keep_interrupted,
            )
        else:
            found = _nothing_to_fit(optimised, problem, config)
    seconds = time.perf_counter() - started
    results, start = [], 0
    for inputs, lengths in zip(fitting, focal, strict=True):
        span = slice(start, start + inputs.recording.time)
        start = span.stop
        results.append(_result(inputs, model, config, found, span, seconds, lengths))
    return tuple(results)


def _run_of(config: FitConfig) -> Callable[..., FitOutcome]:
    """What carries out the M-step of a configuration."""
    if isinstance(config.m_step, JointSolve):
        return fit_jointly
    return fit_direct if isinstance(config.m_step, DirectFit) else fit


def fit_key(clips: Sequence[Clip], model: FaceModel, config: FitConfig) -> str:
    """A hash of what is fitted and how: fits of equal keys go the same way, but for the pictures themselves."""
    tensors = {
        f"clip{number}.{name}": tensor
        for number, clip in enumerate(clips)
        for name, tensor in clip.track.named_tensors().items()
    }
    for number, clip in enumerate(clips):
        if clip.recording.cameras is not None:
            named = clip.recording.cameras.named_tensors()
            tensors |= {f"clip{number}.cameras.{name}": tensor for name, tensor in named.items()}
    tensors |= {f"encoder.{name}": tensor for name, tensor in model.encoder.state_dict().items()}
    facts = [
        (
            clip.recording.names,
            clip.recording.timestamps_s,
            clip.recording.sizes_hw,
            clip.recording.shot_starts,
        )
        for clip in clips
    ]
    return tensors_hash(tensors, repr((facts, model.name, model.head.parameter_hash(), config)).encode())


def _nothing_to_fit(predicted: Parameterisation, problem: Problem, config: FitConfig) -> FitOutcome:
    """What stands in for a fit where no image has landmarks: the encoder's own predictions."""
    images_at_once = config.m_step.images_at_once
    alone = predict_clip(predicted, (problem.views, problem.time), images_at_once, problem.valid.device)
    return FitOutcome(
        initial=alone,
        prediction=alone,
        history={"total": [math.nan]},
        identity_spread=[],
        outcome=Outcome.NOTHING_TO_FIT,
    )


def _problem_of(seen: ModelInputs, config: FitConfig) -> Problem:
    landmark = config.objective.landmark
    return make_problem(
        seen.track,
        seen.crops,
        seen.usable,
        use_confidence=landmark is None or landmark.use_confidence,
        starts=seen.recording.shot_starts,
        frame_times=seen.recording.frame_times,
        cameras=seen.recording.cameras,
    )


def _result(
    seen: ModelInputs,
    model: FaceModel,
    config: FitConfig,
    found: FitOutcome,
    span: slice,
    seconds: float,
    focal: tuple[FocalLength, ...],
) -> FitResult:
    """The result of one of the clips that were fitted together, whose frames are `span` of all; cameras in frames."""
    prediction, initial = (
        seen.crops.prediction_in_frame(item[:, span].to("cpu")) for item in (found.prediction, found.initial)
    )
    nme = image_nme_percent(model.head, prediction, seen.track)
    sizes_hw, starts = tuple(seen.recording.sizes_hw), seen.recording.shot_starts
    quality, status = judge(model.head, prediction, seen.track, sizes_hw, starts)
    params, cameras = prediction.params, seen.recording.cameras
    world, remarks = None, seen.recording.remarks
    if cameras is not None and bool(seen.usable.any()):
        remarks += _doubts_of_calibration(seen, model, initial)
        world = world_result(
            model.head, prediction, seen.track, cameras, metric=seen.recording.metric, starts=starts
        )
    return FitResult(
        identity=params.identity if config.identity.shared == "image" else params.identity[0, 0].clone(),
        expression=params.expression,
        root_rotvec=params.root_rotvec,
        neck_rotvec=params.neck_rotvec,
        jaw_rotvec=params.jaw_rotvec,
        eyes_rotvec=params.eyes_rotvec,
        camera=prediction.camera,
        focal=focal,
        initial=initial,
        # What the track knew of its frames has become part of the status.
        landmarks=replace(seen.track, status=None),
        status=status,
        quality=quality,
        image_nme_percent=nme,
        outcome=found.outcome,
        history=found.history,
        identity_spread=found.identity_spread,
        config=config,
        model=model.name,
        head_name=model.head.name,
        head_hash=model.head.parameter_hash(),
        names=seen.recording.names,
        frame_sizes_hw=sizes_hw,
        remarks=remarks,
        shot_starts=starts,
        selection=seen.selection,
        world=world,
        timestamps_s=torch.tensor(seen.recording.timestamps_s, dtype=torch.float64),
        fps=seen.recording.fps,
        seconds=seconds,
        frames=seen.recording.frames,
        encoder=_personal_model(model, found.encoder),
    )


def _personal_model(model: FaceModel, encoder: PersonalEncoder | None) -> FaceModel | None:
    """The model with a fine-tuned encoder, on the CPU, whose errors nobody has measured."""
    if encoder is None:
        return None
    tuned = copy.deepcopy(encoder).cpu().eval()
    return replace(model, encoder=tuned, calibration=UNCALIBRATED)


def _doubts_of_calibration(seen: ModelInputs, model: FaceModel, initial: Prediction) -> tuple[str, ...]:
    """A sentence, which is also a warning, if calibrated cameras see the encoder's heads turned far apart."""
    cameras = seen.recording.cameras
    assert cameras is not None, "only a calibration can be doubted"
    angle_deg = view_agreement(
        model.head, initial, seen.track, cameras, metric=seen.recording.metric
    ).rotation_deg
    if angle_deg is None or angle_deg <= LARGEST_DISAGREEMENT_DEG:
        return ()
    remark = (
        f"calibration: the heads that the encoder sees in the views differ by {angle_deg:.0f} degrees in the world. "
        f"Is it that of these cameras ({', '.join(seen.recording.names)}), world to camera, with angles in radians?"
    )
    warnings.warn(remark, InputWarning, stacklevel=2)
    return (remark,)


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
