"""`read_clip` and `read_people`: frames and landmarks brought together and checked, ready to be fitted."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from tqdm import tqdm

from neuface.devices import one_thread_per_operation, return_freed_memory
from neuface.errors import InputError, InputWarning
from neuface.frames import Clip, Recording
from neuface.io.cameras.given import given_cameras
from neuface.io.detectors import load_detector
from neuface.io.inputs import open_footage
from neuface.io.landmark_inputs import given_faces
from neuface.landmarks.detectors import Detector, FollowingDetector
from neuface.landmarks.finding import FaceSearch, frames_at_a_time, without_jumps
from neuface.landmarks.tracking.choice import Choice, Everyone, as_choice
from neuface.landmarks.tracking.cuts import BLOCKS, find_cuts, shows_nothing, small_copies
from neuface.landmarks.tracking.found_faces import FoundFaces, join_views
from neuface.landmarks.tracking.selection import Person, people_in
from neuface.structs import FrameSource, Status, Track


def read_clip(
    inputs: Any,
    landmarks: Any = None,
    *,
    faces: Any = "most present",
    detector: Detector | None = None,
    max_frames: int | None = None,
    fps: int | float | None = None,
    offsets_s: Sequence[int | float] | None = None,
    names: Sequence[str] | None = None,
    cameras: Any = None,
    calibration_scale: float | None = None,
    progress: bool = False,
) -> Clip:
    """A face video and one person's landmarks in it, from almost any form of frames.

    Args:
        inputs: The path of a video or picture; a folder, pattern (`seq/%03d.png`, `seq/*.png`) or list of pictures
            that are the frames of one camera; a list of such things (synchronised views, pictures as list of lists);
            arrays or tensors `(time, h, w, 3)` or `(views, time, h, w, 3)`, a list of pictures (arrays or those of
            PIL) or of videos (views); an iterator of pictures, an OpenCV capture, a `FrameSource`, or a `Clip`, which
            is returned as it is. Grey, channels first and floats are accepted (`neuface.pictures`).
        landmarks: Frame pixels: arrays as `as_faces` takes them, `Track`, the path of a landmark file
            (all views) or a list of paths (one per view). None: the detector finds them.
        faces: Who is meant if there are several people: "most present", "largest", a number (0 is who is
            present in most frames), `(x, y, time)` with a point in the face in frame pixels and the time in
            seconds, a list of such points, one per view (None where the person is not seen), or a
            `neuface.landmarks.tracking.choice.Choice`. For "all" see `read_people`.
        detector: Finds the landmarks if none are given; the default needs no download;
            `neuface.io.detectors.load_detector` has others.
        max_frames: Use only the first so many frames (of landmarks, too).
        fps: Frames per second, evenly; the default are the times that a video states, or 25 per second.
        offsets_s: When each view's first frame was taken, seconds on a common clock. Views of different rates are
            matched by time; a frame that a view missed is black there.
        names: One name per view; the default is the file names, or `view0`, `view1`, ...
        cameras: The calibration of several views: the path of a file (docs/calibration.md lists the formats), or a
            `CameraSet` of `neuface.io.cameras.read_cameras`. Its cameras are matched to the views by their names.
        calibration_scale: Metres per unit of a calibration that does not state its unit.
        progress: Show a progress bar while landmarks are detected.

    Returns:
        The clip. `clip.track.usable` marks the frames with at least 6 landmarks, and `clip.track.status` says why
        others have none; a clip without any face has no usable frame.

    Raises:
        InputError: Frames or landmarks that cannot be used or do not fit each other, or nobody is where `faces` says.
        InputWarning: (as a warning) frames are lost or unevenly timed, pixels were scaled, and the like.
        MissingDependencyError: Landmarks must be detected and the detector's package or weights are missing.
    """
    if isinstance(inputs, Clip):
        given = None if faces == "most present" else faces
        _refuse_more(
            landmarks=landmarks,
            faces=given,
            detector=detector,
            max_frames=max_frames,
            fps=fps,
            offsets_s=offsets_s,
            names=names,
            cameras=cameras,
            calibration_scale=calibration_scale,
        )
        return inputs
    choice = as_choice(faces)
    if isinstance(choice, Everyone):
        raise InputError("faces: 'all' gives a clip for every person: use neuface.read_people")
    clip, *_ = read_people(
        inputs,
        landmarks,
        faces=choice,
        detector=detector,
        max_frames=max_frames,
        fps=fps,
        offsets_s=offsets_s,
        names=names,
        cameras=cameras,
        calibration_scale=calibration_scale,
        progress=progress,
    )
    return clip


@one_thread_per_operation()
def read_people(
    inputs: Any,
    landmarks: Any = None,
    *,
    faces: Any = "all",
    detector: Detector | None = None,
    max_frames: int | None = None,
    fps: int | float | None = None,
    offsets_s: Sequence[int | float] | None = None,
    names: Sequence[str] | None = None,
    cameras: Any = None,
    calibration_scale: float | None = None,
    progress: bool = False,
) -> list[Clip]:
    """The clip of every person in a face video, the most present first; arguments and errors are `read_clip`'s.

    Nobody is recognised: who is seen again after a cut of shot counts as another person.
    """
    choice = as_choice(faces)
    footage = open_footage(inputs, fps=fps, offsets_s=offsets_s, max_frames=max_frames)
    view_names = _checked_names(names, footage.names)
    frames = footage.frames
    sizes_hw = [frames.size_hw(view) for view in range(frames.views)]
    calibration = given_cameras(cameras, calibration_scale, view_names, sizes_hw)
    remarks = (*footage.remarks, *calibration.remarks)
    for remark in remarks:
        warnings.warn(remark, InputWarning, stacklevel=2)
    if landmarks is not None:
        detector = None
    elif detector is None:
        detector = load_detector()
    given = None if landmarks is None else given_faces(landmarks, footage)
    followed = _follow(frames, given, detector, choice, footage.timestamps_s, progress)
    # All faces of a long recording are large, and nobody needs them any more.
    del given
    recording = Recording(
        frames=frames,
        timestamps_s=footage.timestamps_s,
        names=view_names,
        cameras=calibration.cameras,
        metric=calibration.metric,
        remarks=remarks,
        shot_starts=followed.starts,
    )
    clips = []
    for person in followed.people:
        track = person.track
        if isinstance(detector, FollowingDetector):
            track = without_jumps(track, detector, frames, followed.starts)
        clips.append(
            Clip(recording=recording, track=_readable(track, followed.empty), selection=person.selection)
        )
    return_freed_memory()
    return clips


@dataclass(frozen=True, kw_only=True)
class _Followed:
    """Who is meant among the people of a recording."""

    people: list[Person]
    starts: tuple[int, ...]
    """The first frames of the shots."""
    empty: Bool[Tensor, "views time"]
    """Frames that show nothing."""


def _follow(
    frames: FrameSource,
    given: FoundFaces | None,
    detector: Detector | None,
    choice: Choice,
    timestamps_s: Sequence[float],
    progress: bool,
) -> _Followed:
    """Follow everyone through a recording, by given faces or by those that the detector finds."""
    seen = _look_at_frames(frames, detector, progress)
    faces = seen.faces if given is None else given
    assert faces is not None, "they are given or a detector has looked for them"
    people = people_in(faces, timestamps_s, seen.cuts_of_views)
    return _Followed(people=people.choose(choice, timestamps_s), starts=people.starts, empty=seen.empty)


def _readable(track: Track, empty: Bool[Tensor, "views time"]) -> Track:
    """The track with the status of the frames that show nothing and therefore have no landmarks."""
    if track.status is None:
        return track
    return replace(track, status=track.status.masked_fill(empty & ~track.found, int(Status.UNREADABLE)))


def _refuse_more(**given: Any) -> None:
    """A clip is whole: what else is given would be left out without a word."""
    further = ", ".join(name for name, value in given.items() if value is not None)
    if further:
        raise InputError(
            f"a Clip has its own {further} already: give the frames or paths instead, or the Clip alone "
            "(dataclasses.replace makes another one of it)"
        )


def _checked_names(names: Sequence[str] | None, default: tuple[str, ...]) -> tuple[str, ...]:
    if names is None:
        return default
    if isinstance(names, str) or len(names) != len(default) or len(set(names)) != len(names):
        raise InputError(f"names: expected {len(default)} different name(s), one per view, got {names!r}")
    return tuple(names)


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What is seen in one pass over all frames."""

    faces: FoundFaces | None
    """None without a detector."""
    cuts_of_views: list[tuple[int, ...]]
    empty: Bool[Tensor, "views time"]
    """Frames that show nothing."""


def _look_at_frames(frames: FrameSource, detector: Detector | None, progress: bool) -> _Seen:
    """Read every frame once, in bounded pieces: find faces, cuts and empty frames."""
    found, empty, cuts = [], [], []
    total = frames.views * frames.time
    what = "cuts" if detector is None else "landmarks"
    with tqdm(total=total, desc=what, unit="frame", disable=not progress) as bar:
        for view in range(frames.views):
            search = None if detector is None else FaceSearch(detector)
            seen = torch.empty(frames.time, BLOCKS, BLOCKS, 3)
            block = frames_at_a_time(frames.size_hw(view))
            for start in range(0, frames.time, block):
                stop = min(start + block, frames.time)
                pictures = frames.read(view, start, stop)
                seen[start:stop] = small_copies(pictures)
                if search is not None:
                    search.look(pictures)
                bar.update(stop - start)
            empty.append(shows_nothing(seen))
            cuts.append(find_cuts(seen))
            if search is not None:
                found.append(search.finish(partial(frames.read, view)))
    return _Seen(
        faces=join_views(found) if found else None,
        cuts_of_views=cuts,
        empty=torch.stack(empty),
    )
