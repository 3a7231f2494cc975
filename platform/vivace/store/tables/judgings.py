"""The tables of judgings: verdicts, how each conversation came out, and the summary figures that boards read."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from vivace.store.columns import Name, Words, now
from vivace.store.tables.base import Base


class Judging(Base):
    """One judge over one run; a row of the dialogue board."""

    __tablename__ = "judging"
    __table_args__ = (UniqueConstraint("run_id", "judge_id", "votes"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    judge_id: Mapped[int] = mapped_column(ForeignKey("judge.id"))
    votes: Mapped[int] = mapped_column(default=1)
    status: Mapped[str] = mapped_column(String(16), default="open")
    """`open`, or `ended` once every criterion is recorded and the scores are computed."""
    official: Mapped[bool] = mapped_column(default=False)
    unofficial_reasons: Mapped[list[str]] = mapped_column(default=list)
    created_at: Mapped[datetime] = mapped_column(default=now)
    ended_at: Mapped[datetime | None]
    retracted_at: Mapped[datetime | None]
    """When this judging alone was taken off the board; the run's own retraction takes off all of its judgings."""
    retraction_reason: Mapped[str | None] = mapped_column(Words)


class Verdict(Base):
    """One judge's answer on one criterion: met, not met, or unscored with a reason."""

    __tablename__ = "verdict"
    __table_args__ = (
        UniqueConstraint("judging_id", "reply_id", "criterion_id", "vote"),
        CheckConstraint("(met IS NULL) = (unscored_reason IS NOT NULL)", name="three_values"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    judging_id: Mapped[str] = mapped_column(ForeignKey("judging.id", ondelete="CASCADE"))
    reply_id: Mapped[int] = mapped_column(ForeignKey("reply.id", ondelete="CASCADE"), index=True)
    criterion_id: Mapped[int] = mapped_column(ForeignKey("criterion.id"))
    vote: Mapped[int] = mapped_column(default=0)
    met: Mapped[bool | None]
    unscored_reason: Mapped[str | None]
    explanation: Mapped[str | None] = mapped_column(Words)
    created_at: Mapped[datetime] = mapped_column(default=now)


class Outcome(Base):
    """How one conversation came out under an ended judging, written when it ends; lists and comparisons read this."""

    __tablename__ = "outcome"
    # A list of a judging's conversations that passed or failed is read in order from this alone.
    __table_args__ = (Index("ix_outcome_list", "judging_id", "position", "passed", "conversation_id"),)

    judging_id: Mapped[str] = mapped_column(ForeignKey("judging.id", ondelete="CASCADE"), primary_key=True)
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversation.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int]
    """The conversation's, in its dataset."""
    passed: Mapped[bool | None]
    """Every criterion met in every reply; null while some are unscored and none is known not to be met."""
    pass_rate: Mapped[float]
    """The share of its replies with every criterion met."""
    verdicts: Mapped[str] = mapped_column(Text)
    """For each reply a sign for each criterion, in their order: `1` met, `0` not met, `?` unscored; `/` between."""


class HumanLabel(Base):
    """What one person says of one criterion of a reply, to hold judges against."""

    __tablename__ = "human_label"
    __table_args__ = (UniqueConstraint("reply_id", "criterion_id", "labeler"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    reply_id: Mapped[int] = mapped_column(ForeignKey("reply.id", ondelete="CASCADE"))
    criterion_id: Mapped[int] = mapped_column(ForeignKey("criterion.id"))
    labeler: Mapped[str] = mapped_column(Name)
    met: Mapped[bool | None]
    """Null where the person has looked and does not say."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class Score(Base):
    """One summary figure of a judging or an arm, computed from recorded rows when it ends."""

    __tablename__ = "score"
    __table_args__ = (
        UniqueConstraint("judging_id", "metric", "slice", name="uq_score_judging"),
        UniqueConstraint("arm_id", "metric", "slice", name="uq_score_arm"),
        CheckConstraint("(judging_id IS NULL) <> (arm_id IS NULL)", name="one_owner"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    judging_id: Mapped[str | None] = mapped_column(ForeignKey("judging.id", ondelete="CASCADE"))
    arm_id: Mapped[int | None] = mapped_column(ForeignKey("arm.id", ondelete="CASCADE"))
    metric: Mapped[str]
    slice: Mapped[str] = mapped_column(default="")
    """Empty for the whole, else the axis."""
    value: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    minimum: Mapped[float | None]
    """Where the value would lie if everything unscored went against the model."""
    maximum: Mapped[float | None]
    """Where it would lie if everything unscored went for it."""
    count: Mapped[int | None]
    """The numerator: conversations passed, criteria met or scored."""
    n: Mapped[int]
    """What was planned, scored or not."""
    unscored: Mapped[int]
