"""The dialogue board's further plots: quality beside what it takes, and own figures beside published ones."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

# Okabe and Ito's colours, which stay apart for every kind of colour vision; the shapes say the same again.
_COLOURS = {
    "official": "#0072B2", "unofficial": "#D55E00", "part": "#CC79A7", "incomplete": "#E69F00",
    "run here": "#0072B2", "published, not run here": "#D55E00",
}  # fmt: skip
_SHAPES = {
    "official": "circle", "unofficial": "diamond", "part": "triangle-up", "incomplete": "square",
    "run here": "circle", "published, not run here": "diamond",
}  # fmt: skip
_MOST_NAMES = 25
"""More names beside points than these would lie over each other."""
_ROW_HEIGHT = 20


def trade_off(data: pd.DataFrame, x_title: str) -> alt.LayerChart:
    """Pass rates against what they take, with 95 % intervals on both axes where they are known.

    Args:
        data: as `boards.trade_off` gives it.
        x_title: what is taken.
    """
    colour, shape = _marked("standing", data["standing"].unique().tolist())
    base = alt.Chart(data).encode(color=colour)
    x = alt.X("taken:Q", title=x_title, scale=alt.Scale(zero=False, padding=24), axis=alt.Axis(labelOverlap=True))
    y = alt.Y("apr:Q", title="average pass rate", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format=".0%"))
    points = base.mark_point(size=80, filled=True, opacity=1).encode(
        x=x,
        y=y,
        shape=shape,
        tooltip=[
            alt.Tooltip("model:N", title="Model"),
            alt.Tooltip("apr:Q", title="APR", format=".1%"),
            alt.Tooltip("low:Q", title="from", format=".1%"),
            alt.Tooltip("high:Q", title="to", format=".1%"),
            alt.Tooltip("taken:Q", title=x_title, format=",.3~f"),
            alt.Tooltip("standing:N", title="Standing"),
            alt.Tooltip("times:N", title="Times"),
        ],
    )
    layers: list[alt.Chart] = [
        base.mark_rule(strokeWidth=1.5, opacity=0.6).encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_rule(strokeWidth=1.5, opacity=0.6).encode(x=alt.X("taken low:Q"), x2="taken high:Q", y=y),
        points,
    ]
    if len(data) <= _MOST_NAMES:
        names = base.mark_text(align="left", dx=8, dy=-8, fontSize=11, limit=160).encode(x=x, y=y, text="model:N")
        layers.append(names)
    chart: alt.LayerChart = alt.layer(*layers).properties(height=360).configure_view(strokeOpacity=0)
    return chart


def own_and_published(data: pd.DataFrame) -> alt.LayerChart:
    """Own pass rates and published ones on one axis, each kind in an order of its own, the own ones first.

    Args:
        data: as `boards.own_and_published` gives it.
    """
    kinds = list(dict.fromkeys(data["from"]))
    colour, shape = _marked("from", kinds)
    order = [name for kind in kinds for name in data[data["from"] == kind].sort_values("apr")["model"][::-1]]
    axis = alt.Axis(labelLimit=230, ticks=False, domain=False, grid=True, gridOpacity=0.4)
    base = alt.Chart(data).encode(y=alt.Y("model:N", sort=order, title=None, axis=axis), color=colour)
    x_axis = alt.Axis(format=".0%", title="average pass rate", tickCount=5, gridOpacity=0.4)
    spans = base.mark_rule(strokeWidth=1.5).encode(
        x=alt.X("low:Q", scale=alt.Scale(domain=[0, 1]), axis=x_axis), x2="high:Q"
    )
    points = base.mark_point(size=70, filled=True, opacity=1).encode(
        x=alt.X("apr:Q", axis=x_axis),
        shape=shape,
        tooltip=[
            alt.Tooltip("model:N", title="Model"),
            alt.Tooltip("apr:Q", title="APR", format=".1%"),
            alt.Tooltip("from:N", title="From"),
        ],
    )
    chart: alt.LayerChart = (
        alt.layer(spans, points)
        .properties(height=_ROW_HEIGHT * max(2, data["model"].nunique()))
        .configure_view(strokeOpacity=0)
    )
    return chart


def _marked(column: str, values: Sequence[str]) -> tuple[alt.Color, alt.Shape]:
    """The colour and the shape of each value, which say the same."""
    known = [value for value in _COLOURS if value in values]
    legend = alt.Legend(orient="top", title=None, labelLimit=240) if len(known) > 1 else None
    colours, shapes = ([chosen[one] for one in known] for chosen in (_COLOURS, _SHAPES))
    return (
        alt.Color(f"{column}:N", scale=alt.Scale(domain=known, range=colours), legend=legend),
        alt.Shape(f"{column}:N", scale=alt.Scale(domain=known, range=shapes), legend=legend),
    )
