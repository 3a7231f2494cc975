"""A regression job as nights leave it behind, for pages that show one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from vivace.store.tables import Alert, Delivery, Night, Regression, Schedule

START = datetime(2026, 5, 1, 3, tzinfo=UTC)


def figure(night: str, stage: str, value: float, baseline: float, **changes: Any) -> Regression:
    """A row of a night."""
    values = {
        "metric": "apr", "slice": "", "low": value - baseline - 0.02, "high": value - baseline + 0.02, "p_value": 0.5,
        "n": 400, "worse": 3, "better": 2, "shown": False,
    }  # fmt: skip
    return Regression(night_id=night, stage=stage, value=value, baseline=baseline, **{**values, **changes})


def add_job(session: Session) -> None:
    """Twenty nights, the last of them worse because of a judge, with its alert."""
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
