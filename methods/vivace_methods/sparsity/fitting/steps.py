"""Fitting in several parts, told as one piece of work: a bar over it goes on where the part before has ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping

OnStep = Callable[[int, int], None]
"""Told of the steps that are done and of all."""
STEPS = 1000
"""Of all parts together; a single part keeps its own."""


class Parts:
    """Parts of one piece of work, each with its own steps, which come one after the other.

    Args:
        on_step: told of the steps of the whole, whose number stays the same and which never go back.
        work: name of each part, in order → how much of it there is, in whatever unit; parts without any are left out.
    """

    def __init__(self, on_step: OnStep, work: Mapping[str, float]) -> None:
        self._on_step = on_step
        self._work = {name: much for name, much in work.items() if much > 0}

    def of(self, name: str) -> OnStep:
        """What a part tells its own steps."""
        if list(self._work) == [name]:
            return self._on_step
        before, whole = 0.0, sum(self._work.values())
        for other, much in self._work.items():
            if other == name:
                break
            before += much

        def tell(done: int, steps: int) -> None:
            share = (before + self._work.get(name, 0.0) * done / steps) / whole
            self._on_step(max(1, round(STEPS * share)), STEPS)

        return tell
