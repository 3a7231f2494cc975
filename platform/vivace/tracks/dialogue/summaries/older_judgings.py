"""Summaries of judgings that ended before summaries were kept, as an old database holds them after its upgrade."""

from __future__ import annotations

from sqlalchemy import Select, func, select

from vivace.store.database import Database
from vivace.store.queries.figures import PRICE, TIMES
from vivace.store.tables import Breakdown, Judging, Score
from vivace.store.verdicts import ended_conversations
from vivace.tracks.dialogue.judging.effort import renew_effort
from vivace.tracks.dialogue.summaries.gaps import renew_gaps
from vivace.tracks.dialogue.summaries.parts import write_parts

_FEWEST_TIMES = 6
"""Fewer have no interval of their median."""


def fill_summaries(database: Database) -> int:
    """Write what is missing of them, each judging's in a transaction of its own; cut off, it goes on where it was.

    Returns:
        The judgings that lacked scores in parts, and the runs whose prices or times lacked their interval.
    """
    known = select(Breakdown.judging_id)
    with database.read() as session:
        query = select(Judging.id).where(Judging.status == "ended", Judging.id.not_in(known)).order_by(Judging.id)
        without_parts = session.scalars(query).all()
        without_intervals = session.scalars(_runs_without_intervals()).all()
    for judging_id in without_parts:
        with database.write() as session:
            write_parts(session, judging_id, ended_conversations(session, judging_id))
    if without_parts:
        with database.write() as session:
            renew_gaps(session)
    for run_id in without_intervals:
        with database.write() as session:
            renew_effort(session, run_id)
    return len(without_parts) + len(without_intervals)


def _runs_without_intervals() -> Select[str]:
    """Runs with an ended judging whose sums say that it has a price or a median's interval, which is not there."""
    cost = select(Score.judging_id).where(Score.metric == "cost_usd").group_by(Score.judging_id)
    priced = cost.having(func.max(Score.unscored) == 0, func.count(Score.value) > 0)
    has_price = select(Score.judging_id).where(Score.metric == PRICE, Score.judging_id.is_not(None))
    timed = select(Score.judging_id).where(
        Score.metric.in_(TIMES), Score.slice == "", Score.count >= _FEWEST_TIMES, Score.low.is_(None)
    )
    lacking = (Judging.id.in_(priced) & Judging.id.not_in(has_price)) | Judging.id.in_(timed)
    return select(Judging.run_id).where(Judging.status == "ended", lacking).distinct().order_by(Judging.run_id)
