"""Keys, passwords, addresses, proxies and certificates: refused with their variable's name, and nowhere on record."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from support.chat_server import Answer, Call, ChatServer, chat_server
from support.datasets import conversation_rows, write_jsonl

KEY = "gw-secret+key/0123456789=ABC"
Refused = Callable[..., str]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Two conversations without audio."""
    return write_jsonl(tmp_path / "texts.jsonl", conversation_rows(2, audio=False))


@pytest.fixture
def asked(texts: Path) -> Callable[..., tuple[object, ...]]:
    """The command that asks a chat model, which nothing need serve."""

    def command(base: str = "http://127.0.0.1:9/v1", *more: object) -> tuple[object, ...]:
        return ("run", "audio-multichallenge", "--judge", "checks", "--data", texts, "--retries", "0",
                "--model", "litellm:openai/m", "--api-base", base, *more)  # fmt: skip

    return command


def run_against(
    server: ChatServer, call: Callable[..., Any], asked: Callable[..., tuple[object, ...]], *more: object
) -> str:
    """All that a run, its log and its exports print, and all that lies in the home folder."""
    said = [call(*asked(server.base, *more))]
    for verb in (("status",), ("leaderboard",)):
        said.append(call(*verb, "--format", "json"))
    run = json.loads(said[1].out)[0]["run"]
    said += [call("logs", run, "--format", format) for format in ("json", "csv", "md", "table")]
    said += [call("export", run), call("export", run, "--format", "csv", "-o", "items.csv")]
    files = [path.read_bytes().decode("latin-1") for path in Path().rglob("*") if path.is_file()]
    return "\n".join([*(done.out + done.err for done in said), *files])


@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_key_that_an_answer_repeats_is_nowhere(
    call: Callable[..., Any],
    asked: Callable[..., tuple[object, ...]],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\r\n")

    def behave(call: Call) -> Answer:
        assert call.headers["authorization"] == f"Bearer {KEY}"
        words = f"yes, {KEY} or {quote(KEY, safe='')} or {KEY[:15]}... or ...{KEY[-15:]}\x1b]0;x\x07"
        raw = None if status == 200 else json.dumps({"error": {"message": words, "code": KEY}}).encode()
        return Answer(words, status=status, raw=raw)

    with chat_server(behave) as server:
        everything = run_against(server, call, asked, "--cache")
    assert "[OPENAI_API_KEY]" in everything
    for part in (KEY[:15], KEY[-15:], quote(KEY[-15:], safe="")):
        assert part not in everything


@pytest.mark.parametrize("key", ['"sk-0123456789"', "sk-01234\r56789", "sk-012 3456789", "sk-0123456789é"])
def test_a_key_that_cannot_be_sent_is_named(
    refused: Refused, asked: Callable[..., tuple[object, ...]], monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    sentence = refused(*asked())
    assert "OPENAI_API_KEY" in sentence and "3456789" not in sentence and "56789" not in sentence


@pytest.mark.parametrize(
    "flags",
    [
        ("--model-arg", "api_key=hush-hush-hush"),
        ("--model-arg", 'extra_body={"deep": [{"Authorization": "hush-hush-hush"}]}'),
        ("--judge-arg", "x-api-key=hush-hush-hush"),
        ("--set", "password=hush-hush-hush"),
        ("--set", "model-arg.openai_access_token=hush-hush-hush"),
    ],
)
def test_a_parameter_named_like_a_secret_is_refused(
    refused: Refused, asked: Callable[..., tuple[object, ...]], flags: tuple[str, ...]
) -> None:
    sentence = refused(*asked(), *flags)
    assert "environment or in .env" in sentence and "hush" not in sentence


def test_parameters_that_only_sound_so_are_taken(asked: Callable[..., tuple[object, ...]], call: Any) -> None:
    more = [f"--model-arg={name}=1" for name in ("max_tokens", "stop_token_ids", "prompt_cache_key", "top_k")]
    done = call(*asked("http://127.0.0.1:9/v1", *more, "--dry-run"))
    assert done.code == 0, done


def test_a_known_key_is_no_parameter(
    refused: Refused, asked: Callable[..., tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_TOKEN", KEY)
    sentence = refused(*asked(), "--model-arg", f"user={KEY}")
    assert "'model-arg.user'" in sentence and KEY not in sentence


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:8000/v1", "not an HTTP URL"),
        ("http://127.0.0.1:99999/v1", "no port between"),
        ("http://127.0.0.1:0/v1", "no port between"),
        ("http://127.0.0.1:eighty/v1", "Invalid port"),
        ("http://[::1/v1", "not an HTTP URL"),
        ("http://xn--/v1", "not an HTTP URL"),
        ("http://me:hush-hush@127.0.0.1/v1", "password or a query"),
        ("http://me:hu/sh-h@ush@127.0.0.1/v1", "***"),
        ("http://127.0.0.1/v1?api-key=hush-hush", "password or a query"),
    ],
)
@pytest.mark.parametrize("place", ["--api-base", "OPENAI_BASE_URL", "openai-realtime"])
def test_an_odd_address_is_refused(
    refused: Refused, texts: Path, monkeypatch: pytest.MonkeyPatch, address: str, words: str, place: str
) -> None:
    flags = ["run", "audio-multichallenge", "--judge", "checks", "--data", texts]
    flags += ["--model", "openai-realtime:m" if place == "openai-realtime" else "litellm:openai/m"]
    if place == "OPENAI_BASE_URL":
        monkeypatch.setenv(place, address + "\r")
    else:
        flags += ["--api-base", address]
    sentence = refused(*flags)
    assert words in sentence and "hush" not in sentence and "sh-h" not in sentence
    assert place != "OPENAI_BASE_URL" or place in sentence


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("HTTP_PROXY", "http://proxy:99999", "no port"),
        ("https_proxy", "proxy:eighty", "HOST:PORT"),
        ("ALL_PROXY", "ftp://proxy", "HOST:PORT"),
        ("ALL_PROXY", "socks5://me:hush-hush@127.0.0.1:1080", "httpx[socks]"),
        ("HTTP_PROXY", "http://", "no host"),
        ("HTTP_PROXY", "http://xn--:80", "HOST:PORT"),
        ("NO_PROXY", "[::1", "no list of hosts"),
        ("SSL_CERT_FILE", "missing.pem", "cannot be read"),
        ("REQUESTS_CA_BUNDLE", "texts.jsonl", "holds none"),
        ("SSL_CERT_DIR", "missing", "not there"),
    ],
)
def test_a_variable_of_the_network_is_named(
    refused: Refused,
    asked: Callable[..., tuple[object, ...]],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    words: str,
) -> None:
    monkeypatch.setenv(name, value)
    sentence = refused(*asked())
    assert name in sentence and words in sentence and "hush" not in sentence


def test_the_doctor_names_them_too(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "'sk-0123456789'")
    monkeypatch.setenv("SSL_CERT_FILE", "missing.pem")
    found = {row["what"]: row for row in json.loads(call("doctor", "--format", "json").out)}
    assert "quotes" in found["OPENAI_API_KEY"]["found"] and "SSL_CERT_FILE" in found["network"]["found"]
