"""How calls over the network are made, and the record of each, kept beside the work that made it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from vivace.models import reported
from vivace.models.client.providers.prices import TokenPrice
from vivace_rubrics.criteria import Unscored


@dataclass(frozen=True)
class ChatOptions:
    """How calls are made; none of this changes what a good answer says, so none is part of an identity."""

    api_base: str | None = None
    timeout_s: float = 120.0
    """For one try, from sending to the last byte."""
    retries: int = 3
    """Further tries of a call that failed; one that was turned away for its rate waits, and has not failed."""
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    """Both ways, as the server counts them."""
    price: TokenPrice | None = None
    """In place of litellm's price list."""


@dataclass(frozen=True)
class CallRecord:
    """One call, successful or not; what is no count and no cost is not reported."""

    seconds: float
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_audio_tokens: int | None = None
    """Of the input tokens, those that are audio, where the server says so; a local model's audio frames."""
    cost_usd: float | None = None
    error: Unscored | None = None
    detail: str | None = None
    stage: str | None = None
    """What the call was for, where that is not what its work is for: `transcribe`."""
    audio_seconds: float | None = None
    """Of recordings that it sent, where those are not all that its work sends."""
    cached: bool = False
    """Answered from the response cache; nothing was sent."""

    def __post_init__(self) -> None:
        """Keep what can be so, and what the store can hold."""
        for name in ("input_tokens", "output_tokens", "input_audio_tokens"):
            object.__setattr__(self, name, reported.count(getattr(self, name)))
        object.__setattr__(self, "cost_usd", reported.dollars(self.cost_usd))
        object.__setattr__(self, "seconds", reported.seconds(self.seconds) or 0.0)
        object.__setattr__(self, "detail", reported.text(self.detail))


_calls: ContextVar[list[CallRecord] | None] = ContextVar("calls", default=None)


@contextmanager
def recorded_calls() -> Iterator[list[CallRecord]]:
    """Collect the calls made inside, by this task and whatever it awaits."""
    calls: list[CallRecord] = []
    token = _calls.set(calls)
    try:
        yield calls
    finally:
        _calls.reset(token)


def record_call(call: CallRecord) -> None:
    """Note one call for whoever collects them."""
    calls = _calls.get()
    if calls is not None:
        calls.append(call)
