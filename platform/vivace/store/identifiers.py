"""What the ids that people type stand for: a run, a judging or a submission, in full or by how it begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from vivace.errors import UsageError
from vivace.store.database import Database
from vivace.store.standing import standing_ones
from vivace.store.tables import Judging, Run, Submission

SHORTEST = 4
"""Characters; fewer begin too many ids to be meant."""
SHORT = 8
"""Characters of a short id."""

FOREIGN = "x"
"""How the ids of other tools' results begin, and no other id does."""


@dataclass(frozen=True)
class Identified:
    """What an id leads to."""

    run: str
    judging: str | None = None
    """Set where the id is a judging's."""
    submission: str | None = None
    """Set where the id is a submission's."""


def find(session: Session, identifier: str) -> Identified | None:
    """What an id stands for: one that is written in full, else the only one that begins so; None where none does.

    A run comes before its judgings, whose ids begin with the run's.

    Raises:
        UsageError: several runs, submissions or judgings begin so.
    """
    for of_whole in (True, False):
        if not of_whole and len(identifier) < SHORTEST:
            break
        for table in (Run, Submission, Judging):
            key = table.id
            matches = key == identifier if of_whole else key.startswith(identifier, autoescape=True)
            ids = session.scalars(select(key).where(matches).order_by(key).limit(4)).all()
            if len(ids) > 1:
                raise UsageError(f"'{identifier}' begins several ids ({_listed(ids)}); write more of the one meant.")
            if ids:
                return _identified(session, table, ids[0])
    return None


def _listed(ids: Sequence[str]) -> str:
    return ", ".join(ids[:3]) + (", …" if len(ids) > 3 else "")


def _identified(session: Session, table: type[Run | Submission | Judging], key: str) -> Identified:
    if table is Run:
        return Identified(key)
    if table is Submission:
        return Identified(session.get_one(Submission, key).run_id, submission=key)
    return Identified(session.get_one(Judging, key).run_id, judging=key)


def submitted(meant: Identified) -> ColumnElement[bool]:
    """Of submissions: the one that is meant, or those for the judging or the run."""
    if meant.submission is not None:
        return Submission.id == meant.submission
    return Submission.run_id == meant.run if meant.judging is None else Submission.judging_id == meant.judging


def short_ids(session: Session) -> dict[str, str]:
    """Every run's id → its beginning, where no other run's begins so; else the whole of it. `find` takes either."""
    ids = session.scalars(select(Run.id)).all()
    beginnings = Counter(one[:SHORT] for one in ids)
    return {one: one if beginnings[one[:SHORT]] > 1 else one[:SHORT] for one in ids}


def judgings_of(database: Database, identifier: str) -> list[str]:
    """The judging of this id, or those of the run that the id leads to; empty where there is none.

    Of a run's judgings those that were retracted by themselves are left out, unless it has no others.
    """
    with database.read() as session:
        meant = find(session, identifier)
        if meant is None or meant.judging is not None:
            return [] if meant is None else [str(meant.judging)]
        query = select(Judging).where(Judging.run_id == meant.run).order_by(Judging.created_at)
        return [one.id for one in standing_ones(session.scalars(query).all())]


def run_of(database: Database, identifier: str) -> str | None:
    """The run that a run's, a judging's or a submission's id leads to."""
    with database.read() as session:
        meant = find(session, identifier)
        return None if meant is None else meant.run
