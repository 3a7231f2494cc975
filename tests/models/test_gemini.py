"""A provider whose requests litellm translates: what arrives, what comes back, and every failure seen on the wire."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from vivace.audio.convert import EncodedAudio
from vivace.errors import UnreachableError, UsageError
from vivace.models.adapters.litellm import LiteLLMAsker, LiteLLMSystem
from vivace.models.base import ModelReply, Prompt, SpokenTurn
from vivace.models.client import chat, tries
from vivace.models.client.calls import CallRecord, ChatOptions, recorded_calls
from vivace_rubrics.criteria import Unscored

KEY = "gemini-test-0123456789"
PROMPT = Prompt("c", [(SpokenTurn(EncodedAudio(b"RIFF one", "wav"), None), None)])


@dataclass
class Gemini:
    """Google's `generateContent` on loopback."""

    base: str
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    missing: int = 0
    """Bytes that are announced and never come."""
    padding: int = 0
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)

    def answer(self) -> bytes:
        """One event or the whole answer: they have the same form."""
        if self.status != 200:
            return json.dumps({"error": {"code": self.status, "message": f"no {KEY}", "status": "X"}}).encode()
        usage = {
            "promptTokenCount": 40,
            "candidatesTokenCount": 3,
            "totalTokenCount": 43,
            "promptTokensDetails": [
                {"modality": "TEXT", "tokenCount": 8},
                {"modality": "AUDIO", "tokenCount": 32},
            ],
        }
        parts = [{"text": "Hello" + " " * self.padding}]
        candidate = {"content": {"parts": parts, "role": "model"}, "finishReason": "STOP", "index": 0}
        return json.dumps({"candidates": [candidate], "usageMetadata": usage, "modelVersion": "flash-001"}).encode()


@pytest.fixture
def gemini(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gemini]:
    """A running server, whose key is in the environment."""
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    monkeypatch.setattr(tries, "FIRST_WAIT_S", 0.01)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Nothing."""

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            state.calls.append((self.path, body))
            state.keys.add(self.headers["x-goog-api-key"])
            is_stream = "alt=sse" in self.path and state.status == 200
            content = b"data: %s\r\n\r\n" % state.answer() if is_stream else state.answer()
            self.send_response(state.status)
            self.send_header("content-type", "text/event-stream" if is_stream else "application/json")
            self.send_header("content-length", str(len(content) + state.missing))
            for key, value in state.headers.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = bool(state.missing)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state = Gemini(f"http://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield state
    server.shutdown()
    server.server_close()


def reply_of(gemini: Gemini, prompt: Prompt = PROMPT, retries: int = 1) -> tuple[ModelReply, list[CallRecord]]:
    async def ask() -> ModelReply:
        system = LiteLLMSystem("gemini/gemini-2.5-flash", {}, ChatOptions(gemini.base, 20, retries))
        try:
            return await system.reply(prompt)
        finally:
            await system.close()

    with recorded_calls() as calls:
        return asyncio.run(ask()), calls


def test_recordings_arrive_in_their_order_byte_for_byte(gemini: Gemini) -> None:
    one, two, three = (bytes([number]) * (1000 + number) for number in range(3))
    turns = [
        (SpokenTurn(EncodedAudio(one, "wav"), None), "First."),
        (SpokenTurn(EncodedAudio(two, "mp3"), None), None),
        (SpokenTurn(EncodedAudio(three, "wav"), None), None),
    ]
    reply, calls = reply_of(gemini, Prompt("c", turns))
    assert (reply.text, reply.model_snapshot) == ("Hello", "flash-001")
    assert reply.ttft_s is not None
    [(path, body)] = gemini.calls
    assert path.startswith("/models/gemini-2.5-flash:streamGenerateContent")
    sent = [
        (content["role"], base64.b64decode(part["inline_data"]["data"]), part["inline_data"]["mime_type"])
        if "inline_data" in part
        else (content["role"], part["text"].strip())
        for content in body["contents"]
        for part in content["parts"]
    ]
    assert [part for part in sent if part[1]] == [
        ("user", one, "audio/wav"),
        ("model", "First."),
        ("user", two, "audio/mp3"),
        ("user", three, "audio/wav"),
    ]
    assert "system_instruction" not in body
    assert gemini.keys == {KEY}
    assert [(call.input_tokens, call.output_tokens, call.input_audio_tokens) for call in calls] == [(40, 3, 32)]


def test_a_judge_is_asked_the_same_way(gemini: Gemini) -> None:
    async def ask() -> object:
        asker = LiteLLMAsker("gemini/gemini-2.5-flash", {}, ChatOptions(gemini.base, 20, 0))
        try:
            return await asker.ask("Is it so?")
        finally:
            await asker.close()

    assert asyncio.run(ask()) == "Hello"
    assert gemini.calls[0][0].endswith(":generateContent")


@pytest.mark.parametrize(
    ("fault", "reason", "calls"),
    [
        ({"status": 500}, Unscored.SERVER_ERROR, 2),
        ({"status": 400}, Unscored.BAD_REQUEST, 1),
        ({"missing": 50}, Unscored.CONNECTION_CUT, 2),
        ({"padding": 70_000_000}, Unscored.TOO_LONG, 1),
    ],
    ids=["500", "400", "cut", "too long"],
)
def test_a_failure_has_its_reason_and_is_sent_once_a_try(
    fault: dict[str, Any], reason: Unscored, calls: int, gemini: Gemini
) -> None:
    for name, value in fault.items():
        setattr(gemini, name, value)
    reply, records = reply_of(gemini)
    assert (reply.text, reply.unscored) == (None, reason)
    assert len(gemini.calls) == len(records) == calls
    assert KEY not in str(reply.detail)


def test_the_pause_that_the_server_asks_for_is_seen(gemini: Gemini, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through litellm's exceptions it would be lost."""
    asked: list[float | None] = []
    monkeypatch.setattr(chat, "pause_before_retry", lambda _, retry_after_s: asked.append(retry_after_s) or 0.0)
    gemini.status, gemini.headers = 500, {"retry-after": "7"}
    reply_of(gemini)
    assert asked == [7.0]


@pytest.mark.parametrize(("status", "words"), [(401, "refuses the key"), (404, "does not know that model")])
def test_a_wrong_key_or_model_stops_the_run(status: int, words: str, gemini: Gemini) -> None:
    gemini.status = status
    with pytest.raises(UsageError, match=words) as refused:
        reply_of(gemini)
    assert KEY not in str(refused.value)


def test_a_server_that_is_not_there_is_unreachable(gemini: Gemini) -> None:
    gemini.base = "http://127.0.0.1:9"
    with pytest.raises(UnreachableError):
        reply_of(gemini)
