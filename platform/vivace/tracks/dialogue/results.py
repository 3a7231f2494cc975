"""From a judging's recorded verdicts to its summary rows, and to whether it is official."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from vivace.store import tables
from vivace.store.standing import SUFFICIENT_COVERAGE
from vivace.store.verdicts import judged_conversations, single_votes
from vivace.tracks.dialogue.data.readers import PINNED_REVISIONS
from vivace.tracks.dialogue.judging import OFFICIAL_JUDGE
from vivace.tracks.dialogue.scoring import ScoreRow, Tallies, score_conversations, score_votes


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
    reasons = _unofficial_reasons(session, run, judging, rows)
    session.execute(update(tables.Run).where(tables.Run.id == run.id).values(status="generated"))
    judging.official, judging.unofficial_reasons = not reasons, reasons
    judging.status, judging.ended_at = "ended", tables.now()


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
        "recorded replies, not generated here": model.is_recorded and not run.imported,
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
