"""What an upload holds: recorded replies as JSON lines, and nothing that would have to be unpacked or executed."""

from __future__ import annotations

from pathlib import Path

from vivace.api.faults import Refused
from vivace.errors import UsageError
from vivace.models.adapters.replay import read_replies

_KINDS = (
    (b"PK", "a zip archive (or a PyTorch or Excel file, which are such)"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstandard archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy file"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"RIFF", "a recording"),
    (b"OggS", "a recording"),
    (b"fLaC", "a recording"),
    (b"ID3", "a recording"),
)
_TAR = slice(257, 262)


def check_replies(path: Path, longest: int = 1_000_000) -> int:
    """See that a file holds recorded replies; how many.

    Args:
        path: of the upload; it is read as text and never opened as what it may be.
        longest: characters of one reply.

    Raises:
        Refused: it is something else, or something in it is wrong.
    """
    with path.open("rb") as file:
        head = file.read(512)
    kind = _kind(head)
    if kind is not None:
        raise Refused(415, f"This is {kind}; outputs are JSON lines of 'id' and 'response', as plain text.")
    try:
        replies = read_replies(path, "upload")
    except UsageError as error:
        raise Refused(422, str(error).replace(f" '{path}'", "")) from error
    for key, row in replies.items():
        if len(row.get("response") or "") > longest:
            raise Refused(422, f"The response to '{key:.100}' has more than {longest:,} characters.")
        for name in ("ttft_s", "total_s"):
            if not _is_time(row.get(name)):
                raise Refused(422, f"'{name}' of the reply to '{key:.100}' is no number of seconds.")
    return len(replies)


def _is_time(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e6


def _kind(head: bytes) -> str | None:
    for magic, kind in _KINDS:
        if head.startswith(magic):
            return kind
    if head[_TAR] == b"ustar":
        return "a tar archive"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a Python pickle, which is never opened"
    return None
