"""Fit every video of a folder. Run it again after a stop: finished videos are left alone.

    python examples/08_a_folder_of_videos.py --videos my_videos --passes 150

NAME.landmarks.npz beside NAME.mp4 holds its landmarks; without that file the package face-alignment finds them.
"""

from __future__ import annotations

from pathlib import Path

import tyro

import neuface

DATA = Path(__file__).parent / "data"


def main(videos: Path = DATA, out: Path = Path("out"), passes: int = 5, max_frames: int = 16) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for video in sorted(videos.glob("*.mp4")):
        target = out / f"{video.stem}.npz"
        if target.exists():  # `save` makes a file appear whole or not at all, so this one is finished.
            print(f"{video.name}: done before")
            continue
        given = video.with_suffix(".landmarks.npz")
        try:
            clip = neuface.read_clip(video, given if given.exists() else None, max_frames=max_frames)
            result = neuface.optimize(
                clip, config=neuface.FitConfig.best({"m_step.stop.max_passes": passes}), progress=False
            )
        except neuface.NeufaceError as error:  # one unusable video must not stop the others
            print(f"{video.name}: {error}")
            continue
        result.save(target)
        error = result.image_nme_percent.nanmean()
        print(f"{video.name}: landmark error {error:.2f} %, {result.outcome.label}")


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
