"""Files that a failed download leaves under the name of the wanted one."""

from __future__ import annotations

MEANINGS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; fetch it with: git lfs pull",
    b"<!doctype": "a web page, not the file itself; log in and download it again",
    b"<html": "a web page, not the file itself; log in and download it again",
    b"<?xml": "a web page, not the file itself; log in and download it again",
}


def placeholder(start: bytes) -> str:
    """What a file is instead of the wanted one, and what to do, by its first 64 bytes; empty if it may be the wanted
    one.

    >>> placeholder(b"<!DOCTYPE html>")
    'a web page, not the file itself; log in and download it again'
    """
    beginning = start[:64].lstrip().lower()
    return next((meaning for sign, meaning in MEANINGS.items() if beginning.startswith(sign)), "")
