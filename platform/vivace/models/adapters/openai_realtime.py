"""`openai-realtime:NAME`: models that hear and speak over OpenAI's Realtime API, one WebSocket a conversation.

Source: OpenAI's Realtime API reference (https://platform.openai.com/docs/api-reference/realtime), the
generally available form of its events.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import time
import wave
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import RealtimeResponse, RealtimeServerEvent
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.frames import CloseCode

from vivace.audio.convert import decode, encode_wav, to_mono
from vivace.audio.spoken import is_sound
from vivace.errors import UnreachableError, UsageError
from vivace.machine.environment import checked_address, load_surroundings
from vivace.models import reported
from vivace.models.base import ModelIdentity, ModelReply, Prompt, SpokenOutput, SpokenTurn
from vivace.models.client.calls import CallRecord, ChatOptions, record_call, recorded_calls
from vivace.models.client.chat import (
    CONNECT_TRIES,
    CONTENT_FILTER_CODES,
    FIRST_WAIT_S,
    NO_CREDIT,
    PREFLIGHT_TIMEOUT_S,
    RETRIED,
    asked_pause,
    pause_before_retry,
)
from vivace.models.client.completions import NO_KEY, TEXT_LIMIT, usage_of
from vivace.models.client.pacing import CHARACTERS_OF_AUDIO_PER_TOKEN, LONGEST_PAUSE_S, Pace, total_tokens
from vivace.models.client.prices import TokenUsage, cost_of
from vivace.models.client.providers import OPENAI_ADDRESS, PROVIDERS
from vivace.models.client.refusals import Refusals, no_credit, redirect, spent_quota
from vivace.models.client.transport import STREAM_LIMIT, parse_retry_after
from vivace.output.secrets import masked
from vivace_rubrics.criteria import Unscored
from vivace_rubrics.texts import is_blank, without_thoughts

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

KEY_CODES = frozenset({"authentication_error", "invalid_api_key", "permission_error"})
MODEL_CODES = frozenset({"invalid_model", "model_not_found"})
LIMIT_CODES = re.compile("rate_limit")

EVENT_LIMIT = 16_000_000
"""Bytes of one event; those that the API takes are limited to 15 MiB."""


class _Connection(ClientConnection):
    """A connection to the address that was given, and to no other that a server points to."""

    async def handshake(self, *args: Any, **kwargs: Any) -> None:
        """Open the WebSocket.

        Raises:
            _RedirectedError: the server points elsewhere.
        """
        try:
            await super().handshake(*args, **kwargs)
        except InvalidStatus as error:
            if 300 <= error.response.status_code < 400 and "location" in error.response.headers:
                raise _RedirectedError(error.response.headers["location"]) from None
            raise


class _RedirectedError(Exception):
    """A server points elsewhere, where the message says, instead of opening a session."""


_CONNECTION: Any = {
    "create_connection": _Connection,
    "max_size": EVENT_LIMIT,
    "compression": None,  # base64 of sound gains little, and the packing would be part of every time measured
    "ping_interval": None,  # the timeout of the try finds a dead server, too
    "close_timeout": 1.0,
}
"""Options of `websockets`; openai passes all of them on, though its type lists only some."""


class OpenAIRealtimeSystem:
    """A speech model under test: user turns as audio, assistant turns as text, no system prompt, no tools.

    Every conversation has a connection of its own, with turn detection off. The server's default
    instructions are a system prompt, so they are cleared. Its leave to drop the oldest turns of a long
    conversation is withdrawn: a conversation that does not fit is refused, not silently shortened.

    With text-only assistant turns before it, a model sometimes answers in text although audio was asked for
    (https://github.com/openai/openai-realtime-api-beta/issues/72). Such an answer is tried again, and in the
    end unscored as `no_audio`; each one is a recorded call with that error.

    Args:
        model: OpenAI's name, for instance `gpt-realtime`.
        arguments: generation parameters: `voice`, `speed`, and any field of the session, for instance
            `max_output_tokens` or `reasoning`.
        options: address, timeout and tries.
        output: what the model answers with; for `audio`, the reply's text is the model's own transcript.
        is_transcribed: whether a spoken answer needs no transcript of the model's.

    Raises:
        UsageError: an argument is reserved or does not fit the output, or the output or the address is none.
    """

    def __init__(
        self,
        model: str,
        arguments: dict[str, Any],
        options: ChatOptions,
        output: Output = "audio",
        *,
        is_transcribed: bool = False,
    ) -> None:
        load_surroundings()
        self._model = model
        self._options = options
        self._output = output
        self._is_transcribed = is_transcribed
        self._answered = False
        self._refusals = Refusals()
        self._pace = Pace(options.requests_per_minute, options.tokens_per_minute)
        parameters = _parameters(arguments, output)
        provider = PROVIDERS["openai"]
        given = options.api_base or provider.address_in_environment or OPENAI_ADDRESS
        address = checked_address(given, "model", None if options.api_base else provider.address_variable)
        self._own_server = address.rstrip("/") != OPENAI_ADDRESS
        self._identity = ModelIdentity(
            target=f"openai-realtime:{model}",
            adapter="openai-realtime",
            name=model,
            address=address if self._own_server else None,
            parameters={"output": output, **parameters},
        )
        self._session_update = _event("session.update", session=_session(parameters, output))
        self._client = AsyncOpenAI(api_key=provider.key or NO_KEY, base_url=address)

    @property
    def identity(self) -> ModelIdentity:
        """Name, address, output, voice, and every generation parameter."""
        return self._identity

    def check_key(self) -> None:
        """See that a key is there, where one is needed.

        Raises:
            UsageError: none is set.
        """
        if not self._own_server and PROVIDERS["openai"].key is None:
            raise UsageError(
                f"The model '{self._model}' needs OPENAI_API_KEY, which is not set; "
                "set it in the environment or in .env."
            )

    async def preflight(self) -> None:
        """Open a session as every conversation will, which costs no tokens, and close it again.

        Raises:
            UsageError: no key is set or it is refused, or the model or a parameter is unknown.
            UnreachableError: nothing answers, or nothing that opens a session.
        """
        self.check_key()
        received = _Received()
        error: Exception | None = None
        try:
            async with asyncio.timeout(PREFLIGHT_TIMEOUT_S), self._open_session(received):
                pass
        except Exception as caught:
            error = caught
        if error is None or received.configured:
            return
        failure = self._failure(error, received)
        if failure.unreachable or failure.unscored in (Unscored.TIMEOUT, Unscored.CONNECTION_CUT):
            raise self._unreachable(failure.detail)

    async def reply(self, prompt: Prompt) -> ModelReply:
        """Ask for the reply; its times count from when the conversation is sent, over a session that is open.

        Raises:
            UsageError: a refused key, an unknown model or parameter: every other call would fail too.
            UnreachableError: nothing answers at the address.
        """
        events = await asyncio.to_thread(conversation_events, prompt)
        caller, size = self._pace.caller(), sum(map(len, events)) / CHARACTERS_OF_AUDIO_PER_TOKEN
        failures = connect_failures = 0
        while True:
            received = _Received()
            async with caller.turn(size) as turn:
                with recorded_calls() as calls:
                    failure = await self._try(events, received)
                turn.ended(*_ended(failure), total_tokens(calls))
            for call in calls:
                record_call(call)
            self._answered = self._answered or received.connected
            if failure is None:
                self._refusals.answered()
                return _reply(received)
            if failure.unreachable:
                connect_failures += 1
                if connect_failures >= (CONNECT_TRIES if self._answered else 2):
                    raise self._unreachable(failure.detail)
                await asyncio.sleep(min(5.0, FIRST_WAIT_S * 2**connect_failures))
                continue
            if caller.is_free(turn):
                continue
            is_last = failure.unscored not in RETRIED or failures >= self._options.retries
            if (failure.retry_after_s or 0.0) > LONGEST_PAUSE_S:
                error = spent_quota("model", self._model, failure.retry_after_s, failure.detail)
                self._refusals.note(error, is_certain=is_last)
            if is_last:
                return _no_reply(failure, received)
            await asyncio.sleep(pause_before_retry(failures, failure.retry_after_s))
            failures += 1

    async def close(self) -> None:
        """Close the client; connections close with their conversations."""
        await self._client.close()

    async def _try(self, events: Sequence[str], received: _Received) -> _Failure | None:
        start = time.perf_counter()
        error: Exception | None = None
        try:
            async with asyncio.timeout(self._options.timeout_s) as limit, self._open_session(received) as connection:
                await _converse(connection, events, received)
                limit.reschedule(None)  # the answer is whole; parting has a timeout of its own
        except Exception as caught:
            error = caught
        seconds = time.perf_counter() - start
        failure = self._flaw(received) if error is None else self._failure(error, received)
        price = self._options.price
        record_call(
            CallRecord(
                seconds=seconds,
                input_tokens=received.usage.input_tokens,
                output_tokens=received.usage.output_tokens,
                input_audio_tokens=received.usage.input_audio_tokens,
                cost_usd=price.of(received.usage) if price else cost_of(self._model, received.usage),
                error=failure.unscored if failure else None,
                detail=failure.detail if failure else None,
            )
        )
        return failure

    @asynccontextmanager
    async def _open_session(self, received: _Received) -> AsyncIterator[AsyncRealtimeConnection]:
        async with self._client.realtime.connect(
            model=self._model, websocket_connection_options=_CONNECTION
        ) as connection:
            received.connected = True
            created = await _next(connection, "session.created")
            received.model_snapshot = getattr(getattr(created, "session", None), "model", None)
            await connection.send_raw(self._session_update)
            await _next(connection, "session.updated")
            received.configured = True
            yield connection

    def _flaw(self, received: _Received) -> _Failure | None:
        """Why an answer that came to its end is no reply, if it is none."""
        if not received.ended:
            return _failed(Unscored.TOO_LONG, "the answer is longer than any honest one")
        if received.error is not None:
            return self._reported(received.error)
        if received.finish_reason == "cancelled":
            return _failed(Unscored.SERVER_ERROR, "the server cancelled its answer")
        if received.finish_reason == "content_filter":
            return _failed(Unscored.CONTENT_FILTER, "the provider's filter stopped the answer")
        says_nothing = is_blank(without_thoughts(received.text))
        if self._output == "audio" and not received.audio and not says_nothing:
            return _failed(Unscored.NO_AUDIO, "the model answered in text although audio was asked for")
        if received.audio and not is_sound(_wav(received.audio)):
            return _failed(Unscored.NO_AUDIO, f"the spoken answer is no sound ({len(received.audio)} bytes)")
        if says_nothing and not (self._is_transcribed and received.audio):
            what = "empty" if is_blank(received.text) else "nothing but thoughts"
            return _failed(Unscored.EMPTY, f"the answer is {what} (finish reason {received.finish_reason})")
        return None

    def _failure(self, error: Exception, received: _Received) -> _Failure:
        """Why a try broke off before the answer's end.

        Raises:
            UsageError: every other try would fail too.
        """
        if isinstance(error, _RedirectedError):
            raise redirect("model", self._model, str(self._client.base_url), masked(str(error)))
        if isinstance(error, InvalidStatus):
            failure = self._reported(_rejection(error), configured=False)
            return replace(failure, retry_after_s=parse_retry_after(error.response.headers.get("retry-after")))
        if isinstance(error, _ReportedError):
            return self._reported(error, configured=received.configured)
        if not received.connected and isinstance(error, OSError | InvalidMessage):  # TimeoutError is an OSError
            return _failed(Unscored.CONNECTION_CUT, str(error) or "no answer in time", unreachable=True)
        if isinstance(error, TimeoutError):
            return _failed(Unscored.TIMEOUT, f"no complete answer within {self._options.timeout_s:g} s")
        if isinstance(error, ConnectionClosed):
            if error.sent is not None and error.sent.code == CloseCode.MESSAGE_TOO_BIG:
                return _failed(Unscored.TOO_LONG, f"an event is longer than {EVENT_LIMIT:,} bytes")
            reported = _closing_report(error)
            if reported is not None:
                return self._reported(reported, configured=received.configured)
            return _failed(Unscored.CONNECTION_CUT, f"the connection broke off before the answer's end: {error}")
        if isinstance(error, InvalidHandshake):
            return _failed(Unscored.SERVER_ERROR, f"no WebSocket was opened: {error}")
        why = f"{type(error).__name__}: {error}"
        return _failed(Unscored.UNREADABLE, f"the server's answer is not an event of the Realtime API ({why})")

    def _reported(self, error: _ReportedError, *, configured: bool = True) -> _Failure:
        """What an error that the server reports means.

        Args:
            error: the report.
            configured: whether the session was accepted; what is refused before is refused to every conversation.

        Raises:
            UsageError: every other try would fail too.
            UnreachableError: the account has no credit.
        """
        detail = masked(str(error))[:500]
        words = {error.kind, error.code}
        if words & MODEL_CODES:
            raise UsageError(
                f"The server of the model '{self._model}' does not know it, or not as a Realtime model ({detail}); "
                "check the name and the address."
            )
        if words & KEY_CODES:
            raise UsageError(
                f"The server of the model '{self._model}' refuses the key; "
                "check OPENAI_API_KEY in the environment or in .env."
            )
        if words & CONTENT_FILTER_CODES:
            return _failed(Unscored.CONTENT_FILTER, detail)
        if NO_CREDIT in words:
            raise no_credit("model", self._model, detail)
        if any(LIMIT_CODES.search(word) for word in words):
            return _failed(Unscored.RATE_LIMITED, detail, _asked_wait(error.message))
        if error.kind == "invalid_request_error":
            if not configured:
                raise UsageError(f"The model '{self._model}' does not take these parameters: {detail}")
            return _failed(Unscored.BAD_REQUEST, detail)
        return _failed(Unscored.SERVER_ERROR, detail)

    def _unreachable(self, why: str) -> UnreachableError:
        return UnreachableError(
            f"No Realtime session can be opened for the model '{self._model}' at {self._client.base_url} "
            f"({why}); start the server or check the address, then run the same command again."
        )


def _ended(failure: _Failure | None) -> tuple[int | None, float | None]:
    """How a try ended, as its HTTP status would be, and the pause that the server asks for."""
    if failure is None:
        return 200, None
    is_limited = failure.unscored is Unscored.RATE_LIMITED
    return 429 if is_limited else None, asked_pause(failure.detail, failure.retry_after_s)


def with_flags(arguments: dict[str, Any], spoken: SpokenOutput) -> tuple[dict[str, Any], Output]:
    """The arguments without `output`, and with the voice of the flags, and what the model answers with.

    Raises:
        UsageError: an argument says something else than the flag of the same name.
    """
    given = dict(arguments)
    for name, flag in (("output", spoken.output), ("voice", spoken.voice)):
        if flag is not None and given.setdefault(name, flag) != flag:
            raise UsageError(f"--{name} {flag} and --model-arg {name}={given[name]} contradict; leave one out.")
    return given, given.pop("output", "audio")


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
    return [*events, _event("response.create")]


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
        yield _event("input_audio_buffer.append", audio=_base64(piece))
    yield _event("input_audio_buffer.commit")


def _pcm(recording: bytes) -> bytes:
    wav = encode_wav(to_mono(decode(recording), RATE), RATE)
    with wave.open(io.BytesIO(wav), "rb") as file:
        return bytes(file.readframes(file.getnframes()))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _event(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields})


def _message(role: str, content: dict[str, Any]) -> str:
    return _event("conversation.item.create", item={"type": "message", "role": role, "content": [content]})


def _parameters(arguments: dict[str, Any], output: Output) -> dict[str, Any]:
    if output not in get_args(Output):
        raise UsageError(f"A Realtime model answers in {' or '.join(get_args(Output))}, not in '{output}'.")
    for name in arguments:
        if name in RESERVED_ARGUMENTS:
            raise UsageError(f"--model-arg cannot set '{name}'; leave it out.")
        if name in SPOKEN_ARGUMENTS and output != "audio":
            raise UsageError(f"--model-arg '{name}' is about a spoken reply; leave it out or ask for audio.")
    return {"voice": DEFAULT_VOICE, **arguments} if output == "audio" else dict(arguments)


def _session(parameters: dict[str, Any], output: Output) -> dict[str, Any]:
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


@dataclass(frozen=True)
class _Failure:
    """Why a try brought no reply."""

    unscored: Unscored
    detail: str
    retry_after_s: float | None = None
    unreachable: bool = False


def _failed(
    unscored: Unscored, detail: str, retry_after_s: float | None = None, *, unreachable: bool = False
) -> _Failure:
    return _Failure(unscored, masked(detail)[:500], retry_after_s, unreachable)


class _ReportedError(Exception):
    """An error as the server reports it, by an event, in a response's status, or in refusing the connection."""

    def __init__(self, kind: object, code: object, message: object) -> None:
        super().__init__(" ".join(str(word) for word in (kind, code, message) if word) or "no reason given")
        self.kind = str(kind)
        self.code = str(code)
        self.message = str(message)


@dataclass
class _Received:
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
    error: _ReportedError | None = None
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
            self.error = _ReportedError(getattr(error, "type", None), getattr(error, "code", None), message)
        if usage:
            self.usage = usage_of(usage.model_dump())
        self.ended = True


async def _next(connection: AsyncRealtimeConnection, kind: str) -> RealtimeServerEvent:
    """The next event of a kind; others before it are passed over.

    Raises:
        _ReportedError: the server reports an error instead.
    """
    while True:
        event = await _receive(connection)
        if event.type == kind:
            return event


async def _receive(connection: AsyncRealtimeConnection) -> RealtimeServerEvent:
    event = await connection.recv()
    if event.type == "error":  # whatever was refused, the conversation would no longer be the one asked about
        raise _ReportedError(event.error.type, event.error.code, event.error.message)
    return event


async def _converse(connection: AsyncRealtimeConnection, events: Sequence[str], received: _Received) -> None:
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


def _wav(sound: bytes | bytearray) -> bytes:
    samples = np.frombuffer(sound, "<i2", count=len(sound) // 2) / 32768.0
    return encode_wav(samples, RATE)


def _reply(received: _Received) -> ModelReply:
    return ModelReply(
        text=received.text,
        audio=_wav(received.audio) if received.audio else None,
        finish_reason=received.finish_reason,
        model_snapshot=received.model_snapshot,
        ttft_s=received.ttft_s,
        first_audio_s=received.first_audio_s,
        total_s=received.total_s,
    )


def _no_reply(failure: _Failure, received: _Received) -> ModelReply:
    return ModelReply(
        text=None,
        unscored=failure.unscored,
        detail=failure.detail,
        finish_reason=received.finish_reason,
        model_snapshot=received.model_snapshot,
        ttft_s=received.ttft_s,
        total_s=received.total_s,
        raw_text=received.text if failure.unscored is Unscored.EMPTY and not is_blank(received.text) else None,
    )


def _rejection(error: InvalidStatus) -> _ReportedError:
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
    return _ReportedError(kind, code, message or f"HTTP {status}")


def _closing_report(error: ConnectionClosed) -> _ReportedError | None:
    """What a server says in closing, by a code of its own and `invalid_request_error.invalid_model`, say."""
    if error.rcvd is None or error.rcvd.code < 3000:
        return None
    kind, _, code = error.rcvd.reason.partition(".")
    return _ReportedError(kind, code, None)


def _asked_wait(message: str) -> float | None:
    """Seconds, from the way OpenAI words a spent limit: `Please try again in 8.4s.`"""
    found = re.search(r"try again in (\d+(?:\.\d+)?)(ms|s)\b", message)
    if found is None:
        return None
    return reported.seconds(float(found[1]) / (1000 if found[2] == "ms" else 1))
