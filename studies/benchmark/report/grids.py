"""The evidence's tables, verdicts and orderings as grids for people: rounded, with units, the best in bold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from studies.benchmark.aggregate import held_out_rows, identity_spread_curve, variant_title
from studies.benchmark.paper_claims import ClaimCount, Ordering, count_orderings
from studies.benchmark.records import Evidence
from studies.benchmark.report.paper_numbers import DASH, PublishedTable
from studies.benchmark.requirements import Verdict, requirement
from studies.benchmark.tables import SummaryColumn, Table
from studies.benchmark.variants import BEST, MAIN, OFFICIAL
from studies.common.metrics import METRICS, Better, Mean, group_title
from studies.common.report.documents import (
    ARROWS,
    Cell,
    Colour,
    Grid,
    column_title,
    number,
    significant_digits,
)


def _finer(digits: int | None) -> int | None:
    """One digit more than in the tables: a comparison may turn on less than they show."""
    return None if digits is None else digits + 1


def best_places(values: Sequence[float | None], better: Better | None, digits: int | None) -> set[int]:
    """Which values are best as they are printed: equal ones tie. None where fewer than two can be compared."""
    shown = {place: float(number(value, digits)) for place, value in enumerate(values) if value is not None}
    if better is None or len(shown) < 2:
        return set()
    cost = {"less": lambda value: value, "more": lambda value: -value, "one": lambda value: abs(value - 1)}
    costs = {place: round(cost[better](value), 9) for place, value in shown.items()}
    return {place for place, value in costs.items() if value == min(costs.values())}


def variant_grid(table: Table, metrics: Sequence[str]) -> Grid | None:
    """One row per variant, the given metrics as columns; None where the table has none of them."""
    chosen = [METRICS[name] for name in metrics if name in table.metrics]
    if not chosen:
        return None
    columns = []
    for metric in chosen:
        means = [row.means[metric.name] for row in table.rows]
        best = best_places([mean and mean.mean for mean in means], metric.better, metric.digits)
        columns.append(
            [_mean_cell(mean, metric.digits, table.clips, place in best) for place, mean in enumerate(means)]
        )
    rows = [(Cell(text=row.title), *cells) for row, *cells in zip(table.rows, *columns, strict=True)]
    if table.true_msi3d_vertices is not None and "msi3d_vertices" in metrics:
        truth = {"msi3d_vertices": table.true_msi3d_vertices}
        cells = [_mean_cell(truth.get(metric.name), metric.digits, table.clips, False) for metric in chosen]
        rows.append((Cell(text="the truth"), *cells))
    return Grid(header=("", *map(column_title, chosen)), rows=tuple(rows))


def summary_grid(columns: Sequence[SummaryColumn]) -> Grid:
    """One row per main variant, means over groups."""
    header, cells = [""], []
    variants = [variant for variant in MAIN if any(variant.name in column.means for column in columns)]
    for column in columns:
        metric = METRICS[column.metric]
        count = f"{len(column.groups)} group{'s' if len(column.groups) > 1 else ''}"
        header.append(f"{column_title(metric)}, {count}")
        values = [column.means.get(variant.name) for variant in variants]
        best = best_places(values, metric.better, metric.digits)
        cells.append(
            [
                Cell(text=number(value, metric.digits), bold=place in best)
                for place, value in enumerate(values)
            ]
        )
    rows = tuple(
        (Cell(text=variant.title), *of_variant) for variant, *of_variant in zip(variants, *cells, strict=True)
    )
    return Grid(header=tuple(header), rows=rows)


def published_grid(table: PublishedTable) -> Grid:
    """A table of the paper as printed, the best of each column in bold."""
    best = []
    for place, title in enumerate(table.columns):
        printed = [numbers[place] for _, numbers in table.rows]
        values = [None if text == DASH else float(text) for text in printed]
        best.append(best_places(values, "more" if title.endswith("↑") else "less", 4))
    rows = tuple(
        (
            Cell(text=name),
            *(Cell(text=text, bold=row in best[place]) for place, text in enumerate(numbers)),
        )
        for row, (name, numbers) in enumerate(table.rows)
    )
    return Grid(
        header=(
            "",
            *(title.replace(" ↑", ARROWS["more"]).replace(" ↓", ARROWS["less"]) for title in table.columns),
        ),
        rows=rows,
    )


def spread_grid(evidence: Evidence, groups: Sequence[str]) -> Grid | None:
    """Table S3b: spread of the identity codes at the first and the last pass, by variant and group."""
    curves = {
        (variant.name, group): curve
        for variant in MAIN
        for group in groups
        if (curve := identity_spread_curve(evidence, variant.name, group))
    }
    chosen = [group for group in groups if any(group == of for _, of in curves)]
    variants = [variant for variant in MAIN if any(variant.name == of for of, _ in curves)]
    if not curves:
        return None
    rows = tuple(
        (Cell(text=variant.title), *(_spread_cell(curves.get((variant.name, group), ())) for group in chosen))
        for variant in variants
    )
    return Grid(header=("", *(f"{group_title(group)} (code units)" for group in chosen)), rows=rows)


def held_out_grid(evidence: Evidence, *, of_head: bool) -> Grid | None:
    """One row per variant and clip, one column per camera left out."""
    found = held_out_rows(evidence)
    if not found:
        return None
    views = max((row.views for row in found), key=len)
    several = len({row.clip for row in found}) > 1
    values = [
        [row.mean_head_percent, *row.nme51_head_percent]
        if of_head
        else [row.mean_percent, *row.nme51_percent]
        for row in found
    ]
    padded = [[*row, *[None] * (len(views) + 1 - len(row))] for row in values]
    best = [best_places(column, "less", 2) for column in zip(*padded, strict=True)]
    rows = tuple(
        (
            Cell(text=f"{row.clip}: {variant_title(row.variant)}" if several else variant_title(row.variant)),
            *(Cell(text=number(value, 2), bold=place in best[column]) for column, value in enumerate(of_row)),
        )
        for place, (row, of_row) in enumerate(zip(found, padded, strict=True))
    )
    return Grid(header=("", "mean (%) ↓", *(f"{view} (%) ↓" for view in views)), rows=rows)


def targets_grid(found: Sequence[Verdict], expected_shape_error_mm: Mapping[str, float]) -> Grid:
    """The fixed targets: asked, measured, met or not; beside vertex errors, what an ideal estimator expects.

    Args:
        expected_shape_error_mm: by group, where it is known.
    """
    rows = tuple(
        (
            Cell(text=group_title(verdict.group)),
            Cell(text=requirement(verdict)),
            Cell(text=number(verdict.best, 2) or "–"),
            _status_cell(verdict),
            Cell(text=_expected(verdict, expected_shape_error_mm)),
        )
        for verdict in found
    )
    header = ("", "required", "best()", "verdict", "ideal, shape alone")
    return Grid(header=header, rows=rows, words=True)


def _expected(verdict: Verdict, shape_error_mm: Mapping[str, float]) -> str:
    return number(shape_error_mm.get(verdict.group), 2) if verdict.metric == "mpve_mm" else ""


def rivals_grid(found: Sequence[Verdict]) -> Grid:
    """`best()` against its rivals on one group."""
    rows = []
    for verdict in found:
        digits = METRICS[verdict.metric].digits
        difference = "" if verdict.difference is None else f"{verdict.difference:+.{3 if digits else 2}f}"
        finer = _finer(digits)
        figures = (
            number(verdict.best, finer) or "–",
            number(verdict.other, finer) or "–",
            difference,
            number(verdict.ratio, 2),
        )
        rows.append(
            (Cell(text=requirement(verdict)), _status_cell(verdict), *(Cell(text=text) for text in figures))
        )
    header = ("required", "verdict", variant_title(BEST), "the other", "difference", "ratio")
    return Grid(header=header, rows=tuple(rows), words=True)


def counts_grid(found: Sequence[Verdict]) -> Grid:
    """How many requirements are met, by what is required, and where they are not."""
    rows = []
    for key in dict.fromkeys((verdict.metric, verdict.kind, verdict.rival) for verdict in found):
        members = [verdict for verdict in found if (verdict.metric, verdict.kind, verdict.rival) == key]
        failed = [group_title(verdict.group) for verdict in members if verdict.status == "not met"]
        met = sum(verdict.status == "met" for verdict in members)
        missing = sum(verdict.status == "not measured" for verdict in members)
        rows.append(
            (
                Cell(text=requirement(members[0])),
                Cell(text=f"{met} of {len(members)}", verdict="bad" if failed else "good" if met else None),
                Cell(text="; ".join(failed) or "–"),
                Cell(text=str(missing) if missing else "–"),
            )
        )
    header = ("required", "met on groups", "not met on", "not measured")
    return Grid(header=header, rows=tuple(rows), words=True)


def claims_grid(found: tuple[Ordering, ...]) -> Grid:
    """On how many groups each claim of the paper holds: for paper() and its variants, official() and best()."""
    counts = count_orderings(found)
    rows = []
    for claim in dict.fromkeys(count.claim for count in counts):
        members = [count for count in counts if count.claim == claim]
        own = [count for count in members if count.variant not in (OFFICIAL, BEST)]
        others = [[count for count in members if count.variant == variant] for variant in (OFFICIAL, BEST)]
        first = members[0]
        rows.append(
            (Cell(text=f"{first.source}: {first.text}"), *(_count_cell(chosen) for chosen in (own, *others)))
        )
    header = ("holds on groups", "paper(), its variants", variant_title(OFFICIAL), variant_title(BEST))
    return Grid(header=header, rows=tuple(rows), words=True)


def orderings_grid(found: Sequence[Ordering]) -> Grid:
    """The claims of one source, group by group, with the figures."""
    rows = []
    for item in found:
        metric = METRICS.get(item.metric)
        digits = 3 if metric is None else _finer(metric.digits)
        figures = "; ".join(
            f"{variant_title(variant)} {number(value, digits)}" for variant, value in item.figures.items()
        )
        answers = "; ".join(
            f"{variant_title(variant)}: {'holds' if holds else 'does not hold'}"
            for variant, holds in item.holds.items()
        )
        unit = "code units" if metric is None else metric.unit
        # The claims are about the paper's method: official() and best() do not colour the cell.
        own = [holds for variant, holds in item.holds.items() if variant not in (OFFICIAL, BEST)]
        rows.append(
            (
                Cell(text=group_title(item.group)),
                Cell(text=item.text),
                Cell(text=figures, note=f"({unit})"),
                Cell(text=answers, verdict=("good" if all(own) else "bad") if own else None),
            )
        )
    return Grid(header=("", "claim", "our figures", "verdict"), rows=tuple(rows), words=True)


def _count_cell(counts: Sequence[ClaimCount]) -> Cell:
    if not counts:
        return Cell(text="–")
    named = len(counts) > 1
    text = "; ".join(
        f"{f'{variant_title(count.variant)}: ' if named else ''}{count.holds} of {count.groups}"
        for count in counts
    )
    held, asked = sum(count.holds for count in counts), sum(count.groups for count in counts)
    return Cell(text=text, verdict="good" if held == asked else "bad" if held == 0 else None)


def _status_cell(verdict: Verdict) -> Cell:
    colours: dict[str, Colour] = {"met": "good", "not met": "bad"}
    return Cell(text=verdict.status, verdict=colours.get(verdict.status))


def _spread_cell(curve: Sequence[float]) -> Cell:
    if not curve:
        return Cell()
    change = f"{100 * (curve[-1] / curve[0] - 1):+.0f} %" if curve[0] else ""
    return Cell(text=f"{number(curve[0], 3)} → {number(curve[-1], 3)}", note=change)


def _mean_cell(mean: Mean | None, digits: int | None, clips: int, bold: bool) -> Cell:
    if mean is None:
        return Cell()
    shown = significant_digits(mean.mean) if digits is None else digits
    notes = [] if mean.stdev is None else [f"± {number(mean.stdev, shown)}"]
    if mean.clips < clips:
        notes.append(f"({mean.clips} of {clips} clips)")
    return Cell(text=number(mean.mean, digits), note=" ".join(notes), bold=bold)
