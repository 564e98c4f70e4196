"""A video becomes a result with the network cut off and nothing downloaded."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch

import neuface
from neuface.io.video import write_video
from neuface.models import load_model
from neuface.structs import ndc_to_px
from neuface.synthetic.clips import make_talking_clip
from neuface.synthetic.people import demo_identity

TIME = 4


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("something wants the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
def test_landmarks_of_a_rendered_head_are_found_where_they_are(tmp_path: Path) -> None:
    head = load_model("open").head
    made = make_talking_clip(head, demo_identity(), view_yaw_deg=(0.0,), time=TIME)
    size_px = made.frames.shape[2]
    write_video(tmp_path / "talk.mp4", made.frames[0].numpy(), 25)
    clip = neuface.read_clip(tmp_path / "talk.mp4")
    assert clip.track.usable.all()
    truth = ndc_to_px(made.camera.project(head.landmarks(made.truth, clip.track.scheme.name)), size_px)
    right, left = clip.track.scheme.outer_eyes
    eye_distance = (truth[..., right, :] - truth[..., left, :]).norm(dim=-1)
    error = (clip.track.points_px - truth).norm(dim=-1).mean(-1) / eye_distance
    assert error.max() < 0.06
    assert clip.track.uncertainty_px is not None
    assert torch.isfinite(clip.track.uncertainty_px).all()


@pytest.mark.slow
@pytest.mark.usefixtures("no_network")
def test_a_video_alone_is_fitted(tmp_path: Path) -> None:
    made = make_talking_clip(load_model("open").head, demo_identity(), view_yaw_deg=(0.0,), time=TIME)
    write_video(tmp_path / "talk.mp4", made.frames[0].numpy(), 25)
    config = neuface.FitConfig().changed_by_text({"m_step.stop.max_passes": "2"})
    result = neuface.optimize(tmp_path / "talk.mp4", config=config, progress=False)
    assert result.landmarks.usable.all()


@pytest.mark.usefixtures("no_network")
def test_frames_without_a_face_give_a_result_that_says_so() -> None:
    """Alone, and as one of two views: what is found in the other view does not depend on it."""
    made = make_talking_clip(load_model("open").head, demo_identity(), view_yaw_deg=(0.0,), time=2)
    nothing = torch.randint(256, made.frames[0].shape, generator=torch.Generator().manual_seed(0)).byte()
    config = neuface.FitConfig.best({"m_step.stop.max_passes": 1})
    alone = neuface.optimize(nothing, config=config, progress=False)
    assert alone.outcome is neuface.Outcome.NOTHING_TO_FIT
    assert bool((alone.status == neuface.Status.NO_FACE).all())
    views = neuface.optimize([made.frames[0], nothing], config=config, progress=False)
    assert views.landmarks.usable.tolist() == [[True, True], [False, False]]
    assert views.landmarks.uncertainty_px is not None
