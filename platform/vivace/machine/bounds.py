"""Work that others wrote, done in bounded time and memory: a chat template is a program, and may never end."""

from __future__ import annotations

import ctypes
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

LONGEST_S = 20.0
"""Of this process's own time; an honest template takes milliseconds."""
MOST_BYTES = 4 * 2**30
"""Of memory beyond what the process has already."""


class UnboundedError(Exception):
    """It took more time or memory than anything honest; the message says which."""


@contextmanager
def bounded(longest_s: float = LONGEST_S, most_bytes: int = MOST_BYTES) -> Iterator[None]:
    """Let the work inside take so much time and memory.

    In the main thread a signal ends it; in another one, which gets no signals, an exception that is set from outside,
    by the time on the wall.

    Raises:
        UnboundedError: it took more.
    """
    softly, at_all = resource.getrlimit(resource.RLIMIT_AS)
    limits = [_mapped_bytes() + most_bytes, *(each for each in (softly, at_all) if each != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), at_all))
    is_main = threading.current_thread() is threading.main_thread()
    try:
        with _ended_by_signal(longest_s) if is_main else _ended_from_outside(longest_s):
            yield
    except MemoryError:
        raise UnboundedError(f"it takes more than {most_bytes / 2**30:g} GiB of memory") from None
    except UnboundedError:
        raise UnboundedError(f"it does not end within {longest_s:g} s") from None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (softly, at_all))


# Both raise again and again: Jinja swallows what is raised while it computes constants beforehand.
@contextmanager
def _ended_by_signal(longest_s: float) -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise UnboundedError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, longest_s, longest_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextmanager
def _ended_from_outside(longest_s: float) -> Iterator[None]:
    thread, ended = ctypes.c_ulong(threading.get_ident()), threading.Event()

    def watch() -> None:
        while not ended.wait(longest_s):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(UnboundedError))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, None)  # what was set and not yet raised is taken back


def _mapped_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
