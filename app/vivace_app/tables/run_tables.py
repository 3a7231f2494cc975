"""What the page of runs shows, as tables: queue, workers, runs, what failed, and what made two runs differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from vivace.output.short_names import with_method
from vivace.store.queries.log import LogLine
from vivace.store.queries.runs import Failure, RunView, WorkerView
from vivace.store.queries.submissions import SubmissionView
from vivace_app import figures

LINES = 500
"""Of a log, the newest, which are shown."""


def queue(found: Sequence[SubmissionView]) -> pd.DataFrame:
    """What is worked on, and then what waits, in its order."""
    ordered = sorted(found, key=lambda one: (one.status != "running", one.queue or "", one.position or 0))
    return pd.DataFrame(
        [
            {
                "State": one.status if one.position is None else f"{one.status}, place {one.position}",
                "Model": one.model,
                "Track": one.track,
                "Progress": progress(one),
                "Done": _share(one),
                "Failed": one.errors,
                "Left": None if one.seconds_left is None else figures.seconds(one.seconds_left),
                "Queue": one.queue or "none",
                "Worker": one.worker,
                "Message": one.message,
                "Run": one.run,
            }
            for one in ordered
        ]
    )


def progress(one: SubmissionView) -> str:
    """How far it is, in words."""
    items = f"{one.items_done} of {one.items_planned} {one.unit}"
    return items if not one.verdicts_planned else f"{items}, {one.verdicts_done} of {one.verdicts_planned} verdicts"


def _share(one: SubmissionView) -> float:
    planned = one.items_planned + one.verdicts_planned
    return min(1.0, (one.items_done + one.verdicts_done) / planned) if planned else 0.0


def workers(found: Sequence[WorkerView]) -> pd.DataFrame:
    """Who executes runs, with the last sign of life."""
    return pd.DataFrame(
        [
            {
                "Worker": one.worker,
                "State": one.health,
                "Heartbeat": f"{one.heartbeat_age_s:.0f} s ago",
                "Queues": ", ".join(one.queues),
                "Works on": ", ".join(one.works_on),
                "Since": one.started_at,
            }
            for one in found
        ]
    )


def runs(found: Sequence[RunView]) -> pd.DataFrame:
    """The runs, the newest first."""
    return pd.DataFrame(
        [
            {
                "Run": one.short,
                "Model": with_method(one.model, one.method),
                "Track": one.track,
                "Data": one.data,
                "State": "retracted" if one.retracted is not None else one.status,
                "Official": "yes" if one.official else "no" if one.why_not else None,
                "Why not": "; ".join(dict.fromkeys(why for reasons in one.why_not.values() for why in reasons)),
                "Seen by": _seen_by(one),
                "Message": one.message,
                "Made": one.created_at,
            }
            for one in found
        ]
    )


def _seen_by(one: RunView) -> str:
    if not one.private:
        return "everybody"
    return f"its owner {one.owner}" if one.owner else "the operator"


def failed(found: Sequence[Failure]) -> pd.DataFrame:
    """What failed, by reason."""
    return pd.DataFrame(
        [
            {"What": one.stage, "Reason": figures.reason(one.reason), "Times": one.count, "Newest": one.detail}
            for one in found
        ]
    )


def lines(found: Sequence[LogLine]) -> pd.DataFrame:
    """The newest lines of a log, the newest first."""
    return pd.DataFrame([{"At": line.at, "Level": line.level, "Message": line.message} for line in reversed(found)])


def manifest(of_run: Mapping[str, str], of_other: Mapping[str, str] | None = None) -> pd.DataFrame:
    """What made a run, or where it differs from what made another."""
    if of_other is None:
        return pd.DataFrame([{"What": name, "Value": value} for name, value in of_run.items()])
    names = [name for name in {**of_run, **of_other} if of_run.get(name) != of_other.get(name)]
    return pd.DataFrame(
        [{"What": name, "This run": of_run.get(name), "The other": of_other.get(name)} for name in names]
    )
