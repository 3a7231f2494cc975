"""How long another process has been silent, told so that setting a clock neither kills the living nor keeps the dead.

Signs of life are times of the clock that all processes share. Only at first sight is one held against that clock;
from then on this process counts by its own, which nobody sets, until the sign changes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime


@dataclass
class _Seen:
    sign: datetime
    given: float
    """When, on this process's own clock."""
    looked: float
    """When this process last looked for it."""


_seen: dict[str, _Seen] = {}


def silent_for(name: str, sign: datetime, time_now: datetime) -> float:
    """Seconds since a sign of life was given.

    Args:
        name: who gave it.
        sign: when, by the clock that all share.
        time_now: that clock now.
    """
    own, last = time.monotonic(), _seen.get(name)
    if last is None or last.sign != sign:
        age = max(0.0, (time_now - sign).total_seconds())
        if last is not None and sign > last.sign:
            age = min(age, own - last.looked)  # it has come since, however far the clock was set
        last = _seen[name] = _Seen(sign, own - age, own)
    last.looked = own
    return own - last.given
