"""A job over the demo set from its schedule to one alert, a message, an exit code and a mark in the browser."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from pyarrow import parquet
from streamlit.testing.v1 import AppTest

from engine.lab import wait_until
from support.memorising_model import mix_up, write_memorising_model
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

    def __init__(self, home: Path, model: str, webhook: str) -> None:
        self._home = home
        made = self.regress(
            "add", "nightly", "audio-multichallenge", "--data", "demo", "--audio", "transcript",
            "--model", model, "--judge", "checks", "--cron", "* * * * * *", "--webhook", webhook,
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
    app = AppTest.from_function(_page, default_timeout=300)
    app.run()
    assert not app.exception
    return [element.value for element in app.error]


def test_a_planted_regression_goes_from_the_schedule_to_a_mark_in_the_browser(home: Path, tmp_path: Path) -> None:
    replies = tmp_path / "replies.jsonl"
    now_answers(replies, "attentive")
    with Inbox().open() as inbox:
        job = Job(home, f"replay:{replies}", inbox.address)
        assert [job.due(), job.due()] == [0, 0]
        assert inbox.received == []
        now_answers(replies, "hurried")
        assert job.due() == 100
        assert len(inbox.received) == 1 and "confirmed by 2 fresh runs" in inbox.received[0]["text"]
        assert "the model or the code" in inbox.received[0]["text"]
        assert "The model is another one: replies " in inbox.received[0]["text"], "for its bytes are others"
    (mark,) = marks()
    assert "worse" in mark
    told = job.shown()
    assert told["state"] == "regressed" and told["nights"][-1]["causes"] == ["model"]
    assert [alert["state"] for alert in told["alerts"]] == ["open"]


def accepted(job: Job) -> list[Any]:
    """Its nights that are no worse than those before."""
    return [one for one in job.shown()["nights"] if one["outcome"] == "accepted"]


@contextmanager
def worker(home: Path) -> Iterator[None]:
    """A worker that makes what is due."""
    process = start_vivace("worker", "--home", home)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=300)


@pytest.mark.full
def test_a_worker_takes_the_same_way_by_itself(home: Path, tmp_path: Path) -> None:
    replies = tmp_path / "replies.jsonl"
    now_answers(replies, "attentive")
    with Inbox().open() as inbox:
        job = Job(home, f"replay:{replies}", inbox.address)
        with worker(home):
            wait_until(lambda: len(accepted(job)) >= 3, "three quiet nights")
            assert inbox.received == []
            now_answers(replies, "hurried")
            wait_until(lambda: inbox.received, "an alert")
            wait_until(lambda: job.shown()["nights"][-1]["outcome"] == "regressed", "a night that knows of it")
    assert len(inbox.received) == 1
    (mark,) = marks()
    assert "worse" in mark


def known_by_heart() -> dict[str, str]:
    """Last word of each conversation of the demo set → what its attentive system replied."""
    replies = [json.loads(line) for line in (SYSTEMS / "written-attentive.jsonl").read_text().splitlines()]
    asked = {
        row["id"]: [row[key] for key in row if re.fullmatch(r"user_turn_\d_transcript", key) and row[key]][-1]
        for row in parquet.read_table(Path(demo.__file__).parent / "conversations.parquet").to_pylist()
    }
    return {asked[reply["id"]].split()[-1]: reply["response"] for reply in replies}


@pytest.mark.full
def test_damaged_weights_of_a_live_model_are_found_by_a_worker_and_mended_ones_end_the_alert(
    home: Path, tmp_path: Path
) -> None:
    model = write_memorising_model(tmp_path / "model", known_by_heart())
    whole = (model / "model.safetensors").read_bytes()
    with Inbox().open() as inbox:
        job = Job(home, f"local:{model}", inbox.address)
        with worker(home):
            wait_until(lambda: len(accepted(job)) >= 3, "three quiet nights", 1200)
            assert inbox.received == []
            mix_up(model)
            wait_until(lambda: inbox.received, "an alert", 1200)
        assert job.regress("run", "nightly").returncode == 100
        (message,) = inbox.received
        assert "the model or the code" in message["text"]
        assert "The model is another one" in message["text"]
        (mark,) = marks()
        assert "worse" in mark
        job.regress("pause", "nightly")
        (model / "model.safetensors").write_bytes(whole)
        assert job.regress("run", "nightly").returncode == 0
    assert len(inbox.received) == 2
    assert [alert["state"] for alert in job.shown()["alerts"]] == ["ended"]
    assert marks() == []
