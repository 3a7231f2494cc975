"""Text from outside as it may be printed: nothing in it moves a cursor, turns words round, or is computed."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from typing import Any

_CONTROL = "\x00-\x08\x0b-\x1f\x7f-\x9f"
"""C0 without tab and line feed, and C1: among them what begins a terminal's commands (ESC, CSI, OSC)."""
_TURNING = "\u202a-\u202e\u2066-\u2069"
"""Unicode's embeddings, overrides and isolates, which show words in another order than they stand in."""
_BREAKING = "\u2028\u2029"
_HALVES = "\ud800-\udfff"
_NO_CHARACTERS = "\ufffe\uffff"
"""What XML cannot hold besides, and no text has a use for."""
_UNPRINTABLE = re.compile(f"[{_CONTROL}{_TURNING}{_BREAKING}{_HALVES}{_NO_CHARACTERS}]")
_RAW_IN_JSON = re.compile(f"[\x7f-\x9f{_TURNING}{_BREAKING}{_HALVES}]")
_COMPUTED = re.compile(r"\s*[=+\-@＝＋－＠]|\t|\n")
"""How a cell begins that a spreadsheet takes for a formula (https://owasp.org/www-community/attacks/CSV_Injection)."""
_NUMBER = re.compile(r"[+-]?(\d[\d,]*\.?\d*|\.\d+)([eE][+-]?\d+)?\s*%?(\s*\[[+\-−]?[\d.,]+, [+\-−]?[\d.,]+\])?")
"""Also with its interval."""


def printable(text: str) -> str:
    """Text for a terminal or a page: each character that would command it is shown as a picture of itself.

    The length stays the same but for Windows' line ends, which become plain ones.
    """
    return _UNPRINTABLE.sub(_picture, text.replace("\r\n", "\n"))


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"


def json_text(value: Any, *, indent: int | None = None) -> str:
    """A value as JSON in UTF-8, with everything escaped that could command a terminal; nothing is lost.

    Numbers that JSON has no word for are null, as everything that is not known.
    """
    text = json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return _RAW_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cell(value: Any) -> Any:
    """A value for a table that is opened in a spreadsheet: a text that it would compute begins with an apostrophe."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if _COMPUTED.match(text) and not _NUMBER.fullmatch(text) else text


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV with a heading line; empty for no rows."""
    if not rows:
        return ""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([cell(column) for column in columns])
    writer.writerows([cell(row.get(column)) for column in columns] for row in rows)
    return buffer.getvalue()
