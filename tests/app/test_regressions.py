"""The page of regression jobs: state, series, window, steps, alerts and causes, on a job as nights leave it."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from support.job_on_show import add_job
from vivace.settings import Settings
from vivace.store.migrate import open_for_writing


def _page() -> None:
    from vivace_app.views import regressions

    regressions.show()


def page(**parameters: str) -> AppTest:
    """The page after its first run."""
    app = AppTest.from_function(_page, default_timeout=300)
    app.query_params.update(parameters)
    app.run()
    assert not app.exception
    return app


@pytest.fixture
def job(home: Path) -> None:
    """Twenty nights, the last of them worse because of a judge, with its alert."""
    database = open_for_writing(Settings(home=home))
    with database.write() as session:
        add_job(session)
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
    offered = {element.proto.id.split("download-")[-1].split("-")[0] for element in app.get("download_button")}
    assert {name.split(" of ")[0] for name in offered} >= {"nights", "figures", "causes", "alerts"}, offered


@pytest.mark.usefixtures("job")
def test_a_link_to_what_is_not_there_says_so() -> None:
    app = page(job="other", figure="ars/X", night="n77")
    assert len(app.warning) == 3
