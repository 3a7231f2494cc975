"""Names for things that share one: as short as they can be while every one differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from urllib.parse import urlsplit

from vivace_methods.spelling import Part, SpellingError, parse, write

HEARING = {"passed": "hears", "failed": "failed the hearing check", "undecided": "hearing undecided"}
"""How a hearing check came out → its words, on every board."""
EAR_CHECKED = "ear checked"
"""Those of a cascade that passed: its ear was asked, and not its model."""


def hearing_text(outcome: str | None, is_cascade: bool) -> str:
    """A hearing check's outcome in words; empty where there is nothing to tell."""
    return EAR_CHECKED if is_cascade and outcome == "passed" else HEARING.get(outcome or "", "")


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


def apart(settings: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Of the settings of things that share a name, those that are not alike in all; what is not set is `default`."""
    keys = dict.fromkeys(key for one in settings for key in one)
    differing = [key for key in keys if len({one.get(key) for one in settings}) > 1]
    return [{key: one.get(key, "default") for key in differing} for one in settings]


def short_arms(names: Sequence[str]) -> list[str]:
    """Names of arms with as little of their folders as tells these apart: `teal:fit` of `teal:/a/b/fit`.

    Args:
        names: as they were measured, perhaps with `#2` after what a person wrote.
    """
    parsed = [_parts(name) for name in names]
    folders = {part.folder for parts, _ in parsed for part in parts if part.folder is not None}
    tails = _tails({folder for folder in folders if len(PurePath(folder).parts) > 1})
    return [
        name
        if not parts
        else write(replace(part, folder=tails.get(part.folder or "", part.folder)) for part in parts) + again
        for name, (parts, again) in zip(names, parsed, strict=True)
    ]


def _parts(name: str) -> tuple[tuple[Part, ...], str]:
    written, again, number = name.rpartition(" #")
    if not (again and number.isdigit()):
        written, again, number = name, "", ""
    try:
        return parse(written), again + number
    except SpellingError:  # a name that was given by hand
        return (), ""


def _tails(folders: set[str]) -> dict[str, str]:
    """Folder → its last parts, as many as no other folder ends with."""
    longest = max((len(PurePath(folder).parts) for folder in folders), default=0)
    tails: dict[str, str] = {}
    for length in range(1, longest + 1):
        ends = {folder: str(PurePath(*PurePath(folder).parts[-length:])) for folder in folders}
        told = Counter(ends.values())
        for folder, end in ends.items():
            if told[end] == 1:
                tails.setdefault(folder, end)
    return tails


def settings_text(settings: Mapping[str, str]) -> str:
    """Settings as people read them: `temperature=0.2, server=http://…`."""
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def bare_address(address: str) -> str:
    """An address without what may be a password or a key in it: no user, no query, no fragment."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "(an address that cannot be read)"
    shown = f"[{host}]" if ":" in host else host
    return parts._replace(netloc=shown + (f":{port}" if port else ""), query="", fragment="").geturl()
