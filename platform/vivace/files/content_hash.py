"""What a file or a folder holds, as one hash: what makes a run is told by content, wherever it lies."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

LARGE = 64 * 2**20
"""Bytes from which a file's hash is remembered: weights take a second for every gigabyte or two."""
REMEMBERED = "contents.json"
"""The file in the home folder that holds hashes of large files."""

_home: Path | None = None
_known: dict[str, str] = {}


def remember_in(home: Path) -> None:
    """From now on keep hashes of large files in a home folder, and know those that are kept there."""
    global _home
    _home = home
    with suppress(OSError, ValueError, TypeError):
        _known.update(json.loads((home / REMEMBERED).read_text(encoding="utf-8")))


def file_sha256(path: Path) -> str:
    """SHA-256 of all bytes of a file.

    That of a large file is computed once, and taken from memory while nothing has written to it: as long as device,
    inode, size and both times of change are the same.

    Raises:
        OSError: the file cannot be read.
    """
    state = path.stat()
    if state.st_size < LARGE:
        return _computed(path)
    key = f"{state.st_dev}-{state.st_ino}-{state.st_size}-{state.st_mtime_ns}-{state.st_ctime_ns}"
    if key not in _known:
        _known[key] = _computed(path)
        _keep()
    return _known[key]


def folder_sha256(folder: Path, patterns: Iterable[str] = ("**/*",)) -> str:
    """A hash of the names, inside the folder, and the contents of its files.

    Args:
        folder: whose own name and place do not count.
        patterns: of the files that count.

    Raises:
        OSError: a file cannot be read.
    """
    files = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    held = sorted((str(file.relative_to(folder)), file_sha256(file)) for file in files)
    return hashlib.sha256(json.dumps(held).encode()).hexdigest()


def _computed(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _keep() -> None:
    """Write what is known, where there is a home; a folder that cannot be written only costs time."""
    if _home is None or not _home.is_dir():
        return
    with suppress(OSError):
        half = _home / f"{REMEMBERED}.{os.getpid()}"
        half.write_text(json.dumps(_known), encoding="utf-8")
        half.replace(_home / REMEMBERED)
