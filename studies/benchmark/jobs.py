"""The jobs of the benchmark: what is computed at once and kept under one name. Each kind of job is a type."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from neuface.evaluation.held_out_view import leave_one_view_out, view_means
from neuface.models import FaceModel, load_model
from studies.benchmark.clips import BenchmarkClip, RenderedClip
from studies.benchmark.records import HeldOutRun, TruthRecord
from studies.common.cache_keys import FileHashes
from studies.common.cases import CLEAN, NOISE_PX, Case
from studies.common.ideal_estimator import expected_shape_error_mm
from studies.common.kept_runs import Json
from studies.common.runs import Run, run_from_json, run_variant, tuples
from studies.common.scores import true_stability
from studies.common.variants import ENCODER, Variant, fit_clip


@dataclass(frozen=True, kw_only=True)
class VariantJob:
    """One variant on one clip."""

    clip: BenchmarkClip
    variant: Variant

    @property
    def name(self) -> str:
        return f"{self.clip.name}.{self.variant.name}"

    def key(self, hashes: FileHashes) -> Json:
        """What the result depends on, besides the model and the code."""
        return {"clip": self.clip.key(hashes), "config": repr(self.variant.config)}

    def compute(self, case: Case, model: FaceModel) -> Json:
        return asdict(run_variant(self.variant, self.clip.name, self.clip.group, case, model))

    def read(self, kept: Json) -> Run:
        """The record that `compute` returned, after its way through a file."""
        return run_from_json(kept)


@dataclass(frozen=True, kw_only=True)
class TruthJob:
    """What is known of a rendered person's clip without any fit."""

    clip: RenderedClip

    @property
    def name(self) -> str:
        return f"{self.clip.name}.truth"

    def key(self, hashes: FileHashes) -> Json:
        """What the result depends on, besides the model and the code."""
        return {"clip": self.clip.key(hashes)}

    def compute(self, case: Case, model: FaceModel) -> Json:
        stability = true_stability(case, model.head)
        assert stability is not None, f"{self.clip.name} has no exact truth"
        # The ideal estimator's noise model is white noise, which clean clips alone have.
        white = self.clip.spec.condition == CLEAN
        return asdict(
            TruthRecord(
                clip=self.clip.name,
                msi3d_vertices=stability,
                expected_shape_error_mm=expected_shape_error_mm(case, model, NOISE_PX) if white else None,
            )
        )

    def read(self, kept: Json) -> TruthRecord:
        """The record that `compute` returned, after its way through a file."""
        return TruthRecord(**kept)


@dataclass(frozen=True, kw_only=True)
class HeldOutJob:
    """Fits of one variant to a clip without each of its views."""

    clip: BenchmarkClip
    variant: Variant

    @property
    def name(self) -> str:
        return f"{self.clip.name}.held_out.{self.variant.name}"

    def key(self, hashes: FileHashes) -> Json:
        """What the result depends on, besides the model and the code."""
        return {"clip": self.clip.key(hashes), "config": repr(self.variant.config)}

    def compute(self, case: Case, model: FaceModel) -> Json:
        config = self.variant.config
        assert config is not None, f"{self.variant.name} has no fit that could leave out a view"
        found = leave_one_view_out(
            case.clip, model.head, lambda clip: fit_clip(clip, model, config), progress=False
        )
        return {
            "runs": [
                asdict(
                    HeldOutRun(
                        clip=self.clip.name,
                        variant=variant,
                        views=found.names,
                        nme51_percent=view_means(errors.nme51_percent),
                        nme51_head_percent=view_means(errors.nme51_head_percent),
                    )
                )
                for variant, errors in ((ENCODER, found.initial), (self.variant.name, found.fitted))
            ]
        }

    def read(self, kept: Json) -> tuple[HeldOutRun, ...]:
        """The records of the encoder alone and of the variant, after their way through a file."""
        return tuple(
            HeldOutRun(**{name: tuples(value) for name, value in run.items()}) for run in kept["runs"]
        )


Job = VariantJob | TruthJob | HeldOutJob


class Computer:
    """Computes jobs in one process: it loads the model once, and a clip once for the jobs that follow each other."""

    def __init__(self) -> None:
        self._model = load_model("open")
        self._loaded: tuple[BenchmarkClip, Case] | None = None

    def compute(self, job: Job) -> Json:
        if self._loaded is None or self._loaded[0] != job.clip:
            self._loaded = (job.clip, job.clip.load(self._model.head))
        return job.compute(self._loaded[1], self._model)
