"""The clips of the studies with their known truth: rendered people, and a rendered real scan.

Everything follows from a `CaseSpec`: the same spec gives the same clip.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuface.clips import read_clip
from neuface.errors import InputError
from neuface.frames import Clip
from neuface.geometry.alignment import align_points
from neuface.geometry.triangulation import Triangulation
from neuface.head.model import HeadModel
from neuface.io.open_model.head_file import read_head_recipe
from neuface.io.scans import Scan
from neuface.landmarks.schemes import IBUG68
from neuface.structs import HeadParams, Track, ndc_to_px
from neuface.synthetic.clips import SyntheticClip, make_talking_clip
from neuface.synthetic.landmark_noise import DETECTOR, Corruption, Damage, corrupted
from neuface.synthetic.people import sample_identities
from neuface.synthetic.scan_clips import film_scan

SYNTHETIC, SCAN = "synthetic", "scan"
TEST, TUNING = "test", "tuning"
CLEAN, HARD = "clean", "hard"
# Seeds of people, motions and pictures, far from those of the training pictures (thousands for people, up to
# tens of millions for pictures) and from the demo's. Tuning and test clips share none.
FIRST_SEED = {
    (SYNTHETIC, TEST): 1_200_000_000,
    (SYNTHETIC, TUNING): 1_400_000_000,
    (SCAN, TEST): 1_600_000_000,
}
SEEDS_PER_VIEW_COUNT = 1_000_000
# From a clip's seed to that of its corruption; larger than all seeds of a kind and role lie apart.
CORRUPTION_SEEDS = 50_000_000
VIEW_YAW_DEG = (-35.0, 0.0, 35.0)
"""Yaw of each of three cameras about the head; a single camera has a random yaw."""
LARGEST_SINGLE_YAW_DEG = 25.0
# As the renderer's own default for synthetic clips; of 94 px between the outer eye corners it is 0.6 %.
NOISE_PX = 0.6
# The seven points by which NoW aligns: corners of both eyes, base of the nose, corners of the mouth.
ALIGNING_POINTS = (36, 39, 42, 45, 33, 48, 54)
NOSE_TIP = 30
FACE_RADIUS_M = 0.095
"""Scan points further than this from the tip of the nose are hair, ears or neck and are not counted."""


@dataclass(frozen=True, kw_only=True)
class CaseSpec:
    """Which clip to make."""

    kind: str
    """`synthetic` or `scan`."""
    role: str
    """`test`, or `tuning` for clips on which learning rates are chosen."""
    views: int
    """1 or 3."""
    number: int
    time: int
    size_px: int
    """Side of the square frames."""
    condition: str = CLEAN
    """`clean`: white noise of NOISE_PX on the landmarks. `hard`, for synthetic clips: the same person, motion and
    light, but landmarks as a detector gives them and things before the face (`neuface.synthetic.landmark_noise`)."""

    def __post_init__(self) -> None:
        if (self.kind, self.role) not in FIRST_SEED:
            known = ", ".join(f"{kind} {role}" for kind, role in FIRST_SEED)
            raise InputError(
                f"there are no {self.role!r} clips of kind {self.kind!r}: expected one of {known}"
            )
        conditions = (CLEAN, HARD) if self.kind == SYNTHETIC else (CLEAN,)
        if self.condition not in conditions:
            raise InputError(
                f"there are no {self.condition!r} clips of kind {self.kind!r}: expected {' or '.join(conditions)}"
            )
        if self.views not in (1, len(VIEW_YAW_DEG)):
            raise InputError(f"views: expected 1 or {len(VIEW_YAW_DEG)}, got {self.views}")
        if not 0 <= self.number < SEEDS_PER_VIEW_COUNT:
            raise InputError(f"number: expected 0 to {SEEDS_PER_VIEW_COUNT - 1}, got {self.number}")
        if self.time < 4 or self.size_px < 64:
            raise InputError(
                f"expected at least 4 frames of 64 px, got {self.time} frames of {self.size_px} px"
            )

    @property
    def name(self) -> str:
        return f"{self.role}_{self.group}_{self.number:02d}"

    @property
    def group(self) -> str:
        """Clips of one group are averaged."""
        plain = f"{self.kind}_{self.views}view{'s' if self.views > 1 else ''}"
        return plain if self.condition == CLEAN else f"{self.condition}_{plain}"

    @property
    def person_seed(self) -> int:
        """One person per number, the same in front of one camera and of three."""
        return FIRST_SEED[self.kind, self.role] + self.number

    @property
    def clip_seed(self) -> int:
        """Motion, look, light and noise differ between all clips; a hard clip shares its clean twin's."""
        return self.person_seed + self.views * SEEDS_PER_VIEW_COUNT

    @property
    def corruption_seed(self) -> int:
        """Of what a hard clip has besides."""
        return self.clip_seed + CORRUPTION_SEEDS

    def view_yaw_deg(self) -> tuple[float, ...]:
        """Yaw of each camera about the head."""
        if self.views > 1:
            return VIEW_YAW_DEG
        generator = torch.Generator().manual_seed(self.clip_seed)
        return (LARGEST_SINGLE_YAW_DEG * (2 * float(torch.rand((), generator=generator)) - 1),)


@dataclass(frozen=True, kw_only=True)
class ScanTruth:
    """The part of a scan that is compared with predicted meshes."""

    face_points: Float[Tensor, "points 3"]
    """Vertices within FACE_RADIUS_M of the tip of the nose, metres."""
    landmarks: Float[Tensor, "aligning 3"]
    """ALIGNING_POINTS, metres."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One clip, and what is known about the person in it: of rendered clips `truth` or `scan`."""

    clip: Clip
    spec: CaseSpec | None = None
    """Of rendered clips."""
    truth: HeadParams | None = None
    """Exact parameters, batch axes `views time`."""
    scan: ScanTruth | None = None
    true_landmarks_px: Float[Tensor, "views time 68 2"] | None = None
    """Where the landmarks are without any noise, iBUG-68, frame pixels; None where the truth is a scan."""
    damage: Damage | None = None
    """Of hard clips only."""
    triangulated: Triangulation | None = None
    """The inner landmarks in space, by calibrated cameras, batch axis `time`."""


def make_case(
    spec: CaseSpec, head: HeadModel, scan: Scan | None = None, *, corruption: Corruption = DETECTOR
) -> Case:
    """Render a clip.

    Args:
        corruption: what is done to a hard clip.

    Raises:
        InputError: the spec asks for a scan and none is given, or a hard clip is too short for its occlusions.
    """
    if spec.kind == SCAN:
        if scan is None:
            raise InputError(f"case {spec.name} films a scan, but no scan was given")
        return _scan_case(spec, upright(scan, head))
    rendered = make_talking_clip(
        head,
        person(spec.person_seed),
        view_yaw_deg=spec.view_yaw_deg(),
        time=spec.time,
        size_px=spec.size_px,
        noise_px=NOISE_PX,
        seed=spec.clip_seed,
    )
    exact = _exact_landmarks(head, rendered, spec.size_px)
    if spec.condition == CLEAN:
        clip = read_clip(rendered.frames, rendered.landmarks_px, fps=rendered.fps)
        return Case(spec=spec, clip=clip, truth=rendered.truth, true_landmarks_px=exact.points_px)
    worse = corrupted(exact, rendered.frames, spec.corruption_seed, corruption)
    return Case(
        spec=spec,
        clip=read_clip(worse.frames, worse.landmarks, fps=rendered.fps),
        truth=rendered.truth,
        true_landmarks_px=exact.points_px,
        damage=worse.damage,
    )


def person(seed: int) -> Float[Tensor, " identity"]:
    """The identity code of one random member of the open head's population."""
    recipe = read_head_recipe()
    names = recipe.target_names.tolist()
    return sample_identities(names, recipe.mean, recipe.projection, 1, seed)[0]


def upright(scan: Scan, head: HeadModel) -> Scan:
    """The scan turned and shifted, not scaled, to face the camera as the head model's template does."""
    template = head.landmarks(head.neutral(), IBUG68.name)
    points = torch.cat((scan.landmarks, scan.vertices))
    deciding = torch.zeros(len(points))
    deciding[list(ALIGNING_POINTS)] = 1
    target = torch.cat((template, torch.zeros_like(scan.vertices)))
    moved = align_points(points, target, fit_on=deciding)
    return Scan(
        vertices=moved[len(template) :],
        faces=scan.faces,
        uv=scan.uv,
        uv_faces=scan.uv_faces,
        texture=scan.texture,
        landmarks=moved[: len(template)],
    )


def _exact_landmarks(head: HeadModel, rendered: SyntheticClip, size_px: int) -> Track:
    points_px = ndc_to_px(rendered.camera.project(head.landmarks(rendered.truth, IBUG68.name)), size_px)
    return Track(points_px=points_px, confidence=torch.ones(points_px.shape[:-1]), scheme=IBUG68)


def _scan_case(spec: CaseSpec, scan: Scan) -> Case:
    frames, landmarks_px = film_scan(
        scan,
        view_yaw_deg=spec.view_yaw_deg(),
        time=spec.time,
        size_px=spec.size_px,
        noise_px=NOISE_PX,
        seed=spec.clip_seed,
    )
    return Case(spec=spec, clip=read_clip(frames, landmarks_px), scan=scan_truth(scan))


def scan_truth(scan: Scan) -> ScanTruth:
    """The face of an upright scan."""
    from_nose = torch.linalg.vector_norm(scan.vertices - scan.landmarks[NOSE_TIP], dim=-1)
    return ScanTruth(
        face_points=scan.vertices[from_nose < FACE_RADIUS_M],
        landmarks=scan.landmarks[list(ALIGNING_POINTS)],
    )
