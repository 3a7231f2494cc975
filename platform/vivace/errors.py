"""Every error Vivace raises on purpose, each with the exit code it ends a command with.

    VivaceError            1    something failed
    ├── UsageError         2    the request is wrong; nothing was written
    ├── IncompleteError    3    stopped before the end; the same command resumes
    ├── UnreachableError   4    the model or the judge does not answer
    └── LeaseLostError     3    another process has taken this run over

An error's text is one sentence that says what is wrong and what to do; it is shown without a traceback.
"""


class VivaceError(Exception):
    """Something failed for a reason that the message names."""

    exit_code = 1


class UsageError(VivaceError):
    """The request itself is wrong: an unknown name, a bad file, a refused key."""

    exit_code = 2


class IncompleteError(VivaceError):
    """Work stopped before its end, or some of it is unscored; what is recorded stays and can be resumed."""

    exit_code = 3


class UnreachableError(VivaceError):
    """A model or judge endpoint does not answer at all."""

    exit_code = 4
    is_late = False
    """Whether it was only waited for too short a time, as far as is known."""


class LeaseLostError(IncompleteError):
    """Another process has taken the run over; this one must stop writing."""
