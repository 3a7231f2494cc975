"""Scores by what the conversations are like: axis, number of turns, seconds of audio, speaker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import delete, insert
from sqlalchemy.orm import Session

from vivace.errors import UsageError
from vivace.store.tables import Breakdown
from vivace.store.verdicts import JudgedConversation
from vivace.tracks.dialogue.judging.scores import Tallies, slice_scores

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
    parts = _known(conversations, by)
    rest = frozenset(one.id for one in conversations) - {key for part in parts for key in part.conversations}
    if not parts and conversations:
        raise unknown_of_all(by)
    return [*parts, Slice(UNKNOWN, None, rest)] if rest else parts


def unknown_of_all(by: By) -> UsageError:
    """Why there are no slices by this."""
    others = [other for other in BYS if other != by]
    missing = "who speaks in these conversations" if by == "speaker" else "how long their recordings are"
    return UsageError(f"The store does not know {missing}; break the scores down by another of {', '.join(others)}.")


def _known(conversations: Sequence[JudgedConversation], by: By) -> list[Slice]:
    return _bins(conversations) if by == "seconds" else _groups(conversations, by)


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


def write_parts(session: Session, judging_id: str, conversations: Sequence[JudgedConversation]) -> None:
    """Replace what is stored of a judging's scores in parts by what its conversations say now."""
    session.execute(delete(Breakdown).where(Breakdown.judging_id == judging_id))
    if rows := [{"judging_id": judging_id, **row} for row in _rows(conversations)]:
        session.execute(insert(Breakdown), rows)


def _rows(conversations: Sequence[JudgedConversation]) -> Iterator[dict[str, Any]]:
    """The scores of each slice: by all that makes slices, of all conversations and of those of each axis."""
    tallies = {one.id: Tallies.of(one) for one in conversations}
    for axis in ("", *sorted({one.axis for one in conversations})):
        chosen = [one for one in conversations if axis in ("", one.axis)]
        for by in BYS:
            if not _known(chosen, by):
                continue
            for position, part in enumerate(slices(chosen, by)):
                figures = _figures([tallies[one.id] for one in chosen if one.id in part.conversations])
                yield {"by": by, "axis": axis, "slice": part.name, "position": position, "place": part.place,
                       **figures}  # fmt: skip


def _figures(tallies: Sequence[Tallies]) -> dict[str, Any]:
    scores = {row.metric: row for row in slice_scores("", tallies)}
    apr, ars = scores["apr"], scores["ars"]
    return {
        "conversations": len(tallies),
        "replies": sum(one.whole for one in tallies),
        "coverage": scores["coverage"].value,
        "apr": apr.value,
        "apr_low": apr.low,
        "apr_high": apr.high,
        "ars": ars.value,
        "ars_low": ars.low,
        "ars_high": ars.high,
    }
