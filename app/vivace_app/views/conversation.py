"""One conversation to hear and read: what was said, what one or two systems replied, how it was judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from vivace.output.short_names import with_method
from vivace.store.database import Database
from vivace.store.queries.board import BoardRow
from vivace.store.queries.conversation import ConversationSummary, ConversationView, TurnView
from vivace.store.queries.heard import HeardView
from vivace_app import boards, data, figures, notices, recordings
from vivace_app.address import Address, select, toggle

_NONE = "none"
_ALL = "all"
_LIST_ROWS = 24
_LIST_HEIGHT = 780
"""In pixels, for lists with more rows than that; the rest scrolls."""
_MARKS = {True: "✓ pass", False: "✗ fail", None: "? unscored"}


POSITION = 20
"""Among the pages, from the left."""


def page() -> st.Page:
    """Where this page lives."""
    return st.Page(show, title="Conversations", icon=":material/forum:", url_path="conversation")


@dataclass(frozen=True)
class _Side:
    """A judging on show, one of at most two."""

    letter: str
    row: BoardRow
    summaries: dict[str, ConversationSummary]


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
    sides = _choose_sides(address, database, rows)
    listing, detail = st.columns([1.15, 2.7], gap="medium")
    with listing:
        opened = _choose_conversation(address, sides)
    with problems:
        address.show_problems()
    with detail:
        if opened is not None:
            _show_conversation(address, database, sides, opened)


def _choose_sides(address: Address, database: Database, rows: Sequence[BoardRow]) -> list[_Side]:
    """Draw the choosers of the one or two judgings."""
    by_id = {row.judging: row for row in rows}
    described = [f"{row.model} — judged by {boards.judge_label(row)} on {boards.data_key(row)}" for row in rows]
    names = dict(zip(by_id, boards.labels(rows, described), strict=True))
    left, right = st.columns(2)
    with left:
        judging = select(
            address,
            "judging",
            "System",
            names,
            what="judging",
            fallback=rows[0].judging,
            forget=("other", "conversation", "axis", "differs"),
        )
    row = by_id[judging]
    same_data = {
        other.judging: names[other.judging]
        for other in rows
        if (other.data, other.data_revision) == (row.data, row.data_revision) and other.judging != judging
    }
    with right:
        other = select(
            address,
            "other",
            "Compare with",
            {_NONE: "Nothing"} | same_data,
            what="second judging on the same data",
            fallback=_NONE,
            explanation="Another system on the same conversations, or another judge over the same replies.",
        )
    return [
        _Side(letter, by_id[chosen], {summary.id: summary for summary in data.conversations(database, chosen)})
        for letter, chosen in (("A", judging), ("B", other))
        if chosen in by_id
    ]


def _choose_conversation(address: Address, sides: Sequence[_Side]) -> str | None:
    """Draw the filters and the list, and return the id of the conversation to open."""
    summaries = sides[0].summaries
    axes = {_ALL: "All axes"} | {
        axis: figures.axis_name(axis) for axis in sorted({summary.axis for summary in summaries.values()})
    }
    axis = select(address, "axis", "Axis", axes, what="axis", fallback=_ALL, forget=("conversation",))
    differs = len(sides) > 1 and toggle(
        address,
        "differs",
        "Only where they differ",
        explanation="Conversations that one passed and the other did not, or that only one has a result for.",
        forget=("conversation",),
    )
    listed = [
        identifier
        for identifier, summary in summaries.items()
        if axis in (_ALL, summary.axis) and not (differs and len({_mark(side, identifier) for side in sides}) == 1)
    ]
    fallback = listed[0] if listed else ""
    opened = address.choice("conversation", summaries, "conversation", fallback)
    if not listed:
        st.info("No conversation matches these filters.", icon=":material/filter_alt_off:")
        return opened or None
    lines = [
        {
            "Conversation": identifier,
            "Axis": figures.axis_name(summaries[identifier].axis),
            **{side.letter if len(sides) > 1 else "Result": _mark(side, identifier) for side in sides},
        }
        for identifier in listed
    ]
    frame = pd.DataFrame(lines)
    state = "-".join([*(side.row.judging for side in sides), axis, str(differs)])
    key = f"conversations-{state}"

    def changed() -> None:
        chosen = _chosen_line(st.session_state[key])
        if chosen is not None and chosen < len(listed):
            address.write("conversation", listed[chosen])

    marked = [listed.index(opened)] if opened in listed else []
    st.session_state[key] = {"selection": {"rows": marked, "columns": [], "cells": []}}
    st.dataframe(
        figures.cells(frame),
        key=key,
        hide_index=True,
        on_select=changed,
        selection_mode="single-row-required" if marked else "single-row",
        height="content" if len(listed) <= _LIST_ROWS else _LIST_HEIGHT,
        alt="Conversations with their results",
    )
    st.caption(f"{len(listed)} of {len(summaries)} conversations")
    return opened


def _chosen_line(state: Any) -> int | None:
    rows = state["selection"]["rows"]
    return int(rows[0]) if rows else None


def _mark(side: _Side, identifier: str) -> str:
    summary = side.summaries.get(identifier)
    if summary is None:
        return figures.ABSENT
    return _MARKS[summary.passed] if summary.replies == 1 else f"{summary.passes} of {summary.replies} pass"


def _choose_repeat(address: Address, sides: Sequence[_Side]) -> int:
    """Draw the chooser of the reply, where there are several; the reply's number from 0."""
    count = max(side.row.repeats for side in sides)
    if count == 1:
        return 0
    labels = {str(number): f"Reply {number + 1} of {count}" for number in range(count)}
    return int(select(address, "repeat", "Reply", labels, what="reply", fallback="0"))


def _show_conversation(address: Address, database: Database, sides: Sequence[_Side], identifier: str) -> None:
    repeat = _choose_repeat(address, sides)
    views = [data.conversation(database, side.row.judging, identifier, repeat) for side in sides]
    first = views[0]
    if first is None:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(f"Conversation {figures.literal(identifier)}", anchor=False, width="content")
        st.markdown(figures.literal(figures.axis_name(first.axis)), width="content")
    for turn in first.turns:
        _show_turn(turn)
        for side, view in zip(sides, views, strict=True):
            if view is not None and turn.role == "user" and (heard := view.heard.get(turn.number)) is not None:
                _show_heard(heard, by=f"{side.letter}: " if len(sides) > 1 else "")
    st.subheader("Reply" if len(sides) == 1 else "Replies", anchor=False)
    for place, side, view in zip(st.columns(len(sides)), sides, views, strict=True):
        with place, st.container(border=True, height="stretch"):
            _show_reply(side, view, title=f"**{side.letter}** · " if len(sides) > 1 else "")
    st.subheader("Criteria", anchor=False)
    for position, verdict in enumerate(first.verdicts):
        with st.container(border=True):
            st.text(f"{position + 1}. {verdict.text}")
            for place, view in zip(st.columns(len(sides)), views, strict=True):
                with place:
                    _show_verdict(view, position)


def _show_turn(turn: TurnView) -> None:
    with st.chat_message("user" if turn.role == "user" else "assistant"):
        if turn.audio_sha256 is not None:
            _show_audio(turn.audio_sha256)
        st.text(turn.transcript or "(no transcript)")


def _show_heard(heard: HeardView, by: str) -> None:
    """What a cascade's ear made of a turn, and what that took."""
    wrong = "" if heard.errors is None else f"{heard.errors} of {heard.words} words wrong, "
    cost = f", ${heard.cost_usd:.4f}" if heard.cost_usd else ""
    st.caption(f":material/hearing: {by}heard in {figures.seconds(heard.seconds)}{cost}; {wrong}as follows")
    st.text(heard.text if heard.text is not None else f"(nothing: {heard.detail or figures.reason(heard.unscored)})")


def _show_audio(sha256: str) -> None:
    recording = data.audio(sha256)
    if isinstance(recording, str):
        st.caption(":material/volume_off: The recording cannot be played.")
        st.text(recording)
    else:
        st.audio(recording, format=recordings.media_type(recording))


def _show_reply(side: _Side, view: ConversationView | None, *, title: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(title + figures.literal(with_method(side.row.model, side.row.method)), width="content")
        if view is not None:
            _show_result(view)
    if view is None:
        st.text("This conversation was not part of this run.")
        return
    if view.reply_unscored_reason is not None:
        st.text(f"There is no reply: {figures.reason(view.reply_unscored_reason)}.")
        if view.reply_detail:
            st.text(view.reply_detail)
    elif view.reply is not None:
        st.text(view.reply or "(empty reply)")
    if view.reply_raw_text is not None:
        with st.expander("With what it thought before"):
            st.text(view.reply_raw_text)
    if view.reply_audio_sha256 is not None:
        _show_audio(view.reply_audio_sha256)
    if view.ttft_s is not None or view.total_s is not None:
        whose = ", as submitted with the reply" if view.times == "submitted" else ""
        st.caption(f"TTFT {figures.seconds(view.ttft_s)} · total {figures.seconds(view.total_s)}{whose}")


def _show_result(view: ConversationView) -> None:
    met = [verdict.met for verdict in view.verdicts]
    if False not in met and None in met:
        st.badge("unscored", icon=":material/question_mark:", color="gray")
    elif all(met):
        st.badge("pass", icon=":material/check:", color="green")
    else:
        st.badge("fail", icon=":material/close:", color="red")
    st.caption(f"{met.count(True)} of {len(met)} criteria met", width="content")


def _show_verdict(view: ConversationView | None, position: int) -> None:
    verdict = view.verdicts[position] if view is not None and position < len(view.verdicts) else None
    if verdict is None:
        st.text(figures.ABSENT)
        return
    with st.container(horizontal=True, wrap=False):
        if verdict.met is None:
            st.badge("unscored", icon=":material/question_mark:", color="gray")
            st.text(f"Reason: {figures.reason(verdict.unscored_reason)}.")
        elif verdict.met:
            st.badge("met", icon=":material/check:", color="green")
        else:
            st.badge("not met", icon=":material/close:", color="red")
        if verdict.votes:
            st.caption(f"{verdict.votes.count(True)} of {len(verdict.votes)} votes for met", width="content")
        if verdict.explanation:
            st.text(verdict.explanation, width="stretch")
