"""Validation finds every fault with its place, warns of what is odd, and agrees with the reader that runs use."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from support.datasets import conversation_rows, tone, write_jsonl, write_parquet
from support.program import vivace
from vivace.errors import UsageError
from vivace.tracks.dialogue.data.readers import open_conversations
from vivace.tracks.dialogue.data.validation import Kind, Severity, Validation, validate

TRANSCRIPTS = Path(__file__).parents[3] / "shared" / "data" / "audiomc" / "transcripts.jsonl"


def found_in(data: Path | str) -> Validation:
    """The validation of a set."""
    return validate(str(data), lambda _done, _total: None)


def places(validation: Validation) -> list[tuple[Kind, int | None, str | None, str | None]]:
    """Every finding without its words."""
    return [(one.kind, one.row, one.conversation, one.column) for one in validation.findings]


def wav(samples: np.ndarray[Any, Any], rate: int = 8_000) -> dict[str, Any]:
    """A recording as a parquet cell."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="PCM_16")
    return {"bytes": buffer.getvalue(), "path": None}


def test_a_sound_set_has_no_findings_and_is_counted(tmp_path: Path) -> None:
    validation = found_in(write_parquet(tmp_path / "set.parquet", conversation_rows(3, turns=4, criteria=2)))
    assert validation.findings == []
    assert (validation.conversations, validation.criteria, validation.user_turns) == (3, 6, 12)
    assert validation.recordings == 12
    assert validation.audio_s == pytest.approx(12 * 0.3)


def test_the_demo_set_has_no_findings() -> None:
    validation = found_in("demo")
    assert validation.findings == []
    assert validation.recordings == 66


def test_every_fault_of_every_line_is_found(tmp_path: Path) -> None:
    rows = conversation_rows(6, audio=False)
    rows[0] |= {"axis": "Voice-Editing", "rubric": "Says yes", "user_turn_2_transcript": 7}
    rows[1] |= {"id": "conversation0000"}
    rows[2] |= {"id": None, "rubric": "[]"}
    rows[3] |= {f"user_turn_{n}_transcript": " " for n in range(1, 9)} | {"rubric": json.dumps(["Says yes", "", 3])}
    rows[4] |= {"rubric_checks": json.dumps([{"says": "yes"}, {"states_one_of": []}, None])}
    rows[5] |= {"id": "a\nb"}
    lines = [json.dumps(row) for row in rows]
    lines[2:2] = ["{cut off", "", "[1]"]
    file = tmp_path / "set.jsonl"
    file.write_text("\n".join(lines))

    validation = found_in(file)

    faults = [one for one in validation.findings if one.severity is Severity.FAULT]
    assert [(one.kind, one.row, one.conversation, one.column) for one in faults] == [
        (Kind.UNREADABLE, 3, None, None),
        (Kind.UNREADABLE, 5, None, None),
        (Kind.UNKNOWN_AXIS, 1, "conversation0000", "axis"),
        (Kind.NOT_TEXT, 1, "conversation0000", "user_turn_2_transcript"),
        (Kind.BAD_RUBRIC, 1, "conversation0000", "rubric"),
        (Kind.REPEATED_ID, 2, "conversation0000", "id"),
        (Kind.BAD_ID, 6, None, "id"),
        (Kind.BAD_RUBRIC, 6, None, "rubric"),
        (Kind.BAD_CHECK, 6, None, "rubric_checks"),
        (Kind.NO_USER_TURN, 7, "conversation0003", "user_turn_1_transcript"),
        (Kind.BAD_RUBRIC, 7, "conversation0003", "rubric"),
        (Kind.BAD_RUBRIC, 7, "conversation0003", "rubric"),
        (Kind.BAD_CHECK, 7, "conversation0003", "rubric_checks"),
        (Kind.BAD_CHECK, 8, "conversation0004", "rubric_checks"),
        (Kind.BAD_CHECK, 8, "conversation0004", "rubric_checks"),
        (Kind.BAD_CHECK, 8, "conversation0004", "rubric_checks"),
        (Kind.BAD_ID, 9, "a\nb", "id"),
    ]
    assert all(one.what and one.as_row()["what_to_do"] for one in faults)


def test_every_faulty_recording_is_found(tmp_path: Path) -> None:
    rows = conversation_rows(2)
    whole = tone(300, container="WAV")
    rows[0]["user_turn_1_audio"] = {"bytes": whole[: len(whole) // 2], "path": None}
    rows[0]["user_turn_3_audio"] = {"bytes": b"not sound at all", "path": None}
    rows[1]["user_turn_1_audio"] = None
    rows[1]["user_turn_2_audio"] = {"bytes": None, "path": "somewhere.wav"}
    validation = found_in(write_parquet(tmp_path / "set.parquet", rows))
    assert places(validation) == [
        (Kind.BROKEN_RECORDING, 1, "conversation0000", "user_turn_1_audio"),
        (Kind.BROKEN_RECORDING, 1, "conversation0000", "user_turn_3_audio"),
        (Kind.MISSING_RECORDING, 2, "conversation0001", "user_turn_1_audio"),
        (Kind.MISSING_RECORDING, 2, "conversation0001", "user_turn_2_audio"),
    ]
    assert "somewhere.wav" in validation.findings[3].what
    assert validation.recordings == 2


def test_recordings_of_which_a_part_would_not_be_heard_are_faults(tmp_path: Path) -> None:
    rows = conversation_rows(1, turns=4)
    joined = [tone(300, container=kind) + tone(400, container=kind) for kind in ("OGG", "FLAC", "MP3")]
    rest = tone(300, container="WAV") + b"and a rest of sound" * 9
    for number, content in enumerate((*joined, rest), start=1):
        rows[0][f"user_turn_{number}_audio"] = {"bytes": content, "path": None}
    findings = found_in(write_parquet(tmp_path / "set.parquet", rows)).findings
    assert [one.kind for one in findings] == [Kind.BROKEN_RECORDING] * 4
    assert all("two recordings are joined" in one.what for one in findings[:3]) and "left over" in findings[3].what


def test_odd_recordings_are_warned_of(tmp_path: Path) -> None:
    rows = conversation_rows(1, turns=4)
    time = np.arange(8_000) / 8_000
    loud = np.clip(1.6 * np.sin(2 * np.pi * 100 * time), -1, 1)
    rows[0]["user_turn_1_audio"] = wav(np.zeros(8_000))
    rows[0]["user_turn_2_audio"] = wav(loud)
    rows[0]["user_turn_3_audio"] = wav(0.5 * np.sin(np.arange(301 * 1_000)), rate=1_000)
    validation = found_in(write_parquet(tmp_path / "set.parquet", rows))
    assert [(one.kind, one.column) for one in validation.findings] == [
        (Kind.SILENT, "user_turn_1_audio"),
        (Kind.CLIPPED, "user_turn_2_audio"),
        (Kind.LONG, "user_turn_3_audio"),
    ]
    assert "full scale 200 times" in validation.findings[1].what  # both halves of a hundred periods
    assert validation.count(Severity.FAULT) == 0


def test_odd_texts_are_warned_of(tmp_path: Path) -> None:
    row = conversation_rows(1, turns=5)[0]
    row |= {"user_turn_1_transcript": " hello ", "user_turn_3_transcript": None, "assistant_turn_2_transcript": None}
    row |= {"assistant_turn_5_transcript": "and then?", "user_turn_6_audio": row["user_turn_1_audio"]}
    row |= {"rubric": json.dumps(["Says yes", "says  YES", " Says no"]), "rubric_checks": None}
    validation = found_in(write_parquet(tmp_path / "set.parquet", [row]))
    assert {(one.kind, one.column) for one in validation.findings} == {
        (Kind.OUTER_BLANKS, "user_turn_1_transcript"),
        (Kind.MISSING_TRANSCRIPT, "user_turn_3_transcript"),
        (Kind.MISSING_ASSISTANT_TURN, "assistant_turn_2_transcript"),
        (Kind.PAST_THE_END, "assistant_turn_5_transcript"),
        (Kind.PAST_THE_END, "user_turn_6_audio"),
        (Kind.REPEATED_CRITERION, "rubric"),
        (Kind.OUTER_BLANKS, "rubric"),
    }
    assert validation.count(Severity.FAULT) == 0
    open_conversations(str(tmp_path / "set.parquet"))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"id": ""},
        {"id": "  "},
        {"id": 5},
        {"id": "a\x00b"},
        {"axis": None},
        {"axis": "voice_editing"},
        {"axis": "INFERENCE_MEMROY"},
        {"axis": "HUMOUR"},
        {"axis": "all"},
        {"axis": " own"},
        {"axis": 7},
        {"rubric_check": "[null]"},
        {"rubric_check": "[null]", "rubric_checks": None, "notes": "fine"},
        {"notes": "fine", "difficulty": 3, "user_turn_1_duration": 2.5},
        {"user_turn_9_transcript": None},
        {"user-turn-2-audio": None},
        {"assistant_turn_8_transcript": "x"},
        {"user_turn_1_audio_path": "x.wav"},
        {"user_turn_1_text": "x"},
        {"rubric": None},
        {"rubric": "{}"},
        {"rubric": '["yes", null]'},
        {"rubric": ["yes"]},
        {"rubric": ["yes"], "rubric_checks": None},
        {"rubric_checks": "[null]"},
        {"rubric_checks": '["yes", null]'},
        {"rubric_checks": "[null, null]"},
        {"user_turn_1_transcript": None},
        {"user_turn_3_transcript": 3},
        {"assistant_turn_1_transcript": ["text"]},
        {"user_turn_1_transcript": None, "user_turn_2_transcript": "", "user_turn_3_transcript": "\n"},
        {"user_turn_1_transcript": "a \ud800 b"},
        {"rubric": ["\u200b\ufeff\xa0"], "rubric_checks": None},
        {"user_turn_1_transcript": "\u200b", "user_turn_2_transcript": "\x00", "user_turn_3_transcript": "\x1b"},
    ],
)
def test_a_fault_is_what_the_reader_of_runs_refuses(change: dict[str, Any], tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "set.jsonl", [conversation_rows(1, audio=False)[0] | change])
    try:
        open_conversations(str(file))
        refused = False
    except UsageError:
        refused = True
    assert (found_in(file).count(Severity.FAULT) > 0) == refused


@pytest.mark.parametrize(
    ("columns", "strange"),
    [
        (["rubric_check", "rubric"], ["rubric_check"]),
        (["rubricChecks", "speakers"], ["rubricchecks", "speakers"]),
        (["user_turn_9_transcript", "user_turn_0_audio"], ["user_turn_9_transcript", "user_turn_0_audio"]),
        (["user_turn_1_recording", "userturn2audio"], ["user_turn_1_recording", "userturn2audio"]),
        (["user_turn_1_text", "user_turn_1_transcript"], []),
        (["rubric_checks", "rubric_check"], []),
        (["language", "notes", "assistant_turn_1_audio", "user_turn_1_duration", "rubric_count", "topic"], []),
    ],
)
def test_a_column_that_looks_like_one_of_ours_is_a_fault(
    columns: list[str], strange: list[str], tmp_path: Path
) -> None:
    row = {"id": "a", "axis": "own", "rubric": '["Says yes"]', "user_turn_1_transcript": "hello"}
    if "user_turn_1_transcript" in columns:
        columns = [column for column in columns if column != "user_turn_1_transcript"]
    file = write_jsonl(tmp_path / "set.jsonl", [row | {column: row.get(column, "x") for column in columns}])
    found = [one.column for one in found_in(file).findings if one.kind is Kind.STRANGE_COLUMN]
    assert sorted(filter(None, found)) == sorted(strange)
    if strange:
        with pytest.raises(UsageError, match="Rename it"):
            open_conversations(str(file))


def test_missing_columns_are_named_once(tmp_path: Path) -> None:
    rows = [{"ID": f"c{n}", "user_turn_1_transcript": "hello"} for n in range(3)]
    validation = found_in(write_parquet(tmp_path / "set.parquet", rows))
    assert places(validation) == [
        (Kind.MISSING_COLUMN, None, None, "axis"),
        (Kind.MISSING_COLUMN, None, None, "rubric"),
        (Kind.NO_AUDIO, None, None, None),
    ]


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_no_conversations_are_a_fault(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_bytes(content)
    assert places(found_in(file)) == [(Kind.NO_CONVERSATIONS, None, None, None)]


def test_a_damaged_file_does_not_hide_the_others_of_its_folder(tmp_path: Path) -> None:
    rows = conversation_rows(3)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    write_parquet(tmp_path / "b.parquet", [rows[0], rows[1]])
    write_parquet(tmp_path / "c.parquet", [rows[1], {**rows[2], "axis": None}])
    validation = found_in(tmp_path)
    assert places(validation) == [
        (Kind.UNREADABLE, None, None, None),
        (Kind.REPEATED_ID, 1, "conversation0001", "id"),
        (Kind.UNKNOWN_AXIS, 2, "conversation0002", "axis"),
    ]
    assert "b.parquet" in validation.findings[1].what
    assert validation.findings[2].source.endswith("c.parquet'")


def test_damage_inside_a_file_keeps_what_was_read_before_it(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "set.parquet", conversation_rows(8))
    content = bytearray(file.read_bytes())
    middle = content.index(b"fLaC", len(content) // 2)
    content[middle : middle + 4_000] = bytes(4_000)
    file.write_bytes(content)
    validation = found_in(file)
    assert validation.count(Severity.FAULT) >= 1
    assert all(one.kind in (Kind.UNREADABLE, Kind.BROKEN_RECORDING) for one in validation.findings)


def test_the_command_prints_findings_and_ends_with_2(tmp_path: Path) -> None:
    rows = conversation_rows(15, audio=False)
    for row in rows:
        row["user_turn_1_transcript"] += " "
    rows[3]["axis"] = "voice editing"
    file = write_jsonl(tmp_path / "set.jsonl", rows)

    table = vivace("data", "validate", file)
    assert table.returncode == 2
    [fault] = [line for line in table.stdout.splitlines() if line.startswith("fault")]
    assert "conversation0003" in fault
    assert "voice editing" in fault
    assert "INFERENCE_MEMORY" in fault
    assert table.stdout.count("begins or ends with blanks") == 10
    assert "5 more warnings" in table.stderr
    assert "1 faults, 16 warnings" in table.stderr

    whole = json.loads(vivace("data", "validate", file, "--format", "json").stdout)
    assert (whole["faults"], whole["warnings"], whole["conversations"]) == (1, 16, 15)
    assert len(whole["findings"]) == 17

    listed = vivace("data", "validate", file, "--format", "csv").stdout.splitlines()
    assert listed[0].startswith("severity,kind,source,row,conversation,column,what")
    assert len(listed) == 18


def test_the_command_ends_with_0_without_faults_and_2_without_data(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "set.parquet", conversation_rows(2))
    clean = vivace("data", "validate", file)
    assert (clean.returncode, clean.stdout) == (0, "")
    assert "2 conversations, 4 criteria, 6 user turns, 6 recordings (0.0 minutes): 0 faults" in clean.stderr
    missing = vivace("data", "validate", tmp_path / "nothing.parquet")
    assert missing.returncode == 2
    assert missing.stderr.startswith("Error: There is no file or folder")


@pytest.mark.skipif(not TRANSCRIPTS.exists(), reason="the public transcripts are not here")
def test_the_public_transcripts_have_their_known_quirks_and_no_others() -> None:
    validation = found_in(TRANSCRIPTS)
    blanks = [one for one in validation.findings if one.kind is Kind.OUTER_BLANKS]
    others = [(one.kind, one.conversation, one.column) for one in validation.findings if one not in blanks]
    assert len(blanks) == 452
    assert sorted(others, key=str) == sorted(
        [
            (Kind.NO_AUDIO, None, None),
            (Kind.MISSING_ASSISTANT_TURN, "plrw2n71ditatq03", "assistant_turn_7_transcript"),
            (Kind.REPEATED_CRITERION, "ny5l3dybq6048m27", "rubric"),
            (Kind.REPEATED_CRITERION, "h91zc9n14t4p8398", "rubric"),
            (Kind.REPEATED_CRITERION, "h91zc9n14t4p8398", "rubric"),
        ],
        key=str,
    )
    assert (validation.conversations, validation.criteria, validation.user_turns) == (452, 1712, 2350)
