"""Repeats, votes, gaps, exports and reproduction from end to end: real runs against servers on loopback."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pandas
import pytest

from support.chat_server import Answer, Behaviour, ChatServer, chat_server, verdict
from support.chat_server import Call as Request
from support.datasets import conversation_rows, write_jsonl, write_parquet

Call = Callable[..., Any]


def alternating() -> Behaviour:
    """A model that says yes every second time, and a judge that never finds the third criterion met."""
    asked = {"model": 0}

    def behave(call: Request) -> Answer:
        if call.model == "my-judge":
            return verdict("criterion 2" not in json.dumps(call.messages))
        asked["model"] += 1
        return Answer("yes" if asked["model"] % 2 else "no")

    return behave


def read_json(text: str) -> Any:
    """What a command printed."""
    return json.loads(text)


@pytest.fixture
def server() -> Any:
    """The model's and the judge's server."""
    with chat_server(alternating()) as running:
        yield running


@pytest.fixture
def run(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: ChatServer) -> Callable[..., str]:
    """Run a model on six conversations with these further options; the id of its judging."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    rows = conversation_rows(6, turns=1)
    for number, row in enumerate(rows):
        row["speaker"] = ["Ana", "Ben"][number % 2]
    data = write_parquet(tmp_path / "data.parquet", rows)

    def record(*options: object) -> str:
        done = call(
            "run", "audio-multichallenge", "--data", data, "--model", "litellm:openai/my-model", "--api-base",
            server.base, "--judge", "checks", "--no-hear", "--format", "json", *options,
        )  # fmt: skip
        assert done.code == 0, done.err
        return str(read_json(done.out)[0]["judging"])

    return record


def test_a_run_with_repeats_goes_through_every_verb(call: Call, run: Callable[..., str], tmp_path: Path) -> None:
    """Every second reply is "yes": each meets the first criterion, "no" the second; none passes."""
    judging = run("--repeats", 2, "--concurrency", 1)
    (row,) = read_json(call("leaderboard", "--format", "json").out)
    assert (row["repeats"], row["n"], row["criteria"], row["met"], row["hearing"]) == (2, 6, 24, 12, "skipped")
    assert row["apr_between"] == row["apr_within"] == 0
    assert "its hearing was not checked" in row["unofficial_reasons"]
    assert row["accounting"]["generate"]["calls"] == 12
    assert row["accounting"]["generate"]["audio_seconds"] == pytest.approx(12 * 0.3)
    parts = read_json(call("breakdown", judging, "--by", "speaker", "--format", "json").out)
    assert [(part["slice"], part["conversations"], part["replies"]) for part in parts] == [
        ("Ana", 3, 6),
        ("Ben", 3, 6),
    ]
    seconds = read_json(call("breakdown", judging, "--by", "seconds", "--format", "json").out)
    assert seconds[0]["place"] == pytest.approx(0.3)
    for by in ("axis", "turns", "seconds", "speaker"):
        assert call("breakdown", judging, "--by", by).code == 0
    planned = call("plan", judging, "--difference", "0.2")
    assert planned.code == 0 and "between replies to one conversation" in planned.err
    once = run("--limit", 6)
    compared = read_json(call("compare", judging, once, "--by", "speaker", "--format", "json").out)
    assert {part["slice"] for part in compared["rows"]} == {"", "Ana", "Ben"}


def test_exports_hold_every_reply_and_vote_in_every_format(
    call: Call, run: Callable[..., str], server: ChatServer, tmp_path: Path
) -> None:
    judging = run(
        "--repeats", 2, "--votes", 3, "--judge", "litellm:openai/my-judge", "--judge-api-base", server.base
    )  # fmt: skip
    rows = read_json(call("export", judging, "--format", "json").out)
    assert len(rows) == 6 * 2 * 2 * 4
    assert {(row["repeat"], row["vote"]) for row in rows} == {(k, vote) for k in (0, 1) for vote in range(4)}
    lines = call("export", judging, "--format", "jsonl").out.splitlines()
    assert [json.loads(line) for line in lines] == rows
    table = list(csv.DictReader(io.StringIO(call("export", judging, "--format", "csv").out)))
    assert [(row["repeat"], row["vote"]) for row in table] == [(str(row["repeat"]), str(row["vote"])) for row in rows]
    file = tmp_path / "items.parquet"
    assert call("export", judging, "--format", "parquet", "-o", file).code == 0
    frame = pandas.read_parquet(file)
    assert frame.astype(object).where(frame.notna(), None).to_dict("records") == rows
    loaded = datasets.load_dataset("parquet", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.to_list() == rows
    board = read_json(call("leaderboard", "--format", "json").out)[0]
    assert (board["votes"], board["vote_agreement"]) == (3, 1.0)


def test_parquet_has_the_same_columns_whatever_is_in_them(call: Call, tmp_path: Path) -> None:
    """Where everything is unscored, a column of nothing but nulls must keep its type: files are read together."""
    write_jsonl(tmp_path / "data.jsonl", conversation_rows(2, audio=False))
    schemas = []
    for name, met in (("scored", True), ("unscored", None)):
        verdicts = write_jsonl(
            tmp_path / "verdicts.jsonl",
            [{"id": f"conversation{n:04d}", "response": "x", "criteria_met": [met, met]} for n in range(2)],
        )
        done = call(
            "import", "audio-multichallenge", "--data", tmp_path / "data.jsonl", "--verdicts", verdicts,
            "--model", name, "--judge-name", "people", "--format", "json",
        )  # fmt: skip
        judging = next(row["judging"] for row in read_json(done.out) if row["model"] == name)
        file = tmp_path / f"{name}.parquet"
        assert call("export", judging, "--format", "parquet", "-o", file).code == 0
        schemas.append(datasets.Dataset.from_parquet(str(file), cache_dir=str(tmp_path / name)).features)
    assert schemas[0] == schemas[1]


def test_parquet_needs_a_file_that_can_be_written(call: Call, run: Callable[..., str], tmp_path: Path) -> None:
    judging = run("--limit", 1)
    for options in ((), ("-o", tmp_path / "no" / "folder.parquet")):
        done = call("export", judging, "--format", "parquet", *options)
        assert done.code == 2 and done.err.startswith("Error: ") and done.err.count("\n") == 1


def test_a_transcript_run_and_an_audio_run_make_a_hearing_gap(call: Call, run: Callable[..., str]) -> None:
    assert "both ways" in call("gaps").err
    text, audio = run("--audio", "transcript"), run()
    found = read_json(call("gaps", "--format", "json").out)
    assert [(row["kind"], row["metric"]) for row in found] == [("hearing", "apr"), ("hearing", "ars")]
    assert {(row["judging_text"], row["judging_audio"], row["n"]) for row in found} == {(text, audio, 6)}
    table = call("gaps").out.splitlines()
    assert len(table) == 3 and "hearing" in table[1]


def test_the_commands_that_reproduce_a_run_find_it_done(call: Call, run: Callable[..., str]) -> None:
    """Every flag that makes the run's identity is in the command: with one missing it would be another run."""
    judging = run("--repeats", 2, "--limit", 3, "--model-arg", "temperature=0.5", "--model-arg", 'stop=["x", "1"]')
    found = read_json(call("reproduce", judging, "--format", "json").out)
    command = next(line for line in found["commands"] if line.startswith("vivace run"))
    again = call(*shlex.split(command)[1:], "--format", "json")
    assert again.code == 0, again.err
    assert read_json(again.out)[0]["judging"] == judging
    assert len(read_json(call("leaderboard", "--format", "json").out)) == 1
    assert found["run"] == judging.partition(".")[0]
    assert any(line.startswith("pip install") for line in found["commands"])


def test_reproduce_lists_what_has_changed_since(
    call: Call, run: Callable[..., str], tmp_path: Path, server: ChatServer
) -> None:
    judging = run("--limit", 3)
    unchanged = read_json(call("reproduce", judging, "--format", "json").out)
    assert not {change["what"] for change in unchanged["changes"]} - {"code", "uncommitted changes"}
    write_parquet(tmp_path / "data.parquet", conversation_rows(3, turns=1, criteria=1))
    changed = call("reproduce", judging)
    assert changed.code == 0 and "data: " in changed.err and "→" in changed.err
    (tmp_path / "data.parquet").unlink()
    assert "not to be had" in call("reproduce", judging).err


def test_reproduce_shows_how_a_run_was_judged_again(call: Call, run: Callable[..., str], server: ChatServer) -> None:
    first = run("--limit", 2)
    done = call(
        "judge", "run", first, "--judge", "litellm:openai/my-judge", "--judge-api-base", server.base,
        "--judge-arg", "top_p=0.9", "--format", "json",
    )  # fmt: skip
    assert done.code == 0, done.err
    second = next(row["judging"] for row in read_json(done.out))
    commands = read_json(call("reproduce", second, "--format", "json").out)["commands"]
    assert commands[-2].startswith("vivace run") and "--judge checks" in commands[-2]
    again = call(*shlex.split(commands[-1])[1:], "--format", "json")
    assert again.code == 0, again.err
    assert len(read_json(call("leaderboard", "--format", "json").out)) == 2


def test_judging_again_under_the_same_judge_leaves_the_runs_own_command_on_record(
    call: Call, run: Callable[..., str]
) -> None:
    judging = run("--limit", 2)
    before = read_json(call("reproduce", judging, "--format", "json").out)["commands"]
    assert call("judge", judging.partition(".")[0], "--judge", "checks").code == 0
    assert read_json(call("reproduce", judging, "--format", "json").out)["commands"][: len(before)] == before


def test_an_imported_run_says_that_no_command_reproduces_it(call: Call, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", conversation_rows(1, audio=False))
    verdicts = write_jsonl(
        tmp_path / "verdicts.jsonl", [{"id": "conversation0000", "response": "x", "criteria_met": [True, True]}]
    )
    done = call(
        "import", "audio-multichallenge", "--data", data, "--verdicts", verdicts, "--model", "x", "--judge-name", "y",
        "--format", "json",
    )  # fmt: skip
    done = call("reproduce", read_json(done.out)[0]["run"])
    assert done.code == 2 and "was imported" in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize("verb", ["reproduce", "breakdown", "plan"])
def test_an_unknown_id_is_one_sentence(call: Call, run: Callable[..., str], verb: str) -> None:
    for _ in range(2):
        done = call(verb, "nothing")
        assert done.code == 2 and done.err.startswith("Error: ") and done.err.count("\n") == 1
        run("--limit", 1)
