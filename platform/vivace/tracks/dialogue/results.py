"""From a judging's recorded verdicts to its summary rows, and to whether it is official."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import case, delete, func, select, update
from sqlalchemy.orm import Session

from vivace.store import tables
from vivace.tracks.dialogue.judging import OFFICIAL_JUDGE
from vivace.tracks.dialogue.readers import PINNED_REVISIONS
from vivace.tracks.dialogue.scoring import ScoreRow, Tally, score_conversations

OFFICIAL_COVERAGE = 0.99


def score_judging(session: Session, judging_id: str) -> None:
    """Replace a judging's scores by what its recorded verdicts say now, and end it."""
    judging = session.get_one(tables.Judging, judging_id)
    run = session.get_one(tables.Run, judging.run_id)
    rows = score_conversations(_tallies(session, run, judging_id))
    session.execute(delete(tables.Score).where(tables.Score.judging_id == judging_id))
    session.add_all(tables.Score(judging_id=judging_id, **vars(row)) for row in rows)
    reasons = _unofficial_reasons(session, run, judging, rows)
    session.execute(update(tables.Run).where(tables.Run.id == run.id).values(status="generated"))
    judging.official, judging.unofficial_reasons = not reasons, reasons
    judging.status, judging.ended_at = "ended", tables.now()


def _tallies(session: Session, run: tables.Run, judging_id: str) -> list[Tally]:
    """One tally for each conversation planned, whether anything is recorded of it or not."""
    verdict, criterion, reply = tables.Verdict, tables.Criterion, tables.Reply
    query = (
        select(
            tables.Conversation.external_id,
            tables.Conversation.axis,
            func.count(criterion.id),
            func.sum(case((verdict.met.is_(True), 1), else_=0)),
            func.sum(case((verdict.met.is_(False), 1), else_=0)),
        )
        .join(criterion, criterion.conversation_id == tables.Conversation.id)
        .outerjoin(
            reply,
            (reply.conversation_id == tables.Conversation.id) & (reply.run_id == run.id) & (reply.repeat == 0),
        )
        .outerjoin(
            verdict,
            (verdict.criterion_id == criterion.id)
            & (verdict.reply_id == reply.id)
            & (verdict.judging_id == judging_id)
            & (verdict.vote == 0),
        )
        .where(tables.Conversation.dataset_id == run.dataset_id)
        .group_by(tables.Conversation.external_id, tables.Conversation.axis)
    )
    planned = set(run.items)
    return [
        Tally(axis, int(met), int(not_met), int(count) - int(met) - int(not_met))
        for external_id, axis, count, met, not_met in session.execute(query)
        if external_id in planned
    ]


def _unofficial_reasons(
    session: Session, run: tables.Run, judging: tables.Judging, rows: Sequence[ScoreRow]
) -> list[str]:
    """Why a judging is not official; empty where it is."""
    dataset = session.get_one(tables.Dataset, run.dataset_id)
    model = session.get_one(tables.Model, run.model_id)
    judge = session.get_one(tables.Judge, judging.judge_id)
    coverage = next(row.value for row in rows if row.metric == "coverage" and row.slice == "")
    own_prompt = judge.prompt_name == "dataset" and judge.address is None
    conditions = {
        "imported, not run here": run.imported,
        "recorded replies, not generated here": model.adapter == "replay" and not run.imported,
        "the data are not the public dataset at its pinned revision": PINNED_REVISIONS.get(dataset.name)
        != dataset.revision,
        "a part of the data": run.limited,
        "transcripts instead of audio": run.input_form == "transcript",
        "the judge is not the track's own": judge.target != OFFICIAL_JUDGE or not own_prompt,
        f"coverage below {OFFICIAL_COVERAGE:.0%}": coverage is None or coverage < OFFICIAL_COVERAGE,
        "code with uncommitted changes": bool((run.manifest.get("code") or {}).get("dirty")),
        "its hearing was not checked": run.input_form != "transcript",
    }
    return [reason for reason, holds in conditions.items() if holds]
