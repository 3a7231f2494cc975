"""Every way a server can misbehave ends in a reply or in the right reason, in bounded time, and moves no score."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from support.chat_server import Answer, Call, ChatServer, chat_server, verdict
from support.datasets import conversation_rows, write_jsonl
from support.program import vivace
from vivace.errors import UsageError
from vivace.models.adapters.litellm import LiteLLMAsker, LiteLLMSystem
from vivace.models.base import ModelReply, Prompt, SpokenTurn
from vivace.models.client import chat, pacing, tries
from vivace.models.client.calls import CallRecord, ChatOptions, recorded_calls
from vivace_rubrics.criteria import Criterion, Exchange, Unscored, Verdict
from vivace_rubrics.judges import LanguageModelJudge, language_model_card
from vivace_rubrics.prompts import VIVACE_PROMPT

PROMPT = Prompt("c", [(SpokenTurn(None, "hello"), None)])
EVENTS = {"content-type": "text/event-stream"}
TRANSIENT = 2
"""Calls where one try is left after the first."""


def events(*bodies: Any, done: bool = False) -> bytes:
    return "".join(f"data: {json.dumps(body)}\n\n" for body in bodies).encode() + b"data: [DONE]\n\n" * done


def piece(text: str | None, finish_reason: str | None = None) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def completion(message: Any) -> bytes:
    return json.dumps(
        {"id": "c", "object": "chat.completion", "choices": [{"index": 0, "message": message}]}
    ).encode()


def reply_of(
    server: ChatServer, *, retries: int = 1, timeout_s: float = 20.0, **arguments: Any
) -> tuple[ModelReply, list[CallRecord]]:
    """One reply of a model behind this server, and the record of its calls."""

    async def ask() -> tuple[ModelReply, list[CallRecord]]:
        system = LiteLLMSystem("openai/m", arguments, ChatOptions(server.base, timeout_s, retries))
        try:
            with recorded_calls() as calls:
                return await system.reply(PROMPT), calls
        finally:
            await system.close()

    return asyncio.run(ask())


def verdict_of(server: ChatServer, *, retries: int = 1, timeout_s: float = 20.0) -> Verdict:
    """One verdict of a judge behind this server."""

    async def judge() -> Verdict:
        asker = LiteLLMAsker("openai/j", {}, ChatOptions(server.base, timeout_s, retries))
        card = language_model_card("litellm:openai/j", "openai/j", VIVACE_PROMPT, {})
        try:
            judge = LanguageModelJudge(card, asker, readable_tries=1 + retries)
            return await judge.judge([Exchange("hello")], "a reply", Criterion("Says something"))
        finally:
            await asker.close()

    return asyncio.run(judge())


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between tries that are none, for tests that are not about them."""
    monkeypatch.setattr(tries, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(pacing, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(pacing, "PATIENCE_S", 0.0)


ON_THE_WIRE = {
    "429": (Answer(status=429), Unscored.RATE_LIMITED, TRANSIENT),
    "500": (Answer(status=500), Unscored.SERVER_ERROR, TRANSIENT),
    "cut connection": (Answer(cut_after=40), Unscored.CONNECTION_CUT, TRANSIENT),
    "empty text": (Answer(""), Unscored.EMPTY, TRANSIENT),
    "no text": (Answer(None), Unscored.EMPTY, TRANSIENT),
    "blanks": (Answer(" \n "), Unscored.EMPTY, TRANSIENT),
    "refusal": (Answer(None, message={"refusal": "I cannot help."}), Unscored.REFUSED, 1),
    "content filter": (Answer("I th", finish_reason="content_filter"), Unscored.CONTENT_FILTER, 1),
    "filtered request": (
        Answer(status=400, raw=b'{"error": {"message": "no", "code": "content_filter"}}'),
        Unscored.CONTENT_FILTER,
        1,
    ),
    "too long for its context": (
        Answer(status=400, raw=b'{"error": {"message": "too long", "code": "context_length_exceeded"}}'),
        Unscored.BAD_REQUEST,
        1,
    ),
    "10 MB": (Answer(raw=completion({"content": "word " * 2_000_000})), Unscored.TOO_LONG, 1),
    "Latin-1": (Answer(raw=completion({"content": "?"}).replace(b"?", b"caf\xe9")), Unscored.UNREADABLE, TRANSIENT),
    "HTML": (
        Answer(raw=b"<html>Welcome</html>", headers={"content-type": "text/html"}),
        Unscored.UNREADABLE,
        TRANSIENT,
    ),
    "an error with status 200": (Answer(raw=b'{"error": {"message": "boom"}}'), Unscored.SERVER_ERROR, TRANSIENT),
    "a 429 with status 200": (
        Answer(raw=b'{"error": {"message": "slow down", "code": 429}}'),
        Unscored.RATE_LIMITED,
        TRANSIENT,
    ),
    "no choices": (Answer(raw=b'{"id": "c", "choices": []}'), Unscored.UNREADABLE, TRANSIENT),
    "null": (Answer(raw=b"null"), Unscored.UNREADABLE, TRANSIENT),
    "nothing": (Answer(raw=b""), Unscored.UNREADABLE, TRANSIENT),
    "a list of parts": (
        Answer(raw=completion({"content": [{"type": "text", "text": "hello"}]})),
        Unscored.UNREADABLE,
        TRANSIENT,
    ),
}

IN_A_STREAM = {
    "cut after a piece, by length": (
        Answer(raw=events(piece("Hello"), piece(None, "stop"), done=True), headers=EVENTS, cut_after=150),
        Unscored.CONNECTION_CUT,
    ),
    "ended after a piece, as if all were well": (
        Answer(raw=events(piece("Hello")), headers=EVENTS, announces_length=False),
        Unscored.CONNECTION_CUT,
    ),
    "an error event": (
        Answer(raw=events({"error": {"message": "overloaded"}}), headers=EVENTS),
        Unscored.SERVER_ERROR,
    ),
    "an error event after a piece": (
        Answer(raw=events(piece("Hello"), {"error": {"message": "overloaded"}}, done=True), headers=EVENTS),
        Unscored.SERVER_ERROR,
    ),
    "an event that is not JSON": (
        Answer(raw=events(piece("Hello")) + b"data: {oops\n\ndata: [DONE]\n\n", headers=EVENTS),
        Unscored.UNREADABLE,
    ),
    "Latin-1": (
        Answer(raw=events(piece("?"), done=True).replace(b"?", b"\xe9"), headers=EVENTS),
        Unscored.UNREADABLE,
    ),
}

UNREADABLE_VERDICTS = {
    "prose around it": 'Here it is: {"explanation": "x", "criteria_met": true}',
    "truncated": '{"explanation": "x", "criteria_me',
    "a string for a boolean": '{"explanation": "x", "criteria_met": "true"}',
    "a missing field": '{"criteria_met": true}',
    "two objects": '{"explanation": "x", "criteria_met": true}\n{"explanation": "x", "criteria_met": true}',
    "a list": '[{"explanation": "x", "criteria_met": true}]',
    "null": "null",
    "a doubled field": '{"explanation": "x", "criteria_met": true, "criteria_met": true}',
}


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("name", ON_THE_WIRE)
@pytest.mark.parametrize("streams", [True, False])
def test_a_models_failure_has_its_reason_and_is_tried_again_only_where_that_may_help(
    name: str, streams: bool
) -> None:
    answer, reason, calls = ON_THE_WIRE[name]
    with chat_server(answer, streams=streams) as server:
        reply, records = reply_of(server)
    assert (reply.text, reply.unscored) == (None, reason)
    assert len(server.calls) == calls
    assert [record.error for record in records] == [reason] * calls


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("name", ON_THE_WIRE)
def test_a_judges_failure_has_the_same_reason(name: str) -> None:
    answer, reason, calls = ON_THE_WIRE[name]
    with chat_server(answer) as server:
        result = verdict_of(server)
    assert (result.met, result.unscored) == (None, reason)
    assert len(server.calls) == calls


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("name", IN_A_STREAM)
def test_a_stream_that_breaks_is_never_taken_for_a_short_reply(name: str) -> None:
    answer, reason = IN_A_STREAM[name]
    with chat_server(answer) as server:
        reply, _ = reply_of(server)
    assert (reply.text, reply.unscored) == (None, reason)
    assert len(server.calls) == TRANSIENT


@pytest.mark.parametrize("name", UNREADABLE_VERDICTS)
def test_a_verdict_that_cannot_be_read_is_asked_for_again_and_then_unscored(name: str) -> None:
    with chat_server(Answer(UNREADABLE_VERDICTS[name])) as server:
        result = verdict_of(server, retries=2)
    assert (result.met, result.unscored) == (None, Unscored.UNREADABLE)
    assert len(server.calls) == 3


@pytest.mark.parametrize("answer", [Answer(delay_s=60), Answer(drip_s=0.05)], ids=["hangs", "drips for ever"])
def test_a_server_that_never_ends_its_answer_is_given_up_after_the_timeout(answer: Answer) -> None:
    started = time.monotonic()
    with chat_server(answer) as server:
        reply, records = reply_of(server, timeout_s=0.5)
        result = verdict_of(server, timeout_s=0.5)
    assert reply.unscored is result.unscored is Unscored.TIMEOUT
    assert len(records) == TRANSIENT
    assert len(server.calls) == 2 * TRANSIENT
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    "retry_after",
    ["0.2", "3600", "inf", "soon", formatdate(time.time() + 7200, usegmt=True), None],
    ids=["short", "long", "infinite", "no number", "date", "absent"],
)
def test_no_retry_after_keeps_a_run_from_ending(retry_after: str | None) -> None:
    headers = {"retry-after": retry_after} if retry_after else {}
    answers = iter([Answer(status=429, headers=headers), Answer("Yes.")])
    started = time.monotonic()
    with chat_server(lambda _: next(answers)) as server:
        reply, records = reply_of(server)
    assert reply.text == "Yes."
    assert [record.error for record in records] == [Unscored.RATE_LIMITED, None]
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(("asked", "least", "most"), [(2.0, 2.0, 2.5), (3600.0, 0.25, 0.32), (None, 0.25, 0.32)])
def test_a_server_is_given_the_pause_it_asks_for_within_reason(
    asked: float | None, least: float, most: float
) -> None:
    assert least <= chat.pause_before_retry(0, asked) <= most


def test_refused_keys_and_unknown_models_stop_everything_with_a_sentence() -> None:
    for status, words in ((401, "refuses the key"), (403, "refuses the key"), (404, "does not know that model")):
        for kind in (reply_of, verdict_of):
            with chat_server(Answer(status=status)) as server, pytest.raises(UsageError, match=words):
                kind(server)
            assert len(server.calls) == 1


def test_a_reply_that_goes_round_in_circles_is_a_reply() -> None:
    text = "and then, and then, " * 500
    with chat_server(Answer(text)) as server:
        reply, _ = reply_of(server)
    assert reply.text == text


def test_halves_of_characters_and_nul_never_reach_the_store() -> None:
    halves = events(piece("\ud83d"), piece("\ude00 \x00 \ud83d!"), piece(None, "stop"), done=True)
    with chat_server(Answer(raw=halves, headers=EVENTS)) as server:
        reply, _ = reply_of(server)
    assert reply.text == "\U0001f600 \ufffd \ufffd!"
    answer = Answer('{"explanation": "\\ud83d \\u0000", "criteria_met": true}')
    with chat_server(answer) as server:
        assert verdict_of(server) == Verdict(True, "\ufffd \ufffd")


def test_tokens_are_what_the_server_counted_or_unknown() -> None:
    with chat_server(Answer("Hello")) as server:
        _, counted = reply_of(server)
    with chat_server(Answer(raw=events(piece("Hello"), piece(None, "stop")), headers=EVENTS)) as server:
        _, uncounted = reply_of(server)
    with chat_server(Answer(raw=completion({"content": "Hello"})), streams=False) as server:
        _, uncounted_whole = reply_of(server)
    assert [(call.input_tokens, call.output_tokens) for call in counted] == [(11, 7)]
    assert [(call.input_tokens, call.output_tokens) for call in uncounted + uncounted_whole] == [(None, None)] * 2
    assert [call.cost_usd for call in counted] == [None]


# Whole runs

CRITERIA = 4
Broken = Callable[[int, int | None], Answer | None]
"""(conversation, criterion or None for its reply) → what goes wrong there; None where nothing does."""


def whole_server(broken: Broken, port: int = 0) -> Any:
    """A server for both model and judge: good answers, except where something is to go wrong."""

    def behave(call: Call) -> Answer:
        conversation, criterion = place_of(call)
        wrong = broken(conversation, criterion)
        if wrong is not None:
            return wrong
        return Answer(f"reply {conversation}") if criterion is None else verdict(is_met(conversation, criterion))

    return chat_server(behave, port=port)


def place_of(call: Call) -> tuple[int, int | None]:
    """Which conversation a call is about, and which criterion if the judge is asked."""
    content = call.messages[0]["content"]
    text = content if isinstance(content, str) else content[0]["text"]
    conversation = int(text.split("user ")[-1].split()[0])
    return conversation, int(text.split("Says yes, criterion ")[1][0]) if call.model == "j" else None


def is_met(conversation: int, criterion: int) -> bool:
    return conversation % 3 != 0 or criterion == 1


def expected_scores(conversations: int, broken: Broken) -> dict[str, float | None]:
    """The scores by their definitions, from what was broken and nothing else."""
    met = scored = passes = whole = may_pass = 0
    for conversation in range(conversations):
        replied = broken(conversation, None) is None
        judged = [c for c in range(CRITERIA) if replied and broken(conversation, c) is None]
        good = [c for c in judged if is_met(conversation, c)]
        met, scored = met + len(good), scored + len(judged)
        whole += len(judged) == CRITERIA
        passes += len(good) == CRITERIA
        may_pass += len(good) == len(judged)
    total = conversations * CRITERIA
    return {
        "coverage": scored / total,
        "ars": met / scored,
        "ars_min": met / total,
        "ars_max": (met + total - scored) / total,
        "apr": passes / whole,
        "apr_min": passes / conversations,
        "apr_max": may_pass / conversations,
    }


def arguments_for(data: Path, base: str) -> list[object]:
    return [
        "run", "audio-multichallenge", "--data", data, "--home", data.parent / "home", "--format", "json",
        "--model", "litellm:openai/m", "--api-base", base,
        "--judge", "litellm:openai/j", "--judge-api-base", base, "--timeout", 2,
    ]  # fmt: skip


def text_only(tmp_path: Path, conversations: int) -> Path:
    rows = conversation_rows(conversations, criteria=CRITERIA, audio=False)
    return write_jsonl(tmp_path / "data.jsonl", rows)


BAD_REPLIES = (
    Answer(status=429, headers={"retry-after": "3600"}),
    Answer(status=500),
    Answer(cut_after=30),
    Answer(""),
    Answer(None, message={"refusal": "no"}),
    Answer("par", finish_reason="content_filter"),
    Answer(delay_s=60),
    Answer(raw=events({"error": {"message": "overloaded"}}), headers=EVENTS),
    Answer(raw=events(piece("par")), headers=EVENTS, announces_length=False),
)
BAD_VERDICTS = (
    *(Answer(text) for text in UNREADABLE_VERDICTS.values()),
    Answer(status=429, headers={"retry-after": "0.1"}),
    Answer(status=500),
    Answer(cut_after=30),
    Answer(None, message={"refusal": "no"}),
    Answer("{", finish_reason="content_filter"),
    Answer(raw=b"<html></html>"),
)


def bad_model(conversation: int, criterion: int | None) -> Answer | None:
    if criterion is None and conversation % 2:
        return BAD_REPLIES[conversation // 2 % len(BAD_REPLIES)]
    return None


def bad_judge(conversation: int, criterion: int | None) -> Answer | None:
    if criterion is not None and conversation % 4 and (conversation + criterion) % 2:
        return BAD_VERDICTS[(2 * conversation + criterion // 2) % len(BAD_VERDICTS)]
    return None


def half_bad(conversation: int, criterion: int | None) -> Answer | None:
    if criterion is None:
        return bad_model(conversation, criterion)
    return bad_judge(conversation, criterion) if conversation % 4 == 2 else None


@pytest.mark.parametrize("broken", [bad_model, bad_judge, half_bad])
def test_failures_move_no_score_and_retry_errors_mends_them_and_nothing_else(
    broken: Broken, tmp_path: Path, program: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tries, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(pacing, "PATIENCE_S", 0.0)
    conversations = 2 * len(BAD_REPLIES)
    data = text_only(tmp_path, conversations)
    ill = True

    def now_broken(conversation: int, criterion: int | None) -> Answer | None:
        return broken(conversation, criterion) if ill else None

    with whole_server(now_broken) as server:
        done = program(*arguments_for(data, server.base), "--retries", 1)
        assert done.code == 3, done.err
        assert "--retry-errors" in done.err
        [row] = json.loads(done.out)
        assert {key: row[key] for key in expected_scores(1, lambda *_: None)} == pytest.approx(
            expected_scores(conversations, broken)
        )

        server.calls.clear()
        again = program(*arguments_for(data, server.base))
        assert again.code == 3
        assert server.calls == []

        ill = False
        mended = program(*arguments_for(data, server.base), "--retry-errors", "--timeout", 60)
        assert mended.code == 0, mended.err
        [row] = json.loads(mended.out)
        assert {key: row[key] for key in ("coverage", "ars", "apr")} == pytest.approx(
            {key: value for key, value in expected_scores(conversations, lambda *_: None).items() if "_" not in key}
        )
        assert Counter(map(place_of, server.calls)) == Counter(
            (conversation, criterion)
            for conversation in range(conversations)
            for criterion in (None, *range(CRITERIA))
            if broken(conversation, criterion) or (criterion is not None and broken(conversation, None))
        )


def test_a_run_of_half_bad_answers_ends_soon_with_the_usual_retries(tmp_path: Path) -> None:
    data = text_only(tmp_path, 2 * len(BAD_REPLIES))
    started = time.monotonic()
    with whole_server(half_bad) as server:
        done = vivace(*arguments_for(data, server.base))
    assert done.returncode == 3, done.stderr
    assert time.monotonic() - started < 150
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    assert done.stderr.strip().count("\n") <= 6  # sentences and progress, no log of a library

    with sqlite3.connect(tmp_path / "home" / "vivace.db") as database:
        tries = database.execute("select stage, count(*), sum(input_tokens), sum(cost_usd) from attempt group by 1")
        recorded = {stage: (count, tokens, cost) for stage, count, tokens, cost in tries}
        [(answered,)] = database.execute("select count(*) from attempt where input_tokens is not null").fetchall()
    assert recorded["generate"][0] == sum(call.model == "m" for call in server.calls)
    assert recorded["judge"][0] == sum(call.model == "j" for call in server.calls)
    assert recorded["generate"][1] + recorded["judge"][1] == 11 * answered
    assert recorded["generate"][2] is recorded["judge"][2] is None


def test_a_server_that_dies_ends_the_run_which_goes_on_when_it_is_back(
    tmp_path: Path, program: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "CONNECT_TRIES", 3)
    data = text_only(tmp_path, 8)
    server_holder: list[ChatServer] = []

    def dies(conversation: int, criterion: int | None) -> Answer | None:
        if conversation == 5 and criterion is None:
            threading.Thread(target=server_holder[0].stop).start()
            return Answer(delay_s=60)
        return None

    with whole_server(dies) as server:
        server_holder.append(server)
        done = program(*arguments_for(data, server.base), "--concurrency", 2)
    assert done.code == 4, done.err
    assert "Nothing answers" in done.err
    kept = {place_of(call) for call in server.calls}
    with sqlite3.connect(tmp_path / "home" / "vivace.db") as database:
        [(replies,)] = database.execute("select count(*) from reply where unscored_reason is null").fetchall()
        [(failures,)] = database.execute("select count(*) from reply where unscored_reason is not null").fetchall()
    assert replies >= 4
    assert failures == 0

    with whole_server(lambda *_: None, port=server.port) as back:
        again = program(*arguments_for(data, back.base), "--concurrency", 2)
    assert again.code == 0, again.err
    assert len([call for call in back.calls if call.model == "m"]) == 8 - replies
    assert (0, None) in kept
    [row] = json.loads(again.out)
    assert row["coverage"] == 1.0
