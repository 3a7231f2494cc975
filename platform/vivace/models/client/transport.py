"""The HTTP transport under every chat client: bounded answers, and a plain record of how each call went.

Client libraries translate failures into exceptions of their own and lose the cause on the way. Whether a
server was never reached, answered with a status, or broke off in the middle is known here for certain.
"""

from __future__ import annotations

import email.utils
import json
import re
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx

from vivace.models import reported
from vivace_rubrics.json_text import parse_report

ANSWER_LIMIT = 4_000_000
"""Bytes of an answer in one piece; a longer one is cut off and counts as too long."""
STREAM_LIMIT = 64_000_000
"""Bytes of a streamed answer: every token of a long train of thought comes in an envelope of its own."""
UNPACKED_BYTES = 65_536
"""At most so much of a packed answer is unpacked at once."""
CONNECT_TIMEOUT_S = 5.0
"""A machine that is up accepts a connection at once; only its answer may take long."""

_LAST_EVENT = re.compile(rb'"finish_reason"\s*:\s*"|data:\s*\[DONE\]')
_TWO_ANSWERS = re.compile(
    rb'"choices"\s*:[^\n]*"choices"\s*:|\{\s*"index"\s*:\s*[1-9]\d*\s*,\s*"(delta|finish_reason|logprobs)"'
    rb'|"delta"\s*:\s*\{[^{}]*\}\s*,\s*"index"\s*:\s*[1-9]'
)
"""Of a chat completion's stream: a choice beyond the first, or the choices twice in one event."""
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_MODEL = re.compile(rb'"model(?:Version)?"\s*:\s*"([^"\\]+)"')
_OVERLAP = 256
"""Bytes of the piece before that are searched again: what is looked for may lie across two pieces."""


class Connections:
    """Connections that are kept, each in a client of its own, the one used last used first.

    One client with a pool would be the usual way. But at every request httpcore's pool walks through all its
    connections and asks the operating system about each: with 64 calls in flight that is 10 ms of CPU a call,
    ten times what the call itself takes. Belongs to one event loop.
    """

    def __init__(self) -> None:
        self._idle: list[httpx.AsyncClient] = []
        self._all: list[httpx.AsyncClient] = []

    def take(self) -> httpx.AsyncClient:
        """A client for one request at a time; it goes back with `give_back`, whatever became of the request."""
        if self._idle:
            return self._idle.pop()
        client = httpx.AsyncClient(verify=ssl_context(), limits=httpx.Limits(keepalive_expiry=30))
        self._all.append(client)
        return client

    def give_back(self, client: httpx.AsyncClient) -> None:
        """Keep a client for the next request."""
        self._idle.append(client)

    async def aclose(self) -> None:
        """Close all connections."""
        clients, self._all, self._idle = self._all, [], []
        for client in clients:
            await client.aclose()


@cache
def ssl_context() -> ssl.SSLContext:
    """The certificates that httpx trusts, loaded once: it would load them again for every client."""
    return httpx.create_ssl_context()


@dataclass
class WireExchange:
    """What happens on the wire during one call."""

    connections: Connections
    """Where the call goes out: connections belong to one event loop, and so to one client."""
    streaming: bool = False
    """Whether the request asks for server-sent events."""
    answer_limit: int = ANSWER_LIMIT
    """Bytes of an answer in one piece."""
    sent: bool = False
    sent_at: float = 0.0
    """When the request went out, on the clock `time.perf_counter`."""
    unreachable: bool = False
    """No connection was made at all."""
    broken: bool = False
    """The connection failed, or ended before the answer was complete."""
    status: int | None = None
    retry_after_s: float | None = None
    redirected_to: str | None = None
    """Where the server points instead of answering."""
    is_refusal: bool = False
    """Whether it was refused as every other call would be, if not for good answers before."""
    too_long: bool = False
    usage_reported: bool | None = None
    """Whether a chat completion came with the server's own count of tokens; None where that is not known."""
    model: str | None = None
    """What a chat completion's server calls the model that answered, which litellm replaces by what was asked."""

    def note(self, window: bytes, *, counts_tokens: bool) -> None:
        """Take from an answer's bytes what client libraries do not hand on.

        Args:
            window: a piece of the answer.
            counts_tokens: whether it would say how many tokens it took in the way of chat completions.
        """
        # In a text that a model wrote the quotes would stand behind backslashes.
        if counts_tokens:
            self.usage_reported = self.usage_reported or _USAGE.search(window) is not None
        if self.model is None and (found := _MODEL.search(window)):
            self.model = found[1].decode(errors="replace")


current_exchange: ContextVar[WireExchange] = ContextVar("current_exchange")


class NotACompletionError(httpx.DecodingError):
    """A complete answer with status 200 that is not a chat completion."""


async def send_watched(request: httpx.Request, exchange: WireExchange) -> httpx.Response:
    """Send a request, and note in the exchange how that goes; the answer's body is still to be read, and closed.

    The body comes unpacked. No redirect is followed: a key would go wherever a server points.

    Raises:
        httpx.TransportError: no connection, or one that broke; later also from reading the body.
        NotACompletionError: from reading the body, which is packed in a way that was not asked for.
    """
    request.headers["accept-encoding"] = "identity"
    timeouts = dict(request.extensions.get("timeout", {}))
    timeouts["connect"] = min(timeouts.get("connect") or CONNECT_TIMEOUT_S, CONNECT_TIMEOUT_S)
    request.extensions = {**request.extensions, "timeout": timeouts}
    exchange.sent, exchange.sent_at = True, time.perf_counter()
    client = exchange.connections.take()
    try:
        response = await client.send(request, stream=True, follow_redirects=False)
    except BaseException as error:
        exchange.connections.give_back(client)
        exchange.unreachable = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        exchange.broken = isinstance(error, httpx.TransportError) and not exchange.unreachable
        raise
    exchange.status = response.status_code
    exchange.retry_after_s = parse_retry_after(response.headers.get("retry-after"))
    if response.is_redirect:  # some point nowhere, such as 304
        exchange.redirected_to = response.headers.get("location")
    unpacked = [
        pair for pair in response.headers.multi_items() if pair[0] not in ("content-encoding", "content-length")
    ]
    return httpx.Response(
        response.status_code,
        headers=unpacked,
        stream=_WatchedBody(response, exchange, client),
        extensions=response.extensions,
        request=request,
    )


def is_event_stream(response: httpx.Response) -> bool:
    """Whether an answer says that it is a stream of server-sent events."""
    return bool(response.headers.get("content-type", "").split(";")[0].strip() == "text/event-stream")


class _WatchedBody(httpx.AsyncByteStream):
    """A body, unpacked, within its limit; a connection that fails under it is noted."""

    def __init__(self, response: httpx.Response, exchange: WireExchange, client: httpx.AsyncClient) -> None:
        self._response = response
        self._exchange = exchange
        self._client: httpx.AsyncClient | None = client

    async def __aiter__(self) -> AsyncIterator[bytes]:
        limit = STREAM_LIMIT if is_event_stream(self._response) else self._exchange.answer_limit
        size = 0
        unpack = _unpacking(self._response.headers.get("content-encoding", ""))
        try:
            async for chunk in self._response.aiter_raw():
                for piece in (chunk,) if unpack is None else unpack(chunk):
                    size += len(piece)
                    if size > limit:
                        self._exchange.too_long = True
                        raise httpx.ReadError(f"the answer is longer than {limit:,} bytes")
                    yield piece
        except httpx.TransportError:
            self._exchange.broken = True
            raise

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        try:
            await self._response.aclose()
        finally:
            self._exchange.connections.give_back(client)


def _unpacking(encoding: str) -> Callable[[bytes], Iterator[bytes]] | None:
    """What unpacks a body in bounded pieces, for a few bytes can stand for gigabytes; None for a plain body.

    Raises:
        NotACompletionError: it is packed otherwise than by gzip or deflate.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise NotACompletionError(f"the answer is packed as {encoding[:40]!r}, though plain text was asked for")
    packed = zlib.decompressobj(zlib.MAX_WBITS | 32)  # either, by its first bytes

    def unpack(chunk: bytes) -> Iterator[bytes]:
        try:
            while not packed.eof:
                yield (piece := packed.decompress(chunk, UNPACKED_BYTES))
                chunk = packed.unconsumed_tail
                if not chunk and len(piece) < UNPACKED_BYTES:
                    return
        except zlib.error as error:
            raise NotACompletionError(f"the answer cannot be unpacked ({error})") from error

    return unpack


class WatchingTransport(httpx.AsyncBaseTransport):
    """For client libraries: sends each request through its `current_exchange`, and notes there how the call went.

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
        try:
            response = await send_watched(request, exchange)
            is_completion = request.url.path.endswith("/chat/completions")
            if exchange.redirected_to is not None:
                await response.aclose()
                return _answer_of(response, response.status_code, b"", "text/plain")  # nothing that a client follows
            if response.status_code != 200:
                return response
            if is_completion and not is_event_stream(response):
                return await _settled(response, exchange)
        except httpx.TransportError as error:
            # What it was is noted; some kinds make litellm send the same request a second time.
            raise httpx.ReadError(str(error)) from error
        noted = _NotedBody(response, exchange, is_completion=is_completion)
        return httpx.Response(200, headers=response.headers, stream=noted, request=request)


class _NotedBody(httpx.AsyncByteStream):
    """An answer as it passes by; the stream of a chat completion has to come to its last event."""

    def __init__(self, response: httpx.Response, exchange: WireExchange, *, is_completion: bool) -> None:
        self._response = response
        self._exchange = exchange
        self._is_completion = is_completion

    async def __aiter__(self) -> AsyncIterator[bytes]:
        ended, tail = not self._is_completion, b""
        async for chunk in self._response.aiter_raw():
            window = tail + chunk
            ended = ended or _LAST_EVENT.search(window) is not None
            if self._is_completion and _TWO_ANSWERS.search(window):
                raise NotACompletionError("the stream gives more than one answer")
            self._exchange.note(window, counts_tokens=self._is_completion)
            tail = window[-_OVERLAP:]
            yield chunk
        if not ended:
            self._exchange.broken = True
            raise httpx.ReadError("the stream ended before its last event")

    async def aclose(self) -> None:
        await self._response.aclose()


async def _settled(response: httpx.Response, exchange: WireExchange) -> httpx.Response:
    """An answer with status 200 that came in one piece, as what it really is.

    Raises:
        NotACompletionError: it is neither a chat completion nor an error.
    """
    try:
        body = await response.aread()
    finally:
        await response.aclose()
    exchange.note(body, counts_tokens=True)
    if body.lstrip().startswith(b"data:"):
        if not _LAST_EVENT.search(body):
            exchange.broken = True
            raise httpx.ReadError("the stream ended before its last event")
        return _answer_of(response, 200, body, "text/event-stream")  # under a wrong content type
    answer = parse_answer(body)
    if isinstance(answer, dict) and answer.get("error"):
        exchange.status = named_status(answer["error"])
        return _answer_of(response, exchange.status, body, "application/json")
    choices = completion_choices(answer)
    if not exchange.streaming:
        return _answer_of(response, 200, body, "application/json")
    return _answer_of(response, 200, _as_events(answer, choices), "text/event-stream")


def _answer_of(response: httpx.Response, status: int, content: bytes, kind: str) -> httpx.Response:
    return httpx.Response(status, headers={"content-type": kind}, content=content, request=response.request)


def parse_answer(content: bytes) -> Any:
    """An answer's or an event's JSON.

    Raises:
        NotACompletionError: it is none, or not in UTF-8.
    """
    try:
        return parse_report(content)
    except ValueError as error:
        raise NotACompletionError(f"the answer is not JSON ({error})") from error


def named_status(error: Any) -> int:
    """The HTTP status that an error object names as its code, else 500."""
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and 400 <= code <= 599 else 500


def completion_choices(completion: Any) -> list[dict[str, Any]]:
    """The choices of a chat completion in one piece, each with a message; those that say something say the same.

    Raises:
        NotACompletionError: it is no chat completion.
    """
    choices = completion.get("choices") if isinstance(completion, dict) else None
    if not isinstance(choices, list) or not choices:
        raise NotACompletionError("the answer holds no choices")
    for choice in choices:
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict) or not isinstance(message.get("content"), str | None):
            raise NotACompletionError("a choice's message holds no text")
    check_agreement((choice["message"].get("content"), choice["message"].get("refusal")) for choice in choices)
    return choices


def check_agreement(choices: Iterable[tuple[Any, Any]]) -> None:
    """See that of several choices, though one was asked for, none says something else than another.

    Args:
        choices: the text and the refusal of each; a choice without either (a spoken answer's sound) agrees with all.

    Raises:
        NotACompletionError: two say different things, and nobody knows which is the answer.
    """
    said = {(text or "", refusal or "") for text, refusal in choices if text or refusal}
    if len(said) > 1:
        raise NotACompletionError("its choices contradict each other")


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
    """Seconds from a Retry-After header, which holds seconds or a date; an endless pause is the longest there is."""
    if header is None:
        return None
    try:
        asked = float(header)
    except ValueError:
        try:
            asked = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError, OSError):
            return None
    return reported.seconds(max(min(asked, reported.MOST_SECONDS), 0.0))
