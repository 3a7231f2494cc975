"""The HTTP transport under every chat client: bounded answers, and a plain record of how each call went.

Client libraries translate failures into exceptions of their own and lose the cause on the way. Whether a
server was never reached, answered with a status, or broke off in the middle is known here for certain.
"""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpx

ANSWER_LIMIT = 4_000_000
"""Bytes of an answer in one piece; a longer one is cut off and counts as too long."""
STREAM_LIMIT = 64_000_000
"""Bytes of a streamed answer: every token of a long train of thought comes in an envelope of its own."""
CONNECT_TIMEOUT_S = 5.0
"""A machine that is up accepts a connection at once; only its answer may take long."""

_LAST_EVENT = re.compile(rb'"finish_reason"\s*:\s*"|data:\s*\[DONE\]')
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_MODEL = re.compile(rb'"model"\s*:\s*"([^"\\]+)"')
_OVERLAP = 256
"""Bytes of the piece before that are searched again: what is looked for may lie across two pieces."""


@dataclass
class Exchange:
    """What happens on the wire during one call."""

    connections: httpx.AsyncClient
    """Where the call goes out: connections belong to one event loop, and so to one client."""
    streaming: bool = False
    """Whether the request asks for server-sent events."""
    sent: bool = False
    sent_at: float = 0.0
    """When the request went out, on the clock `time.perf_counter`."""
    unreachable: bool = False
    """No connection was made at all."""
    broken: bool = False
    """The connection failed, or ended before the answer was complete."""
    status: int | None = None
    retry_after_s: float | None = None
    too_long: bool = False
    usage_reported: bool | None = None
    """Whether a chat completion came with the server's own count of tokens; None where that is not known."""
    model: str | None = None
    """What a chat completion's server calls the model that answered, which litellm replaces by what was asked."""

    def note(self, window: bytes) -> None:
        """Take from a chat completion's bytes what client libraries do not hand on."""
        # In a text that a model wrote the quotes would stand behind backslashes.
        self.usage_reported = self.usage_reported or _USAGE.search(window) is not None
        if self.model is None and (found := _MODEL.search(window)):
            self.model = found[1].decode(errors="replace")


current_exchange: ContextVar[Exchange] = ContextVar("current_exchange")


class NotACompletionError(httpx.DecodingError):
    """A complete answer with status 200 that is not a chat completion."""


class WatchingTransport(httpx.AsyncBaseTransport):
    """Sends each request through its `current_exchange`, and notes there how the call went.

    One instance serves every client, thread and event loop. What a chat completion's answer is, is settled
    here and not left to a client library's tolerance:

    - An error that comes with status 200 is given the status it names, else 500.
    - A stream that ends before its last event is a broken connection, not a short answer.
    - A server that ignores `stream` and sends one JSON answer is common among small ones. Its answer is
      handed on as a stream of few events, so that such a server is asked once, not twice.
    """

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request."""
        exchange = current_exchange.get()
        request.headers["accept-encoding"] = "identity"  # so that the limits hold for what is unpacked, too
        timeouts = dict(request.extensions.get("timeout", {}))
        timeouts["connect"] = min(timeouts.get("connect") or CONNECT_TIMEOUT_S, CONNECT_TIMEOUT_S)
        request.extensions = {**request.extensions, "timeout": timeouts}
        exchange.sent, exchange.sent_at = True, time.perf_counter()
        try:
            response = await exchange.connections.send(request, stream=True, follow_redirects=False)
        except httpx.TransportError as error:
            exchange.unreachable = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            exchange.broken = not exchange.unreachable
            raise
        exchange.status = response.status_code
        exchange.retry_after_s = parse_retry_after(response.headers.get("retry-after"))
        kind = response.headers.get("content-type", "").split(";")[0].strip()
        is_chat = request.url.path.endswith("/chat/completions") and response.status_code == 200
        watched = httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=_WatchedBody(response, exchange, ends_with_event=is_chat and kind == "text/event-stream"),
            extensions=response.extensions,
            request=request,
        )
        return await _settled(watched, exchange) if is_chat and kind != "text/event-stream" else watched


class _WatchedBody(httpx.AsyncByteStream):
    def __init__(self, response: httpx.Response, exchange: Exchange, *, ends_with_event: bool) -> None:
        self._response = response
        self._exchange = exchange
        self._ends_with_event = ends_with_event

    async def __aiter__(self) -> AsyncIterator[bytes]:
        limit = STREAM_LIMIT if self._ends_with_event else ANSWER_LIMIT
        size, ended, tail = 0, not self._ends_with_event, b""
        try:
            async for chunk in self._response.aiter_raw():
                size += len(chunk)
                if size > limit:
                    self._exchange.too_long = True
                    raise httpx.ReadError(f"the answer is longer than {limit:,} bytes")
                if self._ends_with_event:
                    window = tail + chunk
                    ended = ended or _LAST_EVENT.search(window) is not None
                    self._exchange.note(window)
                    tail = window[-_OVERLAP:]
                yield chunk
            if not ended:
                raise httpx.RemoteProtocolError("the stream ended before its last event")
        except httpx.TransportError:
            self._exchange.broken = True
            raise

    async def aclose(self) -> None:
        await self._response.aclose()


async def _settled(response: httpx.Response, exchange: Exchange) -> httpx.Response:
    """An answer with status 200 that came in one piece, as what it really is.

    Raises:
        NotACompletionError: it is neither a chat completion nor an error.
    """
    body = await response.aread()
    exchange.note(body)
    if body.lstrip().startswith(b"data:"):
        if not _LAST_EVENT.search(body):
            exchange.broken = True
            raise httpx.RemoteProtocolError("the stream ended before its last event")
        return _answer_of(response, 200, body, "text/event-stream")  # under a wrong content type
    try:
        answer = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise NotACompletionError(f"the answer is not JSON ({error})") from error
    if isinstance(answer, dict) and answer.get("error"):
        exchange.status = _named_status(answer["error"])
        return _answer_of(response, exchange.status, body, "application/json")
    choices = _choices(answer)
    if not exchange.streaming:
        return _answer_of(response, 200, body, "application/json")
    return _answer_of(response, 200, _as_events(answer, choices), "text/event-stream")


def _answer_of(response: httpx.Response, status: int, content: bytes, kind: str) -> httpx.Response:
    return httpx.Response(status, headers={"content-type": kind}, content=content, request=response.request)


def _named_status(error: Any) -> int:
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and 400 <= code <= 599 else 500


def _choices(completion: Any) -> list[dict[str, Any]]:
    choices = completion.get("choices") if isinstance(completion, dict) else None
    if not isinstance(choices, list) or not choices:
        raise NotACompletionError("the answer holds no choices")
    for choice in choices:
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict) or not isinstance(message.get("content"), str | None):
            raise NotACompletionError("a choice's message holds no text")
    return choices


def _as_events(completion: dict[str, Any], choices: list[dict[str, Any]]) -> bytes:
    shared = {key: value for key, value in completion.items() if key not in ("choices", "usage")}
    shared["object"] = "chat.completion.chunk"
    events: list[dict[str, Any]] = []
    for choice in choices:
        place, reason = choice.get("index", 0), choice.get("finish_reason") or "stop"
        events.append({**shared, "choices": [{"index": place, "delta": choice["message"], "finish_reason": None}]})
        events.append({**shared, "choices": [{"index": place, "delta": {}, "finish_reason": reason}]})
    if completion.get("usage"):
        events.append({**shared, "choices": [], "usage": completion["usage"]})
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode() + b"data: [DONE]\n\n"


def parse_retry_after(header: str | None) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
