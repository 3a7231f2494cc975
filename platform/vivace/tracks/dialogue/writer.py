"""The parquet form of the public dataset, so that sets made here open wherever the public one does."""

from __future__ import annotations

from typing import Any

from vivace.tracks.dialogue.conversations import MOST_USER_TURNS


def public_schema(sampling_rate: int | None, *, checks: bool, metadata: dict[bytes, bytes]) -> Any:
    """The Arrow schema of the public columns, with the features that `datasets` reads from its metadata.

    Args:
        sampling_rate: Hz that `datasets` decodes all audio to; None leaves each recording at its own.
        checks: whether there is a column `rubric_checks`, which the public dataset lacks.
        metadata: more entries for the schema's metadata.
    """
    from datasets import Audio, Features, Value

    columns: dict[str, object] = {"id": Value("string"), "axis": Value("string")}
    for number in range(1, MOST_USER_TURNS + 1):
        columns[f"user_turn_{number}_audio"] = Audio(sampling_rate=sampling_rate, decode=False)
        columns[f"user_turn_{number}_transcript"] = Value("string")
        if number < MOST_USER_TURNS:
            columns[f"assistant_turn_{number}_transcript"] = Value("string")
    columns["rubric"] = Value("string")
    if checks:
        columns["rubric_checks"] = Value("string")
    schema = Features(columns).arrow_schema
    return schema.with_metadata({**schema.metadata, **metadata})
