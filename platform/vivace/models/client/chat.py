"""One chat client for models and judges: tries, timeouts, accounting, and a reason for every failure."""

from __future__ import annotations

import asyncio
import math
import os
import time
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from vivace.audio.spoken import as_wav, is_sound
from vivace.errors import UnreachableError, UsageError, VivaceError
from vivace.machine.environment import checked_address, load_surroundings, read_key, settle_keys
from vivace.models.client.cache import current_answers
from vivace.models.client.calls import CallRecord, ChatOptions, record_call, recorded_calls
from vivace.models.client.completions import (
    NO_KEY,
    TEXT_LIMIT,
    CallError,
    DirectCompletions,
    Received,
    RefusedArgumentsError,
)
from vivace.models.client.messages import has_audio
from vivace.models.client.pacing import LONGEST_PAUSE_S, CallPace, request_size, total_tokens
from vivace.models.client.providers.openai_compatible import PROVIDERS, split_model
from vivace.models.client.providers.prices import TokenUsage
from vivace.models.client.providers.refusals import (
    Refusals,
    always_refused,
    argument_names,
    no_credit,
    redirect,
    refused_parameter,
    spent_quota,
    unknown_parameter,
)
from vivace.models.client.providers.rules import refused_audio
from vivace.models.client.transport import STREAM_LIMIT, Connections, WireExchange, current_exchange, ssl_context
from vivace.models.client.tries import (
    CONNECT_TRIES,
    CONTENT_FILTER_CODES,
    NO_CREDIT,
    RETRIED,
    asked_pause,
    pause_before_connecting,
    pause_before_retry,
)
from vivace.output.secrets import masked, without_keys
from vivace_methods.suggestions import did_you_mean
from vivace_rubrics.criteria import Unscored
from vivace_rubrics.texts import is_blank, storable, without_thoughts

LONGEST_ERROR = 10_000
"""Characters of an error that are looked at: far more than are shown."""
PREFLIGHT_TIMEOUT_S = 5.0
RESERVED_ARGUMENTS = frozenset(
    {
        "model", "messages", "stream", "stream_options", "base_url", "timeout", "n", "tools", "tool_choice",
        "functions", "function_call", "web_search_options", "extra_headers", "extra_query", "system",
        "organization", "deployment_id", "drop_params", "additional_drop_params", "hooks", "mock_delay",
        "mock_tool_calls", "mock_response", "mock_timeout", "api_key", "api_base", "api_version", "headers", "client",
        "ssl_verify", "request_timeout", "force_timeout", "stream_timeout", "max_retries", "num_retries",
        "retry_policy", "fallbacks", "custom_llm_provider", "allowed_openai_params", "model_list", "base_model",
        "cache", "caching", "metadata", "tags",
    }
)  # fmt: skip
"""What a `--model-arg` may not set, beside litellm's other switches where it is litellm that asks: Vivace sets
it, it is a secret, or it would change the protocol."""


@dataclass(frozen=True)
class ChatAnswer:
    """The answer to one request; exactly one of `text` and `unscored` is set, and the text is as it was written."""

    text: str | None
    unscored: Unscored | None = None
    detail: str | None = None
    finish_reason: str | None = None
    model_snapshot: str | None = None
    audio: bytes | None = None
    """A spoken answer as a WAV file; `text` is then the server's own transcript."""
    ttft_s: float | None = None
    first_audio_s: float | None = None
    total_s: float | None = None
    raw_text: str | None = None
    """What was written, where it came to no answer."""


class Completions(Protocol):
    """A way to ask a server for a chat completion."""

    async def receive(self, messages: list[dict[str, Any]], exchange: WireExchange, received: Received) -> None:
        """Ask once, and note in `received` what comes; raises what has gone wrong."""
        ...

    def cost_of(self, usage: TokenUsage) -> float | None:
        """US dollars by the provider's prices, where they are known."""
        ...


class ChatClient:
    """Chat completions of one model, asked for directly where the server speaks OpenAI's form, else through litellm.

    Args:
        model: litellm's name, `provider/model`.
        arguments: generation parameters, passed on as they are.
        options: address, timeout and tries.
        role: `model` or `judge`, for messages.
        is_transcribed: whether a spoken answer needs no transcript of the server's.

    Raises:
        UsageError: litellm knows no such provider, an argument is reserved, or the address is missing or none.
    """

    def __init__(
        self,
        model: str,
        arguments: dict[str, Any],
        options: ChatOptions,
        role: str,
        *,
        is_transcribed: bool = False,
    ) -> None:
        load_surroundings()
        # Whoever imports litellm later in this process: it would fetch a price list from the internet.
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
        self.model = model
        self.arguments = arguments
        self.options = options
        self.role = role
        self._answered = False
        self._pace = CallPace(options.requests_per_minute, options.tokens_per_minute, f"{role}:{model}")
        self._connections: Connections | None = None
        self._speaks = "audio" in (arguments.get("modalities") or ())
        self._is_transcribed = is_transcribed
        self._refusals = Refusals()
        self._check_arguments()
        provider, name, default_base = _resolved(model, role)
        if not name:
            raise UsageError(f"The {role} '{model}' lacks a name after '{provider}/'.")
        self._direct = PROVIDERS.get(provider)
        self._provider = provider
        self.address = self._own_address()
        """Where an OpenAI-compatible server of one's own is asked; None for the provider's own address."""
        self._base = self.address or default_base
        self._completions = self._open_completions(name)

    def _open_completions(self, name: str) -> Completions:
        if self._direct is None:
            from vivace.models.client.litellm_bridge import LiteLLMCompletions

            self._check_litellms_switches()
            settle_keys(self._provider)
            return LiteLLMCompletions(self.model, self._provider, self.address, self._key(), self.arguments)
        if self._base is None:
            raise UsageError(
                f"The {self.role} '{self.model}' runs on a server of your own; "
                f"give its address with {'--judge-api-base' if self.role == 'judge' else '--api-base'}."
            )
        return DirectCompletions(name, self._direct, self._base, self.arguments)

    def _own_address(self) -> str | None:
        """The address of the flag, else of the environment, checked; None for the provider's own."""
        if self.options.api_base:
            return checked_address(self.options.api_base, self.role)
        if self._direct is None or (address := self._direct.address_in_environment) is None:
            return None
        return checked_address(address, self.role, self._direct.address_variable)

    def _check_arguments(self) -> None:
        for name in argument_names(self.arguments):
            if name in RESERVED_ARGUMENTS:
                raise self._reserved(name)

    def _check_litellms_switches(self) -> None:
        from litellm.types.utils import all_litellm_params

        for name in argument_names(self.arguments):
            if name in all_litellm_params:
                raise self._reserved(name)

    def _reserved(self, name: str) -> UsageError:
        return UsageError(f"--{self.role}-arg cannot set '{name}'; leave it out.")

    async def preflight(self) -> None:
        """See that a key is there and that something answers at the address.

        Raises:
            UsageError: no key is set, or it is refused.
            UnreachableError: nothing answers.
        """
        self.check_key()
        if self._base is None:
            return
        key = self._key()
        try:
            # Its status is all that counts; the body, which may be long or never end, is left unread.
            async with (
                asyncio.timeout(PREFLIGHT_TIMEOUT_S),
                httpx.AsyncClient(verify=ssl_context()) as client,
                client.stream(
                    "GET", self._base.rstrip("/") + "/models", headers={"authorization": f"Bearer {key or NO_KEY}"}
                ) as response,
            ):
                status = response.status_code
        except (httpx.TransportError, TimeoutError) as error:
            unreachable = self._unreachable(str(error) or type(error).__name__)
            unreachable.is_late = isinstance(error, httpx.TimeoutException | TimeoutError)
            raise unreachable from error
        # Without a key at hand nothing was shown that could be refused: litellm may find it by another name.
        if status in (401, 403) and (key or self.address):
            raise self._refused_key()

    def check_key(self) -> None:
        """See that a key is there, where one is needed.

        Raises:
            UsageError: none is set.
        """
        if self.address is None and (missing := self._missing_keys()):
            raise UsageError(
                f"The {self.role} '{self.model}' needs {missing}, which is not set; "
                "set it in the environment or in .env."
            )

    def _missing_keys(self) -> str:
        if self._direct is not None:
            return "" if self._direct.key or not self._direct.address else self._direct.key_names[0]
        missing = _litellm().validate_environment(self.model).get("missing_keys") or []
        # Gemini's two names are for the same key; elsewhere all that are listed are needed.
        return (" or " if self._provider == "gemini" else " and ").join(missing)

    async def ask(self, messages: list[dict[str, Any]], *, stream: bool) -> ChatAnswer:
        """One answer, with as many tries as the options allow, or the one kept from an earlier time.

        Args:
            messages: in the form of OpenAI's chat completions.
            stream: receive the answer in pieces, which times its first token.

        Raises:
            UsageError: a refused key or an unknown model: every other call would fail too.
            UnreachableError: nothing answers at the address, or the account has no credit.
        """
        answers = current_answers()
        if answers is None:
            return await self._persist(messages, stream)
        request = [self.model, self.address, self.arguments, self._is_transcribed, messages]
        key = await asyncio.to_thread(answers.key_of, request)
        kept = await asyncio.to_thread(answers.get, key)
        if kept is not None:
            record_call(CallRecord(seconds=0.0, cost_usd=0.0, cached=True))
            return ChatAnswer(**kept)
        answer = await self._persist(messages, stream)
        if answer.text is not None and answer.finish_reason == "stop":
            # Times are measurements of one call, and say nothing of another.
            untimed = {name: value for name, value in vars(answer).items() if not name.endswith("_s")}
            await asyncio.to_thread(answers.put, key, untimed)
        return answer

    async def _persist(self, messages: list[dict[str, Any]], stream: bool) -> ChatAnswer:
        caller, size = self._pace.caller(), request_size(messages)
        failures = connect_failures = 0
        while True:
            exchange = WireExchange(self._open_connections(), streaming=stream)
            async with caller.turn(size) as turn:
                with recorded_calls() as calls:
                    answer = await self._try(messages, exchange)
                pause_s = asked_pause(answer.detail, exchange.retry_after_s)
                turn.ended(_status(answer, exchange), pause_s, total_tokens(calls))
            for call in calls:
                record_call(call)
            if exchange.status is not None:
                self._answered = True
            if exchange.unreachable:
                connect_failures += 1
                if connect_failures >= (CONNECT_TRIES if self._answered else 2):
                    raise self._unreachable(answer.detail or "no connection")
                await asyncio.sleep(pause_before_connecting(connect_failures))
                continue
            if caller.is_free(turn):
                continue
            is_retried = answer.unscored in RETRIED or exchange.is_refusal
            is_last = not is_retried or failures >= self.options.retries
            if answer.unscored is Unscored.RATE_LIMITED:
                self._note_limit(answer, pause_s, is_last=is_last)
            if is_last:
                return answer
            await asyncio.sleep(pause_before_retry(failures, exchange.retry_after_s))
            failures += 1

    def _note_limit(self, answer: ChatAnswer, pause_s: float | None, *, is_last: bool) -> None:
        """Note a call that was turned away for its rate and not for a moment.

        Raises:
            IncompleteError: so is every other one.
        """
        if pause_s is not None and math.isinf(pause_s):
            return  # this request alone is too large
        is_long = pause_s is not None and pause_s > LONGEST_PAUSE_S
        error = spent_quota(self.role, self.model, pause_s if is_long else None, answer.detail or "")
        self._refusals.note(error, is_certain=is_long and is_last)

    async def close(self) -> None:
        """Close the connections."""
        if self._connections is not None:
            await self._connections.aclose()
            self._connections = None

    def _open_connections(self) -> Connections:
        if self._connections is None:
            self._connections = Connections()
        return self._connections

    async def _try(self, messages: list[dict[str, Any]], exchange: WireExchange) -> ChatAnswer:
        if self._speaks:
            exchange.answer_limit = STREAM_LIMIT  # sound takes its place, streamed or not
        token = current_exchange.set(exchange)
        start = exchange.sent_at = time.perf_counter()
        received = Received()
        failure: Exception | None = None
        try:
            async with asyncio.timeout(self.options.timeout_s):
                await self._completions.receive(messages, exchange, received)
        except Exception as error:
            failure = error
        finally:
            current_exchange.reset(token)
        ended = time.perf_counter()
        # Outside the handler, so that no error raised here drags an answer with a key in it along.
        if failure is None:
            answer = self._answer(received, total_s=ended - exchange.sent_at)
            self._refusals.answered()
        else:
            answer = self._failed(failure, exchange, messages)
        usage = received.usage
        record_call(
            CallRecord(
                seconds=ended - start,
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                input_audio_tokens=usage.input_audio_tokens,
                cost_usd=self._cost(usage),
                error=answer.unscored,
                detail=answer.detail,
            )
        )
        return answer

    def _answer(self, received: Received, total_s: float) -> ChatAnswer:
        """What an answer that came to its end is worth."""
        text = without_keys(storable(received.text))
        says_nothing = is_blank(without_thoughts(text))
        unscored: Unscored | None = None
        detail: str | None = None
        if received.finish_reason == "content_filter":
            unscored, detail = Unscored.CONTENT_FILTER, "the provider's filter stopped the answer"
        elif received.refusal:
            unscored, detail = Unscored.REFUSED, masked(received.refusal)[:500]
        elif len(text) > TEXT_LIMIT:
            unscored, detail = Unscored.TOO_LONG, f"the answer is longer than {TEXT_LIMIT:,} characters"
        elif self._speaks and not received.audio and not says_nothing:
            unscored, detail = Unscored.NO_AUDIO, "the model answered in text although audio was asked for"
        elif self._speaks and received.audio and not is_sound(as_wav(bytes(received.audio))):
            unscored, detail = Unscored.NO_AUDIO, f"the spoken answer is no sound ({len(received.audio)} bytes)"
        elif says_nothing and not (self._is_transcribed and received.audio):
            what = "empty" if is_blank(text) else "nothing but thoughts"
            unscored, detail = Unscored.EMPTY, f"the answer is {what} (finish reason {received.finish_reason})"
        return ChatAnswer(
            text=None if unscored else text,
            unscored=unscored,
            detail=detail,
            finish_reason=received.finish_reason,
            model_snapshot=received.model_snapshot,
            audio=as_wav(bytes(received.audio)) if received.audio and not unscored else None,
            ttft_s=received.ttft_s,
            first_audio_s=received.first_audio_s,
            total_s=total_s,
            raw_text=text if unscored is Unscored.EMPTY and not is_blank(text) else None,
        )

    def _failed(self, error: Exception, exchange: WireExchange, messages: list[dict[str, Any]]) -> ChatAnswer:
        """Why a call failed, from what was seen on the wire first and what the server says second.

        Raises:
            UsageError: every other call would fail too.
        """
        unscored, detail, ending = self._reason(error, exchange)
        if ending is not None:
            self._refusals.note(ending)
            exchange.is_refusal = True
        is_refused = unscored in (Unscored.BAD_REQUEST, Unscored.SERVER_ERROR) and self.role == "model"
        refusal = refused_audio(detail) if is_refused and has_audio(messages) else None
        if refusal is not None:
            detail = f"{refusal.explanation}: {detail}"
            if refusal.is_total and not self._refusals.has_answered:
                raise UsageError(f"The server of the {self.role} '{self.model}' takes no such audio: {detail}")
        elif unscored is Unscored.BAD_REQUEST and ending is None and not self._refusals.has_answered:
            self._refusals.note(always_refused(self.role, self.model, detail), is_certain=False)
        return ChatAnswer(None, unscored, masked(detail)[:500])

    def _reason(self, error: Exception, exchange: WireExchange) -> tuple[Unscored, str, VivaceError | None]:
        """What a failure is to the call, in words, and what ends the run where every call fails so.

        Raises:
            UsageError: parameters that cannot be sent: every other call would fail.
            UnreachableError: the account has no credit.
        """
        reported = error if isinstance(error, CallError) else CallError(f"{type(error).__name__}: {error}")
        status = exchange.status if exchange.status not in (None, 200) else reported.status
        detail = masked(str(reported)[:LONGEST_ERROR])[:500]
        if exchange.too_long:
            return Unscored.TOO_LONG, "the answer is longer than any honest one", None
        if exchange.unreachable:
            return Unscored.CONNECTION_CUT, "no connection", None
        if isinstance(error, TimeoutError):
            return Unscored.TIMEOUT, f"no complete answer within {self.options.timeout_s:g} s", None
        if exchange.broken:
            return Unscored.CONNECTION_CUT, "the connection broke off before the answer was complete", None
        if reported.codes & CONTENT_FILTER_CODES:
            return Unscored.CONTENT_FILTER, detail, None
        if exchange.status == 200:
            if error is reported:
                return Unscored.SERVER_ERROR, detail, None
            return Unscored.UNREADABLE, f"the server's answer is none that can be read ({detail})", None
        if isinstance(error, RefusedArgumentsError):
            raise UsageError(f"The {self.role} '{self.model}' does not take these parameters: {detail}")
        if status in (401, 403):
            return Unscored.SERVER_ERROR, detail, self._refused_key()
        if status == 404:
            unknown = (
                f"The server of the {self.role} '{self.model}' does not know that model ({detail}); "
                "check the name and the address."
            )
            return Unscored.SERVER_ERROR, detail, UsageError(unknown)
        if status == 402 or (status == 429 and (NO_CREDIT in reported.codes or NO_CREDIT in detail)):
            raise no_credit(self.role, self.model, detail)
        if status == 429:
            return Unscored.RATE_LIMITED, detail, None
        if status is not None and 300 <= status < 500 and status != 408:
            return Unscored.BAD_REQUEST, detail, self._lasting(detail, exchange)
        return Unscored.SERVER_ERROR, detail, None

    def _lasting(self, detail: str, exchange: WireExchange) -> VivaceError | None:
        """What a refused request means for all others: that they fare no better, or nothing."""
        if exchange.redirected_to is not None:
            return redirect(self.role, self.model, self._base, masked(exchange.redirected_to))
        name = refused_parameter(argument_names(self.arguments), detail)
        return None if name is None else unknown_parameter(self.role, self.model, name, detail)

    def _refused_key(self) -> UsageError:
        return UsageError(
            f"The server of the {self.role} '{self.model}' refuses the key; "
            "check the provider's key in the environment or in .env."
        )

    def _unreachable(self, why: str) -> UnreachableError:
        where = self._base or f"the provider '{self._provider}'"
        return UnreachableError(
            f"Nothing answers for the {self.role} '{self.model}' at {where} ({masked(why)}); "
            "start the server or check the address, then run the same command again."
        )

    def _key(self) -> str | None:
        """The provider's key, where it goes by the usual name."""
        if self._direct is not None:
            return self._direct.key
        own: str | None = _litellm().get_llm_provider(self.model)[2]
        return read_key(f"{self._provider.upper()}_API_KEY") or own

    def _cost(self, usage: TokenUsage) -> float | None:
        # Also at an address of one's own: a gateway passes its provider's bill on. A model that is served there
        # under a name of its own is not on the list, and costs nothing.
        return self.options.price.of(usage) if self.options.price else self._completions.cost_of(usage)


def _litellm() -> Any:
    from vivace.models.client.litellm_bridge import load_litellm

    return load_litellm()


def _resolved(model: str, role: str) -> tuple[str, str, str | None]:
    """A model's provider, its name there, and the provider's own address where it is known.

    Raises:
        UsageError: litellm knows no such provider.
    """
    provider, name = split_model(model)
    if provider not in PROVIDERS:
        try:
            name, provider, _, base = _litellm().get_llm_provider(model)
        except Exception as error:
            meant = did_you_mean(provider or model, [*PROVIDERS, *map(str, _litellm().provider_list)])
            raise UsageError(
                f"litellm knows no provider for the {role} '{model}'{meant}; write it as provider/name, "
                "for instance litellm:openai/gpt-audio."
            ) from error
        if provider not in PROVIDERS:
            return str(provider), name, base
    return str(provider), name, PROVIDERS[str(provider)].address


def _status(answer: ChatAnswer, exchange: WireExchange) -> int | None:
    """The status that a try ended with, also where a client library of its own has made it."""
    if answer.unscored is Unscored.RATE_LIMITED:
        return 429
    return 200 if exchange.status is None and answer.text is not None else exchange.status
