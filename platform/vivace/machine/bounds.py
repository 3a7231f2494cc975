"""Work that others wrote, done in bounded time and memory: a chat template is a program, and may never end."""

from __future__ import annotations

import resource
import signal
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
    """Let the work inside take so much time and memory; for the main thread, where a signal ends it.

    Raises:
        UnboundedError: it took more.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise UnboundedError(f"it does not end within {longest_s:g} s")

    before = signal.signal(signal.SIGVTALRM, stop)
    softly, at_all = resource.getrlimit(resource.RLIMIT_AS)
    limits = [_mapped_bytes() + most_bytes, *(each for each in (softly, at_all) if each != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), at_all))
    # Again and again: Jinja swallows what is raised while it computes constants beforehand.
    signal.setitimer(signal.ITIMER_VIRTUAL, longest_s, longest_s)
    try:
        yield
    except MemoryError:
        raise UnboundedError(f"it takes more than {most_bytes / 2**30:g} GiB of memory") from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (softly, at_all))


def _mapped_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
