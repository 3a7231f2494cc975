"""Figures that others published, to set own runs beside; never ranked with them, since they were not run here."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import yaml


@dataclass(frozen=True)
class PublishedFigure:
    """One row of somebody's published table; rates are fractions from 0 to 1."""

    model: str
    output: str
    """`text`, `audio`, or `unknown`."""
    apr: float
    plus_minus: float | None
    ars: float | None
    source: str
    date: str
    axes: dict[str, float] = field(default_factory=dict)
    """Axis → APR, where it was published."""

    def as_json(self) -> dict[str, Any]:
        """The figure, marked so that nobody takes it for a run."""
        return {**vars(self), "published": True, "note": "published, not run here"}


@cache
def published_figures(track: str | None) -> tuple[PublishedFigure, ...]:
    """What is known of a track, or of all tracks, the highest APR first."""
    text = resources.files("vivace").joinpath("published.yaml").read_text(encoding="utf-8")
    figures = []
    for name, table in yaml.safe_load(text).items():
        if track in (None, name):
            figures += [_figure(row, table["sources"][row["source"]]) for row in table["rows"]]
    return tuple(sorted(figures, key=lambda figure: -figure.apr))


def _figure(row: dict[str, Any], source: dict[str, Any]) -> PublishedFigure:
    return PublishedFigure(
        model=row["model"],
        output=row["output"],
        apr=round(row["apr"] / 100, 4),
        plus_minus=round(row["plus_minus"] / 100, 4) if "plus_minus" in row else None,
        ars=round(row["ars"] / 100, 4) if "ars" in row else None,
        source=source["name"],
        date=str(source["date"]),
        axes={axis: round(rate / 100, 4) for axis, rate in row.get("axes", {}).items()},
    )
