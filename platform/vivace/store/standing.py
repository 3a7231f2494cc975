"""How a result stands on its board: ranked with others like it, or apart from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sqlalchemy import ColumnElement, and_

from vivace.store.tables import Judging, Run

SUFFICIENT_COVERAGE = 0.99
"""The share of what was planned that has to be scored: below it a row is not official, and is not ranked."""

Standing = Literal["ranked", "part", "incomplete", "retracted"]
"""`ranked`: over the whole set, with sufficient coverage. `part`: some of the set was never asked. `incomplete`: too
much of what was asked is unscored. Only the ranked are held against each other."""


def standing_of(*, limited: bool, coverage: float | None, retracted: bool = False) -> Standing:
    """How a result stands: only one over the whole set, with sufficient coverage, is ranked.

    A part may have left out what the system fails at, and so may what is unscored in an incomplete result.

    Args:
        limited: whether it is over a part of the set.
        coverage: the share that is scored of what was planned; None where nothing was.
        retracted: whether it was taken off the board.
    """
    if retracted:
        return "retracted"
    if limited:
        return "part"
    return "ranked" if coverage is not None and coverage >= SUFFICIENT_COVERAGE else "incomplete"


def not_retracted() -> ColumnElement[bool]:
    """Of rows that join a judging with its run: neither of them was taken off the board."""
    return and_(Run.retracted_at.is_(None), Judging.retracted_at.is_(None))


def retraction(run: Run, judging: Judging) -> str | None:
    """The reason for which a judging is off the board: its run's, or its own; None where it is on it."""
    return run.retraction_reason or judging.retraction_reason


def standing_ones(judgings: Sequence[Judging]) -> Sequence[Judging]:
    """Of a run's judgings those that were not retracted by themselves; all of them where none is left."""
    return [one for one in judgings if one.retracted_at is None] or judgings
