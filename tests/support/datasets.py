"""Data sets in the public columns, made for a test."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import soundfile

AXES = ("INFERENCE_MEMORY", "INSTRUCTION_RETENTION", "SELF_COHERENCE", "VOICE_EDITING")


def tone(hertz: float, seconds: float = 0.3, rate: int = 24_000, channels: int = 1, container: str = "FLAC") -> bytes:
    """A recording: a tone with some noise, so that turns differ."""
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(int(hertz)).normal(0, 0.02, (len(time), channels))
    samples = 0.4 * np.sin(2 * np.pi * hertz * time)[:, None] + noise
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=container)
    return buffer.getvalue()


def conversation_rows(count: int, turns: int = 3, criteria: int = 2, audio: bool = True) -> list[dict[str, Any]]:
    """Rows of `count` conversations; the reply "yes" meets every even criterion's check, and no odd one's."""
    rows = []
    for number in range(count):
        row: dict[str, Any] = {"id": f"conversation{number:04d}", "axis": AXES[number % 4]}
        for turn in range(1, 9):
            spoken = turn <= turns
            row[f"user_turn_{turn}_transcript"] = f"user {number} says {turn}" if spoken else None
            if audio:
                content = tone(200 + 10 * turn + number % 50) if spoken else None
                row[f"user_turn_{turn}_audio"] = {"bytes": content, "path": None} if spoken else None
            if turn < 8:
                row[f"assistant_turn_{turn}_transcript"] = f"assistant {number} says {turn}" if turn < turns else None
        row["rubric"] = json.dumps([f"Says yes, criterion {place}" for place in range(criteria)])
        checks = [
            {"states_one_of": ["yes"]} if place % 2 == 0 else {"states_one_of": ["no"]} for place in range(criteria)
        ]
        row["rubric_checks"] = json.dumps(checks)
        rows.append(row)
    return rows


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as a parquet file in the form the hub uses: audio as a struct of bytes and path."""
    audio = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    columns = list(rows[0])
    schema = pyarrow.schema([(name, audio if name.endswith("_audio") else pyarrow.string()) for name in columns])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), path)
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
