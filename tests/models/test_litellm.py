"""Providers that litellm asks in OpenAI's form, by two ways of its own: what is seen on the wire counts."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest

from support.chat_server import Answer, chat_server
from vivace.errors import UsageError
from vivace.models.adapters.litellm import LiteLLMSystem
from vivace.models.base import ModelReply, Prompt, SpokenTurn
from vivace.models.client import tries
from vivace.models.client.calls import CallRecord, ChatOptions, recorded_calls
from vivace_rubrics.criteria import Unscored

PROMPT = Prompt("c", [(SpokenTurn(None, "hello"), None)])
EVENTS = {"content-type": "text/event-stream"}
PIECE = b'data: {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": "Hel"}}]}\n\n'


@pytest.fixture(params=["together_ai/m", "deepseek/m"], ids=["OpenAI's library", "litellm's own"])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(tries, "FIRST_WAIT_S", 0.01)
    return str(request.param)


def reply_of(model: str, base: str) -> tuple[ModelReply, list[CallRecord]]:
    async def ask() -> ModelReply:
        system = LiteLLMSystem(model, {"temperature": 0.5}, ChatOptions(base, 20, 1))
        try:
            return await system.reply(PROMPT)
        finally:
            await system.close()

    with recorded_calls() as calls:
        return asyncio.run(ask()), calls


@pytest.mark.parametrize("streams", [True, False], ids=["streaming server", "server that cannot stream"])
def test_an_answer_comes_with_the_servers_tokens_and_name(model: str, streams: bool) -> None:
    with chat_server(Answer("Hello there."), streams=streams) as server:
        reply, calls = reply_of(model, server.base)
    assert (reply.text, reply.unscored, reply.model_snapshot) == ("Hello there.", None, "m-snapshot")
    assert [(call.input_tokens, call.output_tokens) for call in calls] == [(11, 7)]
    assert [call.body["temperature"] for call in server.calls] == [0.5]


FAILURES: dict[str, tuple[Answer, Unscored, int]] = {
    "500": (Answer(status=500), Unscored.SERVER_ERROR, 2),
    "400": (Answer(status=400), Unscored.BAD_REQUEST, 1),
    "cut": (Answer(cut_after=40), Unscored.CONNECTION_CUT, 2),
    "ended early": (Answer(raw=PIECE, headers=EVENTS, announces_length=False), Unscored.CONNECTION_CUT, 2),
    "an error with status 200": (Answer(raw=b'{"error": {"message": "boom"}}'), Unscored.SERVER_ERROR, 2),
    "no JSON": (Answer(raw=b"<html>"), Unscored.UNREADABLE, 2),
    "no choices": (Answer(raw=b'{"choices": []}'), Unscored.UNREADABLE, 2),
    "too long": (Answer(raw=json.dumps({"x": "y" * 5_000_000}).encode()), Unscored.TOO_LONG, 1),
    "empty": (Answer(""), Unscored.EMPTY, 2),
    "packed": (
        Answer(raw=gzip.compress(bytes(50_000_000)), headers={"content-encoding": "gzip"}),
        Unscored.TOO_LONG,
        1,
    ),
    "two streamed answers": (
        Answer(raw=PIECE + PIECE.replace(b'"index": 0', b'"index": 1') + b"data: [DONE]\n\n", headers=EVENTS),
        Unscored.UNREADABLE,
        2,
    ),
    "two answers": (
        Answer(raw=json.dumps({"choices": [{"message": {"content": text}} for text in ("Yes.", "No.")]}).encode()),
        Unscored.UNREADABLE,
        2,
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_has_its_reason_and_is_sent_once_a_try(name: str, model: str) -> None:
    answer, reason, calls = FAILURES[name]
    with chat_server(answer) as server:
        reply, records = reply_of(model, server.base)
    assert (reply.text, reply.unscored) == (None, reason)
    assert len(server.calls) == len(records) == calls


def test_no_redirect_is_followed(model: str) -> None:
    with chat_server() as other, chat_server(Answer(status=307, headers={"location": other.base})) as server:
        with pytest.raises(UsageError, match=r"points to 'http://127\.0\.0\.1:[0-9]+/v1'"):
            reply_of(model, server.base)
    assert (len(server.calls), len(other.calls)) == (1, 0)


def test_tokens_that_litellm_guesses_are_not_taken_for_counted(model: str) -> None:
    choice: dict[str, Any] = {"index": 0, "message": {"content": "Hello."}, "finish_reason": "stop"}
    with chat_server(Answer(raw=json.dumps({"choices": [choice]}).encode()), streams=False) as server:
        _, [call] = reply_of(model, server.base)
    assert (call.input_tokens, call.output_tokens) == (None, None)
