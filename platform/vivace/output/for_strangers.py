"""What messages say to those who do not run the installation: no key, no folder of it, no address behind it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from vivace.output.secrets import masked

_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>()\[\]]+", re.IGNORECASE)
_PATH = re.compile(r"(?<![\w:/.])(/[\w.@+-]+){2,}/")


def told(text: str, home: Path) -> str:
    """A message as strangers may read it: without keys, paths of this machine, and addresses behind it.

    Args:
        text: what was said to the operator.
        home: the folder of everything local.
    """
    return teller(home)(text)


def teller(home: Path) -> Callable[[str], str]:
    """The same of many messages, for which the folder is looked up once."""
    folders = sorted({home, home.absolute(), home.resolve()}, key=str, reverse=True)
    ours = [re.compile(re.escape(str(folder)) + r"(/[^\s'\"]*/)?/?") for folder in folders if len(str(folder)) > 1]

    def tell(text: str) -> str:
        text = _ADDRESS.sub("[address]", text)
        for folder in ours:
            text = folder.sub("", text)
        return masked(_PATH.sub("", text))

    return tell
