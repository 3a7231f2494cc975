"""Runs: what waits and what is worked on, by whom, what failed and why, and what made each of them."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from vivace.store.queries.runs import RunView
from vivace_app import data, downloads, figures, markup, notices
from vivace_app.address import Address, select
from vivace_app.tables import run_tables
from vivace_app.viewer import told, told_table

POSITION = 60
"""Among the pages, from the left."""
_EVERY = 5
"""Seconds after which the queue is looked at again, while the page is open."""
_ROWS = 12
_HEIGHT = 440
"""In pixels, for tables with more rows than that; the rest scrolls."""
_NONE = "none"
_TIME = "YYYY-MM-DD HH:mm:ss"


def page() -> st.Page:
    """Where this page lives."""
    return st.Page(show, title="Runs", icon=":material/deployed_code_history:", url_path="runs")


def show() -> None:
    """Draw the page."""
    st.title("Runs", anchor=False)
    st.caption(
        "What waits and what is worked on, and of each run what failed, what made it, and why it is unofficial."
    )
    database = data.database()
    found = data.newest_runs(database) if database else []
    if database is None or not found:
        notices.nothing_yet()
        return
    _show_live()
    st.subheader("Newest runs", anchor=False)
    table = told_table(run_tables.runs(found))
    st.dataframe(
        figures.cells(table.dropna(axis="columns", how="all")), key="runs", hide_index=True,
        placeholder=figures.ABSENT, height=_HEIGHT if len(found) > _ROWS else "content",
        column_config={
            "Run": st.column_config.TextColumn(pinned=True, help="As far as `vivace` needs it."),
            "Official": st.column_config.TextColumn(help="Once a judging, or its arms, have ended."),
            "Made": st.column_config.DatetimeColumn(format=_TIME),
        },
        alt="The newest runs",
    )  # fmt: skip
    downloads.offer("runs", table)
    address = Address()
    problems = st.container()
    names = {one.run: f"{one.short}: {one.model} on {one.track}, {one.status}" for one in found}
    chosen = select(address, "run", "Run", names, what="run", fallback=found[0].run, forget=("other",))
    _show_run(address, next(one for one in found if one.run == chosen), names)
    with problems:
        address.show_problems()


@st.fragment(run_every=_EVERY)
def _show_live() -> None:
    """The queue and the workers, looked at again and again, by themselves: what goes wrong is caught here."""
    with notices.what_went_wrong():
        _draw_live()


def _draw_live() -> None:
    database = data.database()
    if database is None:
        return
    waiting, workers = data.live(database)
    running = sum(one.status == "running" for one in waiting)
    alive = sum(one.health == "alive" for one in workers)
    st.text(f"{running} running, {len(waiting) - running} waiting, {alive} workers alive")
    if waiting:
        queue = told_table(run_tables.queue(waiting))
        st.dataframe(
            figures.cells(queue), key="queue", hide_index=True, placeholder=figures.ABSENT,
            column_config={"Done": st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1)},
            alt="What is worked on and what waits",
        )  # fmt: skip
        downloads.offer("queue", queue)
    if workers:
        serving = run_tables.workers(workers)
        st.dataframe(
            figures.cells(serving), key="workers", hide_index=True, placeholder=figures.ABSENT,
            column_config={"Since": st.column_config.DatetimeColumn(format=_TIME)},
            alt="Workers with their last sign of life",
        )  # fmt: skip
        downloads.offer("workers", serving)


def _show_run(address: Address, run: RunView, names: dict[str, str]) -> None:
    database = data.database()
    if database is None:
        return
    if run.message:
        markup.show(told(f"{run.status}: {run.message}"))
    if run.retracted is not None:
        markup.show(f"Retracted: {run.retracted}")
    _show_why_not(run)
    failed = told_table(run_tables.failed(data.what_failed(database, run.run)))
    if not failed.empty:
        st.subheader("What failed", anchor=False)
        st.dataframe(
            figures.cells(failed), key="failed", hide_index=True, placeholder=figures.ABSENT,
            alt="Failed calls, replies and trials by reason",
        )  # fmt: skip
        downloads.offer(f"failures {run.short}", failed)
    lines = told_table(run_tables.lines(data.run_log(database, run.run, run_tables.LINES)))
    if not lines.empty:
        st.subheader("Log", anchor=False)
        st.dataframe(
            figures.cells(lines), key="log", hide_index=True, height=_HEIGHT if len(lines) > _ROWS else "content",
            column_config={"At": st.column_config.DatetimeColumn(format=_TIME)}, alt="The log, the newest line first",
        )  # fmt: skip
        downloads.offer(f"log {run.short}", lines)
    st.subheader("What made it", anchor=False)
    others = {_NONE: "Nothing: show all"} | {key: name for key, name in names.items() if key != run.run}
    other = select(address, "other", "Compare with", others, what="run", fallback=_NONE)
    mine = data.run_manifest(database, run.run)
    # What differs is found before anything is left out of it.
    table = told_table(run_tables.manifest(mine, None if other == _NONE else data.run_manifest(database, other)))
    if table.empty:
        st.info("The two were made in the same way.", icon=":material/equal:")
        return
    st.dataframe(
        figures.cells(table), key="manifest", hide_index=True, placeholder=figures.ABSENT,
        height=_HEIGHT if len(table) > _ROWS else "content",
        alt="What made the run" if other == _NONE else "Where what made the two runs differs",
    )  # fmt: skip
    downloads.offer(f"manifest {run.short}", table)


def _show_why_not(run: RunView) -> None:
    if run.official:
        st.success("This run is official.", icon=":material/verified:")
        return
    if not run.why_not:
        st.info("Nothing of this run has ended yet, so nothing of it can be official.", icon=":material/hourglass:")
        return
    st.warning("This run is not official:", icon=":material/info:")
    for reasons, of in _alike(run.why_not).items():
        markup.show(f"{of}: {'; '.join(reasons)}")


def _alike(why_not: dict[str, list[str]]) -> dict[tuple[str, ...], str]:
    """Reasons → the judgings or arms that they are of."""
    found: dict[tuple[str, ...], list[str]] = {}
    for name, reasons in why_not.items():
        found.setdefault(tuple(reasons), []).append(name)
    return {reasons: _listed(names) for reasons, names in found.items()}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
