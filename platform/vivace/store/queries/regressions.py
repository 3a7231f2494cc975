"""What readers ask of regression jobs: how each stands, its series of figures, its alerts and what became of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from vivace.store.database import Database
from vivace.store.tables import Alert, Delivery, Night, Regression, Schedule

SPEEDS = ("throughput", "first_token", "machine")
"""Metrics whose values are logarithms of speeds."""
TITLES = {
    "apr": "APR",
    "ars": "ARS",
    "quality": "quality",
    "throughput": "speed",
    "first_token": "speed to the first token",
    "machine": "the baseline arm's own speed",
}
CAUSES = {
    "model": "the model or the code",
    "judge": "the judge",
    "machine": "the machine",
    "data": "the data",
}
"""Cause → as people read it."""
NIGHTS_SHOWN = 400


@dataclass(frozen=True)
class FigureView:
    """One figure of one night beside its baseline."""

    stage: str
    metric: str
    slice: str
    value: float
    baseline: float
    low: float | None
    high: float | None
    p_value: float
    n: int
    worse: int
    better: int
    shown: bool

    @property
    def title(self) -> str:
        """What it is, in words."""
        return title(self.metric, self.slice)

    @property
    def value_text(self) -> str:
        """The value as people read it."""
        return value_text(self.metric, self.value)

    @property
    def difference_text(self) -> str:
        """The difference with its interval, in points or per cent."""
        return difference_text(self.metric, self.value - self.baseline, self.low, self.high)

    def as_json(self) -> dict[str, Any]:
        """The fields, with the difference."""
        return {**vars(self), "difference": self.value - self.baseline}


def title(metric: str, part: str) -> str:
    """A figure's name, in words."""
    return f"{TITLES.get(metric, metric)}{f' {part}' if part else ''}"


def value_text(metric: str, value: float) -> str:
    """A figure as people read it: a share in per cent, a speed beside the baseline arm's as a ratio."""
    if metric == "machine":
        return f"{math.exp(value):.3g} tokens/s"
    return f"× {math.exp(value):.3f}" if metric in SPEEDS else f"{100 * value:.1f} %"


def difference_text(metric: str, value: float, low: float | None, high: float | None) -> str:
    """A difference of a figure as people read it: points of a share, per cent of a speed."""

    def shown(number: float) -> str:
        return f"{100 * (math.expm1(number) if metric in SPEEDS else number):+.1f}".replace("-", "−")

    interval = "" if low is None or high is None else f" [{shown(low)}, {shown(high)}]"
    return f"{shown(value)} {'%' if metric in SPEEDS else 'points'}{interval}"


@dataclass(frozen=True)
class NightView:
    """One night of a job."""

    id: str
    due_at: datetime | None
    status: str
    outcome: str | None
    in_window: bool
    runs: list[dict[str, Any]]
    baseline: list[str]
    causes: list[str]
    message: str | None
    worker: str | None
    at: datetime
    """When it was due, or was asked for."""
    figures: tuple[FigureView, ...]

    def as_json(self) -> dict[str, Any]:
        """The fields with times in ISO 8601."""
        return {**_with_times(vars(self)), "figures": [figure.as_json() for figure in self.figures]}


@dataclass(frozen=True)
class AlertView:
    """One alert of a job, with what became of its messages."""

    id: int
    kind: str
    night: str
    message: str
    causes: list[str]
    at: datetime
    last_seen_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    ended_at: datetime | None
    end_reason: str | None
    deliveries: list[dict[str, Any]]

    @property
    def state(self) -> str:
        """`open`, `acknowledged` or `ended`."""
        if self.ended_at is not None:
            return "ended"
        return "open" if self.acknowledged_at is None else "acknowledged"

    def as_json(self) -> dict[str, Any]:
        """The fields with times in ISO 8601."""
        return {**_with_times(vars(self)), "state": self.state}


@dataclass(frozen=True)
class JobView:
    """A job as it stands, with its nights from the oldest of those shown to the newest."""

    name: str
    track: str
    model: str
    baseline: str
    gates: Mapping[str, float]
    cron: str | None
    time_zone: str
    queue: str
    owner: str | None
    webhook: str | None
    email: list[str]
    next_due_at: datetime | None
    paused_at: datetime | None
    muted_until: datetime | None
    made: int
    """Nights that there are in all, besides those that were skipped."""
    nights: tuple[NightView, ...]
    alerts: tuple[AlertView, ...]
    """The newest first."""

    @property
    def state(self) -> str:
        """`regressed` or `incident` while such an alert is open, `running`, `paused`, `new`, else `quiet`."""
        kinds = {alert.kind for alert in self.alerts if alert.ended_at is None}
        for kind, state in (("regression", "regressed"), ("incident", "incident")):
            if kind in kinds:
                return state
        if any(night.status != "ended" for night in self.nights):
            return "running"
        if self.paused_at is not None:
            return "paused"
        return "quiet" if any(night.outcome == "accepted" for night in self.nights) else "new"

    @property
    def last_night(self) -> NightView | None:
        """The newest night that has ended and was made."""
        made = (night for night in reversed(self.nights) if night.status == "ended" and night.outcome != "skipped")
        return next(made, None)

    @property
    def window(self) -> set[str]:
        """The runs that the newest night was held against."""
        last = next((night for night in reversed(self.nights) if night.baseline), None)
        return set() if last is None else set(last.baseline)

    def series(self) -> dict[tuple[str, str], list[tuple[NightView, FigureView]]]:
        """(metric, slice) → each night's first run, in the order of time."""
        found: dict[tuple[str, str], list[tuple[NightView, FigureView]]] = defaultdict(list)
        for night in self.nights:
            for figure in night.figures:
                if figure.stage == "gate":
                    found[figure.metric, figure.slice].append((night, figure))
        return dict(found)

    def as_json(self) -> dict[str, Any]:
        """All of it, with times in ISO 8601."""
        parts = {name: [one.as_json() for one in getattr(self, name)] for name in ("nights", "alerts")}
        return {
            **_with_times(vars(self)),
            **parts,
            "gates": dict(self.gates),
            "state": self.state,
        }


def jobs(database: Database, name: str | None = None, *, nights: int = NIGHTS_SHOWN) -> list[JobView]:
    """Every job, or the one of a name, with its newest nights and alerts."""
    with database.read() as session:
        query = select(Schedule).order_by(Schedule.name)
        if name is not None:
            query = query.where(Schedule.name == name)
        return [_job(session, row, nights) for row in session.scalars(query).all()]


@dataclass(frozen=True)
class NightlyRuns:
    """The runs of jobs as boards show them: of each job the newest accepted one; the others say the same again."""

    left_out: frozenset[str]
    marks: Mapping[str, str]
    """Run that is shown → its job, and that it is worse by now, if it is."""


def nightly_runs(session: Session) -> NightlyRuns:
    """Which runs boards leave out, and what they say of the others that are a job's."""
    worse = set(
        session.scalars(select(Alert.schedule_id).where(Alert.kind == "regression", Alert.ended_at.is_(None)))
    )
    query = select(Schedule.id, Schedule.name, Night.in_window, Night.runs).join(Night)
    rows = session.execute(query.order_by(Night.created_at.desc(), Night.id)).all()
    every = {run["run"] for row in rows for run in row.runs}
    shown: dict[int, tuple[str, str]] = {}
    for accepted in (True, False):  # a job without an accepted night is shown by its newest one
        for key, name, in_window, runs in rows:
            if runs and in_window is accepted:
                shown.setdefault(key, (runs[0]["run"], name))
    marks = {run: f"job {name}{': worse now' if key in worse else ''}" for key, (run, name) in shown.items()}
    return NightlyRuns(frozenset(every - marks.keys()), marks)


def _job(session: Session, row: Schedule, limit: int) -> JobView:
    # Of the ticks that made no night there may be any number, which must not hide the nights that were made.
    is_skipped = Night.outcome.is_not_distinct_from("skipped")
    nights = [
        night
        for which in (~is_skipped, is_skipped)
        for night in session.scalars(
            select(Night)
            .where(Night.schedule_id == row.id, which)
            .order_by(Night.created_at.desc(), Night.id)
            .limit(limit)
        )
    ]
    nights.sort(key=lambda night: night.created_at)
    figures: dict[str, list[FigureView]] = defaultdict(list)
    ids = [night.id for night in nights]
    for one in session.scalars(select(Regression).where(Regression.night_id.in_(ids)).order_by(Regression.id)):
        figures[one.night_id].append(
            FigureView(**{name: getattr(one, name) for name in FigureView.__dataclass_fields__})
        )
    alerts = session.scalars(
        select(Alert).where(Alert.schedule_id == row.id).order_by(Alert.id.desc()).limit(50)
    ).all()
    sent: dict[int, list[dict[str, Any]]] = defaultdict(list)
    of_alerts = Delivery.alert_id.in_([alert.id for alert in alerts])
    for delivery in session.scalars(select(Delivery).where(of_alerts).order_by(Delivery.id)):
        told = {name: getattr(delivery, name) for name in ("channel", "target", "text", "state", "tries", "error")}
        sent[delivery.alert_id].append({**told, "sent_at": _iso(delivery.sent_at)})
    fields = ("name", "baseline", "gates", "cron", "time_zone", "queue", "owner", "webhook", "email", "next_due_at",
              "paused_at", "muted_until")  # fmt: skip
    return JobView(
        track=str(row.spec["track"]),
        model=str(row.spec["model"]),
        made=session.scalar(select(func.count()).where(Night.schedule_id == row.id, ~is_skipped)) or 0,
        nights=tuple(_night(night, figures[night.id]) for night in nights),
        alerts=tuple(_alert(alert, sent[alert.id]) for alert in alerts),
        **{name: getattr(row, name) for name in fields},
    )


def _night(row: Night, figures: Sequence[FigureView]) -> NightView:
    fields = ("id", "due_at", "status", "outcome", "in_window", "runs", "baseline", "causes", "message")
    return NightView(
        **{name: getattr(row, name) for name in fields},
        worker=row.worker_id,
        at=row.due_at or row.created_at,
        figures=tuple(figures),
    )


def _alert(row: Alert, deliveries: list[dict[str, Any]]) -> AlertView:
    fields = ("id", "kind", "message", "causes", "last_seen_at", "acknowledged_at", "acknowledged_by", "ended_at",
              "end_reason")  # fmt: skip
    return AlertView(
        **{name: getattr(row, name) for name in fields}, night=row.night_id, at=row.created_at, deliveries=deliveries
    )


def _iso(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat()


def _with_times(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in values.items()}
