"""Joins conversations: before each stands what was said in others, so that its history is long enough to matter."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vivace.audio.containers import container
from vivace.errors import UsageError
from vivace.tracks.dialogue.data.conversations import Conversation, ConversationSet
from vivace.tracks.dialogue.data.writer import public_schema, unfinished_file, write_rows
from vivace_rubrics.criteria import Exchange

DONORS = 32
"""Conversations at most that stand before others: their recordings are held in memory."""
ROWS_AT_A_TIME = 32
"""A row group."""


@dataclass(frozen=True)
class Turn:
    """One exchange of a joined conversation, and the recording of its user turn where there is one."""

    exchange: Exchange
    audio: bytes | None


@dataclass(frozen=True)
class Joined:
    """What was written."""

    conversations: int
    user_turns: int
    own: int
    """Of these user turns."""


def join_set(source: ConversationSet, chosen: Sequence[Conversation], *, turns: int, out: Path) -> Joined:
    """Put answered turns of other conversations before the chosen ones, and write them in the public dataset's form.

    The last turn and its criteria stay each conversation's own. What comes before are the first conversations of the
    set that have answered turns, from another one on for each, whole as long as there is room.

    Args:
        source: the set.
        chosen: its conversations to write.
        turns: user turns at most that each is to have; one that has as many stays as it is.
        out: a parquet file, which appears when it is complete.

    Raises:
        UsageError: no other conversation has an answered turn, a recording is missing, or the file cannot be written.
    """
    donors = [one for one in source.conversations if _answered(one)][:DONORS]
    if not any(donor.id != one.id for one in chosen for donor in donors):
        raise UsageError(f"No other conversation of '{source.name}' has a turn with an answer, to stand before one.")
    before = {key: own[:-1] for key, own in _with_turns(source, donors)}
    has_checks = "rubric_checks" in source.table.columns
    lengths: list[int] = []

    def rows() -> Iterator[dict[str, Any]]:
        by_id = {conversation.id: conversation for conversation in chosen}
        for place, (key, own) in enumerate(_with_turns(source, chosen)):
            others = [told for donor, told in before.items() if donor != key]
            first = place % max(len(others), 1)
            history = [turn for told in (*others[first:], *others[:first]) for turn in told]
            whole = [*history[: max(turns - len(own), 0)], *own]
            lengths.append(len(whole))
            yield _row(by_id[key], whole, has_checks)

    unfinished = unfinished_file(out)
    try:
        schema = public_schema(None, checks=has_checks, metadata={}, audio=source.has_audio)
        write_rows(unfinished, rows(), schema, ROWS_AT_A_TIME)
        unfinished.replace(out)
    except OSError as error:
        raise UsageError(f"'{out}' cannot be written ({error.strerror or error}).") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return Joined(len(chosen), sum(lengths), sum(len(conversation.exchanges) for conversation in chosen))


def _answered(conversation: Conversation) -> bool:
    """Whether turns come before its last one, and all of them have an answer."""
    before = conversation.exchanges[:-1]
    return bool(before) and all(exchange.assistant for exchange in before)


def _with_turns(source: ConversationSet, chosen: Sequence[Conversation]) -> Iterator[tuple[str, list[Turn]]]:
    """Conversations by their ids, each with its turns."""
    if source.has_audio:
        for conversation, recordings in source.recordings(chosen):
            yield conversation.id, [Turn(*pair) for pair in zip(conversation.exchanges, recordings, strict=True)]
    else:
        for conversation in chosen:
            yield conversation.id, [Turn(exchange, None) for exchange in conversation.exchanges]


def _row(conversation: Conversation, turns: Sequence[Turn], has_checks: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"id": conversation.id, "axis": conversation.axis}
    for number, turn in enumerate(turns, start=1):
        row[f"user_turn_{number}_transcript"] = turn.exchange.user
        if turn.audio is not None:
            name = f"{conversation.id}_user_turn_{number}.{container(turn.audio)}"
            row[f"user_turn_{number}_audio"] = {"bytes": turn.audio, "path": name}
        if number < len(turns):
            row[f"assistant_turn_{number}_transcript"] = turn.exchange.assistant
    row["rubric"] = json.dumps([criterion.text for criterion in conversation.criteria], ensure_ascii=False)
    if has_checks:
        checks = [criterion.machine_check for criterion in conversation.criteria]
        row["rubric_checks"] = json.dumps(checks, ensure_ascii=False)
    return row
