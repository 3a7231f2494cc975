"""The tables of comparisons of inference methods: arms, their trials, and what they did in each layer."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, UniqueConstraint, false
from sqlalchemy.orm import Mapped, mapped_column

from vivace.store.columns import Name, now
from vivace.store.tables.base import Base


class Arm(Base):
    """One method in a comparison of an efficiency run."""

    __tablename__ = "arm"
    __table_args__ = (UniqueConstraint("run_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(Name)
    """As it is written: the method with its settings, and what was fitted for it."""
    method: Mapped[str] = mapped_column(Name)
    settings: Mapped[dict[str, Any]]
    fitted: Mapped[str | None] = mapped_column(Name)
    """Where that which was fitted lies; null where nothing is."""
    position: Mapped[int] = mapped_column(default=0, server_default="0")
    """Its place among the run's arms, from 0."""
    baseline: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether the run's other arms are compared with this one."""
    official: Mapped[bool] = mapped_column(default=False, server_default=false())
    unofficial_reasons: Mapped[list[str] | None]
    ended_at: Mapped[datetime | None]
    """When its scores were computed from all of its trials; null while some are missing."""


class Diagnosis(Base):
    """What an arm does in one layer of the model, over all of its trials; heat maps are drawn of these rows."""

    __tablename__ = "diagnosis"
    __table_args__ = (UniqueConstraint("arm_id", "kind", "layer", "setting"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    arm_id: Mapped[int] = mapped_column(ForeignKey("arm.id", ondelete="CASCADE"))
    kind: Mapped[str]
    """What the figure is: `kept_channels`, `ratio`, `threshold`, …"""
    layer: Mapped[str] = mapped_column(Name)
    setting: Mapped[str] = mapped_column(Name)
    """What else it depends on, as the criterion of a threshold; empty where it is nothing."""
    value: Mapped[float]
    n: Mapped[int]
    """Observations that it is the mean of; 0 of what was set."""


class Trial(Base):
    """One timed generation of one arm."""

    __tablename__ = "trial"
    __table_args__ = (UniqueConstraint("arm_id", "prompt", "repetition"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    arm_id: Mapped[int] = mapped_column(ForeignKey("arm.id", ondelete="CASCADE"))
    prompt: Mapped[str]
    repetition: Mapped[int]
    ttft_s: Mapped[float | None]
    total_s: Mapped[float | None]
    output_tokens: Mapped[int | None]
    measurements: Mapped[dict[str, Any]]
    """`trial`: all that the stopwatch saw; `answer` and `quality`: what it said, and how good it is from 0 to 1;
    `diagnoses`: what it did in each layer, as kind, layer, setting, value and n."""
    unscored_reason: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=now)
