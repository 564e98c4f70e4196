"""Thousands of damaged and hostile files: each is read or refused in bounded time and memory, without executing code.

The files are read in a process of their own (see fuzz_worker.py), in which an audit hook observes executed code.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_folders import PARITY
from flame_files import flame_arrays, write_flame_folder
from safetensors.numpy import save_file

import neuface
from neuface.evaluation.quality import Quality
from neuface.io.cameras.own_json import CONVENTION, UNITS
from neuface.io.heads import write_head
from neuface.landmarks.schemes import IBUG68
from neuface.structs import Prediction, Track, WeakPerspective

pytest.importorskip("resource")
pytestmark = pytest.mark.slow
MUTATIONS = 70
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, open_head: neuface.HeadModel) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("fuzz")
    write_seeds(folder, open_head)
    program = [sys.executable, str(HERE / "fuzz_worker.py"), str(folder), str(PARITY)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)])}
    done = subprocess.run(
        [*program, str(MUTATIONS)], capture_output=True, text=True, env=environment, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.rpartition("\nREPORT ")[2])


def write_seeds(folder: Path, open_head: neuface.HeadModel) -> None:
    """Small intact files of every kind, and `seeds.json` with the reader of each."""
    arrays = flame_arrays(vertices=12, faces=20)
    write_flame_folder(folder, arrays)
    np.save(folder / "faces.npy", arrays["f"])
    landmarks = np.load(folder / "landmark_embedding.npy", allow_pickle=True)[()]
    tensors = {
        name: torch.from_numpy(value) if "dynamic" in name else value for name, value in landmarks.items()
    }
    np.save(folder / "landmark_embedding.npy", np.array(tensors, dtype=object), allow_pickle=True)
    older = {"lmk_face_idx": "lmk_faces_idx", "lmk_b_coords": "lmk_bary_coords"}
    static, dynamic = (
        {new: landmarks[f"{kind}_{old}"] for new, old in older.items()} for kind in ("static", "dynamic")
    )
    (folder / "flame_static_embedding.pkl").write_bytes(pickle.dumps(static, 2))
    np.save(folder / "flame_dynamic_embedding.npy", np.array(dynamic, dtype=object), allow_pickle=True)
    (folder / "plain.pkl").write_bytes(pickle.dumps(arrays, 4))
    np.savez_compressed(folder / "model.npz", allow_pickle=False, **arrays)
    save_file(arrays, folder / "flame.safetensors")
    write_head(folder / "head.safetensors", neuface.load_head(folder / "generic_model.pkl"))
    weights = {"weight": torch.zeros(2, 3), "bias": torch.ones(2)}
    torch.save({"E_flame": weights}, folder / "zip.tar")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save({"E_flame": weights}, folder / "legacy.tar", _use_new_zipfile_serialization=False)
    np.savez(folder / "points.npz", points_px=np.zeros((2, 68, 2), np.float32), scheme="ibug68")
    write_result(folder / "result.npz", open_head)
    sizes = {"cam": (3,), "pose": (6,), "expr": (50,), "shapes": (100,), "landmarks2d": (68, 2)}
    ones = {name: np.ones((2, *size), np.float32) for name, size in sizes.items()}
    np.savez_compressed(folder / "params.npz", allow_pickle=False, **ones)
    camera = {
        "K": [[900, 0, 320], [0, 900, 240], [0, 0, 1]],
        "dist": [0.1, 0, 0, 0, 0],
        "R": np.eye(3).tolist(),
    }
    described = {"units": UNITS, "convention": CONVENTION, "image_size": [640, 480], "fps": 30}
    cameras = {"front": {**camera, "t": [0, 0, 1]}, "side": {**camera, "t": [0.5, 0, 1]}}
    (folder / "cameras.json").write_text(json.dumps({**described, "cameras": cameras}))
    lines = [
        f"[{name}]\n" + "".join(f"{field} = {json.dumps(value)}\n" for field, value in fields.items())
        for name, fields in cameras.items()
    ]
    (folder / "rig.toml").write_text("".join(lines))
    # JSON is YAML, too.
    (folder / "rig.yaml").write_text("%YAML:1.0\n" + json.dumps(cameras))
    seeds = {
        "generic_model.pkl": "head", "plain.pkl": "head", "model.npz": "head", "flame.safetensors": "head",
        "head.safetensors": "head", "landmark_embedding.npy": "embedding", "flame_static_embedding.pkl": "static",
        "flame_dynamic_embedding.npy": "dynamic", "mediapipe_landmark_embedding.npz": "mediapipe",
        "FLAME_masks.pkl": "masks", "head_template.obj": "template", "l_eyelid.npy": "eyelid",
        "zip.tar": "checkpoint", "legacy.tar": "checkpoint", "points.npz": "landmarks", "result.npz": "result",
        "params.npz": "authors", "cameras.json": "cameras", "rig.toml": "cameras", "rig.yaml": "cameras",
    }  # fmt: skip
    (folder / "seeds.json").write_text(json.dumps(seeds))


def write_result(path: Path, head: neuface.HeadModel) -> None:
    """A result of one view and two frames."""
    camera = WeakPerspective(scale=torch.ones(1, 2), offset=torch.zeros(1, 2, 2))
    params = head.neutral(1, 2)
    neuface.FitResult(
        identity=torch.zeros(head.num_identity),
        expression=params.expression,
        root_rotvec=params.root_rotvec,
        neck_rotvec=params.neck_rotvec,
        jaw_rotvec=params.jaw_rotvec,
        eyes_rotvec=params.eyes_rotvec,
        camera=camera,
        initial=Prediction(params=params, camera=camera),
        landmarks=Track(points_px=torch.zeros(1, 2, 68, 2), confidence=torch.ones(1, 2, 68), scheme=IBUG68),
        status=torch.zeros(1, 2, dtype=torch.int64),
        quality=Quality(**{item.name: torch.ones(1, 2) for item in fields(Quality)}),
        image_nme_percent=torch.zeros(1, 2),
        history={"total": [1.0, 0.5]},
        identity_spread=[],
        outcome=neuface.Outcome.PASS_LIMIT,
        config=neuface.FitConfig(),
        model="open",
        head_name=head.name,
        head_hash=head.parameter_hash(),
        fps=25.0,
        names=("a",),
        frame_sizes_hw=((48, 64),),
        timestamps_s=torch.arange(2) / 25.0,
        seconds=1.0,
    ).save(path)


def test_every_file_is_read_or_refused_and_no_code_is_executed(report: dict[str, Any]) -> None:
    assert report["faults"] == []


def test_every_reader_gets_files(report: dict[str, Any]) -> None:
    assert report["cases"] >= 2000
    counts = report["counts"]
    for reader in ("head", "embedding", "mediapipe", "masks", "eyelid", "checkpoint", "deca", "smirk", "copy",
                   "result", "landmarks", "authors", "template", "static", "dynamic"):  # fmt: skip
        assert counts[reader] >= 10, reader
    # A file with damaged numbers may still be valid; most other damage must be detected.
    assert 0 < counts["accepted"] < report["cases"] / 3


def test_time_and_memory_are_bounded(report: dict[str, Any]) -> None:
    assert report["longest_s"] < 5
    assert report["growth_bytes"] < 1 << 30


def test_the_harness_catches_a_careless_reader(report: dict[str, Any]) -> None:
    """The control uses `pickle.load` as the reader, one that allocates 4 GiB, and one that never ends."""
    careless = " ".join(report["controls"]["careless"])
    for sign in ("os.system", "pickle.find_class", "left the marker"):
        assert sign in careless
    assert "MemoryError" in report["controls"]["greedy"][0]
    assert "took more than" in report["controls"]["endless"][0]
