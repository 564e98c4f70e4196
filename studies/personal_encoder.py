"""When a fine-tuned encoder pays: one half of a clip teaches it, and it predicts the other half of the same person.

    python -m studies.personal_encoder --data DATA --json personal.json

On the second half of every clip, which no fit of the first has seen, four methods are compared: the pretrained
encoder, the one that `neuface.teach_encoder` taught the solution of the first half, the one that `FitConfig.neural()`
fine-tuned on it, and a fit of the second half with `FitConfig.best()`. Clips are rendered people of the open head
with known truth, and real clips, where only landmarks can be compared with.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import tyro

import neuface
from neuface import Clip, FitConfig, HeadModel, HeadParams, Prediction
from neuface.evaluation.figures import image_nme_percent
from neuface.geometry.alignment import align_points
from neuface.models import load_head
from neuface.synthetic.clips import make_talking_clip
from neuface.synthetic.people import open_head_identities
from studies.common.cases import NOISE_PX
from studies.common.recordings import REAL_1VIEW, find_footage

PEOPLE_SEED = 9000
SIZE_PX = 256
TAUGHT, FINE_TUNED = "taught the solution of the first half", "fine-tuned on the first half"
METHODS = ("encoder alone", TAUGHT, FINE_TUNED, "fitted")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which clips are used, and where the figures go."""

    people: int = 3
    """Rendered clips, each of another person."""
    frames: int = 48
    """Of a rendered clip, both halves together."""
    passes: int = 60
    """Of the fine-tuning."""
    data: Path | None = None
    """Folder of real clips (`studies.common.recordings`); without it there are rendered ones alone."""
    real_clips: int = 3
    real_frames: int = 75
    json: Path | None = None
    """File for the figures; without it they are only printed."""


@dataclass(frozen=True, kw_only=True)
class TwoHalves:
    """A clip in two halves of one person."""

    name: str
    first: Clip
    second: Clip
    truth: HeadParams | None
    """Of the second half, batch axes `views time`, where it is known."""


def main(options: Options) -> None:
    """Compare the methods on every clip, and print a line for each."""
    head = load_head("open")
    rows = []
    for halves in _clips(head, options):
        for row in compared(halves, head, options.passes):
            rows.append(row)
            print(row, flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    for method in METHODS:
        of_method = [row for row in rows if row["method"] == method]
        print(method, f"NME {fmean(row['nme_percent'] for row in of_method):.2f} %")


def compared(halves: TwoHalves, head: HeadModel, passes: int) -> list[dict[str, Any]]:
    """One row of figures per method on the second half of a clip."""
    config = FitConfig.neural({"m_step.stop.max_passes": passes})
    started = time.process_time()
    taught = neuface.teach_encoder(neuface.optimize(halves.first, progress=False), progress=False)
    teaching_s = {TAUGHT: time.process_time() - started}
    started = time.process_time()
    tuned = neuface.optimize(halves.first, config=config, progress=False).encoder
    teaching_s[FINE_TUNED] = time.process_time() - started
    assert tuned is not None, "a fit of an encoder's weights gives the encoder"
    predictions: dict[str, Callable[[], Prediction]] = {
        "encoder alone": lambda: neuface.predict(halves.second, progress=False),
        TAUGHT: lambda: neuface.predict(halves.second, model=taught, progress=False),
        FINE_TUNED: lambda: neuface.predict(halves.second, model=tuned, progress=False),
        "fitted": lambda: neuface.optimize(halves.second, progress=False).prediction,
    }
    rows = []
    for method, predicted in predictions.items():
        started = time.process_time()
        prediction = predicted()
        cpu_s = time.process_time() - started
        rows.append(
            {
                "clip": halves.name,
                "method": method,
                "nme_percent": float(image_nme_percent(head, prediction, halves.second.track).nanmean()),
                "mpve_mm": None if halves.truth is None else _mpve_mm(head, prediction, halves.truth),
                "cpu_ms_per_frame": 1000 * cpu_s / halves.second.time,
                "teaching_cpu_s": teaching_s.get(method),
            }
        )
    return rows


def _mpve_mm(head: HeadModel, prediction: Prediction, truth: HeadParams) -> float:
    """Mean distance of all vertices to the truth after rigid alignment of every frame, mm."""
    found, true = head.vertices(prediction.params), head.vertices(truth)
    return float(1000 * (align_points(found, true) - true).norm(dim=-1).mean())


def _clips(head: HeadModel, options: Options) -> Iterator[TwoHalves]:
    middle = options.frames // 2
    for number, identity in enumerate(open_head_identities(options.people, PEOPLE_SEED)):
        clip = make_talking_clip(
            head,
            identity,
            view_yaw_deg=(0.0,),
            time=options.frames,
            size_px=SIZE_PX,
            noise_px=NOISE_PX,
            seed=PEOPLE_SEED + number,
        )
        frames, landmarks = clip.frames.numpy(), clip.landmarks_px.numpy()
        first, second = (
            neuface.read_clip(frames[:, part], landmarks[:, part], progress=False)
            for part in (slice(middle), slice(middle, None))
        )
        yield TwoHalves(
            name=f"rendered person {number}", first=first, second=second, truth=clip.truth[:, middle:]
        )
    if options.data is None:
        return
    for case in find_footage(options.data).of_group(REAL_1VIEW)[: options.real_clips]:
        clip = case.load(options.real_frames)
        middle = clip.time // 2
        frames = clip.recording.frames
        pictures = frames.read(0, 0, clip.time)[None].numpy()
        points = clip.track.points_px.numpy()
        first, second = (
            neuface.read_clip(pictures[:, part], points[:, part], progress=False)
            for part in (slice(middle), slice(middle, clip.time))
        )
        yield TwoHalves(name=case.name, first=first, second=second, truth=None)


if __name__ == "__main__":
    main(tyro.cli(Options))
