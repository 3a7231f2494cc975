"""Who may see what: the one rule of private runs and hidden test items, laid over every query of a viewer's session.

A run is public, or private: then its owner and the operator see it, and for anybody else nothing that hangs on it is
there: no judging, no reply, no score, no line of its log; and so for another tool's result with its samples. The
items of a hidden set are seen by the operator alone: for anybody else the rows are there, so that scores, counts and
comparisons stay as they are, and what was said, asked and answered is blank; a query that names such a column finds
no row of a hidden set.

Whoever reads for a person takes `database.seen_by(viewer)`; nothing else has to be thought of in a query, as long as
it is made of the mapped classes. A `Database` without a viewer is the operator's, who holds the database anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    String,
    Table,
    TextClause,
    and_,
    event,
    literal_column,
    or_,
    select,
)
from sqlalchemy import cast as as_type
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.sql import visitors
from sqlalchemy.sql.base import ExecutableOption

from vivace.store import tables
from vivace.store.tables import (
    Alert,
    Breakdown,
    Delivery,
    ForeignOutcome,
    ForeignResult,
    Gap,
    Night,
    Regression,
    Reservation,
    Schedule,
    Shard,
)


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
Rule = Callable[[Any], ColumnElement[bool]]
"""Of a mapped class, or an alias of it: which rows may be seen."""

_CONTENT: dict[Entity, dict[str, str | None]] = {
    tables.Turn: {"transcript": None, "audio_sha256": None},
    tables.Criterion: {"text": HIDDEN, "machine_check": None},
    tables.Reply: {"text": None, "raw_text": None, "audio_sha256": None, "heard": None, "detail": None},
    tables.Verdict: {"explanation": None},
    tables.Attempt: {"detail": None},
    Gap: {"ear": None},
}
"""What tells what a set's items are, and what stands there for those who may not know."""
_TELLING: frozenset[Entity] = frozenset((*_CONTENT, tables.Trial))
"""The tables that tell; trials are not blanked, but not there."""

_BY_NAME: dict[str, Entity] = {str(mapper.local_table): mapper.class_ for mapper in tables.Base.registry.mappers}
# Of plain tables: the rule is not laid over its own parts.
_run, _judging, _arm = tables.Run.__table__.c, tables.Judging.__table__.c, tables.Arm.__table__.c
_reply, _submission = tables.Reply.__table__.c, tables.Submission.__table__.c
_foreign = ForeignResult.__table__.c
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
    """One session's view."""

    def __init__(self, name: str | None) -> None:
        self._name = name
        self._items: _HiddenItems | None = None
        """What is hidden; asked before the first statement that might tell."""

    def restrict(self, state: ORMExecuteState) -> None:
        """Lay the rule over one statement."""
        parts = list(visitors.iterate(cast(Any, state.statement)))
        if not state.is_orm_statement and any(isinstance(part, Table | TextClause) for part in parts):
            raise TypeError("a viewer's session reads mapped classes; this statement asks tables by themselves")
        read = _tables_read(parts)
        options = [option for table, option in _rules_of_rows(self._name).items() if table in read]
        if read & _TELLING:
            if self._items is None:
                self._items = _hidden_items(state.session.connection())
            named = set(_TELLING) if state.is_column_load else _content_named(parts)
            options += [self._items.rules[table] for table in named & self._items.rules.keys()]
        if options:
            state.statement = state.statement.options(*options)

    def blank(self, _session: Session, row: Any) -> None:
        """Take from a row that was read what the viewer may not know."""
        column, hidden = ("", frozenset()) if self._items is None else self._items.rows.get(type(row), ("", ()))
        if column and getattr(row, column) in hidden:
            for name, stand_in in _CONTENT[type(row)].items():
                set_committed_value(row, name, stand_in)


@dataclass(frozen=True)
class _HiddenItems:
    """What is hidden of sets.

    Attributes:
        rows: table → the column that leads to a set, and its values that lead to a hidden one.
        rules: table → the option by which a statement finds none of these rows.
    """

    rows: Mapping[Entity, tuple[str, Collection[Any]]]
    rules: Mapping[Entity, ExecutableOption]


def _hidden_items(connection: Connection) -> _HiddenItems:
    """What is hidden at the moment, which mostly is nothing."""
    sets = connection.scalars(select(_set.id).where(_set.hidden_since.is_not(None))).all()
    if not sets:
        return _HiddenItems({}, {})
    conversations = select(_conversation.id).where(_conversation.dataset_id.in_(sets))
    runs = select(_run.id).where(_run.dataset_id.in_(sets))
    judgings = select(_judging.id).where(_judging.run_id.in_(runs))
    arms = select(_arm.id).where(_arm.run_id.in_(runs))
    ways: dict[Entity, tuple[str, Select[Any], Rule]] = {
        tables.Turn: ("conversation_id", conversations, lambda of: of.conversation_id.not_in(conversations)),
        tables.Criterion: ("conversation_id", conversations, lambda of: of.conversation_id.not_in(conversations)),
        tables.Reply: ("conversation_id", conversations, lambda of: of.conversation_id.not_in(conversations)),
        tables.Verdict: ("judging_id", judgings, lambda of: of.judging_id.not_in(judgings)),
        tables.Attempt: ("run_id", runs, lambda of: of.run_id.not_in(runs)),
        tables.Trial: ("arm_id", arms, lambda of: of.arm_id.not_in(arms)),
        Gap: ("text_id", judgings, lambda of: of.text_id.not_in(judgings)),
    }
    return _HiddenItems(
        {table: (column, frozenset(connection.scalars(query))) for table, (column, query, _) in ways.items()},
        {table: _laid_over(table, rule) for table, (_, _, rule) in ways.items()},
    )


def _is_seen(name: str | None, of: Any = _run) -> ColumnElement[bool]:
    """Of a run, or another tool's result: whether somebody of this name sees it."""
    public = of.private_since.is_(None)
    # What has no owner is to be told apart from the viewer's, not to be neither.
    return cast(ColumnElement[bool], public if name is None else or_(public, of.owner.is_not_distinct_from(name)))


def _laid_over(table: Entity, rule: Rule) -> ExecutableOption:
    """A rule as an option of statements: wherever they read a table, under its name or another."""
    return with_loader_criteria(table, rule, include_aliases=True)


@lru_cache(maxsize=64)
def _rules_of_rows(name: str | None) -> Mapping[Entity, ExecutableOption]:
    """Table → what somebody of this name may see of it; none that leads to a run is left out, a test sees to that."""
    seen = _is_seen(name)
    runs = select(_run.id).where(seen)
    judgings = select(_judging.id).where(_judging.run_id.in_(runs))
    arms = select(_arm.id).where(_arm.run_id.in_(runs))
    submissions = select(_submission.id).where(_submission.run_id.in_(runs))
    sets = select(_run.dataset_id).where(seen)
    # Looked up row by row: a list of all conversations, or of all replies, would be made for each statement anew.
    its, reply = tables.Conversation.__table__.alias(), tables.Reply.__table__.alias()
    # As text, because SQLite tells what is true as a number.
    is_private = as_type(_schedule.spec.op("->>")(literal_column("'private'")), String).in_(("1", "true"))
    private_jobs = select(_schedule.id).where(is_private)
    foreign = select(_foreign.id).where(_is_seen(name, _foreign))
    nights = select(_night.id).where(_night.schedule_id.not_in(private_jobs))
    alerts = select(_alert.id).where(_alert.schedule_id.not_in(private_jobs))
    rules: dict[Entity, Rule] = {
        tables.Run: lambda of: of.id.in_(runs),
        tables.Model: lambda of: of.id.in_(select(_run.model_id).where(seen)),
        tables.Dataset: lambda of: of.id.in_(sets),
        # A sum, so that SQLite looks no set up by this where a statement names the conversations.
        tables.Conversation: lambda of: (of.dataset_id + 0).in_(sets),
        tables.Turn: lambda of: (
            select(its.c.dataset_id).where(its.c.id == of.conversation_id).scalar_subquery().in_(sets)
        ),
        tables.Criterion: lambda of: (
            select(its.c.dataset_id).where(its.c.id == of.conversation_id).scalar_subquery().in_(sets)
        ),
        tables.Reply: lambda of: of.run_id.in_(runs),
        tables.Judging: lambda of: of.run_id.in_(runs),
        tables.Verdict: lambda of: of.judging_id.in_(judgings),
        tables.HumanLabel: lambda of: (
            select(reply.c.run_id).where(reply.c.id == of.reply_id).scalar_subquery().in_(runs)
        ),
        tables.Outcome: lambda of: of.judging_id.in_(judgings),
        Breakdown: lambda of: of.judging_id.in_(judgings),
        Gap: lambda of: and_(of.text_id.in_(judgings), of.audio_id.in_(judgings)),
        tables.Arm: lambda of: of.run_id.in_(runs),
        tables.Trial: lambda of: of.arm_id.in_(arms),
        tables.Diagnosis: lambda of: of.arm_id.in_(arms),
        tables.Attempt: lambda of: of.run_id.in_(runs),
        tables.Score: lambda of: or_(of.judging_id.in_(judgings), of.arm_id.in_(arms)),
        tables.Submission: lambda of: of.run_id.in_(runs),
        Shard: lambda of: of.submission_id.in_(submissions),
        Reservation: lambda of: of.run_id.in_(runs),
        tables.RunLabel: lambda of: of.run_id.in_(runs),
        tables.Event: lambda of: or_(of.run_id.is_(None), of.run_id.in_(runs)),
        Schedule: lambda of: of.id.not_in(private_jobs),
        Night: lambda of: of.schedule_id.not_in(private_jobs),
        Regression: lambda of: of.night_id.in_(nights),
        Alert: lambda of: of.schedule_id.not_in(private_jobs),
        Delivery: lambda of: of.alert_id.in_(alerts),
        ForeignResult: lambda of: of.id.in_(foreign),
        ForeignOutcome: lambda of: of.result_id.in_(foreign),
    }
    return {table: _laid_over(table, rule) for table, rule in rules.items()}


def _tables_read(parts: Sequence[Any]) -> set[Entity]:
    """The mapped tables that a statement reads from, by its parts."""
    read = {_BY_NAME[part.name] for part in parts if isinstance(part, Table) and part.name in _BY_NAME}
    return read | {mapper.class_ for mapper in map(_mapper, parts) if mapper is not None}


def _mapper(part: Any) -> Any:
    """The mapper, or the alias of one, that a part of a statement belongs to."""
    return getattr(part, "_annotations", {}).get("parententity")


def _content_named(parts: Sequence[Any]) -> set[Entity]:
    """The tables of which a statement names, by itself, a column that may have to be hidden; trials, if it does."""
    mapped = [(mapper.class_, part.key) for part in parts if isinstance(part, Column) and (mapper := _mapper(part))]
    named = {table for table, key in mapped if key in _CONTENT.get(table, ())}
    return named | ({tables.Trial} & _tables_read(parts))
