"""Results of long computations, kept as JSON files so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from neuface.io.npz import write_json

Json = dict[str, Any]


def kept_in(folder: Path) -> Callable[[str, Json, Callable[[], Json]], Json]:
    """`keep(name, key, make)`: what `make()` gave for an equal key before, else what it gives now.

    One file per name. A file that is damaged or was made for another key is made again.
    """

    def keep(name: str, key: Json, make: Callable[[], Json]) -> Json:
        path = folder / f"{name}.json"
        # As it will be read again: tuples become lists.
        wanted = json.loads(json.dumps(key))
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            stored = {}
        if isinstance(stored, dict) and stored.get("key") == wanted and "result" in stored:
            return stored["result"]
        result = make()
        write_json(path, {"key": wanted, "result": result})
        return json.loads(json.dumps(result))

    return keep
