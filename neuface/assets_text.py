"""The report of `neuface assets` as lines of text."""

from __future__ import annotations

from neuface.assets_report import AssetsReport, AssetState
from neuface.io.assets.catalogue import ASSETS_VARIABLE
from neuface.io.assets.checks import FoundFile
from neuface.io.assets.converted import HOW_MADE


def report_text(report: AssetsReport) -> str:
    """What `neuface assets` prints: the folders, every file with its state, and whether each model can be loaded.

    Converted copies that do not exist are left out, because no user has to get them.
    """
    lines = [
        f"looked in {', '.join(report.folders)} (chosen by: {report.chosen_by})",
        f"another folder: --assets DIR, or the environment variable {ASSETS_VARIABLE}",
    ]
    for asset in report.assets:
        if not asset.files and asset.source == HOW_MADE:
            continue
        lines += ["", f"{asset.what}{_users(asset)}"]
        lines += [line for file in asset.files for line in _file_lines(file)]
        if not asset.files:
            lines.append(f"  not there   {' or '.join(asset.names[:2])}")
            lines.append(f"              from {asset.source}")
    lines += ["", "models"]
    lines += [f"  {state.model:<6} {state.problem or 'can be loaded'}" for state in report.models]
    return "\n".join(lines)


def _users(asset: AssetState) -> str:
    uses = [("needed by", asset.needed_by), ("used by", asset.useful_for)]
    listed = "; ".join(f"{how} {', '.join(names)}" for how, names in uses if names)
    return f" ({listed})" if listed else ""


def _file_lines(file: FoundFile) -> list[str]:
    facts = "   ".join(part for part in (file.version, file.sha256 and f"sha256 {file.sha256}") if part)
    lines = [f"  {'unusable' if file.problem else 'good':<11} {file.path}"]
    lines += [f"{'':14}{line}" for line in (facts, file.problem) if line]
    return lines
