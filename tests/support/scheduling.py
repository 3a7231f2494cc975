"""How tests are handed to processes that run them side by side."""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadFileScheduling

APART = ("tests/docs/", "tests/efficiency/test_runs.py", "tests/engine/", "tests/zoo/test_building.py")
"""Files whose tests share nothing."""


class ByFile(LoadFileScheduling):
    """A file at a time, because its tests share what they set up; those of `APART` one by one."""

    def __init__(self, config: Any, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # the order of collection, whatever a file's number of tests

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith(APART) else str(super()._split_scope(nodeid))
