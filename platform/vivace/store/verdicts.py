"""A judging's verdicts by the data's own ids: the raw material of scores, breakdowns and comparisons."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session

from vivace.errors import UsageError
from vivace.store.database import Database
from vivace.store.identifiers import find
from vivace.store.outcomes import read_back
from vivace.store.standing import Standing, not_retracted, retraction, standing_of, standing_ones
from vivace.store.tables import (
    RUN_IN_SHORT,
    Conversation,
    Criterion,
    Dataset,
    Judge,
    Judging,
    Model,
    Outcome,
    Reply,
    Run,
    Score,
    Turn,
    Verdict,
)
from vivace_methods.families import FAMILIES

Turns = dict[int, tuple[int, float | None]]
"""Conversation's row → its user turns, and their seconds where all are known."""


@dataclass(frozen=True)
class JudgingCard:
    """Which model answered in which way, who judged it on which data: what says whether judgings may be compared."""

    judging: str
    run: str
    model: str
    model_fingerprint: str
    target: str
    address: str | None
    parameters: Mapping[str, Any]
    method: str | None
    input_form: str
    output_form: str
    repeats: int
    judge: str
    judge_fingerprint: str
    votes: int
    data: str
    data_revision: str
    dataset_id: int
    ended_at: datetime | None
    standing: Standing = "ranked"
    """Whether it is ranked on its board, and if not, why it stands apart."""
    retracted: str | None = None
    """The reason, where the run, or this judging of it, was retracted."""
    recorded: bool = False
    """Whether the replies were made elsewhere, whatever was put to whoever made them."""


@dataclass(frozen=True)
class JudgedConversation:
    """One planned conversation of a judging, with the verdicts on each reply to it."""

    id: str
    axis: str
    speaker: str | None
    user_turns: int
    """0 where nobody asked for turns."""
    audio_seconds: float | None
    """Length of its user turns; None where the store lacks the recording of any, or nobody asked."""
    replies: tuple[Mapping[int, bool | None], ...]
    """For each planned repeat: place in the rubric → met, None where unscored."""


def _cards() -> Select[Judging, Run, Model, Judge, Dataset, float | None]:
    coverage = (Score.judging_id == Judging.id) & (Score.metric == "coverage") & (Score.slice == "")
    return (
        select(Judging, Run, Model, Judge, Dataset, Score.value)
        .join(Run, Judging.run_id == Run.id)
        .join(Model, Run.model_id == Model.id)
        .join(Judge, Judging.judge_id == Judge.id)
        .join(Dataset, Run.dataset_id == Dataset.id)
        .outerjoin(Score, coverage)
        .where(Judging.status == "ended")
        .options(*RUN_IN_SHORT)
    )


def _card(row: Row[Judging, Run, Model, Judge, Dataset, float | None]) -> JudgingCard:
    judging, run, model, judge, dataset, coverage = row
    retracted = retraction(run, judging)
    return JudgingCard(
        judging=judging.id,
        run=run.id,
        model=model.name,
        model_fingerprint=model.fingerprint,
        target=model.target,
        address=model.address,
        parameters=model.parameters,
        method=run.method,
        input_form=run.input_form,
        output_form=run.output_form,
        repeats=run.repeats,
        judge=judge.name,
        judge_fingerprint=judge.fingerprint,
        votes=judging.votes,
        data=dataset.name,
        data_revision=dataset.revision,
        dataset_id=dataset.id,
        ended_at=judging.ended_at,
        standing=standing_of(limited=run.limited, coverage=coverage, retracted=retracted is not None),
        retracted=retracted,
        recorded=model.recorded,
    )


def judging_card(database: Database, identifier: str) -> JudgingCard:
    """The judging of this id, or the only ended judging of the run that the id leads to.

    Of a run's judgings those that were retracted by themselves are left out, unless it has no others.

    Raises:
        UsageError: there is none, or the run has several, or it has not ended.
    """
    with database.read() as session:
        named = find(session, identifier)
        run, judging = (None, None) if named is None else (named.run, named.judging)
        meant = Judging.id == judging if judging else Judging.run_id == run
        rows = {row.Judging: row for row in session.execute(_cards().where(meant).order_by(Judging.id))}
        standing = [rows[one] for one in standing_ones(list(rows))]
        track = session.scalar(select(Run.track).where(Run.id == run))
    if track in FAMILIES:
        raise UsageError(
            f"'{identifier}' is a run of the track {track}, where nothing is judged: `vivace leaderboard {track}` "
            "sets its arms side by side."
        )
    if not standing:
        raise UsageError(
            f"There is no ended judging '{identifier}'; `vivace leaderboard --format json` shows the ids."
        )
    if len(standing) > 1:
        ids = ", ".join(row.Judging.id for row in standing)
        raise UsageError(f"Run '{identifier}' has several judgings ({ids}); name one of them.")
    return _card(standing[0])


def standing_cards(session: Session) -> list[JudgingCard]:
    """Every ended judging that was not retracted, the newest first."""
    query = _cards().where(not_retracted()).order_by(Judging.ended_at.desc(), Judging.id)
    return [_card(row) for row in session.execute(query)]


def standing_judgings(database: Database) -> list[JudgingCard]:
    """`standing_cards` in a transaction of its own."""
    with database.read() as session:
        return standing_cards(session)


def judged_conversations(session: Session, judging_id: str) -> list[JudgedConversation]:
    """Every planned conversation of a judging, in the dataset's order; what is not recorded is unscored."""
    run = session.get_one(Run, session.get_one(Judging, judging_id).run_id)
    criteria: dict[int, list[int]] = defaultdict(list)
    for conversation_id, number in session.execute(
        select(Criterion.conversation_id, Criterion.number)
        .join(Conversation)
        .where(Conversation.dataset_id == run.dataset_id)
        .order_by(Criterion.number)
    ):
        criteria[conversation_id].append(number)
    met = _met(session, judging_id)
    turns = _user_turns(session, run.dataset_id)
    planned = set(run.items)
    conversations = session.scalars(
        select(Conversation).where(Conversation.dataset_id == run.dataset_id).order_by(Conversation.position)
    )
    return [
        JudgedConversation(
            id=row.external_id,
            axis=row.axis,
            speaker=row.speaker,
            user_turns=turns[row.id][0],
            audio_seconds=turns[row.id][1],
            replies=tuple(
                {number: met.get((row.id, repeat, number)) for number in criteria[row.id]}
                for repeat in range(run.repeats)
            ),
        )
        for row in conversations
        if row.external_id in planned
    ]


def _met(session: Session, judging_id: str) -> dict[tuple[int, int, int], bool | None]:
    """(conversation's row, repeat, place in the rubric) → the decision."""
    query = (
        select(Reply.conversation_id, Reply.repeat, Criterion.number, Verdict.met)
        .join(Reply, Verdict.reply_id == Reply.id)
        .join(Criterion, Verdict.criterion_id == Criterion.id)
        .where(Verdict.judging_id == judging_id, Verdict.vote == 0)
    )
    return {(row_id, repeat, number): met for row_id, repeat, number, met in session.execute(query)}


def _user_turns(session: Session, dataset_id: int) -> Turns:
    """Conversation's row → its user turns, and their seconds where all are known."""
    query = (
        select(Turn.conversation_id, func.count(), func.count(Turn.audio_seconds), func.sum(Turn.audio_seconds))
        .join(Conversation)
        .where(Conversation.dataset_id == dataset_id, Turn.role == "user")
        .group_by(Turn.conversation_id)
    )
    lengths: dict[int, tuple[int, float | None]] = defaultdict(lambda: (0, None))
    for row_id, turns, known, seconds in session.execute(query):
        lengths[row_id] = (turns, seconds if known == turns else None)
    return lengths


def single_votes(session: Session, judging_id: str) -> dict[str, list[tuple[int, int]]]:
    """Conversation → for each of its criteria and replies: votes for met, and votes given; unscored ones left out."""
    query = (
        select(Conversation.external_id, Verdict.reply_id, Verdict.criterion_id, Verdict.met)
        .join(Reply, Verdict.reply_id == Reply.id)
        .join(Conversation, Reply.conversation_id == Conversation.id)
        .where(Verdict.judging_id == judging_id, Verdict.vote > 0, Verdict.met.is_not(None))
    )
    given: dict[str, dict[tuple[int, int], list[bool]]] = defaultdict(lambda: defaultdict(list))
    for key, reply_id, criterion_id, met in session.execute(query):
        given[key][reply_id, criterion_id].append(bool(met))
    return {key: [(sum(votes), len(votes)) for votes in items.values()] for key, items in given.items()}


def conversations_of(database: Database, judging: str) -> Sequence[JudgedConversation]:
    """`ended_conversations` in a transaction of its own."""
    return conversations_of_each(database, [judging])[0]


def conversations_of_each(
    database: Database, judgings: Sequence[str], *, turns_too: bool = True
) -> list[list[JudgedConversation]]:
    """The same of several, in one transaction; the turns of a set that they share are counted once.

    Args:
        database: of the judgings.
        judgings: their ids.
        turns_too: whether turns and seconds are asked for; counting them takes as long as all else.
    """
    turns: dict[int, Turns] | None = {} if turns_too else None
    with database.read() as session:
        return [_ended_conversations(session, judging, turns) for judging in judgings]


def ended_conversations(session: Session, judging: str) -> list[JudgedConversation]:
    """What `judged_conversations` gives, of an ended judging without reading its verdicts."""
    return _ended_conversations(session, judging, {})


def _ended_conversations(session: Session, judging: str, known: dict[int, Turns] | None) -> list[JudgedConversation]:
    """The same, where the turns of some sets may be known; None where nobody asks for them."""
    row = session.get_one(Judging, judging)
    if row.status != "ended":
        return judged_conversations(session, judging)
    dataset = session.get_one(Run, row.run_id).dataset_id
    if known is not None and dataset not in known:
        known[dataset] = _user_turns(session, dataset)
    turns: Turns = defaultdict(lambda: (0, None)) if known is None else known[dataset]
    return [
        JudgedConversation(
            id=key,
            axis=axis,
            speaker=speaker,
            user_turns=turns[row_id][0],
            audio_seconds=turns[row_id][1],
            replies=tuple(dict(enumerate(reply)) for reply in read_back(verdicts)),
        )
        for row_id, key, axis, speaker, verdicts in session.execute(_outcomes(judging))
    ]


def _outcomes(judging: str) -> Select[int, str, str, str | None, str]:
    return (
        select(
            Conversation.id, Conversation.external_id, Conversation.axis, Conversation.speaker, Outcome.verdicts
        )
        .join(Outcome, Outcome.conversation_id == Conversation.id)
        .where(Outcome.judging_id == judging)
        .order_by(Outcome.position, Conversation.id)
    )  # fmt: skip


def verdicts(database: Database, card: JudgingCard) -> dict[str, tuple[str, dict[int, bool | None]]]:
    """Planned conversation → its axis, and place in the rubric → met of its first reply, None where unscored."""
    conversations = conversations_of(database, card.judging)
    return {conversation.id: (conversation.axis, dict(conversation.replies[0])) for conversation in conversations}
