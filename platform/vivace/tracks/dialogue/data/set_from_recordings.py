"""Makes a set in the public dataset's form of a folder of recordings and a sheet that says who says what.

A sheet is CSV, YAML or JSON. Its rows are lines (one for each turn and each rubric item), or conversations with their
`turns` and `rubric`, or have the public dataset's columns; whichever it is, they become drafts of the same lines.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vivace.audio.containers import AudioError, container
from vivace.audio.measure import measure
from vivace.errors import UsageError
from vivace.files.recordings import RecordingError, recording_file
from vivace.files.text import JSON_SUFFIXES, LONGEST_ROWS, json_rows, read_text, read_yaml
from vivace.tracks.dialogue.data.conversations import (
    AUDIO_COLUMNS,
    MOST_USER_TURNS,
    SPEAKER_COLUMN,
    TEXT_COLUMNS,
    axis_fault,
    strange_columns,
)
from vivace.tracks.dialogue.data.writer import public_schema, unfinished_file, write_rows
from vivace_methods.suggestions import did_you_mean
from vivace_rubrics.checks import CheckError, parse_check
from vivace_rubrics.json_text import parse_json
from vivace_rubrics.texts import is_blank, storable

SHEET_SUFFIXES = (".csv", ".tsv", ".yaml", ".yml", *JSON_SUFFIXES)
ROWS_AT_A_TIME = 4
"""A row group: recordings as they come from a recorder are large."""
ROLES = ("user", "assistant", "rubric")
LINE_KEYS = ("role", "text", "recording", "check")
CONVERSATION_KEYS = ("id", "axis", SPEAKER_COLUMN)

Sheet = list[tuple[str, Mapping[str, Any]]]
"""Rows, each with its place in words."""


class BuildError(UsageError):
    """A folder that is no set yet; there is a sentence for everything that is wrong.

    Args:
        faults: at least one.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        rest = f" ({len(faults)} faults in all; nothing was written)" if len(faults) > 1 else ""
        super().__init__(f"{faults[0]}{rest}.")


@dataclass(frozen=True)
class Line:
    """One turn or one rubric item of a conversation, and where it stands."""

    place: str
    role: Any
    text: Any = None
    recording: Any = None
    check: Any = None


@dataclass
class Draft:
    """A conversation as a sheet has it, not yet checked."""

    place: str
    id: Any
    axis: Any = None
    speaker: Any = None
    lines: list[Line] = field(default_factory=list)


@dataclass(frozen=True)
class Built:
    """What was written."""

    conversations: int
    criteria: int
    recordings: int
    audio_s: float
    axes: tuple[str, ...]
    """In the order in which they first occur."""
    unused: tuple[str, ...]
    """Recordings in the folder that no turn names."""


def build(folder: Path, out: Path, sheet: Path | None, progress: Callable[[int, int], None]) -> Built:
    """Make a parquet file of a folder's recordings and its sheet.

    Args:
        folder: with the sheet, and the recordings at any depth.
        out: the file, which appears when it is complete.
        sheet: None for the only one of the folder.
        progress: told how many recordings are decoded, and of how many.

    Raises:
        BuildError: something is wrong; everything that is, is named.
        UsageError: there is no such folder or sheet, or the file cannot be written.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder '{folder}'; name the one with the recordings and their sheet.")
    sheet = sheet or _only_sheet(folder)
    faults: list[str] = []
    drafts = list(_drafts(_read(sheet), sheet, faults))
    checker = _Checker(folder, faults)
    rows = [checker.row(draft) for draft in drafts]
    seconds = _decoded(checker.recordings, faults, progress)
    if faults:
        raise BuildError(faults)
    _write(out, rows)
    used = {*checker.recordings, sheet.resolve()}  # UTF-16 begins as a frame of MP3 does
    return Built(
        conversations=len(rows),
        criteria=sum(len(json.loads(row["rubric"])) for row in rows),
        recordings=len(checker.recordings),
        audio_s=sum(seconds),
        axes=tuple(dict.fromkeys(row["axis"] for row in rows)),
        unused=tuple(str(file.relative_to(folder)) for file in _recordings_in(folder) if file.resolve() not in used),
    )


def _only_sheet(folder: Path) -> Path:
    found = sorted(file for file in folder.iterdir() if file.suffix.lower() in SHEET_SUFFIXES and file.is_file())
    found = [file for file in found if not file.name.startswith(".")]
    if len(found) != 1:
        listed = ", ".join(file.name for file in found)
        what = (
            f"are several sheets ({listed})"
            if found
            else f"is no sheet (a file that ends in {', '.join(SHEET_SUFFIXES)})"
        )
        raise UsageError(f"In '{folder}' there {what}; name the one of turns and rubrics with --sheet.")
    return found[0]


def _recordings_in(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not any(part[0] == "." for part in file.relative_to(folder).parts):
            try:
                with file.open("rb") as opened:
                    container(opened.read(64))
            except (AudioError, OSError):
                continue
            yield file


def _read(sheet: Path) -> Sheet:
    suffix = sheet.suffix.lower()
    if suffix in JSON_SUFFIXES:
        return list(json_rows(sheet, "sheet"))
    if suffix in (".yaml", ".yml"):
        return list(_yaml_rows(sheet))
    if suffix in (".csv", ".tsv"):
        return list(_csv_rows(sheet))
    raise UsageError(f"The sheet '{sheet}' must end in {', '.join(SHEET_SUFFIXES)}.")


def _yaml_rows(sheet: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    content = read_yaml(sheet, "sheet")
    if isinstance(content, dict) and set(content) == {"conversations"}:
        content = content["conversations"]
    if not isinstance(content, list) or not content:
        raise UsageError(
            f"The sheet '{sheet}' must be a list of conversations, each with id, axis, turns and rubric."
        )
    for number, row in enumerate(content, start=1):
        place = f"Row {number} of the sheet '{sheet}'"
        if not isinstance(row, dict):
            raise UsageError(f"{place} is not a conversation with id, axis, turns and rubric.")
        yield place, {str(key): value for key, value in row.items()}


def _csv_rows(sheet: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    text = read_text(sheet, "sheet", LONGEST_ROWS)
    heading = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=heading.count), strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        twice = next((name for place, name in enumerate(names) if name and name in names[:place]), None)
        if twice is not None:
            raise UsageError(f"The sheet '{sheet}' has two columns '{twice}'.")
        empty = True
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            place, empty = f"Line {reader.line_num} of the sheet '{sheet}'", False
            if len(cells) > len(names) and any(cell.strip() for cell in cells[len(names) :]):
                raise UsageError(
                    f"{place} has more cells than there are columns; put texts with separators in quotes."
                )
            yield place, {name: cell for name, cell in zip(names, cells, strict=False) if name and cell.strip()}
    except csv.Error as error:
        raise UsageError(f"Line {reader.line_num} of the sheet '{sheet}' is not CSV ({error}).") from error
    if empty:
        raise UsageError(f"The sheet '{sheet}' is empty.")


def _drafts(rows: Sheet, sheet: Path, faults: list[str]) -> Iterator[Draft]:
    """The conversations of a sheet, whichever of the three forms it has."""
    rows = [(place, {key.strip().lower(): value for key, value in row.items()}) for place, row in rows]
    columns = list(dict.fromkeys(key for _, row in rows for key in row))
    form = "lines" if "role" in columns else "turns" if "turns" in columns else "columns"
    known = {
        "lines": (*CONVERSATION_KEYS, *LINE_KEYS),
        "turns": (*CONVERSATION_KEYS, "turns", "rubric"),
        "columns": (*TEXT_COLUMNS, *AUDIO_COLUMNS, SPEAKER_COLUMN),
    }[form]
    strange = strange_columns(columns) if form == "columns" else {}
    for column in columns:
        if column not in known:
            listed = ", ".join(known) if form != "columns" else "role, or turns, or those of the public dataset"
            hint = strange.get(column, f"the columns are {listed}")
            meant = "" if column in strange else did_you_mean(column, known)
            faults.append(f"The sheet '{sheet}' has an unknown column '{column}'{meant}: {hint}")
    if form == "lines":
        yield from _drafts_of_lines(rows, faults)
    else:
        for place, row in rows:
            lines = _lines_of_turns(place, row, faults) if form == "turns" else _lines_of_columns(place, row, faults)
            yield Draft(place, row.get("id"), row.get("axis"), row.get(SPEAKER_COLUMN), list(lines))


def _drafts_of_lines(rows: Sheet, faults: list[str]) -> Iterator[Draft]:
    """Lines one below the other: those with the id of the line before, or none, go on with its conversation."""
    draft: Draft | None = None
    for place, row in rows:
        key = row.get("id")
        if draft is None or (key not in (None, "") and key != draft.id):
            if draft is not None:
                yield draft
            draft = Draft(place, key, row.get("axis"), row.get(SPEAKER_COLUMN))
        for name, before in (("axis", draft.axis), (SPEAKER_COLUMN, draft.speaker)):
            if row.get(name) not in (None, before):
                faults.append(
                    f"{place}: the {name} is {row[name]!r}, and {before!r} in the first line of the conversation"
                )
        draft.lines.append(Line(place, *(row.get(name) for name in LINE_KEYS)))
    if draft is not None:
        yield draft


def _lines_of_turns(place: str, row: Mapping[str, Any], faults: list[str]) -> Iterator[Line]:
    for name, keys in (("turns", LINE_KEYS), ("rubric", ("text", "check"))):
        given = row.get(name)
        if not isinstance(given, list):
            if name == "turns" or given is not None:
                faults.append(f"{place}: its {name} is no list")
            continue
        for number, each in enumerate(given, start=1):
            where = f"{place}, {'turn' if name == 'turns' else 'rubric item'} {number}"
            if name == "rubric" and isinstance(each, str):
                each = {"text": each}
            if not isinstance(each, dict):
                faults.append(f"{where} is {each!r:.60} and not {', '.join(keys)}")
                continue
            unknown = sorted(set(map(str, each)) - set(keys))
            if unknown:
                meant = did_you_mean(unknown[0], keys)
                faults.append(f"{where} has an unknown key '{unknown[0]}'{meant}; the keys are {', '.join(keys)}")
            role = "rubric" if name == "rubric" else each.get("role")
            yield Line(where, role, each.get("text"), each.get("recording"), each.get("check"))


def _lines_of_columns(place: str, row: Mapping[str, Any], faults: list[str]) -> Iterator[Line]:
    for number in range(1, MOST_USER_TURNS + 1):
        for role in ("user", "assistant"):
            text, recording = (row.get(f"{role}_turn_{number}_{kind}") for kind in ("transcript", "audio"))
            if text is not None or recording is not None:
                yield Line(f"{place}, {role} turn {number}", role, text, recording)
    items, checks = (_listed(name, row.get(name), place, faults) for name in ("rubric", "rubric_checks"))
    if checks and len(checks) != len(items):
        faults.append(f"{place} has {len(items)} rubric items and {len(checks)} rubric_checks")
        checks = []
    for number, text in enumerate(items):
        check = checks[number] if checks else None
        yield Line(f"{place}, rubric item {number + 1}", "rubric", text, check=check)


def _listed(name: str, value: Any, place: str, faults: list[str]) -> list[Any]:
    """A list as it is or as JSON; of any other text its lines."""
    if isinstance(value, str):
        parsed = None
        try:
            parsed = parse_json(value)
        except ValueError as error:
            if value.lstrip().startswith("["):
                faults.append(f"{place}: its {name} begins as a JSON list and is none ({error})")
        value = parsed if isinstance(parsed, list) else [line for line in value.splitlines() if line.strip()]
    return value if isinstance(value, list) else [] if value is None else [value]


class _Checker:
    """Makes rows of drafts, and notes all that is wrong with them.

    Args:
        folder: with the recordings.
        faults: where it is noted.
    """

    def __init__(self, folder: Path, faults: list[str]) -> None:
        self.recordings: dict[Path, str] = {}
        """The files named, each with the place of the turn that names it."""
        self._folder = folder
        self._faults = faults
        self._ids: dict[str, str] = {}

    def row(self, draft: Draft) -> dict[str, Any]:
        """A conversation in the public columns, with the files of its recordings."""
        key = self._id(draft)
        row: dict[str, Any] = {"id": key, "axis": draft.axis}
        fault = axis_fault(draft.axis)
        if fault is not None:
            self._faults.append(f"{draft.place}: {fault}")
        if draft.speaker is not None:
            row[SPEAKER_COLUMN] = self._text(draft.place, "speaker", draft.speaker)
        turn, before, is_readable = 0, None, True
        rubric, checks = list[str](), list[Any]()
        for line in draft.lines:
            role = line.role.strip().lower() if isinstance(line.role, str) else line.role
            if role == "rubric":
                rubric.append(self._text(line.place, "rubric item", line.text))
                checks.append(self._check(line))
                continue
            if role not in ROLES:
                self._faults.append(f"{line.place}: the role is {line.role!r:.60}; it is {', '.join(ROLES)}")
                is_readable = False
                continue
            if role == "user":
                turn += 1
                row[f"user_turn_{turn}_transcript"] = self._text(line.place, "user turn", line.text)
                row[f"user_turn_{turn}_audio"] = self._recording(line)
            else:
                if is_readable:
                    self._check_assistant(line, before)
                row[f"assistant_turn_{turn}_transcript"] = self._text(line.place, "assistant turn", line.text)
            before = role
        # Who speaks where is not known past a line that can't be read.
        if before != "user" and is_readable:
            what = "it has no turns" if before is None else "its last turn is the assistant's"
            self._faults.append(f"{draft.place}: {what}; a conversation ends with the user turn that models answer")
        if turn > MOST_USER_TURNS:
            self._faults.append(f"{draft.place} has {turn} user turns; at most {MOST_USER_TURNS} are taken")
        if not rubric:
            self._faults.append(f"{draft.place} has no rubric; write at least one sentence that a reply must meet")
        row["rubric"] = json.dumps(rubric, ensure_ascii=False)
        if any(check is not None for check in checks):
            row["rubric_checks"] = json.dumps(checks, ensure_ascii=False)
        return row

    def _id(self, draft: Draft) -> str:
        key = str(draft.id) if isinstance(draft.id, int) and not isinstance(draft.id, bool) else draft.id
        if not isinstance(key, str) or not key.strip() or not key.isprintable():
            self._faults.append(
                f"{draft.place}: {'there is no id' if key in (None, '') else f'the id is {key!r:.60}'}"
            )
            return ""
        key = key.strip()
        if key in self._ids:
            self._faults.append(f"{draft.place}: the id '{key}' stands in {self._ids[key]} already")
        self._ids.setdefault(key, draft.place)
        return key

    def _text(self, place: str, what: str, text: Any) -> str:
        if isinstance(text, str) and not is_blank(text):
            return storable(text.strip())
        why = (
            "has no text; write what is said"
            if text is None or isinstance(text, str)
            else f"is {text!r:.60} and not text"
        )
        self._faults.append(f"{place}: the {what} {why}")
        return ""

    def _check(self, line: Line) -> Any:
        check = line.check
        try:
            if isinstance(check, str):
                check = parse_json(check)
            if check is not None:
                parse_check(check)
        except (CheckError, ValueError) as error:
            self._faults.append(f"{line.place}: the check cannot be read: {str(error).rstrip('.')}")
        if line.recording is not None:
            self._faults.append(f"{line.place}: a rubric item has no recording")
        return check

    def _check_assistant(self, line: Line, before: str | None) -> None:
        if before != "user":
            first = before is None
            self._faults.append(
                f"{line.place}: {'the first turn is the assistant’s' if first else 'two assistant turns in a row'}; "
                f"{'begin with a user turn' if first else 'join them, or put the user turn between them'}"
            )
        if line.recording is not None:
            self._faults.append(f"{line.place}: an assistant turn is text, and has no recording")

    def _recording(self, line: Line) -> Path | None:
        if line.recording is None:
            self._faults.append(f"{line.place}: the user turn names no recording")
            return None
        try:
            file = recording_file(self._folder, line.recording)
        except RecordingError as error:
            self._faults.append(f"{line.place}: {error}")
            return None
        self.recordings.setdefault(file, line.place)
        return file


def _decoded(recordings: Mapping[Path, str], faults: list[str], progress: Callable[[int, int], None]) -> list[float]:
    """The seconds of every recording that decodes; a fault for every other."""

    def seconds(file: Path) -> float | str:
        try:
            return measure(file.read_bytes()).seconds
        except (AudioError, OSError) as error:
            return f"{recordings[file]}: '{file.name}': {getattr(error, 'strerror', None) or error}"

    found = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, result in enumerate(pool.map(seconds, recordings), start=1):
            if isinstance(result, str):
                faults.append(result)
            else:
                found.append(result)
            progress(number, len(recordings))
    return found


def _write(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    schema = public_schema(
        None,
        checks=any("rubric_checks" in row for row in rows),
        speakers=any(SPEAKER_COLUMN in row for row in rows),
        metadata={},
    )
    unfinished = unfinished_file(out)
    try:
        write_rows(unfinished, map(_with_recordings, rows), schema, ROWS_AT_A_TIME)
        unfinished.replace(out)
    except OSError as error:
        raise UsageError(f"'{out}' cannot be written ({error.strerror or error}).") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _with_recordings(row: dict[str, Any]) -> dict[str, Any]:
    filled = dict(row)
    for number, column in enumerate(AUDIO_COLUMNS, start=1):
        if isinstance(row.get(column), Path):
            content = row[column].read_bytes()
            filled[column] = {"bytes": content, "path": f"{row['id']}_user_turn_{number}.{container(content)}"}
    return filled
