"""What a regression job is: run, baseline, gates, when it is due, and whom it tells; checked and stored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from vivace.engine.submissions import prepare_run
from vivace.errors import UsageError
from vivace.regressions.deliveries import check_email, check_webhook
from vivace.regressions.ticks import next_tick, time_zone
from vivace.settings import Settings
from vivace.spec import DialogueSpec, RunSpec, is_rejudging, parse_spec, read_spec_file
from vivace.statistics.regression import WINDOW
from vivace.store.database import Database
from vivace.store.identifiers import find
from vivace.store.records import clock
from vivace.store.tables import Judging, Run, Schedule
from vivace.tracks.base import PreparedRun
from vivace_methods.families import FAMILIES
from vivace_methods.suggestions import did_you_mean

GATES = {"quality": 0.0, "speed": 0.03, "machine": 0.10}
"""Gate → the worsening that a job does not mind unless it says otherwise: of scores in shares of 1 (0.02 is two
points), of speeds as a share of what they were. `speed` is that of an arm beside the baseline arm of its own run,
`machine` that of the baseline arm itself."""
QUALITY_ALONE = ("quality",)
KEYS = ("run", "baseline", "gates", "cron", "time-zone", "queue", "owner", "webhook", "email")
LARGEST_WINDOW = 60
LONGEST_TEXT = 500
"""Characters of an owner, an address or a cron line."""
_NO_BASELINE = "The baseline '{}' is neither window, window:N, last nor a run that is recorded."
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")


@dataclass(frozen=True)
class Job:
    """A job as it is asked for."""

    name: str
    spec: RunSpec
    baseline: str = "window"
    gates: Mapping[str, float] | None = None
    cron: str | None = None
    time_zone: str = "UTC"
    queue: str = "default"
    owner: str | None = None
    webhook: str | None = None
    email: tuple[str, ...] = ()


def parse_job(name: str, values: Mapping[str, Any], source: str) -> Job:
    """A job from its keys.

    Raises:
        UsageError: something in it is wrong.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"'{name}' is no name of a job; take letters, digits, '.', '_' and '-', 64 at the most.")
    given = {str(key).replace("_", "-"): value for key, value in values.items() if value is not None}
    for key in given:
        if key not in KEYS:
            raise UsageError(f"{source}: a job has no '{key}'{did_you_mean(key, KEYS)}; it has {', '.join(KEYS)}.")
    run = given.pop("run", None)
    if not isinstance(run, dict):
        raise UsageError(f"{source}: a job needs 'run', the spec of what it runs: its track, model and so on.")
    spec = parse_spec({str(key).replace("_", "-"): value for key, value in run.items()}, source)
    gates = _gates(given.pop("gates", {}), spec, source)
    email = given.pop("email", ())
    emails = tuple(email) if isinstance(email, list | tuple) else (email,)
    for key, value in [*given.items(), *(("email", one) for one in emails)]:
        if not isinstance(value, str) or not 0 < len(value.strip()) <= LONGEST_TEXT:
            raise UsageError(
                f"{source}: '{key}' must be a text of {LONGEST_TEXT} characters at the most, and is {value!r:.60}."
            )
    options = {key.replace("-", "_"): value for key, value in given.items()}
    return Job(name, spec, gates=gates, email=emails, **options)


def _gates(given: Any, spec: RunSpec, source: str) -> dict[str, float]:
    """Each gate with its tolerance, those that are not given too."""
    known = QUALITY_ALONE if isinstance(spec, DialogueSpec) else tuple(GATES)
    if not isinstance(given, dict):
        raise UsageError(f"{source}: 'gates' must name gates with their tolerances, as quality: 0.02.")
    for gate, tolerance in given.items():
        if gate not in known:
            meant = did_you_mean(str(gate), known)
            raise UsageError(
                f"There is no gate '{gate}' on the track {spec.track}{meant}; it has {', '.join(known)}."
            )
        if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < 1:
            raise UsageError(f"The tolerance of the gate '{gate}' is a share from 0 to 1, and not {tolerance!r}.")
    return {gate: float(given.get(gate, GATES[gate])) for gate in known}


def read_jobs(path: Path) -> list[Job]:
    """The jobs of a YAML file: `jobs`, each by its name.

    Raises:
        UsageError: something in it is wrong.
    """
    values = read_spec_file(path)
    jobs = values.pop("jobs", None)
    if values or not isinstance(jobs, dict) or not jobs or not all(isinstance(each, dict) for each in jobs.values()):
        raise UsageError(
            f"'{path}' must have 'jobs' and nothing else, and in it each job's name with its keys: {', '.join(KEYS)}."
        )
    return [parse_job(str(name), values, f"job '{name}' in '{path}'") for name, values in jobs.items()]


def check_job(job: Job, settings: Settings, database: Database | None) -> PreparedRun:
    """See that a job can be run; nothing is written.

    Raises:
        UsageError: it cannot, or it could never notice anything.
    """
    if is_rejudging(job.spec.model):
        raise UsageError(
            "A job makes new replies every time; `vivace judge drift` asks a judge again about old ones."
        )
    if job.spec.execution.cache:
        raise UsageError(
            "A job takes no answers given earlier, which would be the same every night; leave out cache."
        )
    time_zone(job.time_zone)
    if job.cron is not None:
        next_tick(job.cron, job.time_zone, _now(database))
    check_webhook(job.webhook)
    check_email(job.email, settings)
    check_baseline(job.baseline, job.spec.track, database)
    return prepare_run(job.spec.with_absolute_paths(), settings)


def window_of(baseline: str) -> int | None:
    """How many accepted nights a baseline is; None for a run.

    Raises:
        UsageError: the number is none.
    """
    kind, colon, number = baseline.partition(":")
    if baseline == "last":
        return 1
    if kind != "window":
        return None
    if colon and not (number.isdecimal() and 1 <= int(number) <= LARGEST_WINDOW):
        raise UsageError(f"The baseline '{baseline}' is no window; write window:7 (1 to {LARGEST_WINDOW} nights).")
    return int(number) if colon else WINDOW


def check_baseline(baseline: str, track: str, database: Database | None) -> None:
    """See that a baseline is there.

    Raises:
        UsageError: it is none, or a run that cannot be held against.
    """
    if window_of(baseline) is None:
        if database is None:
            raise UsageError(_NO_BASELINE.format(baseline))
        with database.read() as session:
            baseline_run(session, baseline, track)


def baseline_run(session: Session, baseline: str, track: str) -> tuple[str, str | None]:
    """The run, and its judging, that a job names as its baseline.

    Raises:
        UsageError: there is none, it was retracted, has not ended, or is of another track.
    """
    meant = find(session, baseline)
    run = None if meant is None else session.get(Run, meant.run)
    if meant is None or run is None:
        raise UsageError(_NO_BASELINE.format(baseline))
    if run.retracted_at is not None:
        raise UsageError(
            f"The baseline run {run.id} was retracted ({run.retraction_reason}); give the job another with "
            "`vivace regress add`."
        )
    if run.track != track:
        raise UsageError(f"The baseline run {run.id} is of the track {run.track}, and the job of {track}.")
    query = select(Judging).where(Judging.run_id == run.id, Judging.status == "ended", Judging.retracted_at.is_(None))
    judgings = [one.id for one in session.scalars(query) if meant.judging in (None, one.id)]
    if not (judgings or (track in FAMILIES and run.status == "generated")):
        raise UsageError(f"The baseline run {run.id} has not ended; finish it first, or take another.")
    if len(judgings) > 1:
        raise UsageError(f"The baseline run {run.id} has several judgings ({', '.join(judgings)}); name one of them.")
    return run.id, judgings[0] if judgings else None


def save_job(database: Database, job: Job) -> bool:
    """Write a job, in place of the one of its name; whether there was none.

    Raises:
        UsageError: the one of its name is of another track.
    """
    with database.write() as session:
        row = session.scalars(select(Schedule).where(Schedule.name == job.name)).one_or_none()
        is_new = row is None
        if row is not None and row.spec["track"] != job.spec.track:
            raise UsageError(
                f"The job '{job.name}' is of the track {row.spec['track']}, whose nights compare with none of "
                f"{job.spec.track}; take another name, or `vivace regress rm {job.name}` first."
            )
        if row is None:
            row = Schedule(name=job.name)
            session.add(row)
        was_due = (row.cron, row.time_zone)
        row.spec = job.spec.with_absolute_paths().as_json()
        row.baseline, row.gates = job.baseline, dict(job.gates or {})
        row.cron, row.time_zone, row.queue = job.cron, job.time_zone, job.queue
        row.owner, row.webhook, row.email = job.owner, job.webhook, list(job.email)
        if is_new or was_due != (job.cron, job.time_zone):
            row.next_due_at = None if job.cron is None else next_tick(job.cron, job.time_zone, clock(session))
    return is_new


def job_row(session: Session, name: str) -> Schedule:
    """A job by its name.

    Raises:
        UsageError: there is none.
    """
    row = session.scalars(select(Schedule).where(Schedule.name == name)).one_or_none()
    if row is None:
        names = session.scalars(select(Schedule.name)).all()
        raise UsageError(f"There is no job '{name}'{did_you_mean(name, names)}; `vivace regress list` names them.")
    return row


def pause(database: Database, name: str, *, again: bool = False) -> None:
    """Let a job's ticks pass, or, again, have them fired from the next one on."""
    with database.write() as session:
        row = job_row(session, name)
        time_now = clock(session)
        row.paused_at = None if again else time_now
        if again and row.cron is not None:
            row.next_due_at = next_tick(row.cron, row.time_zone, time_now)


def remove(database: Database, name: str) -> None:
    """Delete a job with its nights and alerts; the runs stay."""
    with database.write() as session:
        session.delete(job_row(session, name))


def _now(database: Database | None) -> Any:
    from vivace.store.columns import now

    if database is None:
        return now()
    with database.read() as session:
        return clock(session)
