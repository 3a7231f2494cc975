"""What a server, a file or an adapter reports is input: kept where it can be so, else not reported, no error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.chat_server import Answer, chat_server
from support.datasets import conversation_rows, write_jsonl
from vivace.cli.common import Format, print_rows
from vivace.models.adapters import local
from vivace.models.adapters.litellm import LiteLLMSystem
from vivace.models.adapters.replay import Replay
from vivace.models.base import ModelReply, Prompt, SpokenTurn
from vivace.models.client.calls import CallRecord, ChatOptions, recorded_calls
from vivace.models.client.completions import usage_of
from vivace.models.client.providers.prices import TokenUsage, parse_price
from vivace.models.client.transport import parse_retry_after
from vivace_rubrics.criteria import Unscored

ABSURD: list[Any] = [
    -1, -0.5, 10**30, 10**400, float("inf"), float("-inf"), float("nan"), "3", None, True, [], {}, b"3",
]  # fmt: skip
HALF = "stop\ud83d\x00"


@pytest.mark.parametrize("value", ABSURD, ids=str)
def test_no_absurd_number_is_recorded(value: Any) -> None:
    reply = ModelReply("Yes.", ttft_s=value, first_audio_s=value, total_s=value)
    assert (reply.text, reply.ttft_s, reply.first_audio_s, reply.total_s) == ("Yes.", None, None, None)
    call = CallRecord(value, value, value, value, value)
    assert call == CallRecord(0.0)
    usage = {"prompt_tokens": value, "completion_tokens": value, "cost": value}
    details = {"prompt_tokens_details": {"audio_tokens": value, "cached_tokens": value}}
    assert usage_of({**usage, **details, "completion_tokens_details": value}) == TokenUsage()


def test_numbers_that_can_be_so_are_kept() -> None:
    reply = ModelReply("Yes.", ttft_s=0, first_audio_s=0.5, total_s=2)
    assert (reply.ttft_s, reply.first_audio_s, reply.total_s) == (0.0, 0.5, 2.0)
    usage = usage_of({"prompt_tokens": 11, "completion_tokens": 0, "cost": 0.25})
    assert usage == TokenUsage(11, 0, cost_usd=0.25)


def test_a_beginning_after_the_end_is_no_time() -> None:
    reply = ModelReply("Yes.", ttft_s=0.9, total_s=0.4)
    assert (reply.ttft_s, reply.total_s) == (None, None)
    assert ModelReply("Yes.", ttft_s=0.9).ttft_s == 0.9


def test_a_part_that_is_more_than_its_whole_is_no_count() -> None:
    usage = TokenUsage(10, 5, input_audio_tokens=11, output_audio_tokens=6, cached_tokens=10**9)
    assert usage == TokenUsage(10, 5)


def test_names_and_details_can_be_stored() -> None:
    reply = ModelReply(None, Unscored.SERVER_ERROR, HALF, finish_reason=HALF, model_snapshot="m" * 1000)
    assert reply.detail == reply.finish_reason == "stop\ufffd\ufffd"
    assert reply.model_snapshot == "m" * 200
    for value in (7, None, "", "\u200b", ["stop"]):
        assert ModelReply("Yes.", finish_reason=value, model_snapshot=value).finish_reason is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("written", "said"),
    [("<think>Two?</think>\nOne.", "One."), ("Two?</think>One.", "One."), ("One.", "One."), (" One. ", " One. ")],
)
def test_every_reply_is_without_its_thoughts_and_keeps_them(written: str, said: str, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "replies.jsonl", [{"id": "c", "response": written}])
    replayed = asyncio.run(Replay(file).reply(Prompt("c", [])))
    with chat_server(Answer(written)) as server:
        asked = _reply_from(server.base)[0]
    for reply in (replayed, asked):
        assert (reply.text, reply.unscored) == (said, None)
        assert reply.raw_text == (written if written != said else None)


@pytest.mark.parametrize("written", ["<think>Two?", "<think>Two?</think>\n", "\u200b\ufeff", "\x1b\x00", "\xa0"])
def test_a_reply_that_shows_nothing_is_empty(written: str, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "replies.jsonl", [{"id": "c", "response": written}])
    replayed = asyncio.run(Replay(file).reply(Prompt("c", [])))
    with chat_server(Answer(written)) as server:
        asked = _reply_from(server.base)[0]
    for reply in (replayed, asked):
        assert (reply.text, reply.unscored) == (None, Unscored.EMPTY)
        assert reply.raw_text == (written if "Two?" in written else None)


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize(
    "number", ["1e999", "-1000", "NaN", "-Infinity", "1" + 30 * "0", "9" * 5000], ids=lambda number: number[:9]
)
def test_no_number_in_an_answer_fails_it(number: str, streams: bool) -> None:
    usage = f'{{"prompt_tokens": {number}, "completion_tokens": 3, "cost": {number}}}'
    choice = '{"index": 0, "%s": {"content": "Yes."}, "finish_reason": "st\\ud83dop"}'
    body = '{"model": "m\\u0000", "choices": [%s], "usage": %s}'
    whole = (body % (choice % ("delta" if streams else "message"), usage)).encode()
    stream = {"content-type": "text/event-stream"}
    answer = Answer(raw=b"data: " + whole + b"\n\ndata: [DONE]\n\n", headers=stream) if streams else Answer(raw=whole)
    with chat_server(answer) as server:
        reply, [call] = _reply_from(server.base)
    assert (reply.text, reply.finish_reason, reply.model_snapshot) == ("Yes.", "st\ufffdop", "m\ufffd")
    assert (call.input_tokens, call.output_tokens, call.cost_usd, call.error) == (None, 3, None, None)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("-3", 0.0), ("inf", 1e6), ("1e999", 1e6), ("9" * 400, 1e6), ("nan", None), ("soon", None),
     ("", None), ("Sun, 01 Nov 2026 08:00:00 GMT", 0.0), ("Mon, 01 Jan 99999 00:00:00 GMT", None)],
)  # fmt: skip
def test_a_pause_is_a_time_or_none(header: str, seconds: float | None) -> None:
    assert parse_retry_after(header) == seconds


@pytest.mark.parametrize("price", ["9" * 400 + ",1", "1,-2", "nan,1", "1", "1,2,3"])
def test_a_price_is_two_amounts_of_money(price: str) -> None:
    with pytest.raises(ValueError, match="write two numbers"):
        parse_price(price)


def test_absurd_times_of_a_file_of_replies_reach_no_figure(program: Callable[..., Any], tmp_path: Path) -> None:
    rows = conversation_rows(4, audio=False)
    data = write_jsonl(tmp_path / "data.jsonl", rows)
    times = ['"ttft_s": 1e999, "total_s": Infinity', '"ttft_s": -1, "total_s": NaN', '"total_s": 1' + "0" * 400, "0"]
    lines = [f'{{"id": "{row["id"]}", "response": "yes", {each}}}\n' for row, each in zip(rows, times, strict=True)]
    lines[3] = lines[3].replace(", 0}", ', "ttft_s": 0.9, "total_s": 0.4}')
    (tmp_path / "replies.jsonl").write_text("".join(lines))
    done = program(
        "run", "audio-multichallenge", "--data", data, "--model", "replay:replies.jsonl", "--judge", "checks",
        "--format", "json",
    )  # fmt: skip
    assert done.code == 0, done.err

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    board = json.loads(program("leaderboard", "--format", "json").out, parse_constant=refuse)
    assert [(row["ttft_median_s"], row["total_median_s"]) for row in board] == [(None, None)]


def _reply_from(base: str) -> tuple[ModelReply, list[CallRecord]]:
    async def ask() -> tuple[ModelReply, list[CallRecord]]:
        system = LiteLLMSystem("openai/m", {}, ChatOptions(base, retries=0))
        try:
            with recorded_calls() as calls:
                return await system.reply(Prompt("c", [(SpokenTurn(None, "hello"), None)])), calls
        finally:
            await system.close()

    return asyncio.run(ask())


def test_what_was_recorded_before_is_still_written_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"total_s": float("inf"), "axes": {"a": [float("nan"), 1.5]}}], Format.JSON, {})
    printed = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert printed == [{"total_s": None, "axes": {"a": [None, 1.5]}}]


def test_an_import_and_an_export_keep_what_was_thought(program: Callable[..., Any], tmp_path: Path) -> None:
    rows = conversation_rows(2, criteria=1, audio=False)
    data = write_jsonl(tmp_path / "data.jsonl", rows)
    raw = "<think>\nYes or no?\n</think>\n\nyes"
    replies = [{"id": row["id"], "response": text} for row, text in zip(rows, (raw, "yes"), strict=True)]
    write_jsonl(tmp_path / "replies.jsonl", replies)
    write_jsonl(tmp_path / "verdicts.jsonl", [{**reply, "criteria_met": [True]} for reply in replies])
    common = ("audio-multichallenge", "--data", data)
    done = program("run", *common, "--model", "replay:replies.jsonl", "--judge", "checks", "--format", "json")
    assert json.loads(done.out)[0]["apr"] == 1.0
    taken = ("--verdicts", "verdicts.jsonl", "--model", "m", "--judge-name", "people", "--format", "json")
    imported = program("import", *common, *taken)
    for judging in (json.loads(done.out)[0]["judging"], json.loads(imported.out)[0]["judging"]):
        exported = [json.loads(line) for line in program("export", judging).out.splitlines()]
        assert [(row["reply"], row["reply_raw_text"]) for row in exported] == [("yes", raw), ("yes", None)]


def test_a_local_model_is_held_to_the_same_rules() -> None:
    answer = {"text": "<think>Two?</think>One.\ud83d", "finish_reason": "stop", "ttft_s": -1.0, "total_s": 2.0}
    reply = local._reply({**answer, "notes": ["answered alone"]}, "M", None)
    assert reply == ModelReply(
        "One.\ufffd", None, "answered alone", None, "stop", "M", total_s=2.0,
        raw_text="<think>Two?</think>One.\ufffd",
    )  # fmt: skip
    reply = local._reply({**answer, "text": "<think>Two?", "finish_reason": "length", "notes": []}, "M", None)
    assert reply.unscored is Unscored.EMPTY
    assert reply.detail == "the reply is nothing but thoughts (finish reason length)"
