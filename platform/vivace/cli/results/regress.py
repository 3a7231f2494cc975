"""`vivace regress`: jobs that run by themselves, notice what has become worse, and say why."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vivace.cli.common import (
    ArtifactsOption,
    DatabaseOption,
    Format,
    FormatOption,
    HomeOption,
    print_json,
    print_rows,
    print_text,
    say,
    settings_of,
)
from vivace.cli.running.spec_options import takes_run_spec
from vivace.cli.tables.printing import Cell, ShownColumns

if TYPE_CHECKING:
    from vivace.regressions.jobs import Job
    from vivace.settings import Settings
    from vivace.store.database import Database
    from vivace.store.queries.regressions import JobView, NightView

app = typer.Typer(help="Runs on a schedule that say what has become worse, and why.", no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(help="A job's name.")]


# Long because each option is a parameter.
@app.command()
@takes_run_spec
def add(
    name: Annotated[str | None, typer.Argument(help="The job's name.")] = None,
    track: Annotated[str | None, typer.Argument(help="What is measured.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="A YAML spec of the run; flags override its keys.")
    ] = None,
    *,
    file: Annotated[
        Path | None, typer.Option("--file", help="A YAML file of jobs, in place of all else.", show_default=False)
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Any key of the run's spec, a.b=c. Repeatable.")
    ] = None,
    against: Annotated[
        str, typer.Option("--against", help="window, window:N accepted nights, last, or a run.")
    ] = "window",
    gate: Annotated[
        list[str] | None,
        typer.Option(
            "--gate", help="A tolerance: quality=0.01, speed=0.03, machine=0.1. Repeatable.", show_default=False
        ),
    ] = None,
    cron: Annotated[
        str | None, typer.Option("--cron", help="Minute, hour, day, month, weekday.", show_default="when asked to")
    ] = None,
    time_zone: Annotated[str, typer.Option("--time-zone", help="Of the cron line.")] = "UTC",
    queue: Annotated[str, typer.Option("--queue", help="The workers' queue that its nights wait in.")] = "default",
    owner: Annotated[str | None, typer.Option("--owner", help="Whose job it is.")] = None,
    webhook: Annotated[
        str | None, typer.Option("--webhook", help="Where alerts go: an address, or env:VARIABLE that holds it.")
    ] = None,
    email: Annotated[list[str] | None, typer.Option("--email", help="Who gets alerts. Repeatable.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check it, and say what it could notice; nothing is written.")
    ] = False,
    home: HomeOption = None,
    database: DatabaseOption = None,
    artifacts: ArtifactsOption = None,
    flags: dict[str, Any],
) -> None:
    """Make a job, or change the one of that name. Nothing is run yet."""
    from vivace.cli.running.execution import specs_from
    from vivace.errors import UsageError
    from vivace.regressions.jobs import parse_job, read_jobs

    settings = settings_of(home, database, artifacts)
    if file is not None:
        if name is not None:
            raise UsageError("--file brings jobs with their names; leave the name and the track out.")
        jobs = read_jobs(file)
    else:
        if name is None:
            raise UsageError(
                "A job needs a name and a run, as `vivace regress add nightly TRACK --data …`, or --file."
            )
        specs = specs_from(config, {"track": track, **flags}, assignments)
        if len(specs) > 1:
            raise UsageError("A job makes one run; write a suite as several jobs.")
        given = {"baseline": against, "gates": _gates(gate), "cron": cron, "time-zone": time_zone, "queue": queue,
                 "owner": owner, "webhook": webhook, "email": email or []}  # fmt: skip
        jobs = [parse_job(name, {"run": specs[0].as_json(), **given}, "the command line")]
    _add(jobs, settings, dry_run)


def _gates(written: list[str] | None) -> dict[str, Any]:
    from vivace.errors import UsageError

    gates = {}
    for each in written or []:
        name, equals, value = each.partition("=")
        try:
            gates[name] = float(value)
        except ValueError as error:
            raise UsageError(f"--gate {each} is not of the form quality=0.01.") from error
        if not equals:
            raise UsageError(f"--gate {each} is not of the form quality=0.01.")
    return gates


def _add(jobs: list[Job], settings: Settings, dry_run: bool) -> None:
    """Check all of them before the first is written."""
    from vivace.engine.sent_files import sent
    from vivace.regressions.jobs import check_job, save_job
    from vivace.regressions.smallest_drop import what_is_noticed
    from vivace.store.artifacts import open_artifacts
    from vivace.store.migrate import open_for_reading, open_for_writing

    stored = open_for_reading(settings)
    told = [what_is_noticed(job, check_job(job, settings, stored), stored) for job in jobs]
    if stored is not None:
        stored.close()
    if not dry_run:
        opened = open_for_writing(settings)
        for job in jobs:
            is_new = save_job(opened, replace(job, spec=sent(job.spec, settings, open_artifacts(settings))))
            say(f"Job '{job.name}' is {'recorded' if is_new else 'changed'}.")
        opened.close()
    for job, sentence in zip(jobs, told, strict=True):
        say(f"{job.name}: {sentence}")


def _when(moment: datetime | None, zone: str) -> str:
    from zoneinfo import ZoneInfo

    return "–" if moment is None else moment.astimezone(ZoneInfo(zone)).strftime("%Y-%m-%d %H:%M")


def _job_row(job: JobView) -> dict[str, Any]:
    last = job.last_night
    alert = next((one for one in job.alerts if one.ended_at is None), None)
    return {
        "job": job.name,
        "state": job.state + (", paused" if job.paused_at and job.state != "paused" else ""),
        "track": job.track,
        "model": job.model,
        "against": job.baseline,
        "next": _when(job.next_due_at, job.time_zone) if job.paused_at is None else "–",
        "last": "–" if last is None else f"{_when(last.at, job.time_zone)}: {last.outcome}",
        "nights": job.made,
        "alert": "–" if alert is None else alert.message.splitlines()[0],
        "owner": job.owner or "–",
    }


def _columns(*names: str) -> dict[str, Cell]:
    """Columns that show what a row has under their headings."""

    def cell(name: str) -> Cell:
        return lambda row: str(row[name])

    return {name: cell(name) for name in names}


JOBS = ShownColumns(
    _columns("job", "state", "track", "model", "against", "next", "last", "nights", "alert", "owner"),
    first=("job", "state", "next", "last", "alert"),
    cut=("model",),
    prose=("alert",),
)
NIGHTS = ShownColumns(
    _columns("night", "when", "outcome", "window", "figures", "worse", "causes", "message"),
    first=("night", "when", "outcome", "figures", "causes"),
    prose=("message",),
)


@app.command("list")
def list_(format: FormatOption = Format.TABLE, home: HomeOption = None, database: DatabaseOption = None) -> None:
    """Show every job: its state, when it is due, its last night and its open alert."""
    from vivace.store.migrate import open_for_reading
    from vivace.store.queries.regressions import jobs

    opened = open_for_reading(settings_of(home, database))
    rows = [_job_row(job) for job in (jobs(opened, nights=60) if opened is not None else [])]
    if rows or format is not Format.TABLE:
        print_rows(rows, format, JOBS)
    else:
        say("There are no jobs yet; `vivace regress add` makes one.")


FIGURES = {
    "figure": lambda row: row["title"],
    "baseline": lambda row: row["baseline"],
    "this night": lambda row: row["value"],
    "difference [95 %]": lambda row: row["difference"],
    "p (one-sided)": lambda row: f"{row['p']:.2g}",
    "worse / better / n": lambda row: f"{row['worse']} / {row['better']} / {row['n']}",
    "what": lambda row: row["what"],
}
_STAGES = {"gate": "first run", "confirm": "fresh runs, pooled", "judge": "frozen replies, judged again",
           "rest": "without the judge's part", "machine": "the baseline arm", "data": "changed conversations",
           "same-data": "unchanged conversations"}  # fmt: skip


def print_night(job: JobView, night: NightView) -> None:
    """Print a night's figures, and say what came of it."""
    from vivace.store.queries.regressions import value_text

    rows = [
        {
            "title": figure.title,
            "baseline": value_text(figure.metric, figure.baseline),
            "value": figure.value_text,
            "difference": figure.difference_text,
            "p": figure.p_value,
            "worse": figure.worse,
            "better": figure.better,
            "n": figure.n,
            "what": _STAGES[figure.stage] + (": worse" if figure.shown else ""),
        }
        for figure in night.figures
    ]
    if rows:
        print_rows(rows, Format.TABLE, FIGURES)
    say(f"Night {night.id} of '{job.name}': {night.outcome}; {night.message}.".replace("..", "."))


@app.command()
def show(
    name: NameArgument,
    format: FormatOption = Format.TABLE,
    nights: Annotated[int, typer.Option("--nights", min=1, max=10000, help="How many of its nights.")] = 30,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Show a job: its nights with their figures, its window, steps of its level, alerts and their messages."""
    opened = _opened(settings_of(home, database))
    job = _view(opened, name, nights)
    if format is Format.JSON:
        from vivace.analysis.trends import trend

        print_json({**job.as_json(), "steps": [step.as_json() for step in trend(job)]})
        return
    headline = job.last_night
    print_text(f"{job.name}: {job.state}; {job.model} on {job.track}, against {job.baseline}")
    rows = []
    for night in reversed(job.nights):
        first = {figure.title: figure.value_text for figure in night.figures if figure.stage == "gate"}
        worse = [figure.title for figure in night.figures if figure.stage == "confirm" and figure.shown]
        in_window = any(run["run"] in job.window for run in night.runs)
        rows.append(
            {
                "night": night.id,
                "when": _when(night.at, job.time_zone),
                "outcome": night.outcome or night.status,
                "window": "✓" if in_window else "",
                "figures": ", ".join(f"{title} {value}" for title, value in list(first.items())[:2]) or "–",
                "worse": ", ".join(worse) or "–",
                "causes": ", ".join(night.causes) or "–",
                "message": night.message or "–",
            }
        )
    print_rows(rows, format, NIGHTS)
    if format is Format.TABLE:
        if headline is not None:
            print_night(job, headline)
        _say_rest(job)


def _say_rest(job: JobView) -> None:
    from vivace.analysis.trends import trend

    for step in trend(job):
        say(f"Step: from {_when(step.at, job.time_zone)} on {step.text}.")
    for alert in job.alerts[:10]:
        end = f"; ended {_when(alert.ended_at, job.time_zone)}: {alert.end_reason}" if alert.ended_at else ""
        by = f" by {alert.acknowledged_by}" if alert.state == "acknowledged" and alert.acknowledged_by else ""
        seen = f", last seen {_when(alert.last_seen_at, job.time_zone)}" if alert.last_seen_at > alert.at else ""
        say(f"Alert {alert.id} ({alert.kind}, {alert.state}{by}) of {_when(alert.at, job.time_zone)}{seen}{end}")
        say("\n".join(f"  {line}" for line in alert.message.splitlines()))
        for one in alert.deliveries:
            failed = f" ({one['error']}, {one['tries']} tries)" if one["error"] else ""
            say(f"  {one['channel']}: {one['state']}{failed}")
    if job.muted_until is not None:
        say(f"No messages until {_when(job.muted_until, job.time_zone)}.")


@app.command()
def run(
    name: Annotated[str | None, typer.Argument(help="A job's name.", show_default=False)] = None,
    due: Annotated[bool, typer.Option("--due", help="Run what is due here and now, for plain cron and CI.")] = False,
    format: FormatOption = Format.TABLE,
    home: HomeOption = None,
    database: DatabaseOption = None,
    artifacts: ArtifactsOption = None,
) -> None:
    """Make a job's night here. Exit code 100 where it has become worse, 3 where that could not be told."""
    from vivace.errors import UsageError

    if (name is None) is not due:
        raise UsageError("Name the job to run, or give --due alone.")
    settings = settings_of(home, database, artifacts)
    codes = _run_nights(settings, name, format)
    raise typer.Exit(100 if 100 in codes else next((code for code in codes if code), 0))


def _run_nights(settings: Settings, name: str | None, format: Format) -> list[int]:
    """Make the nights that were asked for; the exit code of each."""
    from vivace.cli.running.execution import stop_on_ctrl_c
    from vivace.engine.claims.leases import Heartbeat, register_worker
    from vivace.regressions.jobs import job_row
    from vivace.regressions.nights import NightInterruptedError
    from vivace.regressions.shift import ask_for, fire_due, left_here, make
    from vivace.store.migrate import open_for_writing

    _opened(settings).close()
    opened = open_for_writing(settings)
    codes: list[int] = []
    shown: list[dict[str, Any]] = []
    try:
        if name is None:
            nights = [*left_here(opened), *fire_due(opened, here=True)]
        else:
            with opened.read() as session:
                job = job_row(session, name)
            nights = [ask_for(opened, job)]
        if not nights:
            say("Nothing is due.")
        worker_id = register_worker(opened, [], settings.lease_seconds)
        with Heartbeat(opened, worker_id, settings.lease_seconds) as heartbeat, stop_on_ctrl_c() as stop:
            for night_id in nights:
                try:
                    night = make(opened, settings, night_id, heartbeat, stop, say)
                except NightInterruptedError as error:
                    say(str(error))
                    codes.append(130)
                    break
                if night is None:
                    continue
                codes.append({"regressed": 100, "incident": 3}.get(str(night.outcome), 0))
                shown.append(_show_night(opened, night.schedule_id, night.id, format))
    finally:
        opened.close()
    if format is Format.JSON:
        print_json(shown)
    return codes


def _show_night(database: Database, job_id: int, night_id: str, format: Format) -> dict[str, Any]:
    from vivace.store.queries.regressions import jobs
    from vivace.store.tables import Schedule

    with database.read() as session:
        name = session.get_one(Schedule, job_id).name
    view = jobs(database, name, nights=10)[0]
    night = next(one for one in view.nights if one.id == night_id)
    if format is not Format.JSON:
        print_night(view, night)
    return {"job": name, **night.as_json()}


@app.command()
def pause(name: NameArgument, home: HomeOption = None, database: DatabaseOption = None) -> None:
    """Let a job's ticks pass until it is resumed."""
    _change(home, database, lambda opened: _paused(opened, name, again=False), f"The job '{name}' is paused.")


@app.command()
def resume(name: NameArgument, home: HomeOption = None, database: DatabaseOption = None) -> None:
    """Have a paused job run again, from its next tick on."""
    _change(home, database, lambda opened: _paused(opened, name, again=True), f"The job '{name}' goes on.")


def _paused(opened: Database, name: str, *, again: bool) -> None:
    from vivace.regressions.jobs import pause as pause_job

    pause_job(opened, name, again=again)


@app.command()
def rm(name: NameArgument, home: HomeOption = None, database: DatabaseOption = None) -> None:
    """Delete a job with its nights and alerts. Its runs stay."""
    from vivace.regressions.jobs import remove

    _change(home, database, lambda opened: remove(opened, name), f"The job '{name}' is deleted; its runs stay.")


@app.command()
def acknowledge(
    name: NameArgument,
    by: Annotated[str | None, typer.Option("--by", help="Who.", show_default=False)] = None,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Note that somebody has seen a job's open alert."""
    from vivace.regressions.alerts import acknowledge as note

    _change(home, database, lambda opened: note(opened, name, by))


@app.command()
def mute(
    name: NameArgument,
    until: Annotated[
        datetime | None,
        typer.Option("--until", help="In UTC; alerts are recorded all the same.", show_default="never"),
    ] = None,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Send no messages about a job until a moment; without one, send them again."""
    from datetime import UTC

    from vivace.regressions.alerts import mute as mute_job

    moment = None if until is None else until.replace(tzinfo=UTC) if until.tzinfo is None else until
    said = "sends messages again" if moment is None else f"sends no messages until {_when(moment, 'UTC')} UTC"
    _change(home, database, lambda opened: mute_job(opened, name, moment), f"The job '{name}' {said}.")


@app.command()
def accept(
    name: NameArgument,
    night: Annotated[str | None, typer.Argument(help="A night's id.", show_default="the newest")] = None,
    home: HomeOption = None,
    database: DatabaseOption = None,
) -> None:
    """Take a night as the new baseline: its alert ends, and later nights are held against it."""
    from vivace.regressions.alerts import accept as accept_night

    _change(home, database, lambda opened: accept_night(opened, name, night))


def _change(home: Path | None, database: str | None, change: Any, said: str = "") -> None:
    """Make a change to a job, say what it was, and send what is to be told of it."""
    from vivace.regressions.deliveries import deliver
    from vivace.store.migrate import open_for_writing

    settings = settings_of(home, database)
    _opened(settings).close()
    opened = open_for_writing(settings)
    try:
        told = change(opened)
        say(said or str(told))
        deliver(opened, say=say)
    finally:
        opened.close()


def _view(database: Database, name: str, nights: int) -> JobView:
    from vivace.regressions.jobs import job_row
    from vivace.store.queries.regressions import jobs

    with database.read() as session:
        job_row(session, name)
    return jobs(database, name, nights=nights)[0]


def _opened(settings: Settings) -> Database:
    from vivace.errors import UsageError
    from vivace.store.migrate import open_for_reading

    opened = open_for_reading(settings)
    if opened is None:
        raise UsageError("There is no database yet, so there are no jobs; `vivace regress add` makes one.")
    return opened
