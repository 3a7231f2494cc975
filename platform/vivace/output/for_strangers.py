"""What messages say to those who do not run the installation: no key, no folder of it, no address behind it."""

from __future__ import annotations

import re
from pathlib import Path

from vivace.output.secrets import masked

_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s'\"<>()\[\]]+", re.IGNORECASE)


def told(text: str, home: Path) -> str:
    """A message as strangers may read it: without keys, paths of this machine, and addresses behind it.

    Args:
        text: what was said to the operator.
        home: the folder of everything local.
    """
    text = _ADDRESS.sub("[address]", text)
    for folder in sorted({home, home.absolute(), home.resolve()}, key=str, reverse=True):
        if len(str(folder)) > 1:
            text = re.sub(re.escape(str(folder)) + r"(/[^\s'\"]*/)?/?", "", text)
    return masked(re.sub(r"(?<![\w:/.])(/[\w.@+-]+){2,}/", "", text))
