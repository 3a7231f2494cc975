"""A folder of recordings and a sheet becomes a set that runs, scores and shows as the public one does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.datasets import tone, write_jsonl
from support.program import vivace
from vivace.errors import UsageError
from vivace.tracks.dialogue.data.readers import open_conversations
from vivace.tracks.dialogue.data.set_from_recordings import BuildError, Built, build
from vivace.tracks.dialogue.data.validation import validate

CSV = """id,axis,role,recording,text,check
table,Politeness,user,a/1.wav,I'd like a table.,
,,assistant,,For how many?,
,,user,a/2.ogg,"Four, no wait, five.",
,,rubric,,Says five.,"{""states_one_of"": [""five""]}"
,,rubric,,Is polite.,
time,VOICE_EDITING,user,b.mp3,What time is it?,
,,rubric,,Says twelve.,"{""states_one_of"": [""twelve""]}"
"""

CONVERSATIONS: list[dict[str, Any]] = [
    {
        "id": "table",
        "axis": "Politeness",
        "turns": [
            {"role": "user", "recording": "a/1.wav", "text": "I'd like a table."},
            {"role": "assistant", "text": "For how many?"},
            {"role": "user", "recording": "a/2.ogg", "text": "Four, no wait, five."},
        ],
        "rubric": [{"text": "Says five.", "check": {"states_one_of": ["five"]}}, "Is polite."],
    },
    {
        "id": "time",
        "axis": "VOICE_EDITING",
        "turns": [{"role": "user", "recording": "b.mp3", "text": "What time is it?"}],
        "rubric": [{"text": "Says twelve.", "check": {"states_one_of": ["twelve"]}}],
    },
]

COLUMNS: list[dict[str, Any]] = [
    {
        "id": "table",
        "axis": "Politeness",
        "user_turn_1_audio": "a/1.wav",
        "user_turn_1_transcript": "I'd like a table.",
        "assistant_turn_1_transcript": "For how many?",
        "user_turn_2_audio": "a/2.ogg",
        "user_turn_2_transcript": "Four, no wait, five.",
        "rubric": ["Says five.", "Is polite."],
        "rubric_checks": [{"states_one_of": ["five"]}, None],
    },
    {
        "id": "time",
        "axis": "VOICE_EDITING",
        "user_turn_1_audio": "b.mp3",
        "user_turn_1_transcript": "What time is it?",
        "rubric": ["Says twelve."],
        "rubric_checks": [{"states_one_of": ["twelve"]}],
    },
]

SHEETS: dict[str, Callable[[], str]] = {
    "lines.csv": lambda: CSV,
    "excel.csv": lambda: "\ufeff" + CSV.replace(",", ";").replace("Four; no wait; five", "Four, no wait, five"),
    "turns.yaml": lambda: yaml.safe_dump(CONVERSATIONS),
    "turns.yml": lambda: yaml.safe_dump({"conversations": CONVERSATIONS}),
    "turns.jsonl": lambda: "\n".join(map(json.dumps, CONVERSATIONS)),
    "turns.json": lambda: json.dumps(CONVERSATIONS),
    "columns.jsonl": lambda: "\n".join(map(json.dumps, COLUMNS)),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The recordings."""
    folder = tmp_path / "takes"
    (folder / "a").mkdir(parents=True)
    for name, container in (("a/1.wav", "WAV"), ("a/2.ogg", "OGG"), ("b.mp3", "MP3")):
        (folder / name).write_bytes(tone(300, container=container))
    return folder


def built(folder: Path, sheet: str, text: str) -> tuple[Built, Path]:
    """The set of a folder with this sheet."""
    (folder / sheet).write_text(text, encoding="utf-8")
    out = folder.parent / "set.parquet"
    return build(folder, out, None, lambda *_: None), out


@pytest.mark.parametrize("sheet", SHEETS)
def test_every_kind_of_sheet_makes_the_same_set(sheet: str, folder: Path) -> None:
    done, out = built(folder, sheet, SHEETS[sheet]())
    assert (done.conversations, done.criteria, done.recordings) == (2, 3, 3)
    assert done.axes == ("Politeness", "VOICE_EDITING") and done.unused == ()
    read = open_conversations(str(out))
    first, second = read.conversations
    assert [(one.user, one.assistant) for one in first.exchanges] == [
        ("I'd like a table.", "For how many?"),
        ("Four, no wait, five.", None),
    ]
    assert [(one.text, one.machine_check) for one in first.criteria] == [
        ("Says five.", {"states_one_of": ["five"]}),
        ("Is polite.", None),
    ]
    assert (first.axis, second.axis, len(second.exchanges)) == ("Politeness", "VOICE_EDITING", 1)
    audio = {one.id: [len(each) for each in recordings] for one, recordings in read.recordings(read.conversations)}
    assert audio == {
        "table": [(folder / name).stat().st_size for name in ("a/1.wav", "a/2.ogg")],
        "time": [(folder / "b.mp3").stat().st_size],
    }
    assert validate(str(out), lambda *_: None).findings == []


WRONG = {
    "a recording that is missing": (lambda text: text.replace("b.mp3", "c.mp3"), ["Line 7", "no recording 'c.mp3'"]),
    "a recording elsewhere": (lambda text: text.replace("b.mp3", "../b.mp3"), ["Line 7", "is not in"]),
    "no recording": (lambda text: text.replace("b.mp3", ""), ["Line 7", "names no recording"]),
    "a broken recording": (lambda text: text.replace("b.mp3", "lines.csv"), ["Line 7", "'lines.csv'", "decoded"]),
    "a double id": (lambda text: text + CSV.split("\n", 1)[1], ["Line 9", "the id 'table' stands in Line 2"]),
    "no id": (lambda text: text.replace("table,", ",", 1), ["Line 2", "there is no id"]),
    "no rubric": (lambda text: text.rsplit(",,rubric", 1)[0], ["Line 7", "has no rubric"]),
    "no axis": (lambda text: text.replace("Politeness", ""), ["Line 2", "there is no axis"]),
    "an axis like one of the four": (lambda text: text.replace("VOICE_EDITING", "Voice Editing"), ["VOICE_EDITING"]),
    "two axes": (lambda text: text.replace(",,assistant", ",Humour,assistant"), ["Line 3", "Humour", "Politeness"]),
    "an assistant's last turn": (
        lambda text: text + ",,assistant,,It is noon.,\n",
        ["Line 7", "its last turn is the assistant's"],
    ),
    "an assistant's first turn": (
        lambda text: text.replace("table,Politeness,user,a/1.wav", "table,Politeness,assistant,"),
        ["Line 2", "the first turn is the assistant’s"],
    ),
    "no transcript": (lambda text: text.replace("What time is it?", ""), ["Line 7", "has no text"]),
    "a transcript that nobody sees": (lambda text: text.replace("What time is it?", "\u200b\u2060"), ["has no text"]),
    "a rubric that nobody sees": (lambda text: text.replace("Is polite.", "\u3164"), ["Line 6", "has no text"]),
    "an unknown role": (lambda text: text.replace("assistant", "bot"), ["Line 3", "'bot'", "it is user, assistant"]),
    "an unknown column": (lambda text: text.replace("check", "chek", 1), ["unknown column 'chek'", "check"]),
    "a double column": (lambda text: text.replace("text,check", "text,text", 1), ["two columns 'text'"]),
    "a check that is none": (lambda text: text.replace("states_one_of", "says"), ["Line 5", "check"]),
    "a comma too many": (lambda text: text.replace('"Four, no', "Four, no").replace('five."', "five."), ["Line 4"]),
    "nothing": (lambda text: "", ["is empty"]),
    "a heading alone": (lambda text: text.split("\n")[0], ["is empty"]),
    "nine user turns": (lambda text: text + "time,,user,b.mp3,again,\n" * 9, ["Line 7", "10 user turns", "most 8"]),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_everything_wrong_is_named_with_its_line_and_nothing_is_written(wrong: str, folder: Path) -> None:
    change, words = WRONG[wrong]
    with pytest.raises(UsageError) as refused:
        built(folder, "lines.csv", change(CSV))
    assert all(word in str(refused.value) for word in words), str(refused.value)
    assert [file.name for file in folder.parent.iterdir()] == ["takes"]


def test_all_faults_are_named_at_once(folder: Path) -> None:
    text = CSV.replace("b.mp3", "c.mp3").replace("a/1.wav", "").replace("Is polite.", "")
    with pytest.raises(BuildError) as refused:
        built(folder, "lines.csv", text)
    assert [fault[:6] for fault in refused.value.faults] == ["Line 2", "Line 6", "Line 7"]
    assert "3 faults in all; nothing was written" in str(refused.value)


def test_a_role_that_is_misspelt_is_one_fault(folder: Path) -> None:
    with pytest.raises(BuildError) as refused:
        built(folder, "lines.csv", CSV.replace("table,Politeness,user", "table,Politeness,usr"))
    assert len(refused.value.faults) == 1 and "Line 2" in str(refused.value)


def test_faults_of_conversations_in_yaml_are_named(folder: Path) -> None:
    row = {
        **CONVERSATIONS[0],
        "rubric": "Says five.",
        "turns": [*CONVERSATIONS[0]["turns"], "and?", {"rolle": "user"}],
    }
    with pytest.raises(BuildError) as refused:
        built(folder, "turns.yaml", yaml.safe_dump([row]))
    faults = "\n".join(refused.value.faults)
    for words in ("turn 4 is 'and?'", "unknown key 'rolle'", "its rubric is no list", "has no rubric"):
        assert words in faults
    with pytest.raises(UsageError, match="must be a list of conversations"):
        built(folder, "turns.yaml", "id: table\n")


def test_several_sheets_have_to_be_chosen_from_and_unused_recordings_are_named(folder: Path) -> None:
    (folder / "notes.json").write_text("{}")
    (folder / "spare.flac").write_bytes(tone(300))
    with pytest.raises(UsageError, match=r"several sheets \(lines.csv, notes.json\)"):
        built(folder, "lines.csv", CSV)
    done = build(folder, folder.parent / "set.parquet", folder / "lines.csv", lambda *_: None)
    assert done.unused == ("spare.flac",)
    with pytest.raises(UsageError, match="There is no folder"):
        build(folder / "nowhere", folder.parent / "set.parquet", None, lambda *_: None)


def test_a_broken_list_is_no_sentence(folder: Path) -> None:
    row = {**COLUMNS[1], "rubric": '["Says twelve."'}
    with pytest.raises(BuildError, match="its rubric begins as a JSON list and is none"):
        built(folder, "columns.json", json.dumps([row]))


def test_a_sheet_is_no_recording_in_whatever_characters_it_is_written(folder: Path) -> None:
    (folder / "lines.csv").write_text(CSV, encoding="utf-16")  # begins as a frame of MP3 does
    assert build(folder, folder.parent / "set.parquet", None, lambda *_: None).unused == ()


def test_from_a_folder_to_the_board(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "lines.csv").write_text(CSV.replace(",,rubric,,Is polite.,\n", ""))
    made = vivace("data", "build", folder)
    assert (made.returncode, made.stdout.strip()) == (0, "takes.parquet"), made.stderr
    assert "2 conversations, 2 criteria, 3 recordings" in made.stderr
    assert "axes: Politeness, VOICE_EDITING" in made.stderr
    described = json.loads(vivace("data", "describe", "takes.parquet", "--format", "json").stdout)
    assert [row["axis"] for row in described] == ["VOICE_EDITING", "Politeness", "all"]
    write_jsonl(tmp_path / "r.jsonl", [{"id": "table", "response": "For five."}, {"id": "time", "response": "One."}])
    run = ("run", "audio-multichallenge", "--data", "takes.parquet", "--model", "replay:r.jsonl", "--judge", "checks")
    ran = vivace(*run, "--format", "json")
    (row,) = json.loads(ran.stdout)
    assert {axis: one["ars"] for axis, one in row["axes"].items()} == {"Politeness": 1.0, "VOICE_EDITING": 0.0}
    assert "Politeness" in vivace("leaderboard").stdout
    assert "Politeness" in vivace("breakdown", row["judging"], "--by", "axis").stdout
