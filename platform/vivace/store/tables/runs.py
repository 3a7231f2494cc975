"""The tables of runs: what was planned, what was answered, every call, every line of the log, and labels."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint, false
from sqlalchemy.orm import Mapped, defer, mapped_column

from vivace.store.columns import Message, Name, Values, Words, now
from vivace.store.tables.base import Base


class Run(Base):
    """One model on one track with one configuration."""

    __tablename__ = "run"
    __table_args__ = (UniqueConstraint("identity", "ordinal"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    identity: Mapped[str] = mapped_column(String(64))
    """SHA-256 of everything that makes the result."""
    ordinal: Mapped[int]
    """0, or the count of `--force` on the same identity."""
    track: Mapped[str]
    dataset_id: Mapped[int] = mapped_column(ForeignKey("dataset.id"))
    model_id: Mapped[int] = mapped_column(ForeignKey("model.id"))
    hardware_id: Mapped[int | None] = mapped_column(ForeignKey("hardware.id"))
    method: Mapped[str | None] = mapped_column(Name)
    """What the model decoded with, null for plainly; of an efficiency run, the baseline."""
    input_form: Mapped[str]
    """`audio-16k`, `audio-original` or `transcript`."""
    output_form: Mapped[str] = mapped_column(String(16), default="text", server_default="text")
    """`text` or `audio`: what the model was asked to answer with."""
    repeats: Mapped[int] = mapped_column(default=1)
    """Replies generated to each conversation."""
    limited: Mapped[bool]
    """Whether the items are a part of the dataset."""
    imported: Mapped[bool] = mapped_column(default=False)
    status: Mapped[str] = mapped_column(String(16), default="open")
    """`open`, or `generated` once every planned reply is recorded."""
    manifest: Mapped[dict[str, Any]]
    hearing: Mapped[dict[str, Any] | None]
    """How the hearing check came out, with its probes; null where none was made."""
    measured: Mapped[dict[str, Any] | None]
    """Of an efficiency run: the device's floor, and for each session of trials what the audits found."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    retracted_at: Mapped[datetime | None]
    retraction_reason: Mapped[str | None] = mapped_column(Words)
    owner: Mapped[str | None] = mapped_column(Name)
    """Who submitted it, by the name that a token or a login gives; null where the operator did."""
    private_since: Mapped[datetime | None]
    """When it was made private, seen by its owner and the operator alone; null of a public one."""
    # The last column: SQLite reads through all that stands in a row before what is asked for.
    items: Mapped[list[str]]
    """The conversations planned, by the dataset's ids, in order."""


RUN_IN_SHORT = tuple(defer(column) for column in (Run.items, Run.manifest, Run.measured))
"""For questions about many runs: without what grows with all that a run planned and saw."""


class Reply(Base):
    """What the model answered to one conversation, or why it did not."""

    __tablename__ = "reply"
    __table_args__ = (UniqueConstraint("run_id", "conversation_id", "repeat"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    conversation_id: Mapped[int] = mapped_column(ForeignKey("conversation.id"), index=True)
    repeat: Mapped[int] = mapped_column(default=0)
    text: Mapped[str | None] = mapped_column(Words)
    raw_text: Mapped[str | None] = mapped_column(Words)
    """All that the model wrote, where it thought aloud before its reply; null where that is the reply."""
    audio_sha256: Mapped[str | None] = mapped_column(String(64))
    unscored_reason: Mapped[str | None]
    """Why there is no reply to judge; null when there is one."""
    detail: Mapped[str | None] = mapped_column(Message)
    finish_reason: Mapped[str | None] = mapped_column(Name)
    model_snapshot: Mapped[str | None] = mapped_column(Name)
    """The model name that the server itself reported."""
    ttft_s: Mapped[float | None]
    first_audio_s: Mapped[float | None]
    total_s: Mapped[float | None]
    heard: Mapped[list[Any] | None] = mapped_column(Values())
    """Of a cascade, for each user turn that its ear heard: `number`, `text` or `unscored` and `detail`, `seconds`,
    `cost_usd`, and against the set's transcript `errors` and `words`; null of systems that hear for themselves."""
    kept_share: Mapped[float | None]
    """The part of the prompt's tokens that went through the model's last layer; null where prompts are read whole."""
    created_at: Mapped[datetime] = mapped_column(default=now)


class Attempt(Base):
    """One call to a model or a judge, successful or not; tokens, cost and time are sums over these."""

    __tablename__ = "attempt"
    # All that the board and the status sum up over a run's many calls: they read this and not the calls.
    __table_args__ = (
        Index(
            "ix_attempt_accounting", "run_id", "judging_id", "stage", "error", "cached", "input_tokens",
            "output_tokens", "input_audio_tokens", "audio_seconds", "cost_usd",
        ),
        Index("ix_attempt_conversation", "conversation_id", "run_id"),
    )  # fmt: skip

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    judging_id: Mapped[str | None] = mapped_column(ForeignKey("judging.id", ondelete="CASCADE"))
    conversation_id: Mapped[int | None] = mapped_column(ForeignKey("conversation.id"))
    criterion_id: Mapped[int | None] = mapped_column(ForeignKey("criterion.id"))
    stage: Mapped[str] = mapped_column(String(16))
    """`hear`, `generate`, `transcribe` or `judge`."""
    seconds: Mapped[float]
    input_tokens: Mapped[int | None]
    output_tokens: Mapped[int | None]
    input_audio_tokens: Mapped[int | None]
    """Of the input tokens, those that the server counts as audio (or a local model's audio frames)."""
    audio_seconds: Mapped[float | None]
    """Seconds of recordings that the call sent."""
    cached: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Answered from the response cache: nothing was sent."""
    cost_usd: Mapped[float | None]
    error: Mapped[str | None]
    """The reason code of a failed call; null for one that succeeded."""
    detail: Mapped[str | None] = mapped_column(Message)
    created_at: Mapped[datetime] = mapped_column(default=now)


class Event(Base):
    """One line of a run's log."""

    __tablename__ = "event"
    __table_args__ = (Index("ix_event_run_id_id", "run_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str | None] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    submission_id: Mapped[str | None] = mapped_column(ForeignKey("submission.id", ondelete="CASCADE"))
    worker_id: Mapped[str | None]
    level: Mapped[str] = mapped_column(String(16))
    message: Mapped[str] = mapped_column(Message)
    created_at: Mapped[datetime] = mapped_column(default=now)


class RunLabel(Base):
    """A word that somebody gave a run, to find it by."""

    __tablename__ = "run_label"

    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    label: Mapped[str] = mapped_column(String(40), primary_key=True)
