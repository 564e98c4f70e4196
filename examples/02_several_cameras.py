"""Fit several uncalibrated cameras at once, and see what the multi-view term (Eq. 4) brings.

python examples/02_several_cameras.py
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import neuface
from neuface.demo import demo_identity
from neuface.synthetic.clips import make_talking_clip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--passes", type=int, default=60)
    options = parser.parse_args()

    head = neuface.load_head("open")
    clip = make_talking_clip(
        head, demo_identity(), view_yaw_deg=(-30.0, 20.0), time=options.frames, size_px=256
    )
    # A list of views: they must have equally many frames, but may differ in size. No calibration is needed.
    views = [view.numpy() for view in clip.frames]
    landmarks = [view.numpy() for view in clip.landmarks_px]

    config = neuface.FitConfig(max_passes=options.passes)
    for title, settings in (
        ("each view for itself", replace(config, multiview_weight=0.0)),
        ("with the multi-view term", config),
    ):
        result = neuface.optimize(views, landmarks=landmarks, config=settings)
        report = result.report(truth=clip.truth)
        after = report["after"]
        print(
            f"{title:26} cross-view distance {report['before']['cvd_mm']:.2f} -> {after['cvd_mm']:.2f} mm, "
            f"NME {after['nme_percent']:.2f} %, error to truth {after['mpve_mm']:.2f} mm"
        )


if __name__ == "__main__":
    main()
