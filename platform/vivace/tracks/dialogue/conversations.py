"""Conversations in the columns of the public dataset `ScaleAI/audiomc`, read and checked from any source."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vivace.errors import UsageError
from vivace_rubrics.checks import CheckError, parse_check
from vivace_rubrics.criteria import Axis, Criterion, Exchange
from vivace_rubrics.json_text import parse_json
from vivace_rubrics.texts import is_blank, storable

MOST_USER_TURNS = 8
TEXT_COLUMNS = (
    "id",
    "axis",
    *(f"user_turn_{n}_transcript" for n in range(1, MOST_USER_TURNS + 1)),
    *(f"assistant_turn_{n}_transcript" for n in range(1, MOST_USER_TURNS)),
    "rubric",
    "rubric_checks",
)
SPEAKER_COLUMN = "speaker"
"""Who speaks the user turns; the public dataset does not say, other sets may."""
VOICES_KEY = b"vivace.voices"
"""Key in a voiced parquet file's schema metadata: a JSON object of the source, the voices, and who speaks where."""
AUDIO_COLUMNS = tuple(f"user_turn_{n}_audio" for n in range(1, MOST_USER_TURNS + 1))


@dataclass(frozen=True)
class Conversation:
    """One conversation's text: the last exchange awaits its reply."""

    id: str
    axis: Axis
    exchanges: tuple[Exchange, ...]
    criteria: tuple[Criterion, ...]
    speaker: str | None = None
    """Who speaks the user turns, where the data say so."""


class Table(Protocol):
    """Rows of a dataset, wherever they lie; reading fewer columns reads fewer bytes."""

    @property
    def source(self) -> str:
        """What a message calls it."""
        ...

    @property
    def columns(self) -> Sequence[str]:
        """The names of all columns, lower case."""
        ...

    def rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Every row with these columns, lower case, in order.

        Raises:
            UsageError: the source cannot be read.
        """
        ...


@dataclass(frozen=True)
class ConversationSet:
    """A checked set of conversations, with a way to its audio."""

    name: str
    revision: str
    conversations: tuple[Conversation, ...]
    has_audio: bool
    judge_prompt: str | None
    """The judge prompt that the dataset itself brings."""
    table: Table

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the revision, which pins the bytes; where they lie does not count."""
        return hashlib.sha256(self.revision.encode()).hexdigest()

    def chosen(self, items: Sequence[str] | None, limit: int | None) -> tuple[Conversation, ...]:
        """The conversations asked for, in the dataset's order.

        Raises:
            UsageError: an item is not in the set.
        """
        chosen = self.conversations
        if items is not None:
            unknown = sorted(set(items) - {conversation.id for conversation in chosen})
            if unknown:
                raise UsageError(f"The data '{self.name}' has no conversation '{unknown[0]}'; check --items.")
            chosen = tuple(conversation for conversation in chosen if conversation.id in set(items))
        return chosen[:limit]

    def recordings(self, chosen: Sequence[Conversation]) -> Iterator[tuple[Conversation, list[bytes]]]:
        """Each chosen conversation with the encoded audio of its user turns, one conversation at a time.

        Raises:
            UsageError: a user turn has no audio.
        """
        wanted = {conversation.id: conversation for conversation in chosen}
        longest = max((len(conversation.exchanges) for conversation in chosen), default=0)
        for row in self.table.rows(("id", *AUDIO_COLUMNS[:longest])):
            if not wanted:
                return
            conversation = wanted.pop(row["id"], None)
            if conversation is None:
                continue
            audio = []
            for number in range(1, len(conversation.exchanges) + 1):
                cell = row.get(f"user_turn_{number}_audio")
                content = cell.get("bytes") if isinstance(cell, dict) else cell
                if not isinstance(content, bytes):
                    raise UsageError(
                        f"Conversation '{conversation.id}' of {self.table.source} has no audio for user turn "
                        f"{number}; use --audio transcript for a control without audio."
                    )
                audio.append(content)
            yield conversation, audio


def read_conversations(table: Table) -> tuple[Conversation, ...]:
    """All conversations of a table, checked.

    Raises:
        UsageError: a column or id is missing, an id stands twice, or a row is not a conversation.
    """
    for needed in ("id", "axis", "user_turn_1_transcript", "rubric"):
        if needed not in table.columns:
            raise UsageError(f"There is no column '{needed}' in {table.source}; see the public dataset's columns.")
    present = [column for column in (*TEXT_COLUMNS, SPEAKER_COLUMN) if column in table.columns]
    conversations: list[Conversation] = []
    seen: set[str] = set()
    for number, row in enumerate(table.rows(present), start=1):
        key = row.get("id")
        if not isinstance(key, str) or not key.strip():
            raise UsageError(f"Row {number} of {table.source} has no id.")
        if not key.isprintable():
            raise UsageError(f"Row {number} of {table.source} has an id with unprintable characters, {key!r}.")
        if key in seen:
            raise UsageError(f"The id '{key}' stands twice in {table.source}.")
        seen.add(key)
        conversations.append(parse_conversation(key, row, table.source))
    if not conversations:
        raise UsageError(f"There are no conversations in {table.source}.")
    return tuple(conversations)


def parse_conversation(key: str, row: dict[str, Any], source: str) -> Conversation:
    """One row as a conversation.

    Raises:
        UsageError: it is none; the first fault is named.
    """
    where = f"Conversation '{key}' of {source}"
    try:
        axis = Axis(str(row.get("axis")))
    except ValueError as error:
        raise UsageError(f"{where} has the axis {row.get('axis')!r}; the axes are {', '.join(Axis)}.") from error
    speaker = _text(row, SPEAKER_COLUMN, where)
    return Conversation(key, axis, _exchanges(row, where), _criteria(row, where), speaker)


def _exchanges(row: dict[str, Any], where: str) -> tuple[Exchange, ...]:
    users = [_text(row, f"user_turn_{n}_transcript", where) for n in range(1, MOST_USER_TURNS + 1)]
    last = max((place for place, text in enumerate(users) if text), default=-1)
    if last < 0:
        raise UsageError(f"{where} has no user turn with a transcript.")
    exchanges = []
    for place, user in enumerate(users[: last + 1]):
        assistant = _text(row, f"assistant_turn_{place + 1}_transcript", where) if place < last else None
        exchanges.append(Exchange(user, assistant))
    return tuple(exchanges)


def _text(row: dict[str, Any], column: str, where: str) -> str | None:
    value = row.get(column)
    if value is None:
        return None
    if not isinstance(value, str):
        raise UsageError(f"{where} has a '{column}' that is not text.")
    return None if is_blank(value) else storable(value.strip())


def _criteria(row: dict[str, Any], where: str) -> tuple[Criterion, ...]:
    texts = _json_list(row.get("rubric"), "rubric", where)
    if not texts or not all(isinstance(text, str) and not is_blank(text) for text in texts):
        raise UsageError(f"{where} has a rubric that is not a JSON list of sentences.")
    if row.get("rubric_checks") is None:
        return tuple(Criterion(storable(text)) for text in texts)
    checks = _json_list(row["rubric_checks"], "rubric_checks", where)
    if len(checks) != len(texts):
        raise UsageError(f"{where} has {len(texts)} rubric items and {len(checks)} rubric_checks.")
    for number, check in enumerate(checks):
        if check is not None:
            try:
                parse_check(check)
            except CheckError as error:
                raise UsageError(f"{where}, rubric_checks item {number}: {error}.") from error
    return tuple(Criterion(storable(text), check) for text, check in zip(texts, checks, strict=True))


def _json_list(value: Any, column: str, where: str) -> list[Any]:
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError as error:
            raise UsageError(f"{where} has a {column} that is not a JSON list ({error}).") from error
    if not isinstance(value, list):
        raise UsageError(f"{where} has a {column} that is not a JSON list.")
    return value
