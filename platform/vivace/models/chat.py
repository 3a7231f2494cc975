"""One chat client for models and judges: tries, timeouts, accounting, and a reason for every failure."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import random
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from vivace.errors import UnreachableError, UsageError
from vivace.models.calls import CallRecord, record_call
from vivace.models.transport import Exchange, WatchingTransport, current_exchange
from vivace_rubrics.criteria import Unscored

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
LONGEST_WAIT_S = 10.0
"""The longest wait between two tries, whatever a server asks for: a run must end."""
CONNECT_TRIES = 8
"""Tries to connect to a server that has answered before; after them the run stops and can be resumed."""
TEXT_LIMIT = 1_000_000
"""Characters of an answer; a longer one is not kept."""
PREFLIGHT_TIMEOUT_S = 5.0

RESERVED_ARGUMENTS = frozenset(
    {
        "model", "messages", "stream", "stream_options", "api_base", "base_url", "api_key", "client",
        "timeout", "num_retries", "max_retries", "mock_response", "n", "tools", "fallbacks",
        "extra_headers", "headers", "system",
    }
)  # fmt: skip
"""What a `--model-arg` may not set: Vivace sets it, it is a secret, or it would change the protocol."""


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
    chunks: list[Any] = field(default_factory=list)


def check_arguments(arguments: dict[str, Any], flag: str) -> None:
    """See that no argument is one that Vivace sets itself.

    Raises:
        UsageError: one is.
    """
    for name in arguments:
        if name in RESERVED_ARGUMENTS:
            raise UsageError(f"{flag} cannot set '{name}'; leave it out.")


class ChatClient:
    """Chat completions through litellm, for one model.

    Args:
        model: litellm's name, `provider/model`.
        arguments: generation parameters, passed on as they are.
        options: address, timeout and tries.
        role: `model` or `judge`, for messages.

    Raises:
        UsageError: litellm knows no such provider.
    """

    def __init__(self, model: str, arguments: dict[str, Any], options: ChatOptions, role: str) -> None:
        self.model = model
        self.arguments = arguments
        self.options = options
        self.role = role
        self._answered = False
        self._http: httpx.AsyncClient | None = None
        self._litellm = _load_litellm()
        try:
            _, provider, _, default_base = self._litellm.get_llm_provider(model, api_base=options.api_base)
        except Exception as error:
            raise UsageError(
                f"litellm knows no provider for the {role} '{model}'; write it as provider/name, "
                "for instance litellm:openai/gpt-audio."
            ) from error
        self.provider: str = provider
        self._default_base: str | None = default_base

    async def preflight(self) -> None:
        """See that a key is there and that something answers at the address.

        Raises:
            UsageError: no key is set, or it is refused.
            UnreachableError: nothing answers.
        """
        if self.options.api_base is None:
            missing = self._litellm.validate_environment(self.model).get("missing_keys") or []
            if missing:
                raise UsageError(
                    f"The {self.role} '{self.model}' needs {' and '.join(missing)}, which is not set; "
                    "set it in the environment or in .env."
                )
        base = self._base_url()
        if base is None:
            return
        try:
            async with httpx.AsyncClient(timeout=PREFLIGHT_TIMEOUT_S) as client:
                response = await client.get(
                    base.rstrip("/") + "/models", headers={"authorization": f"Bearer {self._key()}"}
                )
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise UsageError(f"The address '{base}' of the {self.role} is not an HTTP URL.") from error
        except httpx.TransportError as error:
            raise self._unreachable(str(error) or type(error).__name__) from error
        if response.status_code in (401, 403):
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
            exchange = Exchange(streaming=stream)
            answer = await self._try(messages, exchange)
            if exchange.status is not None:
                self._answered = True
            if exchange.unreachable:
                connect_failures += 1
                if connect_failures >= (CONNECT_TRIES if self._answered else 2):
                    raise self._unreachable(answer.detail or "no connection")
                await asyncio.sleep(min(LONGEST_WAIT_S / 2, FIRST_WAIT_S * 2**connect_failures))
                continue
            if answer.unscored not in RETRIED or failures >= self.options.retries:
                return answer
            await asyncio.sleep(_wait(failures, exchange.retry_after_s))
            failures += 1

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def _try(self, messages: list[dict[str, Any]], exchange: Exchange) -> ChatAnswer:
        token = current_exchange.set(exchange)
        start = time.perf_counter()
        received = _Received()
        try:
            async with asyncio.timeout(self.options.timeout_s):
                await self._receive(messages, exchange.streaming, start, received)
            answer = _answer(received, time.perf_counter() - start)
        except Exception as error:
            unscored, detail = self._classify(error, exchange)
            answer = ChatAnswer(None, unscored, detail)
        finally:
            current_exchange.reset(token)
        usage = received.usage
        record_call(
            CallRecord(
                seconds=time.perf_counter() - start,
                input_tokens=getattr(usage, "prompt_tokens", None),
                output_tokens=getattr(usage, "completion_tokens", None),
                cost_usd=self._cost(received),
                error=answer.unscored,
                detail=answer.detail,
            )
        )
        return answer

    async def _receive(self, messages: list[dict[str, Any]], stream: bool, start: float, received: _Received) -> None:
        if self._http is None:
            self._open_connections()
        response = await self._litellm.acompletion(
            model=self.model,
            messages=messages,
            stream=stream,
            **({"stream_options": {"include_usage": True}} if stream else {}),
            **({"api_base": self.options.api_base} if self.options.api_base else {}),
            **({"api_key": self._key()} if self.options.api_base else {}),
            timeout=self.options.timeout_s,
            num_retries=0,
            max_retries=0,
            allowed_openai_params=list(self.arguments),
            **self.arguments,
        )
        if stream:
            await _receive_stream(response, start, received)
        else:
            _receive_whole(response, received)

    def _open_connections(self) -> None:
        # litellm keeps clients between calls, and each belongs to the event loop it was made in.
        self._litellm.in_memory_llm_clients_cache.flush_cache()
        self._http = httpx.AsyncClient(
            transport=WatchingTransport(
                httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=None, keepalive_expiry=30))
            ),
            follow_redirects=True,
        )
        self._litellm.aclient_session = self._http

    def _classify(self, error: Exception, exchange: Exchange) -> tuple[Unscored, str]:
        """Why a call failed, from what was seen on the wire first and litellm's exception second."""
        exceptions = self._litellm.exceptions
        detail = redacted(f"{type(error).__name__}: {error}")[:500]
        status = exchange.status or getattr(error, "status_code", None)
        if exchange.too_long:
            return Unscored.TOO_LONG, "the answer is longer than any honest one"
        if exchange.unreachable:
            return Unscored.CONNECTION_CUT, "no connection"
        if isinstance(error, TimeoutError | exceptions.Timeout):
            return Unscored.TIMEOUT, f"no complete answer within {self.options.timeout_s:g} s"
        if isinstance(error, exceptions.ContentPolicyViolationError):
            return Unscored.CONTENT_FILTER, detail
        if exchange.status == 200:
            if exchange.body_complete:
                return Unscored.UNREADABLE, f"the server's answer is not a chat completion ({detail})"
            return Unscored.CONNECTION_CUT, "the connection broke off before the answer was complete"
        if isinstance(error, exceptions.UnsupportedParamsError):
            raise UsageError(f"The {self.role} '{self.model}' does not take these parameters: {detail}")
        if status in (401, 403) or isinstance(error, exceptions.AuthenticationError):
            raise self._refused_key()
        if status == 404:
            raise UsageError(
                f"The server of the {self.role} does not know the model '{self.model}' ({detail}); "
                "check the name and the address."
            )
        if status == 429:
            return Unscored.RATE_LIMITED, detail
        if status is not None and 400 <= status < 500 and status != 408:
            return Unscored.BAD_REQUEST, detail
        if exchange.status is None and self._uses_our_transport():
            return Unscored.CONNECTION_CUT, detail
        return Unscored.SERVER_ERROR, detail

    def _uses_our_transport(self) -> bool:
        return bool(self.provider in ("openai", "custom_openai", "hosted_vllm") or self.options.api_base)

    def _refused_key(self) -> UsageError:
        return UsageError(
            f"The server of the {self.role} '{self.model}' refuses the key; "
            "check the provider's key in the environment or in .env."
        )

    def _unreachable(self, why: str) -> UnreachableError:
        where = self._base_url() or f"the provider '{self.provider}'"
        return UnreachableError(
            f"Nothing answers for the {self.role} '{self.model}' at {where} ({redacted(why)}); "
            "start the server or check the address, then run the same command again."
        )

    def _base_url(self) -> str | None:
        if self.options.api_base:
            return self.options.api_base
        if self.provider == "openai":
            from_environment = os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_BASE")
            return from_environment or "https://api.openai.com/v1"
        return self._default_base

    def _key(self) -> str:
        """The provider's key; servers of one's own need none, but the client library insists on some."""
        return os.environ.get(f"{self.provider.upper()}_API_KEY") or "none"

    def _cost(self, received: _Received) -> float | None:
        if self.options.api_base is not None or received.usage is None:
            return None  # a server of one's own has no price list
        try:
            costs: tuple[float, float] = self._litellm.cost_per_token(
                model=self.model,
                prompt_tokens=received.usage.prompt_tokens,
                completion_tokens=received.usage.completion_tokens,
            )
        except Exception:  # litellm raises whatever it likes for models without a price
            return None
        return costs[0] + costs[1]


async def _receive_stream(chunks: AsyncIterator[Any], start: float, received: _Received) -> None:
    pieces: list[str] = []
    refusals: list[str] = []
    size = 0
    async for chunk in chunks:
        received.model_snapshot = getattr(chunk, "model", None) or received.model_snapshot
        received.usage = getattr(chunk, "usage", None) or received.usage
        for choice in chunk.choices[:1]:
            received.finish_reason = choice.finish_reason or received.finish_reason
            refusals.append(getattr(choice.delta, "refusal", None) or "")
            piece = choice.delta.content
            if piece:
                if received.ttft_s is None:
                    received.ttft_s = time.perf_counter() - start
                pieces.append(piece)
                size += len(piece)
        if size > TEXT_LIMIT:
            break
    received.text, received.refusal = "".join(pieces), "".join(refusals)


def _receive_whole(response: Any, received: _Received) -> None:
    received.model_snapshot = getattr(response, "model", None)
    received.usage = getattr(response, "usage", None)
    choice = response.choices[0]
    received.finish_reason = choice.finish_reason
    received.refusal = getattr(choice.message, "refusal", None) or ""
    received.text = choice.message.content or ""


def _answer(received: _Received, total_s: float) -> ChatAnswer:
    unscored: Unscored | None = None
    detail: str | None = None
    if received.finish_reason == "content_filter":
        unscored, detail = Unscored.CONTENT_FILTER, "the provider's filter stopped the answer"
    elif received.refusal:
        unscored, detail = Unscored.REFUSED, received.refusal[:500]
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


def _wait(failures: int, retry_after_s: float | None) -> float:
    backoff = FIRST_WAIT_S * 2.0**failures * random.uniform(1.0, 1.5)
    return min(LONGEST_WAIT_S, max(backoff, retry_after_s or 0.0))


def redacted(text: str) -> str:
    """Text without any key of this environment, for messages and stored rows."""
    for name, value in os.environ.items():
        if len(value) >= 8 and re.search(r"KEY|TOKEN|SECRET|PASSWORD", name):
            text = text.replace(value, f"[{name}]")
    return re.sub(r"\b(sk|key)-[A-Za-z0-9_*-]{6,}", "[key]", text)


def audio_part(content: bytes, container: str) -> dict[str, Any]:
    """An `input_audio` content part: base64 without a data prefix."""
    data = base64.b64encode(content).decode("ascii")
    return {"type": "input_audio", "input_audio": {"data": data, "format": container}}


def _load_litellm() -> Any:
    """Import litellm, which takes seconds, without its fetching a price list from the internet."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ.setdefault("LITELLM_LOG", "CRITICAL")
    from dotenv import load_dotenv

    load_dotenv(Path(".env"))
    import litellm

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
    return litellm


def parsed_argument(text: str) -> Any:
    """The value of a `--model-arg k=v`: JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
