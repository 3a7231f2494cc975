"""A worker that is dead or frozen loses its submission to another one, and cannot write when it wakes up."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.lab import Gate, Lab, laboratory, wait_until

CONVERSATIONS = 6
WHOLE = {"reply": CONVERSATIONS, "verdict": 2 * CONVERSATIONS, "attempt": CONVERSATIONS}


@pytest.fixture
def gate() -> Gate:
    """Two calls are answered at once; the others wait."""
    return Gate(hold_from=3)


@pytest.fixture
def lab(database_url: str, tmp_path: Path, gate: Gate) -> Iterator[Lab]:
    """Six conversations whose calls the gate holds."""
    with laboratory(tmp_path, database_url, gate, conversations=CONVERSATIONS) as lab:
        yield lab


def _let_the_taker_finish(gate: Gate) -> None:
    """Answer the held calls, in a way that can be told from what is answered from now on."""
    gate.hold_from = None
    gate.opened.set()
    gate.text = "yes, from the one that took over"


@pytest.mark.usually_on("postgresql")
def test_a_frozen_worker_is_fenced_and_goes_back_to_serving(lab: Lab, gate: Gate) -> None:
    frozen = lab.start_worker("--lease", "2")
    submission = lab.submit(concurrency=2)
    wait_until(lambda: gate.held == 2, "two calls in flight")
    owner = lab.view(submission).worker
    lab.freeze(frozen)
    _let_the_taker_finish(gate)

    taker = lab.start_worker("--lease", "2")
    view = lab.wait_for(submission, "complete")
    assert view.worker != owner
    assert lab.recorded() == WHOLE
    before = lab.results()
    assert [row[4] for row in before["reply"]].count("yes") == 2, "what was recorded before stays"
    taker.send_signal(signal.SIGTERM)
    assert taker.wait(300) == 0

    frozen.send_signal(signal.SIGCONT)
    second = lab.submit(concurrency=2, limit=3)
    assert lab.wait_for(second, "complete").worker == owner
    after = lab.results()
    assert {table: rows[: len(before[table])] for table, rows in after.items()} == before
    assert lab.view(submission).worker == view.worker
    frozen.send_signal(signal.SIGTERM)
    _, talk = frozen.communicate(timeout=300)
    assert f"{submission}: Run {view.run} was taken over" in talk
    assert frozen.returncode == 0


@pytest.mark.usually_on("sqlite")
def test_a_frozen_run_is_taken_over_by_the_same_command(lab: Lab, gate: Gate) -> None:
    arguments = lab.run_arguments("--concurrency", 2)
    first = lab.start(*arguments, VIVACE_LEASE_SECONDS="2")
    wait_until(lambda: gate.held == 2, "two calls in flight")
    second = lab.start(*arguments, VIVACE_LEASE_SECONDS="2")
    assert second.stderr is not None
    assert "waiting for it" in second.stderr.readline()

    lab.freeze(first)
    _let_the_taker_finish(gate)
    _, talk = second.communicate(timeout=300)
    assert second.returncode == 0, talk
    before = lab.results()
    assert lab.recorded() == WHOLE

    first.send_signal(signal.SIGCONT)
    _, talk = first.communicate(timeout=300)
    assert first.returncode == 3
    assert "was taken over by another process" in talk
    assert lab.results() == before


@pytest.mark.usually_on("postgresql")
def test_killed_workers_are_replaced_by_a_running_one_and_by_the_next_to_start(lab: Lab, gate: Gate) -> None:
    first = lab.start_worker()
    submission = lab.submit(concurrency=2)
    wait_until(lambda: gate.held == 2, "the first worker's calls in flight")
    second = lab.start_worker()
    first_id = lab.view(submission).worker
    first.kill()
    wait_until(lambda: gate.held == 3, "the running worker took over by itself, and makes its first call alone")
    second_id = lab.view(submission).worker
    assert second_id != first_id
    second.kill()
    second.wait()

    _let_the_taker_finish(gate)
    third = lab.start_worker("--until-empty")
    view = lab.wait_for(submission, "complete")
    assert view.worker not in (first_id, second_id)
    assert third.wait(300) == 0
    assert lab.recorded() == WHOLE
    assert len(lab.server.calls) == CONVERSATIONS + 3, "only what was in flight was asked again"
    assert sum("back in the queue" in line for line in lab.events(submission)) == 2
