"""Processes that tests start import what the tests' own process has for its main module: here that is nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from unittest.mock import patch


@contextmanager
def as_own_main() -> Iterator[None]:
    """Let processes that are started meanwhile find an empty main module.

    Tests of pages leave a script of theirs there, which is gone by then.
    """
    with patch.dict(sys.modules, {"__main__": ModuleType("__main__")}):
        yield
