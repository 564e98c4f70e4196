"""Shards of training pictures: drawn once by several processes, kept in the training's folder, read back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from neuface.errors import InputError
from neuface.io.open_model.recipe_file import read_head_recipe
from neuface.io.training_folder import TrainingFolder
from neuface.models import load_head
from neuface.synthetic.appearance import Painter
from neuface.synthetic.people import sample_identities
from neuface.synthetic.training_pictures import TrainingPictures, make_training_pictures

FIELDS = ("pictures", "identity", "expression", "root_rotvec", "scale", "offset")
PICTURES_AT_ONCE = 16
HELD_OUT_SHARD = 900
IDENTITY_SEED = 1000
SEEDS_PER_SHARD = 100_000


def draw_shards(
    folder: TrainingFolder, numbers: Sequence[int], count: int, workers: int, *, progress: bool = True
) -> None:
    """Draw the shards that are not there yet, each of `count` new people, in several processes."""
    missing = [number for number in numbers if not folder.has_shard(number)]
    if not missing:
        return
    load_head("open")  # Built once here rather than in every process.
    with tqdm(total=len(missing), desc="drawing", unit="shard", disable=not progress) as bar:
        if workers == 1:
            for number in missing:
                draw_shard(os.fspath(folder.path), number, count)
                bar.update()
            return
        # One thread each: two processes draw faster than two threads.
        context = get_context("spawn")
        with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
            jobs = [pool.submit(draw_shard, os.fspath(folder.path), number, count) for number in missing]
            for job in jobs:
                job.result()
                bar.update()


def draw_shard(folder: str, number: int, count: int) -> None:
    """Draw one shard; the same bytes for the same number."""
    recipe, head = read_head_recipe(), load_head("open")
    painter = Painter(head)
    identity = sample_identities(
        recipe.target_names.tolist(), recipe.mean, recipe.projection, count, IDENTITY_SEED + number
    )
    with torch.inference_mode():
        parts = [
            make_training_pictures(
                head, painter, identity[start : start + PICTURES_AT_ONCE], number * SEEDS_PER_SHARD + start
            )[0]
            for start in range(0, count, PICTURES_AT_ONCE)
        ]
    arrays = {name: torch.cat([getattr(part, name) for part in parts]).numpy() for name in FIELDS}
    arrays["head_hash"] = np.array(head.parameter_hash())
    TrainingFolder(folder).write_shard(number, arrays)


def read_shards(folder: TrainingFolder, numbers: Sequence[int], count: int) -> TrainingPictures:
    """All pictures of some shards in memory (38 MB per thousand).

    Raises InputError for a shard that is damaged, not of `count` pictures, or drawn with another head model.
    """
    head_hash = load_head("open").parameter_hash()
    columns: dict[str, list[Tensor]] = {name: [] for name in FIELDS}
    for number in numbers:
        arrays = folder.read_shard(number)
        drawn_with = str(arrays.pop("head_hash", "unknown"))
        if drawn_with != head_hash:
            raise InputError(
                f"shard {number} in {folder.path} was drawn with the head model {drawn_with[:12]}, now it is "
                f"{head_hash[:12]}; delete it, or take another folder"
            )
        if set(arrays) != set(FIELDS) or any(len(array) != count for array in arrays.values()):
            held = {name: array.shape for name, array in arrays.items()}
            raise InputError(
                f"shard {number} in {folder.path} holds {held}, expected {count} each of {', '.join(FIELDS)}; "
                "delete it, or take another folder"
            )
        for name in FIELDS:
            columns[name].append(torch.from_numpy(arrays[name]))
    return TrainingPictures(**{name: torch.cat(parts) for name, parts in columns.items()})
