"""The tables of work in progress: parts of submissions, machines that measure, and what of a quota is reserved."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint, false
from sqlalchemy.orm import Mapped, mapped_column

from vivace.store.columns import now
from vivace.store.tables import Base as Base


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
