"""The parquet form of the public dataset, so that sets made here open wherever the public one does."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vivace.tracks.dialogue.data.conversations import MOST_USER_TURNS, SPEAKER_COLUMN


def public_schema(
    sampling_rate: int | None,
    *,
    checks: bool,
    metadata: dict[bytes, bytes],
    speakers: bool = False,
    audio: bool = True,
) -> Any:
    """The Arrow schema of the public columns, with the features that `datasets` reads from its metadata.

    Args:
        sampling_rate: Hz that `datasets` decodes all audio to; None leaves each recording at its own.
        checks: whether there is a column `rubric_checks`, which the public dataset lacks.
        speakers: whether there is a column of who speaks, which it lacks, too.
        metadata: more entries for the schema's metadata.
        audio: whether there are recordings.
    """
    from datasets import Audio, Features, Value

    columns: dict[str, object] = {"id": Value("string"), "axis": Value("string")}
    for number in range(1, MOST_USER_TURNS + 1):
        if audio:
            columns[f"user_turn_{number}_audio"] = Audio(sampling_rate=sampling_rate, decode=False)
        columns[f"user_turn_{number}_transcript"] = Value("string")
        if number < MOST_USER_TURNS:
            columns[f"assistant_turn_{number}_transcript"] = Value("string")
    columns["rubric"] = Value("string")
    if checks:
        columns["rubric_checks"] = Value("string")
    if speakers:
        columns[SPEAKER_COLUMN] = Value("string")
    schema = Features(columns).arrow_schema
    return schema.with_metadata({**schema.metadata, **metadata})


def unfinished_file(file: Path) -> Path:
    """Where a file lies until it is complete."""
    return file.with_name(f".{file.name}.{os.getpid()}.part")


def write_rows(file: Path, rows: Iterable[dict[str, Any]], schema: Any, rows_at_a_time: int) -> None:
    """Write a parquet file, so many rows in memory at a time.

    Raises:
        OSError: it cannot be written.
    """
    import pyarrow
    import pyarrow.parquet

    with pyarrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in _groups(rows, rows_at_a_time):
            writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))


def _groups(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    for row in rows:
        group.append(row)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
