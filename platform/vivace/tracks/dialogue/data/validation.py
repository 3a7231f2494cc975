"""Finds everything that is wrong or odd in a set of conversations, so that whoever makes one mends it in one go.

A **fault** is what a run refuses; a **warning** is what a run takes, but which may not be meant.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from vivace.audio.convert import AudioError
from vivace.audio.measure import Measurement, measure
from vivace.errors import UsageError
from vivace.files.recordings import RecordingError, recording_file
from vivace.files.text import JSON_SUFFIXES, LONGEST_ROWS, parse_rows, read_text
from vivace.tracks.dialogue.data.conversations import (
    AUDIO_COLUMNS,
    MOST_USER_TURNS,
    TEXT_COLUMNS,
    Conversation,
    RowSource,
    axis_fault,
    parse_conversation,
    strange_columns,
)
from vivace.tracks.dialogue.data.readers import (
    ParquetTable,
    columns_of,
    open_conversations,
    parquet_files,
)
from vivace_rubrics.checks import CheckError, parse_check
from vivace_rubrics.criteria import Axis
from vivace_rubrics.json_text import parse_json
from vivace_rubrics.texts import is_blank

LONGEST_TURN_S = 300.0
NEEDED_COLUMNS = ("id", "axis", "user_turn_1_transcript", "rubric")


class Severity(StrEnum):
    """Whether a run refuses it."""

    FAULT = "fault"
    WARNING = "warning"


class Kind(StrEnum):
    """What can be found."""

    UNREADABLE = "unreadable"
    MISSING_COLUMN = "missing column"
    STRANGE_COLUMN = "strange column"
    NO_CONVERSATIONS = "no conversations"
    BAD_ID = "bad id"
    REPEATED_ID = "repeated id"
    UNKNOWN_AXIS = "unknown axis"
    NOT_TEXT = "not text"
    NO_USER_TURN = "no user turn"
    BAD_RUBRIC = "bad rubric"
    BAD_CHECK = "bad check"
    MISSING_RECORDING = "missing recording"
    BROKEN_RECORDING = "broken recording"
    REFUSED = "refused"

    NO_AUDIO = "no audio"
    OUTER_BLANKS = "outer blanks"
    MISSING_TRANSCRIPT = "missing transcript"
    MISSING_ASSISTANT_TURN = "missing assistant turn"
    PAST_THE_END = "past the end"
    REPEATED_CRITERION = "repeated criterion"
    SILENT = "silent"
    CLIPPED = "clipped"
    LONG = "long"


WHAT_TO_DO = {
    Kind.UNREADABLE: "mend or replace it",
    Kind.MISSING_COLUMN: "add the column, or rename the one that holds this",
    Kind.STRANGE_COLUMN: "rename the column, or leave it out if it is something else",
    Kind.NO_CONVERSATIONS: "give data with at least one row",
    Kind.BAD_ID: "give every conversation a short id of printable characters",
    Kind.REPEATED_ID: "give one of the two another id, or remove it",
    Kind.UNKNOWN_AXIS: f"use one of {', '.join(Axis)}, or another name of your own",
    Kind.NOT_TEXT: "write it as a string, or leave it empty",
    Kind.NO_USER_TURN: "write what the user says, or remove the conversation",
    Kind.BAD_RUBRIC: "write the rubric as a JSON list of sentences",
    Kind.BAD_CHECK: "write one check or null for each rubric item",
    Kind.MISSING_RECORDING: "add the recording, or use the set with --audio transcript only",
    Kind.BROKEN_RECORDING: "record or export it again, or remove the conversation",
    Kind.REFUSED: "mend it",
    Kind.NO_AUDIO: "nothing, if transcripts are what models shall be given; `vivace data voice` speaks them",
    Kind.OUTER_BLANKS: "nothing: they are stripped",
    Kind.MISSING_TRANSCRIPT: "transcribe the turn: the judge reads nothing of it",
    Kind.MISSING_ASSISTANT_TURN: "nothing, if two user turns in a row are meant; else add the assistant's",
    Kind.PAST_THE_END: "nothing, if it shall be ignored; else transcribe the user turn it belongs to",
    Kind.REPEATED_CRITERION: "nothing, if it shall count as often; else remove one",
    Kind.SILENT: "listen to it, and record it again if there should be speech",
    Kind.CLIPPED: "listen to it, and record it again at a lower level if it is distorted",
    Kind.LONG: "see that it is one turn, and that the models to be tested take so much audio",
}
"""The remedy for each kind, as the end of a sentence."""

WARNINGS = frozenset(list(Kind)[list(Kind).index(Kind.NO_AUDIO) :])


@dataclass(frozen=True)
class DataFinding:
    """One thing wrong or odd, and where."""

    kind: Kind
    source: str
    """The file or dataset."""
    row: int | None
    """Counted from 1; in a JSONL file the line. None for what concerns the whole source."""
    conversation: str | None
    column: str | None
    what: str

    @property
    def severity(self) -> Severity:
        """Whether a run refuses it."""
        return Severity.WARNING if self.kind in WARNINGS else Severity.FAULT

    def as_row(self) -> dict[str, Any]:
        """All of it, for printing."""
        return {"severity": str(self.severity), **asdict(self), "what_to_do": WHAT_TO_DO[self.kind]}


@dataclass
class Validation:
    """What a set holds, and everything found in it."""

    findings: list[DataFinding]
    conversations: int = 0
    criteria: int = 0
    user_turns: int = 0
    recordings: int = 0
    audio_s: float = 0.0

    def count(self, severity: Severity) -> int:
        """How many findings are of this severity."""
        return sum(finding.severity is severity for finding in self.findings)


def validate(data: str, progress: Callable[[int, None], None]) -> Validation:
    """Read everything that `--data` names, decode every recording, and list all that is found.

    Args:
        data: demo, a file or folder, or hub-id@revision.
        progress: told how many rows are checked; how many there are is not known.

    Raises:
        UsageError: there is no such source, or it cannot be opened at all.
        UnreachableError: the hub does not answer.
    """
    result = Validation([])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        seen: dict[str, str] = {}

        def check(table: RowSource) -> tuple[Conversation, ...]:
            _Source(table.source, result, seen, pool, progress).check_table(table)
            return ()

        path = Path(data)
        if path.is_file() and path.suffix.lower() in JSON_SUFFIXES:
            _Source(f"the data '{path}'", result, seen, pool, progress).check_json(path)
        elif path.is_dir():
            for file in parquet_files(path):
                try:
                    check(ParquetTable([file]))
                except UsageError as error:
                    found = DataFinding(
                        Kind.UNREADABLE, f"the data '{file}'", None, None, None, str(error).rstrip(".")
                    )
                    result.findings.append(found)
        else:
            open_conversations(data, check)
    if not result.conversations and not result.count(Severity.FAULT):
        result.findings.append(
            DataFinding(Kind.NO_CONVERSATIONS, data, None, None, None, "there are no conversations")
        )
    return result


class _Source:
    """The check of one file or dataset.

    Args:
        name: what a finding calls it.
        result: where findings and counts go.
        seen: the ids met so far, with where; shared by the files of a folder.
        pool: decodes recordings.
        progress: told how many rows are checked; how many there are is not known.
    """

    def __init__(
        self,
        name: str,
        result: Validation,
        seen: dict[str, str],
        pool: ThreadPoolExecutor,
        progress: Callable[[int, None], None],
    ) -> None:
        self._name = name
        self._result = result
        self._seen = seen
        self._pool = pool
        self._progress = progress
        self._folder: Path | None = None
        self._row: int | None = None
        self._id: str | None = None
        self._faults = 0

    def check_table(self, table: RowSource) -> None:
        """Check all rows of a table."""
        present = [column for column in (*TEXT_COLUMNS, *AUDIO_COLUMNS) if column in table.columns]
        try:
            self._check_rows(enumerate(table.rows(present), start=1), table.columns)
        except UsageError as error:
            read, self._row, self._id = self._row or 0, None, None
            self._found(Kind.UNREADABLE, None, f"{str(error).rstrip('.')}; only the first {read} rows were read")

    def check_json(self, path: Path) -> None:
        """Check all rows of a file of JSON, also behind one that is none."""
        rows = []
        kind, values = parse_rows(read_text(path, "data", LONGEST_ROWS))
        for number, value in values:
            if isinstance(value, dict):
                rows.append((number, {key.lower(): each for key, each in value.items()}))
                continue
            self._row = number
            why = f"is not JSON ({value})" if isinstance(value, ValueError) else "is not a JSON object"
            self._found(Kind.UNREADABLE, None, f"the {kind.lower()} {why}")
        self._folder = path.parent
        self._check_rows(iter(rows), columns_of([row for _, row in rows]))

    def _check_rows(self, rows: Iterator[tuple[int, dict[str, Any]]], columns: Sequence[str]) -> None:
        missing = [column for column in NEEDED_COLUMNS if column not in columns]
        has_audio = any(column in columns for column in AUDIO_COLUMNS)
        self._row = None
        first = True
        for number, row in rows:
            if first:
                for column in missing:
                    self._found(Kind.MISSING_COLUMN, column, f"there is no column '{column}'")
                for column, meant in strange_columns(columns).items():
                    self._found(Kind.STRANGE_COLUMN, column, meant)
                if not has_audio:
                    self._found(Kind.NO_AUDIO, None, "there are transcripts, and no column of recordings")
                first = False
            self._row = number
            self._check_row(row, set(missing), has_audio)
            self._progress(self._result.conversations, None)

    def _check_row(self, row: dict[str, Any], missing: set[str], has_audio: bool) -> None:
        faults = self._faults
        self._check_id(row, missing)
        fault = None if "axis" in missing else axis_fault(row.get("axis"))
        if fault is not None:
            self._found(Kind.UNKNOWN_AXIS, "axis", fault)
        last = self._check_turns(row, has_audio)
        criteria = 0 if "rubric" in missing else self._check_rubric(row)
        self._result.conversations += 1
        self._result.criteria += criteria
        self._result.user_turns += last
        if has_audio:
            self._check_recordings(row, last)
        if not missing and self._faults == faults:
            # Whatever a run's own reader refuses besides must not pass here.
            try:
                parse_conversation(self._id or "", row, self._name)
            except UsageError as error:
                self._found(Kind.REFUSED, None, str(error).rstrip("."))

    def _check_id(self, row: dict[str, Any], missing: set[str]) -> None:
        key = row.get("id")
        self._id = key if isinstance(key, str) and key.strip() else None
        if "id" in missing:
            return
        if self._id is None:
            self._found(Kind.BAD_ID, "id", "there is no id" if key in (None, "") else f"the id is {key!r}")
            return
        if not self._id.isprintable():
            self._found(Kind.BAD_ID, "id", f"the id {self._id!r} holds unprintable characters")
        here = f"row {self._row} of {self._name}"
        if (before := self._seen.setdefault(self._id, here)) != here:
            self._found(Kind.REPEATED_ID, "id", f"the id stands in {before}, too")

    def _check_turns(self, row: dict[str, Any], has_audio: bool) -> int:
        """The number of user turns, the last of which is the last with a transcript."""
        numbers = range(1, MOST_USER_TURNS + 1)
        users = {n for n in numbers if self._text(row, f"user_turn_{n}_transcript")}
        assistants = {n for n in numbers[:-1] if self._text(row, f"assistant_turn_{n}_transcript")}
        last = max(users, default=0)
        if not users and "user_turn_1_transcript" in row:
            self._found(Kind.NO_USER_TURN, "user_turn_1_transcript", "no user turn has a transcript")
        for n in range(1, last):
            if n not in users:
                self._found(Kind.MISSING_TRANSCRIPT, f"user_turn_{n}_transcript", "the user turn has no transcript")
            if n not in assistants:
                self._found(
                    Kind.MISSING_ASSISTANT_TURN,
                    f"assistant_turn_{n}_transcript",
                    f"there is no assistant turn between user turns {n} and {n + 1}",
                )
        for n in numbers:
            if n >= max(last, 1) and n in assistants:
                column = f"assistant_turn_{n}_transcript"
                self._found(Kind.PAST_THE_END, column, "an assistant turn stands behind the last user transcript")
            if n > last and has_audio and row.get(f"user_turn_{n}_audio") is not None:
                column = f"user_turn_{n}_audio"
                self._found(Kind.PAST_THE_END, column, "a recording stands behind the last user transcript")
        return last

    def _text(self, row: dict[str, Any], column: str) -> str | None:
        value = row.get(column)
        if value is None:
            return None
        if not isinstance(value, str):
            self._found(Kind.NOT_TEXT, column, f"it holds {value!r:.60}")
            return None
        stripped = "" if is_blank(value) else value.strip()
        if stripped and stripped != value:
            self._found(Kind.OUTER_BLANKS, column, "the text begins or ends with blanks")
        return stripped or None

    def _check_rubric(self, row: dict[str, Any]) -> int:
        """The number of rubric items."""
        items = self._json_list(row.get("rubric"), Kind.BAD_RUBRIC, "rubric")
        if items is None:
            return 0
        if not items:
            self._found(Kind.BAD_RUBRIC, "rubric", "the rubric is empty")
        places = defaultdict(list)
        for number, item in enumerate(items, start=1):
            if not isinstance(item, str) or is_blank(item):
                self._found(Kind.BAD_RUBRIC, "rubric", f"item {number} is {item!r:.60} and not a sentence")
            else:
                places[" ".join(item.casefold().split())].append(number)
                if item != item.strip():
                    self._found(Kind.OUTER_BLANKS, "rubric", f"item {number} begins or ends with blanks")
        for numbers in places.values():
            if len(numbers) > 1:
                listed = ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"
                self._found(
                    Kind.REPEATED_CRITERION, "rubric", f"items {listed} are the same: {items[numbers[0] - 1]!r}"
                )
        if row.get("rubric_checks") is not None:
            self._check_checks(row["rubric_checks"], len(items))
        return len(items)

    def _check_checks(self, value: Any, items: int) -> None:
        checks = self._json_list(value, Kind.BAD_CHECK, "rubric_checks")
        if checks is None:
            return
        if len(checks) != items:
            self._found(Kind.BAD_CHECK, "rubric_checks", f"there are {len(checks)} checks for {items} rubric items")
        for number, check in enumerate(checks, start=1):
            if check is not None:
                try:
                    parse_check(check)
                except CheckError as error:
                    self._found(Kind.BAD_CHECK, "rubric_checks", f"item {number}: {str(error).rstrip('.')}")

    def _json_list(self, value: Any, kind: Kind, column: str) -> list[Any] | None:
        if isinstance(value, str):
            try:
                value = parse_json(value)
            except ValueError as error:
                self._found(kind, column, f"it is not JSON ({error})")
                return None
        if not isinstance(value, list):
            self._found(kind, column, f"it is not a JSON list but {value!r:.60}")
            return None
        return value

    def _check_recordings(self, row: dict[str, Any], last: int) -> None:
        contents: dict[str, bytes] = {}
        for column in AUDIO_COLUMNS[:last]:
            cell = row.get(column)
            content = cell.get("bytes") if isinstance(cell, dict) else cell
            if self._folder is not None and cell is not None:
                try:
                    contents[column] = recording_file(self._folder, cell).read_bytes()
                except (RecordingError, OSError) as error:
                    self._found(Kind.MISSING_RECORDING, column, getattr(error, "strerror", None) or str(error))
            elif isinstance(content, bytes):
                contents[column] = content
            elif isinstance(cell, dict) and cell.get("path"):
                self._found(Kind.MISSING_RECORDING, column, f"there is a path, {cell['path']!r}, and no bytes")
            else:
                self._found(Kind.MISSING_RECORDING, column, "the user turn has no recording")
        for column, measured in zip(contents, self._pool.map(_measured, contents.values()), strict=True):
            if isinstance(measured, AudioError):
                self._found(Kind.BROKEN_RECORDING, column, str(measured))
            else:
                self._result.recordings += 1
                self._result.audio_s += measured.seconds
                self._judge(column, measured)

    def _judge(self, column: str, measured: Measurement) -> None:
        if measured.is_silent:
            self._found(Kind.SILENT, column, "the recording is silent")
        if measured.clipped_stretches:
            what = f"the recording is cut off at full scale {measured.clipped_stretches:,} times"
            self._found(Kind.CLIPPED, column, what)
        if measured.seconds > LONGEST_TURN_S:
            self._found(Kind.LONG, column, f"the recording lasts {measured.seconds / 60:.1f} minutes")

    def _found(self, kind: Kind, column: str | None, what: str) -> None:
        finding = DataFinding(kind, self._name, self._row, self._id, column, what)
        self._faults += finding.severity is Severity.FAULT
        self._result.findings.append(finding)


def _measured(content: bytes) -> Measurement | AudioError:
    try:
        return measure(content)
    except AudioError as error:
        return error
