"""Files stored by the SHA-256 of their bytes: audio, data sets, recipes and long traces, never blobs in a row."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from vivace.errors import VivaceError
from vivace.files.content_hash import file_sha256
from vivace.machine.environment import load_surroundings
from vivace.settings import Settings
from vivace.store.remote_artifacts import ListedArtifact, RemoteArtifacts, is_hash


def open_artifacts(settings: Settings) -> Artifacts:
    """The artifacts under these settings: of the home folder, of another folder, or of a store with an address.

    Raises:
        UsageError: the address cannot be understood, or what it takes is not installed.
    """
    folder = settings.artifacts_folder
    if folder is not None:
        return Artifacts(folder)
    assert settings.artifacts is not None
    load_surroundings()  # keys and endpoint of the store may stand in `.env`
    remote = RemoteArtifacts(settings.artifacts)
    return Artifacts(settings.home / "artifacts", remote, int(settings.artifacts_cache_gb * 2**30))


class Artifacts:
    """Immutable files, each named by the hash of its bytes: `ab/abcdef…`.

    They lie in a folder, or in a store that many machines share; then the folder is this machine's cache of it, from
    which goes what was not used for longest.

    Args:
        folder: of this machine.
        remote: the store that is shared; None where the folder itself is the store.
        most_cached: bytes that the folder may hold of a store that is shared.
    """

    def __init__(self, folder: Path, remote: RemoteArtifacts | None = None, most_cached: int = 2**40) -> None:
        self.folder = folder
        self._remote = remote
        self._most_cached = most_cached

    @property
    def name(self) -> str:
        """Where they lie, as a message names it."""
        return self._remote.name if self._remote is not None else str(self.folder)

    def path(self, sha256: str) -> Path:
        """Where the file with this hash lies on this machine, whether it exists or not."""
        return self.folder / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        """Whether the file is stored, where all who share the store find it."""
        if self._remote is not None:
            return self._remote.has(sha256)
        return self.path(sha256).is_file()

    def put(self, content: bytes) -> str:
        """Store bytes, and return their SHA-256. Storing the same bytes again changes nothing.

        The file appears whole or not at all, also when the process is killed or the disk is full.

        Raises:
            VivaceError: the disk is full, or the folder cannot be written.
            IncompleteError: the store that is shared does not answer.
        """
        sha256 = hashlib.sha256(content).hexdigest()

        def write(partial: Path) -> None:
            with partial.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())

        self._store(sha256, write)
        return sha256

    def put_file(self, path: Path) -> str:
        """Store a file as it is, however large, and return its SHA-256.

        Raises:
            VivaceError: it cannot be read, has changed meanwhile, or cannot be stored.
            IncompleteError: the store that is shared does not answer.
        """
        try:
            sha256 = file_sha256(path)
        except OSError as error:
            raise VivaceError(f"The file '{path}' cannot be read ({error.strerror or error}).") from error

        def write(partial: Path) -> None:
            shutil.copyfile(path, partial)
            if _sha256_of(partial) != sha256:
                raise VivaceError(f"The file '{path}' was changed while it was stored; try again.")

        if self._remote is not None and path.stat().st_size > self._most_cached // 4:
            self._remote.upload(sha256, path)  # it would take the place of all else in the cache
        else:
            self._store(sha256, write)
        return sha256

    def get(self, sha256: str) -> bytes:
        """The bytes with this hash.

        Raises:
            VivaceError: the file is missing or unreadable, or its bytes are not what its name says.
            IncompleteError: the store that is shared does not answer.
        """
        content = self._read(sha256)
        if hashlib.sha256(content).hexdigest() == sha256:
            return content
        if self._remote is None:
            raise VivaceError(f"Artifact {sha256[:12]} under '{self.folder}' is damaged; delete it and run again.")
        self._forget(sha256)  # a copy gone bad: the store has the file itself
        return self._fetched(sha256).read_bytes()

    def fetch(self, sha256: str) -> Path:
        """The file with this hash on this machine, fetched where it is missing, its bytes checked.

        Raises:
            VivaceError: it is missing, or its bytes are not what its name says.
            IncompleteError: the store that is shared does not answer.
        """
        path = self.path(sha256)
        if path.is_file() and _sha256_of(path) == sha256:
            self._touch(path)
            return path
        if self._remote is None:
            self.get(sha256)  # says what is wrong with it
        self._forget(sha256)
        return self._fetched(sha256)

    def listed(self) -> Iterator[ListedArtifact]:
        """All that is stored, in no order; what is half written, or bears another name, is none of it.

        Raises:
            IncompleteError: the store that is shared does not answer.
        """
        yield from self._remote.listed() if self._remote is not None else self._here()

    def delete(self, sha256: str) -> None:
        """Remove a file from the store, and this machine's copy; nothing where it is gone.

        Raises:
            VivaceError: it cannot be removed.
        """
        if self._remote is not None:
            self._remote.delete(sha256)
        self._forget(sha256)

    def _here(self) -> Iterator[ListedArtifact]:
        for path in self.folder.glob("??/*"):
            with suppress(OSError):  # removed since it was listed
                if is_hash(path.name) and path.parent.name == path.name[:2]:
                    state = path.stat()
                    yield ListedArtifact(path.name, state.st_size, datetime.fromtimestamp(state.st_mtime, UTC))

    def _store(self, sha256: str, write: Callable[[Path], None]) -> None:
        target = self.path(sha256)
        try:
            os.utime(target)  # stored anew, for whoever removes what is old and not yet referred to
        except OSError:
            self._write(target, write)
        if self._remote is not None and not self._remote.has(sha256):
            self._remote.upload(sha256, target)
            self._trim()

    def _write(self, target: Path, write: Callable[[Path], None]) -> None:
        # An ordinary file and not one of `tempfile`, whose files nobody else may read: the leaderboard
        # may run under another account.
        partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                write(partial)
                partial.replace(target)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise VivaceError(
                f"A file could not be stored under '{self.folder}' ({error.strerror or error}); "
                "free some space or give another --home."
            ) from error

    def _read(self, sha256: str) -> bytes:
        path = self.path(sha256)
        try:
            content = path.read_bytes()
            self._touch(path)
            return content
        except FileNotFoundError as error:
            if self._remote is None:
                raise VivaceError(
                    f"Artifact {sha256[:12]} is missing under '{self.folder}'; run the same command again."
                ) from error
        except OSError as error:
            raise VivaceError(
                f"Artifact {sha256[:12]} under '{self.folder}' cannot be read ({error.strerror or error})."
            ) from error
        return self._fetched(sha256).read_bytes()

    def _fetched(self, sha256: str) -> Path:
        """The file from the store that is shared, checked before it takes its name."""
        assert self._remote is not None
        remote, target = self._remote, self.path(sha256)

        def download(partial: Path) -> None:
            remote.download(sha256, partial)
            if _sha256_of(partial) != sha256:
                raise VivaceError(f"Artifact {sha256[:12]} in '{remote.name}' is damaged; delete it and run again.")

        self._write(target, download)
        self._trim(keep=target)
        return target

    def _touch(self, path: Path) -> None:
        if self._remote is not None:
            with suppress(OSError):
                os.utime(path)

    def _forget(self, sha256: str) -> None:
        try:
            self.path(sha256).unlink(missing_ok=True)
        except OSError as error:
            raise VivaceError(
                f"Artifact {sha256[:12]} under '{self.folder}' cannot be removed ({error.strerror or error})."
            ) from error

    def _trim(self, keep: Path | None = None) -> None:
        """Keep the cache within its bounds: what was used last stays, and what is used now."""
        held = sorted(self._here(), key=lambda one: one.modified, reverse=True)
        total = 0
        for one in held:
            total += one.bytes
            path = self.path(one.sha256)
            if total > self._most_cached and path != keep:
                path.unlink(missing_ok=True)


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
