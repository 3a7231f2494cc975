"""Regression jobs: how each stands, the series of its figures with window, steps and alerts, and why it is worse."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from vivace.analysis.trends import trend
from vivace.store.queries.regressions import SPEEDS, JobView, title
from vivace_app import data, downloads, figures, markup
from vivace_app.address import Address, select
from vivace_app.plots import charts
from vivace_app.tables import job_tables

POSITION = 50
"""Among the pages, from the left."""
_ICONS = {
    "regressed": ":material/trending_down:",
    "incident": ":material/error:",
    "running": ":material/autorenew:",
    "paused": ":material/pause:",
    "quiet": ":material/check_circle:",
    "new": ":material/fiber_new:",
}


def page() -> st.Page:
    """Where this page lives."""
    return st.Page(show, title="Regressions", icon=":material/monitoring:", url_path="regressions")


def show() -> None:
    """Draw the page."""
    st.title("Regressions", anchor=False)
    st.caption(
        "Jobs that run by themselves. A night is held against the mean of the last accepted ones; what seems worse "
        "is run twice again, and only what these runs confirm is an alert."
    )
    database = data.database()
    jobs = data.jobs(database) if database else []
    if not jobs:
        st.info("There are no regression jobs yet.", icon=":material/schedule:")
        st.code("vivace regress add --help", language=None, wrap_lines=True)
        return
    address = Address()
    problems = st.container()
    names = {job.name: f"{job.name}: {job.state}" for job in jobs}
    chosen = select(
        address, "job", "Job", names, what="job", fallback=_first(jobs), forget=("figure", "night"),
    )  # fmt: skip
    job = next(one for one in jobs if one.name == chosen)
    _show_state(job)
    _show_series(address, job)
    _show_nights(address, job)
    _show_alerts(job)
    with problems:
        address.show_problems()


def _first(jobs: Sequence[JobView]) -> str:
    """The job that is looked at first: one that is worse, where there is one."""
    order = list(_ICONS)
    return min(jobs, key=lambda job: order.index(job.state)).name


def _show_state(job: JobView) -> None:
    alert = next((one for one in job.alerts if one.ended_at is None), None)
    if alert is not None and alert.kind == "regression":
        st.error("This job is worse, confirmed by fresh runs.", icon=_ICONS["regressed"])
    elif alert is not None:
        st.warning("An incident, which says nothing about quality.", icon=_ICONS["incident"])
    else:
        st.success(f"This job is {job.state}.", icon=_ICONS[job.state])
    if alert is not None:
        markup.show(alert.message)
    due = "when asked to" if job.cron is None else f"{job.cron} ({job.time_zone})"
    when = "" if job.next_due_at is None else f", next {job.next_due_at:%Y-%m-%d %H:%M} UTC"
    markup.show(
        f"{job.model} on {job.track}, against {job.baseline}; {due}{when}{f'; {job.owner}' if job.owner else ''}"
    )


def _show_series(address: Address, job: JobView) -> None:
    names = {f"{metric}/{part}": title(metric, part) for metric, part in job.series()}
    if not names:
        st.info("No night has been held against another yet.", icon=":material/hourglass_empty:")
        return
    chosen = select(address, "figure", "Figure", names, what="figure", fallback=next(iter(names)))
    metric, _, part = chosen.partition("/")
    frame = job_tables.series(job, metric, part)
    steps = trend(job)
    is_share = metric not in SPEEDS
    downloads.draw(
        f"{names[chosen]} of {job.name}",
        f"{names[chosen]} night by night, with window, steps and alerts",
        charts.nights,
        frame,
        job_tables.levels(frame, steps, metric, part),
        job_tables.alerts(job),
        names[chosen],
        job_tables.STATES,
        is_share=is_share,
    )
    st.caption(
        "Points: each night's first run, with the 95 % interval of its difference from the baseline (dashed). Thick "
        "lines: the levels between steps of the whole series. Upright lines: alerts."
    )
    for step in steps:
        if (step.metric, step.slice) == (metric, part):
            markup.show(f"Step on {step.at:%Y-%m-%d %H:%M}: {step.text}")


def _show_nights(address: Address, job: JobView) -> None:
    if not job.nights:
        return
    st.subheader("Nights", anchor=False)
    nights = job_tables.nights(job)
    st.dataframe(
        figures.cells(nights), key="nights", hide_index=True, placeholder=figures.ABSENT,
        column_config={
            "Night": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm", pinned=True),
            "Window": st.column_config.CheckboxColumn(help="Whether the newest night was held against it."),
        },
        alt="Nights of the job, the newest first",
    )  # fmt: skip
    downloads.offer(f"nights of {job.name}", nights)
    with_figures = [night for night in reversed(job.nights) if night.figures]
    if not with_figures:
        return
    labels = {night.id: f"{night.at:%Y-%m-%d %H:%M}: {night.outcome}" for night in with_figures}
    usual = next((night.id for night in with_figures if night.outcome == "regressed"), with_figures[0].id)
    chosen = select(address, "night", "A night's figures", labels, what="night", fallback=usual)
    night = next(one for one in with_figures if one.id == chosen)
    markup.show(night.message or "")
    frame = job_tables.parts(night)
    st.dataframe(
        figures.cells(frame), key="parts", hide_index=True,
        column_config={"p": st.column_config.NumberColumn(format="%.2g", help="One-sided, of a worsening.")},
        alt="The night's figures beside its baseline, and what the causes show",
    )  # fmt: skip
    downloads.offer(f"figures of the night {night.id}", frame)
    causes = job_tables.causes(night)
    if not causes.empty:
        words = "What the change is made of, with 95 % intervals"
        downloads.draw(f"causes of the night {night.id}", words, charts.causes, causes)


def _show_alerts(job: JobView) -> None:
    if not job.alerts:
        return
    st.subheader("Alerts", anchor=False)
    alerts = job_tables.messages(job)
    st.dataframe(
        figures.cells(alerts), key="alerts", hide_index=True, placeholder=figures.ABSENT,
        column_config={
            name: st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm") for name in ("Raised", "Last seen")
        },
        alt="Alerts of the job with what became of their messages",
    )  # fmt: skip
    downloads.offer(f"alerts of {job.name}", alerts)
