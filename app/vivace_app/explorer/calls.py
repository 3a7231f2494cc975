"""What it took: every call behind the replies and verdicts of one conversation."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from vivace.store.database import Database
from vivace.store.queries.conversation import CallView
from vivace_app import data, downloads, figures
from vivace_app.explorer.sides import Side
from vivace_app.viewer import told_table

_MOST = 500
"""Calls of one system that are read; a rubric of ten with three votes and retries stays far below."""


def show(database: Database, sides: Sequence[Side], conversation: str) -> None:
    """Draw the calls of all systems as one table."""
    made = [data.calls(database, side.row.judging, conversation, _MOST) for side in sides]
    if not any(made):
        return
    with st.expander(f"Calls: {sum(map(len, made))}", icon=":material/receipt_long:"):
        frame = told_table(table(sides, made))
        column = st.column_config
        st.dataframe(
            figures.cells(frame),
            key="calls",
            hide_index=True,
            column_config={
                "Seconds": column.NumberColumn(format="%.2f s"),
                "Audio sent": column.NumberColumn(format="%.1f s"),
                "Cost": column.NumberColumn(format="$%.5f"),
                "At": column.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss"),
            },
            placeholder=figures.ABSENT,
            alt="Calls to models and judges for this conversation, with tokens, seconds, cost and errors",
        )
        st.caption("In the order in which they were recorded, failed ones and repeats among them.")
        if any(len(calls) == _MOST for calls in made):
            st.caption(f"Of each system at most {_MOST} are shown.")
        downloads.offer("calls", frame)


def table(sides: Sequence[Side], made: Sequence[Sequence[CallView]]) -> pd.DataFrame:
    """One line for each call; columns in which nothing stands are left out."""
    frame = pd.DataFrame(
        [
            {
                **({"System": f"{side.letter} · {side.name}"} if len(sides) > 1 else {}),
                "Stage": call.stage,
                "Criterion": None if call.criterion is None else call.criterion + 1,
                "Seconds": call.seconds,
                "Input tokens": call.input_tokens,
                "of them audio": call.input_audio_tokens,
                "Output tokens": call.output_tokens,
                "Audio sent": call.audio_seconds,
                "Cached": "yes" if call.cached else None,
                "Cost": call.cost_usd,
                "Error": None if call.error is None else figures.reason(call.error),
                "Detail": call.detail,
                "At": call.made_at,
            }
            for side, calls in zip(sides, made, strict=True)
            for call in calls
        ]
    )
    return frame.dropna(axis="columns", how="all")
