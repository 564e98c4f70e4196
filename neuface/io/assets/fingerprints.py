"""Identification of files: SHA-256 of their bytes, and the hashes of published files."""

from __future__ import annotations

import hashlib
import os

from neuface.errors import InputError

PIECE_BYTES = 1 << 20
# First digits of the SHA-256 of the published files: 32 or 64 bits, enough to distinguish them from other versions.
PUBLISHED_SHA256 = {
    "landmark_embedding.npy": "8095348eeafce5a0",
    "mediapipe_landmark_embedding.npz": "88636303",
    "FLAME_masks.pkl": "ccefbe1a",
    "head_template.obj": "dd5bfbce",
    "l_eyelid.npy": "fa509971",
    "r_eyelid.npy": "dd78776f",
}


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal digits. Raises InputError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while piece := stream.read(PIECE_BYTES):
                digest.update(piece)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    return digest.hexdigest()


def is_as_published(name: str, sha256: str) -> bool | None:
    """Whether a file of that name has the known published content; None where no hash is known."""
    known = PUBLISHED_SHA256.get(name)
    return None if known is None else sha256.startswith(known)
