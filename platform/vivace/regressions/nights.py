"""One night of a job, from its first run to what is told of it: gate, fresh runs that confirm, causes, the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from vivace.engine.claims.leases import Heartbeat
from vivace.engine.execution import StopSignal
from vivace.engine.submissions import submit
from vivace.engine.work import execute_submission
from vivace.errors import LeaseLostError, VivaceError
from vivace.output.printable import printable
from vivace.output.secrets import masked
from vivace.regressions.alerts import (
    end_alert,
    incident_text,
    metrics_of,
    open_alert,
    raise_alert,
    regression_text,
)
from vivace.regressions.causes import Causes, find_causes
from vivace.regressions.deliveries import deliver
from vivace.regressions.jobs import baseline_run, window_of
from vivace.regressions.samples import Figure, RunSample, sample_of
from vivace.settings import Settings
from vivace.spec import RunSpec, parse_spec
from vivace.statistics.regression import CONFIRMATIONS, Change, change, confirms, gate
from vivace.store.database import Database, DatabaseUnavailableError
from vivace.store.records import clock
from vivace.store.standing import SUFFICIENT_COVERAGE
from vivace.store.tables import Judging, Night, Regression, Run, Schedule, Submission


class IncidentError(VivaceError):
    """A night says nothing of its job: a run could not be made, or too little of it is scored."""


class NightInterruptedError(VivaceError):
    """A night was stopped from outside, and goes on later where it stopped."""


@dataclass
class Ended:
    """What came of a night."""

    outcome: str
    message: str
    in_window: bool = False
    causes: list[str] | None = None
    alert: str | None = None
    """The text of an alert that is raised or seen again; empty where it is known already."""


@dataclass
class _Found:
    """What is recorded of a night as it goes on."""

    baseline: list[RunSample]
    rows: list[tuple[str, Figure, Change, bool]]


def conduct(
    database: Database,
    settings: Settings,
    night_id: str,
    heartbeat: Heartbeat,
    stop: StopSignal,
    say: Callable[[str], None],
) -> Night:
    """Take a night to its end, from wherever it stands, and tell what came of it.

    Raises:
        LeaseLostError: another worker has it by now.
        NightInterruptedError: it was stopped; what is recorded stays.
    """
    night = _Conductor(database, settings, night_id, heartbeat, stop, say).conduct()
    deliver(database, say=say)
    return night


class _Conductor:
    def __init__(
        self,
        database: Database,
        settings: Settings,
        night_id: str,
        heartbeat: Heartbeat,
        stop: StopSignal,
        say: Callable[[str], None],
    ) -> None:
        self._database, self._settings, self._heartbeat = database, settings, heartbeat
        self._stop, self._say, self._night_id = stop, say, night_id
        with database.read() as session:
            night = session.get_one(Night, night_id)
            self._job = session.get_one(Schedule, night.schedule_id)

    def conduct(self) -> Night:
        """All of it."""
        found = _Found([], [])
        try:
            ended = self._judge(found)
        except (LeaseLostError, DatabaseUnavailableError, NightInterruptedError):
            raise
        except VivaceError as error:
            ended = Ended("incident", _clean(error), alert=incident_text(self._job.name, _clean(error)))
        except (Exception, SystemExit) as error:
            message = _clean(f"{type(error).__name__}: {error}")
            ended = Ended("incident", message, alert=incident_text(self._job.name, message))
        return self._end(ended, found)

    def _judge(self, found: _Found) -> Ended:
        spec = parse_spec(self._job.spec, f"the job '{self._job.name}'")
        with self._database.read() as session:
            found.baseline = self._baseline(session)
        first = self._run(spec, 0)
        tolerances = {figure: figure.tolerance(self._job.gates) for figure in first.figures}
        if not found.baseline:
            return Ended("accepted", "it is the first, and there is nothing to hold it against", True)
        changes = self._compared([first], found.baseline, list(first.figures), tolerances)
        if not changes:
            raise IncidentError(
                "The night and its baseline have no conversation or prompt in common; if that is meant, make the job "
                "anew with `vivace regress rm` and `add`."
            )
        flags = gate([one.p_value for one in changes.values()])
        found.rows += [
            ("gate", figure, one, flag) for (figure, one), flag in zip(changes.items(), flags, strict=True)
        ]
        flagged = [figure for figure, flag in zip(changes, flags, strict=True) if flag]
        nights = f"held against {_runs(len(found.baseline))}"
        if not flagged:
            return Ended("accepted", f"no figure is worse, {nights}", True)
        if self._is_known(flagged):
            return Ended("regressed", "it is worse in what its open alert tells", alert="")
        self._say(
            f"{self._job.name}: {_figures(flagged)} may be worse; {CONFIRMATIONS} fresh runs are to confirm it."
        )
        fresh = [self._run(spec, 1 + number) for number in range(CONFIRMATIONS)]
        pooled = self._compared(fresh, found.baseline, flagged, tolerances)
        found.rows += [("confirm", figure, one, confirms(one.p_value)) for figure, one in pooled.items()]
        confirmed = sorted(
            ((figure, one) for figure, one in pooled.items() if confirms(one.p_value)),
            key=lambda each: each[1].p_value,
        )
        if not confirmed:
            return Ended("accepted", f"{_figures(flagged)} seemed worse, and fresh runs did not confirm it", True)
        causes = find_causes(
            self._database, spec, [figure for figure, _ in confirmed], fresh, found.baseline, tolerances
        )
        found.rows += causes.parts
        return self._regressed(confirmed, causes, [first, *fresh], len(found.baseline))

    def _regressed(
        self, confirmed: Sequence[tuple[Figure, Change]], causes: Causes, runs: Sequence[RunSample], baseline: int
    ) -> Ended:
        text = regression_text(self._job.name, confirmed, causes, [run.run for run in runs], baseline)
        named = " and ".join(causes.names) or "not told apart"
        said = f"{_figures([figure for figure, _ in confirmed])} worse, confirmed; cause: {named}"
        message = f"{said}. {' '.join(causes.notes)}" if causes.notes else said
        return Ended("regressed", message, causes=causes.names, alert=text)

    def _compared(
        self,
        runs: Sequence[RunSample],
        baseline: Sequence[RunSample],
        figures: Sequence[Figure],
        tolerances: dict[Figure, float],
    ) -> dict[Figure, Change]:
        compared = {}
        for figure in figures:
            ours, theirs = (
                [run.figures[figure] for run in side if figure in run.figures] for side in (runs, baseline)
            )
            found = change(ours, theirs, tolerances[figure], flip=figure.flip) if ours and theirs else None
            if found is not None:
                compared[figure] = found
        return compared

    def _is_known(self, flagged: Sequence[Figure]) -> bool:
        """Whether an open alert tells of all that the gate has flagged, so that it need not be confirmed again."""
        with self._database.read() as session:
            alert = open_alert(session, self._job.id, "regression")
            known = set() if alert is None else metrics_of(session, alert)
        return bool(known) and {(figure.metric, figure.slice) for figure in flagged} <= known

    # What it is held against

    def _baseline(self, session: Session) -> list[RunSample]:
        """The runs of the baseline, the newest first."""
        window = window_of(self._job.baseline)
        if window is None:
            return [sample_of(session, *baseline_run(session, self._job.baseline, str(self._job.spec["track"])))]
        query = select(Night).where(Night.schedule_id == self._job.id, Night.in_window, Night.status == "ended")
        if self._job.window_from is not None:
            query = query.where(Night.created_at >= self._job.window_from)
        runs: list[RunSample] = []
        for night in session.scalars(query.order_by(Night.created_at.desc(), Night.id)):
            first = night.runs[0]
            judging = None if first["judging"] is None else session.get(Judging, first["judging"])
            run = session.get(Run, first["run"])
            retracted = run is None or run.retracted_at or (judging is not None and judging.retracted_at)
            if not retracted:
                runs.append(sample_of(session, first["run"], first["judging"]))
            if len(runs) == window:
                break
        return runs

    # Its runs

    def _run(self, spec: RunSpec, place: int) -> RunSample:
        """The run of a place among the night's, made now or before an interruption."""
        runs = self._recorded()
        prepared = None
        if place < len(runs):
            entry = runs[place]
        else:
            opened, prepared, submission_id = submit(spec, self._settings, queue=None, force=True)
            opened.close()
            with self._database.read() as session:
                submission = session.get_one(Submission, submission_id)
            entry = {
                "stage": "confirm" if place else "gate",
                "run": submission.run_id,
                "judging": submission.judging_id,
                "submission": submission_id,
            }
            with self._database.write() as session:
                night = self._mine(session)
                night.runs = [*night.runs, entry]
        with self._database.read() as session:
            is_done = session.get_one(Submission, entry["submission"]).status == "complete"
        if not is_done:
            outcome = execute_submission(
                entry["submission"], self._database, self._settings, self._heartbeat, self._stop, run=prepared,
                say=self._say,
            )  # fmt: skip
            if outcome.status == "interrupted":
                raise NightInterruptedError("The night was interrupted; it goes on where it stopped.")
            if outcome.status == "cancelled":
                raise IncidentError(f"Run {entry['run']} was cancelled.")
        with self._database.read() as session:
            sample = sample_of(session, entry["run"], entry["judging"])
        if sample.coverage < SUFFICIENT_COVERAGE:
            raise IncidentError(
                f"Run {entry['run']} is scored to {100 * sample.coverage:.1f} % only, too little to compare: "
                f"{sample.unscored}; `vivace logs {entry['run']}` has its log."
            )
        return sample

    def _recorded(self) -> list[dict[str, Any]]:
        with self._database.read() as session:
            return list(self._mine(session).runs)

    def _mine(self, session: Session) -> Night:
        """The night, while it is this process's own.

        Raises:
            LeaseLostError: another worker has it, or its job was deleted.
        """
        night = session.get(Night, self._night_id)
        if night is None or (night.status, night.worker_id) != ("running", self._heartbeat.worker_id):
            raise LeaseLostError(f"The night {self._night_id} was taken over, or its job deleted.")
        return night

    # Its end

    def _end(self, ended: Ended, found: _Found) -> Night:
        with self._database.write() as session:
            night = self._mine(session)
            job = session.get_one(Schedule, night.schedule_id)
            noted = f"{night.message}; " if night.message else ""
            night.status, night.outcome, night.in_window = "ended", ended.outcome, ended.in_window
            night.message, night.causes = noted + ended.message, ended.causes or []
            night.baseline = [run.run for run in found.baseline]
            night.ended_at = clock(session)
            session.add_all(_row(night.id, *each) for each in found.rows)
            session.flush()
            if ended.alert is not None:
                kind = "regression" if ended.outcome == "regressed" else "incident"
                known = open_alert(session, job.id, kind)
                if known is not None and not ended.alert:
                    night.causes = known.causes
                raise_alert(session, job, night, kind, ended.alert, night.causes)
            if ended.outcome != "incident":
                end_alert(session, job, "incident", f"the night {night.id} was made")
            if ended.outcome == "accepted":
                end_alert(session, job, "regression", f"the night {night.id} is no worse than its baseline")
        return night


def _row(night: str, stage: str, figure: Figure, found: Change, shown: bool) -> Regression:
    return Regression(
        night_id=night, stage=stage, metric=figure.metric, slice=figure.slice, value=found.tonight,
        baseline=found.baseline, low=found.low, high=found.high, p_value=found.p_value, n=found.n, worse=found.worse,
        better=found.better, shown=shown,
    )  # fmt: skip


def _figures(figures: Sequence[Figure]) -> str:
    named = [f"{figure.metric}{f' {figure.slice}' if figure.slice else ''}" for figure in figures]
    return ", ".join(named[:4]) + (f" and {len(named) - 4} more" if len(named) > 4 else "")


def _runs(count: int) -> str:
    return "1 accepted run" if count == 1 else f"{count} accepted runs"


def _clean(error: object) -> str:
    """What failed, in one bounded line."""
    return " ".join(printable(masked(str(error))).split())[:600]
