"""The tables of work in progress: submissions and their parts, workers, machines, and what of a quota is reserved."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column

from vivace.store.columns import Message, now
from vivace.store.tables.base import Base

ENDED = ("complete", "incomplete", "failed", "cancelled")
"""What a submission's status is when it has ended."""


class Submission(Base):
    """A request to have a run executed and judged, here or by a worker."""

    __tablename__ = "submission"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), index=True)
    judging_id: Mapped[str | None] = mapped_column(ForeignKey("judging.id", ondelete="CASCADE"))
    spec: Mapped[dict[str, Any]]
    queue: Mapped[str | None]
    """The queue that workers take it from; null when the submitting process executes it itself."""
    status: Mapped[str] = mapped_column(String(16), index=True)
    """`queued`, `running`, `complete`, `incomplete`, `failed` or `cancelled`."""
    message: Mapped[str | None] = mapped_column(Message)
    """How it ended, in a sentence."""
    worker_id: Mapped[str | None]
    """Who began the last part of it."""
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    opened_at: Mapped[datetime | None]
    """When recordings were found to be heard and the first item had gone well, once for all parts."""
    submitter: Mapped[str] = mapped_column(default="", server_default=text("''"))
    """Whose turn it is when it is taken from a queue: submitters take turns."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class Shard(Base):
    """A part of a submission's work, which one worker at a time executes under a lease; often it is the whole."""

    __tablename__ = "shard"
    __table_args__ = (UniqueConstraint("submission_id", "number"),)

    id: Mapped[str] = mapped_column(String(48), primary_key=True)
    submission_id: Mapped[str] = mapped_column(ForeignKey("submission.id", ondelete="CASCADE"))
    number: Mapped[int]
    """From 1; the first one opens the run for the others."""
    first: Mapped[int | None]
    """Of the run's items, from 0; null where the shard is the whole."""
    last: Mapped[int | None]
    """Behind the last of its items."""
    timed: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether it takes its machine alone."""
    needs: Mapped[list[str]]
    """What a worker must have to take it."""
    status: Mapped[str] = mapped_column(String(16), index=True)
    """`waiting` until the first one has opened the run, `queued`, `running`, `complete`, `incomplete`, `failed` or
    `cancelled`."""
    worker_id: Mapped[str | None]
    workflow_id: Mapped[str | None]
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    lease_epoch: Mapped[int] = mapped_column(default=0)
    """Grows with every change of owner; a write under an old epoch is refused."""
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    recorded: Mapped[int] = mapped_column(default=0, server_default="0")
    """How much was recorded of it when a turn at it last came to nothing."""
    lost_workers: Mapped[list[str] | None]
    """Workers that stopped answering while they had it, since something of it was recorded."""
    unwritten: Mapped[int] = mapped_column(default=0, server_default="0")
    """Turns whose results could not be written, since something of it was recorded."""


class Worker(Base):
    """A process that executes runs, and its last sign of life."""

    __tablename__ = "worker"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    host: Mapped[str]
    """Host name, boot and process namespace: where its process number means something."""
    pid: Mapped[int]
    process_started: Mapped[float]
    """Start time of the process, so that a reused process number is not taken for it."""
    machine: Mapped[str] = mapped_column(String(64), default="", server_default=text("''"))
    """What is shared with others when something is measured there, containers or not."""
    queues: Mapped[list[str]]
    offers: Mapped[dict[str, Any] | None]
    """What it has that runs may need."""
    drain_asked_at: Mapped[datetime | None]
    """When it was asked to end once what it executes has ended."""
    lease_seconds: Mapped[float]
    started_at: Mapped[datetime] = mapped_column(default=now)
    heartbeat_at: Mapped[datetime] = mapped_column(default=now)
    stopped_at: Mapped[datetime | None]


class Machine(Base):
    """A machine on which something is measured, or waits for what else runs there to end."""

    __tablename__ = "machine"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    """What tells it from others as long as it is not started anew."""
    awaited_by: Mapped[str | None]
    """The shard that is to have it next, alone."""
    awaited_until: Mapped[datetime | None]
    """Until when that counts unless it is said again."""


class Reservation(Base):
    """A part of a quota that a worker has taken for the calls it is about to make."""

    __tablename__ = "reservation"
    __table_args__ = (Index("ix_reservation_quota", "quota", "expires_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    quota: Mapped[str]
    """The run, and what is bounded: `RUN:model:requests`."""
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), index=True)
    worker_id: Mapped[str]
    amount: Mapped[float]
    """What was taken; what came back unused is taken off."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]
    """From then on it no longer counts, whatever has become of the worker."""
