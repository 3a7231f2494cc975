"""What the page of regression jobs shows, as tables: the series of a figure, its levels, alerts, nights, causes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from vivace.analysis.trends import Step
from vivace.store.queries.regressions import CAUSES, SPEEDS, JobView, NightView, title, value_text

STATES = ("accepted", "in the window", "seemed worse", "worse, confirmed")
"""How a night stands in the series of a figure."""
STAGES = {
    "gate": "first run",
    "confirm": "fresh runs, pooled",
    "judge": "frozen replies, judged again",
    "rest": "without the judge's part",
    "machine": "the baseline arm",
    "data": "conversations that changed",
    "same-data": "conversations that did not",
}


def shown(metric: str, value: float) -> float:
    """A figure on its own scale: speeds are kept as logarithms."""
    return math.exp(value) if metric in SPEEDS else value


def series(job: JobView, metric: str, part: str) -> pd.DataFrame:
    """A figure night by night: `at`, `value`, `baseline`, `low`, `high`, `state`, `text`, `night`, `message`."""
    window = job.window
    rows = []
    for night, figure in job.series().get((metric, part), []):
        confirmed = any(
            (one.metric, one.slice, one.stage) == (metric, part, "confirm") and one.shown for one in night.figures
        )
        worse = confirmed or (night.outcome == "regressed" and figure.shown)
        inside = any(run["run"] in window for run in night.runs)
        state = STATES[3] if worse else STATES[2] if figure.shown else STATES[1] if inside else STATES[0]
        base = figure.baseline
        rows.append(
            {
                "at": night.at,
                "value": shown(metric, figure.value),
                "baseline": shown(metric, base),
                "low": shown(metric, figure.value if figure.low is None else base + figure.low),
                "high": shown(metric, figure.value if figure.high is None else base + figure.high),
                "state": state,
                "text": f"{figure.value_text}, {figure.difference_text}",
                "night": night.id,
                "message": night.message or "",
            }
        )
    return pd.DataFrame(rows)


def levels(frame: pd.DataFrame, steps: Sequence[Step], metric: str, part: str) -> pd.DataFrame:
    """The level of a figure between its steps: `from`, `to`, `level`. Empty where it has none."""
    own = [step for step in steps if (step.metric, step.slice) == (metric, part)]
    if frame.empty or not own:
        return pd.DataFrame(columns=["from", "to", "level"])
    edges = [frame["at"].iloc[0], *(step.at for step in own), frame["at"].iloc[-1]]
    means = [own[0].before, *(step.after for step in own)]
    return pd.DataFrame(
        [
            {"from": begin, "to": end, "level": shown(metric, mean)}
            for begin, end, mean in zip(edges, edges[1:], means, strict=False)
        ]
    )


def alerts(job: JobView) -> pd.DataFrame:
    """When alerts were raised and ended: `at`, `what`, `message`."""
    at = {night.id: night.at for night in job.nights}
    rows = [
        {
            "at": at.get(alert.night, alert.at),
            "what": f"{alert.kind}: {', '.join(CAUSES[name] for name in alert.causes) or 'no cause told apart'}",
            "message": alert.message,
        }
        for alert in job.alerts
    ]
    return pd.DataFrame(rows, columns=["at", "what", "message"])


def nights(job: JobView) -> pd.DataFrame:
    """Every night, the newest first."""
    return pd.DataFrame([_night(job, night) for night in reversed(job.nights)])


def _night(job: JobView, night: NightView) -> dict[str, Any]:
    return {
        "Night": night.at,
        "Outcome": night.outcome or night.status,
        "Window": any(run["run"] in job.window for run in night.runs),
        "Causes": ", ".join(CAUSES[name] for name in night.causes),
        "What came of it": night.message or "",
        "Runs": ", ".join(str(run["run"]) for run in night.runs),
        "Id": night.id,
    }


def parts(night: NightView) -> pd.DataFrame:
    """A night's figures beside its baseline: what the gate flagged, the fresh runs, and what causes show."""
    flagged = {(one.metric, one.slice) for one in night.figures if one.stage == "gate" and one.shown}
    return pd.DataFrame(
        [
            {
                "Figure": title(one.metric, one.slice),
                "Of": STAGES[one.stage],
                "Baseline": value_text(one.metric, one.baseline),
                "Night": one.value_text,
                "Difference": one.difference_text,
                "p": one.p_value,
                "Worse": one.worse,
                "Better": one.better,
                "n": one.n,
                "Shown worse": one.shown,
            }
            for one in night.figures
            if one.stage != "gate" or (one.metric, one.slice) in flagged or not flagged
        ]
    )


def messages(job: JobView) -> pd.DataFrame:
    """Every alert with what became of its messages, the newest first."""
    return pd.DataFrame(
        [
            {
                "Raised": alert.at,
                "Kind": alert.kind,
                "State": alert.state + (f" by {alert.acknowledged_by}" if alert.acknowledged_by else ""),
                "Causes": ", ".join(CAUSES[name] for name in alert.causes),
                "Last seen": alert.last_seen_at,
                "End": alert.end_reason or "",
                "Messages": ", ".join(
                    f"{one['channel']} {one['state']}" + (f" ({one['error']})" if one["error"] else "")
                    for one in alert.deliveries
                ),
                "Message": alert.message,
            }
            for alert in job.alerts
        ]
    )


def causes(night: NightView) -> pd.DataFrame:
    """What the surest of a night's changes is made of: `part`, `difference`, `low`, `high`, `shown`."""
    told = [one for one in night.figures if one.stage not in ("gate", "confirm")]
    if not told:
        return pd.DataFrame(columns=["part", "difference", "low", "high", "shown"])
    first = (told[0].metric, told[0].slice)
    chosen = [one for one in night.figures if (one.metric, one.slice) == first and one.stage != "gate"]
    return pd.DataFrame(
        [
            {
                "part": STAGES[one.stage],
                "difference": one.value - one.baseline,
                "low": one.value - one.baseline if one.low is None else one.low,
                "high": one.value - one.baseline if one.high is None else one.high,
                "shown": "shown to be worse" if one.shown else "not shown",
            }
            for one in chosen
        ]
    )
