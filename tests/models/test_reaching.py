"""Before any work: is there a key, does something answer, and is a key ever seen where it does not belong?"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.chat_server import Answer, Call, chat_server, verdict
from support.datasets import conversation_rows, write_jsonl
from support.program import environment, vivace
from vivace.errors import UnreachableError, UsageError
from vivace.models.adapters.litellm import LiteLLMAsker, LiteLLMSystem
from vivace.models.client import chat
from vivace.models.client.calls import ChatOptions


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "data.jsonl", conversation_rows(2, audio=False))


@pytest.fixture
def dead_address() -> str:
    """An address where nothing listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/v1"


@pytest.fixture
def silent_address() -> Iterator[str]:
    """An address that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"


def arguments_for(data: Path, model_base: str | None, judge_base: str | None) -> list[object]:
    return [
        "run", "audio-multichallenge", "--data", data, "--home", data.parent / "home", "--format", "json",
        "--model", "litellm:openai/m", *(["--api-base", model_base] if model_base else []),
        "--judge", "litellm:openai/j", *(["--judge-api-base", judge_base] if judge_base else []),
    ]  # fmt: skip


def answers(call: Call) -> Answer:
    return verdict() if call.model == "j" else Answer("yes")


def preflight(base: str) -> None:
    system = LiteLLMSystem("openai/m", {}, ChatOptions(base))
    asyncio.run(system.preflight())


@pytest.mark.parametrize("role", ["model", "judge"])
def test_nothing_is_written_where_nothing_answers(
    role: str, data: Path, dead_address: str, program: Callable[..., Any]
) -> None:
    started = time.monotonic()
    with chat_server(answers) as server:
        bases = (dead_address, server.base) if role == "model" else (server.base, dead_address)
        done = program(*arguments_for(data, *bases))
    assert done.code == 4
    assert f"Nothing answers for the {role} 'openai/{role[0]}' at {dead_address}" in done.err
    assert server.calls == []
    assert not (data.parent / "home").exists()
    assert time.monotonic() - started < 60


def test_a_server_that_accepts_and_never_answers_is_not_reachable(
    silent_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "PREFLIGHT_TIMEOUT_S", 0.3)
    with pytest.raises(UnreachableError):
        preflight(silent_address)


@pytest.mark.parametrize("status", [200, 404, 405, 500])
def test_any_answer_to_a_get_is_an_answer(status: int) -> None:
    with chat_server(get_status=status) as server:
        preflight(server.base)
    assert server.calls == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_the_users_mistake(status: int) -> None:
    with chat_server(get_status=status) as server, pytest.raises(UsageError, match="refuses the key"):
        preflight(server.base)


@pytest.mark.parametrize("role", ["model", "judge"])
@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_the_first_call_ends_the_run(
    role: str, status: int, data: Path, program: Callable[..., Any]
) -> None:
    body = json.dumps({"error": {"message": "no such thing", "code": "model_not_found"}}).encode()

    def behave(call: Call) -> Answer:
        return Answer(status=status, raw=body) if call.model == role[0] else answers(call)

    with chat_server(behave) as server:
        done = program(*arguments_for(data, server.base, server.base))
    assert done.code == 2, done.err
    assert f"{role} 'openai/{role[0]}'" in done.err
    refused = [call for call in server.calls if call.model == role[0]]
    assert len(refused) <= 2  # the first conversation goes alone, and has two criteria


def test_a_missing_key_is_named_before_anything_is_sent(
    data: Path, program: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **_: looked_up.append(arguments))
    done = program(*arguments_for(data, None, None))
    assert done.code == 2
    assert "OPENAI_API_KEY" in done.err
    assert looked_up == []
    assert not (data.parent / "home").exists()


def test_a_judges_missing_key_is_named_too(data: Path, program: Callable[..., Any]) -> None:
    with chat_server(answers) as server:
        done = program(*arguments_for(data, server.base, None))
    assert done.code == 2
    assert "judge 'openai/j' needs OPENAI_API_KEY" in done.err
    assert server.calls == []


@pytest.mark.parametrize(
    ("model", "base", "words"),
    [
        ("litellm:nobody/m", "http://127.0.0.1:9/v1", "knows no provider"),
        ("litellm:openai/", "http://127.0.0.1:9/v1", "lacks a name"),
        ("litellm:", "http://127.0.0.1:9/v1", "lacks a name"),
        ("litellm:openai/m", "127.0.0.1:9", "not an HTTP URL"),
        ("litellm:openai/m", "ftp://127.0.0.1", "not an HTTP URL"),
        ("litellm:openai/m", "http://ann:hunter22@127.0.0.1:9/v1", "carries a password"),
        ("litellm:openai/m", "http://127.0.0.1:9/v1?key=hunter22", "carries a password or a query"),
    ],
)
def test_a_target_that_cannot_be_asked_is_the_users_mistake(
    model: str, base: str, words: str, data: Path, program: Callable[..., Any]
) -> None:
    done = program(*arguments_for(data, base, base), "--model", model)
    assert done.code == 2
    assert words in done.err
    assert "hunter22" not in done.err
    assert "Provider List" not in done.out + done.err
    assert not (data.parent / "home").exists()


def test_an_address_from_the_environment_is_part_of_who_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a server of one's own would pass for OpenAI's model, and its verdicts for the official judge's."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert LiteLLMSystem("openai/m", {}, ChatOptions()).identity.address == "http://127.0.0.1:9/v1"
    assert LiteLLMAsker("openai/j", {}, ChatOptions()).address == "http://127.0.0.1:9/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.openai.com/v1/")
    assert LiteLLMSystem("openai/m", {}, ChatOptions()).identity.address is None


def test_a_key_that_a_server_echoes_is_nowhere_to_be_found(data: Path) -> None:
    key = "sk-test-0123456789abcdefghij"
    told = iter([500, 429, 400])

    def echo(call: Call) -> Answer:
        message = f"bad header {call.headers['authorization']} (key {key[:10]}*****{key[-4:]})"
        body = json.dumps({"error": {"message": message}}).encode()
        if call.model == "j":
            return Answer(None, message={"refusal": message})
        return Answer(status=next(told, 400), raw=body)

    def half(call: Call) -> Answer:
        return Answer("yes") if "user 0" in str(call.messages) and call.model == "m" else echo(call)

    with chat_server(half) as server:
        done = vivace("--debug", *arguments_for(data, server.base, server.base), OPENAI_API_KEY=key)
        calls = list(server.calls)
    assert done.returncode == 3, done.stderr
    assert {call.headers["authorization"] for call in calls} == {f"Bearer {key}"}
    stored = b"".join(path.read_bytes() for path in (data.parent / "home").rglob("*") if path.is_file())
    assert b"[OPENAI_API_KEY]" in stored  # the echo came as far as the store, without the key
    for secret in (key, key[:10]):
        assert secret.encode() not in stored
        assert secret not in done.stdout + done.stderr


def test_a_key_echoed_with_its_refusal_is_in_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-test-0123456789abcdefghij"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {key}"}}).encode()
    with chat_server(Answer(status=401, raw=body)) as server:
        asker = LiteLLMAsker("openai/j", {}, ChatOptions(server.base))
        with pytest.raises(UsageError, match="refuses the key") as refused:
            asyncio.run(asker.ask("hello"))
    assert key not in "".join(traceback.format_exception(refused.value))


def test_litellm_is_loaded_for_those_who_need_it_and_calls_nobody() -> None:
    """It takes seconds to import, and would fetch a price list from the internet."""
    code = """
import sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise SystemExit(f"connects: {event} {arguments}")
sys.addaudithook(watch)
import vivace.cli.main, vivace.cli.running.execution, vivace.tracks.dialogue.track
from vivace.models.adapters.litellm import LiteLLMSystem
from vivace.models.client.calls import ChatOptions
for model in ("openai/m", "openrouter/a/m"):
    LiteLLMSystem(model, {}, ChatOptions())
LiteLLMSystem("hosted_vllm/a/m", {}, ChatOptions("http://127.0.0.1:9/v1"))
assert not {"litellm", "openai", "torch", "pandas", "datasets", "streamlit"} & set(sys.modules)
LiteLLMSystem("gemini/m", {}, ChatOptions())
assert "litellm" in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
