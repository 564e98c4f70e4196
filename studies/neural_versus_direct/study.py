"""The whole study: which clips, with which settings, run one after the other and kept as they finish."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from tqdm import tqdm

from neuface.errors import InputError
from neuface.fitting.config import FitConfig
from neuface.hashing import tensors_hash
from neuface.io.scans import Scan
from neuface.models import FaceModel
from studies.common.cache_keys import model_key, rendered_clip_key
from studies.common.cases import SCAN, SYNTHETIC, TEST, TUNING, CaseSpec, make_case
from studies.common.kept_runs import Json, Keep, keep_nothing
from studies.common.runs import Run, run_from_json
from studies.common.scores import true_stability
from studies.common.settings import StudySettings
from studies.neural_versus_direct import variants as computing
from studies.neural_versus_direct.variants import (
    BOUNDED,
    FREE,
    NEURAL,
    Trial,
    choose_rates,
    compare,
    comparison_config,
    try_rates,
)


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings(StudySettings):
    """How large the study is, and what all fits have in common."""

    MAY_BE_ZERO: ClassVar[tuple[str, ...]] = ("clips", "scan_clips")

    clips: int = 20
    """Rendered test clips, each of another person: the first half from one camera, the others from three."""
    scan_clips: int = 4
    """Test clips of the scan, if there is one, divided in the same way."""
    tuning_clips: int = 2
    """Rendered clips of further people on which the learning rates are chosen, divided in the same way."""
    frames: int = 16
    """Length of a clip from one camera."""
    frames_of_three: int = 8
    """Length of a clip from three cameras, frames of each."""
    free_rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2, 1e-1)
    """Learning rates to choose from, for free parameters, bounded or not."""
    neural_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    """Learning rates to choose from, for the encoder's weights."""
    max_passes: int = 300
    """Limit of passes; the stopping rule ends most fits earlier."""
    patience: int = 20
    """Patience of the stopping rule. It is longer than FitConfig's, because the loss of some fits rises at first."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("free_rates", "neural_rates"):
            if not getattr(self, name):
                raise InputError(f"ComparisonSettings.{name} must name at least one learning rate")
        images = max(self.frames, 3 * self.frames_of_three)
        batch = self.config().m_step.images_at_once
        if images > batch:
            raise InputError(
                f"a clip of {images} images does not fit the batch of {batch}, with which "
                "every variant takes one step per pass: choose fewer frames"
            )

    def config(self) -> FitConfig:
        """The configuration of all fits, except for the learning rate."""
        return comparison_config(max_passes=self.max_passes, patience=self.patience)

    def grids(self) -> dict[str, tuple[float, ...]]:
        """Learning rates to choose from, for every fitted variant."""
        return {FREE: self.free_rates, BOUNDED: self.free_rates, NEURAL: self.neural_rates}

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


FAST = ComparisonSettings(
    clips=2,
    scan_clips=1,
    frames=8,
    frames_of_three=4,
    size_px=224,
    free_rates=(1e-2, 3e-2),
    neural_rates=(3e-4, 1e-3),
    max_passes=12,
    patience=8,
)
"""A small study that shows that everything works; its fits do not converge, so its figures mean nothing."""


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """All variants on one clip."""

    name: str
    group: str
    runs: tuple[Run, ...]
    true_msi3d_vertices: float | None
    """Motion stability of the truth; None where the truth is a scan."""

    def run(self, variant: str) -> Run:
        """The run of one variant."""
        return next(run for run in self.runs if run.variant == variant)


@dataclass(frozen=True, kw_only=True)
class Study:
    """All that was measured, with all that it depends on."""

    settings: ComparisonSettings
    encoder_hash: str
    head_hash: str
    scan_hash: str | None
    threads: int
    """Threads of torch; `seconds` depend on them."""
    trials: tuple[Trial, ...]
    learning_rates: dict[str, float]
    cases: tuple[CaseResult, ...]


def run_study(
    settings: ComparisonSettings,
    model: FaceModel,
    scan: Scan | None = None,
    *,
    keep: Keep = keep_nothing,
    progress: bool = True,
) -> Study:
    """Choose learning rates on the tuning clips, then run every variant on every test clip.

    Args:
        scan: a textured scan to render; without one there are rendered people only.
        keep: where finished clips are kept and found again.
        progress: show a progress bar, one step per clip.
    """
    origin: Json = {**model_key(model, computing.__name__), "config": repr(settings.config())}
    scan_hash = None if scan is None else tensors_hash(vars(scan))
    tuning, tests = settings.tuning_specs(), settings.test_specs(with_scan=scan is not None)
    grids = settings.grids()
    with tqdm(total=len(tuning) + len(tests), unit="clip", disable=not progress) as bar:

        def finished(name: str, key: Json, make: Callable[[], Json]) -> Json:
            bar.set_description(name)
            found = keep(name, key, make)
            bar.update()
            return found

        trials: list[Trial] = []
        for spec in tuning:
            key = {**origin, "clip": rendered_clip_key(spec), "grids": grids}
            kept = finished(spec.name, key, lambda spec=spec: _tried(spec, model, settings))
            trials += [Trial(**item) for item in kept["trials"]]
        rates = choose_rates(trials)
        cases = []
        for spec in tests:
            key = {
                **origin,
                "clip": rendered_clip_key(spec),
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
    return CaseResult(**{**kept, "runs": tuple(run_from_json(run) for run in kept["runs"])})


def _tried(spec: CaseSpec, model: FaceModel, settings: ComparisonSettings) -> Json:
    case = make_case(spec, model.head)
    return {"trials": [asdict(item) for item in try_rates(case, model, settings.config(), settings.grids())]}


def _compared(
    spec: CaseSpec,
    model: FaceModel,
    scan: Scan | None,
    settings: ComparisonSettings,
    rates: Mapping[str, float],
) -> Json:
    case = make_case(spec, model.head, scan)
    return asdict(
        CaseResult(
            name=spec.name,
            group=spec.group,
            runs=compare(case, model, settings.config(), rates, clip=spec.name, group=spec.group),
            true_msi3d_vertices=true_stability(case, model.head),
        )
    )
