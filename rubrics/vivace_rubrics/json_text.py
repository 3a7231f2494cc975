"""JSON from outside, read in bounded time and memory: what can be read can also be walked through and written."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

DEEPEST = 100
"""Levels of lists and objects in each other. Honest texts have a few; a thousand end Python's own functions."""


def parse_json(text: str | bytes, *, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The value of a JSON text.

    Args:
        text: the text, or its bytes in UTF-8; a byte order mark before it is left out.
        object_pairs_hook: what makes a value of an object's fields, as for `json.loads`.

    Raises:
        ValueError: it is no JSON, not UTF-8, nested too deep, or holds a number too long to be read; the message
            says which, to stand in brackets.
    """
    if isinstance(text, bytes):
        text = text.decode()
    text = text.removeprefix("\ufeff")
    try:
        value = json.loads(text, object_pairs_hook=object_pairs_hook)
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
