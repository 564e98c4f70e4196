"""Neural re-parameterisation against free parameters, measured on rendered people and on a real scan.

    python -m studies.neural_versus_direct --out study --scan path/to/menpo_james

The scan's folder contains one .obj with texture coordinates, its picture, and one .ljson with the 68 landmarks, in
millimetres, such as "james" of the menpo3d package. studies/neural_versus_direct/variants.py explains what is
compared, and how. An interrupted study continues where it stopped: finished clips lie in OUT/clips and are used again
while the settings, the learning rates, the encoder's weights and the code that computes stay the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from neuface.io.atomic import write_json, write_text
from neuface.io.scans import read_scan
from neuface.models import load_model
from studies.common.kept_runs import kept_in
from studies.neural_versus_direct.report import markdown, tables
from studies.neural_versus_direct.study import FAST, ComparisonSettings, run_study


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to run."""

    out: Path
    """Folder for tables.json and report.md, and for finished clips."""
    scan: Path | None = None
    """Folder of a textured scan in millimetres; without it there are rendered people only."""
    clips: int | None = None
    """Rendered clips to compare, half of them from one camera and half from three; 20 unless --fast."""
    fast: bool = False
    """Two small clips and few passes, which show that everything works; the figures mean nothing."""
    progress: bool = True
    """Show a progress bar."""


def main(options: Options) -> None:
    """Run what is missing, then write the tables."""
    settings = FAST if options.fast else ComparisonSettings()
    if options.clips is not None:
        settings = replace(settings, clips=options.clips)
    scan = None if options.scan is None else read_scan(options.scan)
    study = run_study(
        settings, load_model("open"), scan, keep=kept_in(options.out / "clips"), progress=options.progress
    )
    report = markdown(study)
    write_json(options.out / "tables.json", tables(study))
    write_text(options.out / "report.md", report)
    print(report)
    print(f"written to {options.out}: tables.json, report.md")


if __name__ == "__main__":
    main(tyro.cli(Options, prog="python -m studies.neural_versus_direct"))
