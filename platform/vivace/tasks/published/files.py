"""Tasks whose samples are rows of local files, in the columns of the public dataset or in the form EAGLE ships."""

from __future__ import annotations

import hashlib
import random
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from vivace.errors import UsageError
from vivace.files.hub import short
from vivace.files.splits import data_files, files_of_split, patterns_of_others
from vivace.files.text import JSON_SUFFIXES, json_rows
from vivace.tasks.base import Sample, Task
from vivace.tasks.published.hub import located
from vivace_rubrics.texts import storable

Row = Mapping[str, Any]

READABLE = (*JSON_SUFFIXES, ".parquet")


class ColumnError(ValueError):
    """A row lacks a column, or it holds something else than it should; says which, to follow the row's place."""


@dataclass(frozen=True)
class FileTask(Task):
    """A task read from a file or a folder.

    Attributes:
        path: a file (.jsonl, .json, .parquet), or a folder of such files, in the order of their names; or
            such a file or folder of a dataset on the hub, HUB-ID@REVISION or HUB-ID@REVISION/FOLDER.
        split: of the files of a folder, those are left out that belong to another by their names or their folders'.
    """

    version: ClassVar[str]
    """Of the prompt's wording and of what its metric counts: another one is another task."""

    path: str = ""
    split: Literal["test", "validation", "dev", "train"] = "test"

    @property
    def revision(self) -> str:
        """The wording's version and the SHA-256 of the files."""
        return f"{self.version}:{self._files_sha256}"

    def belongs(self, path: Path) -> bool:
        """Whether a file of the folder is this task's; every one is, unless a task says otherwise."""
        return True

    @abstractmethod
    def read(self, row: Row) -> Sample | None:
        """The sample of a row, its id still to be filled in; None where the row does not have what is asked.

        Raises:
            ColumnError: a column is missing, or holds something else than it should.
        """

    def samples(self, count: int | None, seed: int) -> list[Sample]:
        """Samples of the files, shuffled by the seed.

        Raises:
            UsageError: the files are missing or damaged, or hold fewer samples.
        """
        everything = self._samples
        if count is not None and count > len(everything):
            raise UsageError(f"'{self.path}' holds {len(everything)} samples of {self.name}, not {count}.")
        order = list(range(len(everything)))
        random.Random(f"{self.name}/{seed}").shuffle(order)
        return [everything[place] for place in order[:count]]

    @cached_property
    def _paths(self) -> list[Path]:
        if not self.path:
            raise UsageError(f"The task {self.name} reads files: write {self.name}(path=FILE OR FOLDER).")
        return task_files(located(self.path, READABLE, patterns_of_others(self.split)), self.split, self.belongs)

    @cached_property
    def _files_sha256(self) -> str:
        digest = hashlib.sha256()
        for path in self._paths:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    @cached_property
    def _samples(self) -> list[Sample]:
        found: list[Sample] = []
        for path in self._paths:
            for place, row in read_rows(path):
                try:
                    sample = self.read(row)
                except ColumnError as error:
                    raise UsageError(f"{place} {error}, which {self.name} needs.") from error
                if sample is None:
                    continue
                if not sample.prompt.strip():
                    raise UsageError(f"{place} asks nothing: its prompt is empty.")
                found.append(replace(sample, id=_id_of(row, len(found))))
        if not found:
            raise UsageError(f"'{self.path}' holds no sample of {self.name} with these settings.")
        repeated = len(found) - len({sample.id for sample in found})
        return [replace(one, id=str(place)) for place, one in enumerate(found)] if repeated else found


def _id_of(row: Row, place: int) -> str:
    return storable(str(next((row[column] for column in ("question_id", "task_id", "_id") if column in row), place)))


def task_files(path: Path, split: str, belongs: Callable[[Path], bool] = lambda path: True) -> list[Path]:
    """The readable files of a path, which is one or a folder of some.

    Args:
        path: a file, which is taken whatever its name, or a folder.
        split: files of a folder that belong to another split are left out.
        belongs: whether a file of a folder is wanted.

    Raises:
        UsageError: there are none, or it cannot be told which belong to the split.
    """
    if path.is_dir():
        found = files_of_split(path, [each for each in data_files(path, READABLE) if belongs(each)], split)
    else:
        found = [path] if path.is_file() and path.suffix.lower() in READABLE else []
    if not found:
        if path.is_dir() and data_files(path, READABLE):
            raise UsageError(f"None of the files in '{path}' is of what is asked for (split {split}).")
        kinds = ", ".join(READABLE)
        raise UsageError(
            f"There is no data at '{path}' (split {split}): a file or a folder of files that end in {kinds}."
        )
    return found


def read_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """The rows of a file, each with its place in words: `Line 3 of the data 'file.jsonl'`.

    Raises:
        UsageError: the file is empty, or a part of it cannot be read.
    """
    if path.suffix.lower() != ".parquet":
        yield from json_rows(path, "data")
        return
    import pyarrow.parquet as parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:
        raise UsageError(f"The data '{path}' cannot be read ({short(error)}).") from error
    if not rows:
        raise UsageError(f"The data '{path}' is empty.")
    for number, row in enumerate(rows, start=1):
        yield f"Row {number} of the data '{path}'", row


def eagle_question(row: Row) -> str | None:
    """The first turn of a row in the form that EAGLE's benchmarks use; None for a row of another form."""
    return texts_of(row, "turns")[0] if "turns" in row else None


def eagle_references(row: Row) -> tuple[str, ...]:
    """The references of such a row, of which it may have none."""
    return texts_of(row, "reference") if row.get("reference") else ()


def text_of(row: Row, column: str) -> str:
    """The text in a column, without halves of characters, which no tokenizer takes.

    Raises:
        ColumnError: there is no such column, or it holds no text.
    """
    if column not in row:
        raise ColumnError(f"has no '{column}'")
    if not isinstance(row[column], str):
        raise ColumnError(f"has something else than text in '{column}'")
    return storable(row[column])


def texts_of(row: Row, column: str) -> tuple[str, ...]:
    """The text or texts in a column; numbers count as their text.

    Raises:
        ColumnError: there is no such column, or it holds no text.
    """
    if column not in row:
        raise ColumnError(f"has no '{column}'")
    found = row[column] if isinstance(row[column], list | tuple) else [row[column]]
    if not found or not all(isinstance(each, str | int | float) for each in found):
        raise ColumnError(f"has something else than text in '{column}'")
    return tuple(storable(str(each)) for each in found)
