"""What commands say beside their data: where to look at a run, how it ended, and no word twice or out of place."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from support.datasets import conversation_rows, write_jsonl
from support.judged import add_dataset, add_judging
from vivace.cli.running import execution
from vivace.engine.execution import StopSignal
from vivace.engine.submissions import cancel
from vivace.settings import Settings, load_settings
from vivace.store.migrate import open_for_writing
from vivace.store.queries.log import log
from vivace.store.queries.submissions import submissions
from vivace.store.tables import Attempt, Submission

Call = Callable[..., Any]


def test_import_and_run_say_which_run_it_is_and_how_to_look_at_it(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_jsonl(tmp_path / "texts.jsonl", conversation_rows(1, criteria=1, audio=False))
    verdicts = write_jsonl(
        tmp_path / "v.jsonl", [{"id": "conversation0000", "response": "x", "criteria_met": [True]}]
    )
    done = call(
        "import", "audio-multichallenge", "--data", data, "--verdicts", verdicts, "--model", "m", "--judge-name", "j",
        "--home", "a b",
    )  # fmt: skip
    assert done.code == 0 and "look at it with `vivace leaderboard audio-multichallenge --home 'a b'`" in done.err
    run = done.err.split()[1]
    assert call("export", run, "--home", "a b").code == 0
    settings = load_settings()
    result = execution.Result("abc", "abc.def", "audio-multichallenge", 0, "")
    said: list[str] = []
    monkeypatch.setattr(execution, "say", said.append)
    execution.say_where(result, settings)
    execution.say_where(execution.Result("abc", None, "sparsity", 3, "Run abc incomplete: x."), settings)
    assert said == [
        "Run abc is recorded; look at it with `vivace leaderboard audio-multichallenge`, "
        "`vivace breakdown abc.def`, or `vivace serve` in the browser.",
        "Run abc incomplete: x. `vivace logs abc` has its log.",
    ]


def test_replies_that_a_file_lacks_are_not_offered_to_be_tried_again(call: Call, tmp_path: Path) -> None:
    rows = conversation_rows(2, criteria=1, audio=False)
    for row in rows:
        row["rubric_checks"] = '[{"states_one_of": ["x"]}]'
    data = write_jsonl(tmp_path / "texts.jsonl", rows)
    replies = write_jsonl(tmp_path / "r.jsonl", [{"id": "conversation0000", "response": "x"}])
    done = call("run", "audio-multichallenge", "--data", data, "--model", f"replay:{replies}", "--judge", "checks")
    assert done.code == 3 and "put the replies that are missing into the file and run that" in done.err
    assert "--retry-errors" not in done.err


def test_nothing_is_said_to_be_done_in_0_seconds() -> None:
    common = {"seconds_left": 0.0, "items_planned": 24, "verdicts_planned": 0, "verdicts_done": 0}
    assert execution.time_left(SimpleNamespace(items_done=24, **common)) == ", finishing"
    assert execution.time_left(SimpleNamespace(items_done=23, **common)) == ", about 0 s left"


def test_a_database_is_named_without_its_password() -> None:
    settings = Settings(database="postgresql://me:hunter2@host/name")
    assert "hunter2" not in execution.same_place(settings) and "host/name" in execution.same_place(settings)


@pytest.fixture
def submitted(call: Call) -> str:
    """A submission in this folder's database that is queued, with a failed question of the hearing check."""
    database = open_for_writing(load_settings())
    with database.write() as session:
        judging = add_judging(session, add_dataset(session, 1), [[[True, True]]], name="the-model")
        run = judging.partition(".")[0]
        session.add(Submission(id="s1", run_id=run, judging_id=judging, spec={}, status="queued", queue="q"))
        session.add(Attempt(run_id=run, stage="hear", seconds=1.0, error="timeout", detail="too slow"))
    database.close()
    return "s1"


def test_a_failed_question_of_the_hearing_check_is_of_no_conversation(call: Call, submitted: str) -> None:
    lines = call("logs", submitted).out
    assert "hear: timeout (too slow)" in lines and "None" not in lines


def test_a_status_is_not_said_twice(call: Call, submitted: str) -> None:
    database = open_for_writing(load_settings())
    cancel(database, submitted)
    (view,) = submissions(database, submitted)
    assert (view.status, view.message) == ("cancelled", "it was queued; what is recorded stays")
    assert log(database, "run0")[-1].message == "cancellation asked for"
    database.close()


def test_an_interrupted_run_says_so_once(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_jsonl(tmp_path / "texts.jsonl", conversation_rows(1, criteria=1, audio=False))
    replies = write_jsonl(tmp_path / "replies.jsonl", [{"id": "conversation0000", "response": "x"}])

    @contextmanager
    def stopped() -> Iterator[StopSignal]:
        stop = StopSignal()
        stop.request()
        yield stop

    monkeypatch.setattr(execution, "stop_on_ctrl_c", stopped)
    done = call(
        "run", "audio-multichallenge", "--data", data, "--model", f"replay:{replies}", "--judge", "checks",
        "--audio", "transcript",
    )  # fmt: skip
    assert done.code == 130, done
    assert done.err.count("interrupted") == 1 and "`vivace logs " in done.err
    (view,) = submissions(open_for_writing(load_settings()))
    assert view.status == "incomplete" and view.message is not None and view.message.startswith("interrupted; ")


@pytest.mark.parametrize(("working", "said"), [(False, "stopping"), (True, "finishing the calls in flight")])
def test_an_idle_process_finishes_no_calls(capfd: pytest.CaptureFixture[str], working: bool, said: str) -> None:
    with execution.stop_on_ctrl_c() as stop:
        stop.on_abort((lambda: None) if working else None)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested
    assert capfd.readouterr().err.strip().startswith(said)


def test_the_progress_bar_is_named_by_the_model(submitted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.progress import Progress

    names = []
    add = Progress.add_task

    def seen(self: Progress, description: str, **values: Any) -> Any:
        names.append(description)
        return add(self, description, **values)

    monkeypatch.setattr(Progress, "add_task", seen)
    ended = Event()
    ended.set()
    database = open_for_writing(load_settings())
    execution._watch_with_bar(database, submitted, ended)
    database.close()
    assert names == ["the-model"]
