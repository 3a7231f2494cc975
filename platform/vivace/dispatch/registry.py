"""From a name to the place where workers are started: the one list of them."""

from __future__ import annotations

from vivace.dispatch.orders import Strict, Target
from vivace_methods.plugins import Registry


def _fault_of(name: str, made: object) -> str:
    options = getattr(made, "options", None)
    if not (isinstance(options, type) and issubclass(options, Strict)):
        return "it has no options, which are a vivace.dispatch.orders.Strict"
    return "" if callable(getattr(made, "start", None)) else "it has no start, which starts workers"


TARGETS: Registry[type[Target]] = Registry(
    "place for workers",
    "vivace.dispatch",
    {
        "hf-jobs": "vivace.dispatch.targets.hf_jobs:HuggingFaceJobs",
        "local": "vivace.dispatch.targets.local:Local",
        "slurm": "vivace.dispatch.targets.slurm:Slurm",
    },
    _fault_of,
)
"""Name → class. A new place is one file and one line here, or a package with an entry point."""
