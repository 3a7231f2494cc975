"""Reading a judge's answer: one JSON object with an explanation and a boolean, or nothing at all."""

from __future__ import annotations

import re
from typing import Any

from vivace_rubrics.criteria import Unscored, Verdict
from vivace_rubrics.json_text import parse_report
from vivace_rubrics.texts import is_blank, without_thoughts

PARSER_VERSION = "2"
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


def parse_verdict(answer: str) -> Verdict:
    """The verdict in a judge's answer.

    The answer may be one JSON object, bare or in one Markdown fence, with a string `explanation` and a
    boolean `criteria_met`; what the judge thought aloud before it is not read. Anything else (prose around it, a
    string "true", a missing or doubled field, two objects, a list, null, broken JSON) is unscored: a guess here
    would move a score.
    """
    text = answer.strip().removeprefix("\ufeff").strip()
    if not text.startswith(("{", "`", "~")):  # an explanation may quote what marks the end of a thought
        text = without_thoughts(text)
    if is_blank(text):
        return Verdict(None, "The judge answered nothing.", Unscored.EMPTY)
    if len(text) > ANSWER_LIMIT:
        return Verdict(None, f"The judge's answer has {len(text):,} characters.", Unscored.TOO_LONG)
    fenced = _FENCED.fullmatch(text)
    try:
        value = parse_report(fenced.group(2) if fenced else text)
    except ValueError as error:
        return _unreadable(f"it is not one JSON object ({error})", text)
    if not isinstance(value, dict):
        return _unreadable("it is not a JSON object", text)
    if not isinstance(value.get("criteria_met"), bool):
        return _unreadable('it has no boolean "criteria_met"', text)
    if not isinstance(value.get("explanation"), str):
        return _unreadable('it has no string "explanation"', text)
    return Verdict(value["criteria_met"], value["explanation"])


def _unreadable(why: str, text: str) -> Verdict:
    shown = text if len(text) <= 300 else text[:300] + "…"
    return Verdict(None, f"The judge's answer cannot be read: {why}: {shown}", Unscored.UNREADABLE)
