"""The order in which people read file names: `2.png` before `10.png`."""

from __future__ import annotations

import re


def natural_key(name: str) -> list[tuple[bool, int, str]]:
    """The key by which names with numbers are sorted.

    >>> sorted(["10.png", "2.png", "a1.png"], key=natural_key)
    ['2.png', '10.png', 'a1.png']
    """
    parts = re.split(r"(\d+)", name)
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts if part]
