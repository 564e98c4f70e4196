"""The report of a small study: complete, self-contained, and readable by machines."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from matplotlib.image import imread
from small_evidence import PEOPLE, four_camera_runs, held_out_runs, small_evidence

from neuface.errors import InputError
from studies.benchmark.command import command_line, gradient_map_findings
from studies.benchmark.paper_claims import CLAIMS, SPREAD_CLAIM
from studies.benchmark.records import Evidence
from studies.benchmark.report.explanations import LIKELY_CAUSES
from studies.benchmark.report.figures import CAPTIONS, draw_figures, mpve_bars, steadiness_scatter
from studies.benchmark.report.grids import best_places
from studies.benchmark.report.paper_numbers import PUBLISHED
from studies.benchmark.report.sections import ReportExtras, html, markdown, report_pictures
from studies.benchmark.settings import FAST, BenchmarkSettings
from studies.common.metrics import METRICS
from studies.common.report.documents import Cell, Grid, Picture, number, png_bytes, to_html, to_markdown
from studies.gradient_maps.maps import MapFigures

VOID = {"meta", "img"}


class Page(HTMLParser):
    """Remembers tags, tables and text; fails on tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[int]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append(0)
        elif tag in ("td", "th"):
            self.tables[-1][-1] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    return page


def some_picture(height: int = 8, width: int = 12) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    small = small_evidence()
    return replace(small, runs=(*small.runs, *four_camera_runs()), held_out=held_out_runs())


@pytest.fixture(scope="module")
def extra() -> ReportExtras:
    return ReportExtras(
        torch_version="9.9",
        cpu="A <processor>",
        command="python -m studies.benchmark --out study",
        pictures=(Picture(name="gradients", caption="Gradient maps", image=some_picture()),),
        remarks={"nme_percent_against_direct": "noise is fitted", "multiview_cvd": "never to be seen"},
        unmet={"nme_percent": "a model is no scatter plot", "scan_mm": "never to be seen"},
    )


@pytest.fixture(scope="module")
def figures() -> dict[str, np.ndarray]:
    return {"mpve": some_picture(), "steadiness": some_picture(5, 7)}


def rows_of(text: str) -> list[list[list[str]]]:
    """The tables of a Markdown text, cell by cell."""
    tables: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line)
            assert cells[0] == cells[-1] == ""
            tables[-1].append([cell.strip() for cell in cells[1:-1]])
        elif tables[-1]:
            tables.append([])
    return [table for table in tables if table]


# --- The whole report


def test_the_page_is_self_contained(
    evidence: Evidence, figures: dict[str, np.ndarray], extra: ReportExtras
) -> None:
    text = html(evidence, figures, extra)
    page = page_of(text)
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object"} == set()
    for _, attributes in page.tags:
        assert all(
            (attributes.get(name) or "#").startswith(("#", "data:")) for name in ("href", "src", "srcset")
        )
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    sources = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert len(sources) == 3
    for source, picture in zip(sources, (*figures.values(), extra.pictures[0].image), strict=True):
        data = base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True)
        np.testing.assert_array_equal(np.round(255 * imread(BytesIO(data))[..., :3]), picture)
    for table in page.tables:
        assert len(set(table)) == 1
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = {(attributes["href"] or "")[1:] for tag, attributes in page.tags if tag == "a"}
    assert links == anchors != set()


def test_markdown_and_page_have_the_same_content(
    evidence: Evidence, figures: dict[str, np.ndarray], extra: ReportExtras
) -> None:
    text, page = markdown(evidence, figures, extra), page_of(html(evidence, figures, extra))
    tables = rows_of(text)
    for table in tables:
        assert len({len(row) for row in table}) == 1
    # The line of dashes is Markdown's own.
    assert [[len(row) for row in table[1:]] for table in tables] == page.tables
    for said in (
        "A <processor>",
        "torch 9.9",
        "python -m studies.benchmark --out study",
        "e" * 64,
        "h" * 64,
        "people 2",
    ):
        assert said in text
        assert said in page.text
    assert "some <clip> | of nobody" in page.text
    assert "The data differ" in text
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text)
    assert pictures == list(report_pictures(figures, extra))
    assert pictures == ["figures/mpve.png", "figures/steadiness.png", "figures/gradients.png"]


def test_the_summary_comes_first_with_the_best_in_bold(evidence: Evidence, extra: ReportExtras) -> None:
    summary = rows_of(markdown(evidence, {}, extra))[0]
    place = summary[0].index("MPVE, rigid (mm) ↓, 1 group")
    column = {row[0]: row[place] for row in summary[2:]}
    assert column == {
        "encoder alone": "5.00",
        "direct fitting (Eq. 5)": "3.00",
        "paper()": "3.00",
        "official()": "4.00",
        "official(), our step size": "2.00",
        "neural()": "2.00",
        "best()": "**1.00**",
    }


def test_means_have_their_spread_clips_ties_and_truth(evidence: Evidence, extra: ReportExtras) -> None:
    text = markdown(evidence, {}, extra)
    assert "**1.00** ± 0.71" in text
    # Both 0.40; and a figure that one of two clips has.
    assert text.count("**0.40** ± 0.00") >= 2
    assert "**0.90** (1 of 2 clips)" in text
    motion = next(
        table
        for table in rows_of(text)
        if table[-1][0] == "the truth" and "lip opening" in " ".join(table[0])
    )
    assert "4.00 ± 1.41" in motion[-1]


def test_failed_requirements_and_claims_are_listed(evidence: Evidence, extra: ReportExtras) -> None:
    text = markdown(evidence, {}, extra)
    assert "Fixed targets: 2 of 6 requirements met, 3 not measured." in text
    assert (
        "Not met: Real session, four calibrated cameras, 3D landmarks, median (mm) at most 4.0; measured 4.50."
        in text
    )
    flat = [" | ".join(row) for table in rows_of(text) for row in table]
    assert "NME, 68 points (%) no larger than of paper() | not met | 1.600 | 1.500 | +0.100 | 1.07" in flat
    assert any(
        "paper(): does not hold; official(): does not hold; best(): does not hold" in row for row in flat
    )
    # On the people none holds, on the real clip those of paper() and best(); official() was not run there.
    assert "Table 2: NME lower than of direct fitting | 1 of 2 | 0 of 1 | 1 of 2" in flat
    assert "Table 2, NME lower than of direct fitting: noise is fitted" in text
    assert "Fig. 4, MPVE lower than of direct fitting: We do not know why." in text
    assert "- NME, 68 points: a model is no scatter plot" in text
    assert "- 3D landmarks, median: We do not know why." in text
    # A cause is told only of what does not hold, or is not met.
    assert "never to be seen" not in text


def test_the_ideal_estimator_is_listed_beside_the_targets(evidence: Evidence, extra: ReportExtras) -> None:
    found = {
        (row[0], row[1]): row[2:]
        for table in rows_of(markdown(evidence, {}, extra))
        if table[0][-1] == "ideal, shape alone"
        for row in table[2:]
    }
    people = found["Rendered people, three cameras, clean", "MPVE, rigid (mm) at most 1.0"]
    assert people == ["1.00", "met", "1.25"]
    assert {row[-1] for (group, _), row in found.items() if "people, three cameras" not in group} == {""}
    unknown = markdown(replace(evidence, expected_shape_error_mm={}), {}, extra)
    assert "Ideal, shape alone" not in unknown


def test_an_empty_benchmark_is_reported_as_such(extra: ReportExtras) -> None:
    nothing = replace(small_evidence(), runs=(), true_msi3d_vertices={}, absent=())
    text = markdown(nothing, draw_figures(nothing), extra)
    page_of(html(nothing, {}, extra))
    assert "No group was measured." in text
    assert text.count("left out, no clip of this group was run") == 8
    assert "6 not measured" in text


# --- Parts


@pytest.mark.parametrize(
    ("values", "better", "digits", "best"),
    [
        ([2.0, 1.004, 1.0, None], "less", 2, {1, 2}),
        ([2.0, 1.006, 1.0], "less", 2, {2}),
        ([2.0, 3.0], "more", 1, {1}),
        ([0.9, 1.1, 1.3], "one", 2, {0, 1}),
        ([1.0, 2.0], None, 1, set()),
        ([1.0, None], "less", 1, set()),
        ([123.4, 123.0], "more", None, {0, 1}),
    ],
)
def test_the_best_are_those_printed_best(
    values: list[float | None], better: str | None, digits: int | None, best: set[int]
) -> None:
    assert best_places(values, better, digits) == best  # pyright: ignore[reportArgumentType]


def test_numbers_are_printed_without_powers_of_ten() -> None:
    printed = [number(value, None) for value in (0.0, 0.01234, 1.234, 12.34, 123.4, 1234567.0)]
    assert printed == ["0", "0.0123", "1.23", "12.3", "123", "1234567"]
    assert number(None, 2) == ""


def test_every_column_has_a_unit() -> None:
    assert all(metric.unit for metric in METRICS.values())


def test_tables_of_the_paper_are_rectangular_and_numbers() -> None:
    for table in PUBLISHED:
        for _, numbers in table.rows:
            assert len(numbers) == len(table.columns)
            assert all(text == "–" or float(text) > 0 for text in numbers)


def test_text_is_escaped_and_rows_fit_their_header() -> None:
    grid = Grid(header=("", "a|b"), rows=((Cell(text="x"), Cell(text="<b>1</b> | 2", bold=True)),))
    assert "| x | **<b>1</b> \\| 2** |" in to_markdown([grid], picture_folder="figures")
    page = page_of(to_html([grid]))
    assert "<b>1</b> | 2" in page.text
    assert "b" not in {tag for tag, _ in page.tags}
    with pytest.raises(InputError, match="2 columns has a row of 1"):
        Grid(header=("", "a"), rows=((Cell(text="x"),),))


@pytest.mark.parametrize("name", ["../a", "a.png", "", "A"])
def test_unsafe_picture_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="lower-case letters"):
        Picture(name=name, caption="", image=some_picture())


def test_a_png_is_lossless() -> None:
    picture = some_picture()
    np.testing.assert_array_equal(np.round(255 * imread(BytesIO(png_bytes(picture)))[..., :3]), picture)


# --- Figures


def test_figures_without_data_are_left_out(evidence: Evidence) -> None:
    drawn = draw_figures(evidence)
    assert list(drawn) == list(CAPTIONS)
    for picture in drawn.values():
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    real = replace(evidence, runs=tuple(run for run in evidence.runs if run.group == "real_1view"))
    assert draw_figures(real) == {}


def test_the_length_of_a_bar_is_its_value(evidence: Evidence) -> None:
    """The bar of best(), in its own colour, grows against the others with its error."""

    def ink(value: float) -> int:
        runs = tuple(
            replace(run, scores=replace(run.scores, mpve_mm=value)) if run.variant == "best" else run
            for run in evidence.runs
            if run.group == PEOPLE
        )
        picture = mpve_bars(replace(evidence, runs=runs))
        assert picture is not None
        return int((picture == (0xD5, 0x5E, 0x00)).all(-1).sum())

    assert ink(4.0) == pytest.approx(4 * ink(1.0), rel=0.05)


def test_a_stability_of_zero_is_left_out_of_the_logarithmic_figure(evidence: Evidence) -> None:
    runs = tuple(replace(run, scores=replace(run.scores, msi3d_vertices=0.0)) for run in evidence.runs)
    assert steadiness_scatter(replace(evidence, runs=runs)) is None


def test_every_cause_belongs_to_a_claim() -> None:
    known = {*(claim.name for claim in CLAIMS), SPREAD_CLAIM}
    assert set(LIKELY_CAUSES) <= known


def test_the_gradient_maps_are_judged_by_their_figures() -> None:
    def figures(moved: float, alike: float | None) -> MapFigures:
        return MapFigures(
            mean_mm=1.0,
            shape_share=0.5,
            moved_share=moved,
            similarity=0.0,
            pattern_similarity=alike,
            common_pull_similarity=0.0,
        )

    as_claimed = gradient_map_findings(figures(0.31, 0.98), figures(0.78, 0.83))
    assert "0.31 / 0.78, so the first holds; mean" in as_claimed
    assert as_claimed.endswith("0.98 / 0.83, so the second holds.")
    reverse = gradient_map_findings(figures(0.78, 0.83), figures(0.31, 0.98))
    assert "so the first does not hold;" in reverse
    assert reverse.endswith("so the second does not hold.")
    assert gradient_map_findings(figures(0.3, None), figures(0.7, None)).endswith("needs several images.")


def test_the_reported_command_repeats_the_benchmark() -> None:
    assert command_line(FAST, with_data=False) == "python -m studies.benchmark --out DIR --fast"
    settings = BenchmarkSettings(people=2, four_camera_frames=0, held_out=False)
    assert command_line(settings, with_data=True) == (
        "python -m studies.benchmark --out DIR --data DATA --settings.people 2 --settings.four-camera-frames 0 "
        "--settings.no-held-out"
    )
