"""One chat client for models and judges: tries, timeouts, accounting, and a reason for every failure."""

from __future__ import annotations

import asyncio
import base64
import importlib
import inspect
import json
import logging
import os
import random
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from vivace.errors import UnreachableError, UsageError
from vivace.models.calls import CallRecord, record_call
from vivace.models.transport import (
    STREAM_LIMIT,
    Exchange,
    NotACompletionError,
    WatchingTransport,
    current_exchange,
)
from vivace_rubrics.criteria import Unscored
from vivace_rubrics.parsing import storable

RETRIED = frozenset(
    {
        Unscored.TIMEOUT,
        Unscored.RATE_LIMITED,
        Unscored.SERVER_ERROR,
        Unscored.CONNECTION_CUT,
        Unscored.UNREADABLE,
        Unscored.EMPTY,
    }
)
"""Failures that another try may mend; the others would come again."""

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 30.0
"""The longest wait between two tries that a server can ask for. One that asks for more (the rest of the day,
for a spent quota) is tried at the usual pace, and the item left unscored for a later `--retry-errors`."""
CONNECT_TRIES = 6
"""Tries to connect to a server that has answered before, in 13 seconds; then the run stops, to be resumed."""
CONTENT_FILTER_CODES = frozenset({"content_policy_violation", "content_filter"})
"""Error codes by which OpenAI and Azure say that their filter stopped a request."""
TEXT_LIMIT = 250_000
"""Characters of an answer; a longer one is not kept."""
PREFLIGHT_TIMEOUT_S = 5.0
BY_OPENAIS_LIBRARY = frozenset({"openai", "custom_openai"})
"""Providers that litellm asks through OpenAI's own client library, and so through `WatchingTransport`."""
NO_KEY = "none"
"""A server of one's own needs no key, but the client library insists on some."""

RESERVED_ARGUMENTS = frozenset(
    {
        "model", "messages", "stream", "stream_options", "base_url", "timeout", "n", "tools", "tool_choice",
        "functions", "function_call", "web_search_options", "extra_headers", "extra_query", "system",
        "organization", "deployment_id", "drop_params", "additional_drop_params", "hooks", "mock_delay",
        "mock_tool_calls",
    }
)  # fmt: skip
"""What a `--model-arg` may not set, besides litellm's own switches (keys, addresses, retries, mock answers):
Vivace sets it, it is a secret, or it would change the protocol."""
OPENAI_ADDRESS = "https://api.openai.com/v1"


@dataclass(frozen=True)
class ChatOptions:
    """How calls are made; none of this changes what a good answer says, so none is part of an identity."""

    api_base: str | None = None
    timeout_s: float = 120.0
    """For one try, from sending to the last byte."""
    retries: int = 3


@dataclass(frozen=True)
class ChatAnswer:
    """The answer to one request; exactly one of `text` and `unscored` is set."""

    text: str | None
    unscored: Unscored | None = None
    detail: str | None = None
    finish_reason: str | None = None
    model_snapshot: str | None = None
    ttft_s: float | None = None
    total_s: float | None = None


@dataclass
class _Received:
    """What one try brought."""

    text: str = ""
    refusal: str = ""
    finish_reason: str | None = None
    model_snapshot: str | None = None
    ttft_s: float | None = None
    usage: Any = None


class ChatClient:
    """Chat completions through litellm, for one model.

    Args:
        model: litellm's name, `provider/model`.
        arguments: generation parameters, passed on as they are.
        options: address, timeout and tries.
        role: `model` or `judge`, for messages.

    Raises:
        UsageError: litellm knows no such provider, an argument is reserved, or the address is none.
    """

    def __init__(self, model: str, arguments: dict[str, Any], options: ChatOptions, role: str) -> None:
        self.model = model
        self.arguments = arguments
        self.options = options
        self.role = role
        self._answered = False
        self._connections: httpx.AsyncClient | None = None
        self._litellm = _load_litellm()
        self._check_arguments()
        try:
            name, self._provider, self._own_key, default_base = self._litellm.get_llm_provider(model)
        except Exception as error:
            raise UsageError(
                f"litellm knows no provider for the {role} '{model}'; write it as provider/name, "
                "for instance litellm:openai/gpt-audio."
            ) from error
        if not name:
            raise UsageError(f"The {role} '{model}' lacks a name after '{self._provider}/'.")
        self.address = options.api_base or self._address_in_environment()
        """Where an OpenAI-compatible server of one's own is asked; None for the provider's own address."""
        self._base = self.address or (OPENAI_ADDRESS if self._provider == "openai" else default_base)
        self._check_address()
        self._arguments = _for_openai(arguments) if self._provider in BY_OPENAIS_LIBRARY else arguments

    def _check_arguments(self) -> None:
        from litellm.types.utils import all_litellm_params

        names = list(self.arguments)
        if isinstance(self.arguments.get("extra_body"), dict):
            names += self.arguments["extra_body"]  # its keys end up beside the others in the request
        for name in names:
            if name in RESERVED_ARGUMENTS or name in all_litellm_params:
                raise UsageError(f"--{self.role}-arg cannot set '{name}'; leave it out.")

    def _address_in_environment(self) -> str | None:
        if self._provider != "openai":
            return None
        base = os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_BASE")
        return base if base and base.rstrip("/") != OPENAI_ADDRESS else None

    def _check_address(self) -> None:
        if self.address is None:
            return
        try:
            url = httpx.URL(self.address)
        except httpx.InvalidURL:
            url = httpx.URL("")
        if url.scheme not in ("http", "https") or not url.host:
            raise UsageError(f"The address '{redacted(self.address)}' of the {self.role} is not an HTTP URL.")
        if url.userinfo or url.query:
            raise UsageError(
                f"The address of the {self.role} carries a password or a query, which would be stored; leave "
                "them out, and set the provider's key in the environment or in .env."
            )

    async def preflight(self) -> None:
        """See that a key is there and that something answers at the address.

        Raises:
            UsageError: no key is set, or it is refused.
            UnreachableError: nothing answers.
        """
        if self.address is None:
            missing = self._litellm.validate_environment(self.model).get("missing_keys") or []
            if missing:
                # Gemini's two names are for the same key; elsewhere all that are listed are needed.
                names = (" or " if self._provider == "gemini" else " and ").join(missing)
                raise UsageError(
                    f"The {self.role} '{self.model}' needs {names}, which is not set; "
                    "set it in the environment or in .env."
                )
        if self._base is None:
            return
        key = self._key()
        try:
            # Its status is all that counts; the body, which may be long or never end, is left unread.
            async with (
                asyncio.timeout(PREFLIGHT_TIMEOUT_S),
                httpx.AsyncClient() as client,
                client.stream(
                    "GET", self._base.rstrip("/") + "/models", headers={"authorization": f"Bearer {key or NO_KEY}"}
                ) as response,
            ):
                status = response.status_code
        except (httpx.TransportError, TimeoutError) as error:
            raise self._unreachable(str(error) or type(error).__name__) from error
        # Without a key at hand nothing was shown that could be refused: litellm may find it by another name.
        if status in (401, 403) and (key or self.address):
            raise self._refused_key()

    async def ask(self, messages: list[dict[str, Any]], *, stream: bool) -> ChatAnswer:
        """One answer, with as many tries as the options allow.

        Args:
            messages: in the form of OpenAI's chat completions.
            stream: receive the answer in pieces, which times its first token.

        Raises:
            UsageError: a refused key or an unknown model: every other call would fail too.
            UnreachableError: nothing answers at the address.
        """
        failures = connect_failures = 0
        while True:
            exchange = Exchange(self._open_connections(), streaming=stream)
            answer = await self._try(messages, exchange)
            if exchange.status is not None:
                self._answered = True
            if exchange.unreachable:
                connect_failures += 1
                if connect_failures >= (CONNECT_TRIES if self._answered else 2):
                    raise self._unreachable(answer.detail or "no connection")
                await asyncio.sleep(min(5.0, FIRST_WAIT_S * 2**connect_failures))
                continue
            if answer.unscored not in RETRIED or failures >= self.options.retries:
                return answer
            await asyncio.sleep(pause_before_retry(failures, exchange.retry_after_s))
            failures += 1

    async def close(self) -> None:
        """Close the connections."""
        if self._connections is not None:
            await self._connections.aclose()
            self._connections = None

    def _open_connections(self) -> httpx.AsyncClient:
        if self._connections is None:
            self._connections = httpx.AsyncClient(
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=30)
            )
        return self._connections

    async def _try(self, messages: list[dict[str, Any]], exchange: Exchange) -> ChatAnswer:
        token = current_exchange.set(exchange)
        start = exchange.sent_at = time.perf_counter()
        received = _Received()
        failure: Exception | None = None
        try:
            async with asyncio.timeout(self.options.timeout_s):
                await self._receive(messages, exchange, received)
        except Exception as error:
            failure = error
        finally:
            current_exchange.reset(token)
        ended = time.perf_counter()
        # Outside the handler, so that no error raised here drags an answer with a key in it along.
        if failure is None:
            received.model_snapshot = exchange.model or received.model_snapshot
            answer = _answer(received, total_s=ended - exchange.sent_at)
        else:
            answer = self._failed(failure, exchange)
        # Where a server counts no tokens, litellm makes up a number of its own.
        usage = received.usage if exchange.usage_reported is not False else None
        record_call(
            CallRecord(
                seconds=ended - start,
                input_tokens=getattr(usage, "prompt_tokens", None),
                output_tokens=getattr(usage, "completion_tokens", None),
                cost_usd=self._cost(usage),
                error=answer.unscored,
                detail=answer.detail,
            )
        )
        return answer

    async def _receive(self, messages: list[dict[str, Any]], exchange: Exchange, received: _Received) -> None:
        stream = exchange.streaming
        response = await self._litellm.acompletion(
            model=self.model,
            messages=messages,
            stream=stream,
            **({"stream_options": {"include_usage": True}} if stream else {}),
            **({"api_base": self.address, "api_key": self._key() or NO_KEY} if self.address else {}),
            timeout=self.options.timeout_s,
            num_retries=0,
            max_retries=0,
            allowed_openai_params=list(self._arguments),
            **self._arguments,
        )
        if stream:
            await _receive_stream(response, exchange, received)
        else:
            _receive_whole(response, received)

    def _failed(self, error: Exception, exchange: Exchange) -> ChatAnswer:
        """Why a call failed, from what was seen on the wire first and litellm's exception second.

        Raises:
            UsageError: every other call would fail too.
        """
        unscored, detail = self._reason(error, exchange)
        return ChatAnswer(None, unscored, redacted(detail)[:500])

    def _reason(self, error: Exception, exchange: Exchange) -> tuple[Unscored, str]:
        exceptions = self._litellm.exceptions
        detail = redacted(f"{type(error).__name__}: {error}")[:500]
        status = exchange.status or getattr(error, "status_code", None)
        if exchange.too_long:
            return Unscored.TOO_LONG, "the answer is longer than any honest one"
        if exchange.unreachable:
            return Unscored.CONNECTION_CUT, "no connection"
        if isinstance(error, TimeoutError | exceptions.Timeout):
            return Unscored.TIMEOUT, f"no complete answer within {self.options.timeout_s:g} s"
        if exchange.broken:
            return Unscored.CONNECTION_CUT, "the connection broke off before the answer was complete"
        if isinstance(error, exceptions.ContentPolicyViolationError) or _codes(error) & CONTENT_FILTER_CODES:
            return Unscored.CONTENT_FILTER, detail
        if exchange.status == 200:
            if _is_reported(error):
                return Unscored.SERVER_ERROR, detail
            return Unscored.UNREADABLE, f"the server's answer is not a chat completion ({_first_cause(error)})"
        if isinstance(error, exceptions.UnsupportedParamsError) or (
            not exchange.sent and self._provider in BY_OPENAIS_LIBRARY
        ):
            raise UsageError(f"The {self.role} '{self.model}' does not take these parameters: {detail}")
        if status in (401, 403) or isinstance(error, exceptions.AuthenticationError):
            raise self._refused_key()
        if status == 404:
            raise UsageError(
                f"The server of the {self.role} '{self.model}' does not know that model ({detail}); "
                "check the name and the address."
            )
        if status == 429:
            return Unscored.RATE_LIMITED, detail
        if status is not None and 400 <= status < 500 and status != 408:
            return Unscored.BAD_REQUEST, detail
        return Unscored.SERVER_ERROR, detail

    def _refused_key(self) -> UsageError:
        return UsageError(
            f"The server of the {self.role} '{self.model}' refuses the key; "
            "check the provider's key in the environment or in .env."
        )

    def _unreachable(self, why: str) -> UnreachableError:
        where = self._base or f"the provider '{self._provider}'"
        return UnreachableError(
            f"Nothing answers for the {self.role} '{self.model}' at {where} ({redacted(why)}); "
            "start the server or check the address, then run the same command again."
        )

    def _key(self) -> str | None:
        """The provider's key, where it goes by the usual name or litellm has found it."""
        return os.environ.get(f"{self._provider.upper()}_API_KEY") or self._own_key

    def _cost(self, usage: Any) -> float | None:
        if self.address is not None or usage is None:
            return None  # a server of one's own has no price list
        try:
            costs: tuple[float, float] = self._litellm.cost_per_token(
                model=self.model,
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
            )
        except Exception:  # litellm raises whatever it likes for models without a price
            return None
        return costs[0] + costs[1]


async def _receive_stream(chunks: Any, exchange: Exchange, received: _Received) -> None:
    pieces: list[str] = []
    size = 0
    async with aclosing(chunks):
        async for chunk in chunks:
            received.model_snapshot = getattr(chunk, "model", None) or received.model_snapshot
            received.usage = getattr(chunk, "usage", None) or received.usage
            for choice in chunk.choices[:1]:
                received.finish_reason = choice.finish_reason or received.finish_reason
                received.refusal += getattr(choice.delta, "refusal", None) or ""
                piece = choice.delta.content or ""
                if piece and received.ttft_s is None:
                    received.ttft_s = time.perf_counter() - exchange.sent_at
                pieces.append(piece)
                size += len(piece)
            if size > TEXT_LIMIT:
                break
    received.text = storable("".join(pieces))


def _receive_whole(response: Any, received: _Received) -> None:
    received.model_snapshot = getattr(response, "model", None)
    received.usage = getattr(response, "usage", None)
    choice = response.choices[0]
    received.finish_reason = choice.finish_reason
    # litellm moves what it does not know of a whole message, and leaves it in place in a streamed one.
    moved = getattr(choice.message, "provider_specific_fields", None) or {}
    received.refusal = getattr(choice.message, "refusal", None) or moved.get("refusal") or ""
    received.text = storable(choice.message.content or "")


def _for_openai(arguments: dict[str, Any]) -> dict[str, Any]:
    """The same parameters, those that OpenAI's library has no name for in `extra_body`: litellm leaves some out."""
    import openai.resources.chat

    known = inspect.signature(openai.resources.chat.AsyncCompletions.create).parameters
    unknown = {key: value for key, value in arguments.items() if key not in known}
    if not unknown:
        return arguments
    named = {key: value for key, value in arguments.items() if key in known}
    return {**named, "extra_body": {**unknown, **named.get("extra_body", {})}}


def _answer(received: _Received, total_s: float) -> ChatAnswer:
    unscored: Unscored | None = None
    detail: str | None = None
    if received.finish_reason == "content_filter":
        unscored, detail = Unscored.CONTENT_FILTER, "the provider's filter stopped the answer"
    elif received.refusal:
        unscored, detail = Unscored.REFUSED, redacted(received.refusal)[:500]
    elif len(received.text) > TEXT_LIMIT:
        unscored, detail = Unscored.TOO_LONG, f"the answer is longer than {TEXT_LIMIT:,} characters"
    elif not received.text.strip():
        unscored, detail = Unscored.EMPTY, f"the answer is empty (finish reason {received.finish_reason})"
    return ChatAnswer(
        text=None if unscored else received.text,
        unscored=unscored,
        detail=detail,
        finish_reason=received.finish_reason,
        model_snapshot=received.model_snapshot,
        ttft_s=received.ttft_s,
        total_s=total_s,
    )


def pause_before_retry(failures: int, retry_after_s: float | None) -> float:
    """Seconds to wait after so many earlier failures: longer each time, or as asked within `LONGEST_WAIT_S`."""
    usual = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**failures)
    asked = retry_after_s if retry_after_s is not None and retry_after_s <= LONGEST_WAIT_S else 0.0
    return max(usual, asked) * random.uniform(1.0, 1.25)  # never all calls at the same moment


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _codes(error: Exception) -> set[str]:
    return {code for cause in _chain(error) if isinstance(code := getattr(cause, "code", None), str)}


def _is_reported(error: Exception) -> bool:
    """Whether the server itself said, in the middle of a stream, that it has failed."""
    import openai

    return any(type(cause) is openai.APIError for cause in _chain(error))


def _first_cause(error: Exception) -> str:
    causes = list(_chain(error))
    known = [cause for cause in causes if isinstance(cause, NotACompletionError)]
    first = (known or causes)[-1]
    return f"{type(first).__name__}: {first}"


def redacted(text: str) -> str:
    """Text without any key of this environment, for messages and stored rows."""
    text = storable(text)
    for name, value in os.environ.items():
        if len(value) >= 8 and re.search(r"KEY|TOKEN|SECRET|PASSWORD", name):
            text = text.replace(value, f"[{name}]")
    return re.sub(r"\bsk-[A-Za-z0-9_*-]{6,}", "[key]", text)


def audio_part(content: bytes, container: str) -> dict[str, Any]:
    """An `input_audio` content part: base64 without a data prefix."""
    data = base64.b64encode(content).decode("ascii")
    return {"type": "input_audio", "input_audio": {"data": data, "format": container}}


def _load_litellm() -> Any:
    """Import litellm, which takes seconds, without its fetching a price list from the internet."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ.setdefault("LITELLM_LOG", "CRITICAL")
    # A model that goes round in circles has answered, if badly; litellm would turn its reply into an error.
    os.environ["REPEATED_STREAMING_CHUNK_LIMIT"] = str(STREAM_LIMIT)
    from dotenv import load_dotenv

    load_dotenv(Path(".env"))
    import litellm

    if litellm.aclient_session is None:
        litellm.aclient_session = httpx.AsyncClient(transport=WatchingTransport(), follow_redirects=True)
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", message="Pydantic serializer warnings", category=UserWarning)
    # What litellm would load during its first call, at the cost of that call's time.
    litellm.token_counter(model="", text="warm")
    importlib.import_module("openai.resources.chat")
    return litellm


def parsed_argument(text: str) -> Any:
    """The value of a `--model-arg k=v`: JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
