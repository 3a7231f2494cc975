"""The hearing check of cascades, at the ear: it passes who listens, and catches each way of not listening."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from vivace.audio.convert import decode, encode_wav
from vivace.audio.digits import read_digits
from vivace.models.base import HeardTurn, ModelReply, Prompt, SpokenTurn
from vivace.models.client.calls import CallRecord
from vivace.models.ear_check import NUMBERS, VOICINGS, check_ear
from vivace.models.hearing_check import Hearing, Probe, digits_in, read_probes, stored_probes
from vivace_rubrics.criteria import Unscored

ZERO = 10_000


class ToldByLength:
    """Recordings of silence that hold a number by how long they are, so that no test has to recognise speech."""

    def voicings(self, number: str) -> Iterator[bytes]:
        while True:
            yield encode_wav(np.zeros(ZERO + int(number)), 16_000)


def digits_in_length(recording: bytes) -> str:
    """The number in such a recording; nothing in the check's own silence, which is longer than any."""
    number = len(decode(recording).samples) - ZERO
    return f"{number:04d}" if number < 10_000 else ""


Hears = Callable[[str, int], str | Unscored]
"""From the digits that are really there (empty for silence) and the turn's number to what the ear writes."""


@dataclass
class Stages:
    """A cascade whose ear and model behave as a test says."""

    hears: Hears = lambda digits, turn: digits or Unscored.EMPTY
    answers: Callable[[list[str]], str | Unscored] = lambda written: "\n".join(written)
    heard: list[str] = field(default_factory=list)
    read: list[list[str]] = field(default_factory=list)

    async def hear(self, turn: SpokenTurn, number: int) -> tuple[HeardTurn, Sequence[CallRecord]]:
        assert turn.audio is not None
        digits = digits_in_length(turn.audio.content)
        self.heard.append(digits)
        made = self.hears(digits, number)
        if isinstance(made, Unscored):
            return HeardTurn(number, None, made, "why"), [CallRecord(0.1, input_audio_tokens=3)]
        return HeardTurn(number, made), [CallRecord(0.1, input_audio_tokens=3)]

    async def answer(self, prompt: Prompt) -> tuple[ModelReply, Sequence[CallRecord]]:
        assert all(turn.audio is None for turn, _ in prompt.turns)
        *written, question = [turn.text or "" for turn, _ in prompt.turns]
        assert "digit by digit" in question
        self.read.append(written)
        made = self.answers(written)
        return (ModelReply(None, made) if isinstance(made, Unscored) else ModelReply(made)), []


def check(stages: Stages, turns: int = 2, earlier: Sequence[Probe] = ()) -> Hearing:
    return asyncio.run(check_ear(stages, turns, ToldByLength(), earlier=earlier))  # type: ignore[arg-type]


def test_an_honest_ear_passes_and_the_model_is_told_apart() -> None:
    stages = Stages()
    found = check(stages)
    assert (found.outcome, found.heard, found.problems, found.repeated) == ("passed", (1, 2), (), (1, 2))
    assert len(stages.heard) == 5 and stages.heard[-1] == "" and len(set(stages.heard)) == 5
    assert stages.read == [stages.heard[:2]]
    assert [(probe.stage, probe.kind) for probe in found.probes][-2:] == [("ear", "silent"), ("model", "spoken")]
    assert "its model repeated 2 of 2" in found.sentence() and found.guessing_odds < 1e-4
    json.dumps(found.as_json())


@pytest.mark.parametrize("answers", [lambda _: "I cannot.", lambda _: Unscored.SERVER_ERROR, lambda _: "1" * 10_000])
def test_a_model_that_cannot_repeat_numbers_does_not_make_the_ear_deaf(answers: Callable[[list[str]], str]) -> None:
    found = check(Stages(answers=answers))
    assert found.outcome == "passed" and not found.repeated


@pytest.mark.parametrize(
    ("hears", "heard"),
    [
        (lambda digits, turn: Unscored.EMPTY, ()),
        (lambda digits, turn: "you", ()),
        (lambda digits, turn: digits if turn == 2 else "", (2,)),
        (lambda digits, turn: digits if turn == 1 else Unscored.UNREADABLE, (1,)),
        (lambda digits, turn: " ".join([digits] * 40), ()),
        (lambda digits, turn: f"{digits} {digits}", ()),
        (lambda digits, turn: " ".join(map(str, range(10_000))), ()),
        (lambda digits, turn: Unscored.TOO_LONG, ()),
    ],
    ids=["deaf", "you", "the last turn only", "the first only", "loops", "twice", "a flood", "too long"],
)
def test_an_ear_that_does_not_listen_fails_with_the_turns(hears: Hears, heard: tuple[int, ...]) -> None:
    stages = Stages(hears)
    found = check(stages)
    assert (found.outcome, found.heard) == ("failed", heard)
    missing = [str(turn) for turn in (1, 2) if turn not in heard]
    assert not heard or all(turn in found.problems[0] for turn in missing)
    assert not stages.read, "what was not heard is not put to the model"


def test_an_ear_from_a_cache_fails() -> None:
    first: dict[int, str] = {}
    assert check(Stages(lambda digits, turn: first.setdefault(turn, digits))).outcome == "failed"
    told: list[str] = []

    def remembers(digits: str, turn: int) -> str:
        told.append(digits or told[0])
        return told[-1]

    found = check(Stages(remembers))
    assert found.outcome == "failed" and "cache" in found.problems[0]


def test_a_number_that_is_missed_is_spoken_by_other_voices() -> None:
    tries: dict[str, int] = {}

    def misses_the_first(digits: str, turn: int) -> str | Unscored:
        tries[digits] = tries.get(digits, 0) + 1
        return digits if tries[digits] > 1 else Unscored.EMPTY

    found = check(Stages(misses_the_first))
    assert found.outcome == "passed"
    assert [tries[number] for number in tries if number] == [2, 2, 2, 2]
    deaf = Stages(lambda digits, turn: "no")
    check(deaf, turns=1)
    numbers = deaf.heard[:-1]
    assert len(numbers) == VOICINGS * NUMBERS and len(set(numbers)) == NUMBERS
    assert numbers == sorted(numbers, key=list(dict.fromkeys(numbers)).index)


def test_a_number_that_is_hard_in_any_voice_gives_way_to_another() -> None:
    hard: list[str] = []

    def misses_two_numbers(digits: str, turn: int) -> str:
        if digits and digits not in hard and len(hard) < turn:
            hard.append(digits)
        return "I'm" if digits in hard else digits

    found = check(Stages(misses_two_numbers))
    assert found.outcome == "passed" and len(hard) == 2
    assert [probe.numbers for probe in found.probes].count((hard[0],)) == VOICINGS
    assert found.repeated == (1, 2), "the model is asked for the numbers that were heard"


def test_other_voices_are_other_speakers_while_there_are_any() -> None:
    digits = read_digits()
    voicings = digits.voicings("1234")
    assert len({next(voicings) for _ in range(len(digits.speakers))}) == len(digits.speakers)


@pytest.mark.parametrize("reason", [Unscored.SERVER_ERROR, Unscored.TIMEOUT, Unscored.RATE_LIMITED])
def test_an_ear_in_trouble_leaves_it_undecided_at_once(reason: Unscored) -> None:
    stages = Stages(lambda digits, turn: reason)
    found = check(stages)
    assert found.outcome == "undecided" and reason.value in found.sentence() and len(stages.heard) == 1


def test_what_was_answered_before_a_stop_is_not_asked_again() -> None:
    whole = check(Stages(), turns=3)
    kept = read_probes(json.loads(json.dumps(stored_probes(whole.probes[:4]))))
    stages = Stages()
    found = check(stages, turns=3, earlier=kept)
    assert found.outcome == "passed" and found.probes[:4] == whole.probes[:4]
    assert len(stages.heard) == 3  # two numbers of the second conversation, and silence
    assert digits_in(found.probes[0].answer or "") == stages.read[0][0]
    failed = Probe("spoken", (1,), ("1234",), None, (), "server_error", stage="ear")
    assert check(Stages(), earlier=[failed]).outcome == "passed", "what failed is asked anew"
