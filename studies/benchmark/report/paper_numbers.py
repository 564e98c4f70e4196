"""The numbers of the paper that the report shows beside ours: Tables 2, S1, S2 and S3a of NeuFace (TMLR 2024).

They were measured with other clips, head model, encoder and units than ours: its CVD and MSI3D have no unit.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """One table, its numbers as printed; a dash where the paper has one."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    note: str = ""


DASH = "–"
_SINGLE = ("MSI3D L ↑", "MSI3D V ↑", "NME ↓")
_DATA_SETS = (
    *(f"MEAD {name}" for name in ("MSI3D L ↑", "MSI3D V ↑", "CVD ↓", "NME ↓")),
    *(f"VoxCeleb2 {name}" for name in _SINGLE),
    *(f"CelebV-HQ {name}" for name in _SINGLE),
)

PUBLISHED = (
    PublishedTable(
        name="2",
        title="Table 2 of the paper: quality of the annotations",
        columns=_DATA_SETS,
        rows=(
            (
                "direct fitting (Eq. 5)",
                ("0.034", "0.053", "0.192", "4.34", "0.034", "0.056", "3.32", "0.030", "0.047", "3.65"),
            ),
            (
                "encoder alone: DECA",
                ("0.011", "0.016", "0.209", "4.65", "0.028", "0.044", "4.78", "0.012", "0.018", "5.34"),
            ),
            (
                "NeuFace with DECA",
                ("0.206", "0.305", "0.103", "2.58", "0.095", "0.137", "2.19", "0.054", "0.074", "2.55"),
            ),
            (
                "encoder alone: EMOCA",
                ("0.010", "0.016", "0.199", "5.42", "0.003", "0.004", "4.77", "0.005", "0.007", "5.57"),
            ),
            (
                "NeuFace with EMOCA",
                ("0.209", "0.312", "0.104", "2.28", "0.028", "0.048", "2.38", "0.053", "0.077", "2.86"),
            ),
        ),
    ),
    PublishedTable(
        name="S1",
        title="Table S1 of the paper: terms of the objective",
        columns=_DATA_SETS,
        rows=(
            (
                "landmarks",
                ("0.015", "0.022", "0.333", "2.44", "0.001", "0.001", "2.71", "0.001", "0.003", "3.88"),
            ),
            (
                "landmarks + multi-view",
                ("0.015", "0.023", "0.110", "2.49", DASH, DASH, DASH, DASH, DASH, DASH),
            ),
            (
                "landmarks + temporal",
                ("0.176", "0.250", "0.294", "2.56", "0.095", "0.137", "2.19", "0.54", "0.074", "2.55"),
            ),
            ("all three", ("0.206", "0.305", "0.103", "2.58", DASH, DASH, DASH, DASH, DASH, DASH)),
            (
                "encoder alone: DECA",
                ("0.011", "0.016", "0.209", "4.65", "0.028", "0.044", "4.78", "0.012", "0.018", "5.34"),
            ),
        ),
        note="0.54 of landmarks + temporal on CelebV-HQ is as printed; Table 2 has 0.054 beside the same figures.",
    ),
    PublishedTable(
        name="S2",
        title="Table S2 of the paper: mean or median over the temporal window",
        columns=("MEAD subset CVD ↓", "MEAD subset NME ↓"),
        rows=(("mean", ("0.0981", "3.03")), ("median", ("0.0985", "3.09"))),
    ),
    PublishedTable(
        name="S3a",
        title="Table S3a of the paper: the photometric term",
        columns=("CVD ↓", "MSI3D L ↑", "MSI3D V ↑", "NME ↓"),
        rows=(
            ("NeuFace", ("0.103", "0.206", "0.305", "2.58")),
            ("NeuFace + 2 x photometric", ("0.106", "0.205", "0.299", "2.62")),
            ("NeuFace + 5 x photometric", ("0.112", "0.195", "0.282", "3.69")),
        ),
    ),
)
