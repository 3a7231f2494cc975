"""Tasks whose samples are rows of local files, in the columns of the public dataset or in the form EAGLE ships."""

from __future__ import annotations

import hashlib
import random
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from vivace.errors import UsageError
from vivace.tasks.base import Sample, Task
from vivace.tasks.hub import located
from vivace_rubrics.json_text import parse_json

Row = Mapping[str, Any]

READABLE = (".jsonl", ".json", ".parquet")
SPLITS = ("test", "validation", "dev", "train")


class ColumnError(ValueError):
    """A row lacks a column, or it holds something else than it should; says which, to follow the row's place."""


@dataclass(frozen=True)
class FileTask(Task):
    """A task read from a file or a folder.

    Attributes:
        path: a file (.jsonl, .json with a list, .parquet), or a folder of such files, in the order of their names; or
            such a file or folder of a dataset on the hub, HUB-ID@REVISION or HUB-ID@REVISION/FOLDER.
        split: of the files of a folder, those are left out whose names begin with another of the usual splits.
    """

    version: ClassVar[str]
    """Of the prompt's wording: another wording is another task."""

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
        return data_files(located(self.path, READABLE, patterns_of_others(self.split)), self.split, self.belongs)

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
    return str(next((row[column] for column in ("question_id", "task_id", "_id") if column in row), place))


def data_files(path: Path, split: str, belongs: Callable[[Path], bool] = lambda path: True) -> list[Path]:
    """The readable files of a path, which is one or a folder of some.

    Args:
        path: a file, which is taken whatever its name, or a folder.
        split: files of a folder whose names begin with another split are left out.
        belongs: whether a file of a folder is wanted.

    Raises:
        UsageError: there are none.
    """
    if path.is_dir():
        found = sorted(each for each in path.rglob("*") if each.suffix in READABLE and each.is_file())
        found = [each for each in found if _split_of(each) in (None, split) and belongs(each)]
    else:
        found = [path] if path.is_file() and path.suffix in READABLE else []
    if not found:
        kinds = ", ".join(READABLE)
        raise UsageError(
            f"There is no data at '{path}' (split {split}): a file or a folder of files that end in {kinds}."
        )
    return found


def patterns_of_others(split: str) -> list[str]:
    """What the names of other splits' files look like, in a folder or in one inside it."""
    return [f"{folder}{each}[-_.]*" for each in SPLITS if each != split for folder in ("", "*/")]


def _split_of(path: Path) -> str | None:
    """The split that a file's name begins with, as in `test-00000-of-00001.parquet`; None for any other name."""
    first = re.split(r"[-_.]", path.name)[0]
    return first if first in SPLITS else None


def read_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """The rows of a file, each with its place in words: `Line 3 of 'file.jsonl'`.

    Raises:
        UsageError: the file is empty, or a part of it cannot be read.
    """
    rows = 0
    for number, row in enumerate(_rows(path), start=1):
        place = f"{'Line' if path.suffix == '.jsonl' else 'Row'} {number} of '{path}'"
        if not isinstance(row, Mapping):
            raise UsageError(f"{place} is not what it should be: an object with columns.")
        rows += 1
        yield place, row
    if not rows:
        raise UsageError(f"'{path}' is empty.")


def _rows(path: Path) -> Iterator[Any]:
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as parquet

            yield from parquet.read_table(path).to_pylist()
        elif path.suffix == ".json":
            content = parse_json(path.read_text(encoding="utf-8"))
            yield from content if isinstance(content, list) else [content]
        else:
            yield from _lines(path)
    except (OSError, ValueError) as error:  # damaged JSON, bytes that are no text, no parquet
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"'{path}' cannot be read: {reason}") from error


def _lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield parse_json(line)
            except ValueError as error:
                raise UsageError(f"Line {number} of '{path}' is not JSON ({error}).") from error


def eagle_question(row: Row) -> str | None:
    """The first turn of a row in the form that EAGLE's benchmarks use; None for a row of another form."""
    return texts_of(row, "turns")[0] if "turns" in row else None


def eagle_references(row: Row) -> tuple[str, ...]:
    """The references of such a row, of which it may have none."""
    return texts_of(row, "reference") if row.get("reference") else ()


def text_of(row: Row, column: str) -> str:
    """The text in a column.

    Raises:
        ColumnError: there is no such column, or it holds no text.
    """
    if column not in row:
        raise ColumnError(f"has no '{column}'")
    if not isinstance(row[column], str):
        raise ColumnError(f"has something else than text in '{column}'")
    return str(row[column])


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
    return tuple(map(str, found))
