"""A judging's conversations: all in short, one with its turns and verdicts, or each verdict as a row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import case, or_, select
from sqlalchemy.orm import Session

from vivace.store.database import Database
from vivace.store.queries.figures import Times, times_of
from vivace.store.queries.heard import HeardView, heard_views
from vivace.store.standing import retraction
from vivace.store.tables import (
    Attempt,
    Conversation,
    Criterion,
    HumanLabel,
    Judge,
    Judging,
    Model,
    Outcome,
    Reply,
    Run,
    Turn,
    Verdict,
)
from vivace.store.verdicts import JudgedConversation, conversations_of

Labels = dict[tuple[int, int], dict[str, bool | None]]
"""Rows of a reply and of a criterion → labeler → what they say."""


@dataclass(frozen=True)
class ConversationSummary:
    """How one judging came out on one conversation; criteria count once for each reply."""

    id: str
    axis: str
    user_turns: int
    criteria: int
    met: int
    not_met: int
    unscored: int
    passes: int = 0
    """Replies with every criterion met."""
    replies: int = 1
    """Replies planned."""

    @property
    def passed(self) -> bool | None:
        """Every criterion met in every reply; None while some are unscored and none is known not to be met."""
        if self.not_met:
            return False
        return None if self.unscored else True


def conversations(database: Database, judging: str) -> list[ConversationSummary]:
    """The planned conversations of a judging in the dataset's order; empty for an unknown judging."""
    with database.read() as session:
        known = session.get(Judging, judging) is not None
    return [_summary(conversation) for conversation in (conversations_of(database, judging) if known else ())]


def _summary(conversation: JudgedConversation) -> ConversationSummary:
    verdicts = [met for reply in conversation.replies for met in reply.values()]
    return ConversationSummary(
        id=conversation.id,
        axis=conversation.axis,
        user_turns=conversation.user_turns,
        criteria=len(verdicts),
        met=verdicts.count(True),
        not_met=verdicts.count(False),
        unscored=verdicts.count(None),
        passes=sum(all(reply.values()) for reply in conversation.replies),
        replies=len(conversation.replies),
    )


@dataclass(frozen=True)
class TurnView:
    """One turn as the conversation page shows it."""

    number: int
    role: str
    transcript: str | None
    audio_sha256: str | None
    audio_seconds: float | None


@dataclass(frozen=True)
class VoteView:
    """One vote of several on a criterion; `met` is None and `unscored_reason` set where it could not be counted."""

    met: bool | None
    unscored_reason: str | None
    explanation: str | None


@dataclass(frozen=True)
class LabelView:
    """What one person says of a criterion; `met` is None where they have looked and do not say."""

    labeler: str
    met: bool | None


@dataclass(frozen=True)
class VerdictView:
    """One criterion with its verdict; `met` is None and `unscored_reason` set where there is none."""

    number: int
    text: str
    met: bool | None
    unscored_reason: str | None
    explanation: str | None
    votes: tuple[VoteView, ...] = ()
    """The single votes behind it; empty where there is only the one."""
    labels: tuple[LabelView, ...] = ()
    """What people say of the same reply, by their names."""


@dataclass(frozen=True)
class CallView:
    """One call that was made for a conversation: to an ear, the model, a transcriber or the judge."""

    stage: str
    criterion: int | None
    """The place of the criterion that it was about, from 0; None of calls that were about none."""
    seconds: float
    input_tokens: int | None
    output_tokens: int | None
    input_audio_tokens: int | None
    audio_seconds: float | None
    cached: bool
    cost_usd: float | None
    error: str | None
    detail: str | None
    made_at: datetime


@dataclass(frozen=True)
class ConversationView:
    """One conversation under one judging: what was said, what the model replied, and how it was judged."""

    id: str
    axis: str
    model: str
    judge: str
    turns: list[TurnView]
    reply: str | None
    reply_audio_sha256: str | None
    reply_unscored_reason: str | None
    reply_detail: str | None
    ttft_s: float | None
    total_s: float | None
    times: Times
    repeats: int = 1
    """Replies planned; the view shows one of them."""
    reply_raw_text: str | None = None
    """All that the model wrote, where it thought aloud before its reply."""
    heard: dict[int, HeardView] = field(default_factory=dict)
    """Of a cascade: user turn → what its ear made of it."""
    verdicts: list[VerdictView] = field(default_factory=list)


def conversation(database: Database, judging: str, conversation_id: str, repeat: int = 0) -> ConversationView | None:
    """One reply to one conversation under one judging; None where that was not planned or either is unknown."""
    with database.read() as session:
        found = _planned(session, judging, conversation_id)
        if found is None or not 0 <= repeat < found.repeats:
            return None
        reply = session.scalar(
            select(Reply).where(
                Reply.run_id == found.run, Reply.conversation_id == found.row_id, Reply.repeat == repeat
            )
        )
        turns = _turns(session, found.row_id)
        said = {turn.number: turn.transcript for turn in turns if turn.role == "user"}
        return ConversationView(
            id=conversation_id,
            axis=found.axis,
            model=found.Model.name,
            judge=found.judge,
            turns=turns,
            reply=reply.text if reply else None,
            reply_audio_sha256=reply.audio_sha256 if reply else None,
            reply_unscored_reason=reply.unscored_reason if reply else "not_recorded",
            reply_detail=reply.detail if reply else None,
            ttft_s=reply.ttft_s if reply else None,
            total_s=reply.total_s if reply else None,
            times=times_of(found.Model),
            repeats=found.repeats,
            reply_raw_text=reply.raw_text if reply else None,
            heard={one.number: one for one in heard_views(reply.heard if reply else None, said)},
            verdicts=_verdicts(session, judging, found.row_id, reply.id if reply else None),
        )


def _planned(session: Session, judging: str, conversation_id: str) -> Any:
    """A conversation under a judging: `row_id`, `axis`, `run`, `repeats`, `judge`, `Model`; None if not planned.

    Of an ended judging the run's list of all its conversations is not read.
    """
    query = (
        select(
            Conversation.id.label("row_id"), Conversation.axis, Judging.status, Run.id.label("run"), Run.repeats,
            Judge.name.label("judge"), Model, Outcome.judging_id.label("ended"),
        )
        .join(Run, Run.id == Judging.run_id)
        .join(Judge, Judge.id == Judging.judge_id)
        .join(Model, Model.id == Run.model_id)
        .join(Conversation, Conversation.dataset_id == Run.dataset_id)
        .outerjoin(Outcome, (Outcome.judging_id == Judging.id) & (Outcome.conversation_id == Conversation.id))
        .where(Judging.id == judging, Conversation.external_id == conversation_id)
    )  # fmt: skip
    row = session.execute(query).one_or_none()
    if row is None or row.ended is not None:
        return row
    items = session.scalar(select(Run.items).where(Run.id == row.run))
    return row if row.status != "ended" and conversation_id in (items or ()) else None


def calls(database: Database, judging: str, conversation_id: str, most: int) -> list[CallView]:
    """The calls behind one conversation's replies and their verdicts, in the order in which they were recorded.

    Args:
        database: with the judging.
        judging: its id; calls of other judgings of the same run are left out.
        conversation_id: the dataset's id.
        most: how many are read.
    """
    with database.read() as session:
        found = _planned(session, judging, conversation_id)
        if found is None:
            return []
        query = (
            select(Attempt, Criterion.number)
            .outerjoin(Criterion, Criterion.id == Attempt.criterion_id)
            .where(
                Attempt.conversation_id == found.row_id,
                Attempt.run_id == found.run,
                or_(Attempt.judging_id.is_(None), Attempt.judging_id == judging),
            )
            .order_by(Attempt.id)
            .limit(most)
        )
        return [_call(attempt, number) for attempt, number in session.execute(query)]


def _call(attempt: Attempt, criterion: int | None) -> CallView:
    return CallView(
        stage=attempt.stage,
        criterion=criterion,
        seconds=attempt.seconds,
        input_tokens=attempt.input_tokens,
        output_tokens=attempt.output_tokens,
        input_audio_tokens=attempt.input_audio_tokens,
        audio_seconds=attempt.audio_seconds,
        cached=attempt.cached,
        cost_usd=attempt.cost_usd,
        error=attempt.error,
        detail=attempt.detail,
        made_at=attempt.created_at,
    )


def _turns(session: Session, row_id: int) -> list[TurnView]:
    """The turns of a conversation, each user turn before the answer to it."""
    role_order = case((Turn.role == "user", 0), else_=1)
    query = select(Turn).where(Turn.conversation_id == row_id).order_by(Turn.number, role_order)
    return [
        TurnView(turn.number, turn.role, turn.transcript, turn.audio_sha256, turn.audio_seconds)
        for turn in session.scalars(query)
    ]


def turns_of_run(session: Session, run: Run) -> dict[str, list[TurnView]]:
    """Conversation → its turns, of all that a run planned."""
    planned = select(Conversation).where(Conversation.dataset_id == run.dataset_id)
    return {
        row.external_id: _turns(session, row.id) for row in session.scalars(planned) if row.external_id in run.items
    }


def _verdicts(session: Session, judging: str, row_id: int, reply_id: int | None) -> list[VerdictView]:
    """Every criterion of a conversation with the verdict on one reply."""
    of_this_reply = (
        (Verdict.criterion_id == Criterion.id)
        & (Verdict.judging_id == judging)
        & (Verdict.reply_id == reply_id)
        & (Verdict.vote == 0)
    )
    query = (
        select(Criterion, Verdict)
        .outerjoin(Verdict, of_this_reply)
        .where(Criterion.conversation_id == row_id)
        .order_by(Criterion.number)
    )
    votes, labels = _votes(session, judging, reply_id), _labels(session, reply_id)
    return [
        VerdictView(
            number=criterion.number,
            text=criterion.text,
            met=verdict.met if verdict else None,
            unscored_reason=verdict.unscored_reason if verdict else "not_recorded",
            explanation=verdict.explanation if verdict else None,
            votes=tuple(votes[criterion.id]),
            labels=tuple(labels[criterion.id]),
        )
        for criterion, verdict in session.execute(query)
    ]


def _votes(session: Session, judging: str, reply_id: int | None) -> dict[int, list[VoteView]]:
    """Criterion's row → the single votes on it for one reply."""
    query = (
        select(Verdict.criterion_id, Verdict.met, Verdict.unscored_reason, Verdict.explanation)
        .where(Verdict.judging_id == judging, Verdict.reply_id == reply_id, Verdict.vote > 0)
        .order_by(Verdict.vote)
    )
    given: dict[int, list[VoteView]] = defaultdict(list)
    for criterion_id, met, reason, explanation in session.execute(query):
        given[criterion_id].append(VoteView(met, reason, explanation))
    return given


def _labels(session: Session, reply_id: int | None) -> dict[int, list[LabelView]]:
    """Criterion's row → what people say of it for one reply."""
    query = select(HumanLabel).where(HumanLabel.reply_id == reply_id).order_by(HumanLabel.labeler)
    given: dict[int, list[LabelView]] = defaultdict(list)
    for label in session.scalars(query):
        given[label.criterion_id].append(LabelView(label.labeler, label.met))
    return given


def item_rows(database: Database, judging: str) -> list[dict[str, Any]]:
    """One flat row per planned conversation, repeat, criterion and vote of a judging, for exports.

    Vote 0 is the decision that counts, and is always there; 1, 2, … are the single votes behind it, if any. What
    people say of the criterion stands beside each, by their names.
    """
    with database.read() as session:
        judging_row = session.get(Judging, judging)
        if judging_row is None:
            return []
        run = session.get_one(Run, judging_row.run_id)
        model = session.get_one(Model, run.model_id)
        judge = session.get_one(Judge, judging_row.judge_id).name
        told = {"times": times_of(model), "retracted": retraction(run, judging_row)}
        replies = {
            (reply.conversation_id, reply.repeat): reply
            for reply in session.scalars(select(Reply).where(Reply.run_id == run.id))
        }
        verdicts: dict[tuple[int, int], list[Verdict]] = defaultdict(list)
        query = select(Verdict).where(Verdict.judging_id == judging).order_by(Verdict.vote)
        for verdict in session.scalars(query):
            verdicts[verdict.reply_id, verdict.criterion_id].append(verdict)
        labels: Labels = defaultdict(dict)
        of_run = select(HumanLabel).join(Reply, Reply.id == HumanLabel.reply_id).where(Reply.run_id == run.id)
        for label in session.scalars(of_run.order_by(HumanLabel.labeler)):
            labels[label.reply_id, label.criterion_id][label.labeler] = label.met
        conversations = session.scalars(
            select(Conversation).where(Conversation.dataset_id == run.dataset_id).order_by(Conversation.position)
        ).all()
        criteria: dict[int, list[Criterion]] = defaultdict(list)
        for criterion in session.scalars(
            select(Criterion)
            .join(Conversation)
            .where(Conversation.dataset_id == run.dataset_id)
            .order_by(Criterion.number)
        ):
            criteria[criterion.conversation_id].append(criterion)
    planned = set(run.items)
    return [
        {"judging": judging, "model": model.name, "judge": judge, **row, **told}
        for conversation in conversations
        if conversation.external_id in planned
        for repeat in range(run.repeats)
        for criterion in criteria[conversation.id]
        for row in _item_rows(
            conversation, repeat, criterion, replies.get((conversation.id, repeat)), verdicts, labels
        )
    ]


def _item_rows(
    conversation: Conversation,
    repeat: int,
    criterion: Criterion,
    reply: Reply | None,
    verdicts: dict[tuple[int, int], list[Verdict]],
    labels: Labels,
) -> Iterator[dict[str, Any]]:
    """The decision on one criterion of one reply, and the votes behind it."""
    given: list[Verdict | None] = [*verdicts[reply.id, criterion.id]] if reply is not None else []
    if not given or given[0] is None or given[0].vote:
        given.insert(0, None)  # an interrupted judging may have votes, and no decision yet
    for verdict in given:
        yield {
            "conversation": conversation.external_id,
            "axis": conversation.axis,
            "repeat": repeat,
            "criterion": criterion.number,
            "criterion_text": criterion.text,
            "vote": verdict.vote if verdict else 0,
            "met": verdict.met if verdict else None,
            "unscored_reason": verdict.unscored_reason if verdict else "not_recorded",
            "explanation": verdict.explanation if verdict else None,
            "labels": (labels.get((reply.id, criterion.id)) if reply else None) or None,
            "reply": reply.text if reply else None,
            "reply_raw_text": reply.raw_text if reply else None,
            "reply_unscored_reason": reply.unscored_reason if reply else "not_recorded",
            "heard": reply.heard if reply else None,
            "kept_share": reply.kept_share if reply else None,
            "ttft_s": reply.ttft_s if reply else None,
            "total_s": reply.total_s if reply else None,
        }
