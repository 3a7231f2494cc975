"""The packaged demo set is what its source says, loads like the public one, and ranks its three systems."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import yaml

from vivace.demo import DATA, SYSTEMS, System, build
from vivace_rubrics.checks import parse_check

AXES = ("INFERENCE_MEMORY", "INSTRUCTION_RETENTION", "SELF_COHERENCE", "VOICE_EDITING")
EXPECTED_PASSES = {
    "written-attentive": (3, 4, 4, 3),
    "written-hurried": (2, 3, 2, 1),
    "written-forgetful": (0, 1, 1, 0),
}


@cache
def rows() -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = pq.read_table(DATA).to_pylist()
    return table


def replies(system: System) -> dict[str, str]:
    lines = [json.loads(line) for line in system.replies.read_text(encoding="utf-8").splitlines()]
    assert len({line["id"] for line in lines}) == len(lines)
    return {line["id"]: line["response"] for line in lines}


def user_turns(row: dict[str, Any]) -> int:
    return sum(row[f"user_turn_{number}_audio"] is not None for number in range(1, 9))


def decoded(audio: dict[str, Any]) -> tuple[np.ndarray[Any, np.dtype[np.float64]], int]:
    samples, rate = soundfile.read(io.BytesIO(audio["bytes"]), dtype="float64")
    return samples, rate


def test_sixteen_conversations_four_on_each_axis_with_a_check_beside_each_criterion() -> None:
    assert Counter(row["axis"] for row in rows()) == dict.fromkeys(AXES, 4)
    criteria = 0
    for row in rows():
        rubric, checks = json.loads(row["rubric"]), json.loads(row["rubric_checks"])
        assert len(rubric) == len(checks) >= 4
        assert all(isinstance(criterion, str) and criterion.endswith(".") for criterion in rubric)
        for check in checks:
            parse_check(check)
        criteria += len(rubric)
    assert criteria == 81


def test_ids_are_unique_and_formed_like_the_public_ones() -> None:
    ids = [row["id"] for row in rows()]
    assert len(set(ids)) == len(ids)
    for identity in ids:
        assert len(identity) == 16
        assert identity.isascii()
        assert identity.isalnum()
        assert identity == identity.lower()


def test_columns_are_those_of_the_public_data_set_and_the_checks() -> None:
    expected = ["id", "axis"]
    for number in range(1, 9):
        expected += [f"user_turn_{number}_audio", f"user_turn_{number}_transcript"]
        expected += [f"assistant_turn_{number}_transcript"] if number < 8 else []
    expected += ["rubric", "rubric_checks"]
    schema = pq.read_schema(DATA)
    assert schema.names == expected
    assert str(schema.field("user_turn_1_audio").type) == "struct<bytes: binary, path: string>"


def test_datasets_loads_it_without_decoding(tmp_path: Path) -> None:
    import datasets

    loaded = datasets.load_dataset("parquet", data_files=str(DATA), split="train", cache_dir=str(tmp_path))
    assert len(loaded) == 16
    feature = loaded.features["user_turn_1_audio"]
    assert isinstance(feature, datasets.Audio)
    assert feature.decode is False
    assert loaded[0]["user_turn_1_audio"]["bytes"] == rows()[0]["user_turn_1_audio"]["bytes"]


def test_turns_alternate_and_the_last_user_turn_awaits_its_reply() -> None:
    for row in rows():
        count = user_turns(row)
        assert 3 <= count <= 6
        for number in range(1, 9):
            assert (row[f"user_turn_{number}_audio"] is not None) == (number <= count)
            assert bool(row[f"user_turn_{number}_transcript"]) == (number <= count)
            if number < 8:
                assert bool(row[f"assistant_turn_{number}_transcript"]) == (number < count)
    assert len({user_turns(row) for row in rows()}) == 4


def test_every_recording_decodes_is_loud_enough_and_does_not_clip() -> None:
    for row in rows():
        for number in range(1, user_turns(row) + 1):
            audio = row[f"user_turn_{number}_audio"]
            samples, rate = decoded(audio)
            assert rate == build.SAMPLE_RATE
            assert samples.ndim == 1
            assert 3 <= len(samples) / rate <= 20, (row["id"], number)
            assert 0.6 < np.max(np.abs(samples)) < 0.9, (row["id"], number)
            words = len(row[f"user_turn_{number}_transcript"].split())
            assert 1 <= words / (len(samples) / rate) <= 4.5, (row["id"], number)
            assert audio["path"] == f"{row['id']}_user_turn_{number}.mp3"


def test_the_file_is_small_and_names_its_tools_but_no_machine_path() -> None:
    assert DATA.stat().st_size < 2_500_000
    metadata = pq.read_schema(DATA).metadata
    assert "espeak-ng" in json.loads(metadata[build.TOOLS_KEY])
    content = DATA.read_bytes()
    assert b"/tmp/" not in content
    assert b"/home/" not in content


def test_the_packaged_text_is_the_source_text() -> None:
    _, conversations = build.read_source()
    assert [conversation.id for conversation in conversations] == [row["id"] for row in rows()]
    for conversation, row in zip(conversations, rows(), strict=True):
        assert row["axis"] == conversation.axis
        assert json.loads(row["rubric"]) == list(conversation.rubric)
        assert json.loads(row["rubric_checks"]) == list(conversation.checks)
        for number, turn in enumerate(conversation.turns, start=1):
            assert row[f"user_turn_{number}_transcript"] == turn.transcript
            assert number == 8 or row[f"assistant_turn_{number}_transcript"] == turn.assistant


def test_the_set_holds_the_voices_repairs_barge_ins_and_sounds_it_promises() -> None:
    voices, conversations = build.read_source()
    assert len(set(voices.values())) >= 6
    assert len({conversation.voice for conversation in conversations}) >= 6
    heard = {
        conversation.id
        for conversation in conversations
        if conversation.axis == "INFERENCE_MEMORY" and any(turn.sounds for turn in conversation.turns[:-1])
    }
    assert len(heard) == 4
    for conversation in conversations:
        clips = [clip for turn in conversation.turns for clip in turn.clips]
        assert any(clip.cut_ms for clip in clips) == (conversation.axis == "VOICE_EDITING")
        if any(clip.voice for clip in clips):
            assert all(clip.gap_ms < 0 for clip in clips if clip.voice), conversation.id
    used = {sound.name for conversation in conversations for turn in conversation.turns for sound in turn.sounds}
    assert used == set(build.SOUNDS)


@pytest.mark.parametrize("name", sorted(build.SOUNDS))
def test_a_sound_is_as_long_as_asked_audible_and_the_same_from_the_same_seed(name: str) -> None:
    sound = build.SOUNDS[name]
    first = sound(np.random.default_rng(7), 3.0)
    assert len(first) == 3 * build.SAMPLE_RATE
    assert np.max(np.abs(first)) == pytest.approx(1.0)
    assert np.sqrt(np.mean(first**2)) > 0.02
    assert np.array_equal(first, sound(np.random.default_rng(7), 3.0))


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_each_system_answers_every_conversation_and_scores_as_written(system: System) -> None:
    answered = replies(system)
    assert list(answered) == [row["id"] for row in rows()]
    assert all(reply.strip() for reply in answered.values())
    passes = Counter(
        row["axis"]
        for row in rows()
        if all(parse_check(check).evaluate(answered[row["id"]]).met for check in json.loads(row["rubric_checks"]))
    )
    assert tuple(passes[axis] for axis in AXES) == EXPECTED_PASSES[system.name]


def test_most_criteria_tell_the_systems_apart() -> None:
    answered = [replies(system) for system in SYSTEMS]
    never_missed = [
        criterion
        for row in rows()
        for criterion, check in zip(json.loads(row["rubric"]), json.loads(row["rubric_checks"]), strict=True)
        if all(parse_check(check).evaluate(by_id[row["id"]]).met for by_id in answered)
    ]
    assert len(never_missed) < 81 / 4, never_missed


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_a_card_says_that_the_replies_are_nobodys_output(system: System) -> None:
    card = yaml.safe_load(system.card.read_text(encoding="utf-8"))
    assert set(card) == {"name", "organisation", "description", "licence", "open_weights"}
    assert card["name"] == system.name
    assert card["organisation"] == "Vivace demo"
    assert "written by hand" in card["description"]
    assert "not generated by any model" in card["description"]
    assert card["open_weights"] is None


SPOKEN = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not on the PATH")


@SPOKEN
@pytest.mark.full
def test_building_again_gives_the_packaged_set(tmp_path: Path) -> None:
    rebuilt = tmp_path / "conversations.parquet"
    build.build(rebuilt)
    if made_with_the_tools_here():
        assert rebuilt.read_bytes() == DATA.read_bytes()
    else:
        assert_alike(pq.read_table(rebuilt).to_pylist(), rows())


@SPOKEN
def test_building_two_again_gives_what_is_packaged_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with a sound besides the speech, and the shortest."""
    voices, conversations = build.read_source()
    sounding = next(each for each in conversations if any(turn.sounds for turn in each.turns))
    shortest = min((each for each in conversations if each is not sounding), key=lambda each: len(each.turns))
    monkeypatch.setattr(build, "read_source", lambda: (voices, (sounding, shortest)))
    build.build(tmp_path / "two.parquet")
    rebuilt = pq.read_table(tmp_path / "two.parquet").to_pylist()
    packaged = [next(row for row in rows() if row["id"] == each.id) for each in (sounding, shortest)]
    if made_with_the_tools_here():
        assert rebuilt == packaged
    else:
        assert_alike(rebuilt, packaged)


def made_with_the_tools_here() -> bool:
    """Whether the packaged set was, so that all must be the same to the byte."""
    recorded: dict[str, str] = json.loads(pq.read_schema(DATA).metadata[build.TOOLS_KEY])
    return recorded == build.tools_here()


def assert_alike(rebuilt: list[dict[str, Any]], packaged: list[dict[str, Any]]) -> None:
    """Texts are the same, and recordings are about as long."""
    for new, old in zip(rebuilt, packaged, strict=True):
        assert {key: value for key, value in new.items() if not key.endswith("_audio")} == {
            key: value for key, value in old.items() if not key.endswith("_audio")
        }
        for number in range(1, user_turns(old) + 1):
            lengths = [len(decoded(row[f"user_turn_{number}_audio"])[0]) for row in (new, old)]
            assert lengths[0] == pytest.approx(lengths[1], rel=0.1)
