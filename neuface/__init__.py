"""Accurate, temporally stable, view-consistent 3D head meshes from face video.

import neuface

result = neuface.optimize("talk.mp4")
result.vertices()        # (views, time, vertices, 3) metres
result.save("talk.npz")
"""

import importlib
from typing import TYPE_CHECKING, Any

from neuface.errors import InputError, MissingDependencyError, ModelMismatchError, NeufaceError

if TYPE_CHECKING:
    from neuface.clips import read_clip, read_people
    from neuface.fitting.config import FitConfig
    from neuface.frames import Clip, Recording
    from neuface.geometry.head_perspective import Perspective
    from neuface.head.model import HeadModel
    from neuface.models import FaceModel, load_head, load_model
    from neuface.pipeline import optimize, optimize_person, predict
    from neuface.results.fit_result import FitResult
    from neuface.structs import (
        Camera,
        Crop,
        HeadParams,
        Outcome,
        Prediction,
        Scheme,
        Status,
        Track,
        WeakPerspective,
    )
    from neuface.teaching import teach_encoder

__version__ = "0.1.0"

__all__ = [
    "Camera",
    "Clip",
    "Crop",
    "FaceModel",
    "FitConfig",
    "FitResult",
    "HeadModel",
    "HeadParams",
    "InputError",
    "MissingDependencyError",
    "ModelMismatchError",
    "NeufaceError",
    "Outcome",
    "Perspective",
    "Prediction",
    "Recording",
    "Scheme",
    "Status",
    "Track",
    "WeakPerspective",
    "load_head",
    "load_model",
    "optimize",
    "optimize_person",
    "predict",
    "read_clip",
    "read_people",
    "teach_encoder",
]

# The module of every public name. Names are imported on use (PEP 562), so that a program that needs one of them, or
# the command line's help, does not wait for PyAV and the whole fit.
_MODULE_OF = {
    "Camera": "neuface.structs",
    "Clip": "neuface.frames",
    "Crop": "neuface.structs",
    "FaceModel": "neuface.models",
    "FitConfig": "neuface.fitting.config",
    "FitResult": "neuface.results.fit_result",
    "HeadModel": "neuface.head.model",
    "HeadParams": "neuface.structs",
    "Outcome": "neuface.structs",
    "Perspective": "neuface.geometry.head_perspective",
    "Prediction": "neuface.structs",
    "Recording": "neuface.frames",
    "Scheme": "neuface.structs",
    "Status": "neuface.structs",
    "Track": "neuface.structs",
    "WeakPerspective": "neuface.structs",
    "load_head": "neuface.models",
    "load_model": "neuface.models",
    "optimize": "neuface.pipeline",
    "optimize_person": "neuface.pipeline",
    "predict": "neuface.pipeline",
    "read_clip": "neuface.clips",
    "read_people": "neuface.clips",
    "teach_encoder": "neuface.teaching",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'neuface' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
