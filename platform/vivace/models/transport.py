"""The HTTP transport under every chat client: bounded answers, and a plain record of how each call went.

Client libraries translate failures into exceptions of their own and lose the cause on the way. Whether a
server was never reached, answered with a status, or broke off in the middle is known here for certain.
"""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpx

BODY_LIMIT = 4_000_000
"""Bytes of an answer; a longer one is cut off and counts as too long."""


@dataclass
class Exchange:
    """What happened on the wire during one call."""

    streaming: bool = False
    """Whether the request asks for server-sent events."""
    unreachable: bool = False
    status: int | None = None
    retry_after_s: float | None = None
    body_complete: bool = False
    too_long: bool = False


current_exchange: ContextVar[Exchange | None] = ContextVar("current_exchange", default=None)


class _BodyTooLongError(httpx.ReadError):
    """The answer is longer than BODY_LIMIT."""


class _WatchedBody(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream, exchange: Exchange) -> None:
        self._inner = inner
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._inner:
            size += len(chunk)
            if size > BODY_LIMIT:
                self._exchange.too_long = True
                raise _BodyTooLongError(f"the answer is longer than {BODY_LIMIT:,} bytes")
            yield chunk
        self._exchange.body_complete = True

    async def aclose(self) -> None:
        await self._inner.aclose()


class WatchingTransport(httpx.AsyncBaseTransport):
    """Notes into `current_exchange` how a call went, and lets servers that cannot stream be asked to.

    A server that ignores `stream` and sends one JSON answer is common among small ones. Its answer is
    handed on as a stream of one event, so that such a server is asked once, not twice.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request."""
        exchange = current_exchange.get() or Exchange()
        try:
            response = await self._inner.handle_async_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            exchange.unreachable = True
            raise
        exchange.status = response.status_code
        exchange.retry_after_s = _retry_after(response.headers.get("retry-after"))
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _WatchedBody(response.stream, exchange)
        is_json = response.headers.get("content-type", "").split(";")[0].strip() != "text/event-stream"
        if exchange.streaming and response.status_code == 200 and is_json:
            return await _as_event_stream(response)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


async def _as_event_stream(response: httpx.Response) -> httpx.Response:
    body = await response.aread()
    await response.aclose()
    text = body.decode()  # wrong encoding is an error here as it is in a JSON answer
    if text.lstrip().startswith("data:"):
        events = text  # a stream under a wrong content type
    else:
        events = "".join(f"data: {json.dumps(event)}\n\n" for event in _chunks(json.loads(text)))
        events += "data: [DONE]\n\n"
    return httpx.Response(
        200,
        headers={"content-type": "text/event-stream"},
        content=events.encode(),
        request=response.request,
    )


def _chunks(completion: Any) -> list[Any]:
    """The events of a chat completion that came in one piece."""
    if not isinstance(completion, dict) or "error" in completion:
        return [completion]
    shared = {key: value for key, value in completion.items() if key not in ("choices", "usage")}
    shared["object"] = "chat.completion.chunk"
    events = []
    for choice in completion.get("choices") or []:
        message = choice.get("message") or {}
        reason = choice.get("finish_reason") or "stop"
        place = choice.get("index", 0)
        events.append({**shared, "choices": [{"index": place, "delta": message, "finish_reason": None}]})
        events.append({**shared, "choices": [{"index": place, "delta": {}, "finish_reason": reason}]})
    if completion.get("usage"):
        events.append({**shared, "choices": [], "usage": completion["usage"]})
    return events


def _retry_after(header: str | None) -> float | None:
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
