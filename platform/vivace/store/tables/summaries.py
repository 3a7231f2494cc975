"""What pages show that is a sum over many verdicts: scores in parts and gaps, written when a judging ends."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from vivace.store.columns import Name, Values
from vivace.store.tables.base import Base


class Breakdown(Base):
    """The figures of some of a judging's conversations that are alike."""

    __tablename__ = "breakdown"
    __table_args__ = (UniqueConstraint("judging_id", "by", "axis", "position"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    judging_id: Mapped[str] = mapped_column(ForeignKey("judging.id", ondelete="CASCADE"))
    by: Mapped[str] = mapped_column(String(16))
    """What makes the slices: `axis`, `turns`, `seconds` or `speaker`."""
    axis: Mapped[str]
    """Of which axis' conversations the slices are made; empty for all."""
    slice: Mapped[str] = mapped_column(Name)
    position: Mapped[int]
    """Its place among the slices, from 0."""
    place: Mapped[float | None]
    """Where it lies on a number line; null off it."""
    conversations: Mapped[int]
    replies: Mapped[int]
    """Wholly scored replies to them, which APR is made of."""
    coverage: Mapped[float | None]
    apr: Mapped[float | None]
    apr_low: Mapped[float | None]
    apr_high: Mapped[float | None]
    ars: Mapped[float | None]
    ars_low: Mapped[float | None]
    ars_high: Mapped[float | None]


class Gap(Base):
    """One score of a judging of replies through audio less that of one through text, on the same conversations."""

    __tablename__ = "gap"
    __table_args__ = (UniqueConstraint("text_id", "audio_id", "metric"), Index("ix_gap_audio_id", "audio_id"))

    id: Mapped[int] = mapped_column(primary_key=True)
    text_id: Mapped[str] = mapped_column(ForeignKey("judging.id", ondelete="CASCADE"))
    audio_id: Mapped[str] = mapped_column(ForeignKey("judging.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(16))
    """`hearing`, `ear` or `speaking`."""
    metric: Mapped[str] = mapped_column(String(16))
    a: Mapped[float]
    b: Mapped[float]
    low: Mapped[float | None]
    high: Mapped[float | None]
    p_value: Mapped[float | None]
    detectable: Mapped[float | None]
    n: Mapped[int]
    gained: Mapped[int]
    lost: Mapped[int]
    ear: Mapped[dict[str, Any] | None] = mapped_column(Values())
    """Of an ear's gap: its word error rate, and the criteria that fell with what was misheard."""
