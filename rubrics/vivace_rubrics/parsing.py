"""Reading a judge's answer: one JSON object with an explanation and a boolean, or nothing at all."""

from __future__ import annotations

import json
import re
from typing import Any

from vivace_rubrics.criteria import Unscored, Verdict

PARSER_VERSION = "1"
"""Part of a judge's fingerprint: it changes whenever an answer would be read differently."""

ANSWER_LIMIT = 100_000
"""Characters; a longer answer is not read."""

VERDICT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"explanation": {"type": "string"}, "criteria_met": {"type": "boolean"}},
    "required": ["explanation", "criteria_met"],
    "additionalProperties": False,
}
"""The JSON schema a judge is asked to answer in: the reason is written before the verdict."""

_FENCED = re.compile(r"(`{3,}|~{3,})[A-Za-z]*[ \t]*\r?\n(.*?)\r?\n?[ \t]*\1", re.DOTALL)


def storable(text: str) -> str:
    """The text without what no database takes: halves of characters and NUL become the replacement character.

    JSON can spell both, and servers that cut a stream in the middle of an emoji do; the two halves of one
    are joined again.
    """
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return joined.replace("\x00", "\ufffd")


def parse_verdict(answer: str) -> Verdict:
    """The verdict in a judge's answer.

    The answer may be one JSON object, bare or in one Markdown fence, with a string `explanation` and a
    boolean `criteria_met`. Anything else (prose around it, a string "true", a missing or doubled field,
    two objects, a list, null, broken JSON) is unscored: a guess here would move a score.
    """
    text = answer.strip().removeprefix("\ufeff").strip()
    if not text:
        return Verdict(None, "The judge answered nothing.", Unscored.EMPTY)
    if len(text) > ANSWER_LIMIT:
        return Verdict(None, f"The judge's answer has {len(text):,} characters.", Unscored.TOO_LONG)
    fenced = _FENCED.fullmatch(text)
    try:
        value = json.loads(fenced.group(2) if fenced else text, object_pairs_hook=_object_without_doubles)
    except (ValueError, RecursionError) as error:
        return _unreadable(f"it is not one JSON object ({error})", text)
    if not isinstance(value, dict):
        return _unreadable("it is not a JSON object", text)
    if not isinstance(value.get("criteria_met"), bool):
        return _unreadable('it has no boolean "criteria_met"', text)
    if not isinstance(value.get("explanation"), str):
        return _unreadable('it has no string "explanation"', text)
    return Verdict(value["criteria_met"], storable(value["explanation"]))


def _object_without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a field stands twice")
    return dict(pairs)


def _unreadable(why: str, text: str) -> Verdict:
    shown = text if len(text) <= 300 else text[:300] + "…"
    return Verdict(None, f"The judge's answer cannot be read: {why}: {shown}", Unscored.UNREADABLE)
