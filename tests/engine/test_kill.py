"""A run that is killed again and again ends as one that was left alone."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from engine.lab import Gate, Lab, full_version, laboratory
from support.program import vivace

KILLS = 20 if full_version() else 5
CONVERSATIONS = 200 if full_version() else 60
CONCURRENCY = 8
DELAY_S = 0.05


def _kill_at(lab: Lab, arguments: list[object], calls: int, moment_s: float) -> None:
    """Start the command and kill it a moment after it has made so many calls."""
    before = len(lab.server.calls)
    process = lab.start(*arguments, VIVACE_LEASE_SECONDS="600")
    while len(lab.server.calls) < before + calls:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    time.sleep(moment_s)
    assert process.poll() is None, "it ended before it was killed"
    process.send_signal(signal.SIGKILL)
    # Not waited for: a parent that takes no note of it leaves a zombie, and that is dead, too.


def test_a_run_killed_at_random_moments_loses_nothing_and_repeats_only_calls_in_flight(
    database_url: str, tmp_path: Path
) -> None:
    # A lease of ten minutes: restarting has to see that the owner's process is gone, and not wait.
    kills = random.Random(20)
    planned_calls = CONVERSATIONS * 3
    with laboratory(tmp_path, database_url, Gate(DELAY_S), conversations=CONVERSATIONS) as lab:
        judge = ["--judge", "litellm:openai/judge", "--judge-api-base", lab.server.base]
        arguments = lab.run_arguments("--concurrency", CONCURRENCY, *judge)
        started = time.monotonic()
        for _ in range(KILLS):
            # Up to this many calls each, so that the run is not over before the last kill; 0 hits the start.
            calls = kills.randint(0, planned_calls // (KILLS + 2))
            _kill_at(lab, arguments, calls, kills.uniform(0, DELAY_S if calls else 3.0))
        finished = vivace(*arguments, VIVACE_LEASE_SECONDS="600")
        assert finished.returncode == 0, finished.stderr
        seconds = time.monotonic() - started

        assert lab.recorded() == {"reply": CONVERSATIONS, "verdict": 2 * CONVERSATIONS, "attempt": planned_calls}
        repeated = len(lab.server.calls) - planned_calls
        print(f"{KILLS} kills, {CONVERSATIONS} conversations: {repeated} calls repeated, {seconds:.0f} s")
        assert 0 <= repeated <= KILLS * CONCURRENCY
        scores = [row[3:] for row in lab.results()["score"]]
        interrupted_calls = len(lab.server.calls)

        undisturbed = vivace(*arguments, "--force", VIVACE_LEASE_SECONDS="600")
        assert undisturbed.returncode == 0, undisturbed.stderr
        assert len(lab.server.calls) - interrupted_calls == planned_calls
        assert [row[3:] for row in lab.results()["score"][len(scores) :]] == scores
