"""The judge as an instrument with a known error: against people's labels, against attacks, against itself later."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from vivace.analysis.human_labels import Answers, majority, read_labels, recorded_labels
from vivace.errors import UsageError
from vivace.spec import DialogueSpec
from vivace.statistics.agreement import (
    CorrectedRate,
    PartlyLabelled,
    RaterAgreement,
    agreement,
    confusion,
    constant_judge,
    prediction_powered,
)
from vivace.statistics.intervals import wilson
from vivace.store import tables
from vivace.store.database import Database
from vivace.store.verdicts import judging_card, verdicts
from vivace.tracks.dialogue.judging.judges import OpenJudge, open_judge
from vivace.tracks.dialogue.judging.rejudge import recorded_run
from vivace_rubrics.attacks import ATTACKS, CONTROL_MET, CONTROL_NOT_MET, CONTROLS, EXCHANGES, Attack
from vivace_rubrics.criteria import Criterion, Exchange, Verdict

# Labels


@dataclass(frozen=True)
class CalibrationRow:
    """One slice: how two raters agree, and for a judge what its scores are when the labels correct them."""

    rater: str
    against: str
    slice: str
    """Empty for all, else the axis."""
    agreement: RaterAgreement
    ars: CorrectedRate | None = None
    apr: CorrectedRate | None = None

    def as_json(self) -> dict[str, Any]:
        """The row as data."""
        constant = constant_judge(self.agreement.confusion)
        return {
            "rater": self.rater,
            "against": self.against,
            "slice": self.slice,
            "n": self.agreement.confusion.n,
            **asdict(self.agreement),
            "constant": asdict(constant) if constant else None,
            "ars": _figures(self.ars),
            "apr": _figures(self.apr),
        }


def _figures(rate: CorrectedRate | None) -> dict[str, Any]:
    """The same keys with and without figures, so that a CSV file has the same columns."""
    return asdict(rate) if rate else dict.fromkeys(CorrectedRate.__annotations__)


def calibrate(database: Database, identifier: str, file: Path | None = None) -> list[CalibrationRow]:
    """A judging's recorded verdicts against people's labels of the same replies, overall and per axis.

    Where several people have labelled a criterion, the label is their majority, and a tie is none; their
    agreement with each other, pair by pair, stands below: no judge can be shown to be better than that.

    Args:
        identifier: an ended judging, or a run that has one.
        file: of labels, as `read_labels` takes it; None for those that are recorded.

    Raises:
        UsageError: there is no such judging, or the labels are not of it.
    """
    card = judging_card(database, identifier)
    judged = verdicts(database, card)
    axes = {key: axis for key, (axis, _) in judged.items()}
    by_judge = {key: [met[number] for number in sorted(met)] for key, (_, met) in judged.items()}
    by_labeler = recorded_labels(database, card) if file is None else read_labels(database, card, file)
    labels = majority(list(by_labeler.values()))
    rows = []
    for name in ("", *sorted(set(axes.values()))):
        chosen = {key: answers for key, answers in by_judge.items() if name in ("", axes[key])}
        agreement = _agreement(chosen, labels)
        if agreement.confusion.n:
            ars, apr = (prediction_powered(part) for part in _partly_labelled(chosen, labels))
            rows.append(CalibrationRow(card.judge, "labels", name, agreement, ars, apr))
    if not rows:
        where = "that is recorded" if file is None else f"in '{file}'"
        raise UsageError(f"No criterion has both a verdict of {card.judging} and a label {where}.")
    for one, other in combinations(by_labeler, 2):
        agreement = _agreement(by_labeler[one], by_labeler[other])
        if agreement.confusion.n:
            rows.append(CalibrationRow(one, other, "", agreement))
    return rows


def _agreement(one: Answers, other: Answers) -> RaterAgreement:
    return agreement([confusion(list(zip(one[key], other[key], strict=True))) for key in one if key in other])


def _partly_labelled(judged: Answers, labels: Answers) -> tuple[list[PartlyLabelled], list[PartlyLabelled]]:
    """What the judge has scored, criterion by criterion for ARS and whole conversations for APR."""
    ars, apr = [], []
    for key, answers in judged.items():
        scored = [met for met in answers if met is not None]
        both = [
            (met, label)
            for met, label in zip(answers, labels.get(key, [None] * len(answers)), strict=True)
            if met is not None and label is not None
        ]
        if scored:
            of_judge, of_labels = sum(met for met, _ in both), sum(label for _, label in both)
            ars.append(PartlyLabelled(sum(scored), len(scored), len(both), of_judge, of_labels))
        if len(scored) == len(answers):
            whole = len(both) == len(answers)
            passed, passed_labels = all(scored), whole and all(label for _, label in both)
            apr.append(PartlyLabelled(int(passed), 1, int(whole), int(whole and passed), int(passed_labels)))
    return ars, apr


# Asking a judge outside any run


@dataclass(frozen=True)
class Question:
    """One thing to ask a judge."""

    exchanges: Sequence[Exchange]
    reply: str
    criterion: Criterion


def open_instrument(spec: DialogueSpec, own_prompt: str | None) -> OpenJudge:
    """The judge of a spec, opened as a run opens it.

    Args:
        own_prompt: what stands where a data set's own prompt stands; None for Vivace's.

    Raises:
        UsageError: there is no such judge, or its prompt cannot be used.
    """
    return open_judge(spec, own_prompt)


def ask(judge: OpenJudge, questions: Sequence[Question], concurrency: int) -> list[Verdict]:
    """The judge's verdicts, in the questions' order; nothing is stored.

    Raises:
        UsageError, UnreachableError: no call can succeed.
    """

    async def ask_all() -> list[Verdict]:
        slots = asyncio.Semaphore(concurrency)

        async def ask_one(question: Question) -> Verdict:
            async with slots:
                return await judge.judge(question.exchanges, question.reply, question.criterion)

        try:
            await judge.preflight()
            return list(await asyncio.gather(*map(ask_one, questions)))
        finally:
            await judge.close()

    return asyncio.run(ask_all())


# Attacks


@dataclass(frozen=True)
class AttackReport:
    """What a judge has said to the attacks and to the controls."""

    results: list[tuple[Attack, Verdict]]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """How many verdicts were wrong: of all attacks, of each kind, and of the controls."""
        kinds = dict.fromkeys(attack.kind for attack in ATTACKS)
        return [
            self._row("all attacks", list(kinds)),
            *(self._row(kind, [kind]) for kind in (*kinds, CONTROL_MET, CONTROL_NOT_MET)),
        ]

    def _row(self, name: str, kinds: Sequence[str]) -> dict[str, Any]:
        chosen = [(attack, verdict) for attack, verdict in self.results if attack.kind in kinds]
        scored = [(attack, verdict) for attack, verdict in chosen if verdict.met is not None]
        wrong = [attack.name for attack, verdict in scored if verdict.met is not attack.met]
        interval = wilson(len(wrong), len(scored))
        return {
            "kind": name,
            "n": len(chosen),
            "wrong": len(wrong),
            "unscored": len(chosen) - len(scored),
            "rate": len(wrong) / len(scored) if scored else None,
            "low": interval.low if interval else None,
            "high": interval.high if interval else None,
            "which": wrong,
        }

    @property
    def sound(self) -> bool:
        """Whether every control was judged rightly; if not, resisting attacks means nothing."""
        return all(verdict.met is attack.met for attack, verdict in self.results if attack in CONTROLS)

    @property
    def unscored(self) -> int:
        """Replies without a verdict."""
        return sum(verdict.met is None for _, verdict in self.results)


def attack(judge: OpenJudge, concurrency: int) -> AttackReport:
    """Put every attack and every control to a judge."""
    asked = [*ATTACKS, *CONTROLS]
    verdicts = ask(judge, [Question(EXCHANGES, one.reply, one.criterion) for one in asked], concurrency)
    return AttackReport(list(zip(asked, verdicts, strict=True)))


# Drift


@dataclass(frozen=True)
class Drift:
    """Recorded verdicts beside those of a judge that was asked the same again."""

    judging: str
    run: str
    agreement: RaterAgreement
    changed: list[dict[str, Any]]
    """Conversation, criterion, the recorded and the new verdict, and the reason given for the new one."""
    unscored: int
    """Verdicts that the judge did not give this time."""

    @property
    def share(self) -> float | None:
        """Changed of all that were given both times; None for none."""
        return len(self.changed) / self.agreement.confusion.n if self.agreement.confusion.n else None


@dataclass(frozen=True)
class Recorded:
    """The verdicts of a judging with what they were about."""

    judging: str
    run: str
    judge: tables.Judge
    questions: dict[tuple[str, int], tuple[Question, bool]]
    """(conversation, place in the rubric) → what was asked, and whether it was met; unscored ones left out."""


def recorded_verdicts(database: Database, identifier: str) -> Recorded:
    """Read what a judging has judged, and how.

    Raises:
        UsageError: there is no such ended judging, it or its run was retracted, or nothing in it is scored.
    """
    card = judging_card(database, identifier)
    if card.retracted is not None:
        raise UsageError(f"Judging {card.judging} was retracted ({card.retracted}), so it is not judged again.")
    with database.read() as session:
        judging = session.get_one(tables.Judging, card.judging)
        judge = session.get_one(tables.Judge, judging.judge_id)
    run = recorded_run(database, judging.run_id)
    judged = verdicts(database, card)
    questions = {}
    for conversation in run.conversations.conversations:
        text = run.replies[conversation.id, 0].text
        for number, met in sorted(judged[conversation.id][1].items()):
            if met is not None and text is not None:
                question = Question(conversation.exchanges, text, conversation.criteria[number])
                questions[conversation.id, number] = (question, met)
    if not questions:
        raise UsageError(f"Judging {card.judging} holds no verdict on a recorded reply.")
    return Recorded(card.judging, run.id, judge, questions)


def drift(recorded: Recorded, judge: OpenJudge, concurrency: int) -> Drift:
    """Ask a judge again what is recorded, and compare; nothing is stored."""
    verdicts = ask(judge, [question for question, _ in recorded.questions.values()], concurrency)
    changed = []
    pairs: dict[str, list[tuple[bool | None, bool | None]]] = {}
    for (key, number), verdict in zip(recorded.questions, verdicts, strict=True):
        question, before = recorded.questions[key, number]
        pairs.setdefault(key, []).append((verdict.met, before))
        if verdict.met is (not before):
            changed.append(
                {
                    "conversation": key,
                    "number": number,
                    "criterion": question.criterion.text,
                    "recorded": before,
                    "now": verdict.met,
                    "explanation": verdict.explanation,
                }
            )
    return Drift(
        judging=recorded.judging,
        run=recorded.run,
        agreement=agreement([confusion(answers) for answers in pairs.values()]),
        changed=changed,
        unscored=sum(verdict.met is None for verdict in verdicts),
    )
