"""The whole study: which clips, with which settings, run one after the other and kept as they finish."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from tqdm import tqdm

from neuface.errors import InputError
from neuface.fitting.config import FitConfig
from neuface.hashing import tensors_hash
from neuface.io.scans import Scan
from neuface.models import FaceModel
from studies.common.cases import SCAN, SYNTHETIC, TEST, TUNING, CaseSpec, make_case
from studies.common.scores import Scores, true_stability
from studies.neural_versus_direct.arms import (
    BOUNDED,
    DIRECT,
    NEURAL,
    ArmRow,
    Trial,
    choose_rates,
    compare,
    try_rates,
)

STUDY_FORMAT = 2
"""Raise when the meaning of kept results changes: older ones are then computed again."""

Json = dict[str, Any]
Keep = Callable[[str, Json, Callable[[], Json]], Json]
"""`keep(name, key, make)`: the object kept under `name` if it was made for an equal `key`, else `make()`, kept."""


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """How large the study is, and what all fits have in common."""

    clips: int = 20
    """Rendered test clips, each of another person: the first half before one camera, the others before three."""
    scan_clips: int = 4
    """Test clips of the scan, if there is one, shared out in the same way."""
    tuning_clips: int = 2
    """Rendered clips of further people on which the learning rates are chosen, shared out in the same way."""
    frames: int = 16
    """Of a clip from one camera."""
    frames_of_three: int = 8
    """Of a clip from three cameras, each."""
    size_px: int = 320
    """Side of the frames."""
    direct_rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2, 1e-1)
    """Learning rates to choose from, for direct fitting, bounded or not."""
    neural_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    max_passes: int = 300
    """Enough for the stopping rule to end the fits."""
    patience: int = 20
    """As FitConfig's, but longer: a fit whose loss jumps at first, or creeps, has not converged."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            least = 0 if item.name in ("clips", "scan_clips") else 1
            if isinstance(value, int) and value < least:
                raise InputError(f"StudySettings.{item.name} must be at least {least}, got {value}")
            if isinstance(value, tuple) and not value:
                raise InputError(f"StudySettings.{item.name} must name at least one learning rate")
        images = max(self.frames, 3 * self.frames_of_three)
        if images > self.config().batch_size:
            raise InputError(
                f"a clip of {images} images does not fit the batch of {self.config().batch_size}, with which "
                "every arm takes one step per pass: choose fewer frames"
            )

    def config(self) -> FitConfig:
        """The configuration of all fits, but for the learning rate.

        That of the figures in docs/neural_versus_direct.md, which are older than some of FitConfig's defaults.
        """
        return FitConfig(
            max_passes=self.max_passes,
            patience=self.patience,
            identity_prior_weight=1e-2,
            expected_identity="encoder",
            multiview_weight=2.0,
            smoother="mean",
            temporal_window=5,
            bridge_gaps=False,
            expression_smoothness_weight=0.0,
            camera_smoothness_weight=0.0,
        )

    def grids(self) -> dict[str, tuple[float, ...]]:
        """Learning rates to choose from, for every fitted arm."""
        return {DIRECT: self.direct_rates, BOUNDED: self.direct_rates, NEURAL: self.neural_rates}

    def test_specs(self, *, with_scan: bool) -> tuple[CaseSpec, ...]:
        """The clips that are compared."""
        rendered = self._specs(SYNTHETIC, TEST, self.clips)
        return rendered + (self._specs(SCAN, TEST, self.scan_clips) if with_scan else ())

    def tuning_specs(self) -> tuple[CaseSpec, ...]:
        """The clips on which learning rates are chosen; none of them is among the tests."""
        return self._specs(SYNTHETIC, TUNING, self.tuning_clips)

    def _specs(self, kind: str, role: str, count: int) -> tuple[CaseSpec, ...]:
        single = (count + 1) // 2
        return tuple(
            CaseSpec(
                kind=kind,
                role=role,
                views=1 if number < single else 3,
                number=number,
                time=self.frames if number < single else self.frames_of_three,
                size_px=self.size_px,
            )
            for number in range(count)
        )


FAST = StudySettings(
    clips=2,
    scan_clips=1,
    frames=8,
    frames_of_three=4,
    size_px=224,
    direct_rates=(1e-2, 3e-2),
    neural_rates=(3e-4, 1e-3),
    max_passes=12,
    patience=8,
)
"""To see that everything works; its fits do not converge, so its figures mean nothing."""


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """All arms on one clip."""

    name: str
    group: str
    rows: tuple[ArmRow, ...]
    true_msi3d_vertices: float | None
    """Motion stability of the truth; None where the truth is a scan."""

    def row(self, arm: str) -> ArmRow:
        """The row of one arm."""
        return next(row for row in self.rows if row.arm == arm)


@dataclass(frozen=True, kw_only=True)
class Study:
    """What was found, with all that it depends on."""

    settings: StudySettings
    encoder_hash: str
    head_hash: str
    scan_hash: str | None
    threads: int
    """Of torch; `seconds` depend on them."""
    trials: tuple[Trial, ...]
    learning_rates: dict[str, float]
    cases: tuple[CaseResult, ...]


def run_study(
    settings: StudySettings,
    model: FaceModel,
    scan: Scan | None = None,
    *,
    keep: Keep | None = None,
    progress: bool = True,
) -> Study:
    """Choose learning rates on the tuning clips, then run every arm on every test clip.

    Args:
        scan: a textured scan to film; without one there are rendered clips only.
        keep: where finished clips are kept and found again; None keeps nothing.
        progress: show a progress bar, one step per clip.
    """
    memory = keep or _forget
    origin: Json = {
        "format": STUDY_FORMAT,
        "encoder": weights_hash(model),
        "head": model.head.content_hash(),
        "config": asdict(settings.config()),
    }
    scan_hash = None if scan is None else tensors_hash(vars(scan))
    tuning, tests = settings.tuning_specs(), settings.test_specs(with_scan=scan is not None)
    grids = settings.grids()
    with tqdm(total=len(tuning) + len(tests), unit="clip", disable=not progress) as bar:

        def finished(name: str, key: Json, make: Callable[[], Json]) -> Json:
            bar.set_description(name)
            found = memory(name, key, make)
            bar.update()
            return found

        trials: list[Trial] = []
        for spec in tuning:
            key = {**origin, "spec": asdict(spec), "grids": {arm: list(grid) for arm, grid in grids.items()}}
            kept = finished(spec.name, key, lambda spec=spec: _tried(spec, model, settings))
            trials += [Trial(**item) for item in kept["trials"]]
        rates = choose_rates(trials)
        cases = []
        for spec in tests:
            key = {
                **origin,
                "spec": asdict(spec),
                "rates": rates,
                "scan": scan_hash if spec.kind == SCAN else None,
            }
            kept = finished(spec.name, key, lambda spec=spec: _compared(spec, model, scan, settings, rates))
            cases.append(case_from_json(kept))
    return Study(
        settings=settings,
        encoder_hash=origin["encoder"],
        head_hash=origin["head"],
        scan_hash=scan_hash,
        threads=torch.get_num_threads(),
        trials=tuple(trials),
        learning_rates=rates,
        cases=tuple(cases),
    )


def case_from_json(kept: Json) -> CaseResult:
    """The result whose `dataclasses.asdict` this is."""
    rows = [ArmRow(**{**row, "scores": Scores(**row["scores"])}) for row in kept["rows"]]
    return CaseResult(**{**kept, "rows": tuple(rows)})


def weights_hash(model: FaceModel) -> str:
    """SHA-256 over every number of the model's encoder."""
    return tensors_hash(model.encoder.state_dict())


def _tried(spec: CaseSpec, model: FaceModel, settings: StudySettings) -> Json:
    case = make_case(spec, model.head)
    return {"trials": [asdict(item) for item in try_rates(case, model, settings.config(), settings.grids())]}


def _compared(
    spec: CaseSpec, model: FaceModel, scan: Scan | None, settings: StudySettings, rates: Mapping[str, float]
) -> Json:
    case = make_case(spec, model.head, scan)
    return asdict(
        CaseResult(
            name=spec.name,
            group=spec.group,
            rows=compare(case, model, settings.config(), rates),
            true_msi3d_vertices=true_stability(case, model.head),
        )
    )


def _forget(name: str, key: Json, make: Callable[[], Json]) -> Json:
    return make()
