"""What others report, as far as it can be so: counts, times, costs and names out of answers, headers and files.

A server, a file of replies or an adapter made elsewhere can report anything. What is no count, no time, no cost or no
name is *not reported*, which is None: it is neither an error nor a number to calculate with, and whatever passes here
fits into both databases.
"""

from __future__ import annotations

import math
from typing import Any

from vivace_rubrics.texts import is_blank, storable

MOST_TOKENS = 1_000_000_000
"""No call takes so many; within the integers of both databases, and so are sums over all calls."""
MOST_SECONDS = 1_000_000.0
"""Eleven days."""
MOST_DOLLARS = 10_000.0
LONGEST_NAME = 200
"""Characters of a model's name or a reason to finish; the rest is cut off."""


def count(value: Any) -> int | None:
    """A number of tokens."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS else None


def seconds(value: Any) -> float | None:
    """A length of time."""
    return _within(value, MOST_SECONDS)


def dollars(value: Any) -> float | None:
    """What one call costs, in US dollars."""
    return _within(value, MOST_DOLLARS)


def share(value: Any) -> float | None:
    """A part of a whole, from 0 to 1."""
    return _within(value, 1.0)


def name(value: Any) -> str | None:
    """What a server calls a model, or why it says that it has stopped."""
    if not isinstance(value, str) or is_blank(value):
        return None
    return storable(value[:LONGEST_NAME])


def text(value: Any) -> str | None:
    """Any text, as the store can hold it."""
    return storable(value) if isinstance(value, str) else None


def _within(value: Any, most: float) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
        return None  # NaN is within no bounds, and an integer of any length can be compared
    return math.fabs(value)
