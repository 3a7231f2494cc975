"""Files and folders that travel: stored by the hash of all they hold, and laid out on whichever machine needs them.

A tree is an artifact that lists its files, each an artifact too. `artifact:HASH/NAME` stands for it where a path may
stand, so that what is asked for can be made on a machine that has no folder in common with the one that asks.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any

from vivace.errors import VivaceError
from vivace.files.folders import whole_or_none
from vivace.store.artifacts import Artifacts

_REFERENCE = re.compile(r"artifact:([0-9a-f]{64})/([^/]+)")
FILES = "files"
LONGEST_LIST = 2**28
"""Bytes of a tree's list; a million files take some 200 MB."""


def references(value: Any) -> set[str]:
    """The hashes of all trees that a spec, as it is stored, stands upon."""
    if isinstance(value, dict):
        return {found for each in value.values() for found in references(each)}
    if isinstance(value, list):
        return {found for each in value for found in references(each)}
    return {found[1] for found in _REFERENCE.finditer(value)} if isinstance(value, str) else set()


def members(artifacts: Artifacts, sha256: str) -> set[str]:
    """The hashes of the files that a tree lists.

    Raises:
        VivaceError: it is missing, damaged or no tree.
        IncompleteError: the store does not answer.
    """
    return set(_files(artifacts, sha256).values())


def store_tree(artifacts: Artifacts, path: Path, beside: Sequence[Path] = ()) -> str:
    """Store a file or a folder with all it holds; what stands for it in place of its path.

    Args:
        artifacts: where it is stored.
        path: of the file or folder.
        beside: further files, in its folder at any depth, that it makes no sense without.

    Raises:
        VivaceError: a file cannot be read or stored.
        IncompleteError: the store does not answer.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 -- a link's name counts, not what it leads to
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    listed = {each.relative_to(path.parent).as_posix(): artifacts.put_file(each) for each in files}
    for each in beside:
        listed[each.resolve().relative_to(path.parent.resolve()).as_posix()] = artifacts.put_file(each)
    return in_tree(artifacts, listed, path.name)


def in_tree(artifacts: Artifacts, files: Mapping[str, str], name: str) -> str:
    """What stands for one file of a tree, or a folder at its top, in place of a path.

    Args:
        artifacts: where all of the files are stored.
        files: their places in the tree → their hashes.
        name: of the one that is meant.
    """
    return f"artifact:{artifacts.put(json.dumps({FILES: dict(files)}, sort_keys=True).encode())}/{name}"


class FetchedTrees:
    """The folder where trees are laid out, kept within its bounds: what was used last stays, and what is used now.

    Args:
        folder: of this machine.
        artifacts: where trees are stored.
        most_bytes: that the folder may hold.
    """

    def __init__(self, folder: Path, artifacts: Artifacts, most_bytes: int) -> None:
        self._folder = folder
        self._artifacts = artifacts
        self._most_bytes = most_bytes

    def path(self, text: str) -> str:
        """What a reference stands for, as a path of this machine; any other text as it is.

        Raises:
            VivaceError: something of it is missing or damaged, or the disk is full.
            IncompleteError: the store does not answer.
        """
        found = _REFERENCE.fullmatch(text)
        if found is None:
            return text
        sha256, name = found[1], found[2]
        self._folder.mkdir(parents=True, exist_ok=True)
        _hold(self._folder / f"{sha256}.lock")
        tree = self._folder / sha256
        try:
            if not tree.is_dir():
                self._lay_out(sha256, tree)
            os.utime(tree)
        except OSError as error:
            if not tree.is_dir():  # another process of the same home may have been faster
                raise VivaceError(
                    f"What was submitted could not be laid out in '{self._folder}' ({error.strerror or error}); free "
                    "some space or give another --home."
                ) from error
        self._trim()
        return str((tree / name).absolute())

    def _lay_out(self, sha256: str, tree: Path) -> None:
        files = _files(self._artifacts, sha256)
        with whole_or_none(tree) as unfinished:
            for name, content in files.items():
                target = unfinished / name
                target.parent.mkdir(parents=True, exist_ok=True)
                source = self._artifacts.fetch(content)
                try:
                    os.link(source, target)
                except OSError:
                    shutil.copyfile(source, target)

    def _trim(self) -> None:
        trees = [(each.stat().st_mtime, each) for each in self._folder.iterdir() if len(each.name) == 64]
        total = 0
        for _, tree in sorted(trees, reverse=True):
            total += sum(each.stat().st_size for each in tree.rglob("*") if each.is_file())
            if total > self._most_bytes:
                _remove_unless_held(tree)


_held: dict[Path, IO[bytes]] = {}
"""The locks of the trees that this process uses."""


def let_go_of_trees() -> None:
    """What this process has laid out may be removed: it begins something else."""
    while _held:
        _held.popitem()[1].close()


def _hold(lock: Path) -> None:
    if lock not in _held:
        opened = lock.open("wb")
        fcntl.flock(opened, fcntl.LOCK_SH)
        _held[lock] = opened


def _remove_unless_held(tree: Path) -> None:
    lock = tree.with_name(f"{tree.name}.lock")
    with lock.open("ab") as opened, suppress(BlockingIOError):
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(tree, ignore_errors=True)


def _files(artifacts: Artifacts, sha256: str) -> dict[str, str]:
    """A tree's files: path inside the tree → hash."""
    content = artifacts.get(sha256)
    try:
        if len(content) > LONGEST_LIST:
            raise ValueError("it is too long")
        return dict(_checked(json.loads(content)[FILES].items()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise VivaceError(f"Artifact {sha256[:12]} in '{artifacts.name}' is no list of files ({error}).") from error


def _checked(files: Any) -> Iterator[tuple[str, str]]:
    for name, content in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
            raise ValueError(f"the name {name!r:.60} leads elsewhere")
        if not re.fullmatch("[0-9a-f]{64}", content):
            raise ValueError(f"{name!r:.60} has no hash")
        yield name, content
