"""The joint solution of small clips: what it finds, when it ends, in pieces, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from joint_problems import centred_head, moving_heads, noisy_problem, shared_start
from killed_fits import Killed, checkpoint
from small_problems import PASSES, only, problem_of, same, silenced
from torch import Tensor

from neuface.errors import InputError
from neuface.fitting.config import DirectFit, FitConfig, JointSolve
from neuface.fitting.joint import landmarks as landmark_module
from neuface.fitting.joint.fit import fit_jointly
from neuface.fitting.joint.solve import solve_clip
from neuface.fitting.objective import (
    ExpressionPrior,
    FromEncoder,
    LandmarkTerm,
    MultiviewTerm,
    PhotometricTerm,
    PosePrior,
    TemporalTerm,
)
from neuface.fitting.parameterisation import FreeParameters
from neuface.fitting.problem import Problem
from neuface.fitting.targets import Priors
from neuface.geometry.head_perspective import Perspective
from neuface.geometry.rotations import rotation_angle_rad
from neuface.head.model import HeadModel
from neuface.structs import Outcome, Prediction

EXACT = FitConfig.best(
    {"objective": only(landmark=LandmarkTerm()), "m_step.stop.tolerance": 0.0, "m_step.stop.max_passes": 40}
)
FROM_ENCODER = FitConfig.best({"objective.identity_prior": FromEncoder()})
"""Without the estimate of the person, whose time would be most of a test's."""
LONG, AT_ONCE = 130, 100


def along_size(head: HeadModel, identity: Tensor) -> Tensor:
    """The part of a code that makes a face larger or smaller."""
    direction = head.log_size(torch.eye(head.num_identity).to(identity))
    direction = direction / direction.norm()
    return direction * (direction @ identity)


# --- What it finds


@pytest.mark.parametrize("views", [1, 3])
def test_exact_landmarks_give_the_exact_person_and_motion(tiny_head, views: int) -> None:
    """The size of the face is that of the start, which is the true one."""
    head = tiny_head()
    truth = moving_heads(head, views=views, time=8)
    problem = problem_of(head, truth)
    start = shared_start(truth)
    code = truth.params.identity[0, 0]
    start = replace(
        start,
        params=replace(
            start.params,
            identity=along_size(head, code).expand_as(start.params.identity),
            expression=torch.zeros_like(start.params.expression),
        ),
    )
    found = solve_clip(head, start, problem, EXACT, Priors(identity=torch.zeros_like(code)))
    assert found.history["landmark"][-1] < 1e-6 < found.history["landmark"][0]
    params, true = found.prediction.params, truth.params
    torch.testing.assert_close(params.identity, true.identity, atol=1e-3, rtol=0)
    torch.testing.assert_close(params.expression, true.expression, atol=1e-3, rtol=0)
    assert float(rotation_angle_rad(params.root_rotvec, true.root_rotvec).max()) < 1e-4
    torch.testing.assert_close(
        found.prediction.camera.magnification, truth.camera.magnification, rtol=1e-4, atol=0
    )
    torch.testing.assert_close(found.prediction.camera.position, truth.camera.position, rtol=0, atol=1e-4)


@pytest.mark.parametrize("fixes_size", [True, False])
def test_the_size_of_the_face_stays_if_it_is_fixed(tiny_head, fixes_size: bool) -> None:
    head = tiny_head()
    truth, problem = noisy_problem(head, views=2, time=6)
    start = shared_start(truth)
    known = Priors(identity=torch.zeros(head.num_identity, dtype=torch.float64))
    found = solve_clip(head, start, problem, FROM_ENCODER, known, fixes_size=fixes_size)
    growth = head.log_size(found.prediction.params.identity[0, 0]) - head.log_size(
        start.params.identity[0, 0]
    )
    assert (abs(float(growth)) < 1e-5) == fixes_size


@pytest.mark.parametrize("penalty", ["l1", "saturating"])
@pytest.mark.parametrize("views", [1, 2])
def test_the_loss_never_rises_where_targets_are_fixed(
    tiny_head, views: int, penalty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quadratics lie above the penalties. No target changes, as nothing is smoothed, and no point slides."""
    monkeypatch.setattr(landmark_module, "LANDMARK_SOFTNESS_NDC", 1e-6)
    head = centred_head(tiny_head())
    truth, problem = noisy_problem(head, views=views, time=6, scheme="mediapipe478")
    config = FitConfig.best(
        {
            "objective": only(
                landmark=LandmarkTerm(penalty=penalty),  # type: ignore[arg-type]
                identity_prior=FromEncoder(),
                expression_prior=ExpressionPrior(),
            ),
            "m_step.stop.tolerance": 0.0,
            PASSES: 15,
        }
    )
    start = shared_start(truth)
    known = Priors(identity=torch.zeros(head.num_identity, dtype=torch.float64))
    total = torch.tensor(solve_clip(head, start, problem, config, known).history["total"])
    assert float(total[-1]) < 0.9 * float(total[0])
    assert float(total.diff().max()) < 1e-6


def test_it_converges_in_a_few_passes_and_starts_at_the_encoder(tiny_head) -> None:
    head = tiny_head()
    truth, problem = noisy_problem(head, views=2, time=8)
    start = shared_start(truth)
    reported: list[int] = []
    outcome = fit_jointly(
        FreeParameters(start), head, problem, FROM_ENCODER, lambda number, _: reported.append(number)
    )
    assert outcome.outcome is Outcome.CONVERGED
    assert same(outcome.initial, start)
    total = outcome.history["total"]
    assert len(total) < 13
    assert min(total) < 0.9 * total[0]
    assert reported == list(range(len(total)))
    weights = FROM_ENCODER.objective.weights()
    for number, value in enumerate(total):
        parts = sum(
            weights[name] * values[number] for name, values in outcome.history.items() if name != "total"
        )
        assert parts == pytest.approx(value)
    codes = outcome.prediction.params
    assert torch.equal(codes.identity, codes.identity[:1, :1].expand_as(codes.identity))
    assert torch.equal(codes.expression[0], codes.expression[1])


@pytest.mark.parametrize("images", [1, 3, 1000])
def test_images_at_once_change_nothing(tiny_head, images: int) -> None:
    head = tiny_head()
    truth, problem = noisy_problem(head, views=2, time=7)
    start = FreeParameters(shared_start(truth))
    whole = fit_jointly(start, head, problem, FROM_ENCODER)
    parts = fit_jointly(start, head, problem, FROM_ENCODER.changed({"m_step.images_at_once": images}))
    assert parts.history["total"] == pytest.approx(whole.history["total"])
    torch.testing.assert_close(parts.prediction.params.expression, whole.prediction.params.expression)


def test_a_frame_without_landmarks_follows_its_neighbours(tiny_head) -> None:
    head = tiny_head()
    truth, problem = noisy_problem(head, views=1, time=9, noise_ndc=0.005)
    start = shared_start(truth)
    turned = start.params.root_rotvec.clone()
    turned[0, 4, 1] += 0.4
    start = replace(start, params=replace(start.params, root_rotvec=turned))
    found = fit_jointly(FreeParameters(start), head, silenced(problem, [(0, 4)]), FROM_ENCODER)
    angle = rotation_angle_rad(found.prediction.params.root_rotvec, truth.params.root_rotvec)
    assert float(angle[0, 4]) < 0.1


def test_a_clip_without_landmarks_is_refused(tiny_head) -> None:
    head = tiny_head()
    truth, problem = noisy_problem(head, views=1, time=2)
    with pytest.raises(InputError, match="no frame of the clip has the six landmarks"):
        fit_jointly(FreeParameters(truth), head, silenced(problem, [(0, 0), (0, 1)]), FROM_ENCODER)


def test_a_prediction_that_is_infinite_is_returned_as_diverged(tiny_head) -> None:
    head = tiny_head()
    truth, problem = noisy_problem(head, views=1, time=4)
    start = shared_start(truth)
    camera = start.camera.placed(start.camera.position, start.camera.magnification * math.inf)
    outcome = fit_jointly(FreeParameters(replace(start, camera=camera)), head, problem, FROM_ENCODER)
    assert outcome.outcome is Outcome.DIVERGED
    assert not math.isfinite(outcome.history["total"][0])


def test_perspective_cameras_are_fitted(tiny_head) -> None:
    head = tiny_head()
    weak = moving_heads(head, views=2, time=6)
    truth = replace(
        weak,
        camera=Perspective(
            scale=weak.camera.magnification,
            offset=weak.camera.position,
            focal=torch.full_like(weak.camera.magnification, 3.0),
            principal=torch.zeros_like(weak.camera.position),
        ),
    )
    problem = problem_of(head, truth, "ibug68")
    found = fit_jointly(FreeParameters(shared_start(truth)), head, problem, FROM_ENCODER)
    assert isinstance(found.prediction.camera, Perspective)
    assert min(found.history["landmark"]) < 0.2 * found.history["landmark"][0]
    assert isinstance(truth.camera, Perspective)
    torch.testing.assert_close(found.prediction.camera.focal, truth.camera.focal)


# --- In pieces


@pytest.fixture(scope="module")
def long_clip() -> tuple[HeadModel, Prediction, Problem]:
    head = _tiny()
    truth, problem = noisy_problem(head, views=1, time=LONG, noise_ndc=0.01)
    return head, truth, problem


def _tiny() -> HeadModel:
    from conftest import make_tiny_head

    return make_tiny_head()


IN_PIECES = FROM_ENCODER.changed({"m_step.frames_at_once": AT_ONCE, PASSES: 6})
"""Three pieces, of whose six passes each is reported as two."""


def test_a_clip_in_pieces_is_solved_as_the_whole(long_clip: tuple[HeadModel, Prediction, Problem]) -> None:
    head, truth, problem = long_clip
    start = FreeParameters(shared_start(truth))
    whole = fit_jointly(start, head, problem, FROM_ENCODER.changed({PASSES: 6}))
    parts = fit_jointly(start, head, problem, IN_PIECES)
    assert parts.prediction.params.root_rotvec.shape[:2] == (1, LONG)
    identity = parts.prediction.params.identity
    assert torch.equal(identity, identity[:1, :1].expand_as(identity))
    torch.testing.assert_close(identity, whole.prediction.params.identity, atol=0.15, rtol=0)
    angle = rotation_angle_rad(parts.prediction.params.root_rotvec, whole.prediction.params.root_rotvec)
    assert float(angle.max()) < 0.01
    torch.testing.assert_close(
        parts.prediction.camera.position, whole.prediction.camera.position, atol=5e-3, rtol=0
    )
    points, others = (
        item.prediction.camera.project(head.landmarks(item.prediction.params, "ibug68"))
        for item in (parts, whole)
    )
    assert float((points - others).abs().max()) < 0.02
    assert parts.history["total"][-1] == pytest.approx(whole.history["total"][-1], rel=0.05)


def test_motion_is_interpolated_through_a_gap_that_pieces_do_not_see_whole(
    long_clip: tuple[HeadModel, Prediction, Problem],
) -> None:
    """A face that is away for longer than a piece."""
    head, truth, problem = long_clip
    start = FreeParameters(shared_start(truth))
    away = silenced(problem, [(0, frame) for frame in range(1, 129)])
    found = fit_jointly(start, head, away, IN_PIECES)
    assert found.outcome is not Outcome.DIVERGED
    assert all(math.isfinite(value) for values in found.history.values() for value in values)
    params, camera = found.prediction.params, found.prediction.camera
    last, middle = LONG - 1, 40
    share = middle / last
    for values in (camera.position, params.expression):
        torch.testing.assert_close(values[0, middle], torch.lerp(values[0, 0], values[0, last], share))
    whole_turn = float(rotation_angle_rad(params.root_rotvec[0, 0], params.root_rotvec[0, last]))
    for end, part in ((0, share), (last, 1 - share)):
        turn = rotation_angle_rad(params.root_rotvec[0, middle], params.root_rotvec[0, end])
        assert float(turn) == pytest.approx(part * whole_turn, rel=0.05)


def test_views_share_the_expressions_of_a_gap_that_pieces_do_not_see_whole() -> None:
    """Though they lose sight of the face at different times."""
    head = _tiny()
    truth, problem = noisy_problem(head, views=2, time=LONG, noise_ndc=0.01)
    hidden = [(0, frame) for frame in range(3, 126)] + [(1, frame) for frame in range(6, 129)]
    found = fit_jointly(FreeParameters(shared_start(truth)), head, silenced(problem, hidden), IN_PIECES)
    expression = found.prediction.params.expression
    assert torch.equal(expression[0], expression[1])


def killed_at(frames: int, error: type[BaseException] = Killed) -> Any:
    """Ends the fit in the pass that is reported as this number of all."""

    def report(number: int, _: dict[str, float]) -> None:
        if number >= frames:
            raise error

    return report


@pytest.mark.parametrize("number", [0, 1, 3, 5])
def test_a_fit_that_was_killed_between_pieces_ends_as_if_it_had_not(
    long_clip: tuple[HeadModel, Prediction, Problem], tmp_path: Path, number: int
) -> None:
    head, truth, problem = long_clip
    start = FreeParameters(shared_start(truth))
    whole = fit_jointly(start, head, problem, IN_PIECES)
    with pytest.raises(Killed):
        fit_jointly(
            start, head, problem, IN_PIECES, killed_at(number), checkpoints=checkpoint(tmp_path, resume=False)
        )
    assert (tmp_path / "checkpoint.pt").exists()
    resumed = fit_jointly(start, head, problem, IN_PIECES, checkpoints=checkpoint(tmp_path, resume=True))
    assert same(resumed.prediction, whole.prediction)
    assert resumed.history == whole.history
    assert resumed.outcome is whole.outcome


def test_finished_pieces_are_not_solved_again(
    long_clip: tuple[HeadModel, Prediction, Problem], tmp_path: Path
) -> None:
    head, truth, problem = long_clip
    start = FreeParameters(shared_start(truth))
    with pytest.raises(Killed):
        fit_jointly(
            start, head, problem, IN_PIECES, killed_at(5), checkpoints=checkpoint(tmp_path, resume=False)
        )
    reported: list[int] = []
    fit_jointly(
        start, head, problem, IN_PIECES, lambda number, _: reported.append(number),
        checkpoints=checkpoint(tmp_path, resume=True),
    )  # fmt: skip
    assert reported[0] >= 4
    assert reported == sorted(reported)


@pytest.mark.parametrize("part", ["identity", "solutions"])
def test_a_checkpoint_of_something_else_is_refused(
    long_clip: tuple[HeadModel, Prediction, Problem], tmp_path: Path, part: str
) -> None:
    head, truth, problem = long_clip
    start = FreeParameters(shared_start(truth))
    with pytest.raises(Killed):
        fit_jointly(
            start, head, problem, IN_PIECES, killed_at(5), checkpoints=checkpoint(tmp_path, resume=False)
        )
    stored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    stored["state"][part] = [{"odd": torch.zeros(3)}]
    torch.save(stored, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match="the checkpoint is damaged, or of another version"):
        fit_jointly(start, head, problem, IN_PIECES, checkpoints=checkpoint(tmp_path, resume=True))


@pytest.mark.parametrize("config", [FROM_ENCODER, IN_PIECES], ids=["whole", "in pieces"])
def test_an_interrupted_fit_returns_what_is_solved(
    long_clip: tuple[HeadModel, Prediction, Problem], config: FitConfig
) -> None:
    head, truth, problem = long_clip
    start = FreeParameters(shared_start(truth))
    interrupt = killed_at(3, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        fit_jointly(start, head, problem, config, interrupt)
    found = fit_jointly(start, head, problem, config, interrupt, keep_interrupted=True)
    assert found.outcome is Outcome.INTERRUPTED
    assert found.prediction.params.root_rotvec.shape[:2] == (1, LONG)
    assert bool(found.prediction.params.expression.isfinite().all())
    identity = found.prediction.params.identity
    assert torch.equal(identity, identity[:1, :1].expand_as(identity))
    assert found.history["total"][-1] < found.history["total"][0]
    assert not same(found.prediction, found.initial)


# --- What it refuses


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"objective.photometric": PhotometricTerm()}, r"objective\.photometric"),
        ({"objective.pose_prior": PosePrior()}, r"objective\.pose_prior"),
        ({"objective.multiview": MultiviewTerm()}, r"objective\.multiview, which has no effect"),
        ({"objective.temporal": TemporalTerm(penalty="squared")}, r'objective\.temporal\.penalty="squared"'),
        ({"identity.shared": "image"}, r'identity\.shared="image"'),
        ({"identity.shared": "first"}, r'identity\.shared="first"'),
        ({"objective.landmark": None}, r"objective\.landmark=None"),
    ],
)
def test_what_a_joint_solution_cannot_do_is_named(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=rf"m_step is JointSolve, which does not support {name}.*neural\(\)"):
        FitConfig.best(changes)
    neural = FitConfig.neural(changes)
    with pytest.raises(InputError, match="JointSolve"):
        FitConfig.neural({"objective.multiview": None, **changes, "m_step": JointSolve()})
    assert neural.changed({"m_step": DirectFit()}).m_step == DirectFit()


def test_pieces_have_room_for_what_overlaps() -> None:
    with pytest.raises(InputError, match="frames_at_once must be at least 64, got 63"):
        JointSolve(frames_at_once=63)
