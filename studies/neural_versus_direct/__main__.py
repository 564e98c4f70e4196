"""Neural re-parameterisation against direct fitting, measured on rendered people and on a real scan.

    python examples/neural_versus_direct.py --out study --scan path/to/menpo_james

The scan's folder holds one .obj with texture coordinates, its picture, and one .ljson with the 68 landmarks, in
millimetres, such as "james" of the menpo3d package. What is compared, and how, is said in
studies/neural_versus_direct/arms.py. An interrupted study goes on where it stopped: finished clips lie in
OUT/clips and are used again while the settings, the learning rates and the encoder's weights stay the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from neuface.io.atomic import atomic_path
from neuface.io.npz import write_json
from neuface.io.scans import read_scan
from neuface.models import load_model
from studies.common.kept_runs import kept_in
from studies.neural_versus_direct.report import markdown, tables
from studies.neural_versus_direct.study import FAST, StudySettings, run_study


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
    """Two small clips and few passes, to see that everything works; the figures mean nothing."""
    progress: bool = True
    """Show a progress bar."""


def main(options: Options) -> None:
    """Run what is not there yet, then write the tables."""
    settings = FAST if options.fast else StudySettings()
    if options.clips is not None:
        settings = replace(settings, clips=options.clips)
    scan = None if options.scan is None else read_scan(options.scan)
    study = run_study(
        settings, load_model("open"), scan, keep=kept_in(options.out / "clips"), progress=options.progress
    )
    report = markdown(study)
    write_json(options.out / "tables.json", tables(study))
    with atomic_path(options.out / "report.md") as temporary:
        temporary.write_text(report, encoding="utf-8")
    print(report)
    print(f"written to {options.out}: tables.json, report.md")


if __name__ == "__main__":
    main(tyro.cli(Options))
