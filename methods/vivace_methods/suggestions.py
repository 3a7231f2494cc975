"""What a person may have meant by a name that there is not."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

ALIKE = 0.6
"""Of `difflib`'s ratio: two letters in turn or one missing in a word of five."""
LONGEST = 60
"""Characters of a name that is compared; nothing that has a name has a longer one."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question in brackets, to stand behind the unknown name in a message; empty where nothing is like it."""
    by_form = {_form(each): each for each in known}
    found = get_close_matches(_form(name[:LONGEST]), by_form, n=1, cutoff=ALIKE)
    return f" (did you mean '{by_form[found[0]]}'?)" if found else ""


def _form(name: str) -> str:
    return name.lower().replace("_", "-")
