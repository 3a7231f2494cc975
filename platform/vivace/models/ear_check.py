"""Does a cascade's ear hear? The spoken numbers must come out of its transcripts, whatever its model makes of them.

As in the hearing check of other systems, numbers of four digits are spoken, one for each user turn (`spoken`), then
others (`swapped`), then there is silence. The ear writes down each recording by itself; a number that does not come
out is spoken again by other voices, and then gives way to another one. What the ear wrote then goes to the model in
the benchmark's protocol, which is asked to repeat the numbers: how many it repeats is told, and decides nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from vivace.audio.convert import AudioForm, decode, for_model
from vivace.audio.digits import SpokenDigits, silence
from vivace.models.base import HeardTurn, HearsFirst, ModelReply, Prompt, SpokenTurn
from vivace.models.client.calls import CallRecord, recorded_calls
from vivace.models.hearing_check import (
    ACKNOWLEDGEMENT,
    DIGITS,
    FEWEST_TURNS,
    KINDS_OF_PROBES,
    MOST_TURNS,
    SILENT_SECONDS,
    SLACK_PER_TURN,
    Hearing,
    Kind,
    Outcome,
    Probe,
    digits_in,
    fresh_numbers,
    is_answer,
    longest_answer,
    question,
)
from vivace_rubrics.criteria import Unscored

VOICINGS = 3
"""Voices that speak a number at most: a good ear, too, misses what some of them say."""
NUMBERS = 3
"""Numbers that are spoken in a turn at most, one after the other: some are hard to make out in any voice."""
MOST_DIGITS = DIGITS + SLACK_PER_TURN
"""Digits of a transcript in which a number can be heard: one that goes round in circles holds it for nothing."""
MISSED = {Unscored.EMPTY, Unscored.REFUSED, Unscored.TOO_LONG, Unscored.UNREADABLE}
"""What an ear says that was asked and heard nothing of use; other failures leave the check undecided."""


class AskInStages(Protocol):
    """How the two stages of a cascade are asked."""

    def hear(self, turn: SpokenTurn, number: int) -> Awaitable[tuple[HeardTurn, Sequence[CallRecord]]]:
        """What its ear makes of a recording, and the calls that it took."""
        ...

    def answer(self, prompt: Prompt) -> Awaitable[tuple[ModelReply, Sequence[CallRecord]]]:
        """What its model answers in writing, and the calls that it took."""
        ...


class AskedInStages:
    """Questions put to a cascade with nothing around them."""

    def __init__(self, system: HearsFirst) -> None:
        self._system = system

    async def hear(self, turn: SpokenTurn, number: int) -> tuple[HeardTurn, Sequence[CallRecord]]:
        """What its ear makes of a recording."""
        with recorded_calls() as calls:
            return await self._system.hear(turn, number), calls

    async def answer(self, prompt: Prompt) -> tuple[ModelReply, Sequence[CallRecord]]:
        """What its model answers in writing."""
        with recorded_calls() as calls:
            return await self._system.answer(prompt), calls


async def check_ear(
    ask: AskInStages,
    turns: int,
    digits: SpokenDigits,
    form: AudioForm = "16k",
    earlier: Sequence[Probe] = (),
    on_probe: Callable[[Sequence[Probe]], Awaitable[None]] | None = None,
) -> Hearing:
    """Find out whether the ear of a cascade hears each user turn.

    Args:
        ask: puts questions to its stages.
        turns: user turns with a recording, 1 to 8: as many as the longest conversation to come has.
        digits: that are spoken.
        form: in which recordings are sent.
        earlier: probes of a check that was stopped; those that were answered are not asked again.
        on_probe: told after each probe of all there are by then, so that they can be kept.

    Raises:
        UsageError, UnreachableError: as the system's `hear` and `answer`.
    """
    if not FEWEST_TURNS <= turns <= MOST_TURNS:
        raise ValueError(f"the check takes {FEWEST_TURNS} to {MOST_TURNS} turns")
    return await _EarCheck(ask, turns, digits, form, earlier, on_probe).run()


class _EarCheck:
    def __init__(
        self,
        ask: AskInStages,
        turns: int,
        digits: SpokenDigits,
        form: AudioForm,
        earlier: Sequence[Probe],
        on_probe: Callable[[Sequence[Probe]], Awaitable[None]] | None,
    ) -> None:
        self._ask = ask
        self._all = tuple(range(1, turns + 1))
        self._digits = digits
        self._form = form
        self._on_probe = on_probe
        self._earlier = [probe for probe in earlier if probe.stage != "system" and _is_answer(probe)]
        spoken = [probe for probe in self._earlier if probe.stage == "ear" and probe.numbers]
        known = dict.fromkeys((probe.kind, probe.asked[0], probe.numbers[0]) for probe in spoken)
        every = 2 * turns * NUMBERS
        fresh = iter(fresh_numbers(every, [number for _, _, number in known])[len(known) :])
        self._numbers: dict[tuple[Kind, int], list[str]] = {}
        """Kind and turn → the numbers that are spoken in it, the next one where one did not come out."""
        for kind in KINDS_OF_PROBES[:2]:
            for turn in self._all:
                before = [number for *place, number in known if place == [kind, turn]]
                self._numbers[kind, turn] = [*before, *(next(fresh) for _ in range(NUMBERS - len(before)))]
        self._probes: list[Probe] = []

    async def run(self) -> Hearing:
        written: dict[int, Probe] = {}
        heard = set(self._all)
        for kind in KINDS_OF_PROBES[:2]:
            for turn in sorted(heard):
                probe = await self._heard_at_last(kind, turn)
                if not _is_answer(probe):
                    return self._undecided(probe)
                if not probe.heard:
                    heard.discard(turn)
                written.setdefault(turn, probe)
        quiet = await self._probe("silent", self._all[-1], None, silence(SILENT_SECONDS))
        if not _is_answer(quiet):
            return self._undecided(quiet)
        problems = self._problems(heard, quiet)
        repeated = await self._repeated(written) if heard and not problems else None
        return self._ended("failed" if problems else "passed", heard, problems, repeated)

    async def _heard_at_last(self, kind: Kind, turn: int) -> Probe:
        """What came of a turn's number, spoken by one voice after the other, and of others until one comes out."""
        for number in self._numbers[kind, turn]:
            for recording in itertools.islice(self._digits.voicings(number), VOICINGS):
                probe = await self._probe(kind, turn, number, recording)
                if probe.heard or not _is_answer(probe):
                    return probe
        return probe

    async def _probe(self, kind: Kind, turn: int, number: str | None, recording: bytes) -> Probe:
        numbers = () if number is None else (number,)
        alike = ("ear", kind, (turn,), numbers)
        known = next((one for one in self._earlier if (one.stage, one.kind, one.asked, one.numbers) == alike), None)
        if known is not None:
            self._earlier.remove(known)
            return await self._kept(known)
        seconds = decode(recording).seconds
        said = SpokenTurn(for_model(recording, self._form), None, seconds)
        told, calls = await self._ask.hear(said, turn)
        digits = digits_in(told.text or "")
        is_heard = number is not None and number in digits and len(digits) <= MOST_DIGITS
        return await self._kept(
            Probe(
                kind=kind,
                asked=(turn,),
                numbers=numbers,
                answer=told.text,
                heard=(turn,) if is_heard else (),
                unscored=told.unscored.value if told.unscored else None,
                detail=told.detail,
                audio_seconds=seconds,
                audio_tokens=next((call.input_audio_tokens for call in reversed(calls)), None),
                stage="ear",
            )
        )

    async def _repeated(self, written: dict[int, Probe]) -> tuple[int, ...] | None:
        """The turns whose numbers the model repeats from what the ear wrote; None where it gives no answer."""
        probe = next((one for one in self._earlier if one.stage == "model"), None)
        if probe is None:
            last = self._all[-1]
            turns: list[tuple[SpokenTurn, str | None]] = [
                (SpokenTurn(None, written[turn].answer), ACKNOWLEDGEMENT if turn != last else None)
                for turn in self._all
            ]
            turns.append((SpokenTurn(None, question(len(self._all), self._all)), None))
            reply, _ = await self._ask.answer(Prompt("hearing check", turns))
            digits = digits_in(reply.text or "")
            if len(digits) > longest_answer(len(self._all)):
                digits = ""
            numbers = tuple(written[turn].numbers[0] for turn in self._all)
            probe = Probe(
                kind="spoken",
                asked=self._all,
                numbers=numbers,
                answer=reply.text,
                heard=tuple(turn for turn in self._all if numbers[turn - 1] in digits),
                unscored=reply.unscored.value if reply.unscored else None,
                detail=reply.detail,
                stage="model",
            )
        await self._kept(probe)
        return probe.heard if is_answer(probe) else None

    async def _kept(self, probe: Probe) -> Probe:
        self._probes.append(probe)
        if self._on_probe is not None:
            await self._on_probe(self._probes)
        return probe

    def _problems(self, heard: set[int], quiet: Probe) -> list[str]:
        problems = []
        missing = [turn for turn in self._all if turn not in heard]
        if len(missing) == len(self._all):
            problems.append("None of the numbers spoken came out of its ear's transcripts: the ear does not hear.")
        elif missing:
            named = ", ".join(map(str, missing))
            problems.append(
                f"The numbers spoken in user turn {named} of {len(self._all)} did not come out of its ear's "
                "transcripts."
            )
        silent = digits_in(quiet.answer or "")
        if any(number in silent for probe in self._probes for number in probe.numbers):
            problems.append("In silence its ear writes down what was spoken before: it comes from a cache.")
        return problems

    def _undecided(self, probe: Probe) -> Hearing:
        why = f"The hearing check got no answer from the ear ({probe.unscored}: {probe.detail})."
        return self._ended("undecided", set(), [why], None)

    def _ended(
        self, outcome: Outcome, heard: set[int], problems: Sequence[str], repeated: tuple[int, ...] | None
    ) -> Hearing:
        return Hearing(
            outcome=outcome,
            turns=len(self._all),
            heard=tuple(sorted(heard)),
            guessing_odds=float((NUMBERS * VOICINGS * (MOST_DIGITS - DIGITS + 1) / 10**DIGITS) ** 2),
            problems=tuple(problems),
            probes=tuple(self._probes),
            repeated=repeated,
        )


def _is_answer(probe: Probe) -> bool:
    """Whether it was answered: an ear that heard nothing, too, was asked."""
    return probe.unscored is None or Unscored(probe.unscored) in MISSED
