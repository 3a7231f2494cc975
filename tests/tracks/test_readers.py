"""Reading conversations from files: every quirk of the public data, and every form it comes in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from support.datasets import conversation_rows, tone, write_jsonl, write_parquet
from vivace.errors import UsageError
from vivace.tracks.dialogue.data.conversations import ConversationSet
from vivace.tracks.dialogue.data.readers import open_conversations
from vivace.tracks.dialogue.data.validation import Kind, validate
from vivace_rubrics.criteria import Exchange, grading_history

SHARED = Path(__file__).parents[3] / "shared" / "data" / "audiomc"


def as_on_the_hub(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A parquet file with the metadata that the hub's own writer leaves: audio as the feature `Audio`."""
    write_parquet(path, rows)
    table = pyarrow.parquet.read_table(path)
    features = {
        name: {"sampling_rate": 48000, "_type": "Audio"}
        if name.endswith("_audio")
        else {"dtype": "string", "_type": "Value"}
        for name in table.column_names
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), path, row_group_size=2)
    return path


def texts(conversations: ConversationSet) -> list[Any]:
    """What was read, less where it came from."""
    return list(conversations.conversations)


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_speakers_are_read_where_the_data_name_them(
    tmp_path: Path, write: Callable[[Path, list[dict[str, Any]]], Path]
) -> None:
    rows = [
        {**row, "Speaker": speaker}
        for row, speaker in zip(
            conversation_rows(3, audio=write is write_parquet, turns=1), (" Ana ", None, "Ben"), strict=True
        )
    ]
    suffix = "parquet" if write is write_parquet else "jsonl"
    read = open_conversations(str(write(tmp_path / f"data.{suffix}", rows)))
    assert [one.speaker for one in read.conversations] == ["Ana", None, "Ben"]
    without = open_conversations(str(write_jsonl(tmp_path / "none.jsonl", conversation_rows(1, audio=False))))
    assert without.conversations[0].speaker is None


def test_a_speaker_that_is_no_text_is_refused(tmp_path: Path) -> None:
    rows = [{**conversation_rows(1, audio=False)[0], "speaker": 7}]
    with pytest.raises(UsageError, match="'speaker' that is not text"):
        open_conversations(str(write_jsonl(tmp_path / "d.jsonl", rows)))


def test_a_missing_assistant_turn_leaves_two_user_turns_in_a_row(tmp_path: Path) -> None:
    row = conversation_rows(1, turns=4, audio=False)[0]
    row["assistant_turn_2_transcript"] = None
    row["assistant_turn_3_transcript"] = "   "
    (conversation,) = open_conversations(str(write_jsonl(tmp_path / "d.jsonl", [row]))).conversations
    assert [exchange.assistant for exchange in conversation.exchanges] == ["assistant 0 says 1", None, None, None]
    assert grading_history(conversation.exchanges, "fine") == (
        "User: user 0 says 1\n\nAssistant: assistant 0 says 1\n\nUser: user 0 says 2\n\nUser: user 0 says 3\n\n"
        "User: user 0 says 4\n\nAssistant: fine"
    )


def test_a_last_assistant_turn_is_not_part_of_the_conversation(tmp_path: Path) -> None:
    row = conversation_rows(1, turns=2, audio=False)[0]
    row["assistant_turn_2_transcript"] = "an answer to the last turn would give the reply away"
    (conversation,) = open_conversations(str(write_jsonl(tmp_path / "d.jsonl", [row]))).conversations
    assert conversation.exchanges[-1] == Exchange("user 0 says 2", None)


def test_equal_rubric_items_stay_apart_by_their_place(tmp_path: Path) -> None:
    row = {
        **conversation_rows(1, audio=False)[0],
        "rubric": json.dumps(["Same.", "Other.", "Same."]),
        "rubric_checks": None,
    }
    (conversation,) = open_conversations(str(write_jsonl(tmp_path / "d.jsonl", [row]))).conversations
    assert [criterion.text for criterion in conversation.criteria] == ["Same.", "Other.", "Same."]


@pytest.mark.parametrize("sentence", ["", " ", "\u200b\ufeff", "\xa0", "\x00\x1b"])
def test_a_criterion_that_shows_nothing_is_none(sentence: str, tmp_path: Path) -> None:
    [row] = conversation_rows(1, audio=False)
    file = write_jsonl(tmp_path / "set.jsonl", [{**row, "rubric": [sentence, "Says yes."], "rubric_checks": None}])
    with pytest.raises(UsageError, match="rubric that is not a JSON list of sentences"):
        open_conversations(str(file))


def test_blanks_around_transcripts_are_stripped_and_inner_lines_kept(tmp_path: Path) -> None:
    row = conversation_rows(1, turns=2, audio=False)[0]
    row |= {"user_turn_1_transcript": "  hello\n", "assistant_turn_1_transcript": "\n# A list\n\n- one\n- two  \n"}
    (conversation,) = open_conversations(str(write_jsonl(tmp_path / "d.jsonl", [row]))).conversations
    assert conversation.exchanges[0] == Exchange("hello", "# A list\n\n- one\n- two")


@pytest.mark.parametrize("write", [write_jsonl, write_parquet, as_on_the_hub])
def test_column_names_in_upper_case_are_the_same_data(tmp_path: Path, write: Callable[..., Path]) -> None:
    rows = conversation_rows(3, audio=False)
    shouted = [{key.upper(): value for key, value in row.items()} for row in rows]
    lower = open_conversations(str(write(tmp_path / f"l{_end(write)}", rows)))
    upper = open_conversations(str(write(tmp_path / f"u{_end(write)}", shouted)))
    assert texts(lower) == texts(upper)


def _end(write: Callable[..., Path]) -> str:
    return ".jsonl" if write is write_jsonl else ".parquet"


def test_a_rubric_may_be_a_json_string_or_a_list(tmp_path: Path) -> None:
    row = conversation_rows(1, audio=False)[0]
    listed = {**row, "rubric": json.loads(row["rubric"]), "rubric_checks": json.loads(row["rubric_checks"])}
    one = open_conversations(str(write_jsonl(tmp_path / "one.jsonl", [row])))
    two = open_conversations(str(write_jsonl(tmp_path / "two.jsonl", [listed])))
    assert texts(one) == texts(two)


def test_the_same_rows_read_the_same_from_every_form(tmp_path: Path) -> None:
    rows = conversation_rows(7)
    single = open_conversations(str(as_on_the_hub(tmp_path / "single.parquet", rows)))
    folder = tmp_path / "shards"
    (folder / "data").mkdir(parents=True)
    for number, part in enumerate((rows[:3], rows[3:5], rows[5:])):
        as_on_the_hub(folder / "data" / f"test-{number:05d}-of-00003.parquet", part)
    shards = open_conversations(str(folder))
    plain = open_conversations(str(write_parquet(tmp_path / "plain.parquet", rows)))
    lines = open_conversations(str(write_jsonl(tmp_path / "l.jsonl", conversation_rows(7, audio=False))))
    assert texts(single) == texts(shards) == texts(plain) == texts(lines)
    assert (single.has_audio, shards.has_audio, lines.has_audio) == (True, True, False)
    recordings = [{c.id: audio for c, audio in s.recordings(s.conversations)} for s in (single, shards)]
    assert recordings[0] == recordings[1]
    assert recordings[0]["conversation0004"][1] == rows[4]["user_turn_2_audio"]["bytes"]
    assert len({single.fingerprint, shards.fingerprint, lines.fingerprint}) == 3


def test_shards_may_differ_in_the_case_of_their_columns(tmp_path: Path) -> None:
    rows = conversation_rows(2, audio=False)
    write_parquet(tmp_path / "a.parquet", rows[:1])
    write_parquet(tmp_path / "b.parquet", [{key.upper(): value for key, value in rows[1].items()}])
    assert [c.id for c in open_conversations(str(tmp_path)).conversations] == ["conversation0000", "conversation0001"]


def test_data_without_audio_are_marked_as_transcript_input_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vivace.cli.running.execution import run_here
    from vivace.cli.tables.board_table import BOARD_COLUMNS
    from vivace.settings import Settings
    from vivace.spec import DialogueSpec
    from vivace.store.migrate import open_for_reading
    from vivace.store.queries.board import board

    data = write_jsonl(tmp_path / "texts.jsonl", conversation_rows(2, audio=False))
    replies = write_jsonl(tmp_path / "r.jsonl", [{"id": "conversation0000", "response": "yes"}])
    settings = Settings(home=tmp_path / "home")
    spec = DialogueSpec(track="audio-multichallenge", data=str(data), model=f"replay:{replies}", judge="checks")
    run_here(spec, settings, retry_errors=False, force=False)
    database = open_for_reading(settings)
    assert database is not None
    (row,) = board(database)
    database.close()
    assert row.input_form == "transcript"
    assert "transcripts instead of audio" in row.unofficial_reasons
    assert "transcript input" in BOARD_COLUMNS["notes"](row.as_json())


def test_a_prompt_beside_the_data_is_the_datasets_own(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", conversation_rows(1, audio=False))
    assert open_conversations(str(path)).judge_prompt is None
    prompt = "Judge «conversation_history» by «rubric_item»."
    (tmp_path / "README.md").write_text(f"# Card\n\n```\n{prompt}\n```\n")
    assert open_conversations(str(path)).judge_prompt == prompt
    (tmp_path / "judge_prompt.txt").write_text("Better: «conversation_history», «rubric_item».\n")
    assert open_conversations(str(path)).judge_prompt == "Better: «conversation_history», «rubric_item»."


@pytest.mark.skipif(not SHARED.exists(), reason="the public transcripts are not at hand (../shared/data)")
def test_the_public_transcripts_are_read_whole_and_fast() -> None:
    started = time.process_time()
    found = open_conversations(str(SHARED / "transcripts.jsonl"))
    assert time.process_time() - started < 2
    assert len(found.conversations) == 452
    assert sum(len(conversation.criteria) for conversation in found.conversations) == 1712
    assert sum(len(conversation.exchanges) for conversation in found.conversations) == 2350
    by_id = {conversation.id: conversation for conversation in found.conversations}
    lacking = by_id["plrw2n71ditatq03"]
    assert [place for place, exchange in enumerate(lacking.exchanges[:-1]) if exchange.assistant is None] == [6]
    rubric = [criterion.text for criterion in by_id["ny5l3dybq6048m27"].criteria]
    assert len(rubric) == len(set(rubric)) + 1
    spoken = [text for c in found.conversations for e in c.exchanges for text in (e.user, e.assistant) if text]
    assert len(spoken) == 4247 and all(text == text.strip() for text in spoken)


def with_files(folder: Path, named: Callable[[int], Any] = lambda turn: f"sound/{turn}.flac") -> list[dict[str, Any]]:
    """Rows whose recordings are files beside them."""
    rows = conversation_rows(2, turns=2, audio=False)
    (folder / "sound").mkdir(exist_ok=True)
    for turn in (1, 2):
        (folder / "sound" / f"{turn}.flac").write_bytes(tone(300 + turn))
        for row in rows:
            row[f"user_turn_{turn}_audio"] = named(turn)
    return rows


@pytest.mark.parametrize("named", [lambda turn: f"sound/{turn}.flac", lambda turn: {"path": f"./sound/{turn}.flac"}])
def test_recordings_of_json_rows_are_read_from_the_files_beside_them(
    named: Callable[[int], Any], tmp_path: Path
) -> None:
    file = write_jsonl(tmp_path / "set.jsonl", with_files(tmp_path, named))
    read = open_conversations(str(file))
    assert read.has_audio
    assert [audio for _, audio in read.recordings(read.conversations)] == [[tone(301), tone(302)]] * 2
    found = validate(str(file), lambda *_: None)
    assert (found.findings, found.recordings) == ([], 4)
    (tmp_path / "sound" / "2.flac").write_bytes(tone(500))
    assert open_conversations(str(file)).fingerprint != read.fingerprint


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ("sound/3.flac", "there is no recording 'sound/3.flac'"),
        ("../outside.flac", "is not in"),
        ("{absolute}", "is not in"),
        ("link.flac", "is not in"),
        ("sound", "there is no recording"),
        ("a\0b", "not the path of a recording"),
        (7, "7 is not the path of a recording"),
        ({"bytes": "UklGRg=="}, "is not the path of a recording"),
    ],
)
def test_a_recording_that_is_not_there_is_named_with_its_line(named: Any, sentence: str, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    rows = with_files(folder)
    outside = tmp_path / "outside.flac"
    outside.write_bytes(tone(300))
    (folder / "link.flac").symlink_to(outside)
    rows[1]["user_turn_2_audio"] = str(outside) if named == "{absolute}" else named
    file = write_jsonl(folder / "set.jsonl", rows)
    with pytest.raises(UsageError, match=rf"Line 2 of .*, user_turn_2_audio: .*{sentence}"):
        open_conversations(str(file))
    (finding,) = validate(str(file), lambda *_: None).findings
    assert (finding.kind, finding.row, finding.column) == (Kind.MISSING_RECORDING, 2, "user_turn_2_audio")
