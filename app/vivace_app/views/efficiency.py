"""What faster inference costs in quality: the arms of a track on one machine, with the frontier between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from vivace.model_origins import ORIGINS
from vivace.store.database import Database
from vivace.store.queries.efficiency import ArmRow
from vivace_app import arm_tables, charts, data, figures, notices
from vivace_app.address import Address, select, toggle
from vivace_methods.families import FAMILIES

_NOTE_COLOURS = {
    "official": "blue",
    "unofficial": "orange",
    "incomplete": "red",
    "synthetic": "gray",
    "random weights": "gray",
    "retracted": "red",
}
_TABLE_ROWS = 25
_TABLE_HEIGHT = 800


POSITION = 40
"""Among the pages, from the left."""


def page() -> st.Page:
    """Where this page lives."""
    return st.Page(show, title="Efficiency", icon=":material/speed:", url_path="efficiency")


def show() -> None:
    """Draw the page."""
    st.title("Efficiency", anchor=False)
    st.caption(
        "What does faster inference cost in quality? Every arm answers the same prompts in one process, in turns "
        "with the baseline; ratios are of neighbouring trials, intervals of 95 %."
    )
    database = data.database()
    everything = data.arms(database) if database else []
    if database is None or not everything:
        notices.nothing_yet()
        return
    address = Address()
    problems = st.container()
    rows = _filtered(address, everything)
    with problems:
        address.show_problems()
    if not rows:
        st.info("No results match these filters.", icon=":material/filter_alt_off:")
    for group in arm_tables.groups(rows).values():
        _show_group(group)
        _show_layers(database, group)
        _show_rankings(database, group)


def _filtered(address: Address, everything: Sequence[ArmRow]) -> list[ArmRow]:
    """Draw the filters, and return the rows that pass them: of one track and one machine."""
    first, second, third = st.columns([2, 3, 1.6], vertical_alignment="bottom")
    tracks = {name: family.title for name, family in FAMILIES.items() if any(row.track == name for row in everything)}
    with first:
        track = select(
            address, "track", "Track", tracks, what="track", fallback=next(iter(tracks)), forget=("machine",)
        )
    here = [row for row in everything if row.track == track]
    machines = arm_tables.machines(here)
    with second:
        machine = select(
            address, "machine", "Machine", machines, what="machine", fallback=next(iter(machines)),
            explanation="Times of different machines do not compare, so that one is shown at a time.",
        )  # fmt: skip
    with third:
        withdrawn = toggle(
            address, "retracted", "Show retracted", explanation="Results that were withdrawn, with the reason."
        )
    return [row for row in here if row.hardware_fingerprint == machine and (withdrawn or row.retracted is None)]


def _show_group(rows: Sequence[ArmRow]) -> None:
    first = rows[0]
    st.markdown(
        f"#### {figures.literal(f'{first.adapter}:{first.model}')} on {figures.literal(first.data)}",
        help=f"Data at revision {figures.literal(first.data_revision[:12])}; run {figures.literal(first.run)}.",
    )
    if first.synthetic:
        st.info(
            "Synthetic: a small model that was trained for this. It shows that the plumbing is right and how methods "
            "order, never how real models behave, and nothing about speed.",
            icon=":material/science:",
        )
    if not ORIGINS[first.adapter].are_answers_real:
        st.info("Random weights of real shapes: times mean something, answers do not.", icon=":material/casino:")
    points = arm_tables.points(rows)
    if not points.empty:
        limit = arm_tables.floor(rows)
        st.altair_chart(
            charts.frontier(points, first.axis.title, more_is_better=first.axis.more_is_better, floor=limit),
            width="stretch",
            alt=f"Quality against {first.axis.title} of each arm with 95 % intervals, and the frontier",
        )
        if limit is not None:
            st.caption("The dashed line is the baseline's own work at the rates that the floor probe found.")
    cells = arm_tables.haystack(rows)
    if not cells.empty:
        st.altair_chart(
            charts.depth_and_length(cells), alt="How much of a needle each arm finds, by its depth and the length"
        )
    st.dataframe(
        figures.cells(arm_tables.table(rows)),
        key=f"arms-{'-'.join(part[:8] for part in first.group)}",
        hide_index=True,
        height="content" if len(rows) <= _TABLE_ROWS else _TABLE_HEIGHT,
        placeholder=figures.ABSENT,
        column_config=_columns(),
        alt=f"Arms on {first.model}",
    )
    _show_details(rows)


def _show_layers(database: Database, rows: Sequence[ArmRow]) -> None:
    """What an arm that was fitted does to each layer of the model."""
    every = {(row.run, row.short_arm): data.layers(database, row.run, row.arm) for row in rows if not row.baseline}
    found = {name: layers for name, layers in every.items() if layers}
    if not found:
        return
    with st.expander("Layer by layer", icon=":material/stacks:"):
        chosen = st.selectbox(
            "Arm",
            list(found),
            format_func=lambda name: name[1],
            key=f"layers-{'-'.join(part[:8] for part in rows[0].group)}",
        )
        st.dataframe(
            figures.cells(arm_tables.layers(found[chosen])),
            hide_index=True,
            placeholder=figures.ABSENT,
            column_config={
                "Kept": st.column_config.NumberColumn(
                    format="percent", help="Mean share of the layer's channels that a decoded token kept."
                ),
                "Output error": st.column_config.NumberColumn(
                    format="percent", help="Of the layer's output, in squares, on text that nothing was fitted on."
                ),
            },
            alt=f"Layers under {chosen[1]}",
        )


def _show_rankings(database: Database, rows: Sequence[ArmRow]) -> None:
    """What rankings of a prompt's tokens are worth in each layer, where an arm was told of them."""
    for row in rows:
        found = arm_tables.rankings(data.diagnoses(database, row.run, row.arm))
        if found.empty:
            continue
        with st.expander(f"Rankings, layer by layer: {figures.literal(row.short_arm)}", icon=":material/grid_on:"):
            st.altair_chart(
                charts.rankings_by_layer(found),
                alt=f"What each ranking is worth in each layer, under {row.short_arm}",
            )


def _show_details(rows: Sequence[ArmRow]) -> None:
    """Why rows are unofficial, what the tasks say one by one, and what the probe found."""
    with st.expander("About these results", icon=":material/info:"):
        for row in rows:
            title, words = st.columns([1, 3])
            title.markdown(figures.literal(row.short_arm))
            with words:
                if row.tasks:
                    parts = [f"{task} {figures.with_interval(found.value, found.low, found.high).strip()}"
                             for task, found in row.tasks.items()]  # fmt: skip
                    st.text(f"Quality: {'; '.join(parts)}.")
                if row.retracted is not None:
                    st.text(f"Retracted: {row.retracted}.")
                elif not row.official:
                    st.text(f"Unofficial: {'; '.join(row.unofficial_reasons) or 'no reason recorded'}.")
        floor = rows[0].floor
        if floor:
            rates = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in floor["flops_per_s"].items())
            st.caption(
                f"Floor probe: reads {floor['read_bytes_per_s'] / 1e9:,.1f} GB/s; multiplies {rates}; a tiny "
                f"operation takes {floor['launch_s'] * 1e6:.2g} µs."
            )


def _columns() -> dict[str, Any]:
    column = st.column_config
    return {
        "Frontier": column.TextColumn(width=60, help="★: no other arm is as good for less, or better for as much."),
        "Arm": column.TextColumn(pinned=True, help="The method with its settings, and what was fitted for it."),
        "Quality": column.TextColumn(help="The task's own metric over all prompts [95 % interval]."),
        "Difference": column.TextColumn(help="Quality less the baseline's on the same prompts, in points."),
        "Comparable": column.TextColumn(
            help="Whether a loss as large as the run's margin is ruled out (non-inferiority, one-sided 2.5 %); "
            "worse where the interval of the difference lies below 0."
        ),
        "Same tokens": column.TextColumn(help="Answers that are the baseline's to the last token."),
        "Kept, %": column.NumberColumn(
            format="%.1f", help="Of a prompt's tokens, those that went through the last layer."
        ),
        "Evidence, %": column.NumberColumn(
            format="%.1f", help="Of the tokens that hold what the answer needs, likewise."
        ),
        "KV, MiB": column.NumberColumn(format="%.1f", help="Keys and values of a prompt that caches keep."),
        "Bytes ×": column.TextColumn(help="Bytes moved per token of an answer, relative to the baseline."),
        "FLOPs ×": column.TextColumn(help="Operations per token of an answer, relative to the baseline."),
        "TTFT ×": column.TextColumn(help="Time to first token, relative to the neighbouring trial of the baseline."),
        "Tokens/s ×": column.TextColumn(help="Throughput over the whole answer, likewise."),
        "Tokens/s": column.NumberColumn(format="%.1f", help="Median of all trials."),
        "Floor, tokens/s": column.NumberColumn(
            format="%.1f", help="What the arm's bytes and FLOPs allow at the rates that were probed."
        ),
        "Trials": column.NumberColumn(width=60, help="That ended well; an arm that lacks some is on no frontier."),
        "Notes": column.MultiselectColumn(
            options=list(arm_tables.NOTES), color=[_NOTE_COLOURS[note] for note in arm_tables.NOTES],
            help="Reasons are under *About these results*.",
        ),
        "Date": column.DateColumn(format="YYYY-MM-DD", help="When the arm was scored (UTC)."),
        "Settings": column.TextColumn(help="What tells arms of one name apart: settings of their runs."),
        "Run": column.TextColumn(help="The run's id, as far as `vivace` needs it: `vivace logs`, `export`."),
    }  # fmt: skip
