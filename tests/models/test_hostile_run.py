"""A run against a server that mixes every kind of hostile answer ends by itself, and its honest half is scored."""

from __future__ import annotations

import json
import os
import re
import subprocess
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.chat_server import Answer, Call, chat_server, verdict
from support.datasets import conversation_rows, write_jsonl
from support.program import PROGRAM, environment
from vivace.models.client import pacing, transport, tries

STREAM = {"content-type": "text/event-stream"}
MOST_BYTES = 1_500_000_000


def whole(**fields: Any) -> bytes:
    """A chat completion in one piece, with these fields in place of the usual ones."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
    return json.dumps({"model": "m", "choices": [choice], **fields}).encode()


def saying(text: str) -> bytes:
    return whole(choices=[{"index": 0, "message": {"content": text}, "finish_reason": "stop"}])


def refusing(message: str) -> bytes:
    return json.dumps({"error": {"message": message}}).encode()


def bomb() -> bytes:
    """0.3 MB that become 300: a megabyte of nothing, packed once and repeated."""
    packer = zlib.compressobj(9, wbits=31)
    beginning = packer.compress(b'{"choices": "') + packer.flush(zlib.Z_FULL_FLUSH)
    return beginning + 300 * (packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH))


BOMB = bomb()
DEEP = b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"

KINDS: dict[str, Answer] = {
    "hangs": Answer(delay_s=60),
    "a bomb": Answer(raw=BOMB, headers={"content-encoding": "gzip"}),
    "10^30 tokens": Answer(raw=whole(usage={"prompt_tokens": 10**30, "completion_tokens": -7})),
    "a reset": Answer(resets=True),
    "a streamed bomb": Answer(raw=BOMB, headers={"content-encoding": "gzip", **STREAM}),
    "a cost that is none": Answer(raw=whole(usage={"cost": float("nan")})),
    "an endless stream": Answer(raw=b"\n", headers=STREAM, endless=b'data: {"choices": []}\n' * 3000),
    "a redirect": Answer(status=307, headers={"location": "http://127.0.0.1:9/\x1b]0;x"}),
    "an endless line": Answer(raw=b"data: ", headers=STREAM, endless=b"x" * 65_536),
    "a cost below zero": Answer(raw=whole(usage={"cost": -1000, "prompt_tokens": 1, "completion_tokens": 1})),
    "drips": Answer(drip_s=0.02),
    "a spent quota": Answer(status=429, headers={"retry-after": "3600"}),
    "nested deeply": Answer(raw=DEEP),
    "half characters": Answer(raw=whole(model="m\ud83d\x00", system_fingerprint="\ud800")),
    "a huge header": Answer(headers={"x-filler": "x" * 300_000}),
    "an endless answer": Answer(raw=b'{"choices": "', endless=b"x" * 65_536),
    "escapes": Answer(raw=saying("\x1b]0;pwned\x07\x1b[2J\x9b31m\u202eYes.")),
    "a stream cut short": Answer(raw=b'data: {"choices": [{"delta": {"content": "Ye"}}]}\n\n', headers=STREAM),
    "an unknown parameter": Answer(status=400, raw=refusing("unknown parameter: response_format, 'temperature'")),
    "a wrong type": Answer(raw=whole(), headers=STREAM),
    "an absurd pause": Answer(status=503, headers={"retry-after": "9" * 400}),
    "a cut connection": Answer(cut_after=30),
    "invisible": Answer(raw=saying("\u200b\ufeff\x00\xa0")),
    "no JSON": Answer(raw=b'{"choices": [{'),
    "thoughts alone": Answer(raw=saying("<think>" * 20_000)),
    "HTML": Answer(raw=b"<html>", headers={"content-type": "text/html"}),
    "two choices": Answer(raw=whole(choices=[{"message": {"content": text}} for text in ("Yes.", "No.")])),
    "doubled choices": Answer(raw=b'{"choices": [], ' + whole()[1:]),
    "not text": Answer(raw=whole(choices=[{"message": {"content": {"a": []}}}])),
    "brotli": Answer(raw=b"\x8b\x02\x80", headers={"content-encoding": "br"}),
    "a long error": Answer(status=500, raw=refusing("x" * 3_000_000)),
    "an odd status": Answer(status=999),
    "a long integer": Answer(raw=whole().replace(b'"m"', b"9" * 50_000)),
    "Latin-1": Answer(raw=saying("?").replace(b"?", b"\xe9")),
    "an informational status": Answer(status=102),
    "an odd list": Answer(raw=b"[" + b"1," * 100_000 + b"1]"),
    "no content": Answer(status=204, raw=b""),
}


def behave(kinds: list[str]) -> Callable[[Call], Answer]:
    """Even conversations are answered and judged honestly; of the others, replies or verdicts are not."""

    def answer(call: Call) -> Answer:
        content = call.messages[0]["content"]
        text = content if isinstance(content, str) else content[0]["text"]
        found = re.search(r"user (\d+) says", text)
        assert found is not None
        number, role = int(found[1]), call.model
        if number % 4 == (1 if role == "m" else 3):
            # The judge's kinds begin half way round, so that few conversations show many.
            return KINDS[kinds[(number // 4 + (0 if role == "m" else len(kinds) // 2)) % len(kinds)]]
        return Answer(f"reply {number}") if role == "m" else verdict("criterion 0" in text)

    return answer


def arguments_for(folder: Path, base: str, conversations: int, *more: object) -> list[str]:
    data = write_jsonl(folder / "data.jsonl", conversation_rows(conversations, turns=1, audio=False))
    words = [
        "run", "audio-multichallenge", "--data", data, "--home", folder / "home", "--format", "json",
        "--model", "litellm:openai/m", "--api-base", base, "--judge", "litellm:openai/j", "--judge-api-base", base,
        "--concurrency", 16, "--price", "1,1", "--judge-price", "1,1", "--max-cost", 100, *more,
    ]  # fmt: skip
    return list(map(str, words))


def check_honest_half(printed: str, exported: str, conversations: int) -> None:
    """See that the honest half came out as it is, and that what was printed is JSON."""
    [row] = json.loads(printed, parse_constant=pytest.fail)
    assert row["coverage"] < 1
    assert row["cost_usd"] is None or row["cost_usd"] >= 0
    items = [json.loads(line, parse_constant=pytest.fail) for line in exported.splitlines()]
    assert len(items) == 2 * conversations
    honest = [item for item in items if int(item["conversation"][-4:]) % 2 == 0]
    assert len(honest) == conversations
    assert Counter((item["criterion"], item["met"]) for item in honest) == {
        (0, True): conversations // 2, (1, False): conversations // 2,
    }  # fmt: skip


def test_the_honest_half_of_a_short_run_is_scored(
    program: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "STREAM_LIMIT", 1_000_000)
    monkeypatch.setattr(transport, "ANSWER_LIMIT", 500_000)
    monkeypatch.setattr(pacing, "LONGEST_OWN_PAUSE_S", 0.1)
    kinds = [kind for kind in KINDS if kind not in ("hangs", "drips", "an informational status")]
    with chat_server(behave(kinds)) as server:
        done = program(*arguments_for(tmp_path, server.base, 80, "--retries", 0, "--timeout", 5))
    assert done.code == 3, done.err
    assert "criteria are unscored" in done.err
    judging = json.loads(done.out)[0]["judging"]
    check_honest_half(done.out, program("export", judging, "--home", tmp_path / "home").out, 80)


def test_a_quota_that_is_spent_midway_ends_the_run_which_goes_on_later(
    program: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "LONGEST_OWN_PAUSE_S", 0.01)
    monkeypatch.setattr(tries, "FIRST_WAIT_S", 0.01)
    left = 10

    def answer(call: Call) -> Answer:
        nonlocal left
        if call.model == "m":
            return Answer("Yes.")
        left -= 1
        return verdict() if left >= 0 else Answer(status=429, headers={"retry-after": "3600"})

    with chat_server(answer) as server:
        words = arguments_for(tmp_path, server.base, 60, "--retries", 1)
        ended = program(*words)
        asked = sum(call.model == "j" for call in server.calls)
        left = 1000
        again = program(*words, "--retry-errors")
    assert ended.code == 3, ended.err
    assert "The quota of the judge 'openai/j' is spent: its server asks for a pause of 60 minutes" in ended.err
    assert asked < 60
    assert again.code == 0, again.err
    assert json.loads(again.out)[0]["coverage"] == 1


@pytest.mark.full
def test_a_long_run_ends_within_its_memory_and_the_honest_half_is_scored(
    program: Callable[..., Any], tmp_path: Path
) -> None:
    with chat_server(behave(list(KINDS))) as server:
        words = arguments_for(tmp_path, server.base, 452, "--retries", 1, "--timeout", 5)
        with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
            process = subprocess.Popen([*PROGRAM, *words], env=environment(), stdout=out, stderr=err)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 3, (tmp_path / "err").read_text()[-2000:]
    assert used.ru_maxrss * 1024 < MOST_BYTES
    printed = (tmp_path / "out").read_text()
    judging = json.loads(printed)[0]["judging"]
    check_honest_half(printed, program("export", judging, "--home", tmp_path / "home").out, 452)
    print(f"peak memory: {used.ru_maxrss / 1000:.0f} MB")
