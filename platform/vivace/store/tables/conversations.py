"""The tables of what was asked: conversations, their turns and criteria, so that no data set need be at hand."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from vivace.store.columns import Name, Words
from vivace.store.tables.base import Base


class Conversation(Base):
    """One conversation of a dataset."""

    __tablename__ = "conversation"
    __table_args__ = (UniqueConstraint("dataset_id", "external_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("dataset.id", ondelete="CASCADE"))
    external_id: Mapped[str] = mapped_column(Name)
    """The dataset's own id."""
    position: Mapped[int]
    axis: Mapped[str]
    speaker: Mapped[str | None] = mapped_column(Name)
    """Who speaks its user turns, where the data say so."""


class Turn(Base):
    """One user or assistant turn; user and assistant turns are numbered alike, from 1."""

    __tablename__ = "turn"
    __table_args__ = (UniqueConstraint("conversation_id", "number", "role"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversation.id", ondelete="CASCADE"))
    number: Mapped[int]
    role: Mapped[str] = mapped_column(String(16))
    transcript: Mapped[str | None] = mapped_column(Words)
    audio_sha256: Mapped[str | None] = mapped_column(String(64))
    audio_seconds: Mapped[float | None]


class Criterion(Base):
    """One rubric item; keyed by its place, because a rubric may hold the same sentence twice."""

    __tablename__ = "criterion"
    __table_args__ = (UniqueConstraint("conversation_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversation.id", ondelete="CASCADE"))
    number: Mapped[int]
    """Its place in the rubric, from 0."""
    text: Mapped[str] = mapped_column(Words)
    machine_check: Mapped[dict[str, Any] | None]
