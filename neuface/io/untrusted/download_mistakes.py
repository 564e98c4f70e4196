"""What lies under a file's name when its download went wrong."""

from __future__ import annotations

MEANINGS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; fetch it with: git lfs pull",
    b"<!doctype": "a web page, not the file itself; log in and download it again",
    b"<html": "a web page, not the file itself; log in and download it again",
    b"<?xml": "a web page, not the file itself; log in and download it again",
}


def placeholder(start: bytes) -> str:
    """What a file is in place of what its name says, and what to do, by its first 64 bytes; empty if it is none."""
    beginning = start[:64].lstrip().lower()
    return next((meaning for sign, meaning in MEANINGS.items() if beginning.startswith(sign)), "")
