"""Summaries of judgings that ended before summaries were kept, as an old database holds them after its upgrade."""

from __future__ import annotations

from sqlalchemy import select

from vivace.store.database import Database
from vivace.store.tables import Breakdown, Judging
from vivace.store.verdicts import ended_conversations
from vivace.tracks.dialogue.summaries.gaps import renew_gaps
from vivace.tracks.dialogue.summaries.parts import write_parts


def fill_summaries(database: Database) -> int:
    """Write what is missing of them, each judging's in a transaction of its own; cut off, it goes on where it was.

    Returns:
        The judgings that lacked theirs.
    """
    known = select(Breakdown.judging_id)
    with database.read() as session:
        query = select(Judging.id).where(Judging.status == "ended", Judging.id.not_in(known)).order_by(Judging.id)
        lacking = session.scalars(query).all()
    for judging_id in lacking:
        with database.write() as session:
            write_parts(session, judging_id, ended_conversations(session, judging_id))
    if lacking:
        with database.write() as session:
            renew_gaps(session)
    return len(lacking)
