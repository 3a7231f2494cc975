"""Where conversations come from: the demo set, parquet and JSONL files, and datasets on the hub at a revision."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vivace.errors import UsageError
from vivace.files.hub import commit_of, short, snapshot
from vivace.files.recordings import RecordingError, recording_file
from vivace.files.splits import data_files, files_of_split
from vivace.files.text import JSON_SUFFIXES, json_rows, read_text
from vivace.tracks.dialogue.data.conversations import (
    AUDIO_COLUMNS,
    SPEAKER_COLUMN,
    VOICES_KEY,
    Conversation,
    ConversationSet,
    RowSource,
    read_conversations,
)
from vivace_rubrics.prompts import prompt_from_card

Reader = Callable[[RowSource], tuple[Conversation, ...]]

PROMPT_FILE = "judge_prompt.txt"
CARD_FILE = "README.md"
READ_BUFFER = 1 << 16
"""Bytes that are read at a time of a column in a parquet file."""

PINNED_REVISIONS = {"ScaleAI/audiomc": "90ea11040fd05f41cf433b90f97ada45d847c500"}
"""The revision taken of a known dataset where none is named."""


def open_conversations(data: str, read: Reader = read_conversations) -> ConversationSet:
    """The conversations that `--data` names: `demo`, a file or folder, or `hub-id@revision`.

    Args:
        data: what `--data` was given.
        read: what makes conversations of the rows; the usual one stops at the first fault.

    Raises:
        UsageError: there is no such source, or what it holds is not a set of conversations.
        UnreachableError: the hub does not answer, and the dataset is not in its local cache.
    """
    if data == "demo":
        from vivace.demo import DATA

        return _local(DATA, "demo", read)
    path = Path(data)
    if path.exists():
        return _local(path, path.name, read)
    if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", data) and path.suffix.lower() not in (".parquet", *JSON_SUFFIXES):
        dataset, _, revision = data.partition("@")
        return _from_hub(dataset, revision or PINNED_REVISIONS.get(dataset), read)
    raise UsageError(
        f"There is no file or folder '{data}'; --data takes demo, a .parquet, .jsonl or .json file, a folder of "
        "parquet files, or hub-id@revision."
    )


def _local(path: Path, name: str, read: Reader) -> ConversationSet:
    table: JsonTable | ParquetTable
    if path.is_file() and path.suffix.lower() in JSON_SUFFIXES:
        table = JsonTable(path)
        files = [path, *table.recordings]
    else:
        files = parquet_files(path)
        table = ParquetTable(files)
    return ConversationSet(
        name=name,
        revision=_sha256_of(files),
        conversations=read(table),
        has_audio=any(column in table.columns for column in AUDIO_COLUMNS),
        judge_prompt=_local_prompt(path if path.is_dir() else path.parent),
        table=table,
    )


def files_beside(path: Path) -> list[Path]:
    """The files that are read with a file of conversations: its recordings, and the prompt or the card beside it.

    Raises:
        UsageError: the file cannot be read, or names a recording that is not there.
    """
    beside = [path.parent / name for name in (PROMPT_FILE, CARD_FILE)]
    found = [each for each in beside if each.is_file()]
    return found + (JsonTable(path).recordings if path.suffix.lower() in JSON_SUFFIXES else [])


def parquet_files(path: Path) -> list[Path]:
    """The files of a set: the one, or those of a folder's test split.

    Raises:
        UsageError: there are none, or it cannot be told which belong to that split.
    """
    if not path.is_dir():
        return [path]
    files = files_of_split(path, data_files(path, [".parquet"]), "test")
    if not files:
        raise UsageError(
            f"The folder '{path}' holds no .parquet files; `vivace data build` makes one of recordings and a sheet."
        )
    return files


def _sha256_of(files: Sequence[Path]) -> str:
    digests = []
    for file in files:
        with file.open("rb") as opened:
            digests.append(hashlib.file_digest(opened, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _local_prompt(folder: Path) -> str | None:
    """The prompt beside the data: `judge_prompt.txt`, else the one printed in the card `README.md`."""
    prompt, card = folder / PROMPT_FILE, folder / CARD_FILE
    for file in (prompt, card):
        if file.is_file():
            text = read_text(file, "file beside the data,")
            return text.strip() if file == prompt else prompt_from_card(text)
    return None


class JsonTable:
    """A file of JSON rows: texts, and recordings by the paths of their files, which lie in the file's folder."""

    def __init__(self, path: Path) -> None:
        self.source = f"the data '{path}'"
        self.recordings: list[Path] = []
        """The files of all recordings, in the order of rows and turns."""
        self._rows: list[dict[str, Any]] = []
        for place, given in json_rows(path, "data"):
            row = {key.lower(): value for key, value in given.items()}
            for column in AUDIO_COLUMNS:
                if row.get(column) is not None:
                    try:
                        row[column] = recording_file(path.parent, row[column])
                    except RecordingError as error:
                        raise UsageError(f"{place}, {column}: {error}.") from error
                    self.recordings.append(row[column])
            self._rows.append(row)
        self.columns = columns_of(self._rows)

    def rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Every row with these columns; recordings are read from their files."""
        for row in self._rows:
            yield {column: _with_bytes(row.get(column)) for column in columns}


def columns_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The columns of rows of JSON; one of recordings counts where a row has one."""
    return sorted(
        {key for row in rows for key, value in row.items() if key not in AUDIO_COLUMNS or value is not None}
    )


def _with_bytes(value: Any) -> Any:
    if not isinstance(value, Path):
        return value
    try:
        return {"bytes": value.read_bytes(), "path": value.name}
    except OSError as error:
        raise UsageError(f"The recording '{value}' cannot be read ({error.strerror}).") from error


class ParquetTable:
    """One or more parquet files, read in small batches so that hours of audio never lie in memory."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.source = f"the data '{files[0] if len(files) == 1 else files[0].parent}'"
        self._files = files
        first, names = self._open(files[0])
        voiced = SPEAKER_COLUMN not in names and _speakers(first)
        self.columns = [*names, SPEAKER_COLUMN] if voiced else list(names)

    def rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Every row with these columns."""
        import pyarrow

        heavy = any(column in AUDIO_COLUMNS for column in columns)
        for file in self._files:
            parquet, names = self._open(file)
            speakers = {} if SPEAKER_COLUMN in names or SPEAKER_COLUMN not in columns else _speakers(parquet)
            present = [names[column] for column in columns if column in names]
            try:
                for row in _rows_of(parquet, present, 4 if heavy else 256):
                    read = {key.lower(): value for key, value in row.items()}
                    yield {**read, SPEAKER_COLUMN: speakers.get(read["id"])} if speakers else read
            except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
                raise UsageError(f"The parquet file '{file}' is damaged ({short(error)}); fetch it again.") from error

    def _open(self, file: Path) -> tuple[Any, dict[str, str]]:
        """A file, and its columns: lower case → as they are written in it."""
        import pyarrow
        import pyarrow.parquet

        try:
            if file.stat().st_size == 0:
                raise UsageError(f"The parquet file '{file}' is empty; fetch it again.")
            # A buffer, for without one it reads a row group's whole columns at once, and its audio lies in memory.
            opened = pyarrow.parquet.ParquetFile(file, page_checksum_verification=True, buffer_size=READ_BUFFER)
            return opened, {name.lower(): name for name in opened.schema_arrow.names}
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"The file '{file}' is not a whole parquet file ({short(error)}); fetch it again, or give another "
                "with --data."
            ) from error


def _rows_of(parquet: Any, columns: Sequence[str], batch_size: int) -> Iterator[dict[str, Any]]:
    # One row group after the other: asked for all of them, pyarrow keeps what it has read of each until the end.
    for group in range(parquet.num_row_groups):
        for batch in parquet.iter_batches(batch_size, [group], list(columns), use_threads=False):
            yield from batch.to_pylist()


def _speakers(parquet: Any) -> dict[str, str]:
    """Conversation → who speaks it, where the file's metadata say so, as those of a voiced set do."""
    try:
        return dict(json.loads((parquet.schema_arrow.metadata or {})[VOICES_KEY])["speakers"])
    except (KeyError, TypeError, ValueError):
        return {}


class HubTable:
    """A dataset's snapshot, read through `datasets` with its audio left undecoded.

    Args:
        name: the dataset's name on the hub, for messages.
        folder: the snapshot's folder. The hub's own loader is given the folder and not the name: without a
            network it would take the newest revision it has seen, whichever was asked for.
    """

    def __init__(self, name: str, folder: str) -> None:
        import datasets

        self.source = f"the dataset '{name}'"
        dataset = datasets.load_dataset(folder, split="test")
        for column, feature in dataset.features.items():
            if isinstance(feature, datasets.Audio):
                dataset = dataset.cast_column(column, datasets.Audio(decode=False))
        self._dataset = dataset
        self._names = {column.lower(): column for column in dataset.column_names}
        self.columns = list(self._names)

    def rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Every row with these columns."""
        names = [self._names[column] for column in columns if column in self._names]
        for row in self._dataset.select_columns(names):
            yield {key.lower(): value for key, value in row.items()}


def _from_hub(name: str, revision: str | None, read: Reader) -> ConversationSet:
    import datasets
    from datasets.exceptions import DatasetGenerationError

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    commit = commit_of("dataset", name, revision)
    folder = str(snapshot("dataset", name, commit))
    try:
        table = HubTable(name, folder)
        conversations = read(table)
    except (DatasetGenerationError, ValueError, OSError) as error:
        raise UsageError(f"The dataset '{name}' cannot be read ({short(error)}).") from error
    return ConversationSet(
        name=name,
        revision=commit,
        conversations=conversations,
        has_audio=any(column in table.columns for column in AUDIO_COLUMNS),
        judge_prompt=_local_prompt(Path(folder)),
        table=table,
    )
