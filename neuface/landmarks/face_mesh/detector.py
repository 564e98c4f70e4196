"""The default detector: all faces of a clip, with nothing to download."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from neuface.landmarks.candidates import FrameFaces
from neuface.landmarks.face_mesh.faces import Faces, no_faces_yet, unmatched
from neuface.landmarks.face_mesh.networks import FaceNetworks
from neuface.landmarks.face_mesh.scores import sure_scores
from neuface.landmarks.face_mesh.search import LONGEST_UNSEEN, follow, look_around, search
from neuface.landmarks.face_mesh.uncertainty import confidence_of, differences, estimated_px
from neuface.landmarks.schemes import MEDIAPIPE478

# Displacements of the regions in which an expected face is looked for, in their sides: half of it may be hidden.
SHIFTS = ((0.0, 0.0), (0.1, 0.0), (-0.1, 0.0), (0.0, 0.1), (0.0, -0.1))


class FaceMeshDetector:
    """MediaPipe's 478 landmarks by the networks inside this package (docs/face_networks.md).

    A face that is found in one frame is looked for in the frames before and after it.
    """

    scheme = MEDIAPIPE478
    memory = LONGEST_UNSEEN

    def __init__(self, networks: FaceNetworks, device: str | torch.device = "cpu") -> None:
        self._networks = networks.to(device).eval()
        self._device = torch.device(device)

    @torch.inference_mode()
    def detect(self, frames: UInt8[Tensor, "n h w 3"], before: Sequence[FrameFaces] = ()) -> list[FrameFaces]:
        """See `FollowingDetector.detect`."""
        there = frames.to(self._device)
        found = search(self._networks, there)
        found = follow(self._networks, there, found, _as_faces(before))
        return self._candidates(there, found)

    @torch.inference_mode()
    def look_back(
        self,
        frames: UInt8[Tensor, "n h w 3"],
        found: Sequence[FrameFaces],
        after: Sequence[FrameFaces],
    ) -> list[FrameFaces]:
        """See `FollowingDetector.look_back`."""
        there = frames.to(self._device)
        known = Faces.cat([no_faces_yet(), *_as_faces(found)])
        more = follow(self._networks, there, known, after=_as_faces(after))
        new = [not _is_among(more[index : index + 1], known) for index in range(len(more))]
        added = self._candidates(there, more[torch.tensor(new, dtype=torch.bool)])
        return [FrameFaces.cat([old, more]) for old, more in zip(found, added, strict=True)]

    def lacks(self, found: FrameFaces, after: Sequence[FrameFaces]) -> bool:
        """See `FollowingDetector.lacks`."""
        here = Faces.cat([no_faces_yet(), *_as_faces([found])])
        return any(bool(unmatched(faces, here).any()) for faces in _as_faces(after))

    @torch.inference_mode()
    def look_near(
        self, frames: UInt8[Tensor, "n h w 3"], expected_px: Float[Tensor, "n 478 2"]
    ) -> list[FrameFaces]:
        """See `FollowingDetector.look_near`."""
        there = frames.to(self._device)
        numbers = torch.arange(len(frames))
        seen = Faces.cat(look_around(self._networks, there, expected_px, numbers, SHIFTS))
        away = (seen.points_px - expected_px[seen.frame]).norm(dim=-1).mean(-1)
        nearest = []
        for frame in range(len(frames)):
            here = (seen.frame == frame).nonzero()[:, 0]
            if len(here):
                nearest.append(int(here[away[here].argmin()]))
        return self._candidates(there, seen[torch.tensor(nearest, dtype=torch.int64)])

    def _candidates(self, frames: UInt8[Tensor, "n h w 3"], faces: Faces) -> list[FrameFaces]:
        """The faces by frame, with their scores and the uncertainty of their points."""
        apart = differences(self._networks, frames, faces)
        uncertainty_px = estimated_px(faces.points_px, apart)
        confidence = confidence_of(uncertainty_px, faces.points_px)
        score = sure_scores(self._networks, frames, faces)
        return [
            FrameFaces(
                points_px=faces.points_px[faces.frame == frame],
                confidence=confidence[faces.frame == frame],
                score=score[faces.frame == frame],
                uncertainty_px=uncertainty_px[faces.frame == frame],
            )
            for frame in range(len(frames))
        ]


def _as_faces(frames: Sequence[FrameFaces]) -> list[Faces]:
    return [
        Faces(
            frame=torch.full((len(item.score),), index),
            points_px=item.points_px,
            presence=item.score,
            detected=torch.zeros_like(item.score),
        )
        for index, item in enumerate(frames)
    ]


def _is_among(face: Faces, known: Faces) -> bool:
    same = known.of_frame(int(face.frame[0])).points_px == face.points_px
    return bool(same.flatten(1).all(1).any())
