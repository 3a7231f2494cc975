"""A judging as `vivace export` writes it, a line for each reply, criterion and vote, read again to be imported."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vivace.errors import UsageError
from vivace.tracks.dialogue.data.conversations import Conversation
from vivace_rubrics.criteria import Unscored
from vivace_rubrics.texts import storable

FIELDS = ("model", "judge", "conversation", "repeat", "criterion", "criterion_text", "vote", "met", "unscored_reason")
MOST_REPEATS = 1_000
LONGEST_LABELER = 100
"""Characters of the name of somebody who labels."""


@dataclass(frozen=True)
class GivenVerdict:
    """What was said of one criterion, in the decision that counts (vote 0) or in one vote behind it."""

    criterion: int
    vote: int
    met: bool | None
    unscored_reason: str | None
    explanation: str | None = None
    labels: Mapping[str, bool | None] = field(default_factory=dict)
    """Labeler → what they say of it."""


@dataclass(frozen=True)
class GivenReply:
    """A reply with all that was said of it."""

    text: str | None
    unscored_reason: str | None
    verdicts: Sequence[GivenVerdict]
    raw_text: str | None = None
    ttft_s: Any = None
    total_s: Any = None
    """Both as they were told, and believed where they can be so."""


@dataclass(frozen=True)
class ExportedJudging:
    """A judging as a file of items has it."""

    model: str
    judge: str
    replies: Mapping[tuple[str, int], GivenReply]
    """By conversation and repeat; every one that was planned."""
    repeats: int
    votes: int


def is_items(row: Mapping[str, Any]) -> bool:
    """Whether a line is of exported items, and not of a verdict file."""
    return "id" not in row and "conversation" in row and "criterion" in row


def read_items(rows: Sequence[tuple[str, dict[str, Any]]], known: Mapping[str, Conversation]) -> ExportedJudging:
    """One judging from the lines of its export.

    Args:
        rows: with their places.
        known: the data's conversations by their ids.

    Raises:
        UsageError: lines of several judgings, a conversation or criterion that the data lack, one that comes twice or
            not at all, or a value that is none.
    """
    lines: dict[tuple[str, int], dict[tuple[int, int], tuple[str, dict[str, Any]]]] = defaultdict(dict)
    for place, row in rows:
        if absent := [name for name in FIELDS if name not in row]:
            raise UsageError(f'{place} has no "{absent[0]}", as every line of an export has.')
        id = row["conversation"]
        repeat, criterion, vote = (_number(row, name, place) for name in ("repeat", "criterion", "vote"))
        _check_criterion(row, known, criterion, place)
        if (criterion, vote) in lines[id, repeat]:
            raise UsageError(f"{place}: criterion {criterion} of '{id}' comes again.")
        lines[id, repeat][criterion, vote] = (place, row)
    named = {(str(row["model"]), str(row["judge"]), str(row.get("judging"))) for _, row in rows}
    if len(named) > 1:
        raise UsageError(f"The file holds {len(named)} judgings; export and import one at a time.")
    repeats = 1 + max(repeat for _, repeat in lines)
    for id in dict.fromkeys(id for id, _ in lines):
        for repeat in range(repeats):
            given = lines.get((id, repeat), {})
            if any((number, 0) not in given for number in range(len(known[id].criteria))):
                raise UsageError(
                    f"The file lacks verdicts on reply {repeat} to '{id}': it was not written to its end."
                )
    model, judge, _ = named.pop()
    return ExportedJudging(
        model=model,
        judge=judge,
        replies={key: _reply(list(given.values())) for key, given in lines.items()},
        repeats=repeats,
        votes=max(1, *(vote for given in lines.values() for _, vote in given)),
    )


def _number(row: Mapping[str, Any], name: str, place: str) -> int:
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MOST_REPEATS:
        raise UsageError(f'{place}: "{name}" is {value!r:.60}, and no number from 0 to {MOST_REPEATS - 1}.')
    return value


def _check_criterion(row: Mapping[str, Any], known: Mapping[str, Conversation], number: int, place: str) -> None:
    id = row["conversation"]
    if not isinstance(id, str) or id not in known:
        raise UsageError(f"{place}: the data have no conversation {id!r:.60}.")
    criteria = known[id].criteria
    if number >= len(criteria) or criteria[number].text != row["criterion_text"]:
        raise UsageError(f"{place}: criterion {number} of '{id}' is another one in these data.")
    met, reason = row["met"], row["unscored_reason"]
    if not (met is None or isinstance(met, bool)):
        raise UsageError(f'{place}: "met" is {met!r:.60}, and neither true, false nor null.')
    if (met is None) == (reason is None):
        raise UsageError(f"{place} has a verdict and a reason why there is none, or neither.")


def _reply(lines: Sequence[tuple[str, Mapping[str, Any]]]) -> GivenReply:
    place, first = lines[0]
    text = _text(first, "reply", place)
    return GivenReply(
        text=text,
        unscored_reason=_reason(first, "reply_unscored_reason") or (Unscored.NOT_RECORDED if text is None else None),
        raw_text=_text(first, "reply_raw_text", place),
        ttft_s=first.get("ttft_s"),
        total_s=first.get("total_s"),
        verdicts=[
            GivenVerdict(
                row["criterion"], row["vote"], row["met"], _reason(row, "unscored_reason"),
                _text(row, "explanation", where), _labels(row, where),
            )
            for where, row in lines
        ],
    )  # fmt: skip


def _text(row: Mapping[str, Any], name: str, place: str) -> str | None:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise UsageError(f'{place}: "{name}" is no text.')
    return value


def _labels(row: Mapping[str, Any], place: str) -> dict[str, bool | None]:
    """What people say, of the line that decides; an export of older times has none."""
    given = row.get("labels") or {}
    if not isinstance(given, dict) or not all(met is None or isinstance(met, bool) for met in given.values()):
        raise UsageError(f'{place}: "labels" must be an object of names and true, false or null.')
    if wrong := [name for name in given if not is_labeler(name)]:
        raise UsageError(f"{place}: {wrong[0]!r:.60} is no name of a labeler.")
    return {} if row["vote"] else given


def is_labeler(name: object) -> bool:
    """Whether this may be the name of somebody who labels: no blank text, and none that fills a page."""
    return isinstance(name, str) and name == storable(name).strip() != "" and len(name) <= LONGEST_LABELER


def _reason(row: Mapping[str, Any], name: str) -> str | None:
    """A reason's code; one that this Vivace does not know says that it is not recorded."""
    value = row.get(name)
    if value is None:
        return None
    return str(value) if value in set(Unscored) else Unscored.NOT_RECORDED.value
