"""The tables of scheduled regression jobs: the jobs, their nights, what each night's figures say, and the alerts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from vivace.store.columns import Message, Name, Values, now
from vivace.store.tables.base import Base


class Schedule(Base):
    """A regression job: a run that is made again and again, and what it is held against."""

    __tablename__ = "schedule"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Name, unique=True)
    spec: Mapped[dict[str, Any]]
    """Of the run that each night makes."""
    baseline: Mapped[str] = mapped_column(Name)
    """`window`, `window:N`, `last`, or a run's id."""
    gates: Mapped[dict[str, Any]]
    """Gate → the worsening that nobody minds."""
    cron: Mapped[str | None] = mapped_column(Name)
    """Null for a job that runs when it is asked to."""
    time_zone: Mapped[str] = mapped_column(Name)
    queue: Mapped[str] = mapped_column(Name)
    owner: Mapped[str | None] = mapped_column(Name)
    webhook: Mapped[str | None] = mapped_column(Name)
    """An address without secrets, or `env:` and the variable that holds it."""
    email: Mapped[list[str]]
    next_due_at: Mapped[datetime | None]
    """The tick that is fired next; whoever moves it on has fired it."""
    paused_at: Mapped[datetime | None]
    muted_until: Mapped[datetime | None]
    window_from: Mapped[datetime | None]
    """Nights before this are in no window: a newer one was accepted as the baseline."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class Night(Base):
    """One time that a job was due, or was run by hand: its runs, and what came of them."""

    __tablename__ = "night"
    __table_args__ = (
        UniqueConstraint("schedule_id", "due_at"),
        Index("ix_night_schedule_id_created_at", "schedule_id", "created_at"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    schedule_id: Mapped[int] = mapped_column(ForeignKey("schedule.id", ondelete="CASCADE"))
    due_at: Mapped[datetime | None]
    """The tick that fired it; null where it was asked for by hand."""
    queue: Mapped[str | None] = mapped_column(Name)
    """The queue that workers take it from; null where the process that fired it conducts it."""
    status: Mapped[str] = mapped_column(String(16), index=True)
    """`queued`, `running` or `ended`."""
    outcome: Mapped[str | None] = mapped_column(String(16))
    """`accepted`, `regressed`, `incident` or `skipped`; null while it has not ended."""
    in_window: Mapped[bool] = mapped_column(default=False)
    """Whether later nights may be held against it."""
    runs: Mapped[list[dict[str, Any]]] = mapped_column(Values())
    """Stage (`gate` or `confirm`), run, judging and submission of each run, in the order in which they were made."""
    baseline: Mapped[list[str]]
    """The runs that it was held against."""
    causes: Mapped[list[str]]
    """Of a regression: `model`, `judge`, `machine`, `data`."""
    message: Mapped[str | None] = mapped_column(Message)
    """How it ended, in a sentence or two."""
    workflow_id: Mapped[str | None]
    worker_id: Mapped[str | None]
    deaths: Mapped[int] = mapped_column(default=0)
    """Workers that stopped answering while they conducted it."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


NIGHT = "n"
"""How a night's id begins, so that it is never a submission's."""


def is_night(identifier: str) -> bool:
    """Whether an id of something that is queued is a night's."""
    return identifier.startswith(NIGHT)


class Regression(Base):
    """One figure of one night beside its baseline, with the test that says whether it is worse."""

    __tablename__ = "regression"
    __table_args__ = (UniqueConstraint("night_id", "stage", "metric", "slice"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    night_id: Mapped[str] = mapped_column(ForeignKey("night.id", ondelete="CASCADE"))
    stage: Mapped[str] = mapped_column(String(16))
    """`gate`, `confirm`, or a part of a confirmed change: `judge`, `rest`, `machine`, `data`, `same-data`."""
    metric: Mapped[str]
    slice: Mapped[str] = mapped_column(Name, default="")
    """Empty for the whole, else the axis or the arm."""
    value: Mapped[float]
    baseline: Mapped[float]
    low: Mapped[float | None]
    """Of the 95 % interval of value − baseline."""
    high: Mapped[float | None]
    p_value: Mapped[float]
    """One-sided, of a worsening beyond the job's tolerance."""
    n: Mapped[int]
    worse: Mapped[int]
    better: Mapped[int]
    shown: Mapped[bool]
    """Whether the gate has flagged it, the fresh runs have confirmed it, or the part is shown to be worse."""


class Alert(Base):
    """What a job's people are told, from the night that raised it to what ended it."""

    __tablename__ = "alert"

    id: Mapped[int] = mapped_column(primary_key=True)
    schedule_id: Mapped[int] = mapped_column(ForeignKey("schedule.id", ondelete="CASCADE"), index=True)
    night_id: Mapped[str] = mapped_column(ForeignKey("night.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(16))
    """`regression` or `incident`."""
    message: Mapped[str] = mapped_column(Message)
    causes: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(default=now)
    last_seen_at: Mapped[datetime] = mapped_column(default=now)
    """When a night last found the same."""
    acknowledged_at: Mapped[datetime | None]
    acknowledged_by: Mapped[str | None] = mapped_column(Name)
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None] = mapped_column(Message)


class Delivery(Base):
    """One message on its way to one place, kept with its state until it has arrived or is given up."""

    __tablename__ = "delivery"

    id: Mapped[int] = mapped_column(primary_key=True)
    alert_id: Mapped[int] = mapped_column(ForeignKey("alert.id", ondelete="CASCADE"), index=True)
    channel: Mapped[str] = mapped_column(String(16))
    """`webhook` or `email`."""
    target: Mapped[str] = mapped_column(Message)
    text: Mapped[str] = mapped_column(Message)
    state: Mapped[str] = mapped_column(String(16), index=True)
    """`pending`, `sent` or `failed`."""
    tries: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None] = mapped_column(Message)
    created_at: Mapped[datetime] = mapped_column(default=now)
    sent_at: Mapped[datetime | None]
