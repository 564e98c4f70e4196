"""The open head's file: an extract of CC0 assets and the recipe that combines them; see `tools/open_head`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from neuface.head.model import HeadModel, LandmarkEmbedding
from neuface.head.open_head import HeadAssets, build_open_head
from neuface.io.atomic import atomic_path
from neuface.landmarks.schemes import IBUG68, MEDIAPIPE478

SHIPPED_HEAD = "open_head.npz"


@dataclass(frozen=True, kw_only=True)
class HeadRecipe:
    """How the head is combined from the assets, in integers and indices except for landmark positions."""

    vertex_index: NDArray[np.int32]
    """(vertices,) base-mesh vertices of which the head consists: skin, tongue, left eye, right eye."""
    target_names: NDArray[np.character]
    """(targets,) names of the morph targets of which identity is composed, text."""
    mean: NDArray[np.int64]
    """(targets,) mean weights in COEFFICIENT_UNIT."""
    modes: NDArray[np.int64]
    """(modes, targets + 6) identity modes in COEFFICIENT_UNIT."""
    projection: NDArray[np.float32]
    """(targets, modes) from target weights to mode coordinates."""
    region_names: NDArray[np.character]
    region_masks: NDArray[np.bool_]
    """(regions, vertices)."""
    mediapipe_triangles: NDArray[np.int32]
    mediapipe_barycentric: NDArray[np.float32]
    mediapipe_yaw_rad: NDArray[np.float32]
    mediapipe_row_triangles: NDArray[np.int32]
    """(rows, 478) triangles on which the detector places its points when the head has the yaw of the row."""
    mediapipe_row_barycentric: NDArray[np.float32]
    ibug_triangles: NDArray[np.int32]
    ibug_barycentric: NDArray[np.float32]
    contour_yaw_rad: NDArray[np.float32]
    contour_triangles: NDArray[np.int32]
    contour_barycentric: NDArray[np.float32]

    def embeddings(self) -> dict[str, LandmarkEmbedding]:
        """Landmark embeddings by scheme: the contour of iBUG-68 slides with yaw, and so do all points of
        MediaPipe.
        """
        return {
            IBUG68.name: LandmarkEmbedding(
                triangles=torch.from_numpy(self.ibug_triangles).long(),
                barycentric=torch.from_numpy(self.ibug_barycentric),
                contour_yaw_rad=torch.from_numpy(self.contour_yaw_rad),
                contour_triangles=torch.from_numpy(self.contour_triangles).long(),
                contour_barycentric=torch.from_numpy(self.contour_barycentric),
            ),
            MEDIAPIPE478.name: LandmarkEmbedding(
                triangles=torch.from_numpy(self.mediapipe_triangles).long(),
                barycentric=torch.from_numpy(self.mediapipe_barycentric),
                contour_yaw_rad=torch.from_numpy(self.mediapipe_yaw_rad),
                contour_triangles=torch.from_numpy(self.mediapipe_row_triangles).long(),
                contour_barycentric=torch.from_numpy(self.mediapipe_row_barycentric),
            ),
        }


@cache
def read_open_head() -> HeadModel:
    """The open head, built from the shipped file; repeated calls return the same object."""
    return assemble_open_head(read_head_recipe(), read_head_assets())


def assemble_open_head(recipe: HeadRecipe, assets: HeadAssets) -> HeadModel:
    """The open head from its two parts."""
    return build_open_head(
        assets,
        mean=recipe.mean,
        modes=recipe.modes,
        regions=dict(zip(recipe.region_names.tolist(), recipe.region_masks, strict=True)),
        embeddings=recipe.embeddings(),
    )


def read_head_recipe(path: Path | None = None) -> HeadRecipe:
    """The recipe in the file shipped with the package, or in one written by `write_head_file`."""
    with np.load(path or shipped_head(), allow_pickle=False) as archive:
        return HeadRecipe(**{item.name: archive[item.name] for item in fields(HeadRecipe)})


def read_head_assets(path: Path | None = None) -> HeadAssets:
    """The extract of the assets in the file shipped with the package, or in one written by `write_head_file`."""
    with np.load(path or shipped_head(), allow_pickle=False) as archive:
        return HeadAssets(**{item.name: archive[item.name] for item in fields(HeadAssets)})


def write_head_file(path: Path, recipe: HeadRecipe, assets: HeadAssets) -> None:
    """Write both parts as one compressed npz; the file appears only when it is complete."""
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **vars(recipe), **vars(assets))


def shipped_head() -> Path:
    """Path of the file that ships with the package."""
    return Path(str(resources.files("neuface") / "assets" / SHIPPED_HEAD))
