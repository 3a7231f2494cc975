"""Whose files `vivace import --from` reads."""

from __future__ import annotations

from enum import StrEnum


class Form(StrEnum):
    """A form of results that other tools write."""

    LM_EVAL = "lm-eval"
    INSPECT = "inspect"
    EVERY_EVAL_EVER = "every-eval-ever"
    EVAL_RESULTS = "eval-results"
    ITEMS = "items"
