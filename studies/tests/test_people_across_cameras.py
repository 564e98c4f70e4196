"""The study of people before several cameras runs, and its simulated people are matched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studies.people_across_cameras import Options, main


@pytest.mark.slow
def test_people_who_talk_are_matched_and_still_ones_are_not(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    main(Options(clips=1, presence=10, json=path))
    figures = json.loads(path.read_text())
    for name, counts in figures.items():
        assert counts["wrong"] == 0, name
        if "still" not in name and name != "presence alone":
            assert (counts["right"], counts["refused"]) == (2, 0), name
    assert figures["2 cameras, still, both stay"]["refused"] == 2
    assert figures["presence alone"]["right"] > 5
