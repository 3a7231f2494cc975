"""What is sent over a session of OpenAI's Realtime API: settings, a conversation's turns, the wish for a reply."""

from __future__ import annotations

import base64
import io
import json
import wave
from collections.abc import Iterator
from typing import Any, Literal, get_args

from vivace.audio.convert import decode, encode_wav, to_mono
from vivace.errors import UsageError
from vivace.models.base import Prompt, SpokenTurn

Output = Literal["audio", "text"]
RATE = 24_000
"""Hz; the only rate of the API's 16-bit PCM, both ways."""
DEFAULT_VOICE = "marin"
"""One of the two voices OpenAI recommends. Named, so that a change of the provider's default changes no run."""
PIECE_BYTES = 11 * 2**20
"""Samples sent in one event, four minutes of them: in base64 they stay below the API's limit of 15 MiB."""
RESERVED_ARGUMENTS = frozenset(
    {
        "audio", "conversation", "include", "input", "instructions", "metadata", "model", "output",
        "output_modalities", "parallel_tool_calls", "prompt", "tool_choice", "tools", "tracing", "truncation",
        "turn_detection", "type",
    }
)  # fmt: skip
"""What a `--model-arg` may not set: Vivace sets it, or it would change the protocol."""
SPOKEN_ARGUMENTS = ("voice", "speed")
"""Arguments about how the reply sounds."""


def conversation_events(prompt: Prompt) -> list[str]:
    """The JSON messages that put a conversation to the model and ask for its reply.

    A user turn is one item, its sound as 16-bit mono PCM at 24 kHz in base64; where the dataset lacks an
    assistant turn, two user items follow one another.
    """
    events: list[str] = []
    for spoken, assistant in prompt.turns:
        events += _user_events(spoken)
        if assistant:
            events.append(_message("assistant", {"type": "output_text", "text": assistant}))
    return [*events, event_of("response.create")]


def _user_events(turn: SpokenTurn) -> Iterator[str]:
    if turn.audio is None:
        yield _message("user", {"type": "input_text", "text": turn.text or ""})
        return
    samples = _pcm(turn.audio.content)
    pieces = [samples[start : start + PIECE_BYTES] for start in range(0, len(samples), PIECE_BYTES)]
    if len(pieces) == 1:
        yield _message("user", {"type": "input_audio", "audio": _base64(samples)})
        return
    for piece in pieces:
        yield event_of("input_audio_buffer.append", audio=_base64(piece))
    yield event_of("input_audio_buffer.commit")


def _pcm(recording: bytes) -> bytes:
    wav = encode_wav(to_mono(decode(recording), RATE), RATE)
    with wave.open(io.BytesIO(wav), "rb") as file:
        return bytes(file.readframes(file.getnframes()))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def event_of(kind: str, **fields: Any) -> str:
    """An event of a kind, as JSON."""
    return json.dumps({"type": kind, **fields})


def _message(role: str, content: dict[str, Any]) -> str:
    return event_of("conversation.item.create", item={"type": "message", "role": role, "content": [content]})


def checked_parameters(arguments: dict[str, Any], output: Output) -> dict[str, Any]:
    """The generation parameters, with the voice that speaks where none is named.

    Raises:
        UsageError: one that is not the user's to set, or one of spoken replies where text is asked for.
    """
    if output not in get_args(Output):
        raise UsageError(f"A Realtime model answers in {' or '.join(get_args(Output))}, not in '{output}'.")
    for name in arguments:
        if name in RESERVED_ARGUMENTS:
            raise UsageError(f"--model-arg cannot set '{name}'; leave it out.")
        if name in SPOKEN_ARGUMENTS and output != "audio":
            raise UsageError(f"--model-arg '{name}' is about a spoken reply; leave it out or ask for audio.")
    return {"voice": DEFAULT_VOICE, **arguments} if output == "audio" else dict(arguments)


def session_of(parameters: dict[str, Any], output: Output) -> dict[str, Any]:
    """The settings of a session: what is heard and spoken is PCM, and nothing decides but us when a turn ends."""
    pcm = {"type": "audio/pcm", "rate": RATE}
    spoken = {name: value for name, value in parameters.items() if name in SPOKEN_ARGUMENTS}
    others = {name: value for name, value in parameters.items() if name not in SPOKEN_ARGUMENTS}
    return {
        "type": "realtime",
        "output_modalities": [output],
        "instructions": "",
        "truncation": "disabled",
        "audio": {"input": {"format": pcm, "turn_detection": None}, "output": {"format": pcm, **spoken}},
        **others,
    }
