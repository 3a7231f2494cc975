"""Does it hear? Proof that recordings reach a system under test, before any score is believed.

The system is sent conversations in which numbers are spoken, one in each user turn, and is asked in writing
to write them down. What it is sent beside the sound is always the same, so nothing but the sound can tell it
the numbers:

- **spoken**: a number of four digits in every turn;
- **swapped**: the same conversation with other numbers, which a system that answers from a cache misses;
- **silent**: the same conversation in silence; numbers of before must not come out.

A turn's recording is heard if its number comes out of the spoken *and* of the swapped conversation. Where one
is missing, it is asked for by itself once more: repeating many numbers at once is harder than hearing them.

A cascade is asked in another way, at its ear (`vivace.models.ear_check`).
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from vivace.audio.convert import AudioForm, decode, for_model
from vivace.audio.digits import SpokenDigits, silence
from vivace.models.base import ModelReply, Prompt, SpokenTurn, SystemUnderTest
from vivace.models.client.calls import CallRecord, recorded_calls
from vivace_rubrics.criteria import Unscored

Kind = Literal["spoken", "swapped", "silent"]
KINDS_OF_PROBES: tuple[Kind, ...] = ("spoken", "swapped", "silent")
"""Each is asked once; a number that does not come out is asked for by itself besides."""
Outcome = Literal["passed", "failed", "undecided"]
Stage = Literal["system", "ear", "model"]
"""Who is asked: a system as a whole, or of a cascade its ear, or its model, which reads what the ear wrote."""

DIGITS = 4
SILENT_SECONDS = 3.0
SLACK_PER_TURN, SLACK = 3, 8
"""Digits that an answer may hold beside the numbers: list numbering, a repeated question. One that holds
more is no answer: a long enough row of digits holds every number."""
FEWEST_TURNS, MOST_TURNS = 1, 8
ACKNOWLEDGEMENT = "I have heard it. Go on, please."
"""The fixed assistant turn between two recordings; it holds no digit."""

_UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = (
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = {
    **{word: str(value) for value, word in enumerate(_UNITS)},
    **{word: str(value) for value, word in enumerate(_TEENS, start=10)},
    "oh": "0",
    "o": "0",
}
_HAN = {character: str(value) for value, character in enumerate("〇一二三四五六七八九")} | {"零": "0"}


@dataclass(frozen=True)
class Probe:
    """One question of the check, and what came of it."""

    kind: Kind
    asked: tuple[int, ...]
    """The turns (from 1) whose numbers were asked for; all of them, or one by itself."""
    numbers: tuple[str, ...]
    """The numbers spoken in the turns; empty where there was silence."""
    answer: str | None
    heard: tuple[int, ...]
    """The turns, of those asked for, whose numbers came out."""
    unscored: str | None = None
    """Why there was no answer."""
    detail: str | None = None
    audio_seconds: float = 0.0
    audio_tokens: int | None = None
    """What the server (or the local model) says it took in as audio: tokens or frames."""
    stage: Stage = "system"
    """Who was asked. Of an ear's probes `numbers` holds only the one that was spoken in that turn."""


@dataclass(frozen=True)
class Hearing:
    """How the check came out."""

    outcome: Outcome
    turns: int
    heard: tuple[int, ...]
    """The turns whose recordings were heard."""
    guessing_odds: float
    """The most likely that a deaf system is taken to have heard one given turn."""
    problems: tuple[str, ...]
    """What is wrong, in sentences; empty where it passed."""
    probes: tuple[Probe, ...]
    repeated: tuple[int, ...] | None = None
    """Of a cascade, the turns whose numbers its model repeated from the transcripts; None where it was not asked."""

    @property
    def audio_tokens(self) -> int | None:
        """All that was reported as taken in; None where nothing was reported."""
        counts = [probe.audio_tokens for probe in self.probes if probe.audio_tokens is not None]
        return sum(counts) if counts else None

    def as_json(self) -> dict[str, Any]:
        """As it is stored with a run."""
        return {**vars(self), "audio_tokens": self.audio_tokens, "probes": stored_probes(self.probes)}

    def sentence(self) -> str:
        """The outcome in a sentence."""
        if self.outcome == "passed" and self.probes[0].stage == "ear":
            model = "" if self.repeated is None else f"; its model repeated {len(self.repeated)} of {self.turns}"
            return f"Its ear hears: the numbers spoken in all of {self.turns} user turns came out{model}."
        if self.outcome == "passed":
            return f"It hears: the numbers spoken in all of {self.turns} user turns came out."
        return " ".join(self.problems)


def stored_probes(probes: Sequence[Probe]) -> list[dict[str, Any]]:
    """Probes as they are stored with a run."""
    return [vars(probe) for probe in probes]


def read_probes(stored: Sequence[Mapping[str, Any]]) -> list[Probe]:
    """Probes as they were before they were stored."""
    probes = []
    for one in stored:
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in one.items()
        }
        probes.append(Probe(**values))
    return probes


class Ask(Protocol):
    """How one question of the check is put."""

    def __call__(self, prompt: Prompt) -> Awaitable[tuple[ModelReply, Sequence[CallRecord]]]:
        """The reply, and the calls that it took."""
        ...


def asking(system: SystemUnderTest) -> Ask:
    """Questions put to a system with nothing around them."""

    async def ask(prompt: Prompt) -> tuple[ModelReply, Sequence[CallRecord]]:
        with recorded_calls() as calls:
            return await system.reply(prompt), calls

    return ask


async def check_hearing(
    ask: Ask,
    turns: int,
    digits: SpokenDigits,
    form: AudioForm = "16k",
    earlier: Sequence[Probe] = (),
    on_probe: Callable[[Sequence[Probe]], Awaitable[None]] | None = None,
) -> Hearing:
    """Find out whether a system hears the recordings of each user turn.

    Args:
        ask: puts a question to the system.
        turns: user turns with a recording, 1 to 8: as many as the longest conversation to come has.
        form: in which recordings are sent.
        earlier: probes of a check that was stopped; those that were answered are not asked again.
        on_probe: told after each probe of all there are by then, so that they can be kept.

    Raises:
        UsageError, UnreachableError: as the system's `reply`.
    """
    return await _Check(ask, turns, digits, form, earlier, on_probe).run()


class _Check:
    def __init__(
        self,
        ask: Ask,
        turns: int,
        digits: SpokenDigits,
        form: AudioForm,
        earlier: Sequence[Probe],
        on_probe: Callable[[Sequence[Probe]], Awaitable[None]] | None,
    ) -> None:
        if not FEWEST_TURNS <= turns <= MOST_TURNS:
            raise ValueError(f"the check takes {FEWEST_TURNS} to {MOST_TURNS} turns")
        self._ask = ask
        self._all = tuple(range(1, turns + 1))
        self._form = form
        self._on_probe = on_probe
        answered = [probe for probe in earlier if is_answer(probe)]
        self._answered = {(probe.kind, probe.asked): probe for probe in answered}
        spoken = next((probe.numbers for probe in answered if probe.kind == "spoken"), ())
        swapped = next((probe.numbers for probe in answered if probe.kind == "swapped"), ())
        numbers = fresh_numbers(2 * turns, (*spoken, *swapped))
        self._numbers: dict[Kind, tuple[str, ...]] = {
            "spoken": numbers[:turns],
            "swapped": numbers[turns:],
            "silent": (),
        }
        self._recordings: dict[Kind, list[bytes]] = {
            "spoken": [digits.say(number) for number in numbers[:turns]],
            "swapped": [digits.say(number) for number in numbers[turns:]],
            "silent": [silence(SILENT_SECONDS)] * turns,
        }
        self._probes: list[Probe] = []

    async def run(self) -> Hearing:
        heard = set(self._all)
        for kind in KINDS_OF_PROBES[:2]:
            heard &= await self._heard_in(kind, heard)
        await self._probe("silent", self._all)
        problems = self._problems(heard)
        unanswered = [probe for probe in self._probes if probe.unscored and not is_answer(probe)]
        outcome: Outcome = "undecided" if unanswered else "failed" if problems else "passed"
        if unanswered:
            first = unanswered[0]
            problems = [f"The hearing check got no answer ({first.unscored}: {first.detail})."]
        return Hearing(
            outcome=outcome,
            turns=len(self._all),
            heard=tuple(sorted(heard)),
            guessing_odds=guessing_odds(len(self._all)),
            problems=tuple(problems),
            probes=tuple(self._probes),
        )

    async def _heard_in(self, kind: Kind, wanted: set[int]) -> set[int]:
        """The turns whose numbers come out of one conversation, asked for together, then each by itself."""
        together = await self._probe(kind, self._all)
        found = set(together.heard)
        if len(self._all) > 1 and is_answer(together):
            for turn in sorted(wanted - found):
                found |= set((await self._probe(kind, (turn,))).heard)
        return found

    async def _probe(self, kind: Kind, asked: tuple[int, ...]) -> Probe:
        probe = self._answered.get((kind, asked))
        if probe is None:
            reply, calls = await self._ask(self._prompt(kind, asked))
            probe = self._judged(kind, asked, reply, calls)
        self._probes.append(probe)
        if self._on_probe is not None:
            await self._on_probe(self._probes)
        return probe

    def _prompt(self, kind: Kind, asked: tuple[int, ...]) -> Prompt:
        spoken = [
            SpokenTurn(for_model(recording, self._form), None, decode(recording).seconds)
            for recording in self._recordings[kind]
        ]
        turns: list[tuple[SpokenTurn, str | None]] = [(turn, ACKNOWLEDGEMENT) for turn in spoken[:-1]]
        turns += [(spoken[-1], None), (SpokenTurn(None, question(len(self._all), asked)), None)]
        return Prompt("hearing check", turns)

    def _judged(self, kind: Kind, asked: tuple[int, ...], reply: ModelReply, calls: Sequence[CallRecord]) -> Probe:
        digits = digits_in(reply.text or "")
        if len(digits) > longest_answer(len(asked)):
            digits = ""
        numbers = self._numbers[kind]
        counts = [call.input_audio_tokens for call in calls if call.input_audio_tokens is not None]
        return Probe(
            kind=kind,
            asked=asked,
            numbers=numbers,
            answer=reply.text,
            heard=tuple(turn for turn in asked if numbers and numbers[turn - 1] in digits),
            unscored=reply.unscored.value if reply.unscored else None,
            detail=reply.detail,
            audio_seconds=sum(decode(recording).seconds for recording in self._recordings[kind]),
            audio_tokens=counts[-1] if counts else None,
        )

    def _problems(self, heard: set[int]) -> list[str]:
        problems = []
        missing = [turn for turn in self._all if turn not in heard]
        if len(missing) == len(self._all):
            problems.append("None of the numbers spoken came out of its answers: it does not hear what it is sent.")
        elif missing:
            named = ", ".join(map(str, missing))
            problems.append(
                f"The numbers spoken in user turn {named} of {len(self._all)} did not come out of its answers."
            )
        if any(self._is_stale(probe, earlier) for place, probe in enumerate(self._probes)
               for earlier in self._probes[:place] if earlier.kind != probe.kind):  # fmt: skip
            problems.append("It repeats the numbers of an earlier conversation: its answers come from a cache.")
        return problems

    def _is_stale(self, probe: Probe, earlier: Probe) -> bool:
        """Whether an answer holds all that was heard in another conversation before."""
        digits = digits_in(probe.answer or "")
        together = bool(earlier.heard) and len(earlier.asked) == len(self._all)
        return together and all(earlier.numbers[turn - 1] in digits for turn in earlier.heard)


def is_answer(probe: Probe) -> bool:
    """Whether it was answered, be it with nothing: many a model has nothing to say to silence."""
    return probe.unscored in (None, Unscored.EMPTY.value, Unscored.REFUSED.value)


def question(turns: int, asked: tuple[int, ...]) -> str:
    """What is asked in writing after the recordings; the same whatever was spoken, and itself without a digit."""
    if turns == 1:
        return "In the recording I speak a number, digit by digit. Write down its digits and nothing else."
    if len(asked) == 1:
        which = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")[asked[0] - 1]
        return (
            f"In each of my recordings I speak a number, digit by digit. Write down the digits of the number in my "
            f"{which} recording and nothing else."
        )
    return (
        "In each of my recordings I speak a number, digit by digit. Write down the numbers of all my recordings in "
        "the order in which I sent them, each on a line of its own, as digits and with nothing else."
    )


def longest_answer(asked: int) -> int:
    """Digits of the longest answer that is still one."""
    return (DIGITS + SLACK_PER_TURN) * asked + SLACK


def guessing_odds(turns: int) -> float:
    """How likely at most an answer that knows nothing holds a given number, twice in a row.

    In an answer of n digits a number of four has n − 3 places to stand by chance; it is asked for among all
    and by itself, in two conversations.
    """
    places = longest_answer(turns) - DIGITS + 1 + longest_answer(1) - DIGITS + 1
    return float((places / 10**DIGITS) ** 2)


def digits_in(text: str) -> str:
    """All digits of a text in order, number words included, with everything else left out."""
    found: list[str] = []
    tens: str | None = None
    for token in re.findall(r"[^\W\d_]+|\d", text.lower()):
        unit = _WORDS.get(token)
        if tens is not None:
            # "forty seven" is 47, "forty" before anything else is 40.
            found.append(tens if unit is not None and len(unit) == 1 else tens + "0")
            tens = None
        if token in _TENS:
            tens = str(_TENS.index(token) + 2)
        elif unit is not None:
            found.append(unit)
        elif token.isdigit():
            found.append(str(unicodedata.digit(token)))
        elif all(character in _HAN for character in token):
            found += [_HAN[character] for character in token]
    return "".join([*found, *([tens + "0"] if tens else [])])


def fresh_numbers(count: int, first: Sequence[str] = ()) -> tuple[str, ...]:
    """Fresh numbers of four digits after the first ones, none of which comes about where two others meet."""
    while True:
        fresh = [f"{secrets.randbelow(10**DIGITS):0{DIGITS}d}" for _ in range(count - len(first))]
        numbers = [*first, *fresh]
        row = "".join(numbers)
        if all(row.count(number) == 1 and not row.find(number) % DIGITS for number in numbers):
            return tuple(numbers)
