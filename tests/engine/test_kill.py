"""A run that is killed again and again ends as one that was left alone."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from engine.lab import Gate, Lab, laboratory, wait_until
from support.program import vivace

CONCURRENCY = 8
DELAY_S = 0.05


def _kill_at(lab: Lab, gate: Gate, arguments: list[object], calls: int, moment_s: float) -> None:
    """Start the command and kill it a moment after it has made so many calls; it is held before it is through."""
    before = len(lab.server.calls)
    gate.hold_from = before + calls + CONCURRENCY
    process = lab.start(*arguments, VIVACE_LEASE_SECONDS="600")
    wait_until(lambda: len(lab.server.calls) >= before + calls, f"{calls} calls")
    time.sleep(moment_s)
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGKILL)
    # Not waited for: a parent that takes no note of it leaves a zombie, and that is dead, too.


@pytest.mark.full
def test_a_run_killed_twenty_times_loses_nothing_and_repeats_only_calls_in_flight(
    database_url: str, tmp_path: Path
) -> None:
    _killed_again_and_again(database_url, tmp_path, count=20, conversations=200)


@pytest.mark.usually_on("postgresql")
def test_a_run_killed_at_random_moments_loses_nothing_and_repeats_only_calls_in_flight(
    database_url: str, tmp_path: Path
) -> None:
    _killed_again_and_again(database_url, tmp_path, count=4, conversations=50)


def _killed_again_and_again(database_url: str, tmp_path: Path, count: int, conversations: int) -> None:
    # A lease of ten minutes: restarting has to see that the owner's process is gone, and not wait.
    kills = random.Random(20)
    planned_calls = conversations * 3
    gate = Gate(DELAY_S)
    with laboratory(tmp_path, database_url, gate, conversations=conversations) as lab:
        judge = ["--judge", "litellm:openai/judge", "--judge-api-base", lab.server.base]
        arguments = lab.run_arguments("--concurrency", CONCURRENCY, *judge)
        started = time.monotonic()
        for _ in range(count):
            # Up to this many calls each, so that the run is not over before the last kill; 0 hits the start.
            calls = kills.randint(0, planned_calls // (count + 2) - CONCURRENCY)
            _kill_at(lab, gate, arguments, calls, kills.uniform(0, DELAY_S if calls else 3.0))
        gate.hold_from = None
        finished = vivace(*arguments, VIVACE_LEASE_SECONDS="600")
        assert finished.returncode == 0, finished.stderr
        seconds = time.monotonic() - started

        assert lab.recorded() == {"reply": conversations, "verdict": 2 * conversations, "attempt": planned_calls}
        repeated = len(lab.server.calls) - planned_calls
        print(f"{count} kills, {conversations} conversations: {repeated} calls repeated, {seconds:.0f} s")
        assert 0 <= repeated <= count * CONCURRENCY
        scores = _scores(lab)
        interrupted_calls = len(lab.server.calls)

        undisturbed = vivace(*arguments, "--force", VIVACE_LEASE_SECONDS="600")
        assert undisturbed.returncode == 0, undisturbed.stderr
        assert len(lab.server.calls) - interrupted_calls == planned_calls
        assert _scores(lab)[len(scores) :] == scores


def _scores(lab: Lab) -> list[tuple[object, ...]]:
    """All but the times, which are never the same."""
    return [row[3:] for row in lab.results()["score"] if not str(row[3]).endswith("_s")]
