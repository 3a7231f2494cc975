"""What an adapter is: a system that takes a conversation and answers it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from vivace.models import reported
from vivace.output.secrets import without_keys
from vivace_rubrics.criteria import Unscored
from vivace_rubrics.texts import is_blank, storable, without_thoughts

if TYPE_CHECKING:
    from vivace.audio.convert import EncodedAudio


@dataclass(frozen=True)
class AppliedMethod:
    """What a model answers with: an inference method, or two together, and the recipe where one needs one."""

    label: str
    """The method with its settings; of two, the one that needs a recipe comes last."""
    recipe: Path | None = None
    """The recipe's folder."""
    recipe_sha256: str | None = None
    """Of what is in it."""

    @property
    def name(self) -> str:
        """As the board shows it: the recipe by its content, wherever it lies."""
        return self.label if self.recipe_sha256 is None else f"{self.label}:{self.recipe_sha256[:8]}"


@dataclass(frozen=True)
class ModelIdentity:
    """What makes two systems under test the same one."""

    target: str
    adapter: str
    name: str
    """As the board shows it."""
    address: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    """Every generation parameter given: maximum tokens, reasoning effort, thinking, temperature."""
    content_sha256: str | None = None
    """The hash of what they are, for systems that are a file or a folder: where it lies does not count."""
    is_named: bool = False
    """Whether somebody gave the name on purpose, as those who import results do; then it counts."""
    method: AppliedMethod | None = None
    """What it decodes with: of the run, and not of the model, which is the same with another."""
    is_recorded: bool = False
    """Whether its replies were made elsewhere: their times are then what whoever submitted them wrote."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all but the display name and the method; of a file or folder its bytes count, not its place."""
        target = self.adapter if self.content_sha256 else self.target
        identity = [target, self.address, self.parameters, self.content_sha256]
        if self.is_named:
            identity.append(self.name)
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class SpokenOutput:
    """What a system is to answer with; None leaves it to the adapter."""

    output: Literal["text", "audio"] | None = None
    voice: str | None = None
    """The provider's name of the voice that speaks."""
    transcriber: str | None = None
    """What writes the spoken answer down, `adapter:name`; None is the API's own transcript."""


UNSPOKEN = SpokenOutput()
"""Nothing is asked for: the adapter's own way."""


@dataclass(frozen=True)
class SpokenTurn:
    """One user turn as it is put to a model: audio, or text for a transcript-input control."""

    audio: EncodedAudio | None
    text: str | None
    seconds: float | None = None
    """The recording's length, where it is known."""


@dataclass(frozen=True)
class Prompt:
    """A conversation up to the reply that is asked for.

    `turns` holds, in order, each user turn with the assistant's fixed answer to it; the last answer is
    None, and so is one that the dataset lacks.
    """

    conversation_id: str
    turns: Sequence[tuple[SpokenTurn, str | None]]
    repeat: int = 0
    """Which of several replies to the same conversation is asked for."""


@dataclass(frozen=True)
class HeardTurn:
    """What an ear made of one user turn; exactly one of `text` and `unscored` is set."""

    number: int
    """Among the conversation's user turns, from 1."""
    text: str | None
    unscored: Unscored | None = None
    detail: str | None = None
    seconds: float | None = None
    """That the ear took for it, all tries together."""
    cost_usd: float | None = None

    def __post_init__(self) -> None:
        """Keep what can be so, and what the store can hold."""
        if self.text is not None:
            object.__setattr__(self, "text", without_keys(storable(self.text)))
        object.__setattr__(self, "detail", reported.text(self.detail))


@dataclass(frozen=True)
class ModelReply:
    """What a system answered, or why it did not; times are in seconds from sending the request.

    Whoever makes one may pass on what a model or a file says. Thoughts before the reply are taken out of its text and
    stand in `raw_text` alone, a text in which nothing can be seen is no reply, and times and names that cannot be so
    are not reported.
    """

    text: str | None
    unscored: Unscored | None = None
    detail: str | None = None
    audio: bytes | None = None
    """The spoken reply as a WAV file; `text` is then its transcript."""
    finish_reason: str | None = None
    model_snapshot: str | None = None
    ttft_s: float | None = None
    first_audio_s: float | None = None
    total_s: float | None = None
    raw_text: str | None = None
    """All that the model wrote, where that is more than the reply."""
    heard: tuple[HeardTurn, ...] = ()
    """Of a cascade: what its ear made of each user turn, up to the first of which it made nothing."""
    kept_share: float | None = None
    """Of a model whose prompts are pruned: the part of the prompt's tokens that went through its last layer."""

    def __post_init__(self) -> None:
        """Tell the reply from the thoughts before it, and what is reported from what cannot be so."""
        settled: dict[str, Any] = {
            "detail": reported.text(self.detail),
            "finish_reason": reported.name(self.finish_reason),
            "model_snapshot": reported.name(self.model_snapshot),
            "raw_text": reported.text(self.raw_text),
            "kept_share": reported.share(self.kept_share),
        }
        times = [reported.seconds(value) for value in (self.ttft_s, self.first_audio_s, self.total_s)]
        if any(first > times[2] for first in times[:2] if first is not None and times[2] is not None):
            times = [None] * 3  # a beginning after the end: neither can be believed
        settled |= dict(zip(("ttft_s", "first_audio_s", "total_s"), times, strict=True))
        if self.text is not None:
            written = without_keys(storable(self.text))
            said = without_thoughts(written)
            if said != written:
                settled["raw_text"] = written
            if is_blank(said) and self.audio is None:
                why = "nothing but thoughts" if not is_blank(written) else "empty"
                reason = f" (finish reason {settled['finish_reason']})" if settled["finish_reason"] else ""
                notes = f"; {settled['detail']}" if settled["detail"] else ""
                settled |= {"unscored": Unscored.EMPTY, "detail": f"the reply is {why}{reason}{notes}"}
            settled["text"] = said if "unscored" not in settled else None
        for name, value in settled.items():
            object.__setattr__(self, name, value)


class SystemUnderTest(Protocol):
    """A system that answers conversations."""

    @property
    def identity(self) -> ModelIdentity:
        """What it is."""
        ...

    async def preflight(self) -> None:
        """See that it can answer at all, before any work.

        Raises:
            UnreachableError: nothing answers at its address.
            UsageError: a key is missing or refused, or it lacks what the run needs.
        """
        ...

    async def reply(self, prompt: Prompt) -> ModelReply:
        """Its reply; a failed call is a reply without text, with the reason.

        Raises:
            UsageError: every further call would fail too: a refused key, an unknown model.
            UnreachableError: nothing answers at its address any more.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


@runtime_checkable
class RecordedSystem(Protocol):
    """A system known by what it answered to some conversations; its identity says `is_recorded`."""

    @property
    def conversations(self) -> Set[str]:
        """The ids of those conversations."""
        ...


@runtime_checkable
class HearsFirst(Protocol):
    """A system in two stages: an ear writes down what is said, and a model answers what was written."""

    async def hear(self, turn: SpokenTurn, number: int) -> HeardTurn:
        """What its ear makes of a recording.

        Args:
            turn: with the recording.
            number: of the turn, from 1.

        Raises:
            UsageError, UnreachableError: as `SystemUnderTest.reply` says.
        """
        ...

    async def answer(self, prompt: Prompt) -> ModelReply:
        """What its model answers to a conversation in writing."""
        ...


@runtime_checkable
class NeedsKey(Protocol):
    """Something that needs a key before it can be asked."""

    def check_key(self) -> None:
        """See that the key is there; nothing is asked.

        Raises:
            UsageError: it is not.
        """
        ...
