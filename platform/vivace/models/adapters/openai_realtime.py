"""`openai-realtime:NAME`: models that hear and speak over OpenAI's Realtime API, one WebSocket a conversation.

Source: OpenAI's Realtime API reference (https://platform.openai.com/docs/api-reference/realtime), the
generally available form of its events.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.frames import CloseCode

from vivace.audio.convert import encode_wav
from vivace.audio.spoken import is_sound
from vivace.errors import UnreachableError, UsageError, VivaceError
from vivace.machine.environment import checked_address, load_surroundings
from vivace.models import reported
from vivace.models.adapters.base import Asked, Capabilities
from vivace.models.base import ModelIdentity, ModelReply, Prompt, SpokenOutput
from vivace.models.client.calls import CallRecord, ChatOptions, record_call, recorded_calls
from vivace.models.client.chat import PREFLIGHT_TIMEOUT_S
from vivace.models.client.completions import NO_KEY
from vivace.models.client.pacing import CHARACTERS_OF_AUDIO_PER_TOKEN, LONGEST_PAUSE_S, CallPace, total_tokens
from vivace.models.client.providers.openai_compatible import OPENAI_ADDRESS, PROVIDERS
from vivace.models.client.providers.prices import cost_of
from vivace.models.client.providers.refusals import Refusals, no_credit, redirect, spent_quota
from vivace.models.client.realtime.events import (
    RATE,
    Output,
    checked_parameters,
    conversation_events,
    event_of,
    session_of,
)
from vivace.models.client.realtime.session import (
    CONNECTION,
    EVENT_LIMIT,
    ReceivedAnswer,
    RedirectedError,
    ReportedError,
    closing_report,
    converse,
    next_event,
    rejection,
)
from vivace.models.client.transport import parse_retry_after
from vivace.models.client.tries import (
    CONNECT_TRIES,
    CONTENT_FILTER_CODES,
    NO_CREDIT,
    RETRIED,
    asked_pause,
    pause_before_connecting,
    pause_before_retry,
)
from vivace.output.secrets import masked
from vivace_rubrics.criteria import Unscored
from vivace_rubrics.texts import is_blank, without_thoughts

KEY_CODES = frozenset({"authentication_error", "invalid_api_key", "permission_error"})
MODEL_CODES = frozenset({"invalid_model", "model_not_found"})
LIMIT_CODES = re.compile("rate_limit")


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

    capabilities: ClassVar = Capabilities(speaks="always", provider="openai")

    @classmethod
    def open(cls, asked: Asked) -> OpenAIRealtimeSystem:
        """A model of the realtime API.

        Raises:
            UsageError: an argument cannot be used, or contradicts a flag.
        """
        others, output = with_flags(asked.arguments, asked.spoken)
        is_transcribed = asked.spoken.transcriber is not None
        return cls(asked.name, others, asked.options, output, is_transcribed=is_transcribed)

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
        self._pace = CallPace(options.requests_per_minute, options.tokens_per_minute, f"realtime:{model}")
        parameters = checked_parameters(arguments, output)
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
        self._session_update = event_of("session.update", session=session_of(parameters, output))
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
        received = ReceivedAnswer()
        error: Exception | None = None
        try:
            async with asyncio.timeout(PREFLIGHT_TIMEOUT_S), self._open_session(received):
                pass
        except Exception as caught:
            error = caught
        if error is None or received.configured:
            return
        failure = self._failure(error, received)
        if failure.ending is not None:
            raise failure.ending
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
            received = ReceivedAnswer()
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
                await asyncio.sleep(pause_before_connecting(connect_failures))
                continue
            if caller.is_free(turn):
                continue
            is_last = failure.unscored not in RETRIED or failures >= self._options.retries
            if failure.ending is not None:
                self._refusals.note(failure.ending)
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

    async def _try(self, events: Sequence[str], received: ReceivedAnswer) -> _Failure | None:
        start = time.perf_counter()
        error: Exception | None = None
        try:
            async with asyncio.timeout(self._options.timeout_s) as limit, self._open_session(received) as connection:
                await converse(connection, events, received)
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
    async def _open_session(self, received: ReceivedAnswer) -> AsyncIterator[AsyncRealtimeConnection]:
        async with self._client.realtime.connect(
            model=self._model, websocket_connection_options=CONNECTION
        ) as connection:
            received.connected = True
            created = await next_event(connection, "session.created")
            received.model_snapshot = getattr(getattr(created, "session", None), "model", None)
            await connection.send_raw(self._session_update)
            await next_event(connection, "session.updated")
            received.configured = True
            yield connection

    def _flaw(self, received: ReceivedAnswer) -> _Failure | None:
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

    def _failure(self, error: Exception, received: ReceivedAnswer) -> _Failure:
        """Why a try broke off before the answer's end.

        Raises:
            UnreachableError: the account has no credit.
        """
        if isinstance(error, RedirectedError):
            ending = redirect("model", self._model, str(self._client.base_url), masked(str(error)))
            return _failed(Unscored.SERVER_ERROR, "the address points elsewhere", ending=ending)
        if isinstance(error, InvalidStatus):
            failure = self._reported(rejection(error), configured=False)
            return replace(failure, retry_after_s=parse_retry_after(error.response.headers.get("retry-after")))
        if isinstance(error, ReportedError):
            return self._reported(error, configured=received.configured)
        if not received.connected and isinstance(error, OSError | InvalidMessage):  # TimeoutError is an OSError
            return _failed(Unscored.CONNECTION_CUT, str(error) or "no answer in time", unreachable=True)
        if isinstance(error, TimeoutError):
            return _failed(Unscored.TIMEOUT, f"no complete answer within {self._options.timeout_s:g} s")
        if isinstance(error, ConnectionClosed):
            if error.sent is not None and error.sent.code == CloseCode.MESSAGE_TOO_BIG:
                return _failed(Unscored.TOO_LONG, f"an event is longer than {EVENT_LIMIT:,} bytes")
            reported = closing_report(error)
            if reported is not None:
                return self._reported(reported, configured=received.configured)
            return _failed(Unscored.CONNECTION_CUT, f"the connection broke off before the answer's end: {error}")
        if isinstance(error, InvalidHandshake):
            return _failed(Unscored.SERVER_ERROR, f"no WebSocket was opened: {error}")
        why = f"{type(error).__name__}: {error}"
        return _failed(Unscored.UNREADABLE, f"the server's answer is not an event of the Realtime API ({why})")

    def _reported(self, error: ReportedError, *, configured: bool = True) -> _Failure:
        """What an error that the server reports means.

        Args:
            error: the report.
            configured: whether the session was accepted; what is refused before is refused to every conversation.

        Raises:
            UnreachableError: the account has no credit.
        """
        detail = masked(str(error))[:500]
        words = {error.kind, error.code}
        if words & MODEL_CODES:
            unknown = (
                f"The server of the model '{self._model}' does not know it, or not as a Realtime model ({detail}); "
                "check the name and the address."
            )
            return _failed(Unscored.SERVER_ERROR, detail, ending=UsageError(unknown))
        if words & KEY_CODES:
            refused = (
                f"The server of the model '{self._model}' refuses the key; "
                "check OPENAI_API_KEY in the environment or in .env."
            )
            return _failed(Unscored.SERVER_ERROR, detail, ending=UsageError(refused))
        if words & CONTENT_FILTER_CODES:
            return _failed(Unscored.CONTENT_FILTER, detail)
        if NO_CREDIT in words:
            raise no_credit("model", self._model, detail)
        if any(LIMIT_CODES.search(word) for word in words):
            return _failed(Unscored.RATE_LIMITED, detail, _asked_wait(error.message))
        if error.kind == "invalid_request_error":
            if not configured:
                refused = f"The model '{self._model}' does not take these parameters: {detail}"
                return _failed(Unscored.BAD_REQUEST, detail, ending=UsageError(refused))
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


@dataclass(frozen=True)
class _Failure:
    """Why a try brought no reply."""

    unscored: Unscored
    detail: str
    retry_after_s: float | None = None
    unreachable: bool = False
    ending: VivaceError | None = None
    """What ends the run where every try fails so."""


def _failed(
    unscored: Unscored,
    detail: str,
    retry_after_s: float | None = None,
    *,
    unreachable: bool = False,
    ending: VivaceError | None = None,
) -> _Failure:
    return _Failure(unscored, masked(detail)[:500], retry_after_s, unreachable, ending)


def _wav(sound: bytes | bytearray) -> bytes:
    samples = np.frombuffer(sound, "<i2", count=len(sound) // 2) / 32768.0
    return encode_wav(samples, RATE)


def _reply(received: ReceivedAnswer) -> ModelReply:
    return ModelReply(
        text=received.text,
        audio=_wav(received.audio) if received.audio else None,
        finish_reason=received.finish_reason,
        model_snapshot=received.model_snapshot,
        ttft_s=received.ttft_s,
        first_audio_s=received.first_audio_s,
        total_s=received.total_s,
    )


def _no_reply(failure: _Failure, received: ReceivedAnswer) -> ModelReply:
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


def _asked_wait(message: str) -> float | None:
    """Seconds, from the way OpenAI words a spent limit: `Please try again in 8.4s.`"""
    found = re.search(r"try again in (\d+(?:\.\d+)?)(ms|s)\b", message)
    if found is None:
        return None
    return reported.seconds(float(found[1]) / (1000 if found[2] == "ms" else 1))
