"""The hearing check: it passes who listens, and catches each way of not listening."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from support.chat_server import Answer, Call, ChatServer, chat_server
from support.datasets import conversation_rows, write_parquet
from support.listener import digits_heard, from_a_cache, listener, recordings
from support.program import vivace
from support.realtime_server import Answer as RealtimeAnswer
from support.realtime_server import Conversation, realtime_server
from vivace.audio.convert import encode_wav
from vivace.audio.digits import VOICED, read_digits
from vivace.errors import UnreachableError, UsageError
from vivace.models.base import ModelReply, Prompt
from vivace.models.client.calls import CallRecord, ChatOptions
from vivace.models.hearing_check import Hearing, asking, check_hearing, digits_in, guessing_odds
from vivace.models.registry import open_system
from vivace_rubrics.criteria import Unscored

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def check(behave: Callable[[Call], Answer], turns: int = 3, folder: Path = VOICED) -> Hearing:
    """The check of a chat model that behaves so."""

    async def run() -> Hearing:
        options = ChatOptions(api_base=server.base, retries=0)
        system = open_system("litellm:openai/listener", {}, options)
        try:
            return await check_hearing(asking(system), turns, read_digits(folder))
        finally:
            await system.close()

    with chat_server(behave) as server:
        return asyncio.run(run())


def test_the_recogniser_of_these_tests_recognises() -> None:
    digits = read_digits()
    for number in ("0123", "4567", "8901", "7777"):
        assert digits_heard(digits.say(number)) == number


@pytest.mark.parametrize("turns", [1, 3, 8])
def test_an_honest_listener_passes_for_the_price_of_three_calls(turns: int) -> None:
    calls: list[Call] = []

    def behave(call: Call) -> Answer:
        calls.append(call)
        return listener()(call)

    found = check(behave, turns)
    assert (found.outcome, found.heard, found.problems) == ("passed", tuple(range(1, turns + 1)), ())
    assert [probe.kind for probe in found.probes] == ["spoken", "swapped", "silent"]
    assert [len(recordings(call)) for call in calls] == [turns] * 3
    # What stands beside the sound must give nothing away: it is the same each time, and holds no digit.
    written = [json.dumps(list(map(_written, call.messages))) for call in calls]
    assert written[0] == written[1] == written[2] and digits_in(written[0]) == ""
    assert found.guessing_odds < 0.001


def _written(message: dict[str, object]) -> object:
    content = message["content"]
    return content if isinstance(content, str) else [part.get("text") for part in content]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("hears", "heard"),
    [
        (lambda sent: [], ()),
        (lambda sent: sent[:1], (1,)),
        (lambda sent: sent[-1:], (3,)),
        (lambda sent: [*sent[:1], *sent[2:]], (1, 3)),
        (lambda sent: [sent[-1]] * len(sent), (3,)),
    ],
    ids=["drops audio", "first only", "last only", "not the middle one", "the last one in place of all"],
)
def test_who_misses_recordings_is_caught_with_the_turns(
    hears: Callable[[Sequence[bytes]], Sequence[bytes]], heard: tuple[int, ...]
) -> None:
    found = check(listener(hears))
    assert (found.outcome, found.heard) == ("failed", heard)
    missing = ", ".join(str(turn) for turn in (1, 2, 3) if turn not in heard)
    assert found.problems and (missing in found.problems[0] or not heard)


def test_answers_from_a_cache_are_caught() -> None:
    found = check(from_a_cache(listener()))
    assert found.outcome == "failed"
    assert any("cache" in problem for problem in found.problems)


def test_a_parrot_of_the_first_answer_is_caught() -> None:
    first: list[Answer] = []

    def behave(call: Call) -> Answer:
        first.append(listener()(call))
        return first[0]

    assert check(behave).outcome == "failed"


def test_a_flood_of_digits_is_no_answer() -> None:
    rows = "".join(f"{number:04d}" for number in range(10_000))
    assert check(lambda call: Answer(rows)).heard == ()


def test_a_guesser_does_not_pass() -> None:
    source = random.Random(7)
    for _ in range(20):
        assert check(lambda call: Answer(f"{source.randrange(10**12):012d}")).outcome == "failed"


def test_a_listener_that_can_repeat_only_one_number_at_a_time_passes() -> None:
    def behave(call: Call) -> Answer:
        question = str(_written(call.messages[-1]))
        lines = (listener()(call).text or "").splitlines()
        for place, word in enumerate(("first", "second", "third")):
            if word in question:
                return Answer(lines[place])
        return Answer(lines[-1])

    found = check(behave)
    assert found.outcome == "passed"
    assert [probe.asked for probe in found.probes] == [(1, 2, 3), (1,), (2,), (1, 2, 3), (1,), (2,), (1, 2, 3)]


def test_numbers_may_come_as_words() -> None:
    def behave(call: Call) -> Answer:
        text = listener()(call).text or ""
        return Answer("".join(f"{WORDS[int(character)]}, " if character.isdigit() else "; " for character in text))

    assert check(behave).outcome == "passed"


def test_silence_may_be_answered_with_nothing() -> None:
    def behave(call: Call) -> Answer:
        answer = listener()(call)
        return answer if digits_in(answer.text or "") else Answer("")

    assert check(behave).outcome == "passed"


def test_a_server_in_trouble_leaves_it_undecided() -> None:
    found = check(lambda call: Answer(status=500))
    assert found.outcome == "undecided" and "server_error" in found.problems[0]


def test_reported_audio_tokens_are_kept() -> None:
    async def ask(prompt: Prompt) -> tuple[ModelReply, Sequence[CallRecord]]:
        failed = CallRecord(0.1, input_audio_tokens=9, error=Unscored.SERVER_ERROR)
        return ModelReply("nothing"), [failed, CallRecord(0.1, input_audio_tokens=120)]

    found = asyncio.run(check_hearing(ask, 1, read_digits()))
    assert {probe.audio_tokens for probe in found.probes} == {120} and found.audio_tokens == 360
    json.dumps(found.as_json())


def test_digits_of_ones_own(tmp_path: Path) -> None:
    source = np.random.default_rng(0)
    for digit in range(10):
        sound = source.normal(0.0, 0.2, 3000 + 100 * digit).clip(-0.9, 0.9)
        soundfile.write(tmp_path / f"{digit}_me_0.wav", sound, 8_000)
    assert check(listener(folder=tmp_path), folder=tmp_path).outcome == "passed"
    (tmp_path / "7_me_0.wav").unlink()
    with pytest.raises(UsageError, match="says all ten"):
        read_digits(tmp_path)


@given(st.lists(st.integers(0, 9), max_size=12))
def test_digits_and_their_words_read_alike(digits: list[int]) -> None:
    assert digits_in(" ".join(WORDS[digit] for digit in digits)) == "".join(map(str, digits))
    assert digits_in(", ".join(map(str, digits))) == "".join(map(str, digits))


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("forty-seven nineteen", "4719"), ("twenty, oh one", "201"), ("thirty forty", "3040"), ("四七一九", "4719"),
        ("４７１９", "4719"), ("It was 4 7-1.9!", "4719"), ("none of ten", "10"), ("alone, someone, eighty", "80"),
    ],
)  # fmt: skip
def test_numbers_in_words(text: str, digits: str) -> None:
    assert digits_in(text) == digits


@pytest.mark.parametrize("turns", range(1, 9))
def test_the_stated_odds_hold_for_random_answers(turns: int) -> None:
    """Simulated: an answer as long as allowed holds a given number no more often than the bound says."""
    from vivace.models.hearing_check import longest_answer

    source = np.random.default_rng(turns)
    tries, length = 20_000, longest_answer(turns)
    answers = source.integers(0, 10, (tries, length)).astype(np.uint8) + ord("0")
    held = np.mean([b"4719" in row.tobytes() for row in answers])
    assert held**2 <= guessing_odds(turns) * 1.5 < 0.001


@pytest.mark.parametrize(("kept", "outcome"), [(3, "passed"), (1, "failed")])
def test_a_realtime_model_is_checked_by_its_transcript(kept: int, outcome: str) -> None:
    """The realtime API takes 24 kHz samples in place of files, and answers in speech."""

    def behave(conversation: Conversation) -> RealtimeAnswer:
        spoken = [content for role, _, content in conversation.items if role == "user" and isinstance(content, bytes)]
        heard = [digits_heard(_wav(samples)) for samples in spoken[:kept]]
        return RealtimeAnswer(text=" / ".join(heard) or "I heard nothing.")

    async def run(base: str) -> Hearing:
        system = open_system("openai-realtime:gpt-realtime", {}, ChatOptions(api_base=base, retries=0))
        try:
            return await check_hearing(asking(system), 3, read_digits())
        finally:
            await system.close()

    with realtime_server(behave) as server:
        found = asyncio.run(run(server.base))
    assert found.outcome == outcome, found.sentence()


def _wav(samples: bytes) -> bytes:
    return encode_wav(np.frombuffer(samples, "<i2") / 32768.0, 24_000)


class TestRuns:
    """The check at the beginning of a run."""

    @staticmethod
    def run(folder: Path, behave: Callable[[Call], Answer], *more: object) -> tuple[dict[str, Any], int, str]:
        """A run over two conversations of three turns: its row, its calls for numbers, and what it said."""
        data = write_parquet(folder / "data.parquet", conversation_rows(2, turns=3, criteria=1))
        with chat_server(behave) as server:
            done = vivace(*TestRuns.command(server, data, folder), *more)
            asked = sum("digit by digit" in str(call.messages[-1]) for call in server.calls)
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)
        return row, asked, done.stderr

    @staticmethod
    def command(server: ChatServer, data: Path, folder: Path) -> tuple[object, ...]:
        return (
            "run", "audio-multichallenge", "--data", data, "--model", "litellm:openai/m", "--api-base", server.base,
            "--judge", "checks", "--home", folder / "home", "--format", "json", "--retries", 0,
        )  # fmt: skip

    @staticmethod
    def talker(hears: Callable[[Sequence[bytes]], Sequence[bytes]]) -> Callable[[Call], Answer]:
        hear = listener(hears)
        return lambda call: hear(call) if "digit by digit" in str(call.messages[-1]) else Answer("yes")

    def test_the_outcome_is_stored_with_all_that_was_asked_and_made_once(self, tmp_path: Path) -> None:
        row, asked, said = self.run(tmp_path, self.talker(lambda sent: sent))
        assert (row["hearing"], asked) == ("passed", 3)
        assert said.startswith(f"Run {row['run']} is recorded;") and said.count("\n") == 1, said
        assert not any("hearing" in reason for reason in row["unofficial_reasons"])
        with sqlite3.connect(tmp_path / "home" / "vivace.db") as database:
            [(stored,)] = database.execute("select hearing from run").fetchall()
            calls = database.execute("select count(*), min(audio_seconds) from attempt where stage = 'hear'")
            [(count, seconds)] = calls.fetchall()
        hearing = json.loads(stored)
        assert hearing["heard"] == [1, 2, 3] and hearing["probes"][0]["kind"] == "spoken"
        assert count == 3 and seconds > 3

    def test_a_resumed_run_is_not_asked_again(self, tmp_path: Path) -> None:
        data = write_parquet(tmp_path / "data.parquet", conversation_rows(3, turns=1, criteria=1))
        talk, count = self.talker(lambda sent: sent), 0

        def behave(call: Call) -> Answer:
            nonlocal count
            count += 1
            return Answer(status=402) if count == 5 else talk(call)

        with chat_server(behave) as server:
            first = vivace(*self.command(server, data, tmp_path), "--concurrency", 1)
            assert first.returncode == UnreachableError.exit_code, first.stderr
            done = vivace(*self.command(server, data, tmp_path))
            assert done.returncode == 0 and json.loads(done.stdout)[0]["hearing"] == "passed"
            assert count == 3 + 3 + 1

    def test_what_was_asked_before_a_stop_is_not_asked_again(self, tmp_path: Path) -> None:
        """The second of three questions is refused: the same command asks that one and the last."""
        data = write_parquet(tmp_path / "data.parquet", conversation_rows(1, turns=3, criteria=1))
        talk, asked = self.talker(lambda sent: sent), 0

        def behave(call: Call) -> Answer:
            nonlocal asked
            asked += "digit by digit" in str(call.messages[-1])
            return Answer(status=402) if asked == 2 else talk(call)

        with chat_server(behave) as server:
            first = vivace(*self.command(server, data, tmp_path))
            assert (first.returncode, asked) == (UnreachableError.exit_code, 2), first.stderr
            done = vivace(*self.command(server, data, tmp_path))
        assert done.returncode == 0 and json.loads(done.stdout)[0]["hearing"] == "passed", done.stderr
        assert asked == 4
        with sqlite3.connect(tmp_path / "home" / "vivace.db") as database:
            [(stored,)] = database.execute("select hearing from run").fetchall()
        assert [probe["kind"] for probe in json.loads(stored)["probes"]] == ["spoken", "swapped", "silent"]

    def test_a_run_that_failed_goes_on_and_cannot_be_official(self, tmp_path: Path) -> None:
        row, _, said = self.run(tmp_path, self.talker(lambda sent: sent[:1]))
        assert row["hearing"] == "failed" and row["apr"] == 1.0
        assert any("hearing" in reason for reason in row["unofficial_reasons"])
        assert "user turn 2, 3 of 3" in said and "cannot be official" in said

    def test_a_run_that_skips_it_says_so(self, tmp_path: Path) -> None:
        row, asked, _ = self.run(tmp_path, self.talker(lambda sent: sent), "--no-hear")
        assert (row["hearing"], asked) == ("skipped", 0)
        assert any("hearing" in reason for reason in row["unofficial_reasons"])

    def test_transcripts_have_nothing_to_hear(self, tmp_path: Path) -> None:
        row, asked, _ = self.run(tmp_path, self.talker(lambda sent: sent), "--audio", "transcript")
        assert (row["hearing"], asked) == (None, 0)

    def test_the_response_cache_is_off_for_it(self, tmp_path: Path) -> None:
        """Numbers are new each time, but a cache that kept a probe would fill for nothing; replies are kept."""
        self.run(tmp_path, self.talker(lambda sent: sent), "--cache")
        kept = list((tmp_path / "home" / "cache").rglob("*"))
        assert sum(path.is_file() for path in kept) == 2


def test_doctor_tells_by_its_exit_code(tmp_path: Path) -> None:
    with chat_server(listener()) as honest, chat_server(listener(lambda sent: [])) as deaf:
        command = ("doctor", "--hear", "litellm:openai/m", "--format", "json", "--api-base")
        passed = vivace(*command, honest.base, "--turns", 5, cwd=tmp_path)
        failed = vivace(*command, deaf.base, cwd=tmp_path)
    assert passed.returncode == 0 and json.loads(passed.stdout)["heard"] == [1, 2, 3, 4, 5], passed.stderr
    assert failed.returncode == 1 and "does not hear" in failed.stderr
    unreachable = vivace(*command, "http://127.0.0.1:9/v1", cwd=tmp_path)
    assert unreachable.returncode == 4 and unreachable.stderr.count("\n") == 1
    recorded = vivace("doctor", "--hear", "replay:x.jsonl", cwd=tmp_path)
    assert recorded.returncode == 2 and list(tmp_path.iterdir()) == []
