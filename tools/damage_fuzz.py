"""Damaged videos, pictures and landmark files: every one must be read or refused by one named error, within seconds.

    python tools/damage_fuzz.py --files 1000 --out fuzz

Each file is made from a small rendered clip in one of many containers, damaged by one rule, and read by a process of
its own, so that crashes and hangs are counted. Files that misbehave are kept in the folder.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np

from neuface.io.video import write_image

HANG_S = 10.0
"""Bounds the time of one file, seconds."""
FRAMES_PER_CLIP = 12
CONTAINERS = {
    "mp4": "libx264",
    "mov": "mpeg4",
    "mkv": "libx264",
    "webm": "libvpx",
    "avi": "mpeg4",
    "ts": "mpeg2video",
    "mpg": "mpeg1video",
    "gif": "gif",
    "flv": "flv1",
}
"""Endings and the codec of each, by FFmpeg's names."""
PIXEL_FORMATS = {"gif": "rgb8"}
PICTURES = ("png", "jpg", "bmp", "tiff", "webp")
WORKER = """
import sys, time, warnings
warnings.simplefilter("ignore")
from neuface.errors import NeufaceError
from neuface.io.inputs import open_footage
from neuface.io.landmarks import read_faces
print("ready", flush=True)
for line in sys.stdin:
    path = line.rstrip("\\n")
    begin = time.monotonic()
    try:
        if path.endswith((".npz", ".npy", ".csv", ".json", ".pts")):
            read_faces(path)
        else:
            footage = open_footage(path)
            for start in range(0, footage.frames.time, 8):
                footage.frames.read(0, start, min(start + 8, footage.frames.time))
        said = "read"
    except NeufaceError as error:
        said = "refused" if path.split("/")[-1] in str(error) else f"nameless: {error}"
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    print(f"{time.monotonic() - begin:.3f}\\t" + said.replace("\\n", " ")[:300], flush=True)
"""


def clip_frames(time_count: int = FRAMES_PER_CLIP) -> np.ndarray:
    """Shaded discs that move over a gradient: content that codecs predict from frame to frame."""
    y, x = np.mgrid[:96, :128]
    frames = np.zeros((time_count, 96, 128, 3), np.uint8)
    for t in range(time_count):
        disc = np.hypot(x - 40 - 4 * t, y - 48) < 22
        frames[t] = np.stack([x + y, 2 * y, np.where(disc, 220 - 2 * np.abs(x - 40 - 4 * t), 30)], -1).clip(
            0, 255
        )
    return frames


def write_seed(path: Path, frames: np.ndarray, *, sound: bool = False) -> None:
    """One intact clip in the container of its ending, with sound where asked."""
    ending = path.suffix[1:]
    with av.open(
        str(path), "w", format={"ts": "mpegts", "mpg": "mpeg", "mkv": "matroska"}.get(ending)
    ) as container:
        stream = container.add_stream(CONTAINERS[ending], rate=25)
        stream.width, stream.height = 128, 96
        stream.pix_fmt = PIXEL_FORMATS.get(ending, "yuv420p")
        audio = container.add_stream("aac", rate=44100) if sound else None
        for picture in frames:
            container.mux(
                stream.encode(
                    av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=stream.pix_fmt)
                )
            )
        container.mux(stream.encode(None))
        if audio is not None:
            _write_silence(container, audio)


def write_sound(path: Path) -> None:
    """A file without pictures in a container that could hold some."""
    with av.open(str(path), "w") as container:
        _write_silence(container, container.add_stream("aac", rate=44100))


def _write_silence(container: Any, audio: Any) -> None:
    wave = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
    wave.sample_rate = 44100
    container.mux(audio.encode(wave))
    container.mux(audio.encode(None))


def make_seeds(folder: Path) -> list[Path]:
    """Intact files of every kind, among them clips of one frame and landmark files."""
    frames = clip_frames()
    for ending in CONTAINERS:
        write_seed(folder / f"clip.{ending}", frames, sound=ending in ("mp4", "mkv"))
        write_seed(folder / f"one_frame.{ending}", frames[:1])
    write_sound(folder / "sound.mp4")
    write_image(folder / "picture.png", frames[0])
    try:
        from PIL import Image
    except ImportError:
        pass
    else:
        for ending in PICTURES[1:]:
            Image.fromarray(frames[0]).save(folder / f"picture.{ending}")
    points = np.random.default_rng(0).uniform(20, 80, (FRAMES_PER_CLIP, 68, 2)).round(2)
    np.savez_compressed(folder / "lm.npz", points_px=points)
    np.save(folder / "lm.npy", points)
    (folder / "lm.json").write_text(json.dumps(points.tolist()))
    rows = [",".join(["frame", *(f"{axis}_{n}" for axis in "xy" for n in range(68))])]
    rows += [",".join(map(str, [t + 1, *frame.T.flatten()])) for t, frame in enumerate(points)]
    (folder / "lm.csv").write_text("\n".join(rows))
    body = "\n".join(f"{x} {y}" for x, y in points[0])
    (folder / "lm.pts").write_text(f"version: 1\nn_points: 68\n{{\n{body}\n}}\n")
    return sorted(folder.iterdir())


Damage = Callable[[bytes, np.random.Generator], bytes]


def truncated(content: bytes, random: np.random.Generator) -> bytes:
    """The beginning of the file."""
    return content[: int(random.integers(0, len(content)))]


def flipped(content: bytes, random: np.random.Generator) -> bytes:
    """Single bits flipped, from one to one in a hundred bytes."""
    array = np.frombuffer(content, np.uint8).copy()
    count = int(random.integers(1, max(2, len(array) // 100)))
    array[random.integers(0, len(array), count)] ^= (1 << random.integers(0, 8, count)).astype(np.uint8)
    return array.tobytes()


def flipped_header(content: bytes, random: np.random.Generator) -> bytes:
    """Bits flipped in the first 400 or the last 1,500 bytes, where containers keep what they claim."""
    array = np.frombuffer(content, np.uint8).copy()
    part = array[:400] if random.random() < 0.5 else array[-1500:]
    count = int(random.integers(1, 12))
    part[random.integers(0, len(part), count)] ^= (1 << random.integers(0, 8, count)).astype(np.uint8)
    return array.tobytes()


def huge_header(content: bytes, random: np.random.Generator) -> bytes:
    """Four to eight bytes of the header become 0xff, so that a size or count there is huge."""
    array = bytearray(content)
    place = int(random.integers(0, max(1, min(len(array), 1500) - 8)))
    width = int(random.integers(4, 9))
    array[place : place + width] = (b"\x7f" if random.random() < 0.5 else b"\xff") + b"\xff" * (width - 1)
    return bytes(array)


def hole(content: bytes, random: np.random.Generator) -> bytes:
    """A piece in the middle is cut out, zeroed or repeated."""
    begin, end = sorted(random.integers(0, len(content), 2).tolist())
    piece = [b"", b"\0" * (end - begin), content[begin:end] * 2][int(random.integers(0, 3))]
    return content[:begin] + piece + content[end:]


def noise(content: bytes, random: np.random.Generator) -> bytes:
    """A true beginning, and noise after it."""
    keep = int(random.integers(0, min(len(content), 64)))
    return content[:keep] + random.bytes(int(random.integers(0, 5000)))


def untouched(content: bytes, _random: np.random.Generator) -> bytes:
    """The intact file, for files whose ending is changed."""
    return content


DAMAGES: tuple[Damage, ...] = (truncated, flipped, flipped_header, huge_header, hole, noise, untouched)


def make_damaged(seeds: list[Path], folder: Path, count: int, seed: int) -> list[Path]:
    """Files damaged by all rules in turn; one in eight gets the ending of another kind."""
    random = np.random.default_rng(seed)
    endings = [path.suffix for path in seeds]
    made = []
    for number in range(count):
        source = seeds[int(random.integers(len(seeds)))]
        damage = DAMAGES[number % len(DAMAGES)]
        wrong = damage is untouched or random.random() < 0.125
        ending = endings[int(random.integers(len(endings)))] if wrong else source.suffix
        path = folder / f"{number:05d}_{source.stem}_{damage.__name__}{ending}"
        path.write_bytes(damage(source.read_bytes(), random))
        made.append(path)
    return made


class Reader:
    """A process that reads files one after another, and is replaced when it dies or hangs."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None, "it is a pipe"
        assert self._process.stdout.readline() == "ready\n", "the reader does not start"

    def read(self, path: Path) -> tuple[str, float]:
        """What became of the file, and how long that took in seconds."""
        assert self._process.stdin is not None, "it is a pipe"
        assert self._process.stdout is not None, "it is a pipe"
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        watchdog = _Watchdog(self._process)
        answer = self._process.stdout.readline()
        watchdog.stop()
        if answer:
            seconds, said = answer.rstrip("\n").split("\t", 1)
            return said, float(seconds)
        code = self._process.wait()
        self._start()
        return ("hang" if watchdog.struck else f"crash: exit status {code}"), HANG_S

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


class _Watchdog:
    """Ends a process that takes too long."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.struck = False
        self._process = process
        # The busy machine may be slow; what the worker measures itself is judged.
        self._timer = threading.Timer(4 * HANG_S, self._strike)
        self._timer.start()

    def _strike(self) -> None:
        self.struck = True
        self._process.kill()

    def stop(self) -> None:
        self._timer.cancel()


def run(files: list[Path]) -> tuple[Counter[str], list[tuple[Path, str, float]]]:
    """How many files were read and refused, and those that misbehaved."""
    reader = Reader()
    counts: Counter[str] = Counter()
    bad = []
    slowest = 0.0
    for path in files:
        said, seconds = reader.read(path)
        slowest = max(slowest, seconds)
        good = said in ("read", "refused") and seconds < HANG_S
        counts[said if good else "misbehaved"] += 1
        if not good:
            bad.append((path, said, seconds))
    reader.close()
    print(f"slowest file: {slowest:.1f} s")
    return counts, bad


def main() -> None:
    """Make the files, read them, print the counts; exit status 1 if one misbehaved."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for files that misbehave")
    options = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "seeds").mkdir()
        (Path(name) / "damaged").mkdir()
        seeds = make_seeds(Path(name) / "seeds")
        counts, bad = run(make_damaged(seeds, Path(name) / "damaged", options.files, options.seed))
        print(f"{dict(counts)} of {options.files} files in {time.monotonic() - begin:.0f} s")
        for path, said, seconds in bad:
            print(f"{path.name}: {said} ({seconds:.1f} s)")
            if options.out is not None:
                options.out.mkdir(parents=True, exist_ok=True)
                (options.out / path.name).write_bytes(path.read_bytes())
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
