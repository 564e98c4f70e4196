"""The floor plan: imports point down, and files are opened in one room."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import neuface

PACKAGE = Path(str(neuface.__file__)).parent
# Rooms from the ground up: a room imports from lower floors only. A room whose file does not exist yet has its floor
# already. `synthetic` films scans and therefore stands above `io`.
FLOORS = (
    ("errors",),
    ("structs", "hashing", "devices", "settings"),
    ("geometry", "pictures"),
    ("head", "landmarks", "cropping", "frames"),
    ("render", "encoders", "losses", "metrics"),
    ("fitting", "viz", "prior", "flow"),
    ("evaluation",),
    ("io",),
    ("models", "clips", "synthetic"),
    ("results", "training", "export", "model_inputs"),
    ("lenses", "run_folder", "assets_report", "settings_text"),
    ("pipeline", "teaching"),
    ("dataset", "demo", "assets_text"),
    ("cli",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# Wings of io: each imports only from the rooms listed, and from itself.
WINGS = {"io.untrusted": {"errors"}}
# These stand beside the package, which imports none of them.
OUTSIDE = {"studies", "tests", "tools", "examples"}
MAY_OPEN_FILES = {"io", "dataset", "cli"}
# These choose where things lie and leave opening them to io.
MAY_NAME_PATHS = {"assets_report.py", "models.py", "run_folder.py"}
FILE_MODULES = {"pathlib", "av", "safetensors", "pickle", "shutil", "tempfile", "zipfile", "gzip", "os.path"}
FILE_CALLS = {
    "open", "np.load", "np.save", "np.savez", "np.savez_compressed", "np.loadtxt", "np.savetxt", "np.fromfile",
    "torch.load", "torch.save", "os.open", "io.open",
}  # fmt: skip
ENVIRONMENT = {"os.environ", "os.getenv", "os.putenv"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports_of(tree: ast.Module) -> Iterator[str]:
    """Full dotted names of what is imported, wherever in the file the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def dotted_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            yield ast.unparse(node), node.lineno


def floor_violations(room: str, tree: ast.Module) -> list[str]:
    found = []
    for imported in imports_of(tree):
        parts = imported.split(".")
        if imported.startswith("."):
            found.append(f"relative import {imported}")
        if parts[0] in OUTSIDE:
            found.append(imported)
        if parts[0] != "neuface" or len(parts) < 2:
            continue
        target = parts[1]
        if target == room:
            continue
        if target not in FLOOR_OF or FLOOR_OF[target] >= FLOOR_OF[room]:
            found.append(imported)
    return found


def wing_violations(wing: str, tree: ast.Module) -> list[str]:
    """Imports from the package that a wing may not have."""
    allowed = tuple(f"neuface.{room}." for room in (*WINGS[wing], wing))
    return [
        imported
        for imported in imports_of(tree)
        if imported.startswith("neuface.") and not imported.startswith(allowed)
    ]


def file_violations(name: str, room: str, tree: ast.Module) -> list[str]:
    if room in MAY_OPEN_FILES:
        return []
    found = []
    for imported in imports_of(tree):
        module = next(
            (used for used in FILE_MODULES if imported == used or imported.startswith(f"{used}.")), None
        )
        if module is not None and not (module == "pathlib" and name in MAY_NAME_PATHS):
            found.append(f"imports {imported}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in FILE_CALLS:
            found.append(f"line {node.lineno}: {ast.unparse(node.func)}")
    return found


def device_and_environment_violations(room: str, tree: ast.Module) -> list[str]:
    found = [
        f"line {line}: {name}" for name, line in dotted_names(tree) if name in ENVIRONMENT and room != "io"
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "cuda":
            found.append(f"line {node.lineno}: .cuda()")
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    assert room in FLOOR_OF, f"{name_of(path)} is on no floor: add it to FLOORS"
    assert floor_violations(room, tree_of(path)) == []


@pytest.mark.parametrize("wing", WINGS)
def test_wings_import_only_what_they_may(wing: str) -> None:
    paths = sorted((PACKAGE / wing.replace(".", "/")).glob("*.py"))
    assert paths, f"there is no wing {wing}"
    assert {path.name: wing_violations(wing, tree_of(path)) for path in paths} == {
        path.name: [] for path in paths
    }


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_io_opens_files(path: Path) -> None:
    assert file_violations(name_of(path), room_of(path), tree_of(path)) == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_devices_and_environment_are_arguments(path: Path) -> None:
    assert device_and_environment_violations(room_of(path), tree_of(path)) == []


def test_importing_the_package_loads_nothing_slow() -> None:
    """The command line and the pictures load their packages on use; roma would load the compiler of torch."""
    slow = ("matplotlib", "scipy", "av", "tyro", "tqdm", "roma", "torch._dynamo", "numba", "cv2")
    code = f"import sys, neuface; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- The checks themselves can fail


@pytest.mark.parametrize(
    ("room", "code", "caught"),
    [
        ("geometry", "from neuface.head.model import HeadModel", True),
        ("geometry", "import neuface.io.video", True),
        ("losses", "from neuface.metrics import cvd_mm", True),
        ("losses", "from neuface import metrics", True),
        ("fitting", "def f():\n    from neuface.models import load_head", True),
        ("fitting", "from .config import FitConfig", True),
        ("fitting", "from neuface.unknown import thing", True),
        ("fitting", "from neuface.fitting.config import FitConfig", False),
        ("fitting", "from neuface import losses", False),
        ("cli", "import torch", False),
        ("cli", "from studies.benchmark import settings", True),
        ("io", "import tools.open_head", True),
    ],
)
def test_upward_imports_are_caught(room: str, code: str, caught: bool) -> None:
    assert bool(floor_violations(room, ast.parse(code))) == caught


@pytest.mark.parametrize(
    ("code", "caught"),
    [
        ("from neuface.head.model import HeadModel", True),
        ("from neuface.io.atomic import atomic_path", True),
        ("import neuface.structs", True),
        ("from neuface.errors import InputError", False),
        ("from neuface.io.untrusted.npy import plain_array", False),
        ("import numpy as np", False),
    ],
)
def test_imports_of_other_rooms_into_a_wing_are_caught(code: str, caught: bool) -> None:
    assert bool(wing_violations("io.untrusted", ast.parse(code))) == caught


@pytest.mark.parametrize(
    ("name", "code", "caught"),
    [
        ("losses.py", "open('a')", True),
        ("losses.py", "x = np.load('a')", True),
        ("losses.py", "def f():\n    torch.save(1, 'a')", True),
        ("losses.py", "from pathlib import Path", True),
        ("losses.py", "from safetensors.torch import save_file", True),
        ("losses.py", "import av", True),
        ("losses.py", "import average", False),
        ("models.py", "from pathlib import Path", False),
        ("models.py", "from pathlib import Path\nopen(Path('a'))", True),
        ("io/heads.py", "import pickle\nopen('a')", False),
    ],
)
def test_opened_files_are_caught(name: str, code: str, caught: bool) -> None:
    room = name.split("/")[0].removesuffix(".py")
    assert bool(file_violations(name, room, ast.parse(code))) == caught


@pytest.mark.parametrize(
    ("room", "code", "caught"),
    [
        ("fitting", "x = head.cuda()", True),
        ("fitting", "x = torch.cuda.is_available()", False),
        ("fitting", "import os\nx = os.environ.get('A')", True),
        ("io", "import os\nx = os.environ.get('A')", False),
    ],
)
def test_devices_and_environment_are_caught(room: str, code: str, caught: bool) -> None:
    assert bool(device_and_environment_violations(room, ast.parse(code))) == caught
