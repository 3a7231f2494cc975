"""One conversation to hear and read: what was said, what several systems replied, how it was judged, what it took."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from vivace.store.database import Database
from vivace.store.visibility import HIDDEN
from vivace_app import data, figures, notices
from vivace_app.address import Address, select
from vivace_app.explorer import calls, replies, searching, sides, turns, verdicts
from vivace_app.explorer.sides import Side
from vivace_app.tables import boards

POSITION = 20
"""Among the pages, from the left."""


def page() -> st.Page:
    """Where this page lives."""
    return st.Page(show, title="Conversations", icon=":material/forum:", url_path="conversation")


def show() -> None:
    """Draw the page."""
    st.title("Conversations", anchor=False)
    database = data.database()
    found = [*data.board(database), *data.retracted(database)] if database else []
    rows = [row for group in boards.groups(found) for row in group.rows]
    if database is None or not rows:
        notices.nothing_yet()
        return
    address = Address()
    problems = st.container()
    chosen = sides.choose(address, rows)
    listing, detail = st.columns([1.15, 2.7], gap="medium")
    with listing:
        listed = searching.search(address, database, chosen)
    with detail:
        if listed.opened is not None:
            searching.show_way(address, listed)
            _show_conversation(address, database, chosen, listed.opened)
    with problems:
        address.show_problems()


def _show_conversation(address: Address, database: Database, chosen: Sequence[Side], identifier: str) -> None:
    repeat = _choose_repeat(address, chosen)
    views = [data.conversation(database, side.row.judging, identifier, repeat) for side in chosen]
    first = next((view for view in views if view is not None), None)
    if first is None:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(f"Conversation {figures.literal(identifier)}", anchor=False, width="content")
        st.markdown(figures.literal(figures.axis_name(first.axis)), width="content")
    if any(one.text == HIDDEN for one in first.verdicts):
        st.info(
            "The items of this set are hidden: how they came out is shown, not what was said, asked and answered."
        )
    heard = {
        side.letter if len(chosen) > 1 else "": view.heard
        for side, view in zip(chosen, views, strict=True)
        if view is not None and view.heard
    }
    turns.show(first.turns, heard)
    replies.show(chosen, views)
    verdicts.show(address, database, chosen, views)
    calls.show(database, chosen, identifier)


def _choose_repeat(address: Address, chosen: Sequence[Side]) -> int:
    """Draw the chooser of the reply, where there are several; the reply's number from 0."""
    count = max(side.row.repeats for side in chosen)
    if count == 1:
        return int(address.choice("repeat", ("0",), "reply", "0"))
    labels = {str(number): f"Reply {number + 1} of {count}" for number in range(count)}
    return int(select(address, "repeat", "Reply", labels, what="reply", fallback="0"))
