"""A judging's verdicts by the data's own ids: the raw material of a comparison."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from vivace.errors import UsageError
from vivace.store.database import Database
from vivace.store.tables import Conversation, Criterion, Dataset, Judge, Judging, Model, Reply, Run, Verdict


@dataclass(frozen=True)
class JudgingCard:
    """What must agree before two judgings may be compared."""

    judging: str
    model: str
    judge: str
    judge_fingerprint: str
    data: str
    data_revision: str
    dataset_id: int


def judging_card(database: Database, identifier: str) -> JudgingCard:
    """The judging of this id, or the only ended judging of the run of this id.

    Raises:
        UsageError: there is none, or the run has several, or it has not ended.
    """
    with database.read() as session:
        query = (
            select(Judging, Model, Judge, Dataset)
            .join(Run, Judging.run_id == Run.id)
            .join(Model, Run.model_id == Model.id)
            .join(Judge, Judging.judge_id == Judge.id)
            .join(Dataset, Run.dataset_id == Dataset.id)
            .where((Judging.id == identifier) | (Judging.run_id == identifier), Judging.status == "ended")
        )
        found = session.execute(query).all()
    if not found:
        raise UsageError(
            f"There is no ended judging '{identifier}'; `vivace leaderboard --format json` shows the ids."
        )
    if len(found) > 1:
        ids = ", ".join(row.Judging.id for row in found)
        raise UsageError(f"Run '{identifier}' has several judgings ({ids}); name one of them.")
    judging, model, judge, dataset = found[0]
    return JudgingCard(
        judging.id, model.name, judge.name, judge.fingerprint, dataset.name, dataset.revision, dataset.id
    )


def verdicts(database: Database, card: JudgingCard) -> dict[str, tuple[str, dict[int, bool | None]]]:
    """Planned conversation → its axis, and place in the rubric → met, None where unscored."""
    with database.read() as session:
        return _verdicts(session, card)


def _verdicts(session: Session, card: JudgingCard) -> dict[str, tuple[str, dict[int, bool | None]]]:
    run = session.get_one(Run, session.get_one(Judging, card.judging).run_id)
    reply = aliased(Reply)
    query = (
        select(Conversation.external_id, Conversation.axis, Criterion.number, Verdict.met)
        .join(Criterion, Criterion.conversation_id == Conversation.id)
        .outerjoin(reply, (reply.conversation_id == Conversation.id) & (reply.run_id == run.id) & (reply.repeat == 0))
        .outerjoin(
            Verdict,
            (Verdict.criterion_id == Criterion.id)
            & (Verdict.reply_id == reply.id)
            & (Verdict.judging_id == card.judging)
            & (Verdict.vote == 0),
        )
        .where(Conversation.dataset_id == card.dataset_id)
    )
    planned = set(run.items)
    result: dict[str, tuple[str, dict[int, bool | None]]] = {}
    for key, axis, number, met in session.execute(query):
        if key in planned:
            result.setdefault(key, (axis, {}))[1][number] = met
    return result
