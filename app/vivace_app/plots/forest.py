"""Paired differences as a forest plot and as tables, without Streamlit, so that they can be tested alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import altair as alt
import pandas as pd

from vivace.analysis.comparison import ComparisonRow
from vivace.statistics.paired import LEVEL
from vivace_app import figures

BETTER, WORSE, OPEN = "shown to be better", "shown to be worse", "no difference shown"
# Okabe and Ito's colours; the shapes say the same again.
_COLOURS = {BETTER: "#0072B2", WORSE: "#D55E00", OPEN: "#888888"}
_SHAPES = {BETTER: "triangle-up", WORSE: "triangle-down", OPEN: "circle"}
_LINE = 30
"""Pixels for one difference."""
_AROUND = 110
"""Pixels for the legend above and the axis below."""
_NAME_PIXELS = 150
_LEAST_REACH = 5.0
ALL = "All conversations"


def outcome(row: ComparisonRow) -> str:
    """What a difference shows, after the correction for all of its family."""
    if row.p_adjusted is None or row.p_adjusted >= LEVEL or row.difference.value == 0:
        return OPEN
    return BETTER if row.difference.value > 0 else WORSE


def table(rows: Sequence[ComparisonRow]) -> pd.DataFrame:
    """Every difference, one line each, in the order of the comparison."""
    return pd.DataFrame(
        [
            {
                "System": row.name_b,
                "Part": part(row),
                "Score": row.metric.upper(),
                "Its own": figures.with_interval(row.difference.b, None, None),
                "The first's": figures.with_interval(row.difference.a, None, None),
                "Difference": figures.points(row.difference.value, row.difference.low, row.difference.high),
                "p": row.difference.p_value,
                "p, family": row.p_adjusted,
                "Shows": outcome(row),
                "Better / worse": f"{row.difference.gained} / {row.difference.lost}",
                "Detectable": row.difference.detectable,
                "n": row.difference.n,
            }
            for row in rows
        ]
    )


def part(row: ComparisonRow) -> str:
    """Which conversations a difference is over, in words."""
    return figures.part_name(row.slice, row.by) if row.slice else ALL


def points(rows: Sequence[ComparisonRow]) -> pd.DataFrame:
    """The differences of some systems in points, for `plot`; an interval that is not known has no ends."""
    return pd.DataFrame(
        [
            {
                "system": row.name_b,
                "part": part(row),
                "value": 100 * row.difference.value,
                "low": None if row.difference.low is None else 100 * row.difference.low,
                "high": None if row.difference.high is None else 100 * row.difference.high,
                "shows": outcome(row),
                "text": figures.points(row.difference.value, row.difference.low, row.difference.high),
                "n": row.difference.n,
            }
            for row in rows
        ]
    )


def reach(rows: Sequence[ComparisonRow]) -> float:
    """How many points the axis has to reach to either side, the same for all systems."""
    ends = [
        abs(100 * end)
        for row in rows
        for end in (row.difference.low, row.difference.high, row.difference.value)
        if end is not None
    ]
    return 1.05 * max([_LEAST_REACH, *ends])


def plot(data: pd.DataFrame, title: str, far: float) -> alt.LayerChart:
    """Differences with 95 % intervals around a line at none.

    Args:
        data: as `points` gives it.
        title: of the axis.
        far: where the axis ends, to the left and to the right.
    """
    shown = [name for name in _COLOURS if name in set(data["shows"])]
    legend = alt.Legend(orient="top", title=None, symbolSize=90)
    scales: dict[str, Any] = {
        "color": alt.Color(
            "shows:N", scale=alt.Scale(domain=shown, range=[_COLOURS[name] for name in shown]), legend=legend
        ),
        "shape": alt.Shape(
            "shows:N", scale=alt.Scale(domain=shown, range=[_SHAPES[name] for name in shown]), legend=legend
        ),
    }
    axis = alt.Axis(format="+.0f", gridOpacity=0.5, tickCount=8)
    scale = alt.Scale(domain=[-far, far], nice=False)
    y = alt.Y("part:N", sort=None, title=None, axis=alt.Axis(labelLimit=_NAME_PIXELS, ticks=False, domain=False))
    base = alt.Chart(data).encode(y=y)
    spans = base.mark_rule(strokeWidth=1.8).encode(
        x=alt.X("low:Q", title=title, scale=scale, axis=axis), x2="high:Q", color=scales["color"]
    )
    marks = base.mark_point(size=90, filled=True, opacity=1).encode(
        x=alt.X("value:Q", title=title, scale=scale, axis=axis),
        tooltip=[
            alt.Tooltip("part:N", title="Part"),
            alt.Tooltip("text:N", title="Difference in points [95 % interval]"),
            alt.Tooltip("shows:N", title="After correction"),
            alt.Tooltip("n:Q", title="Conversations"),
        ],
        **scales,
    )
    none = alt.Chart(pd.DataFrame({"none": [0.0]})).mark_rule(strokeDash=[4, 4], color="#888888").encode(x="none:Q")
    chart = alt.layer(none, spans, marks).properties(
        height=_AROUND + _LINE * max(2, len(data)), view=alt.ViewBackground(strokeOpacity=0)
    )
    return cast(alt.LayerChart, chart)


def together(data: pd.DataFrame, title: str, far: float) -> alt.VConcatChart:
    """The plots of all systems, one below the other, to take away."""
    chart: alt.VConcatChart = alt.vconcat(
        *(plot(part, title, far).properties(title=name) for name, part in data.groupby("system", sort=False))
    )
    return chart


def flips(found: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The conversations that came out differently, one line each."""
    return pd.DataFrame(
        [
            {
                "Conversation": flip["conversation"],
                "Axis": figures.axis_name(flip["axis"]),
                "Better": flip["better"],
                "Compared": f"{flip['a']} / {flip['b']}",
                "Criteria met": f"{flip['met_a']:g} / {flip['met_b']:g} of {flip['criteria']}",
            }
            for flip in found
        ]
    )
