"""What faster inference costs in quality: the arms of a track on one machine, with the frontier between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from vivace.model_origins import ORIGINS
from vivace.store.database import Database
from vivace.store.queries import efficiency
from vivace.store.queries.efficiency import ArmRow
from vivace_app import data, downloads, figures, markup, notices
from vivace_app.address import Address, select, select_label, toggle
from vivace_app.plots import charts
from vivace_app.tables import arm_tables
from vivace_methods.families import FAMILIES, PlotAxis

_NOTE_COLOURS = {
    "official": "blue",
    "unofficial": "orange",
    "incomplete": "red",
    "nothing pruned": "gray",
    "synthetic": "gray",
    "random weights": "gray",
    "private": "violet",
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
    given = data.labels(database)
    rows = _filtered(address, everything, given)
    if not rows:
        st.info("No results match these filters.", icon=":material/filter_alt_off:")
    else:
        group = _choose_group(address, rows)
        _show_group(address, group, given)
        _show_layers(address, database, group)
        _show_details(group)
    with problems:
        address.show_problems()


def _filtered(address: Address, everything: Sequence[ArmRow], given: Mapping[str, Sequence[str]]) -> list[ArmRow]:
    """Draw the filters, and return the rows that pass them: of one track and one machine."""
    first, second, third, fourth = st.columns([2, 3, 1.6, 1.6], vertical_alignment="bottom")
    tracks = {name: family.title for name, family in FAMILIES.items() if any(row.track == name for row in everything)}
    with first:
        track = select(
            address, "track", "Track", tracks, what="track", fallback=next(iter(tracks)),
            forget=("machine", "group", "cost", "arm"),
        )  # fmt: skip
    here = [row for row in everything if row.track == track]
    machines = arm_tables.machines(here)
    with second:
        machine = select(
            address, "machine", "Machine", machines, what="machine", fallback=next(iter(machines)),
            explanation="Times of different machines do not compare, so that one is shown at a time.",
            forget=("group", "cost", "arm"),
        )  # fmt: skip
    with third:
        official = toggle(
            address, "official", "Official only",
            explanation="Official arms were audited, on real models, with enough prompts.",
        )  # fmt: skip
    with fourth:
        withdrawn = toggle(
            address, "retracted", "Show retracted", explanation="Results that were withdrawn, with the reason."
        )
    bears = select_label(address, {row.run: given.get(row.run, ()) for row in here})
    return [
        row for row in here
        if bears(row.run) and row.hardware_fingerprint == machine and (withdrawn or row.retracted is None)
        and (row.official or not official)
    ]  # fmt: skip


def _choose_group(address: Address, rows: Sequence[ArmRow]) -> list[ArmRow]:
    """The arms of one model on one set of tasks: the others do not compare."""
    groups = {"-".join(part[:8] for part in key[1:3]): group for key, group in arm_tables.groups(rows).items()}
    if len(groups) == 1:
        only = next(iter(groups))
        return groups[address.choice("group", groups, "model and tasks", only)]
    titles = {key: _title(group) for key, group in groups.items()}
    # The newest with something to compare: a page must not begin with one point.
    usual = max(groups, key=lambda key: (len(groups[key]) > 1, max(row.date for row in groups[key])))
    chosen = select(
        address, "group", "Model and tasks", titles, what="model and tasks", fallback=usual, forget=("cost", "arm")
    )
    return groups[chosen]


def _title(rows: Sequence[ArmRow]) -> str:
    first = rows[0]
    return f"{first.adapter}:{first.model} on {first.data}"


def _show_group(address: Address, rows: Sequence[ArmRow], given: Mapping[str, Sequence[str]]) -> None:
    first = rows[0]
    st.markdown(
        f"#### {figures.literal(f'{first.adapter}:{first.model}')} on {figures.literal(first.data)}",
        help=f"Data at revision {figures.literal(first.data_revision[:12])}; run {figures.literal(first.run)}.",
    )
    costs = arm_tables.costs(rows)
    if costs:
        metric = select(
            address, "cost", "Quality against", {key: axis.title for key, axis in costs.items()}, what="axis",
            fallback=next(iter(costs)),
        )  # fmt: skip
        _show_frontier(rows, costs[metric])
    if first.synthetic:
        st.info(
            "Synthetic: a small model that was trained for this. It shows that the plumbing is right and how methods "
            "order, never how real models behave, and nothing about speed.",
            icon=":material/science:",
        )
    if not ORIGINS[first.adapter].are_answers_real:
        st.info("Random weights of real shapes: times mean something, answers do not.", icon=":material/casino:")
    table = arm_tables.table(rows, given)
    st.dataframe(
        figures.cells(table),
        key=f"arms-{'-'.join(part[:8] for part in first.group)}",
        hide_index=True,
        height="content" if len(rows) <= _TABLE_ROWS else _TABLE_HEIGHT,
        placeholder=figures.ABSENT,
        column_config=_columns(),
        alt=f"Arms on {first.model}",
    )
    downloads.offer(f"arms of {_title(rows)}", table)
    cells = arm_tables.haystack(rows)
    if not cells.empty:
        st.markdown("##### A needle, by its depth and the length of the text")
        words = "How much of a needle each arm finds, by its depth and the length"
        downloads.draw("needles", words, charts.depth_and_length, cells)


def _show_frontier(rows: Sequence[ArmRow], axis: PlotAxis) -> None:
    """Quality against one cost, with the arm that people ask about first."""
    points = arm_tables.points(rows, axis)
    if len(points) < 2:
        st.caption("One arm alone has both a quality and this figure: there is nothing to hold it against.")
        return
    best = arm_tables.fastest_within(rows, axis)
    if best is not None and best.value(axis.metric) is not None:
        taken = f"{axis.title.partition(',')[0]} {arm_tables.measured(best, axis)}"
        near = f"within {100 * arm_tables.WITHIN:.0f} points of the baseline's quality"
        st.markdown(
            (
                f"Best of those {near}: "
                if arm_tables.gains(best, rows, axis)
                else f"Of those {near} none gains on the baseline; the best of them is "
            )
            + f"**{figures.literal(best.short_arm)}**, {taken}"
            + (", though its quality is shown to be worse." if best.is_worse else ".")
        )
    limit = arm_tables.floor(rows, axis)
    downloads.draw(
        f"quality against {axis.title}",
        f"Quality against {axis.title} of each arm with 95 % intervals, and the frontier",
        charts.frontier,
        points,
        axis.title,
        more_is_better=axis.more_is_better,
        floor=limit,
    )
    worse = [row.short_arm for row in rows if row.frontier and row.is_worse]
    st.caption(
        "Bright points and the grey step line are the frontier: no other arm is as good for less. Faded ones are "
        "beaten by one of them; bars are 95 % intervals."
        + (" The dashed line is the baseline's own work at the rates that the floor probe found." if limit else "")
        + (f" On the frontier, and shown to be worse than the baseline: {', '.join(map(figures.literal, worse))}."
           if worse else "")
    )  # fmt: skip


def _show_layers(address: Address, database: Database, rows: Sequence[ArmRow]) -> None:
    """What arms do in each layer: all of them side by side, and one with its modules and rankings."""
    told = data.diagnoses(database, [row.run for row in rows])
    names = dict(zip(((row.run, row.arm) for row in rows), arm_tables.labels(rows), strict=True))
    found = {names[key]: known for key, known in told.items() if key in names}
    if not found:
        return
    every = arm_tables.by_layer(found)
    single = {
        name: known
        for name, known in found.items()
        if not (arm_tables.by_module(known).empty and arm_tables.rankings(known).empty) or efficiency.layers_of(known)
    }
    if every.empty and not single:
        return
    st.subheader("Layer by layer", anchor=False)
    for measure, part in every.groupby("measure", sort=False):
        words, share = f"{measure} in each layer, an arm a line", bool(part["value"].max() <= 1)
        downloads.draw(f"{measure} by layer", words, charts.heat_map, part, "arm", share=share)
    if not single:
        return
    labels = {name: name for name in single}
    chosen = select(address, "arm", "Arm", labels, what="arm", fallback=next(iter(labels)))
    modules, rankings = arm_tables.by_module(single[chosen]), arm_tables.rankings(single[chosen])
    if not modules.empty:
        words = f"What {chosen} leaves out of each module of each layer"
        downloads.draw(f"modules of {chosen}", words, charts.heat_map, modules, "module", share=True)
    if not rankings.empty:
        words = f"What each ranking is worth in each layer, under {chosen}"
        downloads.draw(f"rankings under {chosen}", words, charts.rankings_by_layer, rankings)
    if layers := efficiency.layers_of(single[chosen]):
        _show_recipe(chosen, arm_tables.layers(layers))


def _show_recipe(arm: str, table: pd.DataFrame) -> None:
    """What an arm that was fitted does to each layer, in figures."""
    st.dataframe(
        figures.cells(table),
        key="recipe",
        hide_index=True,
        height="content" if len(table) <= _TABLE_ROWS else _TABLE_HEIGHT,
        placeholder=figures.ABSENT,
        column_config={
            "Kept": st.column_config.NumberColumn(
                format="percent", help="Mean share of the layer's channels that a decoded token kept."
            ),
            "Output error": st.column_config.NumberColumn(
                format="percent", help="Of the layer's output, in squares, on text that nothing was fitted on."
            ),
        },
        alt=f"Layers under {arm}",
    )
    downloads.offer(f"layers under {arm}", table)


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
                    markup.show(f"Retracted: {row.retracted}.")
                elif not row.official:
                    markup.show(f"Unofficial: {'; '.join(row.unofficial_reasons) or 'no reason recorded'}.")
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
        "Frontier": column.TextColumn(
            width=70,
            help="★: no other arm is as good for less, or better for as much. ★ worse: one of those, and its quality "
            "is shown to be worse than the baseline's.",
        ),
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
