"""The tables of what other evaluation tools measured: a row for each score of each evaluation, and its samples."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from vivace.store.columns import Name, Words, now
from vivace.store.tables.base import Base


class ForeignResult(Base):
    """One score of one evaluation by another tool: what the tool says, and what its samples say."""

    __tablename__ = "foreign_result"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    """`x` and the beginning of a SHA-256 of all that was imported, so that the same thing twice is one row."""
    tool: Mapped[str] = mapped_column(Name)
    tool_version: Mapped[str] = mapped_column(Name)
    task: Mapped[str] = mapped_column(Name)
    task_version: Mapped[str] = mapped_column(Name)
    data: Mapped[str] = mapped_column(Name)
    model: Mapped[str] = mapped_column(Name)
    score: Mapped[str] = mapped_column(Name)
    """As the tool names it, with its filter or field."""
    more_is_better: Mapped[bool | None]
    made_at: Mapped[datetime | None]
    """When it was evaluated, as the file says."""
    settings: Mapped[dict[str, Any]]
    reported: Mapped[dict[str, Any]]
    """The tool's own figures of this score by its names: the metric's first, perhaps `stderr`, `low` and `high`."""
    notes: Mapped[list[str]]
    planned: Mapped[int | None]
    """Tries; null where the file does not say."""
    scored: Mapped[int | None]
    unscored: Mapped[dict[str, Any]]
    """Reason → tries without a score."""
    samples: Mapped[int]
    """Those that are stored; 0 where the file had figures alone."""
    independent: Mapped[bool]
    """Whether its samples are, so that their spread tells an interval."""
    value: Mapped[float | None]
    """The mean over the stored samples that are scored, each the mean of its tries."""
    low: Mapped[float | None]
    high: Mapped[float | None]
    minimum: Mapped[float | None]
    """Where the mean of all tries would lie if all that is unscored were 0; null of what is no rate."""
    maximum: Mapped[float | None]
    source: Mapped[str] = mapped_column(Name)
    """The file's name."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    owner: Mapped[str | None] = mapped_column(Name)
    """Whose it is, by the name of a token or a login; null of the operator's."""
    private_since: Mapped[datetime | None]
    """Since when only its owner and the operator see it; null of what everybody sees."""
    retracted_at: Mapped[datetime | None]
    retraction_reason: Mapped[str | None] = mapped_column(Words)


class ForeignOutcome(Base):
    """How one try at one sample came out: a value, or unscored with a reason."""

    __tablename__ = "foreign_outcome"
    __table_args__ = (
        UniqueConstraint("result_id", "sample", "attempt"),
        CheckConstraint("(value IS NULL) = (unscored_reason IS NOT NULL)", name="three_values"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    result_id: Mapped[str] = mapped_column(ForeignKey("foreign_result.id", ondelete="CASCADE"))
    sample: Mapped[str] = mapped_column(Name)
    """As the tool numbers it, which names no question."""
    attempt: Mapped[int]
    """From 0."""
    asked: Mapped[str] = mapped_column(String(64))
    """SHA-256 of what was asked and what was to come out."""
    text: Mapped[str] = mapped_column(Words)
    """How the question begins."""
    value: Mapped[float | None]
    unscored_reason: Mapped[str | None]
    counted: Mapped[float | None]
    """What the tool itself counts it as; null where it leaves it out."""
