"""Reads damaged and hostile files one after another in a process of its own, and reports what happened as JSON.

Run by test_fuzz.py as `python fuzz_worker.py FOLDER [PACK]`; FOLDER holds intact files and `seeds.json`, which names
the reader of each. An audit hook observes code that is executed, started processes and unpickling.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils._device  # Torch imports it when a device is first used as a context, whatever the file.
from fuzz_cases import hostile_cases, mutated
from safetensors import safe_open

from neuface.errors import InputError, NeufaceError
from neuface.io.assets.converted import read_encoder_copy
from neuface.io.cameras import read_cameras
from neuface.io.flame.companions import read_masks, read_template_uv
from neuface.io.flame.encoder_files import read_deca, read_emoca, read_smirk
from neuface.io.flame.landmarks import read_ibug68, read_mediapipe105
from neuface.io.landmarks import read_landmarks
from neuface.io.results.authors_layout import read_authors_result
from neuface.io.untrusted.array_files import checked_array, read_single_array
from neuface.io.untrusted.strict_state_dict import refuse_misfits
from neuface.io.untrusted.torch_checkpoints import named_tensors, read_checkpoint
from neuface.models import load_head
from neuface.results.fit_result import FitResult

# Bounds on the CPU time of a file, s, and on the address space, bytes: of the process beyond that after the intact
# files (a limit of the system), and by one file (a fault in the report).
SECONDS, EXTRA_MEMORY, LARGEST_GROWTH = 5.0, 2 << 30, 768 << 20
# Audit events that reading a file must not cause. `compile` is allowed, as numpy parses headers as Python literals.
FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile", "os.remove",
    "os.rename", "os.mkdir", "os.putenv", "subprocess.Popen", "pickle.find_class", "marshal.loads", "ctypes.dlopen",
    "socket.__new__", "exec", "import", "shutil.rmtree", "webbrowser.open",
)  # fmt: skip


class Watch:
    """Collects forbidden events while a reader works. An audit hook cannot be removed."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        writes = event == "open" and isinstance(arguments[1], str) and arguments[1].strip("rbtU") != ""
        if event in FORBIDDEN or writes:
            self.seen.append(f"{event} {str(arguments)[:150]}")


class TooLong(BaseException):
    """Raised by the timer; as a BaseException it is not caught by a reader's handler of damage."""


def out_of_time(*_: object) -> None:
    raise TooLong


def careless(path: Path) -> None:
    """A reader that executes the file: the control of the harness."""
    with open(path, "rb") as stream:
        pickle.load(stream, encoding="latin1")


def greedy(path: Path) -> None:
    bytearray(4 << 30)


def endless(path: Path) -> None:
    while True:
        pass


def checkpoint(path: Path) -> None:
    """Read a checkpoint and compare every tensor with a small network."""
    wanted = torch.nn.Linear(3, 2).state_dict()
    for part in read_checkpoint(path).values():
        if isinstance(part, dict):
            refuse_misfits(path, named_tensors(path, part), wanted, "the test's network")


def emoca(path: Path) -> None:
    read_emoca(path.parent)


def flame_head(path: Path) -> None:
    load_head(path).vertices(load_head(path).neutral(1))


FACES = 20
VERTICES = 12


def readers(folder: Path) -> dict[str, Callable[[Path], Any]]:
    faces = np.load(folder / "faces.npy").astype(np.int64)

    def embedding(path: Path) -> None:
        read_ibug68(path, None, None, FACES)

    return {
        "head": flame_head,
        "embedding": embedding,
        "static": lambda path: read_ibug68(None, path, folder / "flame_dynamic_embedding.npy", FACES),
        "dynamic": lambda path: read_ibug68(None, folder / "flame_static_embedding.pkl", path, FACES),
        "mediapipe": lambda path: read_mediapipe105(path, FACES),
        "masks": lambda path: read_masks(path, VERTICES),
        "template": lambda path: read_template_uv(path, faces, VERTICES),
        "eyelid": lambda path: checked_array(path, "eyelid", read_single_array(path), (VERTICES, 3)),
        "checkpoint": checkpoint,
        "deca": read_deca,
        "smirk": read_smirk,
        "emoca": emoca,
        "copy": lambda path: read_encoder_copy(path, "smirk"),
        "result": FitResult.load,
        "landmarks": read_landmarks,
        "authors": read_authors_result,
        "cameras": read_cameras,
        "careless": careless,
        "greedy": greedy,
        "endless": endless,
    }


class Harness:
    """Runs cases, and collects faults, counts and the longest time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.readers, self.watch = folder, readers(folder), Watch()
        self.marker = folder / "MARKER"
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.longest = 0.0

    def run(self, reader: str, name: str, content: bytes, label: str) -> None:
        path = self.folder / "case" / name
        path.write_bytes(content)
        before = peak_bytes()
        self._read(reader, path, f"{reader} {name} {label}")
        # A file left here would be read as a companion of the next one.
        path.unlink()
        self.counts[reader] += 1
        if peak_bytes() - before > LARGEST_GROWTH:
            self.faults.append(f"{reader} {name} {label}: took more than {LARGEST_GROWTH >> 20} MiB")

    def _read(self, reader: str, path: Path, label: str) -> None:
        started, faults = time.process_time(), []
        self.watch.seen.clear()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        self.watch.on = True
        try:
            self.readers[reader](path)
            self.counts["accepted"] += 1
        except NeufaceError as error:
            if str(self.folder) not in str(error) and path.name not in str(error):
                faults.append(f"the error does not name the file: {error}")
        except TooLong:
            faults.append(f"took more than {SECONDS} s")
        except BaseException as error:
            faults.append(f"raised {type(error).__name__}: {error}"[:200])
        finally:
            self.watch.on = False
            signal.setitimer(signal.ITIMER_PROF, 0)
        self.longest = max(self.longest, time.process_time() - started)
        faults += [f"did {event}" for event in self.watch.seen]
        if self.marker.exists():
            self.marker.unlink()
            faults.append("left the marker")
        self.faults += [f"{label}: {fault}" for fault in faults]

    def control(self, reader: str, content: bytes) -> list[str]:
        """The faults that the harness reports for a faulty reader."""
        self.run(reader, "control.pkl", content, "control")
        found, self.faults = self.faults, []
        self.longest = 0.0
        return found


def peak_bytes() -> int:
    """Peak address space of this process in bytes on Linux, peak resident memory on other systems."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmPeak"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def pack_cases(pack: Path) -> Iterator[tuple[str, str, bytes]]:
    """Small files of the reference pack, with the reader of each."""
    kinds = {".pkl": "head", ".npy": "embedding", ".tar": "deca", ".ckpt": "checkpoint"}
    for path in sorted((pack / "bad_files").iterdir()):
        yield kinds[path.suffix], path.name, path.read_bytes()
    for path in sorted((pack / "checkpoints").rglob("*.ckpt")) + sorted((pack / "checkpoints").glob("*.tar")):
        yield "checkpoint", path.name, path.read_bytes()


def main(folder: Path, pack: Path | None, mutations: int) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    (folder / "case").mkdir(exist_ok=True)
    os.chdir(folder)
    signal.signal(signal.SIGPROF, out_of_time)
    harness = Harness(folder)
    seeds = json.loads((folder / "seeds.json").read_text())
    # Intact files come first: they must be read, and modules that are imported on first use are imported now.
    for name, reader in seeds.items():
        harness.readers[reader](folder / name)
    for reader in ("deca", "smirk", "copy", "emoca"):
        with suppress(InputError):
            harness.readers[reader](folder / next(iter(seeds)))
    load_head("open")
    with safe_open(folder / "head.safetensors", framework="np") as archive:
        archive.keys()
    start = peak_bytes()
    resource.setrlimit(resource.RLIMIT_AS, (start + EXTRA_MEMORY, resource.RLIM_INFINITY))
    hostile_pickle = b"cos\nsystem\n(S'touch MARKER'\ntR."
    controls = {name: harness.control(name, hostile_pickle) for name in ("careless", "greedy", "endless")}
    harness.counts.clear()
    generator = np.random.default_rng(20240)
    for name, reader in seeds.items():
        content = (folder / name).read_bytes()
        for label, changed in mutated(content, generator, mutations):
            harness.run(reader, name, changed, label)
    for reader, name, content in hostile_cases():
        harness.run(reader, name, content, "hostile")
    for reader, name, content in pack_cases(pack) if pack else ():
        harness.run(reader, name, content, "pack")
        for label, changed in mutated(content, generator, 8):
            harness.run(reader, name, changed, f"pack {label}")
    return {
        "controls": controls,
        "faults": harness.faults,
        "counts": dict(harness.counts),
        "cases": sum(count for name, count in harness.counts.items() if name != "accepted"),
        "longest_s": harness.longest,
        "growth_bytes": peak_bytes() - start,
        "cpu_s": time.process_time(),
    }


if __name__ == "__main__":
    report = main(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2] else None, int(sys.argv[3]))
    print("\nREPORT " + json.dumps(report))
