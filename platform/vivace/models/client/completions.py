"""Chat completions asked for directly over HTTP, where the server speaks OpenAI's form of them.

Client libraries cost 10 to 20 ms of CPU a call (building and validating objects of which two fields are read),
and litellm seconds to import; over a whole run that is more than everything else together.

Source: OpenAI's API reference (https://platform.openai.com/docs/api-reference/chat).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from vivace.machine.environment import read_key
from vivace.models.client.providers.openai_compatible import OPENAI_ADDRESS, Provider
from vivace.models.client.providers.prices import TokenUsage, cost_of
from vivace.models.client.transport import (
    NotACompletionError,
    WireExchange,
    check_agreement,
    completion_choices,
    is_event_stream,
    named_status,
    parse_answer,
    send_watched,
)

TEXT_LIMIT = 250_000
"""Characters of an answer; a longer one is not kept."""
NO_KEY = "none"
"""A server of one's own needs no key, but some insist on seeing one."""
PARTING_S = 0.1
"""How long the end of a stream is waited for after its last event, so that the connection can be kept."""

_REASONING_MODEL = re.compile(r"o\d|gpt-[5-9]")


class CallError(Exception):
    """Why a call brought no answer, in the server's own words.

    Args:
        detail: what it says; may hold a key that it repeats.
        status: of HTTP, or the one that comes nearest.
        codes: the error's type and code.
    """

    def __init__(self, detail: str, status: int | None = None, codes: frozenset[str] = frozenset()) -> None:
        super().__init__(detail)
        self.status = status
        self.codes = codes


class RefusedArgumentsError(CallError):
    """A request was never sent: the client library takes its parameters for wrong."""


@dataclass
class Received:
    """What one try brought; times are in seconds from sending the request."""

    text: str = ""
    refusal: str = ""
    finish_reason: str | None = None
    model_snapshot: str | None = None
    ttft_s: float | None = None
    usage: TokenUsage = field(default_factory=TokenUsage)
    audio: bytearray = field(default_factory=bytearray)
    """A spoken answer: 16-bit mono PCM at 24 kHz, or a WAV file from servers that speak in one piece."""
    first_audio_s: float | None = None


class DirectCompletions:
    """Requests to one OpenAI-compatible server.

    Args:
        name: the model as the server calls it.
        provider: whose key is sent.
        base: the server's address, up to `/v1`.
        arguments: generation parameters; those in `extra_body` stand beside the others in the request.
    """

    def __init__(self, name: str, provider: Provider, base: str, arguments: dict[str, Any]) -> None:
        self._priced_as = f"{provider.name}/{name}"
        self._url = httpx.URL(base.rstrip("/") + "/chat/completions")
        self._request = {"model": name, **_request_fields(name, base, arguments)}
        self._headers = {"content-type": "application/json", **request_headers(provider, base)}

    async def receive(self, messages: list[dict[str, Any]], exchange: WireExchange, received: Received) -> None:
        """Ask once, and note in `received` what comes, as it comes.

        Raises:
            CallError: the server says that it has failed.
            NotACompletionError: what it answers is no chat completion.
            httpx.TransportError: the connection failed; the exchange holds how.
        """
        body = {**self._request, "messages": messages}
        if exchange.streaming:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        content = RequestBody(body)
        headers = {**self._headers, "host": self._url.netloc.decode("ascii"), "content-length": str(content.size)}
        request = httpx.Request("POST", self._url, stream=content, headers=headers)
        response = await send_watched(request, exchange)
        try:
            if response.status_code != 200:
                raise _reported(await response.aread(), response.status_code)
            if is_event_stream(response):
                await _EventReader(exchange, received).read(response.aiter_raw())
            else:
                await _take_whole(await response.aread(), exchange, received)
        finally:
            await response.aclose()

    def cost_of(self, usage: TokenUsage) -> float | None:
        """US dollars by the provider's list; None where the model has no price."""
        return cost_of(self._priced_as, usage)


def request_headers(provider: Provider, base: str) -> dict[str, str]:
    """The key, and at OpenAI's own address whom the call is charged to."""
    headers = {"authorization": f"Bearer {provider.key or NO_KEY}"}
    if base.rstrip("/") == OPENAI_ADDRESS:
        for header, name in (("openai-organization", "OPENAI_ORG_ID"), ("openai-project", "OPENAI_PROJECT_ID")):
            if (value := read_key(name)) is not None:
                headers[header] = value
    return headers


def _request_fields(name: str, base: str, arguments: dict[str, Any]) -> dict[str, Any]:
    given = {**arguments, **(arguments.get("extra_body") or {})}
    fields = {key: value for key, value in given.items() if key != "extra_body" and value is not None}
    if base.rstrip("/") == OPENAI_ADDRESS and _REASONING_MODEL.match(name) and "max_tokens" in fields:
        fields["max_completion_tokens"] = fields.pop("max_tokens")  # the only name that these models take
    return fields


class RequestBody(httpx.AsyncByteStream):
    """A request as JSON, put together only while it is sent: minutes of audio lie in memory once and not thrice.

    Recordings are put in as they are, for searching megabytes of base64 for what JSON has to escape takes longer
    than all the rest of the call.
    """

    def __init__(self, body: dict[str, Any]) -> None:
        place = secrets.token_hex(16)
        self._recordings: list[str] = []

        def without_recording(part: dict[str, Any]) -> dict[str, Any]:
            if part["type"] != "input_audio":
                return part
            self._recordings.append(part["input_audio"]["data"])
            return {**part, "input_audio": {**part["input_audio"], "data": place}}

        messages = [
            {**message, "content": list(map(without_recording, message["content"]))}
            if isinstance(message["content"], list)
            else message
            for message in body["messages"]
        ]
        self._between = json.dumps({**body, "messages": messages}, separators=(",", ":")).split(place)

    @property
    def size(self) -> int:
        """Bytes in all: everything in it is ASCII."""
        return sum(map(len, self._between)) + sum(map(len, self._recordings))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for before, recording in zip(self._between[:-1], self._recordings, strict=True):
            yield (before + recording).encode("ascii")
        yield self._between[-1].encode("ascii")


async def _take_whole(content: bytes, exchange: WireExchange, received: Received) -> None:
    """An answer that came in one piece, as small servers send it even where a stream is asked for."""
    if content.lstrip().startswith(b"data:"):  # a stream under a wrong content type
        await _EventReader(exchange, received).read(_once(content))
        return
    answer = parse_answer(content)
    if isinstance(answer, dict) and answer.get("error"):
        exchange.status = named_status(answer["error"])
        raise _reported(content, exchange.status)
    choices = completion_choices(answer)
    seconds = time.perf_counter() - exchange.sent_at
    # A server that answers in text and in sound may put them into two choices.
    texts = [choice for choice in choices if choice["message"].get("content") or choice["message"].get("refusal")]
    choice = (texts or choices)[0]
    received.model_snapshot = _text(answer.get("model")) or None
    received.usage = usage_of(answer.get("usage"))
    received.finish_reason = _text(choice.get("finish_reason")) or "stop"
    received.refusal = _text(choice["message"].get("refusal"))
    received.text = choice["message"].get("content") or ""
    for spoken in choices:
        sound = spoken["message"].get("audio")
        if isinstance(sound, dict):
            received.text = _text(sound.get("transcript")) or received.text
            received.audio += _samples(sound.get("data"))
    if received.audio:
        received.first_audio_s = seconds
    if exchange.streaming and received.text:
        received.ttft_s = seconds


class _EventReader:
    """Reads a stream of server-sent events, each a `chat.completion.chunk`."""

    def __init__(self, exchange: WireExchange, received: Received) -> None:
        self._exchange = exchange
        self._received = received
        self._texts: dict[int, list[str]] = {}
        """By the choice's index; one is asked for, and some servers give several."""
        self._refusals: dict[int, list[str]] = {}
        self._transcript: list[str] = []
        self._size = 0
        self._ended = False

    async def read(self, chunks: AsyncIterator[bytes]) -> None:
        """Read to the last event.

        Raises:
            CallError: an event reports an error.
            NotACompletionError: an event is no chunk of a completion.
            httpx.ReadError: the stream ends before its last event.
        """
        try:
            rest = await self._read_lines(chunks)
            if rest is not None:
                with suppress(NotACompletionError):  # half an event, where the stream was cut
                    self._is_last(rest)
                if not self._ended:
                    self._exchange.broken = True
                    raise httpx.ReadError("the stream ended before its last event")
        finally:
            self._received.text = "".join(self._transcript or next(iter(self._texts.values()), []))
            self._received.refusal = "".join(next(iter(self._refusals.values()), []))
        places = self._texts.keys() | self._refusals.keys()
        check_agreement(("".join(self._texts.get(p, [])), "".join(self._refusals.get(p, []))) for p in places)
        with suppress(TimeoutError, httpx.TransportError):
            async with asyncio.timeout(PARTING_S):
                async for _ in chunks:
                    pass

    async def _read_lines(self, chunks: AsyncIterator[bytes]) -> bytes | None:
        """Take line after line up to the last event; what stands behind the last line where the stream just ends.

        Raises:
            httpx.ReadError: a line is longer than an answer in one piece may be.
        """
        begun: list[bytes] = []  # put together once: a line may come in thousands of pieces
        length = 0
        async for chunk in chunks:
            begun.append(chunk)
            length += len(chunk)
            if b"\n" in chunk:
                *lines, rest = b"".join(begun).split(b"\n")
                if any(self._is_last(line) for line in lines) or self._size > TEXT_LIMIT:
                    return None
                begun, length = [rest], len(rest)
            if length > self._exchange.answer_limit:
                self._exchange.too_long = True
                raise httpx.ReadError("a line is longer than a whole answer")
        return b"".join(begun)

    def _is_last(self, line: bytes) -> bool:
        """Take a line; whether it says that the stream is over."""
        if not line.startswith(b"data:"):
            return False
        data = line[5:].strip()
        if data == b"[DONE]":
            self._ended = True
            return True
        if data:
            self._take(parse_answer(data))
        return False

    def _take(self, event: Any) -> None:
        if not isinstance(event, dict):
            raise NotACompletionError("an event is no JSON object")
        if event.get("error"):
            self._exchange.status = named_status(event["error"])
            raise _reported(json.dumps(event).encode(), self._exchange.status)
        received = self._received
        received.model_snapshot = _text(event.get("model")) or received.model_snapshot
        if event.get("usage"):
            received.usage = usage_of(event["usage"])
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            delta = choice.get("delta") if isinstance(choice, dict) else None
            if not isinstance(delta, dict | None):
                raise NotACompletionError("an event's delta is no object")
            self._take_delta(choice, delta or {})

    def _take_delta(self, choice: dict[str, Any], delta: dict[str, Any]) -> None:
        received, seconds = self._received, time.perf_counter() - self._exchange.sent_at
        if choice.get("finish_reason"):
            received.finish_reason, self._ended = _text(choice["finish_reason"]), True
        index = choice.get("index")
        place = index if isinstance(index, int) else 0
        if refusal := _text(delta.get("refusal")):
            self._refusals.setdefault(place, []).append(refusal)
            self._size += len(refusal)
        piece = delta.get("content")
        if not isinstance(piece, str | None):
            raise NotACompletionError("an event's delta holds no text")
        if piece:
            self._note(piece, self._texts.setdefault(place, []), seconds)
        if isinstance(sound := delta.get("audio"), dict):
            self._note(_text(sound.get("transcript")), self._transcript, seconds)
            if samples := _samples(sound.get("data")):
                received.first_audio_s = received.first_audio_s or seconds
                received.audio += samples

    def _note(self, piece: str, pieces: list[str], seconds: float) -> None:
        if piece:
            self._received.ttft_s = self._received.ttft_s or seconds
            pieces.append(piece)
            self._size += len(piece)


def usage_of(usage: Any) -> TokenUsage:
    """The tokens of a completion's `usage`, in the field names of chat completions or of the Realtime API."""
    if not isinstance(usage, dict):
        return TokenUsage()
    heard = _part(usage, "prompt_tokens_details", "input_token_details")
    spoken = _part(usage, "completion_tokens_details", "output_token_details")
    return TokenUsage(
        input_tokens=usage.get("prompt_tokens", usage.get("input_tokens")),
        output_tokens=usage.get("completion_tokens", usage.get("output_tokens")),
        input_audio_tokens=heard.get("audio_tokens"),
        output_audio_tokens=spoken.get("audio_tokens"),
        cached_tokens=heard.get("cached_tokens"),
        cost_usd=usage.get("cost"),  # OpenRouter's, in US dollars
    )


def _part(usage: dict[str, Any], *names: str) -> dict[str, Any]:
    return next((usage[name] for name in names if isinstance(usage.get(name), dict)), {})


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _samples(data: Any) -> bytes:
    try:
        return base64.b64decode(data, validate=True) if data else b""
    except (binascii.Error, TypeError, ValueError) as error:
        raise NotACompletionError("the answer's audio is not base64") from error


def _reported(content: bytes, status: int) -> CallError:
    """What the body of an error says: OpenAI's error object, another JSON, or any text."""
    try:
        error = json.loads(content)
    except (ValueError, RecursionError):
        error = None
    error = error.get("error", error) if isinstance(error, dict) else error
    if not isinstance(error, dict):
        words = error if isinstance(error, str) else content.decode(errors="replace")
        return CallError(f"HTTP {status}: {' '.join(words.split()) or 'no reason given'}", status)
    message = error.get("message") or error.get("detail") or json.dumps(error)
    codes = [code for code in (error.get("code"), error.get("type")) if isinstance(code, str)]
    return CallError(" ".join(["HTTP", str(status), *codes[:1]]) + f": {message}", status, frozenset(codes))


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
