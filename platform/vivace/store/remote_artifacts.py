"""Artifacts in a store with an address: S3 and whatever else fsspec reads, its failures as sentences."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from vivace.errors import IncompleteError, UsageError, VivaceError
from vivace.output.secrets import masked

Result = TypeVar("Result")

TRIES = 4
FIRST_PAUSE_S = 0.5
"""Before the second try; each further pause is twice as long."""


def is_hash(name: str) -> bool:
    """Whether a name is a SHA-256 in hexadecimal."""
    return re.fullmatch("[0-9a-f]{64}", name) is not None


@dataclass(frozen=True)
class ListedArtifact:
    """One artifact as a store lists it."""

    sha256: str
    bytes: int
    modified: datetime
    """When it was stored."""


class RemoteArtifacts:
    """The files of a store, `URL/ab/abcdef…`.

    Args:
        url: `s3://BUCKET/PREFIX` and others by fsspec's protocols; keys and endpoint come from the environment.

    Raises:
        UsageError: fsspec does not know the protocol, or lacks a package for it.
    """

    def __init__(self, url: str) -> None:
        self.name = masked(url)
        try:
            import fsspec

            # What fsspec remembers of a store would be of before, and another endpoint's.
            filesystem, root = fsspec.url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
        except ImportError as error:
            extra = "; install vivace[s3]" if url.startswith(("s3:", "s3a:")) else ""
            raise UsageError(f"The artifacts '{self.name}' cannot be reached: {error}{extra}.") from error
        except Exception as error:  # each protocol has errors of its own
            raise UsageError(
                f"The artifacts '{self.name}' cannot be understood ({_short(error)}); give a folder or a URL such as "
                "s3://BUCKET/PREFIX."
            ) from error
        self._filesystem: Any = filesystem
        self._root = str(root).rstrip("/")

    def has(self, sha256: str) -> bool:
        """Whether the file is there."""
        return bool(self._tried(lambda: self._filesystem.exists(self._path(sha256))))

    def upload(self, sha256: str, path: Path) -> None:
        """Store a file; it appears whole or not at all, as object stores do it."""

        def upload() -> None:
            folder = self._path(sha256).rpartition("/")[0]
            self._filesystem.makedirs(folder, exist_ok=True)  # nothing where there are no folders
            self._filesystem.put_file(str(path), self._path(sha256))

        self._tried(upload)

    def download(self, sha256: str, target: Path) -> None:
        """Write a file to a path of this machine.

        Raises:
            VivaceError: the store does not have it.
        """
        try:
            self._tried(lambda: self._filesystem.get_file(self._path(sha256), str(target)))
        except FileNotFoundError as error:
            raise VivaceError(
                f"Artifact {sha256[:12]} is missing in '{self.name}'; submit what uses it again."
            ) from error

    def listed(self) -> Iterator[ListedArtifact]:
        """All files of the store."""
        found = self._tried(lambda: self._filesystem.find(self._root, detail=True))
        for path, details in found.items():
            name = str(path).rpartition("/")[2]
            if is_hash(name):
                yield ListedArtifact(name, int(details.get("size") or 0), _modified(details))

    def delete(self, sha256: str) -> None:
        """Remove a file; nothing where it is gone."""

        def remove() -> None:
            if self._filesystem.exists(self._path(sha256)):
                self._filesystem.rm_file(self._path(sha256))

        self._tried(remove)

    def _path(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"

    def _tried(self, action: Callable[[], Result]) -> Result:
        """What an action gives, tried again while the store stumbles.

        Raises:
            FileNotFoundError: the store says so.
            IncompleteError: it does not answer, or refuses.
        """
        for left in reversed(range(TRIES)):
            try:
                return action()
            except FileNotFoundError:
                raise
            except Exception as error:  # each protocol has errors of its own
                if left == 0 or isinstance(error, PermissionError):
                    raise IncompleteError(
                        f"The artifacts '{self.name}' cannot be read or written ({_short(error)}); once that is "
                        "mended, the same command goes on where it stopped."
                    ) from error
                time.sleep(FIRST_PAUSE_S * 2 ** (TRIES - 1 - left))
        raise AssertionError


def _modified(details: dict[str, Any]) -> datetime:
    """When a file was stored, by whichever name its protocol gives that; now, where it does not say."""
    for key in ("LastModified", "last_modified", "mtime", "modified", "created"):
        found = details.get(key)
        if isinstance(found, datetime):
            return found if found.tzinfo else found.replace(tzinfo=UTC)
        if isinstance(found, int | float):
            return datetime.fromtimestamp(found, UTC)
    return datetime.now(UTC)


def _short(error: BaseException) -> str:
    """The first words of a library's message, on one line, without keys."""
    return masked(" ".join(str(error).split())[:200].rstrip(".") or type(error).__name__)
