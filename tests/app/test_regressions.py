"""The page of regression jobs: state, series, window, steps, alerts and causes, on a job as nights leave it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from vivace.settings import Settings
from vivace.store.migrate import open_for_writing
from vivace.store.regression_tables import Alert, Delivery, Night, Regression, Schedule

START = datetime(2026, 5, 1, 3, tzinfo=UTC)


def _page() -> None:
    from vivace_app.views import regressions

    regressions.show()


def page(**parameters: str) -> AppTest:
    """The page after its first run."""
    app = AppTest.from_function(_page, default_timeout=60)
    app.query_params.update(parameters)
    app.run()
    assert not app.exception
    return app


def figure(night: str, stage: str, value: float, baseline: float, **changes: Any) -> Regression:
    """A row of a night."""
    values = {
        "metric": "apr", "slice": "", "low": value - baseline - 0.02, "high": value - baseline + 0.02, "p_value": 0.5,
        "n": 400, "worse": 3, "better": 2, "shown": False,
    }  # fmt: skip
    return Regression(night_id=night, stage=stage, value=value, baseline=baseline, **{**values, **changes})


@pytest.fixture
def job(home: Path) -> None:
    """Twenty nights, the last of them worse because of a judge, with its alert."""
    database = open_for_writing(Settings(home=home))
    with database.write() as session:
        row = Schedule(
            name="nightly", spec={"track": "audio-multichallenge", "model": "litellm:m"}, baseline="window", gates={},
            cron="0 3 * * *", time_zone="UTC", queue="default", email=[], owner="<b>us</b>",
        )  # fmt: skip
        session.add(row)
        session.flush()
        for number in range(20):
            last = number == 19
            night = Night(
                id=f"n{number}", schedule_id=row.id, due_at=START + timedelta(days=number), queue=None,
                status="ended", outcome="regressed" if last else "accepted", in_window=not last,
                runs=[{"stage": "gate", "run": f"r{number}", "judging": None}],
                baseline=[f"r{one}" for one in range(max(0, number - 7), number)], causes=["judge"] if last else [],
                message="It is as it is",
                created_at=START + timedelta(days=number),
            )  # fmt: skip
            session.add(night)
            session.flush()
            level = 0.6 if number < 10 else 0.7
            session.add(figure(night.id, "gate", 0.4 if last else level + 0.01 * (number % 3), level, shown=last))
        session.add_all(
            figure("n19", stage, 0.4, 0.7, shown=shown)
            for stage, shown in (("confirm", True), ("judge", True), ("rest", False))
        )
        alert = Alert(schedule_id=row.id, night_id="n19", kind="regression", message="It is worse", causes=["judge"])
        session.add(alert)
        session.flush()
        session.add(Delivery(alert_id=alert.id, channel="webhook", target="env:X", text="t", state="failed", tries=9,
                             error="it answers 500"))  # fmt: skip
    database.close()


def test_without_jobs_the_page_says_how_to_begin(home: Path) -> None:
    assert "no regression jobs" in page().info[0].value


@pytest.mark.usefixtures("job")
def test_a_job_that_is_worse_shows_series_window_steps_alert_and_cause() -> None:
    app = page()
    assert "worse" in app.error[0].value
    words = "\n".join(element.value for element in app.text)
    assert "It is worse" in words
    assert "<b>us</b>" in words, "as it stands"
    assert "Step on 2026-05-11" in words
    nights, parts, alerts = (element.value for element in app.dataframe)
    assert list(nights["Outcome"][:2]) == ["regressed", "accepted"]
    assert nights["Window"].sum() == 7
    assert nights["Causes"].iloc[0] == "the judge"
    assert list(parts["Of"]) == [
        "first run", "fresh runs, pooled", "frozen replies, judged again", "without the judge's part",
    ]  # fmt: skip
    assert alerts["Messages"].iloc[0] == "webhook failed (it answers 500)"
    assert len(app.get("vega_lite_chart")) == 2


@pytest.mark.usefixtures("job")
def test_a_link_to_what_is_not_there_says_so() -> None:
    app = page(job="other", figure="ars/X", night="n77")
    assert len(app.warning) == 3
