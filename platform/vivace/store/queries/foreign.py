"""What readers ask of other tools' results: the rows of their board, and the samples behind one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from vivace.errors import UsageError
from vivace.store.database import Database
from vivace.store.identifiers import FOREIGN, SHORTEST
from vivace.store.tables import ForeignOutcome, ForeignResult


@dataclass(frozen=True)
class ForeignRow:
    """One score of one evaluation by another tool; never ranked, and never beside own rows."""

    result: str
    tool: str
    tool_version: str
    task: str
    task_version: str
    data: str
    model: str
    score: str
    more_is_better: bool | None
    made_at: datetime | None
    settings: dict[str, Any]
    reported: dict[str, Any]
    """The tool's own figures, the metric's first."""
    planned: int | None
    scored: int | None
    unscored: dict[str, int]
    samples: int
    independent: bool
    value: float | None
    """The mean over its scored samples."""
    low: float | None
    high: float | None
    minimum: float | None
    maximum: float | None
    notes: list[str]
    source: str
    imported_at: datetime
    owner: str | None
    """Whose it is; None of the operator's."""
    private: bool
    """Whether its owner and the operator alone see it."""
    retracted: str | None

    @property
    def first_reported(self) -> float | None:
        """The figure that the tool itself would name."""
        return next(iter(self.reported.values()), None)

    def as_json(self) -> dict[str, Any]:
        """The fields, with times in ISO 8601."""
        return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in vars(self).items()}


def foreign_board(database: Database, *, include_retracted: bool = False) -> list[ForeignRow]:
    """Every result of another tool: those of one tool, task, version, data and score together, the better first.

    Args:
        database: to read from.
        include_retracted: show retracted ones too, with the reason.
    """
    query = select(ForeignResult)
    if not include_retracted:
        query = query.where(ForeignResult.retracted_at.is_(None))
    with database.read() as session:
        rows = [_row(each) for each in session.scalars(query)]
    return sorted(rows, key=_order)


def _order(row: ForeignRow) -> tuple[Any, ...]:
    figure = row.first_reported if row.first_reported is not None else row.value
    better = 0.0 if figure is None else figure if row.more_is_better is False else -figure
    return *group_of(row), row.retracted is not None, figure is None, better, row.model, row.result


def group_of(row: ForeignRow) -> tuple[str, ...]:
    """What rows share that measured the same thing in the same way."""
    return row.tool, row.task, row.task_version, row.data, row.score


def foreign_id(session: Session, identifier: str) -> str | None:
    """The result that an id, or its beginning, stands for; None where there is none.

    Raises:
        UsageError: several begin so.
    """
    if not identifier.startswith(FOREIGN) or len(identifier) < SHORTEST:
        return None
    key = ForeignResult.id
    found = session.scalars(select(key).where(key.startswith(identifier, autoescape=True)).limit(4)).all()
    if len(found) > 1:
        raise UsageError(f"'{identifier}' begins several ids ({', '.join(found[:3])}); write more of the one meant.")
    return found[0] if found else None


def foreign_items(database: Database, identifier: str) -> list[dict[str, Any]] | None:
    """A row for each try at each sample of a result, with all that is known of it; None where there is none.

    A result without samples has one row, without a sample.
    """
    with database.read() as session:
        id = foreign_id(session, identifier)
        if id is None:
            return None
        result = session.get_one(ForeignResult, id)
        about = {key: value for key, value in _row(result).as_json().items() if key not in _OF_THE_RESULT}
        outcomes = list(_outcomes(session, id))
    return [{**about, **each} for each in outcomes or [dict.fromkeys(OUTCOME)]]


_OF_THE_RESULT = (
    "value", "low", "high", "minimum", "maximum", "unscored", "samples", "source", "imported_at", "owner", "private"
)  # fmt: skip
"""What its samples do not need to be read again."""
OUTCOME = ("sample", "attempt", "asked", "text", "value", "unscored_reason", "counted")
"""What is known of a try."""


def _outcomes(session: Session, id: str) -> Iterator[dict[str, Any]]:
    columns = [getattr(ForeignOutcome, name) for name in OUTCOME]
    query = select(*columns).where(ForeignOutcome.result_id == id).order_by(ForeignOutcome.id)
    for row in session.execute(query):
        yield dict(zip(OUTCOME, row, strict=True))


def _row(result: ForeignResult) -> ForeignRow:
    renamed = {"id": "result", "created_at": "imported_at", "retraction_reason": "retracted"}
    columns = {column.key: getattr(result, column.key) for column in result.__table__.columns}
    columns["private"] = columns.pop("private_since") is not None
    columns.pop("retracted_at")
    return ForeignRow(**{renamed.get(name, name): value for name, value in columns.items()})
