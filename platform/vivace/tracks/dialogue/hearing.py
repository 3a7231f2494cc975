"""Proof that recordings are heard, at the beginning of a run: questions are calls of the run, answers are kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from vivace.audio.convert import AudioForm
from vivace.audio.digits import SpokenDigits
from vivace.models.base import HeardTurn, HearsFirst, ModelReply, Prompt, SpokenTurn, SystemUnderTest
from vivace.models.client.calls import CallRecord
from vivace.models.ear_check import check_ear
from vivace.models.hearing_check import MOST_TURNS, Probe, check_hearing, read_probes, stored_probes
from vivace.tracks.base import Workbench
from vivace.tracks.dialogue.records import RunRecords

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class HearingOfRun:
    """The hearing check of one run.

    Attributes:
        system: that is to hear.
        records: of the run.
        form: in which recordings are sent.
    """

    system: SystemUnderTest
    records: RunRecords
    form: AudioForm

    async def check(self, bench: Workbench, digits: SpokenDigits | None, turns: int) -> None:
        """Find out whether it hears, unless that is recorded; what was answered before a stop is not asked again.

        Args:
            bench: of the run's execution.
            digits: that are spoken; None leaves the check out.
            turns: of the longest conversation.
        """
        so_far = await bench.write(self.records.recorded_hearing)
        recorded = so_far.get("outcome")
        if recorded in ("passed", "failed") or (recorded == "skipped" and digits is None):
            return
        if digits is None:
            await bench.write(lambda session: self.records.record_hearing(session, {"outcome": "skipped"}))
            return
        earlier = read_probes(so_far.get("probes", ()))
        turns = min(turns, MOST_TURNS)

        async def keep(probes: Sequence[Probe]) -> None:
            await bench.write(lambda session: self.records.record_hearing(session, {"probes": stored_probes(probes)}))

        if isinstance(self.system, HearsFirst):
            stages = _Stages(self, self.system, bench)
            hearing = await check_ear(stages, turns, digits, self.form, earlier, keep)
        else:
            hearing = await check_hearing(_Whole(self, bench), turns, digits, self.form, earlier, keep)
        await bench.write(lambda session: self.records.record_hearing(session, hearing.as_json(), hearing))
        if hearing.outcome != "passed":
            bench.say(f"{hearing.sentence()} The run goes on, and cannot be official.")

    async def asked(
        self, bench: Workbench, question: Callable[[], Awaitable[Answer]], seconds: float | None
    ) -> tuple[Answer, Sequence[CallRecord]]:
        """What comes of one question, whose calls are recorded."""
        async with bench.call_slot():
            async with self.records.calls(bench, "hear", None, seconds) as calls:
                answer = await question()
            await bench.write(lambda session: self.records.record_calls(session, "hear", None, calls, seconds))
        bench.note(calls)
        return answer, calls


@dataclass(frozen=True)
class _Whole:
    """Questions to a system that hears for itself."""

    run: HearingOfRun
    bench: Workbench

    async def __call__(self, prompt: Prompt) -> tuple[ModelReply, Sequence[CallRecord]]:
        return await self.run.asked(self.bench, lambda: self.run.system.reply(prompt), seconds_of_audio(prompt))


@dataclass(frozen=True)
class _Stages:
    """Questions to the stages of a cascade."""

    run: HearingOfRun
    system: HearsFirst
    bench: Workbench

    async def hear(self, turn: SpokenTurn, number: int) -> tuple[HeardTurn, Sequence[CallRecord]]:
        return await self.run.asked(self.bench, lambda: self.system.hear(turn, number), turn.seconds)

    async def answer(self, prompt: Prompt) -> tuple[ModelReply, Sequence[CallRecord]]:
        return await self.run.asked(self.bench, lambda: self.system.answer(prompt), None)


def seconds_of_audio(prompt: Prompt) -> float | None:
    """Seconds of recordings in a prompt; None where there are none."""
    seconds = [turn.seconds for turn, _ in prompt.turns if turn.audio is not None and turn.seconds is not None]
    return sum(seconds) if seconds else None
