"""The site's plots, as SVG: drawn once, so that a reader's browser needs no script and no network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from vivace.analysis.published import PublishedFigure
from vivace.output.drawings import svg
from vivace.store.queries.board import BoardRow
from vivace.store.queries.efficiency import ArmRow

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
"""Okabe and Ito's, which stay apart for every kind of colour vision; shapes say the same again."""
RANKED, APART = "ranked", "stands apart"
OWN, PUBLISHED = "run here", "published by others, not run here"
_ROW_HEIGHT = 26
_WIDTH = 340


def pass_rates(rows: Sequence[BoardRow], names: Sequence[str]) -> str | None:
    """APR with its 95 % interval, a line each, in the order of the board; None where fewer than two are known.

    Args:
        rows: of one group of the board.
        names: of the rows, every one different.
    """
    known = [
        {"name": name, "rate": row.figures.apr, "low": row.figures.apr_low, "high": row.figures.apr_high,
         "standing": RANKED if row.standing == "ranked" else APART}
        for row, name in zip(rows, names, strict=True)
        if row.figures.apr is not None
    ]  # fmt: skip
    return None if len(known) < 2 else _rates(known, {RANKED: "circle", APART: "diamond"})


def beside_published(
    rows: Sequence[BoardRow], names: Sequence[str], published: Sequence[PublishedFigure]
) -> str | None:
    """Own pass rates, and below them what others published, each marked; None where there are not both.

    The two are never sorted into each other, for that would be a ranking.

    Args:
        rows: of the board, of whatever data and judges.
        names: of the rows, every one different.
        published: the highest first.
    """
    own = [
        {"name": name, "rate": row.figures.apr, "low": row.figures.apr_low, "high": row.figures.apr_high,
         "standing": OWN}
        for row, name in zip(rows, names, strict=True)
        if row.figures.apr is not None
    ]  # fmt: skip
    others = [
        {"name": f"{figure.model} ({figure.output})", "rate": figure.apr, "low": figure.apr - half,
         "high": figure.apr + half, "standing": PUBLISHED}
        for figure in published
        for half in [figure.plus_minus or 0.0]
    ]  # fmt: skip
    return _rates([*own, *others], {OWN: "circle", PUBLISHED: "square"}, legend=True) if own and others else None


def _rates(points: Sequence[Mapping[str, Any]], shapes: Mapping[str, str], *, legend: bool = False) -> str:
    """A line for each point with its interval, marked by how it stands."""
    base = alt.Chart(_values(points)).encode(y=alt.Y("name:N", sort=None, title=None))
    axis = alt.Axis(format=".0%", tickCount=5, gridOpacity=0.4)
    x = alt.X("rate:Q", title="average pass rate", scale=alt.Scale(domain=[0, 1]), axis=axis)
    standing = alt.Scale(domain=list(shapes), range=list(shapes.values()))
    colour = alt.Scale(domain=list(shapes), range=_COLOURS[: len(shapes)])
    told = alt.Legend(title=None, orient="top", symbolLimit=0) if legend else None
    chart = alt.layer(
        base.mark_rule(strokeWidth=1.5, color=_COLOURS[-1]).encode(x="low:Q", x2="high:Q"),
        base.mark_point(size=70, filled=True, opacity=1).encode(
            x=x,
            shape=alt.Shape("standing:N", scale=standing, legend=told),
            color=alt.Color("standing:N", scale=colour, legend=told),
        ),
    ).properties(width=_WIDTH, height=_ROW_HEIGHT * len(points))
    return _svg(chart)


def trade_off(rows: Sequence[ArmRow]) -> str | None:
    """Quality against cost with the intervals of both, and the frontier as a step line; None below two points.

    Args:
        rows: of one group of the efficiency board.
    """
    known = [_point(row) for row in rows if row.cost is not None and row.quality_figure is not None]
    if len(known) < 2:
        return None
    axis, methods = rows[0].axis, sorted({str(point["method"]) for point in known})
    points = alt.Chart(_values(known)).encode(
        x=alt.X("cost:Q", title=axis.title, scale=alt.Scale(zero=False)),
        y=alt.Y("quality:Q", title="quality", scale=alt.Scale(zero=False), axis=alt.Axis(format=".0%")),
        color=alt.Color("method:N", scale=alt.Scale(domain=methods, range=list(_COLOURS)), title=None),
        shape=alt.Shape("method:N", scale=alt.Scale(domain=methods), title=None),
        opacity=alt.condition("datum.frontier", alt.value(1.0), alt.value(0.35)),
    )
    frontier = sorted((point for point in known if point["frontier"]), key=lambda point: float(point["cost"]))
    step = alt.Chart(_values(frontier)).mark_line(
        interpolate="step-before" if axis.more_is_better else "step-after", strokeWidth=1, color=_COLOURS[-1]
    )
    chart = alt.layer(
        step.encode(x="cost:Q", y="quality:Q"),
        points.mark_rule(strokeWidth=1).encode(y="low:Q", y2="high:Q"),
        points.mark_rule(strokeWidth=1).encode(x="least:Q", x2="most:Q"),
        points.mark_point(size=80, filled=True),
    ).properties(width=_WIDTH + 120, height=280)
    return _svg(chart)


def _point(row: ArmRow) -> dict[str, Any]:
    quality, cost = row.quality_figure, row.figures.get(row.axis.metric)
    assert quality is not None
    low, high = (quality.value if each is None else each for each in (quality.low, quality.high))
    least = row.cost if cost is None or cost.low is None else cost.low
    most = row.cost if cost is None or cost.high is None else cost.high
    return {"method": row.method, "cost": row.cost, "quality": quality.value, "low": low, "high": high,
            "least": least, "most": most, "frontier": row.frontier}  # fmt: skip


def _values(rows: Sequence[Mapping[str, Any]]) -> alt.Data:
    return alt.Data(values=rows)  # type: ignore[no-untyped-call]


def _svg(chart: Any) -> str:
    plain = chart.configure_view(strokeOpacity=0).configure(background="transparent", padding=12)
    plain = plain.configure_axis(labelLimit=260, titleFontWeight="normal").configure_legend(orient="top")
    # The drawing shrinks with the page, and its letters take the page's colour, light or dark.
    return re.sub(
        r'width="([\d.]+)" height="[\d.]+"', r'aria-hidden="true" style="width:\1px"', svg(plain.to_dict()), count=1
    )
