"""Where the figures of a regression job have moved to another level, by the whole series and not by single nights."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vivace.statistics.regression import steps
from vivace.store.queries.regressions import JobView, title, value_text


@dataclass(frozen=True)
class Step:
    """A night from which on a figure's level is another."""

    metric: str
    slice: str
    night: str
    at: datetime
    before: float
    after: float

    @property
    def text(self) -> str:
        """What has moved, and how far."""
        levels = [value_text(self.metric, level) for level in (self.before, self.after)]
        return f"{title(self.metric, self.slice)} {levels[0]} → {levels[1]}"

    def as_json(self) -> dict[str, Any]:
        """The fields with times in ISO 8601."""
        return {**vars(self), "at": self.at.isoformat()}


def trend(job: JobView) -> list[Step]:
    """The steps of each of a job's figures, over the first runs of the nights that are shown."""
    found = []
    for (metric, part), series in job.series().items():
        values = [figure.value for _, figure in series]
        edges = [0, *steps(values), len(values)]
        for place in range(1, len(edges) - 1):
            before, after = (values[edges[place + side - 1] : edges[place + side]] for side in (0, 1))
            night = series[edges[place]][0]
            levels = statistics.fmean(before), statistics.fmean(after)
            found.append(Step(metric, part, night.id, night.at, *levels))
    return sorted(found, key=lambda step: step.at)
