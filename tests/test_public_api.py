"""The public names, frozen: a change here is a change for every user."""

from __future__ import annotations

import ast
import inspect

import pytest

import neuface

PUBLIC_NAMES = {
    "Camera", "Clip", "Crop", "FaceModel", "FitConfig", "FitResult", "HeadModel", "HeadParams", "InputError",
    "MissingDependencyError", "ModelMismatchError", "NeufaceError", "Outcome", "Perspective", "Prediction",
    "Recording", "Scheme", "Status", "Track", "WeakPerspective", "load_head", "load_model", "optimize",
    "optimize_person", "predict", "read_clip", "read_people", "teach_encoder",
}  # fmt: skip

RESULT_MEMBERS = {
    "cameras",
    "relative_rotations",
    "load",
    "overlay",
    "params",
    "prediction",
    "project",
    "report",
    "save",
    "valid",
    "vertices",
}


def test_names() -> None:
    assert set(neuface.__all__) == PUBLIC_NAMES
    assert all(hasattr(neuface, name) for name in PUBLIC_NAMES)


def test_every_name_is_the_one_that_type_checkers_see() -> None:
    """The imports for type checkers and the table of modules state the same."""
    tree = ast.parse(inspect.getsource(neuface))
    seen = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("neuface.")
        for alias in node.names
    }
    errors = {name for name, module in seen.items() if module == "neuface.errors"}
    assert {name: seen[name] for name in seen.keys() - errors} == neuface._MODULE_OF
    assert seen.keys() == PUBLIC_NAMES
    assert set(dir(neuface)) >= PUBLIC_NAMES


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Optimise'"):
        _ = neuface.Optimise


def test_every_public_name_is_documented() -> None:
    undocumented = [name for name in PUBLIC_NAMES if not inspect.getdoc(getattr(neuface, name))]
    assert undocumented == []


def test_optimize_signature() -> None:
    parameters = inspect.signature(neuface.optimize).parameters
    assert list(parameters) == [
        "frames",
        "landmarks",
        "cameras",
        "calibration_scale",
        "faces",
        "model",
        "config",
        "device",
        "progress",
    ]
    defaults = {name: item.default for name, item in parameters.items() if name != "frames"}
    assert defaults.pop("faces") == "most present"
    assert defaults.pop("model") == "open"
    assert defaults.pop("progress") is True
    assert defaults == dict.fromkeys(("landmarks", "cameras", "calibration_scale", "config", "device"))
    keyword_only = [name for name, item in parameters.items() if item.kind is item.KEYWORD_ONLY]
    assert keyword_only == list(parameters)[1:]


def test_result_members() -> None:
    members = {
        name for name, value in vars(neuface.FitResult).items()
        if not name.startswith("_") and (callable(value) or isinstance(value, property | classmethod))
    }  # fmt: skip
    assert members == RESULT_MEMBERS


def test_errors_are_what_their_callers_expect() -> None:
    assert issubclass(neuface.InputError, ValueError)
    assert issubclass(neuface.ModelMismatchError, ValueError)
    assert issubclass(neuface.MissingDependencyError, ImportError)
    for name in ("InputError", "ModelMismatchError", "MissingDependencyError"):
        assert issubclass(getattr(neuface, name), neuface.NeufaceError)
