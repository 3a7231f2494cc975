"""Names for things that share one: as short as they can be while every one differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

HEARING = {"passed": "hears", "failed": "failed the hearing check", "undecided": "hearing undecided"}
"""How a hearing check came out → its words, on every board."""


def with_method(model: str, method: str | None) -> str:
    """A model's name with the method that it decoded with, if any."""
    return model if method is None else f"{model} · {method}"


def distinct(names: Sequence[str], details: Iterable[Sequence[str]]) -> list[str]:
    """The names, with further details only where they tell some of them apart.

    Args:
        names: what to begin with.
        details: for each kind of detail, its text for every name; the last kind should tell all of them apart.
    """
    result = list(names)
    for kind in details:
        before = Counter(result)
        after = Counter(zip(result, kind, strict=True))
        result = [
            name if after[name, detail] == before[name] else f"{name} · {detail}"
            for name, detail in zip(result, kind, strict=True)
        ]
    return result
