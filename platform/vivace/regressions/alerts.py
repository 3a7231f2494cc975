"""What a job's people are told: one message a night and no more, opened, repeated, acknowledged, muted and ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from vivace.errors import UsageError
from vivace.regressions.causes import Causes
from vivace.regressions.deliveries import bound, post
from vivace.regressions.jobs import job_row
from vivace.regressions.samples import Figure
from vivace.statistics.regression import CONFIRMATIONS, Change
from vivace.store.database import Database
from vivace.store.queries.regressions import CAUSES, difference_text, title, value_text
from vivace.store.records import clock
from vivace.store.tables import Alert, Delivery, Night, Regression, Schedule

FIGURES_TOLD = 6


def open_alert(session: Session, schedule_id: int, kind: str) -> Alert | None:
    """The alert of a kind that a job has open."""
    query = select(Alert).where(Alert.schedule_id == schedule_id, Alert.kind == kind, Alert.ended_at.is_(None))
    return session.scalars(query.order_by(Alert.id.desc()).limit(1)).first()


def raise_alert(session: Session, schedule: Schedule, night: Night, kind: str, text: str, causes: list[str]) -> bool:
    """Open an alert and have it told, or note that the open one was seen again; whether it is new."""
    time_now = clock(session)
    alert = open_alert(session, schedule.id, kind)
    if alert is not None:
        alert.last_seen_at = time_now
        new_causes = [cause for cause in causes if cause not in alert.causes]
        if not new_causes:
            return False
        alert.causes, alert.message = [*alert.causes, *new_causes], bound(text)
    else:
        alert = Alert(
            schedule_id=schedule.id, night_id=night.id, kind=kind, message=bound(text), causes=causes,
            created_at=time_now, last_seen_at=time_now,
        )  # fmt: skip
        session.add(alert)
        session.flush()
    _tell(session, schedule, alert, text)
    return True


def end_alert(session: Session, schedule: Schedule, kind: str, reason: str) -> None:
    """End a job's open alert of a kind, if there is one, and have that told."""
    alert = open_alert(session, schedule.id, kind)
    if alert is not None:
        alert.ended_at, alert.end_reason = clock(session), reason
        _tell(session, schedule, alert, f"Vivace: the {kind} of job '{schedule.name}' has ended: {reason}")


def _tell(session: Session, schedule: Schedule, alert: Alert, text: str) -> None:
    if schedule.muted_until is not None and schedule.muted_until > clock(session):
        return
    rows: list[Delivery] = []
    post(rows, schedule, alert, text)
    session.add_all(rows)


def regression_text(
    job: str, confirmed: Sequence[tuple[Figure, Change]], causes: Causes, runs: Sequence[str], baseline: int
) -> str:
    """The one message about all that has become worse."""
    names = " and ".join(CAUSES[name] for name in causes.names) or "not told apart"
    lines = [f"Vivace: job '{job}' is worse, confirmed by {CONFIRMATIONS} fresh runs. Cause: {names}."]
    for figure, change in confirmed[:FIGURES_TOLD]:
        values = f"{value_text(figure.metric, change.baseline)} → {value_text(figure.metric, change.tonight)}"
        difference = difference_text(figure.metric, change.difference, change.low, change.high)
        lines.append(
            f"• {title(figure.metric, figure.slice)}: {values}, {difference}, p {change.p_value:.2g}, "
            f"{change.worse} worse and {change.better} better of {change.n}"
        )
    if len(confirmed) > FIGURES_TOLD:
        lines.append(f"• and {len(confirmed) - FIGURES_TOLD} more figures")
    lines += causes.notes
    nights = "1 accepted run" if baseline == 1 else f"{baseline} accepted runs"
    lines.append(f"Runs {', '.join(runs)}, held against {nights}; `vivace regress show {job}`.")
    return "\n".join(lines)


def incident_text(job: str, message: str) -> str:
    """The message about a night that could not be told good or bad."""
    return f"Vivace: incident in job '{job}', which says nothing about its quality: {message}"


def metrics_of(session: Session, alert: Alert) -> set[tuple[str, str]]:
    """The figures that the gate had flagged in the night that raised an alert."""
    query = select(Regression).where(
        Regression.night_id == alert.night_id, Regression.stage == "gate", Regression.shown
    )
    return {(one.metric, one.slice) for one in session.scalars(query)}


def acknowledge(database: Database, name: str, who: str | None) -> str:
    """Note that somebody has seen a job's open alerts; a sentence that says so.

    Raises:
        UsageError: there is no such job, or no open alert.
    """
    with database.write() as session:
        row = job_row(session, name)
        found = [one for kind in ("regression", "incident") if (one := open_alert(session, row.id, kind))]
        if not found:
            raise UsageError(f"The job '{name}' has no open alert.")
        for alert in found:
            alert.acknowledged_at, alert.acknowledged_by = clock(session), who
    return f"The {' and the '.join(alert.kind for alert in found)} of '{name}' is acknowledged."


def mute(database: Database, name: str, until: datetime | None) -> None:
    """Send nothing about a job until a moment, or, with none, from now on again; alerts are recorded all the same.

    Raises:
        UsageError: there is no such job.
    """
    with database.write() as session:
        job_row(session, name).muted_until = until


def accept(database: Database, name: str, night_id: str | None) -> str:
    """Take a night, by default the newest that has ended, as the first of a new window; a sentence that says so.

    Raises:
        UsageError: there is no such job or night, or it has no result.
    """
    with database.write() as session:
        row = job_row(session, name)
        query = select(Night).where(Night.schedule_id == row.id, Night.outcome.in_(("accepted", "regressed")))
        if night_id is not None:
            query = query.where(Night.id.startswith(night_id, autoescape=True))
        night = session.scalars(query.order_by(Night.created_at.desc()).limit(1)).first()
        if night is None:
            what = f"no night '{night_id}' with a result" if night_id else "no night with a result yet"
            raise UsageError(f"The job '{name}' has {what}; `vivace regress show {name}` lists its nights.")
        night.in_window, row.window_from = True, night.created_at
        end_alert(session, row, "regression", f"the night {night.id} was accepted as the new baseline")
        return f"From now on '{name}' is held against night {night.id} and those after it."
