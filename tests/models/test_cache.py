"""The response cache gives back just what was asked for, keeps only good answers, and never stands in a run's way."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from support.chat_server import Answer, Call, ChatServer, chat_server, verdict
from support.datasets import conversation_rows, write_jsonl
from vivace.audio.convert import EncodedAudio
from vivace.models.adapters.litellm import LiteLLMAsker, LiteLLMSystem
from vivace.models.base import ModelReply, Prompt, SpokenTurn
from vivace.models.client.cache import KeptAnswers, ResponseCache, kept_answers
from vivace.models.client.calls import CallRecord, ChatOptions, recorded_calls
from vivace_rubrics.criteria import Criterion, Exchange
from vivace_rubrics.judges import LanguageModelJudge, language_model_card
from vivace_rubrics.prompts import VIVACE_PROMPT


def prompt(text: str = "hello", audio: bytes | None = None) -> Prompt:
    return Prompt("c", [(SpokenTurn(EncodedAudio(audio, "wav") if audio else None, text), None)])


def numbered() -> Callable[[Call], Answer]:
    """Answers that are all different."""
    numbers = count()
    return lambda _: Answer(f"answer {next(numbers)}")


def ask(
    server: ChatServer,
    cache: ResponseCache | None,
    *,
    asked: Prompt | None = None,
    sample: tuple[int, ...] = (0,),
    model: str = "openai/m",
    **arguments: Any,
) -> tuple[ModelReply, list[CallRecord]]:
    async def work() -> tuple[ModelReply, list[CallRecord]]:
        system = LiteLLMSystem(model, arguments, ChatOptions(server.base, retries=0))
        try:
            with recorded_calls() as calls, kept_answers(cache, *sample):
                return await system.reply(asked or prompt()), calls
        finally:
            await system.close()

    return asyncio.run(work())


@pytest.fixture
def cache(tmp_path: Path) -> ResponseCache:
    return ResponseCache(tmp_path / "cache")


def test_the_same_request_is_answered_once_without_a_cost_or_a_time(cache: ResponseCache) -> None:
    with chat_server(numbered()) as server:
        first, first_calls = ask(server, cache)
        second, second_calls = ask(server, ResponseCache(cache.folder))
    assert len(server.calls) == 1
    assert (second.text, second.finish_reason) == (first.text, first.finish_reason)
    assert second.model_snapshot == first.model_snapshot
    assert None not in (first.ttft_s, first.total_s)
    assert second.ttft_s is second.first_audio_s is second.total_s is None
    assert [call.cached for call in first_calls] == [False]
    assert second_calls == [CallRecord(seconds=0.0, cost_usd=0.0, cached=True)]


@pytest.mark.parametrize(
    "other",
    [
        {"sample": (1,)},
        {"sample": (0, 1)},
        {"asked": prompt("Hello")},
        {"asked": prompt(audio=b"RIFF")},
        {"model": "openai/n"},
        {"temperature": 0.5},
    ],
    ids=["repeat", "vote", "text", "audio", "model", "parameter"],
)
def test_any_other_request_is_another_request(other: dict[str, Any], cache: ResponseCache) -> None:
    with chat_server(numbered()) as server:
        first, _ = ask(server, cache)
        second, _ = ask(server, cache, **other)
        again, _ = ask(server, cache, **other)
    assert [first.text, second.text, again.text] == ["answer 0", "answer 1", "answer 1"]


def test_another_recording_or_another_address_is_another_request(cache: ResponseCache) -> None:
    with chat_server(Answer("one")) as one, chat_server(Answer("other")) as other:
        texts = [
            ask(server, cache, asked=prompt(audio=audio))[0].text
            for server in (one, other)
            for audio in (b"RIFF 1", b"RIFF 2")
        ]
    assert texts == ["one", "one", "other", "other"]
    assert len(one.calls) == len(other.calls) == 2


def test_outside_of_any_sample_every_question_reaches_the_model(cache: ResponseCache) -> None:
    """A hearing probe that a cache answers would prove nothing."""
    with chat_server(numbered()) as server:
        ask(server, cache)
        probed, calls = ask(server, None)
    assert probed.text == "answer 1"
    assert [call.cached for call in calls] == [False]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(""),
        Answer(None),
        Answer(None, message={"refusal": "I cannot."}),
        Answer("par", finish_reason="content_filter"),
        Answer("as far as it got", finish_reason="length"),
        Answer(status=500),
        Answer(status=400),
        Answer(cut_after=40),
    ],
    ids=["empty", "null", "refused", "filtered", "truncated", "500", "400", "cut"],
)
def test_what_is_no_whole_answer_is_not_kept(answer: Answer, cache: ResponseCache) -> None:
    answers = iter([answer, Answer("Yes.")])
    with chat_server(lambda _: next(answers)) as server:
        ask(server, cache)
        second, _ = ask(server, cache)
    assert second.text == "Yes."


def test_a_judge_that_is_asked_again_gets_another_answer_each_time_the_same(cache: ResponseCache) -> None:
    """With the unreadable answer given back at every try, no verdict would ever come of it."""
    answers = iter([Answer("no JSON"), verdict(True)])

    async def judge(base: str) -> bool | None:
        asker = LiteLLMAsker("openai/j", {}, ChatOptions(base))
        card = language_model_card("litellm:openai/j", "openai/j", VIVACE_PROMPT, {})
        try:
            with kept_answers(cache, 0, 0):
                judge = LanguageModelJudge(card, asker)
                return (await judge.judge([Exchange("hello")], "a reply", Criterion("Says something"))).met
        finally:
            await asker.close()

    with chat_server(lambda _: next(answers)) as server:
        assert asyncio.run(judge(server.base)) is True
        assert asyncio.run(judge(server.base)) is True
    assert len(server.calls) == 2


def test_a_spoken_answer_comes_back_with_its_sound(cache: ResponseCache) -> None:
    cache.put("ab" * 32, {"text": "hello", "audio": b"RIFF\x00\xff", "detail": None})
    assert cache.get("ab" * 32) == {"text": "hello", "audio": b"RIFF\x00\xff", "detail": None}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"key": "x", "answer": {}}', b'{"answer": {"text": "x"}}'],
)
def test_a_damaged_file_is_said_once_and_replaced(
    content: bytes, cache: ResponseCache, caplog: pytest.LogCaptureFixture
) -> None:
    with chat_server(numbered()) as server:
        ask(server, cache)
        [file] = cache.folder.glob("*/*.json")
        file.write_bytes(content)
        with caplog.at_level(logging.WARNING):
            mended, _ = ask(server, cache)
            file.write_bytes(content)
            ask(server, cache)
    assert mended.text == "answer 1"
    assert [str(file) in record.getMessage() for record in caplog.records] == [True]
    assert "cannot be read" in caplog.text


def test_a_folder_that_cannot_be_written_is_said_once_and_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("not a folder")
    cache = ResponseCache(tmp_path / "cache")
    with chat_server(numbered()) as server, caplog.at_level(logging.WARNING):
        texts = [ask(server, cache)[0].text for _ in range(2)]
    assert texts == ["answer 0", "answer 1"]
    assert len(caplog.records) == 1


def test_a_full_disk_leaves_no_half_written_answer(cache: ResponseCache) -> None:
    """The file system says that it is full when the file is written, after it was made."""
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); "
    code = "from pathlib import Path; from vivace.models.client.cache import ResponseCache; "
    code += f"ResponseCache(Path({str(cache.folder)!r})).put('ab' * 32, {{'text': 'x' * 1000}})"
    done = subprocess.run([sys.executable, "-c", limit + code], capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stderr
    assert [path for path in cache.folder.rglob("*") if path.is_file()] == []


def test_many_processes_share_a_folder_and_none_ever_reads_half_an_answer(cache: ResponseCache) -> None:
    code = (
        "import sys; from pathlib import Path; from vivace.models.client.cache import ResponseCache\n"
        "cache, letter = ResponseCache(Path(sys.argv[1])), sys.argv[2]\n"
        "for turn in range(200):\n"
        "    key = f'{turn % 5:064}'\n"
        "    cache.put(key, {'text': letter * 100_000})\n"
        "    text = cache.get(key)['text']\n"
        "    assert len(text) == 100_000 and len(set(text)) == 1\n"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(cache.folder), letter], env=environment, stderr=subprocess.PIPE
        )
        for letter in "abc"
    ]
    errors = [process.communicate()[1] for process in running]
    assert errors == [b""] * 3
    assert len(list(cache.folder.rglob("*.*"))) == 5


def test_keys_say_nothing_of_what_was_asked(cache: ResponseCache) -> None:
    key = KeptAnswers(cache, (0,)).key_of(["secret words"])
    assert len(key) == 64
    assert set(key) <= set("0123456789abcdef")


def test_a_run_with_the_cache_asks_nothing_again_and_says_so_in_its_accounts(
    tmp_path: Path, program: Callable[..., Any]
) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", conversation_rows(3, criteria=2, audio=False))

    def answer(call: Call) -> Answer:
        return verdict() if call.model == "j" else Answer("Hello there.")

    def arguments(base: str) -> list[object]:
        return [
            "run", "audio-multichallenge", "--data", data, "--home", tmp_path / "home", "--format", "json",
            "--model", "litellm:openai/m", "--api-base", base,
            "--judge", "litellm:openai/j", "--judge-api-base", base,
            "--repeats", 2, "--votes", 3, "--force",
        ]  # fmt: skip

    with chat_server(answer) as server:
        first = program(*arguments(server.base), "--cache")
        assert first.code == 0, first.err
        asked = len(server.calls)
        second = program(*arguments(server.base), "--cache")
        assert second.code == 0, second.err
        assert len(server.calls) == asked
        third = program(*arguments(server.base))
        assert third.code == 0, third.err
        assert len(server.calls) == 2 * asked
    # Every repeat and every vote was an answer of its own.
    assert asked == 3 * 2 + 3 * 2 * 2 * 3
    scores = [json.loads(ended.out)[0]["ars"] for ended in (first, second, third)]
    assert scores == [1.0] * 3
    with sqlite3.connect(tmp_path / "home" / "vivace.db") as database:
        query = "select cached, count(*), sum(cost_usd), sum(input_tokens) from attempt group by 1 order by 1"
        assert database.execute(query).fetchall() == [(0, 2 * asked, None, 2 * asked * 11), (1, asked, 0.0, None)]
        untimed = "select count(*) from reply where ttft_s is null and total_s is null"
        assert database.execute(untimed).fetchall() == [(6,)]
