"""Who may see what: the one rule of private runs and hidden test items, laid over every query of a viewer's session.

A run is public, or private: then its owner and the operator see it, and for anybody else nothing that hangs on it is
there: no judging, no reply, no score, no line of its log. The items of a hidden set are seen by the operator alone:
for anybody else the rows are there, so that scores, counts and comparisons stay as they are, and what was said, asked
and answered is blank; a query that names such a column finds no row of a hidden set.

Whoever reads for a person takes `database.seen_by(viewer)`; nothing else has to be thought of in a query, as long as
it is made of the mapped classes. A `Database` without a viewer is the operator's, who holds the database anyway.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import (
    ClauseElement,
    Column,
    ColumnElement,
    Connection,
    Select,
    Table,
    TextClause,
    and_,
    event,
    or_,
    select,
)
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.sql import visitors
from sqlalchemy.sql.base import ExecutableOption

from vivace.store import tables
from vivace.store.regression_tables import Alert, Delivery, Night, Regression, Schedule
from vivace.store.summary_tables import Breakdown, Gap
from vivace.store.worker_tables import Reservation, Shard


@dataclass(frozen=True)
class Viewer:
    """Who looks.

    Attributes:
        name: of a person who has logged in or holds a token; None of anybody else.
        sees_all: whether it is the operator, or an administrator.
    """

    name: str | None = None
    sees_all: bool = False


NOBODY = Viewer()
OPERATOR = Viewer(sees_all=True)


@dataclass(frozen=True)
class Ownership:
    """Whose a new run is.

    Attributes:
        owner: the person; None where the operator made it.
        private: whether others may not see it.
    """

    owner: str | None = None
    private: bool = False


THE_OPERATORS = Ownership()

HIDDEN = "(hidden)"
"""Stands where there has to be a text, and the viewer may not read it."""

Entity = type[tables.Base]

_CONTENT: dict[Entity, dict[str, str | None]] = {
    tables.Turn: {"transcript": None, "audio_sha256": None},
    tables.Criterion: {"text": HIDDEN, "machine_check": None},
    tables.Reply: {"text": None, "raw_text": None, "audio_sha256": None, "heard": None, "detail": None},
    tables.Verdict: {"explanation": None},
    tables.Attempt: {"detail": None},
    Gap: {"ear": None},
}
"""What tells what a set's items are, and what stands there for those who may not know."""

# Of plain tables: the rule is not laid over its own parts.
_run, _judging, _arm = tables.Run.__table__.c, tables.Judging.__table__.c, tables.Arm.__table__.c
_submission = tables.Submission.__table__.c
_set, _conversation = tables.Dataset.__table__.c, tables.Conversation.__table__.c
_schedule, _night, _alert = Schedule.__table__.c, Night.__table__.c, Alert.__table__.c


def show_to(session: Session, viewer: Viewer) -> None:
    """Let a session read only what the viewer may see.

    Args:
        session: that has read nothing yet, and writes nothing.
        viewer: who looks.
    """
    if not viewer.sees_all:
        view = _View(viewer.name)
        event.listen(session, "do_orm_execute", view.restrict)
        event.listen(session, "loaded_as_persistent", view.blank)


class _View:
    """One session's view. What is withheld is asked once: mostly nothing is, and nothing is laid over its queries."""

    def __init__(self, name: str | None) -> None:
        self._name = name
        self._rules: list[ExecutableOption] | None = None
        self._rules_of_content: dict[Entity, ExecutableOption] = {}
        self._blanked: dict[Entity, tuple[str, Set[Any]]] = {}
        """Table → the column that leads to a hidden set, and its values that do."""

    def restrict(self, state: ORMExecuteState) -> None:
        """Lay the rule over one statement."""
        parts = list(visitors.iterate(cast("ClauseElement", state.statement)))
        if not state.is_orm_statement and any(isinstance(part, Table | TextClause) for part in parts):
            raise TypeError("a viewer's session reads mapped classes; this statement asks tables by themselves")
        if self._rules is None:
            self._rules = self._find_out(state.session.connection())
        options = self._rules
        if self._rules_of_content:
            named = _CONTENT if state.is_column_load else _content_named(parts)
            options = options + [self._rules_of_content[table] for table in named]
        if options:
            state.statement = state.statement.options(*options)

    def blank(self, _session: Session, row: Any) -> None:
        """Take from a row that was read what the viewer may not know."""
        column, hidden = self._blanked.get(type(row), ("", frozenset()))
        if column and getattr(row, column) in hidden:
            for name, stand_in in _CONTENT[type(row)].items():
                set_committed_value(row, name, stand_in)

    def _find_out(self, connection: Connection) -> list[ExecutableOption]:
        """The rules of rows; on the way, what is blank of the others."""
        jobs = connection.execute(select(_schedule.id, _schedule.spec))
        private_jobs = tuple(key for key, spec in jobs if spec.get("private"))
        private_runs = select(_run.id).where(~_is_seen(self._name)).exists()
        rules: list[ExecutableOption] = []
        if private_jobs or connection.scalar(select(private_runs)):
            rules += _rules_of_rows(self._name, private_jobs)
        hidden = connection.scalars(select(_set.id).where(_set.hidden_since.is_not(None))).all()
        if hidden:
            rules.append(self._hide_items(connection, hidden))
        return rules

    def _hide_items(self, connection: Connection, sets: Sequence[int]) -> ExecutableOption:
        """Note what is blank of the items of hidden sets; of trials, which hold answers, the rule of rows."""
        conversations = select(_conversation.id).where(_conversation.dataset_id.in_(sets))
        runs = select(_run.id).where(_run.dataset_id.in_(sets))
        judgings = select(_judging.id).where(_judging.run_id.in_(runs))
        ways: dict[Entity, tuple[str, Select[Any]]] = {
            tables.Turn: ("conversation_id", conversations),
            tables.Criterion: ("conversation_id", conversations),
            tables.Reply: ("conversation_id", conversations),
            tables.Verdict: ("judging_id", judgings),
            tables.Attempt: ("run_id", runs),
            Gap: ("text_id", judgings),
        }
        for table, (column, query) in ways.items():
            self._blanked[table] = column, frozenset(connection.scalars(query))
            self._rules_of_content[table] = _laid_over(table, getattr(table, column).not_in(query))
        arms = select(_arm.id).where(_arm.run_id.in_(runs))
        return _laid_over(tables.Trial, tables.Trial.arm_id.not_in(arms))


def _is_seen(name: str | None) -> ColumnElement[bool]:
    """Of a run: whether somebody of this name sees it."""
    public = _run.private_since.is_(None)
    # Runs without an owner are to be told apart from the viewer's, not to be neither.
    return public if name is None else or_(public, _run.owner.is_not_distinct_from(name))


def _laid_over(table: Entity, rule: ColumnElement[bool]) -> ExecutableOption:
    """A rule as an option of statements: wherever they read a table, under its name or another."""
    return with_loader_criteria(table, rule, include_aliases=True)


@lru_cache(maxsize=64)
def _rules_of_rows(name: str | None, private_jobs: tuple[int, ...]) -> list[ExecutableOption]:
    """What of each table somebody of this name may see.

    Args:
        name: the viewer's.
        private_jobs: the ids of jobs that only the operator may.
    """
    seen = _is_seen(name)
    runs = select(_run.id).where(seen)
    judgings = select(_judging.id).where(_judging.run_id.in_(runs))
    arms = select(_arm.id).where(_arm.run_id.in_(runs))
    submissions = select(_submission.id).where(_submission.run_id.in_(runs))
    sets = select(_run.dataset_id).where(seen)
    conversations = select(_conversation.id).where(_conversation.dataset_id.in_(sets))
    nights = select(_night.id).where(_night.schedule_id.not_in(private_jobs))
    alerts = select(_alert.id).where(_alert.schedule_id.not_in(private_jobs))
    rules: dict[Entity, ColumnElement[bool]] = {  # a test sees to it that no table that leads to a run is left out
        tables.Run: tables.Run.id.in_(runs),
        tables.Model: tables.Model.id.in_(select(_run.model_id).where(seen)),
        tables.Dataset: tables.Dataset.id.in_(sets),
        tables.Conversation: tables.Conversation.dataset_id.in_(sets),
        tables.Turn: tables.Turn.conversation_id.in_(conversations),
        tables.Criterion: tables.Criterion.conversation_id.in_(conversations),
        tables.Reply: tables.Reply.run_id.in_(runs),
        tables.Judging: tables.Judging.run_id.in_(runs),
        tables.Verdict: tables.Verdict.judging_id.in_(judgings),
        tables.Outcome: tables.Outcome.judging_id.in_(judgings),
        Breakdown: Breakdown.judging_id.in_(judgings),
        Gap: and_(Gap.text_id.in_(judgings), Gap.audio_id.in_(judgings)),
        tables.Arm: tables.Arm.run_id.in_(runs),
        tables.Trial: tables.Trial.arm_id.in_(arms),
        tables.Diagnosis: tables.Diagnosis.arm_id.in_(arms),
        tables.Attempt: tables.Attempt.run_id.in_(runs),
        tables.Score: or_(tables.Score.judging_id.in_(judgings), tables.Score.arm_id.in_(arms)),
        tables.Submission: tables.Submission.run_id.in_(runs),
        Shard: Shard.submission_id.in_(submissions),
        Reservation: Reservation.run_id.in_(runs),
        tables.Event: or_(tables.Event.run_id.is_(None), tables.Event.run_id.in_(runs)),
        Schedule: Schedule.id.not_in(private_jobs),
        Night: Night.schedule_id.not_in(private_jobs),
        Regression: Regression.night_id.in_(nights),
        Alert: Alert.schedule_id.not_in(private_jobs),
        Delivery: Delivery.alert_id.in_(alerts),
    }
    return [_laid_over(table, rule) for table, rule in rules.items()]


def _content_named(parts: Sequence[Any]) -> set[Entity]:
    """Of a statement's parts: the tables of which it names, by itself, a column that may have to be hidden."""
    named = set()
    for part in parts:
        mapper = part._annotations.get("parententity") if isinstance(part, Column) else None
        if mapper is not None and part.key in _CONTENT.get(mapper.class_, ()):
            named.add(mapper.class_)
    return named
