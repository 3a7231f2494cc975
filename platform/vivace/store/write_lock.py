"""Who holds the write lock of a SQLite file: a process that is frozen inside a write makes all others wait for it."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from vivace.output.secrets import masked

_LOCKS = Path("/proc/locks")
_WRITE_LOCK_BYTE = "120"
"""Of the file `-shm`, which SQLite locks while it writes (its `WAL_WRITE_LOCK`)."""
SHOWN = 120
"""Characters of a command line that are shown."""
LONG_S = 1.0
"""Writes are short: whoever holds the lock all this time is stuck, and whoever is stopped is at once."""


@dataclass(frozen=True)
class Holder:
    """A process that holds the write lock, and does not come to an end."""

    pid: int
    command: str
    is_stopped: bool
    """Whether a signal has stopped it; else it is only slow."""

    @property
    def sentence(self) -> str:
        """Who it is, and what to do."""
        state = "is stopped inside a write" if self.is_stopped else "has been inside one write for long"
        go_on = f"let it go on (`kill -CONT {self.pid}`) or end it" if self.is_stopped else "if it hangs, end it"
        return (
            f"process {self.pid} on {socket.gethostname()} ({self.command}) {state}, and all others wait for it; "
            f"{go_on} (`kill -9 {self.pid}`): what it had not committed is done again by another"
        )


def stuck_writer(file: Path) -> Holder | None:
    """The process that holds a file's write lock and seems stuck; None where writes go on, or nothing can be told.

    Told by the kernel's list of locks, which Linux alone has; one of another machine or container is not in it.
    """
    first = _holder(file)
    deadline = time.monotonic() + LONG_S
    while first is not None:
        found = _described(first)
        if found is None or found.is_stopped or time.monotonic() > deadline:
            return found
        time.sleep(LONG_S / 10)
        if _holder(file) != first:
            return None
    return None


def _holder(file: Path) -> int | None:
    try:
        inode = file.with_name(file.name + "-shm").stat().st_ino
        locks = _LOCKS.read_text().splitlines()
    except OSError:
        return None
    for line in locks:
        # 1: POSIX  ADVISORY  WRITE 4242 fd:01:1234567 120 120
        words = line.split()
        if words[1:4] == ["POSIX", "ADVISORY", "WRITE"] and words[5].endswith(f":{inode}"):
            first, last = words[6:8]
            if first == last == _WRITE_LOCK_BYTE and int(words[4]) not in (0, -1, os.getpid()):
                return int(words[4])
    return None


def _described(pid: int) -> Holder | None:
    try:
        process = psutil.Process(pid)
        command = masked(" ".join(" ".join(process.cmdline()).split())) or process.name()
        shown = command if len(command) <= SHOWN else command[:SHOWN] + " …"
        return Holder(pid, shown, process.status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return None
