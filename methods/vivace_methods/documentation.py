"""What the docstring of a method or task says: what it is, and what each of its settings means."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, dataclass, fields
from typing import Any

from vivace_methods.spelling import described, setting_types

_ATTRIBUTES = re.compile(r"^Attributes:\n((?:    .*\n|\n)*)", re.MULTILINE)
_ATTRIBUTE = re.compile(r"^    (\w+): ((?:.*\n)(?:        .*\n|\n)*)", re.MULTILINE)


@dataclass(frozen=True)
class Setting:
    """One setting, as it is shown to a person.

    Attributes:
        name: as it is written.
        default: None also where there is none.
        kind: what it may be, in words.
        meaning: in a sentence or two; empty where nothing is said.
    """

    name: str
    default: Any
    kind: str
    meaning: str


@dataclass(frozen=True)
class Documentation:
    """What a method or task is.

    Attributes:
        summary: its first line.
        paragraphs: the others, a line each, without what is said of the settings.
        settings: in their order.
    """

    summary: str
    paragraphs: tuple[str, ...]
    settings: tuple[Setting, ...]


def documentation_of(kind: type) -> Documentation:
    """What the docstring of a dataclass of settings says, and those of the classes that its settings come from."""
    text = _ATTRIBUTES.sub("", f"{inspect.getdoc(kind) or ''}\n")
    summary, *paragraphs = [_one_line(part) for part in re.split(r"\n\s*\n", text.strip())]
    types, meanings = setting_types(kind), _meanings(kind)
    settings = [
        Setting(
            each.name,
            None if each.default is MISSING else each.default,
            described(types[each.name]),
            meanings.get(each.name, ""),
        )
        for each in fields(kind)
    ]
    return Documentation(summary, tuple(paragraphs), tuple(settings))


def _meanings(kind: type) -> dict[str, str]:
    meanings: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        said = _ATTRIBUTES.search(f"{inspect.cleandoc(each.__dict__.get('__doc__') or '')}\n")
        if said is not None:
            meanings |= {name: _one_line(meaning) for name, meaning in _ATTRIBUTE.findall(said[1])}
    return meanings


def _one_line(text: str) -> str:
    return " ".join(text.split())
