"""The leaderboard itself: who passes how many conversations, with intervals, under which judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import streamlit as st

from vivace.analysis.published import published_figures
from vivace.output.short_names import EAR_CHECKED, HEARING
from vivace.store.database import Database
from vivace.store.queries.board import BoardRow
from vivace_app import data, downloads, figures, markup, notices
from vivace_app.address import Address, select, select_label, toggle
from vivace_app.plots import board_plots, charts
from vivace_app.tables import boards
from vivace_app.views import conversation

_ALL = "all"
_GROUPS_SHOWN = 8
"""More pairs of data and judge than this are left to the filters, so that the page stays fast."""
_CHART_ROWS = 40
_AXES_BESIDE = 2
"""Plots of axes in a line."""
_TOLD_OPEN = 6
"""Up to so many rows are explained without being asked."""
_TABLE_ROWS = 25
_TABLE_HEIGHT = 800
"""In pixels, for tables with more rows than that; the rest scrolls."""
_NOTE_COLOURS = {
    "part": "red",
    "incomplete": "red",
    "official": "blue",
    "unofficial": "orange",
    "imported": "violet",
    "transcript": "gray",
    "spoken": "gray",
    "cascade": "gray",
    HEARING["passed"]: "green",
    EAR_CHECKED: "green",
    HEARING["failed"]: "red",
    HEARING["undecided"]: "gray",
    "submitted times": "gray",
    boards.NIGHTLY: "gray",
    boards.WORSE_NOW: "red",
    "private": "violet",
    "retracted": "red",
}
_WER_HELP = (
    "Word error rate of a cascade's ear: words replaced, left out or put in, for each word of the set's transcripts, "
    "after Whisper's normalisation [95 % interval by conversation]."
)
_NOTES_HELP = (
    "Part: over some of the set's conversations only. Incomplete: too much is unscored. Neither is ranked. Official: "
    "the whole data set, enough of it scored. Imported: verdicts brought in from elsewhere. Transcript: the system "
    "read the words instead of hearing them. Spoken: it answered in speech. Cascade: an ear wrote down what was "
    "said, and a model of text answered that; others hear for themselves. Hears, ear checked, failed the hearing "
    "check: how that came out. Submitted times: TTFT and total are what whoever submitted the replies wrote; they "
    "were not measured here. Regression job: the newest accepted night of one; job worse now: a later one is worse, "
    "and *Regressions* says why. Private: only the owner and the operator see it. Reasons are under *About these "
    "results*."
)


POSITION = 10
"""Among the pages, from the left."""


def page() -> st.Page:
    """Where this page lives."""
    return st.Page(show, title="Leaderboard", icon=":material/leaderboard:", default=True)


def show() -> None:
    """Draw the page."""
    st.title("Vivace leaderboard", anchor=False)
    st.caption(
        "How well does a model hold a spoken conversation? It hears a recorded dialogue and answers the last "
        "turn; a judge checks the answer against that conversation's own criteria."
    )
    database = data.database()
    everything = [*data.board(database), *data.retracted(database)] if database else []
    if database is None or not everything:
        notices.nothing_yet()
        return
    address = Address()
    problems = st.container()
    given = data.labels(database)
    shown = _filtered(address, database, everything, given)
    groups = boards.groups(shown)
    if not groups:
        st.info("No results match these filters.", icon=":material/filter_alt_off:")
    if len(groups) > 1:
        st.caption("Scores on different data or from different judges do not compare; each table ranks its own.")
    for place, group in enumerate(groups[:_GROUPS_SHOWN]):
        _show_group(address, group, given, first=place == 0)
    _show_gaps(database, shown)
    _show_published(address, everything, shown)
    if len(groups) > _GROUPS_SHOWN:
        st.info(
            f"{len(groups) - _GROUPS_SHOWN} more tables are not shown; choose data or a judge above.",
            icon=":material/more_horiz:",
        )
    with problems:
        address.show_problems()


def _show_gaps(database: Database, shown: Sequence[BoardRow]) -> None:
    """What hearing and speaking cost the models on show, in short."""
    here = {row.judging for row in shown}
    found = [gap for gap in data.gaps(database) if {gap.text.judging, gap.audio.judging} <= here]
    if not found:
        return
    st.markdown("#### What hearing and speaking cost")
    table = boards.gap_table(found)
    st.dataframe(
        figures.cells(table[["Model", "Gap", "Score", "Audio − text", "p, family", "n", "Data", "Judge"]]),
        key="gaps",
        hide_index=True,
        column_config={
            "Audio − text": st.column_config.TextColumn(help="In points, paired by conversation [95 % interval]."),
            "p, family": st.column_config.NumberColumn(format="%.4f", help="Corrected for all gaps (Holm)."),
        },
        placeholder=figures.ABSENT,
        alt="Hearing, speaking and cascade gaps of the models on show",
    )
    downloads.offer("gaps", table)
    st.caption(
        "Hearing: audio in against transcripts; ear: the same of a cascade; speaking: speech out against text."
    )


def _show_published(address: Address, everything: Sequence[BoardRow], shown: Sequence[BoardRow]) -> None:
    """What others have published on the tracks of this board, beside it and never in it."""
    found = published_figures(address.parameters.get("track") or everything[0].track)
    if not found:
        return
    wanted = toggle(
        address,
        "published",
        "Show published figures",
        explanation="Figures that others published for this track, with source and date.",
    )
    if wanted:
        st.markdown("#### Published elsewhere, not run here")
        st.dataframe(
            figures.cells(boards.published(found)),
            key="published",
            hide_index=True,
            height=_TABLE_HEIGHT if len(found) > _TABLE_ROWS else "content",
            column_config={
                "Model": st.column_config.TextColumn(pinned=True),
                "Notes": st.column_config.MultiselectColumn(options=["published, not run here"], color=["gray"]),
            },
            alt="Figures that others published",
        )
        downloads.offer("published figures", boards.published(found))
        picture = boards.own_and_published(shown, boards.labels(shown), found)
        downloads.draw(
            "own and published figures",
            "Average pass rates of systems that were run here and of those that others published, each marked",
            board_plots.own_and_published,
            picture,
        )
        st.caption(
            "On the whole public dataset, judged as the source says. They have no rank: whoever runs the same "
            "model here may find another figure."
        )


def _filtered(
    address: Address, database: Database, everything: Sequence[BoardRow], given: Mapping[str, Sequence[str]]
) -> list[BoardRow]:
    """Draw the filters, and return the rows that pass them."""
    tracks = {row.track: figures.track_name(row.track) for row in everything}
    track = next(iter(tracks))
    columns = st.columns([2, 3, 3, 1.6, 1.6] if len(tracks) > 1 else [3, 3, 1.6, 1.6], vertical_alignment="bottom")
    places = iter(columns)
    if len(tracks) > 1:
        with next(places):
            track = select(address, "track", "Track", tracks, what="track", fallback=track, forget=("data", "judge"))
    else:
        track = address.choice("track", tracks, "track", track)
    here = [row for row in everything if row.track == track]
    with next(places):
        choices = {_ALL: "All data"} | {boards.data_key(row): boards.data_key(row) for row in here}
        wanted_data = select(address, "data", "Data", choices, what="data", fallback=_ALL)
    with next(places):
        choices = {_ALL: "All judges"} | {boards.judge_key(row): boards.judge_label(row) for row in here}
        wanted_judge = select(address, "judge", "Judge", choices, what="judge", fallback=_ALL)
    with next(places):
        official = toggle(
            address,
            "official",
            "Official only",
            explanation="Official results cover the whole data set, with enough of it scored.",
        )
    with next(places):
        withdrawn = toggle(
            address,
            "retracted",
            "Show retracted",
            explanation="Results that were withdrawn, with the reason; they have no rank.",
        )
    chosen = _more_filters(address, here, given)
    rows = data.board(database, official_only=official)
    if withdrawn:
        rows = [*rows, *data.retracted(database, official_only=official)]
    return [
        row
        for row in rows
        if row.track == track
        and wanted_data in (_ALL, boards.data_key(row))
        and wanted_judge in (_ALL, boards.judge_key(row))
        and chosen(row)
    ]


def _more_filters(
    address: Address, here: Sequence[BoardRow], given: Mapping[str, Sequence[str]]
) -> Callable[[BoardRow], bool]:
    """Draw what rows can be chosen by besides, where they differ in it, and return whether a row is chosen."""
    offered = [(one, boards.choices(here, one)) for one in boards.FILTERS]
    offered = [
        (one, found) for one, found in offered
        # What is known of some and not of others is something to choose by, too.
        if (found and len({one.of(row) for row in here}) > 1) or one.name in address.parameters
    ]  # fmt: skip
    names = [one.name for one, _ in offered]
    wanted: dict[str, str] = {}
    with st.expander("More filters", icon=":material/filter_list:",
                     expanded=any(name in address.parameters for name in (*names, "since", "label"))):  # fmt: skip
        columns = st.columns(3)
        for place, (one, found) in enumerate(offered):
            with columns[place % len(columns)]:
                wanted[one.name] = select(
                    address, one.name, one.label, {_ALL: "All"} | found, what=one.label.lower(), fallback=_ALL
                )
        with columns[len(offered) % len(columns)]:
            age = select(address, "since", "Date", {_ALL: "All"} | boards.AGES, what="date", fallback=_ALL)
        with columns[(len(offered) + 1) % len(columns)]:
            bears = select_label(address, {row.run: given.get(row.run, ()) for row in here})
    oldest = None if age == _ALL else datetime.now(UTC) - timedelta(days=int(age))
    return lambda row: (
        (oldest is None or row.date >= oldest)
        and bears(row.run)
        and all(wanted[one.name] in (_ALL, one.of(row)) for one, _ in offered)
    )


def _show_group(
    address: Address, group: boards.RankedTogether, given: Mapping[str, Sequence[str]], *, first: bool
) -> None:
    one = group.rows[0]
    st.markdown(
        f"#### {figures.literal(group.data)} judged by {figures.literal(group.judge)}",
        help=f"Data: {figures.literal(one.data)} at revision {figures.literal(one.data_revision)}. "
        "Judge: the fingerprint covers model, prompt, parameters and parser; it is "
        f"{figures.literal(one.judge_fingerprint)}.",
    )
    # The selection is keyed by the visit: coming back from a conversation must not open it again.
    visit = st.session_state.setdefault("board-visit", 0)
    key = f"board-{visit}-{boards.group_key(group)}"
    frame = boards.table(group, given)
    selected = st.dataframe(
        figures.cells(frame),
        key=key,
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        column_config=_columns(group),
        height="content" if len(group.rows) <= _TABLE_ROWS else _TABLE_HEIGHT,
        placeholder=figures.ABSENT,
        alt=f"Leaderboard of {group.data}, judged by {group.judge}",
    )
    for line in selected["selection"]["rows"][:1]:
        st.session_state["board-visit"] = visit + 1
        st.switch_page(conversation.page(), query_params={"judging": group.rows[line].judging})
    st.caption("Tick a row to hear its conversations. " + _explanation(group))
    st.markdown(_best_open(group))
    downloads.offer(f"board of {boards.group_key(group)}", frame)
    _show_plots(address, group, first=first)
    _show_details(group)


def _show_plots(address: Address, group: boards.RankedTogether, *, first: bool) -> None:
    """Pass rates with their intervals, and beside what a reply takes, where there are two systems to compare."""
    names = boards.labels(group.rows)[:_CHART_ROWS]
    drawn = boards.RankedTogether(group.rows[:_CHART_ROWS])
    intervals = boards.intervals(drawn, names)
    if not intervals.empty:
        _show_pass_rates(group, intervals, names)
    if len(group.rows) > _CHART_ROWS:
        st.caption(f"The chart shows the first {_CHART_ROWS} rows.")
    every = {key: boards.trade_off(drawn, names, key) for key in boards.AGAINST}
    taken = {key: frame for key, frame in every.items() if len(frame) > 1 and frame["taken"].nunique() > 1}
    if not taken:
        return
    if first:  # the choice holds for all tables
        against = select(address, "against", "Quality against", {key: boards.AGAINST[key] for key in taken},
                         what="axis", fallback=next(iter(taken)))  # fmt: skip
    else:
        against = address.parameters.get("against", "")
    against = against if against in taken else next(iter(taken))
    downloads.draw(
        f"quality against {against} of {boards.group_key(group)}",
        f"Average pass rate against {boards.AGAINST[against].lower()}, with 95 % intervals",
        board_plots.trade_off,
        taken[against],
        boards.AGAINST[against],
    )


def _show_pass_rates(group: boards.RankedTogether, intervals: pd.DataFrame, names: Sequence[str]) -> None:
    """Pass rates overall, and below for each axis: side by side on a screen, one below the other on a telephone."""
    slices = list(dict.fromkeys(intervals["slice"]))
    panels = {name: downloads.built(charts.pass_rate, intervals, name, names) for name in slices}
    words = "Average pass rate of each model with its 95 % interval"
    st.vega_lite_chart(panels[slices[0]], width="stretch", alt=f"{words}: {slices[0]}")
    if len(slices) > 1:
        with st.expander("By axis", icon=":material/grid_view:", expanded=len(names) <= _TOLD_OPEN):
            columns = st.columns(_AXES_BESIDE)
            for place, name in enumerate(slices[1:]):
                columns[place % _AXES_BESIDE].vega_lite_chart(panels[name], width="stretch", alt=f"{words}: {name}")
    together = downloads.built(charts.pass_rates, intervals, names, slices)
    downloads.offer(f"pass rates of {boards.group_key(group)}", intervals, together)


def _explanation(group: boards.RankedTogether) -> str:
    tied = any(row.tied for row in group.rows)
    return "A rank counts the systems whose interval lies wholly above; = marks a shared one." if tied else ""


def _best_open(group: boards.RankedTogether) -> str:
    """Which model with open weights is best, or that none is known to have them."""
    best = boards.best_open(group)
    if not best:
        return (
            "Best with open weights: none here. No ranked model's card says that its weights are open "
            "(`open_weights: true`)."
        )
    names = dict(zip((row.judging for row in group.rows), boards.labels(group.rows), strict=True))
    listed = ", ".join(f"**{figures.literal(names[row.judging])}**" for row in best[:_TOLD_OPEN])
    more = f" and {len(best) - _TOLD_OPEN} more" if len(best) > _TOLD_OPEN else ""
    rank = figures.rank(best[0].rank or 0, best[0].tied)
    return f"Best with open weights: {listed}{more}, rank {rank}."


def _show_details(group: boards.RankedTogether) -> None:
    """What a cell has no room for: what each system is, and why a result is unofficial or retracted."""
    told = [row for row in group.rows if row.description or row.unofficial_reasons or row.retracted is not None]
    if not told:
        return
    with st.expander("About these results", icon=":material/info:", expanded=len(told) <= _TOLD_OPEN):
        names = dict(zip((row.judging for row in group.rows), boards.labels(group.rows), strict=True))
        for row in told:
            title, words = st.columns([1, 4])
            title.markdown(figures.literal(names[row.judging]))
            with words:
                if row.description:
                    markup.show(row.description, "the description")
                if not row.official:
                    markup.show(f"Unofficial: {'; '.join(row.unofficial_reasons) or 'no reason recorded'}.")
                if row.retracted is not None:
                    markup.show(f"Retracted: {row.retracted}.")


def _name_width(group: boards.RankedTogether) -> int:
    """Pixels for the models' names: Streamlit's own guess cuts some of them."""
    return min(320, 22 + 6 * max(10, *(len(row.model) for row in group.rows)))


def _columns(group: boards.RankedTogether) -> dict[str, Any]:
    """How each column of the table is headed, explained and formatted."""
    column = st.column_config
    costs = [row.cost_usd for row in group.rows if row.cost_usd is not None]
    decimals = 2 if not costs or max(costs) >= 1 else 3
    axes = {
        figures.axis_name(axis): column.TextColumn(
            help=f"Average pass rate on the axis {figures.literal(figures.axis_name(axis))} (conversations).",
        )
        for axis in group.axes
    }
    return _card_columns() | {
        "Rank": column.TextColumn(
            pinned=True,
            help="1 + the systems whose interval lies wholly above; = where several share a rank. Only results over "
            "the whole set are ranked.",
        ),
        "Model": column.TextColumn(pinned=True, width=_name_width(group), help="The system under test."),
        "Method": column.TextColumn(
            help="What the model decoded with: the method with its settings, and the hash of its recipe."
        ),
        "Settings": column.TextColumn(help="What tells rows of one model apart."),
        "Run": column.TextColumn(
            help="The run's id, as far as `vivace` needs it: `vivace logs`, `export`, `reproduce`."
        ),
        "Labels": column.TextColumn(help="Words that people gave the run: `vivace label`."),
        "Notes": column.MultiselectColumn(
            options=list(boards.NOTES),
            color=[_NOTE_COLOURS[note] for note in boards.NOTES],
            help=_NOTES_HELP,
        ),
        "APR": column.TextColumn(
            help="Average pass rate: conversations with every criterion met, of those with every criterion "
            "scored [95 % Wilson interval]."
        ),
        "ARS": column.TextColumn(
            help="Average rubric score: criteria met, of those scored [95 % interval by conversation]."
        ),
        "WER": column.TextColumn(help=_WER_HELP),
        **axes,
        "Coverage": column.TextColumn(
            help="Criteria that got a verdict; below 100 % also where the APR could lie, from everything "
            "unscored failed to everything unscored passed. Of a part: how many conversations of the whole set, and "
            "where the APR of all of them could lie."
        ),
        "n": column.NumberColumn(width=48, help="Conversations planned."),
        "Repeats": column.NumberColumn(width=48, help="Replies to each conversation."),
        "TTFT": column.NumberColumn(format="%.2f s", help="Median time to first token of the reply."),
        "Total": column.NumberColumn(format="%.2f s", help="Median time to the end of the reply."),
        "Kept": column.NumberColumn(
            format="percent", help="Mean part of a prompt's tokens that went through the model's last layer."
        ),
        "Cost": column.NumberColumn(
            format=f"$%.{decimals}f", help="Of all calls, failed ones included; *Analysis* has it in parts."
        ),
        "Unpriced": column.NumberColumn(
            width=64, help="Calls whose price is not known, which the cost leaves out: it was more."
        ),
        "Date": column.DateColumn(format="YYYY-MM-DD", help="When the judging ended (UTC)."),
    }


def _card_columns() -> dict[str, Any]:
    """Of what a model's card says."""
    column = st.column_config
    return {
        "Organisation": column.TextColumn(help="Who made the model, where its card says so."),
        "Size": column.TextColumn(help="Of the model, where its card says so."),
        "Weights": column.TextColumn(help="Whether they are open, where the model's card says so."),
        "Licence": column.TextColumn(help="Of the weights, where the model's card says so."),
    }
