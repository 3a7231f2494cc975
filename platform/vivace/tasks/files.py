"""Tasks whose samples are rows of local files, in the columns of the public dataset or in the form EAGLE ships."""

from __future__ import annotations

import hashlib
import json
import random
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from vivace.errors import UsageError
from vivace.tasks.base import Sample, Task

Row = Mapping[str, Any]

READABLE = (".jsonl", ".json", ".parquet")


@dataclass(frozen=True)
class FileTask(Task):
    """A task read from a file or a folder.

    Attributes:
        path: a file (.jsonl, .json with a list, .parquet), or a folder of such files, in the order of their names.
    """

    version: ClassVar[str]
    """Of the prompt's wording: another wording is another task."""

    path: str = ""

    @property
    def revision(self) -> str:
        """The wording's version and the SHA-256 of the files."""
        return f"{self.version}:{self._files_sha256}"

    @abstractmethod
    def read(self, row: Row) -> Sample:
        """The sample of a row; its id is filled in later.

        Raises:
            KeyError: a column is missing.
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
        return data_files(Path(self.path))

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
                except KeyError as error:
                    raise UsageError(f"{place} has no {error.args[0]!r}, which {self.name} needs.") from error
                if not sample.prompt.strip():
                    raise UsageError(f"{place} asks nothing: its prompt is empty.")
                found.append(replace(sample, id=str(row.get("question_id", row.get("task_id", len(found))))))
        repeated = len(found) - len({sample.id for sample in found})
        return [replace(one, id=str(place)) for place, one in enumerate(found)] if repeated else found


def data_files(path: Path) -> list[Path]:
    """The readable files of a path, which is one or a folder of some.

    Raises:
        UsageError: there are none.
    """
    if path.is_dir():
        found = sorted(each for each in path.rglob("*") if each.suffix in READABLE and each.is_file())
    else:
        found = [path] if path.is_file() and path.suffix in READABLE else []
    if not found:
        kinds = ", ".join(READABLE)
        raise UsageError(f"There is no data at '{path}': it must be a file or a folder of files that end in {kinds}.")
    return found


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
            content = json.loads(path.read_text(encoding="utf-8"))
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
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise UsageError(f"Line {number} of '{path}' is not JSON: {error.msg}.") from error


def eagle_question(row: Row) -> str | None:
    """The first turn of a row in the form that EAGLE's benchmarks use; None for a row of another form."""
    turns = row.get("turns")
    return str(turns[0]) if isinstance(turns, Sequence) and not isinstance(turns, str) and turns else None


def eagle_references(row: Row) -> tuple[str, ...]:
    """The references of such a row, of which it may have none."""
    return tuple(str(reference) for reference in row.get("reference") or ())
