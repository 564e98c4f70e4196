"""A sample of the damaged files of tools/damage_fuzz.py: each is read, or refused by an error that names it."""

from __future__ import annotations

from pathlib import Path

from tools.damage_fuzz import DAMAGES, make_damaged, make_seeds, run


def test_intact_seeds_are_read_and_damaged_ones_do_no_harm(tmp_path: Path) -> None:
    for name in ("seeds", "damaged"):
        (tmp_path / name).mkdir()
    seeds = make_seeds(tmp_path / "seeds")
    counts, bad = run(seeds)
    assert bad == []
    assert counts["refused"] == 1  # the sound without pictures
    counts, bad = run(make_damaged(seeds, tmp_path / "damaged", 6 * len(DAMAGES), seed=1))
    assert bad == []
    assert min(counts["read"], counts["refused"]) > 5
