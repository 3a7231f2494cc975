"""Recordings in the messages of a chat."""

from __future__ import annotations

import base64
from typing import Any


def has_audio(messages: list[dict[str, Any]]) -> bool:
    """Whether a request carries a recording."""
    return any(
        part.get("type") == "input_audio"
        for message in messages
        if isinstance(message["content"], list)
        for part in message["content"]
    )


def audio_part(content: bytes, container: str) -> dict[str, Any]:
    """An `input_audio` content part: base64 without a data prefix."""
    data = base64.b64encode(content).decode("ascii")
    return {"type": "input_audio", "input_audio": {"data": data, "format": container}}
