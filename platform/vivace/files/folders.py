"""Folders that are there whole or not at all."""

from __future__ import annotations

import glob
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_or_none(folder: Path) -> Iterator[Path]:
    """A folder beside the one that is wanted, which takes its name when everything is written, or is removed.

    Raises:
        OSError: the wanted one holds something by then, or the disk is full.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield unfinished
        unfinished.chmod(0o755)  # a temporary folder is its owner's alone, and so is a file of safetensors
        for each in unfinished.rglob("*"):
            each.chmod(0o755 if each.is_dir() else 0o644)
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary folders that killed processes left beside a folder, `.NAME-` and eight characters more.

    Only for who holds the folder's lock: another process may be writing one.
    """
    for left in folder.parent.glob(f".{glob.escape(folder.name)}-????????"):
        shutil.rmtree(left, ignore_errors=True)
