"""Results of long computations, kept as JSON files so that an interrupted study continues where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from neuface.io.atomic import write_json

Json = dict[str, Any]
Keep = Callable[[str, Json, Callable[[], Json]], Json]
"""`keep(name, key, make)` returns the object kept under `name` if it was made for an equal `key`; else it calls
`make()` and keeps what that returns."""


def kept_in(folder: Path) -> Keep:
    """A `Keep` that has one file per name. A file that is damaged or was made for another key is made again."""

    def keep(name: str, key: Json, make: Callable[[], Json]) -> Json:
        path = folder / f"{name}.json"
        # JSON turns tuples into lists, so the key is compared as it will be read again.
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


def keep_nothing(name: str, key: Json, make: Callable[[], Json]) -> Json:
    """A `Keep` that makes everything anew."""
    return make()
