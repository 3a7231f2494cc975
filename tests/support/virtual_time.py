"""An event loop whose time passes only while nothing can be done: an hour of waiting takes no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class _PatientSelector(selectors.DefaultSelector):
    """Waits for nothing, and notes for how long it was told to wait."""

    waited_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        """What is ready now."""
        if timeout is None:
            raise AssertionError("everything waits for ever")
        self.waited_s += max(0.0, timeout)
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop with a clock of its own, for coroutines that wait for nothing but each other and that clock."""

    def __init__(self) -> None:
        self._patient = _PatientSelector()
        super().__init__(self._patient)

    def time(self) -> float:
        """Seconds from the loop's beginning."""
        return self._patient.waited_s


def run_in_virtual_time(work: Coroutine[Any, Any, Result]) -> Result:
    """Run to the end without waiting; a deadlock is an error."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)
