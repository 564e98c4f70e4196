"""The report of the evidence for people: Markdown with pictures beside it, or one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from studies.benchmark.aggregate import (
    clips_of,
    expected_shape_error_of,
    group_mean,
    groups_of,
    true_stability_of,
)
from studies.benchmark.paper_claims import orderings
from studies.benchmark.records import Evidence
from studies.benchmark.report.figures import CAPTIONS
from studies.benchmark.report.grids import (
    claims_grid,
    counts_grid,
    held_out_grid,
    orderings_grid,
    published_grid,
    rivals_grid,
    spread_grid,
    summary_grid,
    targets_grid,
    variant_grid,
)
from studies.benchmark.report.paper_numbers import PUBLISHED
from studies.benchmark.requirements import HELD_OUT, Verdict, requirement, verdicts
from studies.benchmark.tables import (
    ABLATIONS,
    MAIN_TABLE,
    Table,
    left_out,
    summary,
    table,
    tables_of,
)
from studies.benchmark.variants import BEST, MAIN, OFFICIAL, PAPER
from studies.common.metrics import EFFORT, METRICS, MOTION, SHAPE, group_title
from studies.common.recordings import FOUR_CAMERAS, REAL_1VIEW
from studies.common.report.documents import (
    Block,
    Bullets,
    Heading,
    Paragraph,
    Picture,
    Rgb,
    number,
    to_html,
    to_markdown,
)

PICTURE_FOLDER = "figures"
"""Where the Markdown looks for its pictures."""
BESIDE_TABLE_2 = ("synthetic_3views", FOUR_CAMERAS, REAL_1VIEW)
"""Our groups that are closest to the paper's data sets: several cameras at once, and clips from one camera."""
UNKNOWN_CAUSE = "We do not know why."
TABLE_2_METRICS = ("msi3d_landmarks", "msi3d_vertices", "cvd_mm", "nme_percent")


@dataclass(frozen=True, kw_only=True)
class ReportExtras:
    """What the report needs besides the evidence."""

    torch_version: str
    cpu: str
    """Name of the processor."""
    command: str
    """The command that made the report."""
    pictures: tuple[Picture, ...] = ()
    """Further pictures, e.g. of gradient maps."""
    remarks: Mapping[str, str] = field(default_factory=dict)
    """Likely causes of orderings that do not hold, by `Ordering.claim`; the report states that others are unknown."""
    unmet: Mapping[str, str] = field(default_factory=dict)
    """Likely causes of unmet requirements, by `Verdict.metric`; the report states that others are unknown."""


def markdown(evidence: Evidence, figures: Mapping[str, Rgb], extra: ReportExtras) -> str:
    """The report as Markdown; its pictures are those of `report_pictures`, in PICTURE_FOLDER beside it.

    Args:
        figures: by the names of `evidence_figures.draw_figures`.

    Raises:
        InputError: a picture's name cannot be that of a file.
    """
    return to_markdown(_blocks(evidence, figures, extra), picture_folder=PICTURE_FOLDER)


def html(evidence: Evidence, figures: Mapping[str, Rgb], extra: ReportExtras) -> str:
    """The same as one self-contained HTML file.

    Raises:
        InputError: as `markdown`.
    """
    return to_html(_blocks(evidence, figures, extra))


def report_pictures(figures: Mapping[str, Rgb], extra: ReportExtras) -> dict[str, Rgb]:
    """Every picture of the Markdown, by its path beside it."""
    pictures = (*_figure_blocks(figures), *extra.pictures)
    return {f"{PICTURE_FOLDER}/{picture.name}.png": picture.image for picture in pictures}


def _blocks(evidence: Evidence, figures: Mapping[str, Rgb], extra: ReportExtras) -> list[Block]:
    return [
        Heading(level=1, text="NeuFace: the method and the evidence for it"),
        *_summary(evidence),
        *_compared(evidence),
        *_published(evidence),
        *_by_group(evidence),
        *_figures(figures, extra),
        *_cameras(evidence),
        *_verdicts(evidence, extra),
        *_orderings(evidence, extra),
        *_origin(evidence, extra),
    ]


def _summary(evidence: Evidence) -> list[Block]:
    blocks: list[Block] = [
        Heading(level=2, text="Summary"),
        Paragraph(
            text="Means over groups of clips, each group counting the same; of MSI3D the geometric mean. A column "
            "has only groups on which every variant was measured. ↓ less is better, ↑ more is better, → 1 nearer to "
            "1 is better; the best of each column is bold, and so are ties."
        ),
    ]
    columns = summary(evidence)
    blocks.append(summary_grid(columns) if columns else Paragraph(text="No group was measured."))
    found = verdicts(evidence)
    fixed, against = ([item for item in found if (item.rival is None) == wanted] for wanted in (True, False))
    lines = [
        f"best() against paper() and official(): {_count(against)}.",
        f"Fixed targets: {_count(fixed)}.",
    ]
    lines += [
        f"Not met: {group_title(item.group)}, {requirement(item)}; measured {number(item.best, 2)}."
        for item in fixed
        if item.status == "not met"
    ]
    return [*blocks, Bullets(lines=tuple(lines))]


def _count(found: Sequence[Verdict]) -> str:
    met = sum(item.status == "met" for item in found)
    missing = sum(item.status == "not measured" for item in found)
    return f"{met} of {len(found)} requirements met" + (f", {missing} not measured" if missing else "")


def _compared(evidence: Evidence) -> list[Block]:
    lines = [
        f"{variant.title}: {text}"
        for variant, text in zip(
            MAIN,
            (
                "the predictions of the pretrained encoder.",
                "the parameters of every image are optimised freely, from the encoder's predictions, coarse to fine, "
                "with regularisers.",
                "the published equations.",
                "what the authors' released code does.",
                "the same with the step size of paper(): the released one was chosen for a larger encoder.",
                "the terms of best(), and the encoder is fine-tuned by gradient steps.",
                "ours, the default: least-squares steps on all parameters together.",
            ),
            strict=True,
        )
    ]
    groups = groups_of(evidence)
    sizes = [f"{group_title(group)}: {_size(evidence, group)}." for group in groups]
    return [
        Heading(level=2, text="What was compared"),
        Bullets(lines=tuple(lines)),
        Paragraph(
            text="Rendered people have identities that the encoder was not trained on; their shape, motion and "
            "exact landmarks are known. Clean clips have landmarks with white noise; hard ones have the errors of a "
            "detector, and objects that hide the face. The rendered scan shows a real person from known cameras. "
            "The real clips have landmarks alone, and the real session has calibrated cameras besides."
        ),
        Bullets(lines=tuple(sizes)),
        Paragraph(
            text="NME is in percent of the outer-eye distance. Unless another reference is named, it is taken "
            "against the landmarks that were fitted, with their noise: a lower value may mean that noise was fitted. "
            "MPVE is the mean distance of vertices to the true ones, head without neck. CVD is the distance between "
            "the meshes of the views. MSI3D is the mean over points of one over the variance of acceleration. A "
            "value above that of the truth means that true motion was lost, which the errors of head turning and of "
            "lip opening show."
        ),
    ]


def _size(evidence: Evidence, group: str) -> str:
    clips = clips_of(evidence, group)
    sizes = {(run.views, run.frames) for run in evidence.runs if run.group == group}
    views = "/".join(str(count) for count in sorted({views for views, _ in sizes}))
    frames = sorted({count for _, count in sizes})
    span = str(frames[0]) if len(frames) == 1 else f"{frames[0]} to {frames[-1]}"
    return f"{len(clips)} clip{'s' if len(clips) > 1 else ''}, {views} x {span} frames (views x time)"


def _published(evidence: Evidence) -> list[Block]:
    """The paper's tables, each followed by ours."""
    blocks: list[Block] = [
        Heading(level=2, text="The paper's numbers and ours"),
        Paragraph(
            text="The data differ, and so do the head model, the encoder and the units (the paper's MSI3D and CVD "
            "have none). Single numbers of ours and of the paper are therefore not comparable: only the orderings "
            "within each table are compared, below."
        ),
    ]
    ours: dict[str, list[Block]] = {spec.name: _ablation(evidence, spec.name) for spec in ABLATIONS}
    ours["2"] = [
        block
        for group in BESIDE_TABLE_2
        if (item := table(evidence, MAIN_TABLE, group)) is not None
        for block in _ours(item, TABLE_2_METRICS)
    ]
    for published in PUBLISHED:
        blocks += [Heading(level=3, text=published.title), published_grid(published)]
        if published.note:
            blocks.append(Paragraph(text=published.note))
        blocks += ours.get(published.name) or [Paragraph(text="Ours: left out, it was not run.")]
    blocks.append(Heading(level=3, text="Spread of identity codes (Table S3b of the paper, a plot there)"))
    spread = spread_grid(evidence, groups_of(evidence))
    blocks.append(spread or Paragraph(text="Ours: left out, no fit recorded it."))
    return blocks


def _ablation(evidence: Evidence, name: str) -> list[Block]:
    spec = next(spec for spec in ABLATIONS if spec.name == name)
    return [block for item in tables_of(evidence, spec) for block in _ours(item, item.metrics)]


def _ours(item: Table, metrics: Sequence[str]) -> list[Block]:
    grid = variant_grid(item, metrics)
    return [] if grid is None else [Paragraph(text=f"Ours: {group_title(item.group)}"), grid]


def _by_group(evidence: Evidence) -> list[Block]:
    blocks: list[Block] = [
        Heading(level=2, text="All variants, group by group"),
        Paragraph(text="Mean over clips ± standard deviation between clips, where there are several."),
    ]
    for group in groups_of(evidence):
        item = table(evidence, MAIN_TABLE, group)
        if item is None:
            continue
        blocks.append(Heading(level=3, text=f"{group_title(group)} ({_size(evidence, group)})"))
        for metrics in (SHAPE, MOTION, EFFORT):
            grid = variant_grid(item, [metric.name for metric in metrics])
            if grid is not None:
                blocks.append(grid)
    return blocks


def _figure_blocks(figures: Mapping[str, Rgb]) -> list[Picture]:
    ordered = sorted(
        figures, key=lambda name: list(CAPTIONS).index(name) if name in CAPTIONS else len(CAPTIONS)
    )
    return [Picture(name=name, caption=CAPTIONS.get(name, name), image=figures[name]) for name in ordered]


def _figures(figures: Mapping[str, Rgb], extra: ReportExtras) -> list[Block]:
    pictures = [*_figure_blocks(figures), *extra.pictures]
    if not pictures:
        return []
    return [Heading(level=2, text="Figures"), *pictures]


def _cameras(evidence: Evidence) -> list[Block]:
    """The errors that calibrated cameras reveal on real footage."""
    blocks: list[Block] = []
    item = table(evidence, MAIN_TABLE, FOUR_CAMERAS)
    grid = (
        None
        if item is None
        else variant_grid(item, ["landmarks_3d_median_mm", "landmarks_3d_per_image_median_mm"])
    )
    if grid is not None:
        blocks += [
            Heading(level=3, text="3D landmark error"),
            Paragraph(
                text="Inner landmarks against points triangulated from the cameras, after alignment by one scale for "
                "the clip and one rotation per camera; beside it with one rotation per image, which removes errors "
                "of head rotation. Every image has its own translation, which weak perspective does not observe."
            ),
            grid,
        ]
    for of_head, of in ((False, "in the picture"), (True, "of the head in space")):
        held_out = held_out_grid(evidence, of_head=of_head)
        if held_out is not None:
            blocks += [
                Heading(level=3, text=f"Held-out view: percent of the outer-eye distance {of}"),
                Paragraph(
                    text="Each camera was left out of the fit once; identity and expression come from the others, "
                    "and only the pose was fitted in it. Inner 51 points."
                ),
                held_out,
            ]
    heading = Heading(level=2, text="Real session: errors against the calibrated cameras")
    return [heading, *blocks] if blocks else []


def _verdicts(evidence: Evidence, extra: ReportExtras) -> list[Block]:
    found = verdicts(evidence)
    against = [item for item in found if item.rival is not None]
    blocks: list[Block] = [
        Heading(level=2, text="Requirements of best()"),
        Heading(level=3, text="Fixed targets"),
        *_targets(evidence, [item for item in found if item.rival is None]),
        Heading(level=3, text="Against paper() and official(), over all groups"),
        Paragraph(
            text="Means over the clips that both variants have. On the scan, which has no corresponding vertices, "
            "its distance to the mesh takes the place of MPVE. Equal means are no larger; there is no tolerance."
        ),
    ]
    blocks.append(counts_grid(against) if against else Paragraph(text="No two variants could be compared."))
    failed = dict.fromkeys(item.metric for item in found if item.status == "not met")
    causes = tuple(f"{_title(name)}: {extra.unmet.get(name, UNKNOWN_CAUSE)}" for name in failed)
    if causes:
        blocks += [Heading(level=3, text="Likely causes where they are not met"), Bullets(lines=causes)]
    for group in dict.fromkeys(item.group for item in against):
        blocks += [
            Heading(level=3, text=group_title(group)),
            rivals_grid([item for item in against if item.group == group]),
        ]
        if (line := _truth_line(evidence, group)) is not None:
            blocks.append(Paragraph(text=line))
    return blocks


def _title(metric: str) -> str:
    return "held-out view" if metric == HELD_OUT else METRICS[metric].title


def _targets(evidence: Evidence, found: Sequence[Verdict]) -> list[Block]:
    expected = {
        group: mean.mean
        for group in groups_of(evidence)
        if (mean := expected_shape_error_of(evidence, group)) is not None
    }
    grid = targets_grid(found, expected)
    if not expected:
        return [grid]
    return [
        grid,
        Paragraph(
            text="Ideal, shape alone: the expected rigid MPVE of the shape at rest of the best estimate from the "
            "landmarks. The estimator knows the variance of their noise and the variation of faces, and uses the "
            "encoder's estimate of size (studies/common/ideal_estimator.py). Errors of expression come on top. The "
            "value is a mean over noise and people; single people may have less or more."
        ),
    ]


def _truth_line(evidence: Evidence, group: str) -> str | None:
    """Motion stability of the truth, and whether a fit as stable as required would still move as the truth does."""
    true = true_stability_of(evidence, group)
    if true is None:
        return None
    shares = [
        f"{true.mean / mean.mean:.2f} x that of {title}"
        for variant, title in ((PAPER, "paper()"), (OFFICIAL, "official()"), (BEST, "best()"))
        if (mean := group_mean(evidence, variant, group, "msi3d_vertices")) is not None and mean.mean
    ]
    line = f"MSI3D of the true vertices: {number(true.mean, None)}"
    return f"{line}; {', '.join(shares)}." if shares else f"{line}."


def _orderings(evidence: Evidence, extra: ReportExtras) -> list[Block]:
    found = orderings(evidence)
    blocks: list[Block] = [
        Heading(level=2, text="Orderings that the paper reports"),
        Paragraph(
            text="The claims are the paper's, about its own method, which paper() is. official() and best() are "
            "judged by the same claims for comparison."
        ),
    ]
    if not found:
        return [*blocks, Paragraph(text="No group has the variants and figures for any of them.")]
    blocks.append(claims_grid(found))
    failed = dict.fromkeys(item.claim for item in found if not all(item.holds.values()))
    texts = {item.claim: f"{item.source}, {item.text}" for item in found}
    causes = tuple(f"{texts[claim]}: {extra.remarks.get(claim, UNKNOWN_CAUSE)}" for claim in failed)
    if causes:
        blocks += [Heading(level=3, text="Likely causes where they do not hold"), Bullets(lines=causes)]
    for source in dict.fromkeys(item.source for item in found):
        blocks += [
            Heading(level=3, text=f"{source}, group by group"),
            orderings_grid([item for item in found if item.source == source]),
        ]
    return blocks


def _origin(evidence: Evidence, extra: ReportExtras) -> list[Block]:
    settings = ", ".join(f"{name} {value}" for name, value in asdict(evidence.settings).items())
    fits: dict[str, int] = {}
    for run in evidence.runs:
        if run.stop_reason is not None:
            fits[run.stop_reason] = fits.get(run.stop_reason, 0) + 1
    ends = ", ".join(f"{reason} {count}" for reason, count in sorted(fits.items()))
    workers = f"{evidence.workers} worker{'s' if evidence.workers > 1 else ''}"
    blocks: list[Block] = [
        Heading(level=2, text="How this was made"),
        Bullets(
            lines=(
                f"Command: {extra.command}",
                f"Hardware: {extra.cpu}; torch {extra.torch_version}, {workers} of one thread each. Fit times "
                "depend on these.",
                f"Settings: {settings}.",
                f"Encoder {evidence.encoder_hash}; head {evidence.head_hash}.",
                f"How fits ended: {ends or 'none was run'}.",
            )
        ),
    ]
    missing = (*(f"Absent: {line}" for line in evidence.absent), *left_out(evidence))
    blocks.append(Heading(level=3, text="What is missing"))
    blocks.append(Bullets(lines=missing) if missing else Paragraph(text="Nothing was left out."))
    return blocks
