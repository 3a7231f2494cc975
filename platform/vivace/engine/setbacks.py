"""Setbacks of a shard, turns that came to nothing: held against what was recorded meanwhile, not against a clock."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from vivace.engine.claims.leases import is_gone
from vivace.store.tables import Arm, Attempt, Conversation, Reply, Run, Shard, Submission, Trial, Verdict

LOSSES_WITHOUT_PROGRESS = 3
"""So many turns may end because nothing could be written before a submission counts as failed."""
DEATHS_WITHOUT_PROGRESS = 3
"""So many workers may die of one shard before its submission counts as failed: it would kill all others, too."""
SILENCES_WITHOUT_PROGRESS = 10
"""So many workers may lose one shard, also if they come back to life, as on a machine that has far too much to do."""


def note_unwritten(session: Session, submission: Submission, shard: Shard) -> int:
    """Write down a turn that could record nothing; how many there were since something was."""
    _forget_after_progress(session, submission, shard)
    shard.unwritten += 1
    return shard.unwritten


def note_silence(session: Session, submission: Submission, shard: Shard) -> int | None:
    """Write down that a shard's worker no longer answers; how many were lost with it, if nobody should take it again.

    Only workers that are gone for good count as dead: one that is merely late, as on a busy machine or while the
    network is down, does so later, if it never answers again.
    """
    _forget_after_progress(session, submission, shard)
    shard.lost_workers = lost = [*(shard.lost_workers or []), str(shard.worker_id)]
    dead = sum(is_gone(session, worker) for worker in set(lost))
    if dead >= DEATHS_WITHOUT_PROGRESS:
        return dead
    return len(lost) if len(lost) >= SILENCES_WITHOUT_PROGRESS else None


def _forget_after_progress(session: Session, submission: Submission, shard: Shard) -> None:
    recorded = _recorded(session, submission, shard)
    if recorded != shard.recorded:
        shard.recorded, shard.lost_workers, shard.unwritten = recorded, None, 0


def _recorded(session: Session, submission: Submission, shard: Shard) -> int:
    """How much is recorded of a shard: replies, verdicts, calls and trials, counted."""
    run = session.get_one(Run, submission.run_id)
    counts = [
        select(func.count(Reply.id)).where(Reply.run_id == run.id),
        select(func.count(Verdict.id)).join(Reply).where(Reply.run_id == run.id),
        select(func.count(Attempt.id)).where(Attempt.run_id == run.id),
    ]
    if shard.first is None:
        counts.append(select(func.count(Trial.id)).join(Arm).where(Arm.run_id == run.id))
    else:
        items = run.items[shard.first : shard.last]
        inside = select(Conversation.id).where(
            Conversation.dataset_id == run.dataset_id, Conversation.external_id.in_(items)
        )
        of = (Reply.conversation_id, Reply.conversation_id, Attempt.conversation_id)
        counts = [count.where(column.in_(inside)) for count, column in zip(counts, of, strict=True)]
    return sum(session.scalar(count) or 0 for count in counts)
