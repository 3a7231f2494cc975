"""What an upload holds: replies as JSON lines, or a recording, and nothing to be unpacked or executed."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from pathlib import Path

from vivace.api.door import Limits
from vivace.api.faults import Refused
from vivace.audio.containers import AudioError, Container, container
from vivace.audio.convert import decode
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
)
_SOUND = {Container.WAV, Container.FLAC, Container.OGG, Container.OPUS, Container.MP3}
"""Taken of strangers: what holds sound alone, and no film, pictures or further tracks."""
_HASH = re.compile(r"[0-9a-f]{64}")
HIGHEST_RATE = 48_000
MOST_CHANNELS = 2
_TAR = slice(257, 262)


_turn = threading.Lock()
"""Uploads are looked at one at a time: as Python's values a text may take forty times its bytes."""


@dataclass(frozen=True)
class Held:
    """What an upload holds."""

    replies: int
    seconds: float | None = None
    """Of a recording."""


def check_upload(path: Path, limits: Limits) -> Held:
    """See that a file holds recorded replies, or one recording of a reply.

    Args:
        path: of the upload; it is read as text or decoded as sound, and never opened as what else it may be.
        limits: the operator's.

    Raises:
        Refused: it is something else, or something in it is wrong.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if (kind := _kind(head)) is not None:
        raise Refused(
            415, f"This is {kind}; send JSON lines of 'id' and 'response' as plain text, or one recording of a reply."
        )
    with _turn:
        return _recording(path, limits.recording_seconds) if _is_sound(head) else _replies(path)


def recordings_named(path: Path) -> set[str]:
    """The hashes of the recordings that replies name, of an upload that was checked."""
    with _turn:
        return {row["audio"] for row in read_replies(path, "upload").values() if row.get("audio") is not None}


def _is_sound(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return False  # a text in UTF-16
    try:
        kind = container(head)
    except AudioError:
        return False
    if kind not in _SOUND:
        raise Refused(415, f"This is a recording of a kind that is not taken, {kind}; send WAV, FLAC, Ogg or MP3.")
    return True


def _recording(path: Path, most_s: float) -> Held:
    try:
        seconds = decode(path.read_bytes(), int(most_s * HIGHEST_RATE * MOST_CHANNELS)).seconds
    except AudioError as error:
        raise Refused(422, f"This is a recording that is not taken: {error}.") from error
    if seconds > most_s:
        raise Refused(422, f"The recording takes {seconds:,.0f} s; a reply takes at most {most_s:,.0f} s.")
    return Held(0, seconds)


def _replies(path: Path, longest: int = 1_000_000) -> Held:
    try:
        replies = read_replies(path, "upload")
    except UsageError as error:
        raise Refused(422, str(error).replace(f" '{path}'", "")) from error
    for key, row in replies.items():
        if len(row.get("response") or "") > longest:
            raise Refused(422, f"The response to '{key:.100}' has more than {longest:,} characters.")
        for name in ("ttft_s", "first_audio_s", "total_s"):
            if not _is_time(row.get(name)):
                raise Refused(422, f"'{name}' of the reply to '{key:.100}' is no number of seconds.")
        audio = row.get("audio")
        if audio is not None and not (isinstance(audio, str) and _HASH.fullmatch(audio)):
            raise Refused(
                422,
                f"'audio' of the reply to '{key:.100}' is no SHA-256; send the recording first, and write what it is "
                "stored under.",
            )
    return Held(len(replies))


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
