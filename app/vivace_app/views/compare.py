"""Is one system better than another? Paired differences, what they show, and the conversations that flipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import streamlit as st

from vivace.analysis.breakdown import BYS
from vivace.analysis.comparison import ComparisonRow, Correction, JudgingComparison
from vivace.errors import UsageError
from vivace_app import data, downloads, figures, markup, notices
from vivace_app.address import Address, select, select_several
from vivace_app.plots import forest
from vivace_app.tables import boards
from vivace_app.views import conversation

POSITION = 25
"""Among the pages, from the left."""
_SYSTEMS_SHOWN = 3
_MOST_SYSTEMS = 8
_BYS = {"axis": "Axis", "turns": "User turns", "seconds": "Seconds of audio", "speaker": "Speaker"}
_METRICS = {"apr": "Average pass rate", "ars": "Average rubric score"}
_CORRECTIONS = {"holm": "Holm: hardly any false alarm", "bh": "Benjamini–Hochberg: few of them false"}
_FLIPS_SHOWN = 200
_FLIPS_HEIGHT = 560
"""In pixels, for lists of more than its rows; the rest scrolls."""
_FLIPS_ROWS = 15


def page() -> st.Page:
    """Where this page lives."""
    return st.Page(show, title="Compare", icon=":material/compare_arrows:", url_path="compare")


def show() -> None:
    """Draw the page."""
    st.title("Compare", anchor=False)
    st.caption(
        "Is one system better than another? Both answered the same conversations, so that each is its own control: "
        "differences are paired, and p-values are corrected for how many are looked at. Intervals and uncorrected "
        "p-values are of each difference by itself; what is shown to be better or worse follows the corrected p."
    )
    database = data.database()
    groups = boards.groups(data.board(database)) if database else []
    if database is None or not groups:
        notices.nothing_yet()
        return
    groups = [group for group in groups if len(group.rows) > 1]
    if not groups:
        st.info("A comparison takes two results on the same data under the same judge.", icon=":material/balance:")
        return
    address = Address()
    problems = st.container()
    group = _choose_group(address, groups)
    names = dict(zip((row.judging for row in group.rows), boards.labels(group.rows), strict=True))
    chosen = select_several(
        address,
        "judgings",
        "Systems",
        names,
        what="system",
        fallback=list(names)[:_SYSTEMS_SHOWN],
        most=_MOST_SYSTEMS,
        explanation="All others are compared with the first.",
    )
    first, second, third = st.columns(3)
    with first:
        by = select(address, "by", "In parts by", _BYS, what="breakdown", fallback="axis")
    with second:
        metric = select(address, "metric", "Score", _METRICS, what="score", fallback="apr")
    with third:
        correction = select(
            address, "correction", "Correction", _CORRECTIONS, what="correction", fallback="holm",
            explanation="All p-values of this page are one family; this is how they are corrected together.",
        )  # fmt: skip
    with problems:
        address.show_problems()
    if len(chosen) < 2:
        st.info("Choose a second system to compare the first with.", icon=":material/balance:")
        return
    try:
        found = data.comparison(
            database,
            chosen,
            next(one for one in BYS if one == by),
            next(one for one in get_args(Correction) if one == correction),
        )
    except UsageError as error:
        st.info("These cannot be compared in this way.", icon=":material/data_alert:")
        markup.show(str(error))
        return
    _show_differences(found, metric)
    _show_flips(found)


def _choose_group(address: Address, groups: Sequence[boards.RankedTogether]) -> boards.RankedTogether:
    by_key = {boards.group_key(group): group for group in groups}
    labels = {key: f"{group.data}, judged by {group.judge}" for key, group in by_key.items()}
    chosen = select(
        address, "group", "Data and judge", labels, what="data and judge", fallback=next(iter(labels)),
        forget=("judgings",),
    )  # fmt: skip
    return by_key[chosen]


def _show_differences(found: JudgingComparison, metric: str) -> None:
    rows = [row for row in found.rows if row.metric == metric]
    if not rows:
        st.info("Nothing is scored in both.", icon=":material/filter_alt_off:")
        return
    title = f"{_METRICS[metric]}, points more than {rows[0].name_a}"[:60]
    far = forest.reach(rows)
    others = {row.b.judging: row.name_b for row in rows}
    for judging, name in others.items():
        of_one = [row for row in rows if row.b.judging == judging]
        st.markdown(f"#### {figures.literal(name)} against {figures.literal(of_one[0].name_a)}")
        st.markdown(_sentence(of_one[0]))
        st.vega_lite_chart(
            downloads.built(forest.plot, forest.points(of_one), title, far),
            width="stretch",
            alt=f"Differences of the {_METRICS[metric].lower()} with 95 % intervals, by part",
        )
    for note in found.notes:
        markup.show(note)
    with st.expander("The figures", icon=":material/table_rows:", expanded=len(rows) <= _FLIPS_ROWS):
        st.dataframe(
            figures.cells(forest.table(found.rows)),
            key="differences",
            hide_index=True,
            column_config=_columns(),
            placeholder=figures.ABSENT,
            alt="Paired differences with intervals and p-values",
        )
    drawn = downloads.built(forest.together, forest.points(rows), title, far)
    downloads.offer("differences", forest.table(found.rows), drawn)


def _sentence(row: ComparisonRow) -> str:
    """What the difference over all conversations says, in words."""
    difference = row.difference
    size = f"{figures.points(difference.value, difference.low, difference.high)} points (95 % interval of this one)"
    p = (
        "p is not known" if row.p_adjusted is None or difference.p_value is None
        else f"p = {difference.p_value:.4f}; corrected for all that is compared here, p = {row.p_adjusted:.4f}"
    )  # fmt: skip
    smallest = (
        ""
        if difference.detectable is None
        else f" A true difference of {100 * difference.detectable:.1f} points is found in 80 of 100 such comparisons."
    )
    return f"**{forest.outcome(row).capitalize()}**: {size}, {p}; n = {difference.n}.{smallest}"


def _columns() -> dict[str, Any]:
    column = st.column_config
    return {
        "System": column.TextColumn(pinned=True),
        "Difference": column.TextColumn(help="In points [95 % interval]; above zero the system is better."),
        "p": column.NumberColumn(format="%.4f"),
        "p, family": column.NumberColumn(format="%.4f", help="Corrected for all differences in this table."),
        "Better / worse": column.TextColumn(help="Conversations that came out better and worse than for the first."),
        "Detectable": column.NumberColumn(
            format="percent", help="The true difference that so many conversations find in 80 of 100 cases."
        ),
    }


def _show_flips(found: JudgingComparison) -> None:
    """The conversations that came out differently; each leads to the conversation page."""
    st.subheader("Conversations that flipped", anchor=False)
    if not found.flips:
        st.caption("No conversation that both have scored wholly came out differently.")
        return
    shown = found.flips[:_FLIPS_SHOWN]
    # The selection is keyed by the visit: coming back from a conversation must not open it again.
    visit = st.session_state.setdefault("compare-visit", 0)
    selected = st.dataframe(
        figures.cells(forest.flips(shown)),
        key=f"flips-{visit}-{len(found.flips)}",
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        height="content" if len(shown) <= _FLIPS_ROWS else _FLIPS_HEIGHT,
        alt="Conversations that came out differently",
    )
    for line in selected["selection"]["rows"][:1]:
        st.session_state["compare-visit"] = visit + 1
        flip = shown[line]
        parameters = {
            "judging": flip["judging_a"], "other": flip["judging_b"], "conversation": flip["conversation"],
        }  # fmt: skip
        st.switch_page(conversation.page(), query_params=parameters)
    more = "" if len(shown) == len(found.flips) else f" The first {len(shown)} are listed; the download has all."
    st.caption(f"Tick a row to hear it. {len(found.flips):,} flipped.{more}")
    pairs = dict.fromkeys((flip["judging_a"], flip["judging_b"], flip["b"]) for flip in found.flips)
    for first, other, name in pairs:
        st.page_link(
            conversation.page(),
            label=f"All conversations on which {figures.literal(name)} and the first differ",
            icon=":material/forum:",
            query_params={"judging": first, "other": other, "differs": "1"},
        )
    downloads.offer("flips", forest.flips(found.flips))
