"""Accurate, temporally stable, view-consistent 3D head meshes from face video.

import neuface

result = neuface.optimize("talk.mp4")
result.vertices()        # (views, time, vertices, 3) metres
result.save("talk.npz")
"""

from neuface.clips import read_clip
from neuface.errors import InputError, MissingDependencyError, ModelMismatchError, NeufaceError
from neuface.fitting.config import FitConfig
from neuface.head.model import HeadModel
from neuface.models import FaceModel, load_head, load_model
from neuface.pipeline import optimize, optimize_person
from neuface.results import FitResult
from neuface.structs import (
    Clip,
    Crop,
    HeadParams,
    Landmarks,
    Prediction,
    WeakPerspective,
)

__version__ = "0.1.0"

__all__ = [
    "Clip",
    "Crop",
    "FaceModel",
    "FitConfig",
    "FitResult",
    "HeadModel",
    "HeadParams",
    "InputError",
    "Landmarks",
    "MissingDependencyError",
    "ModelMismatchError",
    "NeufaceError",
    "Prediction",
    "WeakPerspective",
    "load_head",
    "load_model",
    "optimize",
    "optimize_person",
    "read_clip",
]
