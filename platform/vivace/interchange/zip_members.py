"""Members of a zip archive, also those packed with Zstandard, which Python reads from 3.14 on; in bounded memory."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vivace.errors import UsageError

ZSTANDARD = 93
"""Its number among the methods of zip archives."""
LONGEST_MEMBER = 2**28
"""Bytes of a member once it is unpacked."""
MOST_MEMBERS = 1_000_000
_HEADER = struct.Struct("<26xHH")
"""Of a member: behind 26 bytes the lengths of its name and of its further fields, which stand before its bytes."""


class Archive:
    """An open archive.

    Args:
        path: of the file.
        opened: the same, as Python reads it.
    """

    def __init__(self, path: Path, opened: zipfile.ZipFile) -> None:
        self._path, self._opened = path, opened
        self.names = tuple(opened.namelist())

    def read(self, name: str) -> bytes:
        """The bytes of a member.

        Raises:
            UsageError: it is damaged, packed in a way that is not known, or too long.
        """
        import zstandard

        try:
            member = self._opened.getinfo(name)
            if member.compress_type != ZSTANDARD:
                with self._opened.open(member) as stream:
                    content = stream.read(LONGEST_MEMBER + 1)
            else:
                with self._packed(member) as packed:
                    content = zstandard.ZstdDecompressor().stream_reader(packed).read(LONGEST_MEMBER + 1)
        except (zipfile.BadZipFile, zstandard.ZstdError, EOFError, OSError, ValueError, struct.error) as error:
            raise UsageError(f"'{name}' in '{self._path}' is damaged ({error}).") from error
        except (NotImplementedError, RuntimeError) as error:  # an unknown method, a password
            raise UsageError(f"'{name}' in '{self._path}' cannot be unpacked ({error}).") from error
        if len(content) > LONGEST_MEMBER:
            raise UsageError(f"'{name}' in '{self._path}' is longer than {LONGEST_MEMBER:,} bytes.")
        return content

    @contextmanager
    def _packed(self, member: zipfile.ZipInfo) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            file.seek(member.header_offset)
            name, further = _HEADER.unpack(file.read(_HEADER.size))
            file.seek(name + further, 1)
            yield file.read(member.compress_size)


@contextmanager
def archive(path: Path) -> Iterator[Archive]:
    """An archive, open while the context lasts.

    Raises:
        UsageError: it is missing, unreadable, no zip archive, or has too many members.
    """
    try:
        opened = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"'{path}' cannot be read as a zip archive ({reason}).") from error
    with opened:
        if len(opened.namelist()) > MOST_MEMBERS:
            raise UsageError(f"'{path}' has more than {MOST_MEMBERS:,} members.")
        yield Archive(path, opened)
