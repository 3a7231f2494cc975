"""Where a task's files lie: on this machine, or on the hub at a revision, from where they are fetched once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from vivace.errors import UsageError
from vivace.files.hub import commit_of, snapshot

_HUB_PATH = re.compile(r"(?P<name>[\w-][\w.-]*/[\w.-]+)@(?P<revision>[\w.-]+)(?:/(?P<inside>.+))?")


def located(text: str, suffixes: Sequence[str], unwanted: Sequence[str] = ()) -> Path:
    """The file or folder that is meant by a path, which may lie on the hub.

    Args:
        text: a path of this machine, or `HUB-ID@REVISION` or `HUB-ID@REVISION/FOLDER`: a dataset's commit, tag or
            branch, and a folder or file in it. A commit that was fetched before needs no network.
        suffixes: of the files that are wanted.
        unwanted: patterns of names that are not fetched from a folder.

    Raises:
        UsageError: the hub has no such dataset, revision or file.
        UnreachableError: the hub does not answer, and the files are not in its local cache.
    """
    named = _HUB_PATH.fullmatch(text)
    if named is None or Path(text).exists():
        return Path(text)
    name, revision, inside = named["name"], named["revision"], (named["inside"] or "").strip("/")
    is_file = inside.endswith(tuple(suffixes))
    prefix = f"{inside}/" if inside else ""
    wanted = [inside] if is_file else [f"{prefix}*{suffix}" for suffix in suffixes]
    commit = commit_of("dataset", name, revision)
    found = snapshot("dataset", name, commit, wanted=wanted, unwanted=() if is_file else unwanted) / inside
    if not found.exists():
        raise UsageError(
            f"The dataset '{name}' at revision '{revision}' has no '{inside or 'files'}' that can be read: a file or "
            f"a folder of files that end in {', '.join(suffixes)}."
        )
    return found
