"""What a model and a judge are sent, as a server on loopback receives it."""

from __future__ import annotations

import base64
import io
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from support.chat_server import Answer, Call, ChatServer, chat_server, verdict
from support.datasets import conversation_rows, tone, write_jsonl, write_parquet

SPEECH = Path(__file__).resolve().parents[3] / "shared" / "data" / "speech"
PROMPT = "Look:\n«conversation_history»\n\nAt this:\n«rubric_item»\nAnswer in JSON like {}."
REPLY = "  A {reply} with «rubric_item», <<conversation>> and\n```json\n{}\n```  "


def row(key: str, recordings: list[bytes], assistants: list[str | None], rubric: list[str]) -> dict[str, Any]:
    """One conversation in the public columns; its user turns read `KEY speaks N`."""
    columns: dict[str, Any] = {"id": key, "axis": "VOICE_EDITING"}
    for number in range(1, 9):
        spoken = number <= len(recordings)
        columns[f"user_turn_{number}_audio"] = {"bytes": recordings[number - 1], "path": None} if spoken else None
        columns[f"user_turn_{number}_transcript"] = f" {key} speaks {number}\n" if spoken else None
        if number < 8:
            columns[f"assistant_turn_{number}_transcript"] = (
                assistants[number - 1] if number <= len(assistants) else None
            )
    columns["rubric"] = json.dumps(rubric)
    return columns


def wav(samples: np.ndarray[Any, Any], rate: int, subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype=subtype)
    return buffer.getvalue()


def parts(call: Call) -> list[tuple[str, Any]]:
    """A request's messages one content part at a time: (role, text or decoded audio part)."""
    found: list[tuple[str, Any]] = []
    for message in call.messages:
        content = message["content"]
        for part in content if isinstance(content, list) else [content]:
            if isinstance(part, str):
                found.append((message["role"], part))
            else:
                assert part["type"] == "input_audio"
                data = base64.b64decode(part["input_audio"]["data"], validate=True)
                found.append((message["role"], (part["input_audio"]["format"], data)))
    return found


def assert_as_decoded(sent: bytes, source: bytes) -> None:
    """That `sent` is `source`, decoded, mixed to mono and resampled, to one least significant bit."""
    received, rate = soundfile.read(io.BytesIO(sent), dtype="int16", always_2d=True)
    assert (rate, received.shape[1]) == (16_000, 1)
    samples, source_rate = soundfile.read(io.BytesIO(source), dtype="float64", always_2d=True)
    expected = soxr.resample(samples.mean(axis=1), source_rate, 16_000, quality="HQ")
    expected = np.clip(np.rint(expected * 32768), -32768, 32767)
    assert len(received) == len(expected)
    assert np.abs(received[:, 0].astype(np.int64) - expected).max() <= 1
    assert np.abs(expected).max() > 1000  # there was something to hear


def run_arguments(data: Path, server: ChatServer) -> list[object]:
    return [
        "run", "audio-multichallenge", "--data", data, "--home", data.parent / "home", "--format", "json",
        "--no-hear", "--model", "litellm:openai/m", "--api-base", server.base,
        "--judge", "litellm:openai/j", "--judge-api-base", server.base,
    ]  # fmt: skip


def answers(call: Call) -> Answer:
    return verdict() if call.model == "j" else Answer(REPLY)


@pytest.mark.parametrize("streams", [True, False], ids=["streaming server", "server that cannot stream"])
def test_a_run_sends_every_turn_as_it_was_spoken_and_the_judge_what_was_said(
    streams: bool, tmp_path: Path, program: Callable[..., Any]
) -> None:
    exact = (np.random.default_rng(1).normal(0, 4000, 5000)).astype(np.int16)
    recordings = [
        tone(300, rate=48_000, channels=2, container="FLAC"),
        tone(400, rate=44_100, channels=2, container="OGG"),
        tone(500, rate=24_000, container="MP3"),
        tone(600, rate=8_000, container="WAV"),
        wav(exact, 16_000),
    ]
    assistants = ["  **One**\n- a  ", "Two", None, "Four\n\n# Heading"]
    rubric = ["Names «conversation_history»", "Says {this}"]
    data = write_parquet(tmp_path / "data.parquet", [row("ann", recordings, assistants, rubric)])
    (tmp_path / "judge_prompt.txt").write_text(PROMPT + "\n", encoding="utf-8")

    with chat_server(answers, streams=streams) as server:
        done = program(*run_arguments(data, server))
    assert done.code == 0, done.err
    [asked] = [call for call in server.calls if call.model == "m"]
    assert set(asked.body) == {"model", "messages", "stream", "stream_options"}
    assert [message["role"] for message in asked.messages] == [
        "user", "assistant", "user", "assistant", "user", "assistant", "user",
    ]  # fmt: skip
    sent = parts(asked)
    assert [role for role, _ in sent] == [
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
        "user",
        "assistant",
        "user",
    ]
    assert [content for role, content in sent if role == "assistant"] == ["**One**\n- a", "Two", "Four\n\n# Heading"]
    heard = [content for role, content in sent if role == "user"]
    assert {form for form, _ in heard} == {"wav"}
    for (_, content), source in zip(heard, recordings, strict=True):
        assert_as_decoded(content, source)
    assert soundfile.read(io.BytesIO(heard[4][1]), dtype="int16")[0].tolist() == exact.tolist()

    history = (
        "User: ann speaks 1\n\nAssistant: **One**\n- a\n\nUser: ann speaks 2\n\nAssistant: Two\n\n"
        "User: ann speaks 3\n\nUser: ann speaks 4\n\nAssistant: Four\n\n# Heading\n\nUser: ann speaks 5\n\n"
        f"Assistant: {REPLY}"
    )
    judged = sorted((call for call in server.calls if call.model == "j"), key=lambda call: str(call.messages))
    assert [call.messages for call in judged] == [
        [{"role": "user", "content": f"Look:\n{history}\n\nAt this:\n{item}\nAnswer in JSON like {{}}."}]
        for item in rubric
    ]
    for call in judged:
        assert set(call.body) <= {"model", "messages", "response_format", "stream"}
        schema = call.body["response_format"]["json_schema"]
        assert call.body["response_format"]["type"] == "json_schema"
        assert schema["strict"] is True
        assert list(schema["schema"]["properties"]) == schema["schema"]["required"] == ["explanation", "criteria_met"]

    with sqlite3.connect(tmp_path / "home" / "vivace.db") as database:
        [(text, snapshot, ttft, total)] = database.execute("select text, model_snapshot, ttft_s, total_s from reply")
        tokens = database.execute(
            "select stage, input_tokens, output_tokens, cost_usd, error from attempt"
        ).fetchall()
    assert (text, snapshot) == (REPLY, "m-snapshot")
    assert 0 < ttft <= total
    assert sorted(tokens) == [("generate", 11, 7, None, None), *[("judge", 11, 7, None, None)] * 2]


@pytest.mark.skipif(not SPEECH.is_dir(), reason=f"no recordings of human speech at {SPEECH}")
def test_human_speech_arrives_as_it_was_recorded(tmp_path: Path, program: Callable[..., Any]) -> None:
    digits = sorted((SPEECH / "digits").glob("*.wav"))[::40]
    recordings = [(SPEECH / "jfk.flac").read_bytes(), *(path.read_bytes() for path in digits)]
    data = write_parquet(tmp_path / "data.parquet", [row("ann", recordings, ["a", "b", "c"], ["Says it"])])
    with chat_server(answers) as server:
        done = program(*run_arguments(data, server))
    assert done.code == 0, done.err
    heard = [content for role, content in parts(server.calls[0]) if role == "user"]
    for (_, content), source in zip(heard, recordings, strict=True):
        assert_as_decoded(content, source)


def test_original_recordings_go_out_as_the_bytes_they_are(tmp_path: Path, program: Callable[..., Any]) -> None:
    flac = tone(500, rate=48_000, channels=2, container="FLAC")
    recordings = [tone(300, rate=44_100, channels=2, container="WAV"), tone(400, container="MP3"), flac]
    data = write_parquet(tmp_path / "data.parquet", [row("ann", recordings, ["a", "b"], ["Says it"])])
    with chat_server(answers) as server:
        done = program(*run_arguments(data, server), "--audio", "original")
    assert done.code == 0, done.err
    heard = [content for role, content in parts(server.calls[0]) if role == "user"]
    assert heard[:2] == [("wav", recordings[0]), ("mp3", recordings[1])]
    assert heard[2][0] == "wav"
    whole, rate = soundfile.read(io.BytesIO(heard[2][1]), dtype="int16")
    assert rate == 48_000
    assert np.array_equal(whole, soundfile.read(io.BytesIO(flac), dtype="int16")[0])


def test_generation_parameters_reach_the_server_and_make_another_run(
    tmp_path: Path, program: Callable[..., Any]
) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", conversation_rows(1, audio=False))
    given = {
        "max_tokens": 99,
        "reasoning_effort": "low",
        "temperature": 0.5,
        "thinking": {"type": "enabled", "budget_tokens": 128},
        "extra_body": {"chat_template_kwargs": {"enable_thinking": False}},
    }
    flags = [
        item
        for key, value in given.items()
        for item in ("--model-arg", f"{key}={value if isinstance(value, str) else json.dumps(value)}")
    ]
    with chat_server(answers) as server:
        plain, first, again, other = (
            program(*run_arguments(data, server), *extra)
            for extra in ([], flags, flags, [*flags, "--model-arg", "max_tokens=98"])
        )
    runs = [json.loads(done.out)[0]["run"] for done in (plain, first, again, other)]
    assert runs[1] == runs[2]
    assert len(set(runs)) == 3
    bodies = [call.body for call in server.calls if call.model == "m"]
    assert len(bodies) == 3
    sent = {**given, **given["extra_body"]}  # type: ignore[dict-item]
    del sent["extra_body"]
    assert {key: bodies[1].get(key) for key in sent} == sent
    assert bodies[2]["max_tokens"] == 98
    assert not set(sent) & set(bodies[0])


@pytest.mark.parametrize(
    "argument",
    [
        "api_key=secret", "messages=[]", "model=x", "stream=false", "n=2", "api_base=http://x", "timeout=1",
        "tools=[]", "mock_response=hi", "num_retries=3", "extra_headers={}", "custom_llm_provider=openai",
        "allowed_openai_params=[]", 'extra_body={"messages": []}',
    ],
)  # fmt: skip
def test_what_is_no_generation_parameter_is_refused(
    argument: str, tmp_path: Path, program: Callable[..., Any]
) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", conversation_rows(1, audio=False))
    with chat_server(answers) as server:
        for flag in ("--model-arg", "--judge-arg"):
            done = program(*run_arguments(data, server), flag, argument)
            assert done.code == 2
            refused = "named like a key" if argument.startswith("api_key") else f"{flag} cannot set"
            assert refused in done.err
            assert "secret" not in done.err
    assert server.calls == []
    assert not (tmp_path / "home").exists()


def test_the_judges_prompt_is_the_files_then_the_datasets_then_ours(
    tmp_path: Path, program: Callable[..., Any]
) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", conversation_rows(1, criteria=1, audio=False))
    own = tmp_path / "own.txt"
    own.write_text("OWN «conversation_history» «rubric_item»", encoding="utf-8")

    def judged_with(*extra: object) -> str:
        with chat_server(answers) as server:
            done = program(*run_arguments(data, server), "--force", *extra)
            assert done.code == 0, done.err
            return str(next(call.messages[0]["content"] for call in server.calls if call.model == "j"))

    assert judged_with().startswith("You grade one reply of a voice assistant")
    card = "# Data\n\n```text\nCARD\n«conversation_history»\n«rubric_item»\n```json\n{}\n```\nEND\n```\n"
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    prompt = judged_with()
    assert prompt.startswith("CARD\nUser: user 0 says 1\n\n")
    assert prompt.endswith("\n```json\n{}\n```\nEND")
    (tmp_path / "judge_prompt.txt").write_text("FILE «conversation_history» «rubric_item»", encoding="utf-8")
    assert judged_with().startswith("FILE User: user 0 says 1")
    assert judged_with("--judge-prompt", own).startswith("OWN User: user 0 says 1")


def test_model_and_judge_together_keep_to_the_concurrency(tmp_path: Path, program: Callable[..., Any]) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", conversation_rows(8, criteria=3, audio=False))

    def slowly(call: Call) -> Answer:
        answer = answers(call)
        answer.delay_s = 0.05
        return answer

    with chat_server(slowly) as server:
        done = program(*run_arguments(data, server), "--concurrency", 3)
    assert done.code == 0, done.err
    assert len(server.calls) == 8 + 24
    assert server.most_in_flight == 3
