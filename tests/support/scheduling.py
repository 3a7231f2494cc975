"""How tests are handed to processes that run them side by side."""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadFileScheduling

APART = ("tests/docs/", "tests/efficiency/test_runs.py", "tests/engine/", "tests/zoo/test_building.py")
"""Files whose tests share nothing."""
TOGETHER = ("tests/kernels/", "tests/benchmarks/test_gpu_sparsity.py")
"""Files whose tests share processes that take seconds to start."""
WAITING = tuple(
    f"tests/{name}/" for name in ("api", "data_tools", "engine", "models", "regressions", "tracks", "upkeep")
)
"""Folders whose tests wait more than they compute."""


class ByFile(LoadFileScheduling):
    """A file at a time, because its tests share what they set up; `APART` one by one, and `TOGETHER` as one.

    Half of the processes begin with tests that wait, and half with those that compute: cores would idle, and then not
    suffice, while all do one and then the other.
    """

    def __init__(self, config: Any, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # the order of collection, whatever a file's number of tests

    def _assign_work_unit(self, node: Any) -> None:
        waits = self.nodes.index(node) % 2 == 0
        for scope in self.workqueue:
            if scope.startswith(WAITING) is waits:
                self.workqueue.move_to_end(scope, last=False)
                break
        super()._assign_work_unit(node)

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(TOGETHER):
            return TOGETHER[0]
        return nodeid if nodeid.startswith(APART) else str(super()._split_scope(nodeid))
