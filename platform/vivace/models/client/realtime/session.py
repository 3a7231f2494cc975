"""A session of OpenAI's Realtime API: how it is opened, what comes over it, and how it says that it fails."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import RealtimeResponse, RealtimeServerEvent
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from vivace.models.client.completions import TEXT_LIMIT, usage_of
from vivace.models.client.providers.prices import TokenUsage
from vivace.models.client.transport import STREAM_LIMIT
from vivace.models.client.tries import NO_CREDIT

EVENT_LIMIT = 16_000_000
"""Bytes of one event; those that the API takes are limited to 15 MiB."""


class _Connection(ClientConnection):
    """A connection to the address that was given, and to no other that a server points to."""

    async def handshake(self, *args: Any, **kwargs: Any) -> None:
        """Open the WebSocket.

        Raises:
            RedirectedError: the server points elsewhere.
        """
        try:
            await super().handshake(*args, **kwargs)
        except InvalidStatus as error:
            if 300 <= error.response.status_code < 400 and "location" in error.response.headers:
                raise RedirectedError(error.response.headers["location"]) from None
            raise


class RedirectedError(Exception):
    """A server points elsewhere, where the message says, instead of opening a session."""


CONNECTION: Any = {
    "create_connection": _Connection,
    "max_size": EVENT_LIMIT,
    "compression": None,  # base64 of sound gains little, and the packing would be part of every time measured
    "ping_interval": None,  # the timeout of the try finds a dead server, too
    "close_timeout": 1.0,
}
"""Options of `websockets`; openai passes all of them on, though its type lists only some."""


class ReportedError(Exception):
    """An error as the server reports it, by an event, in a response's status, or in refusing the connection."""

    def __init__(self, kind: object, code: object, message: object) -> None:
        super().__init__(" ".join(str(word) for word in (kind, code, message) if word) or "no reason given")
        self.kind = str(kind)
        self.code = str(code)
        self.message = str(message)


@dataclass
class ReceivedAnswer:
    """What one try brought; times are in seconds from `sent_at`."""

    connected: bool = False
    configured: bool = False
    model_snapshot: str | None = None
    sent_at: float = 0.0
    pieces: dict[tuple[str, int], list[str]] = field(default_factory=lambda: defaultdict(list))
    """Text or transcript by item and place in it: a reply can have several parts."""
    characters: int = 0
    audio: bytearray = field(default_factory=bytearray)
    ttft_s: float | None = None
    first_audio_s: float | None = None
    total_s: float | None = None
    ended: bool = False
    finish_reason: str | None = None
    """Why the answer is incomplete, else its status."""
    error: ReportedError | None = None
    usage: TokenUsage = field(default_factory=TokenUsage)

    @property
    def text(self) -> str:
        return "\n".join("".join(pieces) for pieces in self.pieces.values())

    @property
    def is_too_long(self) -> bool:
        return self.characters > TEXT_LIMIT or len(self.audio) > STREAM_LIMIT

    def take(self, event: RealtimeServerEvent) -> None:
        """Note what an event of the answer brings."""
        seconds = time.perf_counter() - self.sent_at
        if event.type == "response.output_audio.delta":
            self.first_audio_s = self.first_audio_s or seconds
            self.audio += base64.b64decode(event.delta, validate=True)
        elif event.type == "response.output_audio_transcript.delta" or event.type == "response.output_text.delta":
            self.ttft_s = self.ttft_s or seconds
            self.pieces[event.item_id, event.content_index].append(event.delta)
            self.characters += len(event.delta)
        elif event.type == "response.done":
            self.total_s = seconds
            self._end(event.response)

    def _end(self, response: RealtimeResponse) -> None:
        details, usage = response.status_details, response.usage
        self.finish_reason = (details.reason if details else None) or response.status
        if response.status == "failed":
            error = details.error if details else None
            message = getattr(error, "message", None)  # sent, though openai's type lacks it
            self.error = ReportedError(getattr(error, "type", None), getattr(error, "code", None), message)
        if usage:
            self.usage = usage_of(usage.model_dump())
        self.ended = True


async def next_event(connection: AsyncRealtimeConnection, kind: str) -> RealtimeServerEvent:
    """The next event of a kind; others before it are passed over.

    Raises:
        ReportedError: the server reports an error instead.
    """
    while True:
        event = await _receive(connection)
        if event.type == kind:
            return event


async def _receive(connection: AsyncRealtimeConnection) -> RealtimeServerEvent:
    event = await connection.recv()
    if event.type == "error":  # whatever was refused, the conversation would no longer be the one asked about
        raise ReportedError(event.error.type, event.error.code, event.error.message)
    return event


async def converse(connection: AsyncRealtimeConnection, events: Sequence[str], received: ReceivedAnswer) -> None:
    """Send a conversation, and take in what comes until the answer has ended or is too long."""
    received.sent_at = time.perf_counter()
    # What comes while the conversation is still being sent is read at once, and never heaps up.
    sending = asyncio.create_task(_send(connection, events))
    try:
        while not received.ended and not received.is_too_long:
            received.take(await _receive(connection))
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _send(connection: AsyncRealtimeConnection, events: Sequence[str]) -> None:
    with suppress(ConnectionClosed):  # the reason may stand in what is received
        for event in events:
            await connection.send_raw(event)


def rejection(error: InvalidStatus) -> ReportedError:
    """A refused handshake in the words of the API: what its body says, else what its status means."""
    status = error.response.status_code
    try:
        body = json.loads(error.response.body or b"")["error"]
        code, message = body.get("code"), body.get("message")
    except (ValueError, TypeError, KeyError, AttributeError):
        code, message = None, None
    if status in (401, 403):
        kind = "authentication_error"
    elif status < 400 or status == 404:  # also what speaks plain HTTP at this address
        kind = "model_not_found"
    elif status == 402:
        kind = NO_CREDIT
    elif status == 429:
        kind = "rate_limit_exceeded"
    elif status < 500 and status != 408:
        kind = "invalid_request_error"
    else:
        kind = "server_error"
    return ReportedError(kind, code, message or f"HTTP {status}")


def closing_report(error: ConnectionClosed) -> ReportedError | None:
    """What a server says in closing, by a code of its own and `invalid_request_error.invalid_model`, say."""
    if error.rcvd is None or error.rcvd.code < 3000:
        return None
    kind, _, code = error.rcvd.reason.partition(".")
    return ReportedError(kind, code, None)
