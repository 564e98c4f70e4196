"""Shards of training pictures: rendered once by several processes and stored in the training's folder."""

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
from neuface.io.open_model.head_file import read_head_recipe
from neuface.io.training_folder import TrainingFolder
from neuface.models import load_head
from neuface.synthetic.appearance import Painter
from neuface.synthetic.people import sample_identities
from neuface.synthetic.training_pictures import TrainingPictures, make_training_pictures

FIELDS = ("pictures", "identity", "expression", "root_rotvec", "scale", "offset")
# Upper bound of the pictures rendered at once.
PICTURES_PER_BATCH = 16
# Number of the shard with held-out people; shards to train on have lower numbers.
HELD_OUT_SHARD = 900
# Seed of the identities in shard 0; later shards have the following seeds.
IDENTITY_SEED = 1000
# Distance of the seeds of two shards; it bounds the number of pictures in a shard.
SEEDS_PER_SHARD = 100_000


def draw_shards(
    folder: TrainingFolder, numbers: Sequence[int], count: int, workers: int, *, progress: bool = True
) -> None:
    """Render the shards that do not exist yet, each with `count` new people, in several processes."""
    missing = [number for number in numbers if not folder.has_shard(number)]
    if not missing:
        return
    load_head("open")  # The head is built and cached here, and not in every process.
    with tqdm(total=len(missing), desc="drawing", unit="shard", disable=not progress) as bar:
        if workers == 1:
            for number in missing:
                draw_shard(os.fspath(folder.path), number, count)
                bar.update()
            return
        # Every process has one thread: two processes render faster than two threads.
        context = get_context("spawn")
        with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
            jobs = [pool.submit(draw_shard, os.fspath(folder.path), number, count) for number in missing]
            for job in jobs:
                job.result()
                bar.update()


def draw_shard(folder: str, number: int, count: int) -> None:
    """Render one shard; the same number gives the same bytes."""
    recipe, head = read_head_recipe(), load_head("open")
    painter = Painter(head)
    identity = sample_identities(
        recipe.target_names.tolist(), recipe.mean, recipe.projection, count, IDENTITY_SEED + number
    )
    with torch.inference_mode():
        parts = [
            make_training_pictures(
                head, painter, identity[start : start + PICTURES_PER_BATCH], number * SEEDS_PER_SHARD + start
            )[0]
            for start in range(0, count, PICTURES_PER_BATCH)
        ]
    arrays = {name: torch.cat([getattr(part, name) for part in parts]).numpy() for name in FIELDS}
    arrays["head_hash"] = np.array(head.parameter_hash())
    TrainingFolder(folder).write_shard(number, arrays)


def read_shards(folder: TrainingFolder, numbers: Sequence[int], count: int) -> TrainingPictures:
    """All pictures of some shards, in memory (38 MB per thousand).

    Raises InputError for a shard that is damaged, has not `count` pictures, or was rendered with another head model.
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
            found = {name: array.shape for name, array in arrays.items()}
            raise InputError(
                f"shard {number} in {folder.path} holds {found}, expected {count} each of {', '.join(FIELDS)}; "
                "delete it, or take another folder"
            )
        for name in FIELDS:
            columns[name].append(torch.from_numpy(arrays[name]))
    return TrainingPictures(**{name: torch.cat(parts) for name, parts in columns.items()})
