"""Five random heads in their crops, with exact truth."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from neuface.head.expressions import sample_expressions
from neuface.head.model import HeadModel
from neuface.structs import Prediction
from neuface.synthetic.training_pictures import crop_camera, sample_rotations

COUNT = 5


@pytest.fixture
def truth(open_head: HeadModel) -> Prediction:
    generator = torch.Generator().manual_seed(2)
    params = replace(
        open_head.neutral(COUNT),
        identity=torch.randn(COUNT, 100, generator=generator),
        expression=sample_expressions(open_head.expression_names, COUNT, generator),
        root_rotvec=sample_rotations(generator, COUNT),
    )
    return Prediction(params=params, camera=crop_camera(open_head, params, generator))
