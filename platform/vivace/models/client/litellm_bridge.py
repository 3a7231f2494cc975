"""Chat completions of the providers whose requests litellm translates, watched on the wire like all others."""

from __future__ import annotations

import importlib
import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import aclosing
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from vivace.models.client.completions import (
    NO_KEY,
    TEXT_LIMIT,
    CallError,
    Received,
    RefusedArgumentsError,
    usage_of,
)
from vivace.models.client.providers.prices import TokenUsage
from vivace.models.client.transport import STREAM_LIMIT, NotACompletionError, WatchingTransport, WireExchange


@cache
def load_litellm() -> Any:
    """Import litellm, which takes seconds, without its fetching a price list from the internet."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ.setdefault("LITELLM_LOG", "CRITICAL")
    # A model that goes round in circles has answered, if badly; litellm would turn its reply into an error.
    os.environ["REPEATED_STREAMING_CHUNK_LIMIT"] = str(STREAM_LIMIT)
    from dotenv import load_dotenv

    load_dotenv(Path(".env"))
    import litellm
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

    # Both ways by which litellm sends: through OpenAI's library, and by itself.
    litellm.aclient_session = _watched_client()
    AsyncHTTPHandler.create_client = lambda self, *_, **__: _watched_client()
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", message="Pydantic serializer warnings", category=UserWarning)
    # What litellm would load during its first call, at the cost of that call's time.
    litellm.token_counter(model="", text="warm")
    importlib.import_module("openai.resources.chat")
    return litellm


def _watched_client() -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=WatchingTransport())


class LiteLLMCompletions:
    """Requests to one model through litellm.

    Args:
        model: litellm's name, `provider/model`.
        provider: as litellm resolved it.
        address: a server of one's own, or None.
        key: for that server.
        arguments: generation parameters.

    Raises:
        RefusedArgumentsError: an argument is one of litellm's own switches.
    """

    def __init__(
        self, model: str, provider: str, address: str | None, key: str | None, arguments: dict[str, Any]
    ) -> None:
        self._litellm = load_litellm()
        self._model = model
        self._server = {"api_base": address, "api_key": key or NO_KEY} if address else {}
        self._arguments = arguments

    async def receive(self, messages: list[dict[str, Any]], exchange: WireExchange, received: Received) -> None:
        """Ask once, and note in `received` what comes, as it comes.

        Raises:
            CallError: the server says that it has failed, or litellm refuses the request.
            TimeoutError: no answer in time.
        """
        try:
            response = await self._litellm.acompletion(
                model=self._model,
                messages=messages,
                stream=exchange.streaming,
                **({"stream_options": {"include_usage": True}} if exchange.streaming else {}),
                **self._server,
                num_retries=0,
                max_retries=0,
                allowed_openai_params=list(self._arguments),
                **self._arguments,
            )
            if exchange.streaming:
                await _take_stream(response, exchange, received)
            else:
                _take_whole(response, received)
        except Exception as error:
            raise self._translated(error, exchange) from None
        finally:
            received.model_snapshot = exchange.model or received.model_snapshot
            if exchange.usage_reported is False:
                received.usage = TokenUsage()  # litellm has made up a number of its own

    def _translated(self, error: Exception, exchange: WireExchange) -> Exception:
        exceptions = self._litellm.exceptions
        detail = f"{type(error).__name__}: {error}"
        if isinstance(error, TimeoutError | exceptions.Timeout):
            return TimeoutError(detail)
        if not exchange.sent and isinstance(error, exceptions.BadRequestError):
            return RefusedArgumentsError(detail)
        if isinstance(error, exceptions.AuthenticationError):
            return CallError(detail, 401)
        if isinstance(error, exceptions.ContentPolicyViolationError):
            return CallError(detail, 400, frozenset({"content_policy_violation"}))
        causes = list(_chain(error))
        if exchange.status == 200 and not _is_reported(causes):
            known = [cause for cause in causes if isinstance(cause, NotACompletionError)]
            first = (known or causes)[-1]
            return NotACompletionError(f"{type(first).__name__}: {first}")
        codes = frozenset(code for cause in causes if isinstance(code := getattr(cause, "code", None), str))
        return CallError(detail, exchange.status or getattr(error, "status_code", None), codes)

    def cost_of(self, usage: TokenUsage) -> float | None:
        """US dollars by litellm's price list; None where the model is not on it."""
        if usage.input_tokens is None or usage.output_tokens is None:
            return None
        counted = self._litellm.Usage(
            prompt_tokens=usage.input_tokens,
            completion_tokens=usage.output_tokens,
            prompt_tokens_details={
                "audio_tokens": usage.input_audio_tokens,
                "cached_tokens": usage.cached_tokens,
                "text_tokens": usage.input_tokens - (usage.input_audio_tokens or 0),
            },
        )
        try:
            costs: tuple[float, float] = self._litellm.cost_per_token(model=self._model, usage_object=counted)
        except Exception:  # litellm raises whatever it likes for models without a price
            return None
        return costs[0] + costs[1]


async def _take_stream(chunks: Any, exchange: WireExchange, received: Received) -> None:
    pieces: list[str] = []
    size = 0
    async with aclosing(chunks):
        async for chunk in chunks:
            received.model_snapshot = getattr(chunk, "model", None) or received.model_snapshot
            if getattr(chunk, "usage", None):
                received.usage = usage_of(chunk.usage.model_dump())
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
    received.text = "".join(pieces)


def _take_whole(response: Any, received: Received) -> None:
    received.model_snapshot = getattr(response, "model", None)
    if getattr(response, "usage", None):
        received.usage = usage_of(response.usage.model_dump())
    choice = response.choices[0]
    received.finish_reason = choice.finish_reason
    # litellm moves what it does not know of a whole message, and leaves it in place in a streamed one.
    moved = getattr(choice.message, "provider_specific_fields", None) or {}
    received.refusal = getattr(choice.message, "refusal", None) or moved.get("refusal") or ""
    received.text = choice.message.content or ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_reported(causes: list[BaseException]) -> bool:
    """Whether the server itself said, in the middle of a stream, that it has failed."""
    import openai

    return any(type(cause) is openai.APIError for cause in causes)
