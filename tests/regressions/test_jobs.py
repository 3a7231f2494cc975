"""Jobs from the command line, on a model and a judge on loopback: quiet nights, planted faults, their causes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.regression_world import Inbox, World, world


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    """A world on SQLite."""
    with world(tmp_path, f"sqlite:///{tmp_path / 'test.db'}") as made:
        yield made


def test_a_planted_regression_ends_in_one_alert_that_names_the_model_and_ends_when_it_is_mended(here: World) -> None:
    with Inbox().open() as inbox:
        added = here.add("nightly", "--webhook", inbox.address)
        assert added.returncode == 0, added.stderr
        assert "16 conversations" in added.stderr
        assert [here.run().returncode for _ in range(3)] == [0, 0, 0]
        assert inbox.received == []

        here.failing = 0.4
        worse = here.run()
        assert worse.returncode == 100, worse.stderr
        job = here.shown()
        assert job["state"] == "regressed"
        night = job["nights"][-1]
        assert (night["outcome"], night["causes"], len(night["runs"])) == ("regressed", ["model"], 3)
        parts = {
            figure["stage"]: figure
            for figure in night["figures"]
            if (figure["metric"], figure["slice"]) == ("apr", "")
        }
        assert parts["confirm"]["difference"] < -0.2
        assert parts["judge"]["difference"] == 0
        assert parts["rest"]["shown"]
        (message,) = inbox.received
        assert list(message) == ["text"]
        assert "the model or the code" in message["text"]
        assert "replies read differently" in message["text"]

        again = here.run()
        assert again.returncode == 100
        assert len(here.shown()["nights"][-1]["runs"]) == 1, "what an open alert tells is not confirmed again"
        assert len(inbox.received) == 1

        here.failing = 0.0
        assert here.run().returncode == 0
        (alert,) = here.shown()["alerts"]
        assert alert["state"] == "ended"
        assert len(inbox.received) == 2
        assert "has ended" in inbox.received[1]["text"]
        assert [one["state"] for one in alert["deliveries"]] == ["sent", "sent"]


def test_a_stricter_judge_is_named_and_beside_a_worse_model_both_are(here: World) -> None:
    here.add()
    for _ in range(3):
        assert here.run().returncode == 0
    here.strict = 0.35
    assert here.run().returncode == 100
    night = here.shown()["nights"][-1]
    assert night["causes"] == ["judge"]
    parts = {
        figure["stage"]: figure for figure in night["figures"] if (figure["metric"], figure["slice"]) == ("apr", "")
    }
    assert parts["judge"]["shown"] and not parts["rest"]["shown"]
    assert "judged again" in night["message"]

    here.strict = 0.0
    assert here.run().returncode == 0
    here.strict, here.failing = 0.4, 0.95
    assert here.run().returncode == 100
    assert set(here.shown()["nights"][-1]["causes"]) == {"judge", "model"}


def test_changed_data_are_named_with_the_figures_of_what_changed_and_what_did_not(here: World) -> None:
    here.add()
    for _ in range(3):
        assert here.run().returncode == 0
    lines = [json.loads(line) for line in here.data.read_text().splitlines()]
    for row in lines[:8]:
        row["user_turn_1_transcript"] = row["user_turn_1_transcript"].replace("says", "shouts")
    here.data.write_text("".join(json.dumps(row) + "\n" for row in lines))
    before = here.answer

    def answer(call):  # type: ignore[no-untyped-def]
        from support.chat_server import Answer

        if "judge" not in call.model and "shouts" in json.dumps(call.body["messages"]):
            return Answer("WRONG answer")
        return before(call)

    here.server._behave = answer
    assert here.run().returncode == 100
    night = here.shown()["nights"][-1]
    assert night["causes"] == ["data"]
    assert "8 of 16 conversations read differently" in night["message"]
    stages = {
        figure["stage"]: figure for figure in night["figures"] if (figure["metric"], figure["slice"]) == ("apr", "")
    }
    assert stages["data"]["difference"] == -1
    assert stages["same-data"]["difference"] == 0


@pytest.mark.parametrize("status", [429, 401])
def test_a_spent_quota_and_a_refused_key_are_incidents_and_no_regression(here: World, status: int) -> None:
    with Inbox().open() as inbox:
        here.add("nightly", "--webhook", inbox.address)
        assert here.run().returncode == 0
        here.status = status
        failed = here.run()
        assert failed.returncode == 3, failed.stderr
        job = here.shown()
        assert job["state"] == "incident"
        assert job["nights"][-1]["outcome"] == "incident"
        assert not job["nights"][-1]["in_window"]
        assert "incident" in inbox.received[0]["text"]
        here.status = 200
        assert here.run().returncode == 0
        assert here.shown()["state"] == "quiet"


def test_an_unreachable_server_is_an_incident(here: World) -> None:
    here.add()
    assert here.run().returncode == 0
    here.server.stop()
    assert here.run().returncode == 3
    assert here.shown()["nights"][-1]["outcome"] == "incident"


def test_a_webhook_that_fails_is_tried_again_and_kept(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivace.regressions.deliveries.PAUSES_S", (0.0, 0.0))
    with Inbox().open() as inbox:
        inbox.statuses = [500] * 4
        here.add("nightly", "--webhook", inbox.address)
        here.run()
        here.status = 401
        failed = here.run()
        assert "it answers 500" in failed.stderr
        assert "tried again with the next night" in failed.stderr
        (alert,) = here.shown()["alerts"]
        assert [(one["state"], one["tries"]) for one in alert["deliveries"]] == [("pending", 3)]
        here.run()
        (alert,) = here.shown()["alerts"]
        assert [(one["state"], one["tries"]) for one in alert["deliveries"]] == [("sent", 5)]


def test_an_accepted_night_is_the_new_baseline(here: World) -> None:
    here.add()
    for _ in range(3):
        here.run()
    here.failing = 0.4
    assert here.run().returncode == 100
    accepted = here.regress("accept", "nightly")
    assert accepted.returncode == 0, accepted.stderr
    assert here.shown()["state"] == "quiet"
    assert here.run().returncode == 0
    assert len(here.shown()["nights"][-1]["baseline"]) == 1


def test_alerts_are_acknowledged_and_muted(here: World) -> None:
    with Inbox().open() as inbox:
        here.add("nightly", "--webhook", inbox.address)
        here.run()
        assert here.regress("mute", "nightly", "--until", "2999-01-01").returncode == 0
        here.status = 401
        assert here.run().returncode == 3
        assert inbox.received == []
        assert here.regress("acknowledge", "nightly", "--by", "Ada").returncode == 0
        (alert,) = here.shown()["alerts"]
        assert (alert["state"], alert["acknowledged_by"]) == ("acknowledged", "Ada")
        assert here.regress("acknowledge", "other").returncode == 2
