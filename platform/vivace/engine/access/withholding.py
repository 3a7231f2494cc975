"""Keeping results from others: runs made private or public, and sets whose items are hidden."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from vivace.engine.access.tokens import as_person
from vivace.errors import UsageError
from vivace.store.columns import now
from vivace.store.database import Database
from vivace.store.identifiers import find
from vivace.store.queries.foreign import foreign_id
from vivace.store.records import add_event
from vivace.store.tables import Dataset, ForeignResult, Run
from vivace.tracks.dialogue.summaries.gaps import renew_gaps


def set_private(database: Database, identifier: str, private: bool, owner: str | None = None) -> str:
    """Make a run private or public, with what is made of it; or another tool's result, with its samples.

    Args:
        identifier: a run, a judging or a submission of it, or the result.
        private: whether only its owner and the operator shall see it.
        owner: to whom it is given; None leaves it whose it is.

    Returns:
        What was done, in a sentence.

    Raises:
        UsageError: there is no such run.
    """
    with database.write() as session:
        if (foreign := foreign_id(session, identifier)) is not None:
            result = session.get_one(ForeignResult, foreign)
            return f"The result {result.id} of {result.tool} is {_set(result, private, owner)}."
        found = find(session, identifier)
        if found is None:
            raise UsageError(f"There is no run '{identifier}'; `vivace leaderboard --format json` shows the ids.")
        run = session.get_one(Run, found.run)
        said = _set(run, private, owner)
        add_event(session, said, run_id=run.id)
        renew_gaps(session)
    return f"Run {run.id} is {said}."


def _set(held: Run | ForeignResult, private: bool, owner: str | None) -> str:
    if private != (held.private_since is not None):
        held.private_since = now() if private else None
    held.owner = as_person(owner) if owner else held.owner
    whose = held.owner or "the operator"
    return f"private: {whose} sees it" if private else f"public; it is {whose}'s"


def hide_items(database: Database, sets: Sequence[int], hidden: bool) -> None:
    """Hide what is said, asked and answered in sets, or show it again; scores are always shown.

    Args:
        sets: their row ids.
        hidden: which of the two.
    """
    with database.write() as session:
        for dataset in session.scalars(select(Dataset).where(Dataset.id.in_(sets))):
            if hidden != (dataset.hidden_since is not None):
                dataset.hidden_since = now() if hidden else None


def sets_named(database: Database, name: str) -> list[int]:
    """The row ids of the recorded sets of a name, whatever their revision; or of the one of a fingerprint."""
    with database.read() as session:
        named = select(Dataset.id).where((Dataset.name == name) | (Dataset.fingerprint == name))
        return list(session.scalars(named))
