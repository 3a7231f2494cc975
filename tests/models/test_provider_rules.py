"""What a provider is known not to take is said before anything is sent; what a server refuses is said in words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.chat_server import Answer, Call, chat_server, verdict
from support.datasets import conversation_rows, write_jsonl, write_parquet
from vivace.audio.convert import EncodedAudio
from vivace.errors import UsageError
from vivace.models.adapters.litellm import LiteLLMSystem
from vivace.models.base import ModelReply, Prompt, SpokenOutput, SpokenTurn
from vivace.models.client.calls import ChatOptions
from vivace.models.client.providers.rules import refused_audio
from vivace.models.registry import open_system
from vivace_rubrics.criteria import Unscored

TEXT, SPEECH, UNSAID = SpokenOutput("text"), SpokenOutput("audio"), SpokenOutput()
WAV = EncodedAudio(b"RIFF0000WAVE", "wav")


@pytest.fixture(autouse=True)
def _no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENROUTER_API_BASE", "HOSTED_VLLM_API_BASE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("target", "spoken", "hears", "words"),
    [
        ("litellm:openai/gpt-audio", UNSAID, False, "--output audio"),
        ("litellm:openai/gpt-audio-mini", TEXT, False, "--output audio"),
        ("litellm:openai/gpt-4o-audio-preview-2025-06-03", UNSAID, False, "--output audio"),
        ("litellm:openrouter/openai/gpt-audio", UNSAID, False, "--output audio"),
        ("litellm:openai/o4-mini", UNSAID, True, "--audio transcript"),
        ("litellm:openai/gpt-4.1", UNSAID, True, "--audio transcript"),
        ("litellm:openai/gpt-4o", UNSAID, True, "--audio transcript"),
        ("litellm:gpt-4o", UNSAID, True, "--audio transcript"),
        ("litellm:openai/gpt-5", SPEECH, False, "cannot speak"),
        ("litellm:anthropic/claude-sonnet-4-5", UNSAID, True, "--audio transcript"),
        ("litellm:groq/llama-3.3-70b-versatile", UNSAID, True, "--audio transcript"),
        ("litellm:gemini/gemini-2.5-flash", SPEECH, True, "leave out --output audio"),
        ("litellm:anthropic/claude-sonnet-4-5", SPEECH, False, "leave out --output audio"),
        ("local:somewhere", SPEECH, True, "leave out --output audio"),
        ("replay:somewhere.jsonl", SPEECH, True, "leave out --output audio"),
        ("litellm:openai/gpt-audio", SpokenOutput(None, "alloy"), True, "--voice"),
        ("litellm:openai/gpt-audio", SpokenOutput("text", None, "litellm:openai/whisper-1"), True, "--transcriber"),
        ("openai-realtime:gpt-realtime", SpokenOutput("text", "marin"), True, "--voice"),
    ],
)
def test_what_a_provider_cannot_do_is_refused(
    target: str, spoken: SpokenOutput, hears: bool, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("somewhere.jsonl").write_text('{"id": "one", "response": "Yes."}')
    with pytest.raises(UsageError, match=words) as refused:
        open_system(target, {}, ChatOptions(), spoken, hears=hears)
    assert str(refused.value).count("\n") == 0


@pytest.mark.parametrize(
    ("target", "spoken", "hears"),
    [
        ("litellm:openai/gpt-audio", UNSAID, True),
        ("litellm:openai/gpt-audio", SPEECH, False),
        ("litellm:openai/o4-mini", UNSAID, False),
        ("litellm:openai/gpt-9-omni", UNSAID, True),
        ("litellm:openrouter/google/gemini-2.5-flash", UNSAID, True),
    ],
)
def test_what_a_provider_does_or_may_do_one_day_is_not_refused(
    target: str, spoken: SpokenOutput, hears: bool
) -> None:
    open_system(target, {}, ChatOptions(), spoken, hears=hears)


def test_nothing_is_known_of_a_server_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may serve any model under the name of another."""
    open_system("litellm:openai/gpt-4o", {}, ChatOptions("http://127.0.0.1:9/v1"), SPEECH, hears=True)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    open_system("litellm:openai/gpt-4o", {}, ChatOptions(), SPEECH, hears=True)


def test_a_vllm_server_has_no_address_of_its_own() -> None:
    with pytest.raises(UsageError, match="--api-base"):
        open_system("litellm:hosted_vllm/mistralai/Voxtral", {}, ChatOptions())


def test_a_conversation_too_large_for_gemini_is_unscored_and_not_sent() -> None:
    large = EncodedAudio(b"RIFF0000WAVE" + bytes(8_000_000), "wav")
    with chat_server() as server:
        system = LiteLLMSystem("gemini/gemini-2.5-flash", {}, ChatOptions(server.base))
        reply = asyncio.run(system.reply(Prompt("c", [(SpokenTurn(large, None), "a")] * 2)))
    assert reply.unscored is Unscored.BAD_REQUEST
    assert "20 MB" in str(reply.detail)
    assert server.calls == []


REFUSALS = {
    "vLLM, text model": (400, "At most 0 audio(s) may be provided in one prompt."),
    "vLLM, older text model": (400, "Qwen/Qwen3-8B is not a multimodal model None"),
    "vLLM, one": (400, "At most 1 audio(s) may be provided in one request."),
    "OpenAI": (400, "Invalid content type. input_audio is only supported by certain models."),
    "llama.cpp": (500, "audio input is not supported - hint: you may need to provide the mmproj"),
    "a strict schema": (422, "[{'loc': ['body', 'messages'], 'msg': \"Input should be 'text', got 'input_audio'\"}]"),
}


def refusing(status: int, message: str) -> Answer:
    return Answer(status=status, raw=json.dumps({"error": {"message": message, "code": status}}).encode())


def replies(behave: Callable[[Call], Answer], *prompts: Prompt) -> list[ModelReply]:
    async def ask() -> list[ModelReply]:
        system = LiteLLMSystem("openai/m", {}, ChatOptions(server.base, 20, 0))
        try:
            return [await system.reply(prompt) for prompt in prompts]
        finally:
            await system.close()

    with chat_server(behave) as server:
        return asyncio.run(ask())


@pytest.mark.parametrize("name", REFUSALS)
def test_a_model_that_does_not_hear_ends_the_run_at_its_first_item(
    name: str, tmp_path: Path, program: Callable[..., Any]
) -> None:
    """Else every conversation would be recorded as a bad request."""
    data = write_parquet(tmp_path / "data.parquet", conversation_rows(5))
    with chat_server(lambda call: verdict() if call.model == "j" else refusing(*REFUSALS[name])) as server:
        done = program(
            "run", "audio-multichallenge", "--data", data, "--home", tmp_path / "home", "--no-hear", "--retries", 0,
            "--model", "litellm:openai/m", "--api-base", server.base, "--judge", "checks",
        )  # fmt: skip
    assert done.code == 2, done.err
    assert REFUSALS[name][1][:20] in done.err
    assert ("--limit-mm-per-prompt" if name == "vLLM, one" else "--audio transcript") in done.err
    assert len(server.calls) == 1


def test_a_limit_that_only_long_conversations_break_leaves_the_others_alone() -> None:
    """Voxtral takes five recordings in a request, whatever its server is told."""

    def behave(call: Call) -> Answer:
        many = str(call.body).count("'input_audio',") > 5
        return refusing(400, "At most 5 audio(s) may be provided in one request.") if many else Answer("yes")

    long, short = (Prompt("c", [(SpokenTurn(WAV, None), "a")] * turns) for turns in (6, 5))
    refused, answered = replies(behave, long, short)
    assert refused.unscored is Unscored.BAD_REQUEST
    assert "--limit-mm-per-prompt" in str(refused.detail)
    assert answered.text == "yes"


def test_one_odd_recording_ends_no_run_of_a_model_that_has_heard_others() -> None:
    answers = iter([Answer("yes"), refusing(400, "This audio is not supported.")])
    first, second = replies(lambda _: next(answers), *[Prompt("c", [(SpokenTurn(WAV, None), None)])] * 2)
    assert first.text == "yes"
    assert second.unscored is Unscored.BAD_REQUEST


@pytest.mark.parametrize("detail", ["context length exceeded", "The audio is corrupt.", "Rate limit of audio tokens"])
def test_other_complaints_are_not_taken_for_deafness(detail: str) -> None:
    assert refused_audio(detail) is None


def test_a_deaf_model_gets_transcripts_without_complaint(tmp_path: Path, program: Callable[..., Any]) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", conversation_rows(1, audio=False))
    with chat_server(lambda call: verdict() if call.model == "j" else Answer("yes")) as server:
        done = program(
            "run", "audio-multichallenge", "--data", data, "--home", tmp_path / "home", "--judge", "checks",
            "--model", "litellm:openai/m", "--api-base", server.base, "--audio", "transcript",
        )  # fmt: skip
    assert "input_audio" not in str(server.calls[0].body)
    assert done.code in (0, 3), done.err
