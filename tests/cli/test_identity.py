"""What makes a run the same run, and a judging the same judging."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.chat_server import Answer, chat_server, verdict
from support.datasets import conversation_rows, write_jsonl, write_parquet

Call = Callable[..., Any]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three conversations with audio."""
    return write_parquet(tmp_path / "data.parquet", conversation_rows(3, turns=1))


@pytest.fixture
def replies(tmp_path: Path) -> Path:
    """Their replies."""
    rows = [{"id": f"conversation{n:04d}", "response": "yes"} for n in range(3)]
    return write_jsonl(tmp_path / "replies.jsonl", rows)


@pytest.fixture
def run(call: Call, data: Path, replies: Path) -> Callable[..., str]:
    """Execute a run of the recorded replies under the checks, and give its id."""

    def execute(*more: object) -> str:
        model = ("--model", f"replay:{replies}", "--judge", "checks")
        done = call("run", "audio-multichallenge", "--data", data, *model, "--format", "json", *more)
        assert done.code == 0, done.err
        return str(json.loads(done.out)[0]["run"])

    return execute


def test_the_same_command_is_the_same_run(run: Callable[..., str], call: Call) -> None:
    assert run() == run()
    assert len(json.loads(call("leaderboard", "--format", "json").out)) == 1
    assert len(json.loads(call("status", "--format", "json").out)) == 1


def test_how_it_is_executed_makes_no_other_run(run: Callable[..., str]) -> None:
    assert run() == run("--concurrency", "1", "--timeout", "5", "--retries", "0")


@pytest.mark.parametrize(
    "change",
    [("--limit", "2"), ("--items", "conversation0001"), ("--audio", "original"), ("--audio", "transcript")],
    ids=" ".join,
)
def test_what_makes_the_result_makes_another_run(run: Callable[..., str], change: tuple[str, ...]) -> None:
    assert run() != run(*change)


def test_the_order_in_which_items_are_named_does_not_count(run: Callable[..., str]) -> None:
    one, two = "conversation0000", "conversation0002"
    assert (
        run("--items", f"{one},{two}") == run("--items", f" {two} , {one} ") == run("--items", f"{two},{one},{two}")
    )
    assert run("--items", f"conversation0001,{one},{two}") == run()


def test_moved_data_and_replies_are_the_same_run_and_changed_ones_another(
    run: Callable[..., str], data: Path, replies: Path, tmp_path: Path
) -> None:
    first = run()
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(data, tmp_path / "elsewhere" / "other-name.parquet")
    shutil.copy(replies, tmp_path / "elsewhere" / replies.name)
    moved = ("--data", tmp_path / "elsewhere" / "other-name.parquet")
    assert run(*moved) == first
    assert run(*moved, "--model", f"replay:{tmp_path / 'elsewhere' / replies.name}") == first
    write_parquet(data, conversation_rows(3, turns=2))
    second = run()
    assert second != first
    replies.write_text(replies.read_text().replace("yes", "no"))
    assert run() not in (first, second)


def test_force_makes_a_new_run_each_time(run: Callable[..., str], call: Call) -> None:
    ids = [run(), run("--force"), run("--force")]
    assert len(set(ids)) == 3
    assert run() == ids[-1]  # afterwards the plain command means the newest
    assert len(json.loads(call("leaderboard", "--format", "json").out)) == 3


def test_a_retracted_run_is_not_run_again_silently(
    run: Callable[..., str], call: Call, data: Path, replies: Path
) -> None:
    identifier = run()
    call("retract", identifier, "--reason", "wrong voices")
    done = call("run", "audio-multichallenge", "--data", data, "--model", f"replay:{replies}", "--judge", "checks")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert all(word in done.err for word in (identifier, "wrong voices", "--force"))
    assert run("--force") != identifier


def test_generation_parameters_make_another_run_and_a_judge_another_judging(
    call: Call, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    answers = {"talker": Answer("yes"), "judge": verdict(True), "other-judge": verdict(False)}
    with chat_server(lambda call: answers[call.model]) as server:

        def run(judge: str, *more: object) -> dict[str, Any]:
            server.calls.clear()
            done = call(
                "run", "audio-multichallenge", "--data", data, "--model", "litellm:openai/talker",
                "--api-base", server.base, "--judge", judge, "--judge-api-base", server.base,
                "--format", "json", "--no-hear", *more,
            )  # fmt: skip
            assert done.code == 0, done.err
            (row,) = json.loads(done.out)
            row["asked"] = [call.model for call in server.calls]
            return dict(row)

        first = run("litellm:openai/judge")
        assert first["asked"].count("talker") == 3 and first["asked"].count("judge") == 6
        again = run("litellm:openai/judge")
        assert (again["judging"], again["asked"]) == (first["judging"], [])
        other = run("litellm:openai/other-judge")
        assert other["run"] == first["run"] and other["judging"] != first["judging"]
        assert "talker" not in other["asked"] and other["asked"].count("other-judge") == 6
        assert (first["apr"], other["apr"]) == (1.0, 0.0)
        colder = run("litellm:openai/judge", "--judge-arg", "temperature=0.5")
        assert colder["run"] == first["run"] and colder["judging"] != first["judging"]
        shorter = run("litellm:openai/judge", "--model-arg", "max_tokens=50")
        assert shorter["run"] != first["run"] and shorter["asked"].count("talker") == 3
