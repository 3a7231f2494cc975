"""Ctrl-C and SIGTERM: what is in flight is finished or dropped, what is recorded stays, the same command goes on."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from engine.lab import Gate, laboratory, wait_until
from support.program import vivace


@pytest.mark.usually_on("sqlite")
def test_the_first_ctrl_c_finishes_the_calls_in_flight_and_the_same_command_resumes(
    database_url: str, tmp_path: Path
) -> None:
    gate = Gate(hold_from=4)
    with laboratory(tmp_path, database_url, gate, conversations=8) as lab:
        arguments = lab.run_arguments("--concurrency", 2)
        process = lab.start(*arguments)
        wait_until(lambda: gate.held == 2, "two calls in flight")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        wait_until(lambda: "finishing the calls in flight" in process.stderr.readline(), "it has heard")
        gate.opened.set()
        out, talk = process.communicate(timeout=300)
        assert process.returncode == 130, talk
        assert out == "", "an unfinished run shows no scores"
        assert "what is recorded stays, the same command goes on" in talk
        assert len(lab.server.calls) == lab.recorded()["reply"] == 5
        assert [view.status for view in [lab.view(_only_run(lab.results()))]] == ["incomplete"]

        assert vivace(*arguments).returncode == 0
        assert len(lab.server.calls) == lab.recorded()["reply"] == 8
        assert lab.recorded() == {"reply": 8, "verdict": 16, "attempt": 8}


@pytest.mark.usually_on("sqlite")
def test_the_second_ctrl_c_drops_the_calls_of_a_hanging_server_at_once(database_url: str, tmp_path: Path) -> None:
    gate = Gate(hold_from=3)
    with laboratory(tmp_path, database_url, gate, conversations=4) as lab:
        arguments = lab.run_arguments("--concurrency", 2)
        process = lab.start(*arguments)
        wait_until(lambda: gate.held == 2, "two calls hang")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        wait_until(lambda: "finishing the calls in flight" in process.stderr.readline(), "it has heard")
        process.send_signal(signal.SIGINT)
        _, talk = process.communicate(timeout=300)
        assert process.returncode == 130, talk
        assert gate.let_go == 0, "at once, and not when the server answers"
        assert lab.recorded()["reply"] == 2

        gate.hold_from = None
        assert vivace(*arguments).returncode == 0
        assert lab.recorded() == {"reply": 4, "verdict": 8, "attempt": 4}


@pytest.mark.usually_on("postgresql")
def test_a_terminated_worker_puts_its_submission_back_and_another_finishes_it(
    database_url: str, tmp_path: Path
) -> None:
    gate = Gate(hold_from=3)
    with laboratory(tmp_path, database_url, gate, conversations=5) as lab:
        first = lab.start_worker()
        submission = lab.submit(concurrency=2)
        wait_until(lambda: gate.held == 2, "two calls in flight")
        first.send_signal(signal.SIGTERM)
        assert first.stderr is not None
        wait_until(lambda: "finishing the calls in flight" in first.stderr.readline(), "it has heard")
        gate.opened.set()
        assert first.wait(300) == 0
        view = lab.view(submission)
        assert (view.status, view.position, view.worker, view.items_done) == ("queued", 1, None, 4)

        second = lab.start_worker("--until-empty")
        assert second.wait(300) == 0
        assert lab.view(submission).status == "complete"
        assert lab.recorded() == {"reply": 5, "verdict": 10, "attempt": 5}
        assert len(lab.server.calls) == 5


def _only_run(results: dict[str, list[tuple[object, ...]]]) -> str:
    (run_id,) = {str(row[1]) for row in results["reply"]}
    return run_id
