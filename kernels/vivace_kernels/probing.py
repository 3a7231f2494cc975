"""Which of several ways to one result is the fastest on this machine, found by trying all of them in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

ROUNDS = 7
"""How often each way is timed, in turns; once before to warm up."""
ENOUGH_SECONDS = 1.0
"""After so long no further round begins, but for the first three."""
FASTER = 0.97
"""Of the usual way's time; one that takes more is not faster beyond what a machine's unrest can be."""


@dataclass(frozen=True)
class Probed:
    """What trying several ways has shown.

    Attributes:
        fastest: the name of the way that is taken.
        shares: name of each way → its time over the usual one's, the median over rounds.
    """

    fastest: str
    shares: Mapping[str, float]


def probe_ways(ways: Mapping[str, Callable[[int], object]]) -> Probed:
    """Time ways against each other for a moment, as this machine is now, and take the fastest.

    The first one is the usual: it stays unless another is faster for certain. A machine that is busy slows ways
    that wait for several threads more than others, so the median counts and not the best time.

    Args:
        ways: name → what is timed; it is told the number of the round, so as to meet other memory in each.
    """
    names = list(ways)
    times: dict[str, list[float]] = {name: [] for name in names}
    begun = time.perf_counter()
    for turn in range(-1, ROUNDS):
        if turn >= min(3, ROUNDS) and time.perf_counter() - begun > ENOUGH_SECONDS:
            break
        # Each way follows each other one in some round: what one leaves behind, another has to bear.
        for name in names[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            ways[name](turn)
            if turn >= 0:
                times[name].append(time.perf_counter() - start)
    usual = times[names[0]]
    shares = {
        name: statistics.median(taken / reference for taken, reference in zip(its, usual, strict=True))
        for name, its in times.items()
    }
    best = min(names, key=lambda name: shares[name])
    return Probed(best if shares[best] <= FASTER else names[0], shares)
