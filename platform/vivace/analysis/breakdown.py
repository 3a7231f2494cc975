"""A judging's scores by what the conversations are like, as they were stored when it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from vivace.errors import UsageError
from vivace.store.database import Database
from vivace.store.tables import Breakdown
from vivace.store.verdicts import JudgingCard, judging_card
from vivace.tracks.dialogue.summaries.parts import BYS as BYS
from vivace.tracks.dialogue.summaries.parts import By as By
from vivace.tracks.dialogue.summaries.parts import unknown_of_all


@dataclass(frozen=True)
class BreakdownRow:
    """The figures of one slice of a judging."""

    card: JudgingCard
    by: By
    slice: str
    place: float | None
    conversations: int
    replies: int
    """Wholly scored replies to them, which APR is made of."""
    coverage: float | None
    apr: float | None
    apr_low: float | None
    apr_high: float | None
    ars: float | None
    ars_low: float | None
    ars_high: float | None

    def as_json(self) -> dict[str, Any]:
        """The row, flat."""
        rest = {key: value for key, value in vars(self).items() if key != "card"}
        return {"model": self.card.model, "judging": self.card.judging, **rest}


_FIGURES = tuple(name for name in BreakdownRow.__dataclass_fields__ if name not in ("card", "by"))


def breakdown(database: Database, identifier: str, by: By, axis: str | None = None) -> list[BreakdownRow]:
    """APR and ARS of each slice of a judging, with 95 % intervals.

    Args:
        identifier: an ended judging, or a run that has one.
        by: what makes the slices.
        axis: only the conversations of this axis; None for all.

    Raises:
        UsageError: there is no such judging or axis, or `by` is unknown of every conversation.
    """
    card = judging_card(database, identifier)
    of_judging = Breakdown.judging_id == card.judging
    with database.read() as session:
        axes = session.scalars(
            select(Breakdown.slice).where(of_judging, Breakdown.by == "axis", Breakdown.axis == "")
            .order_by(Breakdown.position)
        ).all()  # fmt: skip
        rows = session.scalars(
            select(Breakdown).where(of_judging, Breakdown.by == by, Breakdown.axis == (axis or ""))
            .order_by(Breakdown.position)
        ).all()  # fmt: skip
    if axis is not None and axis not in axes:
        raise UsageError(f"Judging {card.judging} has no conversations of the axis '{axis}', but {', '.join(axes)}.")
    if not rows and axes:
        raise unknown_of_all(by)
    return [BreakdownRow(card, by, **{name: getattr(row, name) for name in _FIGURES}) for row in rows]
