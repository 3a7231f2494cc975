"""How figures and names are written on the screen; the only place where a rate becomes a percentage."""

from __future__ import annotations

import re

import pandas as pd

from vivace.output.printable import cell, printable
from vivace_rubrics.criteria import Axis

ABSENT = "–"
"""What stands where there is no figure."""

_ABSENT_IN_COLUMN = f"     {ABSENT}"
"""The same, padded so that it sorts below every figure."""


def span(low: float | None, high: float | None) -> str:
    """An interval of rates as "38–76", in percent; a dash where it is unknown."""
    return ABSENT if low is None or high is None else f"{100 * low:.0f}–{100 * high:.0f}"


def with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """A rate with its interval as "58.3 % [38–76]".

    Padded on the left, so that sorting the texts sorts the figures: browsers sort table cells as text.
    """
    if value is None:
        return _ABSENT_IN_COLUMN
    text = f"{100 * value:5.1f} %"
    return text if low is None or high is None else f"{text} [{span(low, high)}]"


def with_half_width(value: float | None, half: float | None) -> str:
    """A published rate as "54.65 % ± 4.57", padded like `with_interval`."""
    if value is None:
        return _ABSENT_IN_COLUMN
    return f"{100 * value:6.2f} %" + (f" ± {100 * half:.2f}" if half is not None else "")


def points(value: float, low: float | None, high: float | None) -> str:
    """A difference of rates in points with its interval, as "−4.2 [−7.9, −0.5]"."""
    text = _signed(value)
    return text if low is None or high is None else f"{text} [{_signed(low)}, {_signed(high)}]"


def _signed(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def part_name(name: str, by: str) -> str:
    """A part of the data as people read it: an axis, "4 turns", a span of seconds, a speaker."""
    if by == "turns":
        return f"{name} turns"
    return axis_name(name) if by == "axis" else name


def with_count(value: float | None, n: int) -> str:
    """A rate with the number of conversations behind it as "75 % (6)", padded like `with_interval`."""
    return _ABSENT_IN_COLUMN if value is None else f"{100 * value:3.0f} % ({n})"


def with_range(coverage: float | None, minimum: float | None, maximum: float | None) -> str:
    """Coverage as "100.0 %", or below that with where the pass rate could lie: "94.0 % (52–61)"."""
    if coverage is None:
        return _ABSENT_IN_COLUMN
    # 99.96 % must not read as complete.
    text = f"{min(100 * coverage, 99.9):5.1f} %" if coverage < 1 else "100.0 %"
    complete = coverage >= 1 or minimum is None or maximum is None
    return text if complete else f"{text} ({span(minimum, maximum)})"


def of_a_part(asked: int, whole: int | None, minimum: float | None, maximum: float | None) -> str:
    """How much of a set was asked, with where the pass rate of all of it could lie: "2 of 16 (12–100)"."""
    if whole is None:
        return f"{asked} of a larger set"
    return f"{asked} of {whole} ({span(minimum, maximum)})"


def seconds(value: float | None) -> str:
    """A duration as "0.41 s"; a dash where it was not measured."""
    return ABSENT if value is None else f"{value:.2f} s"


def axis_name(axis: str) -> str:
    """An axis as people read it: `INFERENCE_MEMORY` → "Inference Memory"; a set's own as it is named."""
    return axis.replace("_", " ").title() if axis in list(Axis) else axis


def track_name(track: str) -> str:
    """A track as people read it: `audio-multichallenge` → "Audio-Multichallenge"."""
    return track.replace("_", " ").title()


def rank(place: int, tied: bool) -> str:
    """A rank as "1", or "1=" where several share it."""
    return f"{place}=" if tied else str(place)


def reason(code: str | None) -> str:
    """A reason code as words: `content_filter` → "content filter"."""
    return printable(code or "no reason recorded").replace("_", " ")


def cells(frame: pd.DataFrame) -> pd.DataFrame:
    """A table whose texts from outside do no harm on the page, nor in a spreadsheet that opens its download."""
    return frame.map(lambda value: [cell(each) for each in value] if isinstance(value, list) else cell(value))


def literal(text: str, limit: int = 80) -> str:
    """Text from outside as inline code, the one Markdown form in which nothing else is interpreted.

    Backslashes would not do: Streamlit finds links and emoji names after the escapes are gone.
    """
    line = " ".join(printable(text).split()) or ABSENT
    if len(line) > limit:
        line = line[: limit - 1] + "…"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    gap = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{gap}{line}{gap}{fence}"
