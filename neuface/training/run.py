"""Training of the open encoder from random weights: `train_encoder`, the command `neuface train-encoder`.

There are two sources of training data: renders of the open head with exact truth (`neuface.synthetic`), which are
rendered once into shards, and, if a folder of footage is given, real frames of which only landmarks are known.

The shipped weights
-------------------
Four commands, all in docs/open_encoder.md, with OMP_WAIT_POLICY=PASSIVE and GOMP_SPINCOUNT=0, on two shared cores of
a Xeon (AVX-512): `neuface train-encoder --folder runs/1 --footage clips/train --held-out-footage clips/held_out`
(48,000 pictures, rendered at 110 per second with two processes; 8,800 steps of 64 pictures and 16 real frames in 65
minutes), two continuations on 100,000 pictures with lower step sizes (5,200 and 1,400 steps, 39 and 10 minutes), and
the mean of these two with a wider identity (`widen_identity`).

On 2,000 held-out people: 68 landmarks 2.94 % of the outer-eye distance (median 2.55), head rotation 2.20
degrees (median), face vertices 2.49 mm after rigid alignment (mean face 3.62), variance of the face shape 0.61
of the true one. On six real clips of other people: 4.0 % on average, 2.4 to 7.5. All figures, the other
candidates, and where it fails: docs/open_encoder.md.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from neuface.devices import cpu_threads
from neuface.encoders.open_encoder import OpenEncoder
from neuface.errors import InputError
from neuface.io.open_model.encoder_file import read_encoder
from neuface.io.training_folder import TrainingFolder, list_footage
from neuface.models import load_head
from neuface.synthetic.training_pictures import TrainingPictures
from neuface.training.calibration import widen_identity
from neuface.training.options import TrainingOptions
from neuface.training.recordings import RecordedFrames, read_recordings
from neuface.training.shards import HELD_OUT_SHARD, draw_shards, read_shards
from neuface.training.showcase import showcase
from neuface.training.trainer import Trainer, mean_encoder
from neuface.training.validation import figures
from neuface.viz.figures import loss_curves

# Number of the training's pictures from which the gain of the identity is determined.
PICTURES_TO_WIDEN_BY = 2000


def train_encoder(
    folder: str | os.PathLike[str],
    options: TrainingOptions | None = None,
    *,
    footage: str | os.PathLike[str] | None = None,
    held_out_footage: str | os.PathLike[str] | None = None,
    start: Sequence[str | os.PathLike[str]] = (),
    progress: bool = True,
) -> OpenEncoder:
    """Render the missing shards, train, and return the finished weights, which are also written to the folder.

    The finished weights are the best averaged ones (by the landmark error on held-out people) after `widen_identity`.
    A second call with the same folder continues from its last checkpoint. The weights are determined by the options,
    the seed and the number of threads. Torch's number of threads and random state are restored at the end.

    Args:
        folder: is given the shards, `checkpoint.pt`, `log.jsonl`, `curves.png`, `best.safetensors`,
            `encoder.safetensors` (the finished weights) and `showcase.png`.
        footage: folder of real clips with landmarks to train on (layout: `neuface.io.training_folder`).
        held_out_footage: folder of the same layout with other people, on which the encoder is only measured.
        start: initial weights, such as another folder's `best.safetensors`, or several whose mean is taken; random
            weights if empty. They are measured first and are candidates for the best. With `steps=0` only
            `widen_identity` is applied to them.
        progress: whether progress bars are shown.

    Raises:
        InputError: options or files that cannot be used; a person in both kinds of footage; a folder whose
            checkpoint belongs to other options.
    """
    chosen = TrainingOptions() if options is None else options
    home = TrainingFolder(folder)
    trained_on, measured_on = _read_both(footage, held_out_footage)
    numbers = range(chosen.shards)
    size = chosen.shard_pictures
    head = load_head("open")
    # The files are read before the shards are rendered, which takes hours, so that a missing file is reported at
    # once.
    begin_with = mean_encoder([read_encoder(path, head) for path in start]) if start else None
    draw_shards(home, [*numbers, HELD_OUT_SHARD], size, chosen.workers, progress=progress)
    with cpu_threads(chosen.threads):
        trainer = Trainer(head, read_shards(home, numbers, size), trained_on, chosen, begin_with)
        held_out = read_shards(home, [HELD_OUT_SHARD], size)
        _train(trainer, held_out, measured_on, home, progress=progress)
        best = home.read_best(head)
        finished, gain = widen_identity(
            head, best, trainer.training[:PICTURES_TO_WIDEN_BY], chosen.identity_variance
        )
        row = {**figures(head, finished, held_out, measured_on), "identity_gain": round(gain, 3)}
        home.write_finished(finished, {"training": json.dumps(row)})
        home.write_picture("showcase.png", showcase(head, finished, held_out))
    return finished


def _train(
    trainer: Trainer,
    held_out: TrainingPictures,
    measured_on: Sequence[RecordedFrames],
    home: TrainingFolder,
    *,
    progress: bool,
) -> None:
    """All steps of a training that are left after its last checkpoint, with regular measurements."""
    options = trainer.options
    saved = home.read_checkpoint()
    if saved is not None:
        _continue_from(trainer, saved, home)
    if trainer.start is not None and not trainer.rows:
        _check(trainer, {}, held_out, measured_on, home)
    with tqdm(initial=trainer.step, total=options.steps, unit="step", disable=not progress) as bar:
        while trainer.step < options.steps:
            parts = trainer.take_step()
            bar.update()
            if trainer.step % options.steps_per_check and trainer.step < options.steps:
                continue
            if not math.isfinite(float(parts["loss"])):
                raise InputError(
                    f"the training diverged before step {trainer.step}: choose lower learning rates. The last "
                    "checkpoint is untouched"
                )
            row = _check(trainer, parts, held_out, measured_on, home)
            bar.set_postfix(nme68=f"{row['nme68_percent']:.2f} %", loss=f"{row['loss']:.2f}")


def _continue_from(trainer: Trainer, saved: dict[str, Any], home: TrainingFolder) -> None:
    try:
        trainer.load(saved)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"the checkpoint in {home.path} does not fit this version of the package; delete it to begin anew "
            f"({type(error).__name__}: {error})"
        ) from error


def _check(
    trainer: Trainer,
    parts: dict[str, Tensor],
    held_out: TrainingPictures,
    measured_on: Sequence[RecordedFrames],
    home: TrainingFolder,
) -> dict[str, Any]:
    """Measure the averaged weights, and write the best weights, the log, the curves and a checkpoint.

    Args:
        parts: parts of the last step's loss; empty before the first step.
    """
    averaged = trainer.averaged()
    row = trainer.record(parts, averaged, held_out, measured_on)
    if row["nme68_percent"] <= min(item["nme68_percent"] for item in trainer.rows):
        home.write_best(averaged, {"training": json.dumps(row)})
    home.write_log(trainer.rows)
    if parts:
        home.write_picture("curves.png", _curves([item for item in trainer.rows if "loss" in item]))
    home.write_checkpoint(trainer.state())
    return row


def _curves(rows: Sequence[dict[str, Any]]) -> UInt8[np.ndarray, "h w 3"]:
    names = ("loss", "nme68_percent", "rotation_median_deg", "mpve_face_mm", "identity_error_share")
    history = {name: [row[name] for row in rows] for name in names}
    steps = [row["step"] for row in rows]
    return loss_curves(history, "open encoder, held-out people", steps=steps, ylabel="figure")


def _read_both(
    footage: str | os.PathLike[str] | None, held_out: str | os.PathLike[str] | None
) -> tuple[list[RecordedFrames], list[RecordedFrames]]:
    files, held_out_files = ([] if path is None else list_footage(path) for path in (footage, held_out))
    both = sorted({file.person for file in files} & {file.person for file in held_out_files})
    if both:
        raise InputError(f"{', '.join(both)}: in the footage to train on and in the held-out footage")
    return read_recordings(files), read_recordings(held_out_files)
