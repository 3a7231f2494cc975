"""Taking away what a page shows: a table as CSV and Parquet, a plot as SVG and PNG, made when they are asked for."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from vivace.output import drawings
from vivace.output.printable import csv_text

_PNG_SCALE = 2.0
"""Pixels of a PNG for each of the plot's own, so that it is sharp in print."""


Plot = alt.Chart | alt.LayerChart | alt.FacetChart | alt.HConcatChart | alt.VConcatChart
Spec = dict[str, Any]
"""A plot as Vega-Lite has it."""


def draw(
    name: str, words: str, kind: Callable[..., Plot], table: pd.DataFrame, *arguments: Any, **settings: Any
) -> None:
    """Draw a plot as wide as the page, with its alternative text, and offer it and what it is made of as files.

    Args:
        name: as of `offer`.
        words: what it shows, for those who cannot see it.
        kind: what makes the plot, of the table, the arguments and the settings.
        table: what it is made of.
        arguments: as `kind` takes them.
        settings: as `kind` takes them.
    """
    spec = built(kind, table, *arguments, **settings)
    st.vega_lite_chart(spec, width="stretch", alt=words)
    offer(name, table, spec)


def built(kind: Callable[..., Plot], table: pd.DataFrame, *arguments: Any, **settings: Any) -> Spec:
    """A plot as it is sent to the browser.

    Building one takes longer than all else on a page, and so it is kept for as long as its figures stay.
    """
    return _spec(kind, f"{kind.__module__}.{kind.__qualname__}", table, arguments, settings)


@st.cache_data(show_spinner=False, max_entries=128)
def _spec(
    _kind: Callable[..., Plot], name: str, table: pd.DataFrame, arguments: Sequence[Any], settings: dict[str, Any]
) -> Spec:
    spec: Spec = drawings.drawable(_kind(table, *arguments, **settings).to_dict())
    return spec


def offer(name: str, table: pd.DataFrame | None = None, plot: Plot | Spec | None = None) -> None:
    """Draw a button that opens the files to be had of a table, of a plot, or of both.

    Args:
        name: what the files are called, as people name what is in them; different from every other on the page.
        table: as it is shown, before its texts were made harmless for the page.
        plot: as it is drawn.
    """
    kinds = {
        **({} if table is None or table.empty else {
            "CSV": ("text/csv", partial(csv, table)),
            "Parquet": ("application/vnd.apache.parquet", partial(parquet, table)),
        }),
        **({} if plot is None else {
            "SVG": ("image/svg+xml", partial(svg, plot)),
            "PNG": ("image/png", partial(png, plot)),
        }),
    }  # fmt: skip
    if not kinds:
        return
    with st.popover("Download", icon=":material/download:", key=f"download-{name}"):
        for kind, (media_type, content) in kinds.items():
            st.download_button(
                f"{'Table' if kind in ('CSV', 'Parquet') else 'Plot'} as {kind}",
                content,
                file_name=f"{file_name(name)}.{kind.lower()}",
                mime=media_type,
                key=f"download-{name}-{kind}",
                on_click="ignore",
                width="stretch",
            )


def file_name(name: str) -> str:
    """A name as that of a file: letters, digits and dashes, which every system takes."""
    return "vivace-" + ("-".join(re.findall(r"\w+", name.lower()))[:80] or "table")


def csv(table: pd.DataFrame) -> bytes:
    """A table as CSV in UTF-8, in which no text is a formula; what is not known is empty."""
    rows = [
        {str(column): _text(value) for column, value in row.items()}
        for row in table.astype(object).to_dict(orient="records")
    ]
    return csv_text(rows).encode()


def _text(value: object) -> object:
    if isinstance(value, list | tuple):
        return "; ".join(map(str, value))
    if isinstance(value, str):
        return value.strip()
    return None if pd.isna(value) else value  # type: ignore[call-overload]


def parquet(table: pd.DataFrame) -> bytes:
    """A table as Parquet, with its texts and numbers as they are."""
    file = io.BytesIO()
    table.to_parquet(file, index=False)
    return file.getvalue()


def svg(plot: Plot | Spec) -> bytes:
    """A plot as SVG."""
    return drawings.svg(_as_spec(plot)).encode()


def png(plot: Plot | Spec) -> bytes:
    """A plot as PNG, on white."""
    return drawings.png(_as_spec(plot), _PNG_SCALE)


def _as_spec(plot: Plot | Spec) -> Spec:
    return plot if isinstance(plot, dict) else plot.to_dict()
