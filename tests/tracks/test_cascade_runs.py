"""Runs of cascades: what was heard is stored for each turn, and shown; what was not is never counted as wrong."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.chat_server import Answer, Call, ChatServer, chat_server
from support.datasets import conversation_rows, write_jsonl, write_parquet
from support.ears import ADDRESS, EAR, EarServer, ear_server
from support.program import vivace
from vivace.audio.convert import decode


@pytest.fixture
def answering() -> Iterator[ChatServer]:
    """A model that says yes."""
    with chat_server(Answer("yes")) as server:
        yield server


def command(data: Path, folder: Path, server: ChatServer, *more: object) -> tuple[object, ...]:
    return (
        "run", "audio-multichallenge", "--data", data, "--model", "cascade:litellm:openai/m", "--ear", EAR,
        "--api-base", server.base, "--judge", "checks", "--home", folder / "home", "--format", "json", "--retries", 0,
        "--no-hear", *more,
    )  # fmt: skip


def by_turn(texts: dict[int, str | int], otherwise: str = "user 0 says 2") -> Callable[[bytes], str | int]:
    """Hears by the length of the recordings: turn n of a conversation lasts 0.3 s and n hundredths."""
    return lambda wav: texts.get(round((decode(wav).seconds - 0.3) * 100), otherwise)


def rows_of_lengths(turns: int = 3) -> list[dict[str, Any]]:
    """One conversation whose recordings can be told apart by their lengths."""
    from support.datasets import tone

    [row] = conversation_rows(1, turns=turns)
    for turn in range(1, turns + 1):
        row[f"user_turn_{turn}_audio"] = {"bytes": tone(300, 0.3 + turn / 100), "path": None}
    return [row]


def stored(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(folder / "home" / "vivace.db") as database:
        return database.execute(query).fetchall()


def heard_in(folder: Path) -> list[dict[str, Any]]:
    [(heard,)] = stored(folder, "select heard from reply")
    turns: list[dict[str, Any]] = json.loads(heard)
    return turns


def ran(ears: EarServer, monkeypatch: pytest.MonkeyPatch, *words: object) -> Any:
    monkeypatch.setenv(ADDRESS, ears.base)
    return vivace(*words)


def test_what_was_heard_stands_with_its_errors_times_and_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answering: ChatServer
) -> None:
    data = write_parquet(tmp_path / "data.parquet", rows_of_lengths())
    texts: dict[int, str | int] = {1: "User zero says one.", 2: "User 0 says too", 3: "user says three hundred"}
    with ear_server(by_turn(texts)) as ears:
        done = ran(ears, monkeypatch, *command(data, tmp_path, answering))
        assert done.returncode == 0, done.stderr
        [row] = json.loads(done.stdout)
        turns = heard_in(tmp_path)
        # "user 0 says 1", "user 0 says 2" and "user 0 says 3": numbers are written alike, words are not.
        assert [(turn["number"], turn["text"], turn["errors"], turn["words"]) for turn in turns] == [
            (1, "User zero says one.", 0, 4), (2, "User 0 says too", 1, 4), (3, "user says three hundred", 2, 4),
        ]  # fmt: skip
        assert all(turn["seconds"] > 0 and turn["cost_usd"] is None for turn in turns)
        assert row["is_cascade"] and row["model"] == "hosted_vllm/ear → openai/m"
        assert row["ear"]["word_error_rate"] == 3 / 12 and row["ear"]["not_heard"] == 0
        assert row["ear"]["median_s"] > 0 and row["ttft_median_s"] > row["ear"]["median_s"]
        assert row["accounting"]["transcribe"]["calls"] == 3 and row["accounting"]["generate"]["calls"] == 1
        assert row["accounting"]["transcribe"]["audio_seconds"] == pytest.approx(0.96, abs=0.01)
        assert row["accounting"]["generate"]["audio_seconds"] == 0
        [call] = answering.calls
        assert [message["content"] for message in call.messages if message["role"] == "assistant"] == [
            "assistant 0 says 1", "assistant 0 says 2",
        ]  # fmt: skip
        assert "User 0 says too" in str(call.messages) and "input_audio" not in str(call.messages)
        table = vivace("leaderboard", "--home", tmp_path / "home").stdout
        assert "cascade" in table and "WER 25.0 %" in table
        again = ran(ears, monkeypatch, *command(data, tmp_path, answering))
        assert again.returncode == 0 and len(ears.received) == 3 and len(answering.calls) == 1


@pytest.mark.parametrize("nothing", ["", "...", 500])
def test_a_turn_that_was_not_heard_is_unscored_and_tried_again_on_demand(
    nothing: str | int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answering: ChatServer
) -> None:
    data = write_parquet(tmp_path / "data.parquet", rows_of_lengths())
    texts: dict[int, str | int] = {2: nothing}
    with ear_server(by_turn(texts)) as ears:
        done = ran(ears, monkeypatch, *command(data, tmp_path, answering))
        if nothing == "...":  # a transcript like another, of which it is for the model to make something
            assert done.returncode == 0 and len(answering.calls) == 1
            return
        assert done.returncode == 3 and answering.calls == []
        assert "not_heard" in done.stderr
        [row] = json.loads(done.stdout)
        assert (row["met"], row["coverage"], row["apr"], row["ars"]) == (0, 0, None, None)
        assert row["ear"]["not_heard"] == 1
        [(reason, detail)] = stored(tmp_path, "select unscored_reason, detail from reply")
        assert reason == "not_heard" and detail.startswith("user turn 2 was not heard")
        assert [turn["text"] is None for turn in heard_in(tmp_path)] == [False, True]
        texts.clear()
        done = ran(ears, monkeypatch, *command(data, tmp_path, answering, "--retry-errors"))
    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout)
    assert (row["coverage"], row["ear"]["not_heard"], len(heard_in(tmp_path))) == (1, 0, 3)


def test_its_ear_is_checked_at_the_beginning_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answering: ChatServer
) -> None:
    from support.listener import digits_heard

    data = write_parquet(tmp_path / "data.parquet", rows_of_lengths(1))

    def hears(wav: bytes) -> str:
        return digits_heard(wav) if decode(wav).seconds > 0.5 else "yes?"

    words = [word for word in command(data, tmp_path, answering) if word != "--no-hear"]
    with ear_server(hears) as ears:
        done = ran(ears, monkeypatch, *words)
        assert done.returncode == 0, done.stderr
        deaf = [*words, "--model-arg", "seed=2"]
        monkeypatch.setattr(ears, "_hears", lambda wav: "you")
        failed = ran(ears, monkeypatch, *deaf)
    [row], [other] = json.loads(done.stdout), json.loads(failed.stdout)
    assert (row["hearing"], other["hearing"]) == ("passed", "failed")
    assert "the ear does not hear" in failed.stderr
    table = vivace("leaderboard", "--home", tmp_path / "home", "--format", "md").stdout
    assert "ear checked" in table and "failed the hearing check" in table
    [(hearing,)] = stored(tmp_path, "select hearing from run where hearing like '%passed%'")
    told = json.loads(hearing)
    assert told["repeated"] == [] and told["probes"][-1]["stage"] == "model"
    assert [probe["stage"] for probe in told["probes"][:-1]] == ["ear"] * 3


def test_a_set_without_sound_has_nothing_for_an_ear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answering: ChatServer
) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", conversation_rows(1, audio=False))
    monkeypatch.setenv(ADDRESS, answering.base)
    done = vivace(*command(data, tmp_path, answering))
    assert done.returncode == 2 and "the ear has nothing to hear" in done.stderr and done.stderr.count("\n") == 1


def test_transcripts_are_the_control_and_gaps_split_the_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the set's transcript the model says yes, with the ear's it says no where it is told of a horse."""
    data = write_parquet(tmp_path / "data.parquet", rows_of_lengths())

    def behave(call: Call) -> Answer:
        return Answer("no" if "horse" in str(call.messages) else "yes")

    with chat_server(behave) as server, ear_server(by_turn({1: "a horse says one", 3: "user 0 says 3"})) as ears:
        for more in ((), ("--audio", "transcript")):
            done = ran(ears, monkeypatch, *command(data, tmp_path, server, *more))
            assert done.returncode == 0, done.stderr
    [transcript] = json.loads(done.stdout)
    assert transcript["is_cascade"] and transcript["ear"] is None and len(ears.received) == 3
    found = json.loads(vivace("gaps", "--format", "json", "--home", tmp_path / "home").stdout)
    assert [(gap["kind"], gap["metric"]) for gap in found] == [("ear", "apr"), ("ear", "ars")]
    ars = found[1]
    assert (ars["value_text"], ars["value_audio"]) == (0.5, 0.5), "the other criterion wants a no"
    assert ars["word_error_rate"] == 2 / 12
    [fell] = ars["fell"]
    assert (fell["conversation"], fell["criterion"]) == ("conversation0000", 0)
    assert fell["misheard"] == [{"turn": 1, "said": "user 0", "heard": "a horse"}]
    table = vivace("gaps", "--home", tmp_path / "home").stdout
    assert "user 0 → a horse" in table and "criterion 0" in table
