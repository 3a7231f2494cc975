"""How many requests somebody may make: a bucket for each, which fills steadily and gives one with every request."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

MOST_KEPT = 10_000
"""Buckets that are kept; that of whoever has not come for longest goes first, and was full again by then."""


class Rates:
    """Buckets by name.

    Args:
        per_minute: requests of one name; so many may also come at once.
        clock: in seconds, and never set back.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = max(1.0, per_minute)
        self._per_second = per_minute / 60
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, name: str) -> float:
        """Take one from a bucket: 0 where there was one, else the seconds after which there will be.

        Args:
            name: of the bucket.
        """
        with self._lock:
            now = self._clock()
            left, at = self._buckets.pop(name, (self._most, now))
            left = min(self._most, left + (now - at) * self._per_second)
            if left < 1:
                self._buckets[name] = (left, now)
                return (1 - left) / self._per_second
            self._buckets[name] = (left - 1, now)
            while len(self._buckets) > MOST_KEPT:
                self._buckets.popitem(last=False)
            return 0.0
