"""The hub of models and datasets: a revision's files, fetched once, and its failures as sentences."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vivace.errors import UnreachableError, UsageError

if TYPE_CHECKING:
    import httpx

Kind = Literal["dataset", "model"]

TIMEOUT_S = 10.0
"""How long the hub may be silent; its client would wait for ever."""


def commit_of(kind: Kind, name: str, revision: str | None) -> str:
    """The commit that a revision stands at; a commit is what it is, without a network.

    Args:
        kind: of the repository.
        name: `organisation/name`.
        revision: a commit, branch or tag; None for the newest.

    Raises:
        UsageError: there is no such repository or revision.
        UnreachableError: the hub does not answer.
    """
    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    with _client(kind, name, revision) as client:
        found = client.HfApi().repo_info(name, repo_type=kind, revision=revision)
    return str(found.sha)


def snapshot(
    kind: Kind, name: str, commit: str, *, wanted: Sequence[str] | None = None, unwanted: Sequence[str] | None = None
) -> Path:
    """The folder with a commit's files, fetched where the local cache lacks them.

    Args:
        kind: of the repository.
        name: `organisation/name`.
        commit: as `commit_of` gives it: a branch would be taken to be where it was last seen.
        wanted: patterns of the files that are fetched; None for all.
        unwanted: patterns of those that are not.

    Raises:
        UsageError: there is no such repository or commit.
        UnreachableError: the hub does not answer, and the cache lacks the commit.
    """
    allow, ignore = (None if patterns is None else list(patterns) for patterns in (wanted, unwanted))
    with _client(kind, name, commit) as client:
        return Path(
            client.snapshot_download(
                name, repo_type=kind, revision=commit, allow_patterns=allow, ignore_patterns=ignore
            )
        )


@contextmanager
def _client(kind: Kind, name: str, revision: str | None) -> Iterator[Any]:
    """The hub's own client, which says on a terminal alone how far it is, and raises nothing but our errors."""
    import httpx
    import huggingface_hub
    from huggingface_hub import errors
    from huggingface_hub.utils.tqdm import disable_progress_bars

    from vivace.machine.environment import load_surroundings, read_key

    load_surroundings()
    read_key("HF_TOKEN")
    session = huggingface_hub.get_session()
    if _limit_silence not in session.event_hooks["request"]:
        session.event_hooks = {**session.event_hooks, "request": [*session.event_hooks["request"], _limit_silence]}
    if not sys.stderr.isatty():
        disable_progress_bars()
    # What is meant for a model may be a folder that was mistyped.
    the = f"There is no folder '{name}', and the" if kind == "model" else "The"
    try:
        yield huggingface_hub
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise UsageError(
            f"{the} hub has no {kind} '{name}' at revision '{revision or 'main'}'; check the name, the revision, and "
            "that you may read it."
        ) from error
    except (
        httpx.TransportError, ConnectionError, errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError,
    ) as error:  # fmt: skip
        raise UnreachableError(
            f"{the} {kind} hub does not answer, and no copy of '{name}' lies in its cache under this revision "
            f"({short(error)}); try again, name a commit fetched before ({name}@COMMIT), or give a local path."
        ) from error
    except errors.HfHubHTTPError as error:
        if error.response.status_code >= 500:
            raise UnreachableError(f"The {kind} hub is out of order ({short(error)}); try again later.") from error
        raise UsageError(f"The hub refuses the {kind} '{name}' ({short(error)}).") from error


def _limit_silence(request: httpx.Request) -> None:
    import httpx

    request.extensions["timeout"] = httpx.Timeout(TIMEOUT_S).as_dict()


def short(error: Exception) -> str:
    """The first words of a library's message, on one line."""
    return " ".join(str(error).split())[:200].rstrip(".")
