"""Our own checks on what files of other tools say of themselves: dates, settings, and how much there is of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from vivace.errors import UsageError
from vivace.output.printable import json_text

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
"""Before it there was no such evaluation."""
CLOCKS_DIFFER = timedelta(days=1)
"""Clocks and time zones left out of a date: so far ahead of ours one may lie."""
MOST_VALUES = 10_000_000
"""Values of one JSON text; as Python's objects they take some hundred times their bytes."""
LONGEST_SETTING = 500
"""Characters of a setting; longer ones (prompts, templates) are cut."""
MOST_SETTINGS = 100


def moment(value: Any, what: str) -> datetime:
    """A point in time: ISO 8601, or seconds since 1970; without a zone it is UTC.

    Args:
        value: as the file has it.
        what: what a message calls it.

    Raises:
        UsageError: it is none, lies before 2000 or in the future.
    """
    try:
        found = _moment(value)
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"{what} is {value!r:.60}, and none in ISO 8601.") from error
    if not EARLIEST <= found <= datetime.now(UTC) + CLOCKS_DIFFER:
        raise UsageError(f"{what} is {value!r:.60}: no evaluation can be of that day.")
    return found


def _moment(value: Any) -> datetime:
    if isinstance(value, bool) or not isinstance(value, int | float | str | date):
        raise ValueError("no date")
    if isinstance(value, int | float):
        if not math.isfinite(value):
            raise ValueError("no number")
        return datetime.fromtimestamp(value, UTC)
    found = datetime.fromisoformat(str(value))
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def bounded(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as texts, those cut that are longer than a board or a person can show."""
    texts = {
        str(key)[:LONGEST_SETTING]: value if isinstance(value, str) else json_text(value)
        for key, value in list(settings.items())[:MOST_SETTINGS]
    }
    return {
        key: text if len(text) <= LONGEST_SETTING else text[: LONGEST_SETTING - 1] + "…"
        for key, text in texts.items()
    }


def check_size(content: bytes) -> None:
    """See that a JSON text holds no more values than can be taken into memory.

    Raises:
        ValueError: it does, to stand in brackets.
    """
    if sum(content.count(sign) for sign in (b",", b"[", b"{")) > MOST_VALUES:
        raise ValueError(f"it holds more than {MOST_VALUES:,} values")
