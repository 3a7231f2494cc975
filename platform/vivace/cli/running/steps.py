"""Talk about work of many steps: a bar with the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vivace.cli.common import say

SAY_EVERY_S = 10.0


Tell = Callable[..., None]
"""To be called after each step with its number, from 1, with a few words on it, and with `steps` where the work knows
them."""


@contextmanager
def steps_of(name: str, steps: int | None) -> Iterator[Tell]:
    """Show how far a piece of work has come, while the context lasts.

    Args:
        name: of the work.
        steps: of all of it; None where the work itself says so with each step.

    Yields:
        As `Tell` says.
    """
    with steps_of_several() as started:
        yield started(name, steps)


@contextmanager
def steps_of_several() -> Iterator[Callable[[str, int | None], Tell]]:
    """Show how far pieces of work have come that go on at the same time, while the context lasts.

    Yields:
        To be called as `steps_of` is, when a piece begins.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

            def shown(name: str, steps: int | None) -> Tell:
                task = bars.add_task(name, total=steps)

                def show(step: int, words: str = "", steps: int | None = steps) -> None:
                    told = ", ".join(filter(None, (name, words)))
                    bars.update(task, completed=step, total=steps, description=told, visible=step != steps)

                return show

            yield shown
    else:
        yield _said


def _said(name: str, steps: int | None) -> Tell:
    began = said = time.monotonic()

    def tell(step: int, words: str = "", steps: int | None = steps) -> None:
        nonlocal said
        now = time.monotonic()
        if steps and (now - said >= SAY_EVERY_S or step == steps):
            said = now
            left = f"about {(now - began) / step * (steps - step):.0f} s left"
            say(f"{name}: " + ", ".join(filter(None, (f"{step:,} of {steps:,} steps", words, left))))

    return tell
