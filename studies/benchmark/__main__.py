"""Compare the encoder alone, direct fitting and all presets on clips with known truth and on real ones.

python -m studies.benchmark --out DIR --data DIR [--fast] [--workers N]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from neuface.errors import InputError, NeufaceError
from studies.benchmark.command import COMMAND, command_line, run_benchmark
from studies.benchmark.settings import FAST, BenchmarkSettings


@dataclass(frozen=True, kw_only=True)
class Options:
    """Compare the encoder alone, direct fitting and all presets on clips with known truth and on real ones."""

    out: Path
    """Folder for tables.json, report.md, report.html, figures, and finished jobs: run it again to continue."""
    data: Path | None = None
    """Folder of real clips and a scan (studies/benchmark/README.md); without it there are rendered people only."""
    fast: bool = False
    """A clip of every kind, without ablations: 12 minutes on two cores, with --data."""
    workers: int = 2
    """Clips that are fitted side by side, one thread each."""
    progress: bool = True
    """Show a progress bar."""
    settings: BenchmarkSettings = field(default_factory=BenchmarkSettings)

    def run(self) -> None:
        if self.fast and self.settings != BenchmarkSettings():
            raise InputError("--fast has settings of its own: give either --fast or --settings")
        settings = FAST if self.fast else self.settings
        command = command_line(settings, with_data=self.data is not None)
        evidence = run_benchmark(
            self.out, settings, self.data, workers=self.workers, command=command, progress=self.progress
        )
        for line in evidence.absent:
            print(f"absent: {line}")
        print(f"written to {self.out}: report.html, report.md, tables.json, figures")


def main(arguments: list[str] | None = None) -> None:
    """Run the command. An error that the user can mend is one line, with exit status 2."""
    options = tyro.cli(Options, prog=COMMAND, args=arguments)
    try:
        options.run()
    except NeufaceError as error:
        print(f"{COMMAND}: error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
