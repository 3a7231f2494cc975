"""Conversations in the columns of the public dataset `ScaleAI/audiomc`, read and checked from any source."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Protocol

from vivace.errors import UsageError
from vivace_methods.suggestions import did_you_mean
from vivace_rubrics.checks import CheckError, parse_check
from vivace_rubrics.criteria import Axis, Criterion, Exchange
from vivace_rubrics.json_text import parse_json
from vivace_rubrics.texts import is_blank, storable

MOST_USER_TURNS = 8
LONGEST_AXIS = 60
"""Characters of an axis's name."""
ALIKE = 0.84
"""Above this share of characters in common (`difflib`) two names are taken to be meant as the same."""
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
    axis: str
    """One of the benchmark's four (`Axis`), or the set's own."""
    exchanges: tuple[Exchange, ...]
    criteria: tuple[Criterion, ...]
    speaker: str | None = None
    """Who speaks the user turns, where the data say so."""


class RowSource(Protocol):
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
    table: RowSource

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
                meant = did_you_mean(unknown[0], (conversation.id for conversation in chosen))
                raise UsageError(f"The data '{self.name}' has no conversation '{unknown[0]}'{meant}; check --items.")
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


def read_conversations(table: RowSource) -> tuple[Conversation, ...]:
    """All conversations of a table, checked.

    Raises:
        UsageError: a column or id is missing, an id stands twice, or a row is not a conversation.
    """
    for needed in ("id", "axis", "user_turn_1_transcript", "rubric"):
        if needed not in table.columns:
            raise UsageError(f"There is no column '{needed}' in {table.source}; see the public dataset's columns.")
    for column, meant in strange_columns(table.columns).items():
        raise UsageError(
            f"There is a column '{column}' in {table.source}: {meant}. Rename it, or leave it out if it is something "
            "else."
        )
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


def axis_fault(axis: Any) -> str | None:
    """What is wrong with an axis, in a clause; None where it is one of the four, or a name of its own."""
    if axis in list(Axis):
        return None
    if not isinstance(axis, str) or not axis.strip():
        return "there is no axis" if axis in (None, "") else f"the axis is {axis!r:.60}"
    if len(axis) > LONGEST_AXIS or not axis.isprintable() or axis != axis.strip() or axis.lower() == "all":
        return f"the axis {axis!r:.60} is no name: use a short one of printable characters, other than 'all'"
    meant = next((known for known in Axis if _look_alike(axis, known)), None)
    return None if meant is None else f"the axis {axis!r} is written otherwise than {meant}"


def _look_alike(text: str, known: str) -> bool:
    """Whether two names differ by no more than case, separators and a slip."""
    one, other = ("".join(re.findall(r"[a-z0-9]+", each.lower())) for each in (text, known))
    return re.findall(r"\d+", one) == re.findall(r"\d+", other) and SequenceMatcher(None, one, other).ratio() > ALIKE


_TURN_COLUMN = re.compile(r"(user|assistant)_?turn_?(\d{1,9})_?(.*)")
_OTHER_WORDS = {
    "transcript": ("text", "content", "transcription", "words"),
    "audio": ("wav", "mp3", "file", "path", "recording", "sound", "speech", "audio_path", "audio_file"),
}
"""What others call the columns of a turn."""


def strange_columns(columns: Sequence[str]) -> dict[str, str]:
    """Columns that look like one of ours and are none, so that what they hold would be ignored without a word.

    Args:
        columns: all that the set has, in lower case.

    Returns:
        Column → what is meant, as the end of a sentence. What looks like a column that the set has is left alone.
    """
    known = (*TEXT_COLUMNS, *AUDIO_COLUMNS, SPEAKER_COLUMN)
    absent = [column for column in known if column not in columns]
    strange = {}
    for column in columns:
        if column in known:
            continue
        turn = _TURN_COLUMN.fullmatch(column)
        meant = next((each for each in absent if _look_alike(column, each)), None)
        if turn is not None and not 1 <= int(turn[2]) <= MOST_USER_TURNS - (turn[1] == "assistant"):
            most = f"{MOST_USER_TURNS} user turns with an assistant's between them"
            strange[column] = f"a conversation has at most {most}"
        elif turn is not None and meant is None:
            kind = next((kind for kind, words in _OTHER_WORDS.items() if turn[3] in words), None)
            meant = f"{turn[1]}_turn_{turn[2]}_{kind}"
            meant = meant if meant in absent else None
        if meant is not None:
            strange[column] = f"'{meant}' is what is read"
    return strange


def parse_conversation(key: str, row: dict[str, Any], source: str) -> Conversation:
    """One row as a conversation.

    Raises:
        UsageError: it is none; the first fault is named.
    """
    where = f"Conversation '{key}' of {source}"
    axis = row.get("axis")
    fault = axis_fault(axis)
    if fault is not None:
        raise UsageError(f"{where}: {fault}.")
    speaker = _text(row, SPEAKER_COLUMN, where)
    return Conversation(key, str(axis), _exchanges(row, where), _criteria(row, where), speaker)


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
