"""Paths as people write them: a home folder by its sign, and any other character for what it is."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

_HOMES = re.compile(r"(?:^|(?<=[:='\"]))~[\w.-]*(?=/|$)")
"""The sign of a home folder at the start of a path: also behind an adapter, a setting's name, a quotation mark."""


def with_homes(text: str) -> str:
    """A path, or what has one in it (`replay:~/a.jsonl`, `gsm8k(path=~/b)`), with home folders written out.

    A shell does this only at the beginning of a word: not in `--home=~/runs`, nor in a file of settings.
    """
    return _HOMES.sub(lambda found: os.path.expanduser(found[0]), text)  # noqa: PTH111 -- Path refuses strangers' homes


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file, whatever characters are in its path."""
    return f"sqlite:///{quote(str(path.absolute()), safe='/')}"
