"""All that other tools are told of a judging, from the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vivace.store.database import Database
from vivace.store.queries.board import BoardRow, board
from vivace.store.queries.conversation import TurnView, item_rows, turns_of_run
from vivace.store.tables import Judging, Model, Run


@dataclass(frozen=True)
class Judged:
    """A judging with all that a record tells of it.

    Attributes:
        row: of the board.
        items: a row for each criterion of each reply, of `queries.conversation.item_rows`.
        turns: conversation → its turns.
        open_weights: whether the model's card says that its weights are open; None where it does not say.
    """

    row: BoardRow
    items: Sequence[Mapping[str, Any]]
    turns: Mapping[str, Sequence[TurnView]]
    open_weights: bool | None = None


def judged_of(database: Database, judging: str) -> Judged:
    """What there is of an ended judging."""
    row = next(each for each in board(database, include_retracted=True) if each.judging == judging)
    with database.read() as session:
        run = session.get_one(Run, session.get_one(Judging, judging).run_id)
        weights = session.get_one(Model, run.model_id).open_weights
        turns = turns_of_run(session, run)
    return Judged(row, item_rows(database, judging), turns, weights)
