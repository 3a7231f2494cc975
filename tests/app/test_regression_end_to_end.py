"""A job over the demo set from its schedule to one alert, a message, an exit code and a mark in the browser."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from engine.lab import wait_until
from support.program import start_vivace, vivace
from support.regression_world import Inbox
from vivace import demo

SYSTEMS = Path(demo.__file__).parent / "systems"


def _page() -> None:
    from vivace_app.views import regressions

    regressions.show()


def now_answers(replies: Path, system: str) -> None:
    """Have the model of the job answer as a system of the demo."""
    shutil.copy(SYSTEMS / f"written-{system}.jsonl", replies)


class Job:
    """A job on a schedule of seconds, over the demo set, told of at a webhook."""

    def __init__(self, home: Path, replies: Path, webhook: str) -> None:
        self._home = home
        made = self.regress(
            "add", "nightly", "audio-multichallenge", "--data", "demo", "--audio", "transcript",
            "--model", f"replay:{replies}", "--judge", "checks", "--cron", "* * * * * *", "--webhook", webhook,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr

    def regress(self, *arguments: object) -> CompletedProcess[str]:
        return vivace("regress", *arguments, "--home", self._home)

    def due(self) -> int:
        """Run what is due, once something is; the exit code."""
        while True:
            done = self.regress("run", "--due")
            if "Nothing is due" not in done.stderr:
                return done.returncode

    def shown(self) -> Any:
        return json.loads(self.regress("show", "nightly", "--format", "json").stdout)


def marks() -> list[str]:
    """What the page says of jobs that are worse."""
    app = AppTest.from_function(_page, default_timeout=60)
    app.run()
    assert not app.exception
    return [element.value for element in app.error]


def test_a_planted_regression_goes_from_the_schedule_to_a_mark_in_the_browser(home: Path, tmp_path: Path) -> None:
    replies = tmp_path / "replies.jsonl"
    now_answers(replies, "attentive")
    with Inbox().open() as inbox:
        job = Job(home, replies, inbox.address)
        assert [job.due(), job.due()] == [0, 0]
        assert inbox.received == []
        now_answers(replies, "hurried")
        assert job.due() == 100
        assert len(inbox.received) == 1 and "confirmed by 2 fresh runs" in inbox.received[0]["text"]
        assert "the model or the code" in inbox.received[0]["text"]
    (mark,) = marks()
    assert "worse" in mark
    told = job.shown()
    assert told["state"] == "regressed" and told["nights"][-1]["causes"] == ["model"]
    assert [alert["state"] for alert in told["alerts"]] == ["open"]


@pytest.mark.full
def test_a_worker_takes_the_same_way_by_itself(home: Path, tmp_path: Path) -> None:
    replies = tmp_path / "replies.jsonl"
    now_answers(replies, "attentive")
    with Inbox().open() as inbox:
        job = Job(home, replies, inbox.address)
        worker = start_vivace("worker", "--home", home)
        try:
            accepted = lambda: [one for one in job.shown()["nights"] if one["outcome"] == "accepted"]  # noqa: E731
            wait_until(lambda: len(accepted()) >= 3, "three quiet nights")
            assert inbox.received == []
            now_answers(replies, "hurried")
            wait_until(lambda: inbox.received, "an alert")
            wait_until(lambda: job.shown()["nights"][-1]["outcome"] == "regressed", "a night that knows of it")
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.communicate(timeout=120)
    assert len(inbox.received) == 1
    (mark,) = marks()
    assert "worse" in mark
