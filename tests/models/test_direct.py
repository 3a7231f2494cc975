"""Servers that speak OpenAI's chat completions, asked without a client library: what the libraries took care of."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from support.chat_server import Answer, ChatServer, chat_server
from vivace.errors import UsageError
from vivace.models.adapters.litellm import LiteLLMSystem
from vivace.models.base import Prompt, SpokenTurn
from vivace.models.client import completions
from vivace.models.client.calls import CallRecord, ChatOptions, recorded_calls
from vivace.models.client.completions import DirectCompletions, Received, request_headers
from vivace.models.client.providers.openai_compatible import OPENAI_ADDRESS, PROVIDERS
from vivace.models.client.providers.prices import TokenUsage, cost_of
from vivace.models.client.transport import Connections, WireExchange
from vivace_rubrics.criteria import Unscored

PROMPT = Prompt("c", [(SpokenTurn(None, "hello"), None)])
EVENTS = {"content-type": "text/event-stream"}


def replies(
    server: ChatServer, count: int = 1, model: str = "openai/m", **arguments: Any
) -> tuple[list[Any], list[CallRecord]]:
    async def ask() -> list[Any]:
        system = LiteLLMSystem(model, arguments, ChatOptions(server.base, 20, 0))
        try:
            return [await system.reply(PROMPT) for _ in range(count)]
        finally:
            await system.close()

    with recorded_calls() as calls:
        return asyncio.run(ask()), calls


def streamed(text: bytes) -> Answer:
    return Answer(raw=text, headers=EVENTS)


@pytest.mark.parametrize("streams", [True, False])
def test_connections_are_used_again(streams: bool) -> None:
    """A handshake a call would double its time at a provider across the sea."""
    with chat_server(Answer("yes"), streams=streams) as server:
        answers, _ = replies(server, 5)
        assert [answer.text for answer in answers] == ["yes"] * 5
        assert len(server._connections) == 1


def test_a_connection_outlives_failures() -> None:
    told = iter([Answer(status=500), Answer(raw=b"null"), streamed(b"data: {oops\n\n"), Answer("yes"), Answer("yes")])
    with chat_server(lambda _: next(told)) as server:
        answers, _ = replies(server, 5)
    assert [answer.text for answer in answers] == [None, None, None, "yes", "yes"]


def test_a_stream_that_is_over_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some servers leave the connection open after the last event."""
    monkeypatch.setattr(completions, "PARTING_S", 0.01)
    chunk = json.dumps({"choices": [{"index": 0, "delta": {"content": "yes"}, "finish_reason": "stop"}]})
    body = f"data: {chunk}\n\ndata: [DONE]\n\n".encode()

    async def ask() -> Received:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            writer.write(head + b"%x\r\n%s\r\n" % (len(body), body))
            await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        connections, received = Connections(), Received()
        asked = DirectCompletions("m", PROVIDERS["custom_openai"], base, {})
        async with asyncio.timeout(20):
            await asked.receive(
                [{"role": "user", "content": "x"}], WireExchange(connections, streaming=True), received
            )
        await connections.aclose()
        server.close()
        return received

    assert asyncio.run(ask()).text == "yes"


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [b"data: [DONE]", b"data:[DONE]", b""])
def test_every_way_to_write_a_stream_is_read(ending: bytes, last: bytes) -> None:
    chunk = json.dumps({"choices": [{"index": 0, "delta": {"content": "yés"}, "finish_reason": "stop"}]})
    lines = [b": a comment", b"event: chunk", b"data:" + chunk.encode(), b"", last]
    with chat_server(streamed(ending.join(lines))) as server:
        [answer], _ = replies(server)
    assert answer.text == "yés"


@pytest.mark.parametrize("model", ["openai/m", "custom_openai/m", "hosted_vllm/m", "openrouter/m"])
def test_the_server_is_asked_for_its_own_name_of_the_model(model: str) -> None:
    with chat_server(Answer("yes")) as server:
        replies(server, model=model)
    assert [call.model for call in server.calls] == ["m"]


def test_a_name_may_hold_slashes() -> None:
    with chat_server(Answer("yes")) as server:
        replies(server, model="hosted_vllm/mistralai/Voxtral-Small")
    assert [call.model for call in server.calls] == ["mistralai/Voxtral-Small"]


def test_a_keys_name_is_its_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's key must not be sent to others."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-or")
    monkeypatch.setenv("OPENAI_ORG_ID", "org")
    for model, key in (("openrouter/m", "Bearer sk-or"), ("hosted_vllm/m", "Bearer none")):
        with chat_server(Answer("yes")) as server:
            replies(server, model=model)
        assert server.calls[0].headers["authorization"] == key
        assert "openai-organization" not in server.calls[0].headers
    assert request_headers(PROVIDERS["openai"], OPENAI_ADDRESS)["openai-organization"] == "org"


def test_a_missing_key_of_a_provider_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENROUTER_API_KEY", "OR_API_KEY", "OPENROUTER_API_BASE"):
        monkeypatch.delenv(name, raising=False)
    system = LiteLLMSystem("openrouter/a/m", {}, ChatOptions())
    with pytest.raises(UsageError, match="OPENROUTER_API_KEY"):
        asyncio.run(system.preflight())


@pytest.mark.parametrize(
    ("name", "base", "field"),
    [
        ("o4-mini", OPENAI_ADDRESS, "max_completion_tokens"),
        ("gpt-5", OPENAI_ADDRESS + "/", "max_completion_tokens"),
        ("gpt-audio", OPENAI_ADDRESS, "max_tokens"),
        ("o4-mini", "http://127.0.0.1:9/v1", "max_tokens"),
    ],
)
def test_the_length_limit_has_the_name_that_the_model_takes(name: str, base: str, field: str) -> None:
    asked = DirectCompletions(name, PROVIDERS["openai"], base, {"max_tokens": 9, "extra_body": {"top_k": 1}})
    assert asked._request == {"model": name, field: 9, "top_k": 1}


@pytest.mark.parametrize("code", [429, 502])
def test_an_error_in_a_stream_has_the_status_it_names(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenRouter's way to hand on what happened upstream."""
    monkeypatch.setattr("vivace.models.client.pacing.PATIENCE_S", 0.0)
    event = json.dumps({"error": {"message": "upstream", "code": code}, "choices": []})
    with chat_server(streamed(f"data: {event}\n\n".encode())) as server:
        [answer], _ = replies(server)
    assert answer.unscored is (Unscored.RATE_LIMITED if code == 429 else Unscored.SERVER_ERROR)
    assert "upstream" in answer.detail


def test_a_call_costs_what_the_price_list_says_or_the_provider() -> None:
    usage = TokenUsage(1000, 100, input_audio_tokens=800, output_audio_tokens=60, cached_tokens=0)
    dear = 200 * 2.5e-6 + 800 * 3.2e-5 + 40 * 1e-5 + 60 * 6.4e-5
    assert cost_of("openai/gpt-audio", usage) == pytest.approx(dear)
    assert cost_of("openai/o4-mini", TokenUsage(1000, 100)) == pytest.approx(1000 * 1.1e-6 + 100 * 4.4e-6)
    kept = TokenUsage(1000, 100, cached_tokens=600)
    assert cost_of("openai/o4-mini", kept) == pytest.approx(400 * 1.1e-6 + 600 * 2.75e-7 + 100 * 4.4e-6)
    assert cost_of("openai/nothing-of-this-name", usage) is None
    assert cost_of("openai/o4-mini", TokenUsage(None, 100)) is None
    assert cost_of("openrouter/a/b", TokenUsage(1, 1, cost_usd=0.25)) == 0.25


def test_odd_counts_of_tokens_are_no_counts() -> None:
    usage = {"prompt_tokens": "many", "completion_tokens": True, "prompt_tokens_details": [1], "cost": "x"}
    choice = {"index": 0, "message": {"content": "yes"}, "finish_reason": "stop"}
    with chat_server(Answer(raw=json.dumps({"choices": [choice], "usage": usage}).encode()), streams=False) as server:
        [answer], [call] = replies(server)
    assert answer.text == "yes"
    assert (call.input_tokens, call.output_tokens, call.input_audio_tokens) == (None, None, None)
