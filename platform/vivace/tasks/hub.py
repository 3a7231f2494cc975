"""Where a task's files lie: on this machine, or on the hub at a revision, from where they are fetched once."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vivace.errors import UnreachableError, UsageError

if TYPE_CHECKING:
    import httpx

HUB_TIMEOUT_S = 10.0
"""How long the hub may be silent; its client would wait for ever."""
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
    found = _snapshot(name, revision, wanted, () if is_file else unwanted) / inside
    if not found.exists():
        raise UsageError(
            f"The dataset '{name}' at revision '{revision}' has no '{inside or 'files'}' that can be read: a file or "
            f"a folder of files that end in {', '.join(suffixes)}."
        )
    return found


def _snapshot(name: str, revision: str, wanted: Sequence[str], unwanted: Sequence[str]) -> Path:
    """The folder with the wanted files of a dataset, fetched where the cache lacks them."""
    import httpx
    import huggingface_hub
    from huggingface_hub import errors
    from huggingface_hub.utils.tqdm import disable_progress_bars

    session = huggingface_hub.get_session()
    if _limit_silence not in session.event_hooks["request"]:
        session.event_hooks = {**session.event_hooks, "request": [*session.event_hooks["request"], _limit_silence]}
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        # Without a network the client would take a branch to be where it last saw it; a commit is what it is.
        is_commit = re.fullmatch(r"[0-9a-f]{40}", revision) is not None
        commit = revision if is_commit else huggingface_hub.HfApi().dataset_info(name, revision=revision).sha
        return Path(
            huggingface_hub.snapshot_download(
                name, repo_type="dataset", revision=commit, allow_patterns=[*wanted], ignore_patterns=[*unwanted]
            )
        )
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise UsageError(
            f"The hub has no dataset '{name}' at revision '{revision}'; check the name, the revision, and that you "
            "may read it."
        ) from error
    except (
        httpx.TransportError, ConnectionError, errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError,
    ) as error:  # fmt: skip
        raise UnreachableError(
            f"The dataset hub does not answer, and no copy of '{name}' lies in its cache under this revision "
            f"({_short(error)}); try again, name a commit fetched before ({name}@COMMIT), or give a local path."
        ) from error
    except errors.HfHubHTTPError as error:
        raise UnreachableError(f"The hub does not give the dataset '{name}' ({_short(error)}).") from error


def _limit_silence(request: httpx.Request) -> None:
    import httpx

    request.extensions["timeout"] = httpx.Timeout(HUB_TIMEOUT_S).as_dict()


def _short(error: Exception) -> str:
    """The first words of a library's message, on one line."""
    return " ".join(str(error).split())[:200].rstrip(".")
