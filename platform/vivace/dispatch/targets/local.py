"""Workers as processes of this machine, which go on when the command that started them has ended."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from typing import ClassVar

from vivace.dispatch.orders import Environment, Order, Started, Strict
from vivace.errors import VivaceError
from vivace.settings import Settings


class LocalOptions(Strict):
    """Nothing has to be said of this machine."""


class Local:
    """Each worker is a process with a log of its own under `dispatch/` in the home folder."""

    options: ClassVar = LocalOptions
    is_elsewhere: ClassVar = False

    def start(
        self, order: Order, options: LocalOptions, environment: Environment, settings: Settings
    ) -> list[Started]:
        """Start the processes, each in a session of its own: closing the terminal ends none."""
        folder = (settings.home / "dispatch").absolute()
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
        values = {**os.environ, "VIVACE_HOME": str(settings.home.absolute()), **environment.values}
        started = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(1, order.workers + 1):
                log = folder / f"{stamp}-{number}.log"
                with log.open("xb") as opened:
                    process = subprocess.Popen(
                        order.command,
                        stdin=subprocess.DEVNULL,
                        stdout=opened,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                        env=values,
                    )
                started.append(Started(str(process.pid), str(log)))
        except OSError as error:
            before = f", after {len(started)} were" if started else ""
            raise VivaceError(f"A worker could not be started{before} ({error}).") from error
        return started
