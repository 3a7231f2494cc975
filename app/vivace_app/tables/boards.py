"""The leaderboard's rows as tables and labels, without Streamlit, so that they can be tested alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from vivace.analysis.breakdown import BreakdownRow
from vivace.analysis.gaps import Gap
from vivace.analysis.published import PublishedFigure
from vivace.output.short_names import EAR_CHECKED, HEARING, distinct, hearing_text, settings_text, with_method
from vivace.store.queries.board import BoardRow
from vivace_app import figures

NIGHTLY, WORSE_NOW = "regression job", "job worse now"
NOTES = (
    "part", "incomplete", "official", "unofficial", "imported", "transcript", "spoken", "cascade", *HEARING.values(),
    EAR_CHECKED, "submitted times", NIGHTLY, WORSE_NOW, "private", "retracted",
)  # fmt: skip
"""Every badge a row can carry."""


@dataclass(frozen=True)
class RankedTogether:
    """Rows that may be ranked together: the same data, judged by the same judge with as many votes."""

    rows: list[BoardRow]
    """The retracted ones last; they have no rank."""

    @property
    def data(self) -> str:
        """The data's name and revision."""
        return data_key(self.rows[0])

    @property
    def judge(self) -> str:
        """The judge's name and fingerprint, and how many votes it gave, if several."""
        first = self.rows[0]
        return judge_label(first) + (f" · {first.votes} votes" if first.votes > 1 else "")

    @property
    def axes(self) -> list[str]:
        """The axes that any row has figures for, in a fixed order."""
        return sorted({axis for row in self.rows for axis in row.axes})


def data_key(row: BoardRow) -> str:
    """What tells one set of conversations from another, in the URL and in the filter: name and revision."""
    return f"{row.data}@{row.data_revision[:8]}"


def group_key(group: RankedTogether) -> str:
    """What tells one table from another, in the URL and as a widget's key."""
    first = group.rows[0]
    votes = f"/{first.votes}" if first.votes > 1 else ""
    return f"{first.track}/{data_key(first)}/{judge_key(first)}{votes}"


def judge_key(row: BoardRow) -> str:
    """The judge's short fingerprint, as the URL names it."""
    return row.judge_fingerprint[:8]


def judge_label(row: BoardRow) -> str:
    """The judge's name and short fingerprint."""
    return f"{row.judge} · {judge_key(row)}"


def groups(rows: Iterable[BoardRow]) -> list[RankedTogether]:
    """Rows that may be ranked together, each in the store's order; the largest group first."""
    found: dict[tuple[str, str, str, str, int], list[BoardRow]] = {}
    for row in rows:
        key = (row.track, row.data, row.data_revision, row.judge_fingerprint, row.votes)
        found.setdefault(key, []).append(row)
    result = [RankedTogether(sorted(group, key=lambda row: row.retracted is not None)) for group in found.values()]
    return sorted(result, key=lambda group: -len(group.rows))


def notes(row: BoardRow) -> list[str]:
    """The badges of a row, its standing first."""
    found = ["retracted" if row.retracted is not None else "official" if row.official else "unofficial"]
    if row.standing in ("part", "incomplete"):
        found.append(row.standing)
    if row.imported:
        found.append("imported")
    if row.input_form == "transcript":
        found.append("transcript")
    if row.output_form == "audio":
        found.append("spoken")
    if row.is_cascade:
        found.append("cascade")
    if words := hearing_text(row.hearing, row.is_cascade):
        found.append(words)
    if row.times == "submitted" and (row.ttft_median_s, row.total_median_s) != (None, None):
        found.append("submitted times")
    if row.job is not None:
        found.append(WORSE_NOW if row.job.endswith("worse now") else NIGHTLY)
    if row.private:
        found.append("private")
    return found


def labels(rows: Sequence[BoardRow], names: Sequence[str] | None = None) -> list[str]:
    """A name for each row that no other row has: the model's, and what tells them apart where needed.

    Args:
        rows: the rows.
        names: what to begin with in place of the models' names.
    """
    return distinct(
        list(names) if names is not None else [row.model for row in rows],
        (
            [row.input_form for row in rows],
            [f"{row.output_form} output" for row in rows],
            [f"{row.repeats} repeats" for row in rows],
            [row.method or "no method" for row in rows],
            [settings_text(row.apart) for row in rows],
            [judge_label(row) for row in rows],
            [f"run {row.short_run}" for row in rows],
            [row.judging for row in rows],
        ),
    )


def best_open(group: RankedTogether) -> list[BoardRow]:
    """The ranked rows whose weights are open, as the models' cards say: those of the best rank among them."""
    found = [row for row in group.rows if row.open_weights and row.rank is not None]
    return [row for row in found if row.rank == min(one.rank for one in found if one.rank is not None)]


def _weights(row: BoardRow) -> str | None:
    return None if row.open_weights is None else "open" if row.open_weights else "closed"


@dataclass(frozen=True)
class Filter:
    """One thing that rows can be chosen by.

    Attributes:
        name: in the URL.
        label: of the box.
        of: a row's value; None where it is not known.
        words: value → how people read it.
    """

    name: str
    label: str
    of: Callable[[BoardRow], str | None]
    words: Mapping[str, str] = field(default_factory=dict)


FILTERS = (
    Filter("input", "Heard or read", lambda row: row.input_form,
           {"transcript": "Reads transcripts", "audio-16k": "Hears audio (16 kHz)",
            "audio-original": "Hears audio (original)"}),
    Filter("output", "Answers in", lambda row: row.output_form, {"text": "Text", "audio": "Speech"}),
    Filter("system", "System", lambda row: "cascade" if row.is_cascade else "end-to-end",
           {"cascade": "Cascade of ear and model", "end-to-end": "End to end"}),
    Filter("weights", "Weights", _weights,
           {"open": "Open weights", "closed": "Closed weights"}),
    Filter("organisation", "Organisation", lambda row: row.organisation),
    Filter("size", "Size", lambda row: row.size),
)  # fmt: skip
"""What rows can be chosen by besides data and judge."""
AGES = {"7": "Last 7 days", "30": "Last 30 days", "365": "Last year"}
"""Days → words, of what rows may be limited to by their date."""


def choices(rows: Sequence[BoardRow], wanted: Filter) -> dict[str, str]:
    """The values that rows have of a filter, as people read them."""
    found = sorted({value for row in rows if (value := wanted.of(row)) is not None})
    return {value: wanted.words.get(value, value) for value in found}


def table(group: RankedTogether, given: Mapping[str, Sequence[str]] | None = None) -> pd.DataFrame:
    """A group as the board's table, one line per row of the group in its order, without columns that say nothing.

    Args:
        group: the rows.
        given: run → the labels that people gave it.
    """
    frame = pd.DataFrame([
        {**_line(row, group.axes), "Labels": ", ".join((given or {}).get(row.run, ()))} for row in group.rows
    ])  # fmt: skip
    used = [
        name for name in frame.columns
        if name in _ALWAYS or any(value not in (None, "", 0) and str(value).strip() != figures.ABSENT
                                  and value == value for value in frame[name])
    ]  # fmt: skip
    if all(row.repeats == 1 for row in group.rows):
        used.remove("Repeats")
    return frame[used]


_ALWAYS = ("Rank", "Model", "APR", "ARS", "Coverage", "n", "Notes", "Date", "Run", "Repeats")


def _line(row: BoardRow, axes: Sequence[str]) -> dict[str, object]:
    """What stands in a row of the board: the score before what there is to note."""
    all_axes, ear = row.figures, row.ear
    by_axis = {}
    for axis in axes:
        found = row.axes.get(axis)
        by_axis[figures.axis_name(axis)] = figures.with_count(found.apr, found.n) if found else figures.ABSENT
    return {
        "Rank": figures.ABSENT if row.rank is None else figures.rank(row.rank, row.tied),
        "Model": row.model,
        "Method": row.method or figures.ABSENT,
        "Settings": settings_text(row.apart),
        "APR": figures.with_interval(all_axes.apr, all_axes.apr_low, all_axes.apr_high),
        "ARS": figures.with_interval(all_axes.ars, all_axes.ars_low, all_axes.ars_high),
        "WER": figures.ABSENT if ear is None else figures.with_interval(ear.word_error_rate, ear.low, ear.high),
        **by_axis,
        "Coverage": figures.with_range(all_axes.coverage, all_axes.apr_min, all_axes.apr_max)
        if row.standing != "part"
        else figures.of_a_part(all_axes.n, row.conversations, row.whole_apr_min, row.whole_apr_max),
        "n": all_axes.n,
        "Repeats": row.repeats,
        "TTFT": row.ttft_median_s,
        "Total": row.total_median_s,
        "Kept": row.kept_share,
        "Cost": row.cost_usd,
        "Unpriced": row.unpriced_calls,
        "Notes": notes(row),
        "Organisation": row.organisation,
        "Size": row.size,
        "Weights": _weights(row),
        "Licence": row.licence,
        "Date": row.date,
        "Run": row.short_run,
    }


AGAINST = {
    "ttft": "Time to first token, in seconds",
    "total": "Time to the end of the reply, in seconds",
    "price": "Cost of a conversation, in dollars",
}
"""What quality is drawn against."""


def trade_off(group: RankedTogether, names: Sequence[str], against: str) -> pd.DataFrame:
    """Pass rates beside what they take, for the plot, of the rows of which both are known.

    Args:
        group: the rows; retracted ones are left out.
        names: a distinct name for each row.
        against: a key of `AGAINST`.
    """
    lines = []
    for name, row in zip(names, group.rows, strict=True):
        value, (low, high) = _taken(row, against)
        apr = row.figures
        if value is None or apr.apr is None or row.retracted is not None:
            continue
        lines.append(
            {
                "model": name,
                "taken": value,
                "taken low": value if low is None else low,
                "taken high": value if high is None else high,
                "apr": apr.apr,
                "low": apr.apr if apr.apr_low is None else apr.apr_low,
                "high": apr.apr if apr.apr_high is None else apr.apr_high,
                "standing": row.standing if row.standing != "ranked" else notes(row)[0],
                "times": row.times,
            }
        )
    return pd.DataFrame(lines)


def _taken(row: BoardRow, against: str) -> tuple[float | None, tuple[float | None, float | None]]:
    if against == "price":
        replies = row.figures.n * row.repeats
        is_known = row.cost_usd is not None and not row.unpriced_calls and replies
        return (row.cost_usd / replies if is_known and row.cost_usd is not None else None), row.price_interval
    if against == "ttft":
        return row.ttft_median_s, row.ttft_interval
    return row.total_median_s, row.total_interval


def own_and_published(
    rows: Sequence[BoardRow], names: Sequence[str], found: Sequence[PublishedFigure]
) -> pd.DataFrame:
    """Pass rates of own rows and of figures that others published, for one picture: marked, and without ranks.

    Args:
        rows: of the board; those over the whole of a set, and not retracted, are drawn.
        names: a distinct name for each row.
        found: what others published.
    """
    own = [
        {"model": f"{name} ({data_key(row)})", "apr": row.figures.apr, "low": row.figures.apr_low,
         "high": row.figures.apr_high, "from": "run here"}
        for name, row in zip(names, rows, strict=True)
        if row.standing == "ranked" and row.figures.apr is not None
    ]  # fmt: skip
    others = [
        {"model": f"{figure.model} ({figure.output})", "apr": figure.apr,
         "low": None if figure.plus_minus is None else figure.apr - figure.plus_minus,
         "high": None if figure.plus_minus is None else figure.apr + figure.plus_minus,
         "from": "published, not run here"}
        for figure in found
    ]  # fmt: skip
    frame = pd.DataFrame([*own, *others], columns=["model", "apr", "low", "high", "from"])
    return frame.assign(low=frame["low"].fillna(frame["apr"]), high=frame["high"].fillna(frame["apr"]))


def accounts(group: RankedTogether, names: Sequence[str]) -> pd.DataFrame:
    """What each row's calls took, one line per row and stage; failed calls included.

    Args:
        group: the rows.
        names: a distinct name for each row.
    """
    lines = [
        {
            "Model": name,
            "Stage": stage,
            "Calls": calls.calls,
            "Failed": calls.failed,
            "Cached": calls.cached,
            "Input tokens": calls.input_tokens,
            "of them audio": calls.input_audio_tokens,
            "Output tokens": calls.output_tokens,
            "Audio sent": None if calls.audio_seconds is None else calls.audio_seconds / 60,
            "Cost": calls.cost_usd,
            "Unpriced": calls.unpriced,
        }
        for name, row in zip(names, group.rows, strict=True)
        for stage, calls in row.accounting.items()
    ]
    return pd.DataFrame(lines)


def published(found: Sequence[PublishedFigure]) -> pd.DataFrame:
    """Figures that others published, as a table without ranks and without columns that say nothing."""
    axes = sorted({axis for figure in found for axis in figure.axes})
    frame = pd.DataFrame(
        [
            {
                "Model": figure.model,
                "Answers in": figure.output,
                "APR": figures.with_half_width(figure.apr, figure.plus_minus),
                "ARS": figures.with_half_width(figure.ars, None),
                **{figures.axis_name(axis): figures.with_half_width(figure.axes.get(axis), None) for axis in axes},
                "Notes": ["published, not run here"],
                "Date": figure.date,
                "Source": figure.source,
            }
            for figure in found
        ]
    )
    return frame if any(figure.ars is not None for figure in found) else frame.drop(columns="ARS")


def parts(rows: dict[str, Sequence[BreakdownRow]]) -> pd.DataFrame:
    """Scores in parts, for the curve and its table: one line per system and part; rates are fractions.

    Args:
        rows: a distinct name of each system → its parts in their order.
    """
    lines = [
        {
            "model": name,
            "part": figures.part_name(row.slice, row.by),
            "place": row.place,
            "apr": row.apr,
            "apr low": row.apr_low,
            "apr high": row.apr_high,
            "ars": row.ars,
            "ars low": row.ars_low,
            "ars high": row.ars_high,
            "conversations": row.conversations,
        }
        for name, found in rows.items()
        for row in found
    ]
    return pd.DataFrame(lines)


def gap_table(found: Sequence[Gap]) -> pd.DataFrame:
    """Gaps side by side, one line each."""
    return pd.DataFrame(
        [
            {
                "Model": with_method(gap.audio.model, gap.audio.method),
                "Gap": gap.kind,
                "Score": gap.metric.upper(),
                "Text": figures.with_interval(gap.difference.a, None, None),
                "Audio": figures.with_interval(gap.difference.b, None, None),
                "Audio − text": figures.points(gap.difference.value, gap.difference.low, gap.difference.high),
                "p": gap.difference.p_value,
                "p, family": gap.p_adjusted,
                "Better / worse": f"{gap.difference.gained} / {gap.difference.lost}",
                "n": gap.difference.n,
                "Data": f"{gap.audio.data}@{gap.audio.data_revision[:8]}",
                "Judge": f"{gap.audio.judge} · {gap.audio.judge_fingerprint[:8]}",
            }
            for gap in found
        ]
    )


def fallen_table(found: Sequence[Gap]) -> pd.DataFrame:
    """The criteria that cascades lost to their ears, one line each."""
    lost = {(gap.audio.judging, gap.text.judging): gap for gap in found if gap.ear is not None}
    return pd.DataFrame(
        [
            {
                "Model": with_method(gap.audio.model, gap.audio.method),
                "Conversation": criterion.conversation,
                "Criterion": criterion.text,
                "Misheard": "; ".join(f"{words.said or '–'} → {words.heard or '–'}" for words in criterion.misheard),
            }
            for gap in lost.values()
            if gap.ear is not None
            for criterion in gap.ear.fell
        ]
    )


def intervals(group: RankedTogether, names: Sequence[str]) -> pd.DataFrame:
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
