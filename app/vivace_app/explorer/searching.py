"""Finding a conversation: filters, the list of those that match, and the way to the previous and the next one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pandas as pd
import streamlit as st

from vivace.store.database import Database
from vivace.store.queries.explorer import RESULTS, Came, Page, Result, Wanted
from vivace_app import data, downloads, figures
from vivace_app.address import Address, number, searched, select, toggle
from vivace_app.explorer.sides import SEARCH, Side

_ALL = "all"
_ANY = "any"
_MARKS = {"pass": "✓ pass", "fail": "✗ fail", "unscored": "? unscored", "absent": figures.ABSENT}
_RESULT_NAMES = {"pass": "Passed", "fail": "Failed", "unscored": "Unscored", "absent": "Not in its run"}
_LIST_ROWS = 24
_LIST_HEIGHT = 780
"""In pixels, for lists with more rows than that; the rest scrolls."""
_FORGET = ("conversation",)


def search(address: Address, database: Database, sides: Sequence[Side]) -> Page:
    """Draw the filters and the list; the page of conversations with the one to open."""
    wanted = _wanted(address, sides)
    asked = address.parameters.get("conversation")
    page = data.page_of(database, [side.row.judging for side in sides], wanted, asked)
    if asked is not None and page.opened != asked:
        address.refuse("conversation", "conversation")
    if not page.total:
        st.info("No conversation matches these filters.", icon=":material/filter_alt_off:")
    else:
        _show_list(address, sides, page)
    return page


def _wanted(address: Address, sides: Sequence[Side]) -> Wanted:
    """Draw the filters; what is wanted of a conversation."""
    axes = {_ALL: "All axes"} | {axis: figures.axis_name(axis) for axis in sorted(sides[0].row.axes)}
    axis = select(address, "axis", "Axis", axes, what="axis", fallback=_ALL, forget=_FORGET)
    text = searched(
        address,
        "q",
        "Search",
        explanation="What stands in the id, in what was said, or in a criterion.",
        forget=_FORGET,
    )
    asked = [name for name in (*SEARCH, *(side.parameter for side in sides)) if name in address.parameters]
    with st.expander(
        "Turns, seconds, results", icon=":material/tune:", expanded=bool(set(asked) - {"axis", "q", "differs"})
    ):
        spans = [
            [
                number(address, f"{end}_{name}", f"{words} {name}", what=f"number of {name}", forget=_FORGET)
                for end, words in (("min", "Fewest"), ("max", "Most"))
            ]
            for name in ("turns", "seconds")
        ]
        results = tuple(_result(address, side, alone=len(sides) == 1) for side in sides)
    differs = len(sides) > 1 and toggle(
        address,
        "differs",
        "Only where they differ",
        explanation="Conversations that did not come out alike, or that one has no result for.",
        forget=_FORGET,
    )
    (least, most), (shortest, longest) = spans
    return Wanted(
        axis=None if axis == _ALL else axis,
        text=text,
        turns=(least, most),
        seconds=(shortest, longest),
        results=results,
        differs=differs,
    )


def _result(address: Address, side: Side, *, alone: bool) -> Result | None:
    known = [result for result in RESULTS if result != "absent" or side.letter != "A"]
    labels = {_ANY: "Any result"} | {result: _RESULT_NAMES[result] for result in known}
    label = "Result" if alone else f"Result of {side.letter}"
    chosen = select(address, side.parameter, label, labels, what="result", fallback=_ANY, forget=_FORGET)
    return None if chosen == _ANY else cast(Result, chosen)


def _show_list(address: Address, sides: Sequence[Side], page: Page) -> None:
    listed = [row.id for row in page.rows]
    frame = table(sides, page)
    state = "-".join([*(side.row.judging for side in sides), str(page.total), *listed[:1]])
    key = f"conversations-{state}"

    def changed() -> None:
        chosen = _chosen_line(st.session_state[key])
        if chosen is not None and chosen < len(listed):
            address.write("conversation", listed[chosen])

    marked = [listed.index(page.opened)] if page.opened in listed else []
    st.session_state[key] = {"selection": {"rows": marked, "columns": [], "cells": []}}
    st.dataframe(
        figures.cells(frame),
        key=key,
        hide_index=True,
        on_select=changed,
        selection_mode="single-row-required" if marked else "single-row",
        height="content" if len(listed) <= _LIST_ROWS else _LIST_HEIGHT,
        column_config={"Seconds": st.column_config.NumberColumn(format="%.0f")},
        placeholder=figures.ABSENT,
        alt="Conversations with their results",
    )
    planned = sides[0].row.figures.n
    st.caption(f"{page.total:,} of {planned:,} conversations")
    if page.total > len(listed):
        with st.container(horizontal=True, vertical_alignment="center"):
            _go(address, "Earlier", page.previous_page, icon=":material/keyboard_double_arrow_up:")
            _go(address, "Later", page.next_page, icon=":material/keyboard_double_arrow_down:")
            st.caption(f"{page.first + 1:,} to {page.first + len(listed):,}", width="content")
    downloads.offer("conversations", frame)


def table(sides: Sequence[Side], page: Page) -> pd.DataFrame:
    """The listed conversations, one line each."""
    return pd.DataFrame(
        [
            {
                "Conversation": row.id,
                **{
                    side.letter if len(sides) > 1 else "Result": _mark(came)
                    for side, came in zip(sides, row.came, strict=True)
                },
                "Axis": figures.axis_name(row.axis),
                "Turns": row.user_turns,
                **({} if all(each.seconds is None for each in page.rows) else {"Seconds": row.seconds}),
            }
            for row in page.rows
        ]
    )


def _mark(came: Came) -> str:
    return _MARKS[came.result] if came.replies <= 1 else f"{came.passes} of {came.replies} pass"


def _chosen_line(state: Any) -> int | None:
    rows = state["selection"]["rows"]
    return int(rows[0]) if rows else None


def show_way(address: Address, page: Page) -> None:
    """Draw the way to the previous and the next conversation, for hands and for keys."""
    with st.container(horizontal=True):
        _go(address, "Previous", page.previous, icon=":material/arrow_back:", shortcut="p")
        _go(address, "Next", page.next, icon=":material/arrow_forward:", shortcut="n")


def _go(address: Address, label: str, where: str | None, *, icon: str, shortcut: str | None = None) -> None:
    st.button(
        label,
        key=f"go-{label}",
        icon=icon,
        shortcut=shortcut,
        disabled=where is None,
        on_click=address.write,
        args=("conversation", where or ""),
    )
