"""A log file that is put aside when it is large, so that a process that runs for months fills no disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

from vivace.errors import UsageError
from vivace.output.printable import printable
from vivace.output.secrets import masked

_LINE = "%(asctime)s %(levelname)s %(message)s"


class _Masked(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(masked(super().format(record)))


class _Patient(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk costs lines of a log, and nothing else."""


@contextmanager
def rotating_log(file: Path, megabytes: float, kept: int) -> Iterator[Callable[[str], None]]:
    """Write what is said, and all warnings of libraries, into a file; what writes a line into it.

    Args:
        file: the newest; older ones lie beside it as `FILE.1`, `FILE.2`, …
        megabytes: after which it is put aside.
        kept: how many older ones stay.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = _Patient(file, maxBytes=int(megabytes * 1e6), backupCount=kept, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"The log '{file}' cannot be written ({error.strerror}); give another --log.") from error
    handler.setFormatter(_Masked(_LINE))
    said = logging.Logger("vivace.said", logging.INFO)
    said.addHandler(handler)
    handler.setLevel(logging.INFO)
    logging.getLogger().addHandler(handler)
    try:
        yield said.info
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
