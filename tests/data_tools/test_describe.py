"""A set's description: exact on a small set made here, and the published numbers on the public transcripts."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from support.datasets import conversation_rows, tone, write_jsonl, write_parquet
from support.program import vivace
from vivace.tracks.dialogue.data.description import Description, Spread, describe
from vivace.tracks.dialogue.data.readers import open_conversations

TRANSCRIPTS = Path(__file__).parents[3] / "shared" / "data" / "audiomc" / "transcripts.jsonl"

PUBLISHED = {
    # axis: conversations, criteria, criteria per conversation, user turns, by number of user turns, words
    "INFERENCE_MEMORY": (132, 233, "1.77 (1, 1–9)", "5.47", (10, 28, 36, 24, 16, 18), 329, 363),
    "INSTRUCTION_RETENTION": (120, 343, "2.86 (2, 1–12)", "4.66", (37, 27, 23, 15, 9, 9), 240, 219),
    "SELF_COHERENCE": (83, 352, "4.24 (3, 1–15)", "5.65", (8, 17, 13, 17, 14, 14), 281, 351),
    "VOICE_EDITING": (117, 784, "6.70 (6, 1–15)", "5.13", (30, 21, 21, 13, 13, 19), 399, 253),
    "all": (452, 1712, "3.79 (3, 1–15)", "5.20", (85, 93, 93, 69, 52, 60), 315, 294),
}


def described(data: Path | str) -> dict[str, Description]:
    """The descriptions of a set by axis."""
    return {one.axis: one for one in describe(open_conversations(str(data)), lambda _done, _total: None)}


def small_set(folder: Path) -> Path:
    """Three conversations on two axes, with recordings of three kinds."""
    rows = conversation_rows(3, turns=3, criteria=2)
    rows[2]["axis"] = rows[0]["axis"]
    rows[1] |= {"rubric": json.dumps(["One.", "Two.", "Three.", "Four.", "Five."]), "rubric_checks": None}
    rows[1] |= {"user_turn_4_transcript": " and  one more\nthing ", "assistant_turn_3_transcript": "yes"}
    rows[1]["user_turn_4_audio"] = {"bytes": tone(300, 2.0, 8_000, container="WAV"), "path": None}
    rows[2]["user_turn_1_audio"] = {"bytes": tone(300, 1.0, 48_000, channels=2, container="FLAC"), "path": None}
    rows[2]["user_turn_2_audio"] = {"bytes": tone(300, 1.2, 24_000, container="MP3"), "path": None}
    return write_parquet(folder / "set.parquet", rows)


def test_a_small_set_is_described_exactly(tmp_path: Path) -> None:
    axes = described(small_set(tmp_path))
    assert list(axes) == ["INFERENCE_MEMORY", "INSTRUCTION_RETENTION", "all"]
    whole, one = axes["all"], axes["INSTRUCTION_RETENTION"]
    assert (whole.conversations, whole.criteria, whole.user_turns) == (3, 9, 10)
    assert whole.criteria_per_conversation == Spread(3, 2, 2, 5)
    assert whole.conversations_by_user_turns == {"3": 2, "4": 1}
    assert one.user_words_per_conversation.mean == 3 * 4 + 4  # "user 1 says 1", …, "and one more thing"
    assert one.assistant_words_per_conversation.mean == 2 * 4 + 1
    assert one.audio is not None
    assert whole.audio is not None
    assert one.audio.containers == {"flac": 3, "wav": 1}
    assert one.audio.minutes == pytest.approx((3 * 0.3 + 2.0) / 60)
    assert one.audio.turn_s == Spread(
        pytest.approx(0.725), pytest.approx(0.3), pytest.approx(0.3), pytest.approx(2.0)
    )
    assert whole.audio.sample_rates == {"8000": 1, "24000": 8, "48000": 1}
    assert whole.audio.containers == {"flac": 8, "mp3": 1, "wav": 1}
    assert whole.audio.conversation_s.highest == pytest.approx(2.9)
    assert whole.audio.speakers is None


def test_transcripts_alone_have_no_audio_to_describe(tmp_path: Path) -> None:
    axes = described(write_jsonl(tmp_path / "set.jsonl", conversation_rows(2, audio=False)))
    assert all(one.audio is None for one in axes.values())


def test_the_command_prints_every_form(tmp_path: Path) -> None:
    file = small_set(tmp_path)
    table = vivace("data", "describe", file)
    assert table.returncode == 0, table.stderr
    [texts, audio] = [line for line in table.stdout.splitlines() if line.startswith("all")]
    assert "3.00 (2, 2–5)" in texts
    assert "3: 2, 4: 1" in texts
    assert "flac: 8, mp3: 1, wav: 1" in audio
    rows = json.loads(vivace("data", "describe", file, "--format", "json").stdout)
    assert rows[-1]["audio"]["sample_rates"] == {"8000": 1, "24000": 8, "48000": 1}
    cells = list(csv.DictReader(io.StringIO(vivace("data", "describe", file, "--format", "csv").stdout)))
    assert cells[-1]["audio.turn_s.highest"] == "2.0"


def test_a_broken_recording_is_one_sentence(tmp_path: Path) -> None:
    rows = conversation_rows(1)
    rows[0]["user_turn_2_audio"] = {"bytes": b"noise", "path": None}
    done = vivace("data", "describe", write_parquet(tmp_path / "set.parquet", rows))
    assert done.returncode == 2
    assert done.stderr.startswith("Error: A recording of conversation 'conversation0000' is broken")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(not TRANSCRIPTS.exists(), reason="the public transcripts are not here")
def test_the_public_transcripts_have_their_published_numbers() -> None:
    axes = described(TRANSCRIPTS)
    assert list(axes) == list(PUBLISHED)
    for axis, one in axes.items():
        items = one.criteria_per_conversation
        assert (
            one.conversations,
            one.criteria,
            f"{items.mean:.2f} ({items.median:g}, {items.lowest}–{items.highest})",
            f"{one.user_turns_per_conversation.mean:.2f}",
            tuple(one.conversations_by_user_turns.values()),
            round(one.user_words_per_conversation.mean),
            round(one.assistant_words_per_conversation.mean),
        ) == PUBLISHED[axis]
        assert list(one.conversations_by_user_turns) == ["3", "4", "5", "6", "7", "8"]
    assert axes["all"].user_turns == 2350
