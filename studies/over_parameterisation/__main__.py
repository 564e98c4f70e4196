"""Does over-parameterisation remove local minima from the landmark fit? A test of Proposition 1 of the paper.

    python -m studies.over_parameterisation --out out     (--full for the figures below, --fast for a short check)

The proposition: gradient descent reduces the squared distance between the outputs of a wide ReLU network and
any labels to zero. The paper expects a fit through an encoder to be robust to local minima for the same
reason. Here networks of growing width are fitted by plain full-batch gradient descent (a) to random labels,
the proposition's own setting, and (b) to the landmarks of a known motion of the open head: the outputs are
orientation, identity, expression and camera of every frame. In (b) free parameters that start at the widest
network's outputs are the reference. Starts are random and far from the truth, heads rotated by some 90 degrees. The
step size is chosen per width by a rule (`chosen_step`) on a seed of its own.

Measured with --full (8 frames, 544 unknowns, 6 seeds, 2000 steps; 2 shared cores, 2.6 minutes of one
core), the median error over seeds, in (a) in % of the labels' length, in (b) of the distance between the
eyes:

    width                                4      8     16     64    256    512   free parameters
    (a) labels, error                   72     33    0.0    0.0    0.0    0.0
        seeds that reach 1 %           0/6    0/6    5/6    6/6    6/6    6/6
    (b) landmarks, error                36     10     16    9.4     11    5.6   4.6
        worst seed                      66     53     21     26     32     16   5.7
        frames with wrong angle (> 45°) 8 %    4 %    8 %   10 %   15 %    2 %    0 %
        mean angle between two seeds    35°    27°    32°    29°    45°    15°     8°

What this shows. (a) agrees with the theory: from about four weights per unknown on, nearly every seed reaches
zero. In (b) the narrowest network is the worst and the widest the best, but between them the error does not fall
monotonically with width: of 36 networks, 6 per width, no width is as good as free parameters from random starts, and
at every width some heads end with a wrong orientation. Most of those frames are "stuck": optimised freely in short
descent steps, they do not reach the truth in 300 steps. Results vary with the seed, and 48 frames per column are a
small sample. All losses were still falling, by 0.3 to 8 % in the last tenth of the steps, so that the errors are
those of this number of steps, not limits.

What does not follow from the proposition. It concerns the squared distance of the outputs. The landmark
objective is a non-convex function of the outputs, because heads rotate: where its gradient with respect to the
outputs is zero, that with respect to the weights is zero as well, at any width. A network can only change
which valley descent enters, and how fast. The experiment does not show that re-parameterisation is useless: an
encoder starts near the truth (from starts rotated half as far as here, all 64 frames of a network of width 128
ended with the right orientation, as did free parameters), and its advantages there (weights that were learned and
are shared by the frames) are not tested here.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import neuface
from studies.over_parameterisation.experiment import (
    OUTPUTS,
    REACHED,
    SIZES,
    WRONG_DEG,
    LandmarkObjective,
    Row,
    Size,
    count_weights,
    random_labels,
    run,
)

FLOOR_PERCENT = 1e-3
"""Smallest error on the figure's logarithmic axis, percent; smaller errors are drawn at this value."""


def print_tables(landmarks: list[Row], labels: list[Row], size: Size) -> None:
    wanted = size.frames * OUTPUTS
    print(f"{size.frames} frames, {wanted} unknowns, {size.seeds} seeds, {size.steps} steps of descent")
    print("\nlandmarks: error in % of the distance between the eyes")
    print(f"{'width':>6} {'weights':>8} {'step':>9} {'least':>7} {'median':>7} {'most':>7} {'still falling':>14}"
          f" {'wrong angle':>15} {'stuck':>6} {'apart':>7}")  # fmt: skip
    for row in landmarks:
        count = wanted if row.name == "free" else count_weights(int(row.name))
        least, median, most = (100 * error for error in (row.errors[0], row.median, row.errors[-1]))
        print(f"{row.name:>6} {count:>8} {row.step:>9.2g} {least:>7.2f} {median:>7.2f} {most:>7.2f} "
              f"{row.falling:>13.1%} {row.wrong:>15.0%} {row.stuck:>6.0%} {row.apart_deg:>6.0f}°")  # fmt: skip
    print("\nrandom labels: error in % of their length")
    print(f"{'width':>6} {'weights':>8} {'step':>9} {'least':>7} {'median':>7} {'most':>7} {'still falling':>14}"
          f" {'seeds that reach 1 %':>21}")  # fmt: skip
    for row in labels:
        least, median, most = (100 * error for error in (row.errors[0], row.median, row.errors[-1]))
        reached = sum(error < REACHED for error in row.errors)
        print(f"{row.name:>6} {count_weights(int(row.name)):>8} {row.step:>9.2g} {least:>7.2f} {median:>7.2f} "
              f"{most:>7.2f} {row.falling:>13.1%} {reached:>18} / {size.seeds}")  # fmt: skip


def draw(landmarks: list[Row], labels: list[Row], path: Path) -> None:
    """Error against width for both losses, and the share of frames in wrong valleys."""
    figure = Figure(figsize=(13, 4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    fits, wrong, plain = figure.subplots(1, 3)
    free, wide = landmarks[-1], landmarks[:-1]
    widths = [int(row.name) for row in wide]
    for axes, rows, title in ((fits, wide, "landmarks of the head"), (plain, labels, "random labels")):
        percent = [[max(100 * error, FLOOR_PERCENT) for error in row.errors] for row in rows]
        axes.fill_between(widths, [row[0] for row in percent], [row[-1] for row in percent], alpha=0.2)
        axes.plot(widths, [statistics.median(row) for row in percent], "o-", label="network")
        axes.set(xscale="log", yscale="log", xlabel="width", ylabel="error after descent (%)", title=title)
    fits.axhspan(100 * free.errors[0], 100 * free.errors[-1], color="tab:orange", alpha=0.2)
    fits.axhline(100 * free.median, color="tab:orange", label="free parameters")
    for name, style in (("wrong", "o-"), ("stuck", "s--")):
        label = {"wrong": f"wrong orientation (> {WRONG_DEG:.0f}°)", "stuck": "stuck"}[name]
        (line,) = wrong.plot(widths, [100 * getattr(row, name) for row in wide], style, label=label)
        wrong.axhline(
            100 * getattr(free, name), color=line.get_color(), linestyle=":", label=f"{label}, free"
        )
    wrong.set(xscale="log", xlabel="width", ylabel="frames (%)", title="wrong valleys")
    wrong.set_ylim(bottom=-1)
    for axes in (fits, wrong, plain):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder for over_parameterisation.png")
    much = parser.add_mutually_exclusive_group()
    much.add_argument(
        "--fast", action="store_true", help="a short run that only checks that everything works"
    )
    much.add_argument("--full", action="store_true", help="the sizes of the figures reported above")
    options = parser.parse_args()
    size = SIZES["fast" if options.fast else "full" if options.full else "default"]
    landmarks = run(LandmarkObjective(neuface.load_head("open"), size.frames), size)
    labels = run(random_labels(size.frames), size)
    print_tables(landmarks, labels, size)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        draw(landmarks, labels, options.out / "over_parameterisation.png")
        print(f"\nwritten to {options.out}: over_parameterisation.png")


if __name__ == "__main__":
    main()
