"""A scan of which everything is known: the open head's template with a texture."""

from __future__ import annotations

import pytest
import torch

from neuface.head.model import HeadModel
from neuface.io.scans import Scan
from neuface.models import FaceModel, load_model


@pytest.fixture(scope="session")
def model() -> FaceModel:
    return load_model("open")


@pytest.fixture(scope="session")
def template_scan(open_head: HeadModel) -> Scan:
    generator = torch.Generator().manual_seed(0)
    return Scan(
        vertices=open_head.template,
        faces=open_head.faces,
        uv=open_head.uv,
        uv_faces=open_head.uv_faces,
        texture=torch.randint(0, 256, (64, 64, 3), generator=generator, dtype=torch.uint8),
        landmarks=open_head.landmarks(open_head.neutral(), "ibug68"),
    )
