"""The words of a rubric: axes, turns, criteria, and the three-valued verdict on one criterion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vivace_rubrics.texts import is_blank, storable


class Axis(StrEnum):
    """The four axes of Audio MultiChallenge (arXiv 2512.14865)."""

    INFERENCE_MEMORY = "INFERENCE_MEMORY"
    INSTRUCTION_RETENTION = "INSTRUCTION_RETENTION"
    SELF_COHERENCE = "SELF_COHERENCE"
    VOICE_EDITING = "VOICE_EDITING"


class Unscored(StrEnum):
    """Why a reply or a criterion has no verdict. None of these ever counts as met or as not met."""

    NO_REPLY = "no_reply"
    """There is no reply to judge; the reply's own reason says why."""
    EMPTY = "empty"
    """The model or the judge answered nothing."""
    UNREADABLE = "unreadable"
    """The judge's answer is not one JSON object with the two fields asked for."""
    REFUSED = "refused"
    """The model or judge declined through the API's own refusal field."""
    CONTENT_FILTER = "content_filter"
    """The provider's filter stopped the answer."""
    NO_AUDIO = "no_audio"
    """The model answered in text where speech was asked for."""
    NOT_HEARD = "not_heard"
    """The ear of a cascade made nothing of a user turn, so that there was no conversation to answer."""
    TOO_LONG = "too_long"
    """The answer was larger than any honest answer is."""
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    CONNECTION_CUT = "connection_cut"
    BAD_REQUEST = "bad_request"
    """The provider rejected this request, for instance as too long for its context."""
    NOT_RECORDED = "not_recorded"
    """A recorded run brings nothing for this conversation or criterion."""
    NO_CHECK = "no_check"
    """The criterion carries no machine check, and the judge is `checks`."""
    NO_MAJORITY = "no_majority"
    """Of several votes, no more than half say the same."""


@dataclass(frozen=True)
class Verdict:
    """One judge's answer on one criterion: met, not met, or unscored with a reason."""

    met: bool | None
    explanation: str = ""
    unscored: Unscored | None = None

    def __post_init__(self) -> None:
        """Hold the three values apart, a reason exactly where there is no answer; the explanation can be stored."""
        object.__setattr__(self, "explanation", storable(self.explanation))
        if (self.met is None) != (self.unscored is not None):
            raise ValueError("a verdict is met, not met, or unscored with a reason")


@dataclass(frozen=True)
class Criterion:
    """One rubric item, with its machine check where it carries one."""

    text: str
    machine_check: dict[str, Any] | None = None


@dataclass(frozen=True)
class Exchange:
    """One user turn's transcript, and the assistant's fixed answer where the dataset has one."""

    user: str | None
    assistant: str | None = None


def grading_history(exchanges: Sequence[Exchange], reply: str) -> str:
    """The conversation as the judge reads it: text only, the model's reply last.

    Turns without text are left out, and the last exchange's recorded assistant turn, if any, gives way to
    the reply. Form of the dataset card's helper (ScaleAI/audiomc): `User: …` and `Assistant: …` with their
    outer blanks stripped, joined by a blank line; the reply itself stands as it is.
    """
    lines = []
    last = max((place for place, exchange in enumerate(exchanges) if has_text(exchange.user)), default=-1)
    for place, exchange in enumerate(exchanges[: last + 1]):
        if has_text(exchange.user):
            lines.append(f"User: {(exchange.user or '').strip()}")
        if place < last and has_text(exchange.assistant):
            lines.append(f"Assistant: {(exchange.assistant or '').strip()}")
    return "\n\n".join([*lines, f"Assistant: {reply}"])


def has_text(text: str | None) -> bool:
    """Whether a turn says anything."""
    return not is_blank(text or "")
