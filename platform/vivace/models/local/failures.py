"""What can be wrong with a model on this machine, in words."""

from __future__ import annotations

from vivace.audio.convert import AudioError

MEMORY_WORDS = ("out of memory", "not enough memory", "can't allocate memory")


class RefusedError(Exception):
    """This checkpoint cannot be used; the message says why, as a clause."""


class MisfitError(Exception):
    """The method cannot be applied to this checkpoint; the message says why, as a sentence."""


def short(error: Exception) -> str:
    """An exception's kind and the beginning of its message, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300].rstrip(".: ")


def failure(error: Exception) -> str:
    """What went wrong, in words.

    Raises:
        RuntimeError: the GPU has failed.
    """
    if isinstance(error, AudioError):
        return str(error)
    if any(words in str(error).lower() for words in MEMORY_WORDS) or isinstance(error, MemoryError):
        return f"out of memory ({short(error)})"
    if "CUDA error" in str(error):
        raise error
    return short(error)
