"""Files stored by the SHA-256 of their bytes: audio and long traces, never blobs in a row."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from vivace.errors import VivaceError


class Artifacts:
    """A folder of immutable files, `ab/abcdef…`, each named by the hash of its bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        """Where the file with this hash lies, whether it exists or not."""
        return self.folder / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        """Whether the file is stored."""
        return self.path(sha256).is_file()

    def put(self, content: bytes) -> str:
        """Store bytes, and return their SHA-256. Storing the same bytes again changes nothing.

        The file appears whole or not at all, also when the process is killed or the disk is full.

        Raises:
            VivaceError: the disk is full, or the folder cannot be written.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        target = self.path(sha256)
        if target.is_file():
            return sha256
        # An ordinary file and not one of `tempfile`, whose files nobody else may read: the leaderboard
        # may run under another account.
        partial = target.with_name(f"{sha256}.{secrets.token_hex(4)}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(target)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise VivaceError(
                f"A file could not be stored under '{self.folder}' ({error.strerror or error}); "
                "free some space or give another --home."
            ) from error
        return sha256

    def get(self, sha256: str) -> bytes:
        """The bytes with this hash.

        Raises:
            VivaceError: the file is missing or unreadable, or its bytes are not what its name says.
        """
        try:
            content = self.path(sha256).read_bytes()
        except FileNotFoundError as error:
            raise VivaceError(
                f"Artifact {sha256[:12]} is missing under '{self.folder}'; run the same command again."
            ) from error
        except OSError as error:
            raise VivaceError(
                f"Artifact {sha256[:12]} under '{self.folder}' cannot be read ({error.strerror or error})."
            ) from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise VivaceError(f"Artifact {sha256[:12]} under '{self.folder}' is damaged; delete it and run again.")
        return content
