"""The report of a result: figures before and after, and what became of every frame."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from neuface.devices import one_thread_per_operation
from neuface.evaluation.figures import Figures, measure
from neuface.evaluation.world import view_agreement
from neuface.geometry.uneven_times import frame_times_of
from neuface.head.model import HeadModel
from neuface.results.fit_result import FitResult, passes
from neuface.structs import (
    HeadParams,
    Status,
)


@one_thread_per_operation()
def report(result: FitResult, head: HeadModel, truth: HeadParams | None = None) -> dict[str, Any]:
    """Figures before and after, timing and failed frames, as JSON holds them: the content of `report.json`.

    Args:
        result: the fit of a clip.
        head: the model of its parameters.
        truth: the true parameters, batch axes `views time`, where they are known.
    """
    before, after = (
        _known(
            measure(
                head,
                prediction,
                result.landmarks,
                result.valid,
                truth,
                starts=result.shot_starts,
                frame_times=frame_times_of(result.timestamps_s.tolist()),
            )
        )
        for prediction in (result.initial, result.prediction)
    )
    failed = failed_frames(result)
    return {
        "before": before,
        "after": after,
        "outcome": {"name": result.outcome.name, "sentence": result.outcome.value},
        "seconds": round(result.seconds, 3),
        "frames": result.status.shape[1],
        "views": result.status.shape[0],
        "status": {item.name: int((result.status == item).sum()) for item in Status},
        "mean_quality": round(float(result.quality.score.mean()), 3),
        "people": {
            "found": result.selection.people,
            "number": result.selection.number,
            "rule": result.selection.rule,
        },
        "focal": [asdict(length) for length in result.focal],
        "remarks": list(result.remarks),
        "shot_starts": list(result.shot_starts),
        **_about_world(result, head),
        "relative_rotations": [
            {**asdict(item), "rotvec": list(item.rotvec)} for item in result.relative_rotations
        ],
        "failed_frames": len(failed),
        "failed": failed,
        "passes": passes(result),
        "model": result.model,
        "head": {"name": result.head_name, "sha256": result.head_hash},
    }


def _about_world(result: FitResult, head: HeadModel) -> dict[str, Any]:
    """What calibrated cameras say, before and after; nothing without them."""
    world = result.world
    if world is None:
        return {}
    agreement = {
        label: asdict(view_agreement(head, prediction, result.landmarks, world.cameras, metric=world.metric))
        for label, prediction in (("before", result.initial), ("after", result.prediction))
    }
    return {
        "world": {
            "agreement": agreement,
            "metric": world.metric,
            "head_scale": round(float(world.scale), 4),
            "frames_seen": int(world.seen.sum()),
        }
    }


def failed_frames(result: FitResult) -> list[dict[str, Any]]:
    """Every image that was not fitted: view, frame, seconds, quality, the name of its status and its sentence."""
    found = []
    for view, time in (result.status != Status.FITTED).nonzero().tolist():
        status = Status(int(result.status[view, time]))
        found.append(
            {
                "view": result.names[view],
                "frame": time,
                "seconds": round(float(result.timestamps_s[time]), 3),
                "quality": round(float(result.quality.score[view, time]), 3),
                "status": status.name,
                "sentence": status.sentence,
            }
        )
    return found


def _known(figures: Figures) -> dict[str, float]:
    return {name: value for name, value in asdict(figures).items() if value is not None}
