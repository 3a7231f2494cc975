"""The forms in which the API answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from vivace.store.queries.submissions import SubmissionView


class OpenSet(BaseModel):
    """A set that can be submitted to."""

    name: str
    judge: str
    audio: str
    takes_models: bool
    """Whether models can be submitted to it, and not outputs alone."""
    largest_upload: int
    """Bytes."""
    longest_recording: float
    """Seconds, of one reply."""


class Uploaded(BaseModel):
    """An upload that was taken."""

    sha256: str
    bytes: int
    replies: int
    """0 of a recording."""
    seconds: float | None
    """Of a recording."""


class Submitted(BaseModel):
    """A submission as it stands."""

    id: str
    status: str
    model: str
    run: str
    position: int | None
    """Place in its queue, from 1; null once it runs."""
    replies_done: int
    replies_planned: int
    verdicts_done: int
    verdicts_planned: int
    failed_calls: int
    message: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    @staticmethod
    def of(view: SubmissionView, message: str | None) -> Submitted:
        """A submission, without what is nobody's business but the operator's."""
        same = ("id", "status", "model", "run", "position", "created_at", "started_at", "ended_at")
        return Submitted(
            **{name: getattr(view, name) for name in same},
            replies_done=view.items_done,
            replies_planned=view.items_planned,
            verdicts_done=view.verdicts_done,
            verdicts_planned=view.verdicts_planned,
            failed_calls=view.errors,
            message=message,
        )


class Outcome(BaseModel):
    """How one conversation came out."""

    id: str
    axis: str
    criteria: int
    met: int
    not_met: int
    unscored: int
    passed: bool | None


class Results(BaseModel):
    """What a submission has come to."""

    submission: str
    status: str
    scores: list[dict[str, Any]]
    """The board's rows of its run; empty until it has ended."""
    conversations: list[Outcome] | None
    """Null of a set whose items are hidden."""
