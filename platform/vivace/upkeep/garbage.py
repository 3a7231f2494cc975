"""Artifacts that nothing refers to any more, found and removed; what a run in progress has just stored stays."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import String, select

from vivace.errors import VivaceError
from vivace.store.artifacts import Artifacts
from vivace.store.columns import Name, Values
from vivace.store.database import Database
from vivace.store.remote_artifacts import ListedArtifact
from vivace.store.tables import Base
from vivace.store.trees import members, references

GRACE_HOURS = 24.0
"""What was stored since stays: the row that will refer to it may not be written yet."""
_HASH = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


@dataclass(frozen=True)
class Garbage:
    """What of a store may go."""

    unreferenced: list[ListedArtifact]
    young: int
    """Further files that nothing refers to and that are within the grace period."""
    missing: list[str]
    """Hashes of recordings that rows refer to and that the store has not."""


def garbage(database: Database, artifacts: Artifacts, grace_hours: float = GRACE_HOURS) -> Garbage:
    """Hold a store against all that the database refers to.

    Raises:
        VivaceError: a list of files that a submission stands upon cannot be read, so that nothing can be told.
    """
    # Listed first: what is stored and recorded meanwhile is then referred to, or not in the list.
    held = {one.sha256: one for one in artifacts.listed()}
    used = referred(database, artifacts)
    before = datetime.now(UTC) - timedelta(hours=grace_hours)
    idle = [one for sha256, one in held.items() if sha256 not in used]
    old = [one for one in idle if one.modified < before]
    return Garbage(old, len(idle) - len(old), sorted(_recordings(database) - held.keys()))


def collect(database: Database, artifacts: Artifacts, grace_hours: float = GRACE_HOURS) -> list[ListedArtifact]:
    """Remove what nothing refers to; each file is looked at again before it goes.

    Raises:
        VivaceError: as of `garbage`, or a file cannot be removed.
    """
    doomed = garbage(database, artifacts, grace_hours).unreferenced
    again = {one.sha256: one for one in garbage(database, artifacts, grace_hours).unreferenced}
    gone = [one for one in doomed if again.get(one.sha256) == one]
    for one in gone:
        artifacts.delete(one.sha256)
    return gone


def referred(database: Database, artifacts: Artifacts) -> set[str]:
    """The hashes of all files that rows refer to, and of those that the lists among them name.

    Every hash in every short text and every JSON value of every table counts, whatever it stands for.
    """
    found: set[str] = set()
    with database.read() as session:
        for table in Base.metadata.sorted_tables:
            for column in table.columns:
                if not isinstance(column.type, Values | String | Name):
                    continue
                values = session.execute(select(column).where(column.is_not(None)).execution_options(yield_per=1000))
                for value in values.scalars():
                    found.update(_hashes(value))
        trees = {tree for (spec,) in session.execute(_specs()) for tree in references(spec)}
    for tree in trees:
        try:
            found.update(members(artifacts, tree))
        except VivaceError as error:
            raise VivaceError(f"Nothing is removed, because it cannot be told what is in use: {error}") from error
    return found


def _specs() -> Any:
    from sqlalchemy import union_all

    from vivace.store.tables import Schedule, Submission

    return union_all(select(Submission.spec), select(Schedule.spec))


def _hashes(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from _HASH.findall(value)
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _HASH.findall(name)
            yield from _hashes(each)
    elif isinstance(value, list):
        for each in value:
            yield from _hashes(each)


def _recordings(database: Database) -> set[str]:
    from vivace.store.tables import Reply, Turn

    with database.read() as session:
        return {
            str(sha256)
            for column in (Turn.audio_sha256, Reply.audio_sha256)
            for sha256 in session.scalars(select(column).where(column.is_not(None)).distinct())
        }
