"""Recordings that a file of rows names by their paths: found in its folder, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LARGEST_RECORDING = 2**30
"""Bytes; more than what a turn can hold takes in any kind of file."""
RECORDINGS = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".webm")
"""How the names of files with sound end."""


class RecordingError(ValueError):
    """A recording is not where it is said to be; the message says why, to follow where it is named."""


def recording_file(folder: Path, named: Any) -> Path:
    """The file of a recording that is named in a row of JSON.

    Args:
        folder: of the file with that row, in which recordings lie, at any depth.
        named: the path relative to it, as a text or as `{"path": …}`.

    Raises:
        RecordingError: it names no file, or one that lies elsewhere: a set from others must not reach for one's own.
    """
    path = named.get("path") if isinstance(named, dict) and not named.get("bytes") else named
    if not isinstance(path, str) or not path.strip():
        raise RecordingError(f"{named!r:.60} is not the path of a recording")
    try:
        found = (folder / path).resolve()
        is_inside = not Path(path).is_absolute() and found.is_relative_to(folder.resolve())
        if is_inside and not found.is_file():
            raise RecordingError(f"there is no recording '{path}' in '{folder}'")
    except (OSError, ValueError, RuntimeError) as error:  # too long, a zero byte, a loop of links
        if isinstance(error, RecordingError):
            raise
        raise RecordingError(f"{path!r:.60} is not the path of a recording") from error
    if not is_inside:
        raise RecordingError(
            f"the recording '{path}' is not in '{folder}'; put it there, and write its path relative to that folder"
        )
    if found.stat().st_size > LARGEST_RECORDING:
        raise RecordingError(f"the recording '{path}' has more than {LARGEST_RECORDING:,} bytes")
    return found
