"""From a judging's recorded verdicts to its summary rows, and to whether it is official."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from vivace.store import tables
from vivace.store.columns import now
from vivace.store.outcomes import renew_outcomes
from vivace.store.standing import SUFFICIENT_COVERAGE
from vivace.store.verdicts import judged_conversations, single_votes
from vivace.tracks.base import Ending, Registered
from vivace.tracks.dialogue.data.readers import PINNED_REVISIONS
from vivace.tracks.dialogue.judging.effort import renew_effort
from vivace.tracks.dialogue.judging.judges import OFFICIAL_JUDGE
from vivace.tracks.dialogue.judging.scores import ScoreRow, Tallies, score_conversations, score_votes
from vivace.tracks.dialogue.summaries.gaps import renew_gaps
from vivace.tracks.dialogue.summaries.parts import write_parts


def score_judging(session: Session, judging_id: str) -> None:
    """Replace a judging's scores by what its recorded verdicts say now, and end it."""
    judging = session.get_one(tables.Judging, judging_id)
    run = session.get_one(tables.Run, judging.run_id)
    conversations = judged_conversations(session, judging_id)
    rows = score_conversations([Tallies.of(conversation) for conversation in conversations])
    if judging.votes > 1:
        axes = {conversation.id: conversation.axis for conversation in conversations}
        rows += score_votes(axes, single_votes(session, judging_id))
    session.execute(delete(tables.Score).where(tables.Score.judging_id == judging_id))
    session.add_all(tables.Score(judging_id=judging_id, **vars(row)) for row in rows)
    renew_outcomes(session, judging_id, {one.id: one.replies for one in conversations})
    reasons = _unofficial_reasons(session, run, judging, rows)
    session.execute(update(tables.Run).where(tables.Run.id == run.id).values(status="generated"))
    judging.official, judging.unofficial_reasons = not reasons, reasons
    judging.status, judging.ended_at = "ended", now()
    renew_effort(session, run.id)
    write_parts(session, judging_id, conversations)
    renew_gaps(session, run.id)


def _unofficial_reasons(
    session: Session, run: tables.Run, judging: tables.Judging, rows: Sequence[ScoreRow]
) -> list[str]:
    """Why a judging is not official; empty where it is."""
    dataset = session.get_one(tables.Dataset, run.dataset_id)
    model = session.get_one(tables.Model, run.model_id)
    judge = session.get_one(tables.Judge, judging.judge_id)
    coverage = next(row.value for row in rows if row.metric == "coverage" and row.slice == "")
    own_prompt = judge.prompt_name == "dataset" and judge.address is None
    hears, outcome = run.input_form != "transcript", (run.hearing or {}).get("outcome")
    conditions = {
        "imported, not run here": run.imported,
        "recorded replies, not generated here": model.recorded and not run.imported,
        "the data are not the public dataset at its pinned revision": PINNED_REVISIONS.get(dataset.name)
        != dataset.revision,
        "a part of the data": run.limited,
        "transcripts instead of audio": run.input_form == "transcript",
        "the judge is not the track's own": judge.target != OFFICIAL_JUDGE or not own_prompt,
        "several votes on a criterion instead of one": judging.votes > 1,
        f"coverage below {SUFFICIENT_COVERAGE:.0%}": coverage is None or coverage < SUFFICIENT_COVERAGE,
        "code with uncommitted changes": bool((run.manifest.get("code") or {}).get("dirty")),
        "its hearing was not checked": hears and outcome not in ("passed", "failed", "undecided"),
        "it failed the hearing check": hears and outcome == "failed",
        "the hearing check could not decide": hears and outcome == "undecided",
    }
    return [reason for reason, holds in conditions.items() if holds]


def ending_of(session: Session, registered: Registered, *, is_recorded: bool) -> Ending:
    """Which criteria of a judging have no verdict, and why.

    Args:
        session: of the store.
        registered: the run and its judging.
        is_recorded: whether the replies come from a file, to which no further try adds one; a transcriber of them may
            do better.
    """
    reasons = _counted(session, tables.Verdict.unscored_reason, tables.Verdict.judging_id == registered.judging_id)
    failed = _counted(session, tables.Reply.unscored_reason, tables.Reply.run_id == registered.run_id)
    unscored = sum(reasons.values())
    if not unscored:
        return Ending("every criterion is scored")
    if set(reasons) == {"no_check"}:
        return Ending(f"{unscored} criteria carry no machine check", unscored)
    listed = _listed(reasons) + (f"; replies that failed: {_listed(failed)}" if failed else "")
    lacks_replies = is_recorded and set(reasons) == {"no_reply"} and set(failed) <= {"not_recorded", "empty"}
    remedy = (
        "the same command with --retry-errors tries them again"
        if not lacks_replies
        else "put the replies that are missing into the file and run that"
    )
    message = f"{unscored} criteria are unscored ({listed}); {remedy}"
    return Ending(message, unscored, complete=False)


def _counted(session: Session, reason: Any, where: Any) -> dict[str, int]:
    """Reason → rows that have it."""
    query = select(reason, func.count()).where(where, reason.is_not(None)).group_by(reason).order_by(reason)
    return {str(code): int(count) for code, count in session.execute(query)}


def _listed(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items())
