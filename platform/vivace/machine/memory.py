"""Memory that is given back: a run that has read hours of recordings shall not keep the room they took."""

from __future__ import annotations

import ctypes
import os
import sys

_ARENA_MAX = -8
"""glibc's number for it (malloc.h)."""


def give_memory_back() -> None:
    """Have Arrow use the system's allocator, and glibc few arenas. Call it before pyarrow and before any thread.

    Arrow's own pools keep what they once held, and glibc keeps an arena for each thread that has ever decoded a
    recording. Measured on 150 conversations, both together take the peak from 420 to 290 MB; either alone does
    little.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(_ARENA_MAX, 2)
