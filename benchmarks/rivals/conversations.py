"""Made conversations in the public schema of Audio MultiChallenge, and the same ones as inspect_ai reads them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from vivace.audio.convert import MODEL_RATE, encode_wav
from vivace.tracks.dialogue.data.conversations import MOST_USER_TURNS
from vivace.tracks.dialogue.data.writer import public_schema
from vivace_rubrics.criteria import Axis

FEWEST_USER_TURNS = 3
SECONDS = (1.0, 5.0)
"""The shortest and the longest user turn."""
CRITERIA = (2, 3, 3, 4, 4, 4, 5, 5)
"""Lengths of rubrics, drawn evenly: 3.75 criteria on average, and 3.8 in the public set."""
ROWS_AT_A_TIME = 16
"""Rows of a row group: the audio of all conversations at once would fill the memory of small machines."""

VOCABULARY = (
    "the train coast ticket platform window seat morning price return friend dinner recipe onion garden weather "
    "remember please actually instead before after two seven kilometre street doctor letter colour louder again"
)

PROMPT = """\
Here is a conversation between a user and an assistant. Grade the assistant's last reply.

«conversation_history»

The criterion: «rubric_item»

Answer with one JSON object: "explanation", a string of one or two sentences, then "criteria_met", true or false.
"""


class Maker:
    """Conversations from a seed: the same seed gives the same bytes."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def conversation(self, number: int) -> dict[str, Any]:
        """One row of the public schema, the columns that it fills."""
        turns = int(self._random.integers(FEWEST_USER_TURNS, MOST_USER_TURNS + 1))
        row: dict[str, Any] = {"id": f"made{number:06d}", "axis": str(list(Axis)[number % len(Axis)])}
        for turn in range(1, turns + 1):
            row[f"user_turn_{turn}_audio"] = {"bytes": self._recording(), "path": f"{row['id']}-{turn}.wav"}
            row[f"user_turn_{turn}_transcript"] = self._sentence(8, 30)
            if turn < turns:
                row[f"assistant_turn_{turn}_transcript"] = self._sentence(15, 60)
        criteria = int(self._random.choice(CRITERIA))
        row["rubric"] = json.dumps([f"The reply mentions {self._sentence(4, 15)}" for _ in range(criteria)])
        return row

    def _sentence(self, fewest: int, most: int) -> str:
        words = self._random.choice(VOCABULARY.split(), size=self._random.integers(fewest, most + 1))
        return " ".join(words).capitalize() + "."

    def _recording(self) -> bytes:
        """A gliding tone in noise: its bytes compress as badly as those of speech."""
        seconds = self._random.uniform(*SECONDS)
        time = np.arange(int(seconds * MODEL_RATE)) / MODEL_RATE
        low, rise = self._random.uniform(90, 250), self._random.uniform(5, 40)
        tone = np.sin(2 * np.pi * (low + rise * time) * time)
        return encode_wav(0.3 * tone + self._random.normal(0, 0.02, time.size), MODEL_RATE)


def make(folder: Path, count: int, seed: int) -> None:
    """Write `count` conversations in both forms, and the judge's prompt.

    Vivace reads `conversations.parquet`. inspect_ai reads `samples.jsonl`, whose messages name WAV files: the
    very bytes that the parquet file holds, already in the form that models are sent.
    """
    maker = Maker(seed)
    folder.mkdir(parents=True, exist_ok=True)
    recordings = folder / "recordings"
    recordings.mkdir()
    (folder / "prompt.txt").write_text(PROMPT, encoding="utf-8")
    schema = public_schema(None, checks=False, metadata={})
    with (
        pyarrow.parquet.ParquetWriter(folder / "conversations.parquet", schema) as parquet,
        (folder / "samples.jsonl").open("w", encoding="utf-8") as samples,
    ):
        for start in range(0, count, ROWS_AT_A_TIME):
            rows = [maker.conversation(number) for number in range(start, min(start + ROWS_AT_A_TIME, count))]
            parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
            for row in rows:
                samples.write(json.dumps(_sample(row, recordings)) + "\n")


def _sample(row: dict[str, Any], recordings: Path) -> dict[str, Any]:
    """A row as inspect_ai's sample: chat messages, and what the scorer needs as metadata."""
    messages: list[dict[str, Any]] = []
    lines = []
    for turn in range(1, MOST_USER_TURNS + 1):
        if f"user_turn_{turn}_audio" not in row:
            break
        recording = row[f"user_turn_{turn}_audio"]
        file = recordings / recording["path"]
        file.write_bytes(recording["bytes"])
        audio = {"type": "audio", "audio": str(file), "format": "wav"}
        messages.append({"role": "user", "content": [audio]})
        lines.append(f"User: {row[f'user_turn_{turn}_transcript']}")
        if said := row.get(f"assistant_turn_{turn}_transcript"):
            messages.append({"role": "assistant", "content": said})
            lines.append(f"Assistant: {said}")
    metadata = {"history": "\n\n".join(lines), "criteria": json.loads(row["rubric"]), "axis": row["axis"]}
    return {"id": row["id"], "input": messages, "metadata": metadata}


def main() -> None:
    """Make conversations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="an empty folder, or one to be made")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    make(options.folder, options.count, options.seed)


if __name__ == "__main__":
    main()
