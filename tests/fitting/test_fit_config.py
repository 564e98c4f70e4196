"""What a configuration holds, how it is changed, and what it refuses, in words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from small_problems import only

from neuface import losses
from neuface.errors import InputError
from neuface.fitting.config import (
    PRESETS,
    Adam,
    Chunks,
    Convergence,
    DirectFit,
    FineTune,
    FitConfig,
    Identity,
    Preset,
    RandomBatches,
    Stop,
)
from neuface.fitting.merging import Softmax, WeightedMean
from neuface.fitting.objective import (
    CalibratedTerm,
    FromEncoder,
    FromLandmarks,
    FromPopulation,
    LandmarkTerm,
    MultiviewTerm,
    Objective,
    PhotometricTerm,
    TemporalTerm,
)
from neuface.fitting.smoothing import LocalQuadratic, MovingMean, ReleasedMean
from neuface.fitting.targets import EStep
from neuface.fitting.visibility import AngleAndDepth, AngleOrDepth, SelfOcclusion
from neuface.geometry.rotations import rotvec_to_quaternion, toward_hemisphere
from neuface.settings import Setting, resolve

# --- Values


@pytest.mark.parametrize(
    ("kind", "name", "value", "message"),
    [
        (TemporalTerm, "weight", -1.0, "must be greater than 0, got -1.0: a term that shall not act is None"),
        (TemporalTerm, "weight", 0, "must be greater than 0, got 0"),
        (TemporalTerm, "weight", "2", "must be a number, got '2'"),
        (MultiviewTerm, "weight", None, "must be a number, got None"),
        (LandmarkTerm, "weight", True, "must be a number, got True"),
        (LandmarkTerm, "weight", 10**400, r"must be at most 2\*\*63 - 1 in size, got 1000"),
        (LandmarkTerm, "penalty", "l2", "must be 'l1' or 'saturating', got 'l2'"),
        (LandmarkTerm, "use_confidence", 1, "must be True or False, got 1"),
        (MultiviewTerm, "frames_per_step", 0, "must be at least 1, got 0"),
        (MultiviewTerm, "merge", "mean", "must be WeightedMean, Softmax, .* or RobustMean, got 'mean'"),
        (Stop, "tolerance", math.nan, "must be finite, got nan"),
        (Stop, "tolerance", 2.0, "must be below 1, got 2.0"),
        (Stop, "max_passes", 0, "must be at least 1, got 0"),
        (Stop, "patience", -3, "must be at least 1, got -3"),
        (Stop, "step_size_drops", 0.5, "must be a whole number, got 0.5"),
        (Adam, "learning_rate", math.inf, "must be finite, got inf"),
        (Adam, "learning_rate", 0.0, "must be greater than 0, got 0.0"),
        (MovingMean, "window", 4, "must be odd, got 4"),
        (MovingMean, "window", 0, "must be at least 1, got 0"),
        (RandomBatches, "size", 2.5, "must be a whole number, got 2.5"),
        (AngleOrDepth, "angle_deg", 0.0, "must be greater than 0, got 0.0"),
        (AngleOrDepth, "angle_deg", 120.0, "must be at most 90, got 120.0"),
        (Identity, "shared", "frame", "must be 'clip', 'image' or 'first', got 'frame'"),
        (FineTune, "returns", None, "must be 'best' or 'last', got None"),
        (FitConfig, "seed", 1.5, "must be a whole number, got 1.5"),
        (FitConfig, "seed", 2**64, r"must be at most 2\*\*63 - 1 in size, got 18446744073709551616"),
        (FitConfig, "objective", None, "must be Objective, got None"),
        (FitConfig, "m_step", Stop(), r"must be JointSolve, FineTune or DirectFit, got Stop\("),
    ],
)
def test_bad_values_are_named(kind: Any, name: str, value: Any, message: str) -> None:
    # Not through the constructor: in these tests its types are checked, which users do not have.
    setting = kind()
    object.__setattr__(setting, name, value)
    with pytest.raises(InputError, match=rf"{kind.__name__}\.{name} {message}"):
        setting.__post_init__()


def test_good_values_are_kept() -> None:
    config = FitConfig(
        seed=-5,
        objective=Objective(multiview=MultiviewTerm(visibility=AngleOrDepth(depth_m=-1.0))),
        m_step=FineTune(stop=Stop(step_size_drops=0, tolerance=0.0)),
        e_step=EStep(smoothing=MovingMean(window=1)),
    )
    stop = config.gradient_steps.stop
    assert (config.seed, stop.step_size_drops, stop.tolerance) == (-5, 0, 0.0)
    with pytest.raises(FrozenInstanceError):
        config.seed = 3  # type: ignore[misc]


def test_terms_have_the_weights_of_their_values() -> None:
    objective = Objective(
        photometric=PhotometricTerm(weight=0.25),
        multiview=MultiviewTerm(),
        identity_prior=FromLandmarks(weight=0.5, expression_weight=2.0),
    )
    assert objective.weights() == {
        "landmark": 1.0,
        "temporal": 0.2,
        "identity_prior": 0.5,
        "expression_prior": 1e-3,
        "expected_expression": 2.0,
        "expression_smoothness": 0.05,
        "camera_smoothness": 0.02,
        "multiview": 4.0,
        "calibrated": 0.05,
        "photometric": 0.25,
    }
    assert only(temporal=TemporalTerm(weight=3.0)).weights() == {"temporal": 3.0}


# --- What cannot be combined cannot be written down


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        # A prior that does not estimate expressions has no weight for them.
        (FromEncoder, {"weight"}),
        (FromPopulation, {"weight"}),
        # The test of self-occlusion has no angle and no depth.
        (SelfOcclusion, set()),
        # A step over a chunk has no size of random batches, and the released filter no window.
        (Chunks, {"frames", "gradient_through_targets"}),
        (ReleasedMean, set()),
        # Only direct fitting has a coarse stage, and only an encoder keeps enough to need micro-batches.
        (FineTune, {"adam", "batches", "stop", "returns", "micro_batch"}),
    ],
)
def test_choices_have_only_the_numbers_that_act(kind: type, names: set[str]) -> None:
    assert {item.name for item in fields(kind)} == names


def test_merging_and_visibility_exist_only_with_the_multiview_term() -> None:
    assert not {"merge", "visibility"} & {item.name for item in fields(Objective)}


def test_a_prior_from_landmarks_always_weighs_something() -> None:
    """Without the term, the landmarks' estimate does not move the start of the fit either."""
    with pytest.raises(InputError, match="a term that shall not act is None"):
        FromLandmarks(weight=0.0)


def test_the_released_filter_is_refused_for_trajectories_of_values() -> None:
    with pytest.raises(InputError, match=r"smooths rotations only, but .* expression_smoothness and camera"):
        FitConfig(e_step=EStep(smoothing=ReleasedMean()))
    none = {"objective.expression_smoothness": None, "objective.camera_smoothness": None}
    config = FitConfig.best(
        {**none, "objective.jaw_smoothness.weight": 1.0, "e_step.smoothing": ReleasedMean()}
    )
    assert config.objective.jaw_smoothness is not None


def test_an_objective_has_a_term() -> None:
    with pytest.raises(InputError, match="an objective needs a term"):
        only()


# --- Changes by dotted paths


def test_paths_change_one_value_each() -> None:
    config = FitConfig.best(
        {"m_step.stop.max_passes": 7, "objective.calibrated.weight": 0.3, "objective.temporal": None}
    )
    assert config.m_step.stop == Convergence(max_passes=7)
    assert config.objective.calibrated == CalibratedTerm(weight=0.3)
    assert config.objective.temporal is None
    assert config.objective.landmark == FitConfig().objective.landmark
    neural = FitConfig.neural({"m_step.stop.max_passes": 7, "objective.photometric.weight": 0.3})
    assert neural.m_step.stop == Stop(max_passes=7)
    assert neural.objective.photometric == PhotometricTerm(weight=0.3)
    assert neural.objective.multiview == MultiviewTerm()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective.wieght": 1}, r"objective\.wieght: Objective has no 'wieght'; it has landmark, temporal"),
        (
            {"stop": 1},
            r"stop: FitConfig has no 'stop'; it has objective, e_step, camera, identity, m_step, seed",
        ),
        ({"seed.deeper": 1}, r"seed has no fields: seed\.deeper does not exist"),
        (
            {"m_step.batches.size": 3},
            r"JointSolve has no 'batches'; it has stop, frames_at_once, images_at_once",
        ),
        ({"m_step.stop.step_size_drops": 1}, "Convergence has no 'step_size_drops'; it has max_passes, pat"),
        (
            {"objective.identity_prior": None, "objective.identity_prior.weight": 1.0},
            "choose what it shall be",
        ),
    ],
)
def test_paths_that_do_not_exist_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FitConfig().changed(changes)


def test_batches_have_the_numbers_of_their_kind() -> None:
    with pytest.raises(InputError, match="RandomBatches has no 'frames'; it has size"):
        FitConfig.neural({"m_step.batches.frames": 3})


def test_text_is_read_by_the_type_of_the_field() -> None:
    config = FitConfig.neural().changed_by_text(
        {
            "objective.temporal.weight": "0.3",
            "objective.landmark.use-confidence": "false",
            "objective.landmark.penalty": "saturating",
            "objective.multiview.frames-per-step": "4",
            "objective.multiview.merge": "Softmax",
            "objective.multiview.merge.temperature": "0.2",
            "objective.expression-prior": "none",
            "m-step": "DirectFit",
            "m-step.coarse-passes": "5",
            "seed": "3",
        }
    )
    objective = config.objective
    assert objective.temporal == TemporalTerm(weight=0.3)
    assert objective.landmark == LandmarkTerm(use_confidence=False, penalty="saturating")
    assert objective.multiview == MultiviewTerm(frames_per_step=4, merge=Softmax(temperature=0.2))
    assert objective.expression_prior is None
    assert config.m_step == DirectFit(coarse_passes=5)
    assert config.seed == 3


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("seed", "1.5", "seed must be a whole number, got '1.5'"),
        ("objective.temporal.weight", "much", r"objective\.temporal\.weight must be a number, got 'much'"),
        ("objective.landmark.penalty", "l2", "must be 'l1' or 'saturating', got 'l2'"),
        ("identity.fix_scale", "perhaps", "must be True or False, got 'perhaps'"),
        ("e_step.smoothing", "Mean", "must be LocalQuadratic, .* or ReleasedMean, got 'Mean'"),
        ("m_step.stop.max_passes", "none", "must be a whole number, got 'none'"),
    ],
)
def test_text_that_stands_for_no_value_is_named(path: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FitConfig().changed_by_text({path: text})


# --- Presets


def test_the_default_is_best() -> None:
    assert FitConfig.best() == FitConfig()


def test_the_neural_preset_has_the_terms_of_the_default_and_those_of_its_steps() -> None:
    best, neural = (dict(leaves(config)) for config in (FitConfig.best(), FitConfig.neural()))
    differing = {path for path in best | neural if best.get(path) != neural.get(path)}
    terms = [path for path in sorted(differing) if not path.startswith(("objective.multiview", "m_step"))]
    # Gradient steps have weights of their own for what landmarks hardly show.
    assert terms == [
        "objective.expression_smoothness.weight",
        "objective.identity_prior.expression_weight",
        "objective.landmark.penalty",
    ]
    assert neural["objective.landmark.penalty"] == "l1"
    assert (best["m_step"], neural["m_step"]) == ("JointSolve", "FineTune")


def test_the_paper_has_its_equations_and_nothing_else() -> None:
    config = FitConfig.paper()
    assert set(config.objective.weights()) == {"landmark", "temporal", "multiview"}
    assert config.objective.landmark == LandmarkTerm(weight=1.0, penalty="l1", use_confidence=False)
    assert config.objective.temporal == TemporalTerm(weight=0.2, penalty="norm")
    assert config.objective.multiview is not None
    assert config.objective.multiview.visibility == AngleAndDepth(angle_deg=72.0, depth_m=-0.08)
    assert config.objective.multiview.merge == WeightedMean()
    assert config.identity == Identity(shared="image", fix_scale=False)
    assert config.e_step.smoothing == MovingMean(window=5)
    assert config.m_step == FineTune()


def test_the_released_settings_are_theirs() -> None:
    """The figures of the authors' configuration file and code."""
    config = FitConfig.official()
    m_step = config.gradient_steps
    assert m_step.adam == Adam(learning_rate=2e-5, warm_up_steps=0)
    assert m_step.batches == Chunks(frames=20, gradient_through_targets=True)
    assert (m_step.stop.max_passes, m_step.returns) == (100, "last")
    multiview = config.objective.multiview
    assert multiview is not None
    assert isinstance(multiview.visibility, AngleOrDepth)
    assert math.cos(math.radians(multiview.visibility.angle_deg)) == pytest.approx(0.28)
    assert (multiview.visibility.depth_m, multiview.frames_per_step) == (-0.08, 5)
    assert multiview.merge == Softmax(temperature=0.1)
    assert (config.e_step.smoothing, config.identity.shared) == (ReleasedMean(), "first")
    # Nothing may end it early.
    assert config.m_step.stop.patience >= config.m_step.stop.max_passes


def test_released_weights_are_those_of_the_released_losses() -> None:
    """The released losses, written as they are, against ours times the weights of the preset."""
    weights = FitConfig.official().objective.weights()
    generator = torch.Generator().manual_seed(0)
    views, time = 3, 4

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    # Landmarks: 10 times the mean over points of (|dx| + |dy|) / 2, mean over images.
    points, observed = normal(views * time, 68, 2), normal(views * time, 68, 2)
    released = 10 * (points - observed).abs().sum(-1).mean() / 2
    ours = weights["landmark"] * losses.landmark_loss(points, observed, torch.ones(12, 68).double()).mean()
    torch.testing.assert_close(ours, released)
    # Rotation: 100 times the square, mean over time and the four numbers, sum over views.
    rotvec = normal(views, time, 3)
    target = torch.nn.functional.normalize(normal(views, time, 4), dim=-1)
    quaternion = toward_hemisphere(rotvec_to_quaternion(rotvec), target)
    released = 100 * (quaternion - target).square().mean((1, 2)).sum()
    mean = losses.temporal_loss(rotvec.flatten(0, 1), target.flatten(0, 1), squared=True).mean()
    torch.testing.assert_close(weights["temporal"] * views * mean, released)
    # Meshes: 200 times the mean absolute difference of all coordinates.
    mesh, merged = normal(views * time, 9, 3), normal(views * time, 9, 3)
    released = 200 * torch.nn.functional.l1_loss(mesh, merged)
    torch.testing.assert_close(weights["multiview"] * losses.multiview_loss(mesh, merged).mean(), released)


def test_direct_fitting_differs_from_the_paper_in_what_moves_and_its_regularisers() -> None:
    paper, direct = (dict(leaves(config)) for config in (FitConfig.paper(), FitConfig.direct()))
    assert {path for path in paper | direct if paper.get(path) != direct.get(path)} == {
        "objective.identity_prior", "objective.identity_prior.weight",
        "objective.expression_prior", "objective.expression_prior.weight",
        "objective.pose_prior", "objective.pose_prior.weight",
        "m_step", "m_step.adam.learning_rate", "m_step.coarse_passes",
    }  # fmt: skip


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_take_changes(name: Preset) -> None:
    changed = getattr(FitConfig, name)({"m_step.stop.max_passes": 7, "e_step.interpolate_missing": True})
    assert (changed.m_step.stop.max_passes, changed.e_step.interpolate_missing) == (7, True)
    assert PRESETS[name] == getattr(FitConfig, name)()
    assert set(PRESETS) == set(get_args(Preset))


def leaves(setting: Setting, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Paths and values: numbers and words as they are, classes by their names."""
    for item in fields(setting):
        value, path = getattr(setting, item.name), f"{prefix}{item.name}"
        if is_dataclass(value):
            yield path, type(value).__name__
            assert isinstance(value, Setting)
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def test_the_table_in_the_docs_is_what_the_presets_are() -> None:
    """docs/presets.md sets every path of every preset side by side."""
    text = (Path(__file__).parents[2] / "docs" / "presets.md").read_text(encoding="utf-8")
    rows = [line.strip("| \n").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    table = {row[0].strip("`"): row[1:] for row in rows}
    presets = [dict(leaves(PRESETS[name])) for name in ("paper", "official", "best", "neural", "direct")]
    for path, cells in table.items():
        for cell, preset in zip(cells, presets, strict=True):
            value = preset.get(path, "-")
            if isinstance(value, float):
                assert float(cell) == pytest.approx(value, abs=5e-3 if value > 0.5 else 0), path
            else:
                assert cell == str(value), path
    fixed = {"objective", "e_step", "identity", "m_step.adam", "m_step.stop"}
    assert set(table) == {path for preset in presets for path in preset} - fixed


def test_types_are_resolved_when_the_module_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a configuration from a file evaluates no annotation."""
    resolve(FitConfig)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an annotation was evaluated")

    monkeypatch.setattr("neuface.settings.get_type_hints", refuse)
    for config in PRESETS.values():
        config.changed({"m_step.stop.max_passes": 3})
    assert LocalQuadratic(window=5).window == 5
