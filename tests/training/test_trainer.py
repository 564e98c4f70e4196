"""Training lowers the error, continues from checkpoints, is determined by its seed, and refuses wrong input."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from small_encoder import SMALL_WIDTHS

from neuface.encoders.open_encoder import OpenEncoder, OpenEncoderConfig
from neuface.encoders.predictor import Predictor
from neuface.errors import InputError
from neuface.head.model import HeadModel
from neuface.io.npz import read_arrays
from neuface.io.open_model.encoder_file import read_encoder, write_encoder
from neuface.io.training_folder import TrainingFolder
from neuface.structs import Prediction
from neuface.synthetic.training_pictures import TrainingPictures
from neuface.training.options import TrainingOptions
from neuface.training.run import train_encoder
from neuface.training.shards import HELD_OUT_SHARD, draw_shards, read_shards
from neuface.training.trainer import Trainer
from neuface.training.validation import face_shapes_mm, measure_synthetic, shape_variance_mm2

OPTIONS = TrainingOptions(
    widths=SMALL_WIDTHS, shards=1, shard_pictures=24, workers=1, threads=1, steps=6, batch=8, footage_batch=0,
    warm_up_steps=2, steps_per_check=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one shard to train on and the held-out one."""
    path = tmp_path_factory.mktemp("training")
    draw_shards(TrainingFolder(path), [0, HELD_OUT_SHARD], 24, 1, progress=False)
    return path


@pytest.fixture
def folder(drawn: Path, tmp_path: Path) -> Path:
    for shard in drawn.glob("shard_*.npz"):
        (tmp_path / shard.name).symlink_to(shard)
    return tmp_path


def weights(encoder: OpenEncoder) -> torch.Tensor:
    return torch.cat([value.double().flatten() for value in encoder.state_dict().values()])


@pytest.mark.slow
def test_a_run_leaves_weights_log_and_curves(folder: Path, open_head: HeadModel) -> None:
    encoder = train_encoder(folder, OPTIONS, progress=False)
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6]
    assert (folder / "curves.png").stat().st_size > 1000
    assert (folder / "showcase.png").stat().st_size > 1000
    finished = read_encoder(folder / "encoder.safetensors", open_head)
    assert finished.config.widths == OPTIONS.widths
    # The file keeps half precision.
    assert torch.allclose(weights(finished), weights(encoder), rtol=1e-3, atol=2e-3)
    best = min(row["nme68_percent"] for row in rows)
    with safe_open(folder / "best.safetensors", framework="pt") as archive:
        assert json.loads(archive.metadata()["training"])["nme68_percent"] == best


@pytest.mark.slow
def test_a_continued_run_equals_an_uninterrupted_one(folder: Path, tmp_path: Path) -> None:
    unbroken = train_encoder(folder, OPTIONS, progress=False)
    broken = tmp_path / "broken"
    broken.mkdir()
    for shard in folder.glob("shard_*.npz"):
        (broken / shard.name).symlink_to(shard.resolve())

    class Stop(Exception):
        pass

    def stop_after_first_checkpoint(self: TrainingFolder, state: dict[str, object]) -> None:
        write(self, state)
        raise Stop

    write = TrainingFolder.write_checkpoint
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingFolder, "write_checkpoint", stop_after_first_checkpoint)
        with pytest.raises(Stop):
            train_encoder(broken, OPTIONS, progress=False)
    continued = train_encoder(broken, OPTIONS, progress=False)
    assert torch.equal(weights(continued), weights(unbroken))
    other = train_encoder(broken, OPTIONS, progress=False)  # all steps are done
    assert torch.equal(weights(other), weights(unbroken))


@pytest.mark.slow
def test_torchs_global_state_is_restored(folder: Path) -> None:
    """Another number of threads in the caller changes neither the result nor the caller's setting afterwards."""
    before = torch.get_num_threads()
    torch.manual_seed(11)
    state = torch.get_rng_state()
    torch.set_num_threads(2)
    try:
        first = train_encoder(folder, replace(OPTIONS, steps=3, threads=1), progress=False)
        assert torch.get_num_threads() == 2
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(5)
        (folder / "checkpoint.pt").unlink()
        second = train_encoder(folder, replace(OPTIONS, steps=3, threads=1), progress=False)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(weights(first), weights(second))


def test_threads_are_restored_after_an_error(folder: Path) -> None:
    before = torch.get_num_threads()
    with pytest.raises(InputError, match="expected 30 each"):
        train_encoder(folder, replace(OPTIONS, shard_pictures=30, threads=before + 1), progress=False)
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_another_seed_gives_other_weights(folder: Path) -> None:
    first = train_encoder(folder, replace(OPTIONS, steps=3), progress=False)
    (folder / "checkpoint.pt").unlink()
    second = train_encoder(folder, replace(OPTIONS, steps=3, seed=1), progress=False)
    assert not torch.equal(weights(first), weights(second))


@pytest.mark.slow
def test_a_folder_of_another_run_is_not_continued(folder: Path) -> None:
    train_encoder(folder, replace(OPTIONS, steps=3), progress=False)
    with pytest.raises(InputError, match=r"other options: learning_rate 0\.004 \(now 0\.1\)"):
        train_encoder(folder, replace(OPTIONS, steps=3, learning_rate=0.1), progress=False)


def test_the_error_for_a_damaged_checkpoint_states_what_to_do(folder: Path) -> None:
    (folder / "checkpoint.pt").write_bytes(b"PK\x03\x04 nothing useful")
    with pytest.raises(InputError, match="delete it to begin anew"):
        train_encoder(folder, OPTIONS, progress=False)


def test_a_shard_of_another_size_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="expected 30 each"):
        train_encoder(folder, replace(OPTIONS, shard_pictures=30), progress=False)


def test_a_shard_of_another_head_is_refused(folder: Path) -> None:
    shard = folder / "shard_0000.npz"
    arrays = read_arrays(shard)
    shard.unlink()
    TrainingFolder(folder).write_shard(0, {**arrays, "head_hash": np.array("0" * 64)})
    with pytest.raises(InputError, match="drawn with the head model 000000000000"):
        train_encoder(folder, OPTIONS, progress=False)


@pytest.mark.slow
def test_begins_with_given_weights(folder: Path, tmp_path: Path, open_head: HeadModel) -> None:
    given = OpenEncoder(open_head, OpenEncoderConfig(widths=OPTIONS.widths))
    path = tmp_path / "given.safetensors"
    write_encoder(path, given, {})
    still = replace(OPTIONS, steps=1, learning_rate=1e-12, matrix_learning_rate=1e-12)
    train_encoder(folder, still, start=[path], progress=False)
    trained = dict(read_encoder(folder / "best.safetensors", open_head).named_parameters())
    for name, value in given.named_parameters():
        assert torch.allclose(trained[name], value, rtol=1e-3, atol=2e-3), name
    with pytest.raises(InputError, match="began with other weights"):
        train_encoder(folder, still, progress=False)
    (folder / "checkpoint.pt").unlink()
    with pytest.raises(InputError, match="network with"):
        train_encoder(folder, replace(still, widths=(8, 8, 16, 32)), start=[path], progress=False)


@pytest.mark.slow
def test_training_begins_with_the_mean_of_several_weights(
    folder: Path, tmp_path: Path, open_head: HeadModel
) -> None:
    torch.manual_seed(0)
    config = OpenEncoderConfig(widths=OPTIONS.widths)
    pair = [OpenEncoder(open_head, config) for _ in range(2)]
    paths = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    for path, encoder in zip(paths, pair, strict=True):
        write_encoder(path, encoder, {})
    train_encoder(folder, replace(OPTIONS, steps=0), start=paths, progress=False)
    best = dict(read_encoder(folder / "best.safetensors", open_head).named_parameters())
    for name, value in pair[0].named_parameters():
        other = dict(pair[1].named_parameters())[name]
        assert torch.allclose(best[name], (value + other) / 2, rtol=1e-3, atol=2e-3), name
    assert [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()] == [0]
    write_encoder(paths[1], OpenEncoder(open_head, replace(config, widths=(8, 8, 16, 32))), {})
    with pytest.raises(InputError, match="different networks"):
        train_encoder(folder, OPTIONS, start=paths, progress=False)


@pytest.mark.slow
def test_a_checkpoint_of_other_footage_or_another_version_is_not_continued(folder: Path) -> None:
    short = replace(OPTIONS, steps=3)
    train_encoder(folder, short, progress=False)
    home = TrainingFolder(folder)
    state = home.read_checkpoint()
    assert state is not None
    home.write_checkpoint({**state, "footage": ["ann/talk"]})
    with pytest.raises(InputError, match=r"footage ann/talk, now it is \(none\)"):
        train_encoder(folder, short, progress=False)
    home.write_checkpoint({name: value for name, value in state.items() if name != "optimizer"})
    with pytest.raises(InputError, match="does not fit this version of the package; delete it"):
        train_encoder(folder, short, progress=False)


@pytest.mark.slow
def test_a_training_that_diverges_is_reported_and_keeps_its_checkpoint(folder: Path) -> None:
    train_encoder(folder, replace(OPTIONS, steps=3), progress=False)
    before = (folder / "checkpoint.pt").read_bytes()

    def infinite(self: Trainer) -> dict[str, torch.Tensor]:
        self.step += 1
        return {"loss": torch.tensor(torch.inf)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "take_step", infinite)
        with pytest.raises(InputError, match="diverged before step 6"):
            train_encoder(folder, OPTIONS, progress=False)
    assert (folder / "checkpoint.pt").read_bytes() == before


@pytest.mark.slow
def test_training_lowers_the_error(folder: Path, open_head: HeadModel) -> None:
    """Measured on the training pictures: the gradients of all parts have the right sign."""
    longer = replace(OPTIONS, steps=60, batch=24, widths=(8, 8, 16, 32), ema_decay=0.5, steps_per_check=60)
    encoder = train_encoder(folder, longer, progress=False)
    training = read_shards(TrainingFolder(folder), [0], 24)
    untrained = OpenEncoder(open_head, OpenEncoderConfig(widths=longer.widths)).eval()
    before = measure_synthetic(open_head, untrained, training)
    after = measure_synthetic(open_head, encoder, training)
    assert after.nme68_percent < 0.6 * before.nme68_percent
    assert after.rotation_median_deg < 0.8 * before.rotation_median_deg


def test_the_learning_rate_warms_up_and_ends_at_zero() -> None:
    options = TrainingOptions(steps=1000, warm_up_steps=100)
    assert options.learning_rate_share(0) == pytest.approx(0.01)
    assert options.learning_rate_share(99) == pytest.approx(1, abs=0.03)
    assert options.learning_rate_share(1000) == pytest.approx(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": -1}, "steps must not be negative"),
        ({"footage_weight": -1.0}, "must not be negative"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"warm_up_steps": -5}, "warm_up_steps must not be negative, got -5"),
        ({"footage_weight": math.nan}, "footage_weight must be finite, got nan"),
        ({"matrix_learning_rate": math.nan}, "matrix_learning_rate must be finite, got nan"),
        ({"identity_variance": 0.0}, "identity_variance must be positive, got 0.0"),
        ({"seed": 10**20}, "seed must be at most"),
        ({"shards": 901}, "shards must be at most 900"),
        ({"widths": (0, 4, 8, 8)}, "widths must be at least 1"),
    ],
)
def test_options_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(OPTIONS, **change)


class Oracle(Predictor):
    """Predicts the truth for every batch, with the identity scaled towards the mean face."""

    def __init__(self, truth: Prediction, identity_share: float) -> None:
        super().__init__()
        shrunk = replace(truth.params, identity=identity_share * truth.params.identity)
        self.prediction = replace(truth, params=shrunk)

    def prepare(self, crops: torch.Tensor) -> torch.Tensor:
        return crops

    def forward(self, inputs: torch.Tensor, index: torch.Tensor | None = None) -> Prediction:
        return self.prediction[: len(inputs)]


def test_figures_of_perfect_and_of_collapsed_encoders(drawn: Path, open_head: HeadModel) -> None:
    held_out: TrainingPictures = read_shards(TrainingFolder(drawn), [HELD_OUT_SHARD], 24)
    truth = held_out.truth(open_head)
    perfect = measure_synthetic(open_head, Oracle(truth, 1.0), held_out)
    assert perfect.nme68_percent == pytest.approx(0, abs=1e-3)
    assert perfect.mpve_face_mm == pytest.approx(0, abs=1e-2)
    assert perfect.identity_variance_share == pytest.approx(1, abs=1e-4)
    assert perfect.identity_error_share == pytest.approx(0, abs=1e-4)
    collapsed = measure_synthetic(open_head, Oracle(truth, 0.0), held_out)
    assert collapsed.identity_variance_share == pytest.approx(0, abs=1e-6)
    assert collapsed.identity_error_share == pytest.approx(1, abs=0.2)
    assert 0 < collapsed.mpve_face_mm < collapsed.mean_face_mpve_mm


def test_shape_variance_depends_on_shape_and_not_on_size(open_head: HeadModel) -> None:
    identity = torch.randn(40, 100, generator=torch.Generator().manual_seed(0))
    params = replace(open_head.neutral(40), identity=identity)
    variance = shape_variance_mm2(face_shapes_mm(open_head, params))
    raw = 1000 * open_head.vertices(params)[:, open_head.regions["face"]]
    assert 0 < float(variance) < float(shape_variance_mm2(raw))
    half = shape_variance_mm2(face_shapes_mm(open_head, replace(params, identity=identity / 2)))
    assert float(half / variance) == pytest.approx(0.25, rel=0.1)
