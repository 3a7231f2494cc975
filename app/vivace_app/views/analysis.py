"""Where scores come from: by axis, turns, seconds of audio or speaker, and what hearing and speaking cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import streamlit as st

from vivace.analysis.breakdown import BYS, BreakdownRow
from vivace.errors import UsageError
from vivace.store.database import Database
from vivace_app import data, downloads, figures, markup, notices
from vivace_app.address import Address, select, select_several
from vivace_app.plots import charts
from vivace_app.tables import boards

_ALL = "all"
_BYS = {
    "seconds": "Seconds of audio",
    "turns": "User turns",
    "axis": "Axis",
    "speaker": "Speaker",
}
_METRICS = {"apr": "Average pass rate", "ars": "Average rubric score"}
_USUAL_AXIS = "SELF_COHERENCE"
"""The axis that is known to fall as conversations get longer (arXiv 2512.14865)."""
_FELL_ROWS = 12
_FELL_HEIGHT = 450
"""In pixels, for tables of fallen criteria with more rows than that; the rest scrolls."""
_SYSTEMS_SHOWN = 3


POSITION = 30
"""Among the pages, from the left."""


def page() -> st.Page:
    """Where this page lives."""
    return st.Page(show, title="Analysis", icon=":material/query_stats:", url_path="analysis")


def show() -> None:
    """Draw the page."""
    st.title("Analysis", anchor=False)
    database = data.database()
    groups = boards.groups(data.board(database)) if database else []
    if database is None or not groups:
        notices.nothing_yet()
        return
    address = Address()
    problems = st.container()
    group = _choose_group(address, groups)
    names = dict(zip((row.judging for row in group.rows), boards.labels(group.rows), strict=True))
    chosen = select_several(
        address, "judgings", "Systems", names, what="system", fallback=list(names)[:_SYSTEMS_SHOWN]
    )
    systems = {judging: names[judging] for judging in chosen}
    _show_parts(address, database, group, systems)
    _show_accounts(group, systems)
    _show_gaps(database)
    with problems:
        address.show_problems()


def _show_parts(address: Address, database: Database, group: boards.RankedTogether, systems: dict[str, str]) -> None:
    """Scores broken down, for the chosen systems: judging → name."""
    first, second, third = st.columns(3)
    with first:
        by = select(address, "by", "Broken down by", _BYS, what="breakdown", fallback="seconds", forget=("axis",))
    with second:
        axes = {_ALL: "All axes"} | {axis: figures.axis_name(axis) for axis in group.axes}
        usual = _USUAL_AXIS if by == "seconds" and _USUAL_AXIS in axes and _has_parts(database, systems) else _ALL
        axis = select(address, "axis", "Axis", axes, what="axis", fallback=usual)
    with third:
        metric = select(address, "metric", "Score", _METRICS, what="score", fallback="apr")
    chosen = next(one for one in BYS if one == by)
    rows: dict[str, Sequence[BreakdownRow]] = {}
    try:
        for judging, name in systems.items():
            rows[name] = data.breakdown(database, judging, chosen, None if axis == _ALL else axis)
    except UsageError as error:
        st.info("This breakdown is not to be had for these data.", icon=":material/data_alert:")
        markup.show(str(error))
        return
    _draw(rows, metric, _BYS[chosen])


def _has_parts(database: Database, systems: Iterable[str]) -> bool:
    """Whether the usual axis has conversations enough for a curve: a page must not begin with one point."""
    try:
        return any(len(data.breakdown(database, judging, "seconds", _USUAL_AXIS)) > 1 for judging in systems)
    except UsageError:
        return False


def _choose_group(address: Address, groups: Sequence[boards.RankedTogether]) -> boards.RankedTogether:
    by_key = {boards.group_key(group): group for group in groups}
    labels = {key: f"{group.data}, judged by {group.judge}" for key, group in by_key.items()}
    chosen = select(
        address, "group", "Data and judge", labels, what="data and judge", fallback=next(iter(labels)),
        forget=("judgings", "axis"),
    )  # fmt: skip
    return by_key[chosen]


def _draw(rows: dict[str, Sequence[BreakdownRow]], metric: str, title: str) -> None:
    frame = boards.parts(rows)
    shown = frame[frame[metric].notna()] if not frame.empty else frame
    if shown.empty:
        st.info("Nothing is scored in these conversations.", icon=":material/filter_alt_off:")
        return
    downloads.draw(
        "scores in parts",
        f"{_METRICS[metric]} with 95 % intervals over {title.lower()}",
        charts.curve,
        shown,
        metric,
        list(rows),
        title,
    )
    st.caption(
        "Points with 95 % intervals by conversation. Seconds of audio are those of all user turns together, cut "
        "into parts of equally many conversations; a point stands at the mean of its part."
    )
    with st.expander("The figures", icon=":material/table_rows:"):
        st.dataframe(
            figures.cells(frame.drop(columns="place")),
            key="parts",
            hide_index=True,
            column_config={
                name: st.column_config.NumberColumn(format="percent")
                for name in frame.columns
                if name.startswith(("apr", "ars"))
            },
            placeholder=figures.ABSENT,
            alt="Scores in parts",
        )


def _show_accounts(group: boards.RankedTogether, systems: dict[str, str]) -> None:
    """What the calls behind the chosen systems took."""
    rows = [row for row in group.rows if row.judging in systems]
    frame = boards.accounts(boards.RankedTogether(rows), [systems[row.judging] for row in rows])
    if frame.empty:
        return
    st.subheader("What it took", anchor=False)
    column = st.column_config
    st.dataframe(
        figures.cells(frame),
        key="accounts",
        hide_index=True,
        column_config={
            "Model": column.TextColumn(pinned=True),
            "Audio sent": column.NumberColumn(format="%.1f min"),
            "Cost": column.NumberColumn(format="$%.4f"),
        },
        placeholder=figures.ABSENT,
        alt="Calls, tokens, audio and cost of each system",
    )
    downloads.offer("calls", frame)
    st.caption("Sums over all calls, failed ones included; what a server does not tell is not in them.")


def _show_gaps(database: Database) -> None:
    """The same model through text and through audio, side by side."""
    st.subheader("Hearing and speaking gaps", anchor=False)
    found = data.gaps(database)
    if not found:
        st.caption(
            "A model run once from audio and once from transcripts shows here what hearing costs it; one that "
            "answered once in text and once in speech, what speaking does."
        )
        return
    st.dataframe(
        figures.cells(boards.gap_table(found)),
        key="gaps",
        hide_index=True,
        column_config={
            "Model": st.column_config.TextColumn(pinned=True),
            "Audio − text": st.column_config.TextColumn(help="In points, paired by conversation [95 % interval]."),
            "p": st.column_config.NumberColumn(format="%.4f"),
            "p, family": st.column_config.NumberColumn(format="%.4f", help="Corrected for all gaps shown (Holm)."),
        },
        placeholder=figures.ABSENT,
        alt="Hearing and speaking gaps",
    )
    downloads.offer("gaps", boards.gap_table(found))
    st.caption(
        "Hearing: audio in against transcripts in; ear: the same of a cascade, whose model reads either way. "
        "Speaking: speech out against text out. The same model, data and judge; a gap below zero is what audio costs."
    )
    fell = boards.fallen_table(found)
    if not fell.empty:
        st.dataframe(
            figures.cells(fell),
            key="fell",
            hide_index=True,
            height="content" if len(fell) <= _FELL_ROWS else _FELL_HEIGHT,
            alt="Criteria that were met with transcripts and not with what an ear heard",
        )
        downloads.offer("criteria lost to the ear", fell)
        st.caption("Criteria that were met with the set's transcripts and not with the ear's, with what it misheard.")
