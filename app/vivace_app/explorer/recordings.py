"""Telling a browser what kind of recording it gets: artifacts are named by hash and carry no extension."""

from __future__ import annotations

_SIGNATURES = {
    b"RIFF": "audio/wav",
    b"OggS": "audio/ogg",
    b"fLaC": "audio/flac",
    b"ID3": "audio/mpeg",
    b"\xff\xfb": "audio/mpeg",
    b"\xff\xf3": "audio/mpeg",
    b"\x1aE\xdf\xa3": "audio/webm",
}


def media_type(recording: bytes) -> str:
    """The media type by a recording's first bytes; WAV where they are unknown."""
    found = (kind for signature, kind in _SIGNATURES.items() if recording.startswith(signature))
    return next(found, "audio/mp4" if recording[4:8] == b"ftyp" else "audio/wav")
