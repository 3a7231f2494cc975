"""Counts what a set of conversations holds, axis by axis, in the words in which the public dataset is described."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import fmean, median

from vivace.audio.convert import AudioError
from vivace.audio.measure import Measurement, measure
from vivace.errors import UsageError
from vivace.tracks.dialogue.data.conversations import Conversation, ConversationSet
from vivace_rubrics.criteria import Axis

ALL = "all"


@dataclass(frozen=True)
class Spread:
    """Where a number lies over conversations or turns."""

    mean: float
    median: float
    lowest: float
    highest: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return Spread(fmean(values), median(values), min(values), max(values))


@dataclass(frozen=True)
class AudioDescription:
    """A slice's recordings."""

    minutes: float
    turn_s: Spread
    conversation_s: Spread
    sample_rates: dict[str, int]
    """Hz → recordings."""
    containers: dict[str, int]
    """Kind of file → recordings."""
    speakers: int | None
    """How many speak the user turns; None where the data do not name them all."""


@dataclass(frozen=True)
class Description:
    """One axis, or all of them together. Words are what blanks separate in a transcript."""

    axis: str
    conversations: int
    criteria: int
    criteria_per_conversation: Spread
    user_turns: int
    user_turns_per_conversation: Spread
    conversations_by_user_turns: dict[str, int]
    """User turns → conversations."""
    user_words_per_conversation: Spread
    assistant_words_per_conversation: Spread
    audio: AudioDescription | None


def describe(conversations: ConversationSet, progress: Callable[[int, int], None]) -> list[Description]:
    """A description of every axis that the set has, its own behind the four, and of all; every recording is decoded.

    Args:
        conversations: the set.
        progress: told of how many conversations the recordings are measured, and of how many.

    Raises:
        UsageError: a recording is missing or does not decode.
    """
    measured = _measured(conversations, progress) if conversations.has_audio else {}
    everything = conversations.conversations
    axes = dict.fromkeys([*map(str, Axis), *(one.axis for one in everything)])
    slices = [(axis, [one for one in everything if one.axis == axis]) for axis in axes]
    return [_description(name, chosen, measured) for name, chosen in [*slices, (ALL, everything)] if chosen]


def _measured(conversations: ConversationSet, progress: Callable[[int, int], None]) -> dict[str, list[Measurement]]:
    """Conversation id → its user turns' recordings."""
    measured: dict[str, list[Measurement]] = {}
    everything = conversations.conversations
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for conversation, recordings in conversations.recordings(everything):
            try:
                measured[conversation.id] = list(pool.map(measure, recordings))
            except AudioError as error:
                raise UsageError(
                    f"A recording of conversation '{conversation.id}' is broken: {error}; `vivace data validate` "
                    "lists all that is."
                ) from error
            progress(len(measured), len(everything))
    return measured


def _description(axis: str, chosen: Sequence[Conversation], measured: dict[str, list[Measurement]]) -> Description:
    turns = [len(conversation.exchanges) for conversation in chosen]
    criteria = [len(conversation.criteria) for conversation in chosen]
    recordings = [measured[conversation.id] for conversation in chosen if conversation.id in measured]
    return Description(
        axis=axis,
        conversations=len(chosen),
        criteria=sum(criteria),
        criteria_per_conversation=Spread.of(criteria),
        user_turns=sum(turns),
        user_turns_per_conversation=Spread.of(turns),
        conversations_by_user_turns=_counted(turns),
        user_words_per_conversation=Spread.of([sum(map(_words, _users(one))) for one in chosen]),
        assistant_words_per_conversation=Spread.of([sum(map(_words, _assistants(one))) for one in chosen]),
        audio=_audio(recordings, [one.speaker for one in chosen]) if recordings else None,
    )


def _audio(conversations: Sequence[Sequence[Measurement]], speakers: Sequence[str | None]) -> AudioDescription:
    recordings = [recording for conversation in conversations for recording in conversation]
    return AudioDescription(
        minutes=sum(recording.seconds for recording in recordings) / 60,
        turn_s=Spread.of([recording.seconds for recording in recordings]),
        conversation_s=Spread.of([sum(one.seconds for one in conversation) for conversation in conversations]),
        sample_rates=_counted([recording.rate for recording in recordings]),
        containers=_counted([recording.container for recording in recordings]),
        speakers=None if None in speakers else len(set(speakers)),
    )


def _counted(values: Sequence[int] | Sequence[str]) -> dict[str, int]:
    """How often each value occurs, in their order; the keys are text, as JSON has them."""
    return {str(value): count for value, count in sorted(Counter[int | str](values).items())}


def _users(conversation: Conversation) -> Iterator[str | None]:
    return (exchange.user for exchange in conversation.exchanges)


def _assistants(conversation: Conversation) -> Iterator[str | None]:
    return (exchange.assistant for exchange in conversation.exchanges)


def _words(text: str | None) -> int:
    return len((text or "").split())
