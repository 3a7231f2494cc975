"""Talk about work of many steps: a bar with the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vivace.cli.common import say

SAY_EVERY_S = 10.0


@contextmanager
def steps_of(name: str, steps: int | None) -> Iterator[Callable[..., None]]:
    """Show how far a piece of work has come, while the context lasts.

    Args:
        name: of the work.
        steps: of all of it; None where the work itself says so with each step.

    Yields:
        To be called after each step with its number, from 1, with a few words on it, and with `steps` where the
        work itself knows them.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(name, total=steps)

            def show(step: int, words: str = "", steps: int | None = steps) -> None:
                bar.update(task, completed=step, total=steps, description=", ".join(filter(None, (name, words))))

            yield show
        return
    began = said = time.monotonic()

    def tell(step: int, words: str = "", steps: int | None = steps) -> None:
        nonlocal said
        now = time.monotonic()
        if steps and (now - said >= SAY_EVERY_S or step == steps):
            said = now
            left = f"about {(now - began) / step * (steps - step):.0f} s left"
            say(f"{name}: " + ", ".join(filter(None, (f"{step:,} of {steps:,} steps", words, left))))

    yield tell
