"""Taking away what a page shows: a table as CSV and Parquet, a plot as SVG and PNG, made when they are asked for."""

from __future__ import annotations

import io
import re
from functools import partial

import altair as alt
import pandas as pd
import streamlit as st

from vivace.output.printable import csv_text

_PNG_SCALE = 2.0
"""Pixels of a PNG for each of the plot's own, so that it is sharp in print."""


Plot = alt.Chart | alt.LayerChart | alt.FacetChart | alt.HConcatChart | alt.VConcatChart


def draw(name: str, plot: Plot, table: pd.DataFrame, words: str) -> None:
    """Draw a plot with its alternative text, and offer it and what it is made of as files.

    Args:
        name: as of `offer`.
        plot: what is drawn, as wide as the page.
        table: what it is made of.
        words: what it shows, for those who cannot see it.
    """
    st.altair_chart(plot, width="stretch", alt=words)
    offer(name, table, plot)


def offer(name: str, table: pd.DataFrame | None = None, plot: Plot | None = None) -> None:
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


def svg(plot: Plot) -> bytes:
    """A plot as SVG, drawn here: nothing is fetched for it."""
    file = io.StringIO()
    plot.save(file, format="svg", engine="vl-convert")
    return file.getvalue().encode()


def png(plot: Plot) -> bytes:
    """A plot as PNG, on white."""
    file = io.BytesIO()
    plot.save(file, format="png", engine="vl-convert", scale_factor=_PNG_SCALE)
    return file.getvalue()
