"""The charts: pass rates on the board, curves over parts of the data, frontiers, nights of regression jobs."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

# Okabe and Ito's colours, which stay apart for every kind of colour vision; the shapes say the same again. Their
# black is grey here: on a dark page it would not be seen.
_STATUS_COLOURS = {"official": "#0072B2", "unofficial": "#D55E00", "retracted": "#888888"}
_STATUS_SHAPES = {"official": "circle", "unofficial": "diamond", "retracted": "cross"}
_LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
_ROW_HEIGHT = 26
_OVERALL_WIDTH = 360
_AXIS_WIDTH = 175
_AROUND = 80
"""Pixels for the legend and the title above a panel, and the axis below it."""
_LEGEND = 100
"""Pixels for a legend of colours below one, and its distance: what is too little is taken from the cells."""
_PANEL_WIDTH, _PANEL_LABEL = 200, 110
"""Of panels of which several make one plot: together with their labels they fit on a telephone."""


def pass_rates(data: pd.DataFrame, models: Sequence[str], slices: Sequence[str]) -> alt.HConcatChart:
    """Points with 95 % intervals, one panel per slice, one line per model in the given order.

    Args:
        data: as `boards.intervals` gives it.
        models: the order of the lines, the best first.
        slices: the order of the panels.
    """
    shown = [status for status in _STATUS_COLOURS if status in set(data["status"])]
    panels = [
        _panel(data[data["slice"] == name], name, models, shown, first=position == 0).properties(
            width=_OVERALL_WIDTH if position == 0 else _AXIS_WIDTH, height=_ROW_HEIGHT * max(len(models), 2)
        )
        for position, name in enumerate(slices)
    ]
    chart: alt.HConcatChart = alt.hconcat(*panels, spacing=18).configure_view(strokeOpacity=0)
    return chart


def pass_rate(data: pd.DataFrame, name: str, models: Sequence[str]) -> alt.LayerChart:
    """One panel of `pass_rates` by itself, which fits into any width.

    Args:
        data: as `boards.intervals` gives it.
        name: of the slice.
        models: the order of the lines, the best first.
    """
    shown = [status for status in _STATUS_COLOURS if status in set(data["status"])]
    panel = _panel(data[data["slice"] == name], name, models, shown, first=True)
    chart: alt.LayerChart = panel.properties(height=_ROW_HEIGHT * max(len(models), 2) + _AROUND)
    return chart


def curve(data: pd.DataFrame, metric: str, models: Sequence[str], x_title: str) -> alt.LayerChart:
    """A score over parts of the data with 95 % intervals, one line per model.

    Args:
        data: as `boards.parts` gives it.
        metric: `apr` or `ars`.
        models: the order of the colours.
        x_title: what the parts lie along. Parts without a place on a number line stand side by side, and so do
            the systems of a single part.
    """
    names = list(models)
    on_a_line = bool(data["place"].notna().all()) and data["place"].nunique() > 1
    plain = data.rename(columns={metric: "value", f"{metric} low": "low", f"{metric} high": "high"})
    x = (
        alt.X("place:Q", title=x_title, scale=alt.Scale(zero=False, padding=24), axis=alt.Axis(tickCount=10))
        if on_a_line
        else alt.X("part:N", title=x_title, sort=None, axis=alt.Axis(labelAngle=0))
    )
    axis = alt.Axis(format=".0%", gridOpacity=0.5)
    # A name a line: side by side they run out of a telephone.
    legend = alt.Legend(orient="bottom", title=None, labelLimit=320, columns=1) if len(names) > 1 else None
    colours, shapes = (
        alt.Scale(domain=names, range=_repeated(chosen, len(names))) for chosen in (_LINE_COLOURS, _SHAPES)
    )
    colour = alt.Color("model:N", scale=colours, legend=legend)
    base = alt.Chart(plain).encode(x=x, color=colour)
    if not on_a_line:
        base = base.encode(xOffset=alt.XOffset("model:N", sort=names))
    rules = base.mark_rule(strokeWidth=1.5).encode(
        y=alt.Y("low:Q", title=metric.upper(), scale=alt.Scale(domain=[0, 1]), axis=axis), y2="high:Q"
    )
    points = base.mark_point(size=60, filled=True, opacity=1).encode(
        y=alt.Y("value:Q", axis=axis),
        shape=alt.Shape("model:N", scale=shapes, legend=legend),
        tooltip=[
            alt.Tooltip("model:N", title="Model"),
            alt.Tooltip("part:N", title="Part"),
            alt.Tooltip("value:Q", title=metric.upper(), format=".1%"),
            alt.Tooltip("low:Q", title="from", format=".1%"),
            alt.Tooltip("high:Q", title="to", format=".1%"),
            alt.Tooltip("conversations:Q", title="Conversations"),
        ],
    )
    layers = [rules, base.mark_line(strokeWidth=1.5).encode(y="value:Q"), points] if on_a_line else [rules, points]
    chart: alt.LayerChart = alt.layer(*layers).properties(height=360).configure_view(strokeOpacity=0)
    return chart


_SHAPES = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "triangle-right")
_FADED = 0.35
"""How much of a dominated point shows."""


def frontier(data: pd.DataFrame, x_title: str, *, more_is_better: bool, floor: float | None) -> alt.LayerChart:
    """Quality against cost with 95 % intervals on both axes, dominated points faded, the frontier as a step line.

    Args:
        data: as `arm_tables.points` gives it.
        x_title: what the cost is.
        more_is_better: whether the better side of the cost axis is the right one.
        floor: where the hardware's limit lies on it; None where there is none.
    """
    methods = list(dict.fromkeys(data["method"]))
    colour = alt.Color(
        "method:N",
        scale=alt.Scale(domain=methods, range=_repeated(_LINE_COLOURS, len(methods))),
        legend=alt.Legend(orient="top", title=None, labelLimit=320, columns=3),
    )
    shape = alt.Shape("method:N", scale=alt.Scale(domain=methods, range=_repeated(_SHAPES, len(methods))))
    large = alt.Axis(format="~s", labelOverlap=True) if data["cost"].max() > 1000 else alt.Axis(labelOverlap=True)
    x_axis = alt.X("cost:Q", title=x_title, scale=alt.Scale(zero=False, padding=24), axis=large)
    y_axis = alt.Y("quality:Q", title="quality", scale=alt.Scale(zero=False, padding=12), axis=alt.Axis(format=".0%"))
    shown = alt.condition("datum.frontier", alt.value(1.0), alt.value(_FADED))
    base = alt.Chart(data).encode(color=colour, opacity=shown)
    across = base.mark_rule(strokeWidth=1.5).encode(
        x=alt.X("cost low:Q", title=x_title, scale=alt.Scale(zero=False, padding=24), axis=large),
        x2="cost high:Q",
        y=y_axis,
    )
    upright = base.mark_rule(strokeWidth=1.5).encode(
        x=x_axis,
        y=alt.Y("quality low:Q", title="quality", scale=alt.Scale(zero=False, padding=12)),
        y2="quality high:Q",
    )
    points = base.mark_point(size=80, filled=True).encode(
        x=x_axis,
        y=y_axis,
        shape=shape,
        tooltip=[
            alt.Tooltip("arm:N", title="Arm"),
            alt.Tooltip("quality:Q", title="Quality", format=".1%"),
            alt.Tooltip("cost:Q", title=x_title, format=",.3~f"),
            alt.Tooltip("frontier:N", title="Frontier"),
            alt.Tooltip("beside the baseline:N", title="Beside the baseline"),
        ],
    )
    step = (
        alt.Chart(data[data["frontier"]])
        .mark_line(interpolate="step-before" if more_is_better else "step-after", color="#888888", strokeWidth=1.5)
        .encode(x=x_axis, y=y_axis, order="cost:Q")
    )
    layers: list[alt.Chart] = [step, across, upright, points]
    if floor is not None:
        limit = alt.Chart(pd.DataFrame({"cost": [floor]})).mark_rule(strokeDash=[6, 4], color="#888888")
        layers.append(limit.encode(x=x_axis, tooltip=[alt.Tooltip("cost:Q", title="Floor", format=".3f")]))
    chart: alt.LayerChart = alt.layer(*layers).properties(height=360).configure_view(strokeOpacity=0)
    return chart


def _repeated(values: Sequence[str], count: int) -> list[str]:
    return [values[place % len(values)] for place in range(count)]


def heat_map(data: pd.DataFrame, row: str, *, share: bool) -> alt.Chart | alt.FacetChart:
    """A figure by layer and arm, or by layer and module, a panel for each measure; one alone fits into any width.

    Args:
        data: as `arm_tables.by_layer` or `arm_tables.by_module` gives it.
        row: the column that stands upright.
        share: whether all figures are parts of 1, so that panels share their colours.
    """
    names = list(dict.fromkeys(data[row]))
    scale = alt.Scale(domain=[0, 1], clamp=True, scheme="viridis") if share else alt.Scale(scheme="viridis")
    cells = alt.Chart(data).mark_rect(stroke="white").encode(
        x=alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
        y=alt.Y(f"{row}:N", sort=names, title=None, axis=alt.Axis(labelLimit=_PANEL_LABEL)),
        color=alt.Color("value:Q", scale=scale, legend=alt.Legend(title="", orient="bottom")),
        tooltip=[
            alt.Tooltip(f"{row}:N", title=row.title()),
            alt.Tooltip("layer:O", title="Layer"),
            alt.Tooltip("value:Q", title="Mean", format=".3~f"),
            alt.Tooltip("n:Q", title="Observations"),
        ],
    )  # fmt: skip
    measures = list(dict.fromkeys(data["measure"]))
    if len(measures) == 1:
        alone: alt.Chart = cells.properties(title=measures[0], height=24 * len(names) + _AROUND + _LEGEND)
        return alone
    chart: alt.FacetChart = (
        cells.properties(width=_PANEL_WIDTH, height=20 * len(names))
        .facet(facet=alt.Facet("measure:N", sort=measures, title=None), columns=1)
        .resolve_scale(color="shared" if share else "independent")
    )
    return chart


def depth_and_length(data: pd.DataFrame) -> alt.FacetChart:
    """How much of a needle in a haystack is found, by its depth and the text's length, a panel for each arm.

    Args:
        data: as `arm_tables.haystack` gives it.
    """
    lengths = sorted(set(data["length"]), key=lambda text: int(text.split()[0].replace(",", "")))
    depths = sorted(set(data["depth"]), key=lambda text: int(text.rstrip("%")))
    cells = alt.Chart(data).mark_rect(stroke="white").encode(
        x=alt.X("length:N", sort=lengths, title=None, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("depth:N", sort=depths, title="depth"),
        color=alt.Color(
            "quality:Q",
            scale=alt.Scale(domain=[0, 1], scheme="viridis"),
            legend=alt.Legend(title="found", format=".0%", orient="bottom"),
        ),
        tooltip=[
            alt.Tooltip("arm:N", title="Arm"),
            alt.Tooltip("length:N", title="Length"),
            alt.Tooltip("depth:N", title="Depth"),
            alt.Tooltip("quality:Q", title="Found", format=".0%"),
            alt.Tooltip("n:Q", title="Prompts"),
        ],
    )  # fmt: skip
    chart: alt.FacetChart = cells.properties(width=min(70 * len(lengths), 270), height=28 * len(depths)).facet(
        facet=alt.Facet("arm:N", sort=list(dict.fromkeys(data["arm"])), title=None), columns=1
    )
    return chart


def rankings_by_layer(data: pd.DataFrame) -> alt.FacetChart:
    """What rankings of tokens are worth in each layer, a panel for each measure.

    Args:
        data: as `arm_tables.rankings` gives it.
    """
    cells = alt.Chart(data).mark_rect(stroke="white").encode(
        x=alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("ranking:N", sort=list(dict.fromkeys(data["ranking"])), title=None,
                axis=alt.Axis(labelLimit=_PANEL_LABEL)),
        color=alt.Color("value:Q", scale=alt.Scale(domain=[0, 1], clamp=True, scheme="viridis"),
        legend=alt.Legend(title="", orient="bottom")), tooltip=[
            alt.Tooltip("ranking:N", title="Ranking"),
            alt.Tooltip("layer:O", title="Layer"),
            alt.Tooltip("value:Q", title="Mean", format=".3f"),
            alt.Tooltip("n:Q", title="Prompts"),
        ],
    )  # fmt: skip
    chart: alt.FacetChart = cells.properties(width=_PANEL_WIDTH, height=22 * data["ranking"].nunique()).facet(
        facet=alt.Facet("measure:N", sort=list(dict.fromkeys(data["measure"])), title=None), columns=1
    )
    return chart


def _panel(
    data: pd.DataFrame, title: str, models: Sequence[str], statuses: Sequence[str], *, first: bool
) -> alt.LayerChart:
    y = alt.Y(
        "model:N",
        sort=list(models),
        scale=alt.Scale(domain=list(models)),
        title=None,
        axis=alt.Axis(
            labels=first,
            labelLimit=260,
            labelFlush=False,
            ticks=False,
            domain=False,
            grid=True,
            gridOpacity=0.5,
            labelPadding=8,
        ),
    )
    colour = alt.Color(
        "status:N",
        scale=alt.Scale(domain=list(statuses), range=[_STATUS_COLOURS[status] for status in statuses]),
        legend=alt.Legend(orient="top", title=None) if first and len(statuses) > 1 else None,
    )
    shape = alt.Shape(
        "status:N",
        scale=alt.Scale(domain=list(statuses), range=[_STATUS_SHAPES[status] for status in statuses]),
        legend=alt.Legend(orient="top", title=None) if first and len(statuses) > 1 else None,
    )
    x_axis = alt.Axis(format=".0%", values=[0, 0.25, 0.5, 0.75, 1], title=None, gridOpacity=0.5)
    base = alt.Chart(data).encode(y=y, color=colour)
    bars = base.mark_rule(strokeWidth=1.5).encode(
        x=alt.X("low:Q", scale=alt.Scale(domain=[0, 1]), axis=x_axis), x2="high:Q"
    )
    points = base.mark_point(size=70, filled=True, opacity=1).encode(
        x=alt.X("apr:Q", axis=x_axis),
        shape=shape,
        tooltip=[
            alt.Tooltip("model:N", title="Model"),
            alt.Tooltip("slice:N", title="Slice"),
            alt.Tooltip("text:N", title="APR [95 % interval]"),
            alt.Tooltip("n:Q", title="Conversations"),
        ],
    )
    panel: alt.LayerChart = (bars + points).properties(
        title=alt.TitleParams(title, anchor="start", fontSize=12, fontWeight="normal", offset=6),
    )
    return panel


_NIGHT_COLOURS = ("#56B4E9", "#0072B2", "#E69F00", "#D55E00")
_NIGHT_SHAPES = ("circle", "square", "diamond", "triangle-down")


def nights(
    series: pd.DataFrame,
    levels: pd.DataFrame,
    alerts: pd.DataFrame,
    name: str,
    states: Sequence[str],
    *,
    is_share: bool,
) -> alt.LayerChart:
    """A figure of a regression job night by night, with its baseline, the levels between steps, and alerts.

    Args:
        series: as `job_tables.series` gives it.
        levels: as `job_tables.levels` gives it.
        alerts: as `job_tables.alerts` gives it.
        name: of the figure.
        states: how a night may stand, in the order of the colours.
        is_share: whether it is a share of 1, else a speed.
    """
    axis = alt.Axis(format=".0%" if is_share else ".3~g", gridOpacity=0.5)
    x = alt.X("at:T", title=None)
    y = alt.Y("value:Q", title=name, scale=alt.Scale(zero=False, padding=12), axis=axis)
    scales = {
        "color": alt.Color("state:N", scale=alt.Scale(domain=list(states), range=list(_NIGHT_COLOURS)),
                           legend=alt.Legend(orient="top", title=None)),
        "shape": alt.Shape("state:N", scale=alt.Scale(domain=list(states), range=list(_NIGHT_SHAPES)),
                           legend=alt.Legend(orient="top", title=None)),
    }  # fmt: skip
    base = alt.Chart(series)
    layers: list[alt.Chart] = [
        base.mark_line(color="#888888", strokeDash=[5, 4], strokeWidth=1.2).encode(x=x, y=alt.Y("baseline:Q")),
        base.mark_rule(strokeWidth=1.2, opacity=0.7).encode(
            x=x, y=alt.Y("low:Q"), y2="high:Q", color=scales["color"]
        ),
        base.mark_line(strokeWidth=1, color="#56B4E9").encode(x=x, y=y),
        base.mark_point(size=60, filled=True, opacity=1).encode(
            x=x, y=y, **scales,
            tooltip=[
                alt.Tooltip("at:T", title="Night", format="%Y-%m-%d %H:%M"),
                alt.Tooltip("text:N", title=name),
                alt.Tooltip("state:N", title="State"),
                alt.Tooltip("message:N", title="What came of it"),
            ],
        ),
    ]  # fmt: skip
    if not levels.empty:
        layers.insert(
            0,
            alt.Chart(levels)
            .mark_rule(strokeWidth=5, opacity=0.4, color="#7F7F7F")
            .encode(x=alt.X("from:T"), x2="to:T", y=alt.Y("level:Q")),
        )
    if not alerts.empty:
        tips = [alt.Tooltip("what:N", title="Alert"), alt.Tooltip("message:N", title="Message")]
        layers.append(
            alt.Chart(alerts).mark_rule(color="#D55E00", strokeDash=[2, 2], strokeWidth=1.5).encode(x=x, tooltip=tips)
        )
    chart: alt.LayerChart = alt.layer(*layers).properties(height=360).configure_view(strokeOpacity=0)
    return chart


def causes(data: pd.DataFrame) -> alt.LayerChart:
    """What a confirmed change is made of, with 95 % intervals.

    Args:
        data: as `job_tables.causes` gives it.
    """
    colour = alt.Color(
        "shown:N",
        scale=alt.Scale(domain=["shown to be worse", "not shown"], range=["#D55E00", "#888888"]),
        legend=alt.Legend(orient="top", title=None),
    )
    base = alt.Chart(data).encode(
        y=alt.Y("part:N", sort=None, title=None, axis=alt.Axis(labelLimit=260)), color=colour
    )
    axis = alt.Axis(format="+.0%", gridOpacity=0.5)
    spans = base.mark_rule(strokeWidth=1.5).encode(x=alt.X("low:Q", title="change", axis=axis), x2="high:Q")
    points = base.mark_point(size=70, filled=True, opacity=1).encode(x=alt.X("difference:Q", axis=axis))
    zero = alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(strokeDash=[4, 4]).encode(x="zero:Q")
    chart: alt.LayerChart = (
        alt.layer(zero, spans, points)
        .properties(height=36 * max(2, len(data)) + _AROUND)
        .configure_view(strokeOpacity=0)
    )
    return chart
