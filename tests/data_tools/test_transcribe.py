"""`vivace data transcribe`: word error rates of a transcriber on sets, on one recording, and on spoken digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.datasets import conversation_rows, tone, write_jsonl, write_parquet
from support.ears import ADDRESS, EAR, ear_server
from support.program import vivace
from vivace.audio.digits import VOICED


def told(*words: object) -> list[dict[str, Any]]:
    done = vivace("data", "transcribe", *words, "-t", EAR, "--format", "json")
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def test_a_set_is_counted_by_axis_and_what_was_not_heard_counts_as_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_parquet(tmp_path / "data.parquet", conversation_rows(2, turns=2))
    texts = ["User zero says one", "user 0 says two", "user 1 said one", ""]
    with ear_server(lambda wav: texts[len(ears.received) - 1]) as ears:
        monkeypatch.setenv(ADDRESS, ears.base)
        rows = told(data)
        counts = [(row["slice"], row["errors"], row["words"], row["exact"], row["not_heard"]) for row in rows]
        assert counts == [
            ("INFERENCE_MEMORY", 0, 8, 2, 0),
            ("INSTRUCTION_RETENTION", 5, 8, 0, 1),
            ("all", 5, 16, 2, 1),
        ]
        assert rows[-1]["word_error_rate"] == 5 / 16 and rows[-1]["took_s"] > 0
        ears.received.clear()
        first, _ = told(data, "--each", "--limit", 1)
        assert (first["recording"], first["heard"], first["errors"]) == ("conversation0000 turn 1", texts[0], 0)


def test_a_recording_is_known_by_what_is_said_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "talk.flac"
    file.write_bytes(tone(300))
    with ear_server(lambda wav: "Ask not, my friend") as ears:
        monkeypatch.setenv(ADDRESS, ears.base)
        done = vivace("data", "transcribe", file, "-t", EAR)
        assert done.returncode == 2 and "--said TEXT" in done.stderr and not ears.received
        assert [row["errors"] for row in told(file, "--said", "ask not my friends")] == [1]
        (tmp_path / "talk.txt").write_text("Ask not, my friend.")
        assert [row["word_error_rate"] for row in told(file)] == [0.0]


def test_digits_count_one_by_one_however_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["{}-{}-{}-{}", "{}, {} {}{}."]

    def hears(wav: bytes) -> str:
        from support.listener import digits_heard

        return answers[len(ears.received) % 2].format(*digits_heard(wav))

    monkeypatch.setattr("vivace.tracks.dialogue.transcriber_errors.NUMBERS", 1)
    with ear_server(hears) as ears:
        monkeypatch.setenv(ADDRESS, ears.base)
        *speakers, whole = told(VOICED)
    assert [row["slice"] for row in speakers] == ["adam", "beth", "carl", "dora"]
    assert (whole["errors"], whole["words"], whole["exact"]) == (0, 16, 4)


def test_what_cannot_be_heard_is_a_sentence(tmp_path: Path) -> None:
    written = write_jsonl(tmp_path / "data.jsonl", conversation_rows(1, audio=False))
    for words, sentence in (
        ((written, "-t", "whisper:packaged:whisper-base", "--home", tmp_path), "hold no recordings"),
        (("demo", "-t", "whisper:packaged:whisper-base", "--home", tmp_path), "vivace models get whisper-base"),
        (("demo", "-t", "espeak:x"), "write it as ADAPTER:NAME"),
        (("demo", "--said", "x", "-t", EAR), "--said goes with one recording"),
    ):
        done = vivace("data", "transcribe", *words)
        assert done.returncode == 2 and sentence in done.stderr and done.stderr.count("\n") == 1, done.stderr
