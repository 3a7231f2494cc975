"""JSON from outside, read in bounded time and memory: what can be read can also be walked through and written."""

from __future__ import annotations

import json
from typing import Any

DEEPEST = 100
"""Levels of lists and objects in each other. Honest texts have a few; a thousand end Python's own functions."""


LONGEST_INTEGER = 400
"""Digits, of which a report is read whole; Python itself reads no more than some thousands."""


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Args:
        text: the text, or its bytes in UTF-8; a byte order mark before it is left out.

    Raises:
        ValueError: it is no JSON, not UTF-8, nested too deep, or holds a number too long to be read; the message
            says which, to stand in brackets.
    """
    return _read(_PLAIN, text)


def parse_report(text: str | bytes) -> Any:
    """The value of a JSON text in which a machine reports what it did: a server's answer, a line of replies.

    It must not say two things at once, and no number in it, however long, keeps the rest from being read.

    Args:
        text: as for `parse_json`.

    Raises:
        ValueError: it is no JSON, not UTF-8, nested too deep, or has an object with the same field twice.
    """
    return _read(_UNAMBIGUOUS, text)


def _read(decoder: json.JSONDecoder, text: str | bytes) -> Any:
    if isinstance(text, bytes):
        text = text.decode()
    text = text.removeprefix("\ufeff")
    try:
        value = decoder.decode(text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except ValueError as error:
        if "digits" in str(error):  # Python's own bound, with a hint meant for programmers
            raise ValueError("a number in it has too many digits") from None
        raise
    if text.count("[") + text.count("{") > DEEPEST:  # else it cannot be deeper
        check_depth(value)
    return value


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field stands twice")
    return fields


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= LONGEST_INTEGER else float(digits)


_PLAIN = json.JSONDecoder()
_UNAMBIGUOUS = json.JSONDecoder(object_pairs_hook=_fields, parse_int=_integer)


def check_depth(value: Any) -> None:
    """See that lists and objects in each other have at most `DEEPEST` levels.

    Raises:
        ValueError: they have more.
    """
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


_TOO_DEEP = f"it is nested deeper than {DEEPEST} levels"
