"""Scores by what the conversations are like: axis, number of turns, seconds of audio, speaker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from vivace.errors import UsageError
from vivace.store.database import Database
from vivace.store.verdicts import JudgedConversation, JudgingCard, conversations_of, judging_card
from vivace.tracks.dialogue.scores import Tallies, slice_scores

By = Literal["axis", "turns", "seconds", "speaker"]
BYS: tuple[By, ...] = get_args(By)
UNKNOWN = "unknown"
"""The slice of conversations of which the store does not know it."""
MOST_BINS = 5
CONVERSATIONS_PER_BIN = 8
"""Fewer in a bin would make its interval too wide to read."""


@dataclass(frozen=True)
class Slice:
    """Some conversations that are alike."""

    name: str
    place: float | None
    """Where it lies on a number line: user turns, or the mean seconds of its conversations; None off it."""
    conversations: frozenset[str]


def slices(conversations: Sequence[JudgedConversation], by: By) -> list[Slice]:
    """The conversations sorted into slices, in the slices' own order; what is unknown stands last.

    Seconds are cut into at most five bins of equally many conversations, so that every bin says equally much.

    Raises:
        UsageError: it is unknown of every conversation.
    """
    parts = _bins(conversations) if by == "seconds" else _groups(conversations, by)
    rest = frozenset(one.id for one in conversations) - {key for part in parts for key in part.conversations}
    if not parts and conversations:
        others = [other for other in BYS if other != by]
        missing = "who speaks in these conversations" if by == "speaker" else "how long their recordings are"
        raise UsageError(
            f"The store does not know {missing}; break the scores down by another of {', '.join(others)}."
        )
    return [*parts, Slice(UNKNOWN, None, rest)] if rest else parts


def _groups(conversations: Sequence[JudgedConversation], by: By) -> list[Slice]:
    keys: dict[int | str, set[str]] = {}
    for one in conversations:
        key = one.user_turns if by == "turns" else one.axis if by == "axis" else one.speaker
        if key is not None:
            keys.setdefault(key, set()).add(one.id)
    ordered = sorted(keys.items(), key=lambda item: (str(item[0]) if by != "turns" else "", item[0]))
    return [Slice(str(key), float(key) if isinstance(key, int) else None, frozenset(ids)) for key, ids in ordered]


def _bins(conversations: Sequence[JudgedConversation]) -> list[Slice]:
    known = sorted((one.audio_seconds, one.id) for one in conversations if one.audio_seconds is not None)
    count = min(MOST_BINS, max(1, len(known) // CONVERSATIONS_PER_BIN))
    bins = []
    for number in range(count):
        part = known[number * len(known) // count : (number + 1) * len(known) // count]
        if part:
            lengths = [seconds for seconds, _ in part]
            name = (
                f"{lengths[0]:.0f}–{lengths[-1]:.0f} s"
                if lengths[-1] >= 10
                else f"{lengths[0]:.1f}–{lengths[-1]:.1f} s"
            )
            bins.append(Slice(name, sum(lengths) / len(part), frozenset(key for _, key in part)))
    return bins


@dataclass(frozen=True)
class BreakdownRow:
    """The figures of one slice of a judging."""

    card: JudgingCard
    by: By
    slice: str
    place: float | None
    conversations: int
    replies: int
    """Wholly scored replies to them, which APR is made of."""
    coverage: float | None
    apr: float | None
    apr_low: float | None
    apr_high: float | None
    ars: float | None
    ars_low: float | None
    ars_high: float | None

    def as_json(self) -> dict[str, Any]:
        """The row, flat."""
        rest = {key: value for key, value in vars(self).items() if key != "card"}
        return {"model": self.card.model, "judging": self.card.judging, **rest}


def breakdown(database: Database, identifier: str, by: By, axis: str | None = None) -> list[BreakdownRow]:
    """APR and ARS of each slice of a judging, with 95 % intervals, computed from its recorded verdicts.

    Args:
        identifier: an ended judging, or a run that has one.
        by: what makes the slices.
        axis: only the conversations of this axis; None for all.

    Raises:
        UsageError: there is no such judging or axis, or `by` is unknown of every conversation.
    """
    card = judging_card(database, identifier)
    conversations = conversations_of(database, card.judging)
    if axis is not None:
        axes = sorted({one.axis for one in conversations})
        conversations = [one for one in conversations if one.axis == axis]
        if not conversations:
            raise UsageError(
                f"Judging {card.judging} has no conversations of the axis '{axis}', but {', '.join(axes)}."
            )
    return [
        _row(card, by, part, [one for one in conversations if one.id in part.conversations])
        for part in slices(conversations, by)
    ]


def _row(card: JudgingCard, by: By, part: Slice, conversations: Sequence[JudgedConversation]) -> BreakdownRow:
    tallies = [Tallies.of(one) for one in conversations]
    scores = {row.metric: row for row in slice_scores(part.name, tallies)}
    apr, ars = scores["apr"], scores["ars"]
    return BreakdownRow(
        card=card,
        by=by,
        slice=part.name,
        place=part.place,
        conversations=len(conversations),
        replies=sum(one.whole for one in tallies),
        coverage=scores["coverage"].value,
        apr=apr.value,
        apr_low=apr.low,
        apr_high=apr.high,
        ars=ars.value,
        ars_low=ars.low,
        ars_high=ars.high,
    )
