"""The leaderboard's rows as tables and labels, without Streamlit, so that they can be tested alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from vivace.store.queries import BoardRow
from vivace_app import figures

NOTES = ("official", "unofficial", "imported", "transcript", "retracted")
"""Every badge a row can carry."""


@dataclass(frozen=True)
class Group:
    """Rows that may be ranked together: the same data, judged by the same judge."""

    rows: list[BoardRow]
    """The retracted ones last; they have no rank."""

    @property
    def data(self) -> str:
        """The data's name and revision."""
        return data_key(self.rows[0])

    @property
    def judge(self) -> str:
        """The judge's name and fingerprint."""
        return judge_label(self.rows[0])

    @property
    def axes(self) -> list[str]:
        """The axes that any row has figures for, in a fixed order."""
        return sorted({axis for row in self.rows for axis in row.axes})


def data_key(row: BoardRow) -> str:
    """What tells one set of conversations from another, in the URL and in the filter: name and revision."""
    return f"{row.data}@{row.data_revision[:8]}"


def judge_key(row: BoardRow) -> str:
    """The judge's short fingerprint, as the URL names it."""
    return row.judge_fingerprint[:8]


def judge_label(row: BoardRow) -> str:
    """The judge's name and short fingerprint."""
    return f"{row.judge} · {judge_key(row)}"


def groups(rows: Iterable[BoardRow]) -> list[Group]:
    """Rows that may be ranked together, each in the store's order; the largest group first."""
    found: dict[tuple[str, str, str, str], list[BoardRow]] = {}
    for row in rows:
        key = (row.track, row.data, row.data_revision, row.judge_fingerprint)
        found.setdefault(key, []).append(row)
    result = [Group(sorted(group, key=lambda row: row.retracted is not None)) for group in found.values()]
    return sorted(result, key=lambda group: -len(group.rows))


def notes(row: BoardRow) -> list[str]:
    """The badges of a row, its standing first."""
    found = ["retracted" if row.retracted is not None else "official" if row.official else "unofficial"]
    if row.imported:
        found.append("imported")
    if row.input_form == "transcript":
        found.append("transcript")
    return found


def labels(rows: Sequence[BoardRow], names: Sequence[str] | None = None) -> list[str]:
    """A name for each row that no other row has: the model's, with its input, judge or judging where needed.

    Args:
        rows: the rows.
        names: what to begin with in place of the models' names.
    """
    result = list(names) if names is not None else [row.model for row in rows]
    for details in (
        [row.input_form for row in rows],
        [judge_label(row) for row in rows],
        [row.judging[:8] for row in rows],
    ):
        before = Counter(result)
        after = Counter(zip(result, details, strict=True))
        result = [
            name if after[name, detail] == before[name] else f"{name} · {detail}"
            for name, detail in zip(result, details, strict=True)
        ]
    return result


def table(group: Group) -> pd.DataFrame:
    """A group as the board's table, one line per row of the group in its order."""
    lines = []
    for row in group.rows:
        all_axes = row.figures
        ranked = row.retracted is None and all_axes.apr is not None
        line: dict[str, object] = {
            "Rank": figures.rank(row.rank, row.tied) if ranked else figures.ABSENT,
            "Model": row.model,
            "Notes": notes(row),
            "APR": figures.with_interval(all_axes.apr, all_axes.apr_low, all_axes.apr_high),
            "ARS": figures.with_interval(all_axes.ars, all_axes.ars_low, all_axes.ars_high),
        }
        for axis in group.axes:
            found = row.axes.get(axis)
            line[figures.axis_name(axis)] = figures.with_count(found.apr, found.n) if found else figures.ABSENT
        line |= {
            "Coverage": figures.with_range(all_axes.coverage, all_axes.apr_min, all_axes.apr_max),
            "n": all_axes.n,
            "TTFT": row.ttft_median_s,
            "Total": row.total_median_s,
            "Cost": row.cost_usd,
            "Date": row.date,
        }
        lines.append(line)
    return pd.DataFrame(lines)


def intervals(group: Group, names: Sequence[str]) -> pd.DataFrame:
    """Pass rates for the chart: one line per row and slice that has a figure; rates are fractions.

    Args:
        group: the rows.
        names: a distinct name for each row.
    """
    lines = []
    for name, row in zip(names, group.rows, strict=True):
        for axis, figure in {"": row.figures, **row.axes}.items():
            if figure.apr is not None:
                lines.append(
                    {
                        "model": name,
                        "slice": figures.axis_name(axis) if axis else "All conversations",
                        "apr": figure.apr,
                        "low": figure.apr if figure.apr_low is None else figure.apr_low,
                        "high": figure.apr if figure.apr_high is None else figure.apr_high,
                        "n": figure.n,
                        "status": notes(row)[0],
                        "text": figures.with_interval(figure.apr, figure.apr_low, figure.apr_high).strip(),
                    }
                )
    columns = ["model", "slice", "apr", "low", "high", "n", "status", "text"]
    return pd.DataFrame(lines, columns=columns)
