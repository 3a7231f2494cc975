"""The systems that stand side by side on the conversation page."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from vivace.store.queries.board import BoardRow
from vivace_app.address import Address, select, select_several
from vivace_app.tables import boards

MOST_OTHERS = 5
"""Systems beside the first; more could not be read on a screen."""
_IN_A_LINE = 3
SEARCH = ("axis", "q", "min_turns", "max_turns", "min_seconds", "max_seconds", "differs")
"""The query parameters of the search that do not belong to one system."""


@dataclass(frozen=True)
class Side:
    """A judging on show."""

    letter: str
    """`A` of the first, `B` of the second, …"""
    name: str
    """The system's, with what tells it from the others on show."""
    row: BoardRow

    @property
    def parameter(self) -> str:
        """The query parameter of how a conversation has to have come out for it."""
        return self.letter.lower()


def choose(address: Address, rows: Sequence[BoardRow]) -> list[Side]:
    """Draw the choosers of the judgings; the first is one of all, the others are of the same data."""
    by_id = {row.judging: row for row in rows}
    described = [f"{row.model} — judged by {boards.judge_label(row)} on {boards.data_key(row)}" for row in rows]
    names = dict(zip(by_id, boards.labels(rows, described), strict=True))
    results = string.ascii_lowercase[: 1 + MOST_OTHERS]
    left, right = st.columns(2)
    with left:
        judging = select(
            address,
            "judging",
            "System",
            names,
            what="judging",
            fallback=rows[0].judging,
            forget=("other", "conversation", "repeat", *SEARCH, *results),
        )
    row = by_id[judging]
    same_data = {
        other.judging: names[other.judging]
        for other in rows
        if (other.data, other.data_revision) == (row.data, row.data_revision) and other.judging != judging
    }
    with right:
        others = select_several(
            address,
            "other",
            "Compare with",
            same_data,
            what="second judging on the same data",
            fallback=(),
            most=MOST_OTHERS,
            forget=("repeat", "differs", "only", *results[1:]),
            explanation="Other systems on the same conversations, or other judges over the same replies.",
        )
    chosen = [by_id[one] for one in (judging, *others)]
    return [
        Side(letter, name, one)
        for letter, name, one in zip(string.ascii_uppercase, boards.labels(chosen), chosen, strict=False)
    ]


def places(count: int) -> Iterator[DeltaGenerator]:
    """A place for each of so many systems, three in a line."""
    for start in range(0, count, _IN_A_LINE):
        yield from st.columns(min(_IN_A_LINE, count))[: count - start]
