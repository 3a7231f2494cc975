"""Where and how the models of an efficiency run run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, cast

from vivace.errors import UsageError
from vivace.machine.manifest import hardware
from vivace.model_origins import Origin
from vivace.spec import EfficiencySpec


@dataclass(frozen=True)
class MachineSetup:
    """Where and how the model runs."""

    device: str
    dtype: str
    threads: int
    details: dict[str, Any]
    """What makes two machines the same for these times."""


NO_HALVES = "float16 is not measured on a processor: use --dtype bfloat16 or float32."


def check_numbers(spec: EfficiencySpec) -> None:
    """Refuse what no machine measures, wherever it is executed.

    Raises:
        UsageError: kernels for this device do not know the type of number.
    """
    if spec.device == "cpu" and spec.dtype == "float16":
        raise UsageError(NO_HALVES)


def machine_for(spec: EfficiencySpec, origin: Origin) -> MachineSetup:
    """Where the model will run.

    Raises:
        UsageError: there is no such device, or its kernels do not know the type of number.
    """
    cuda = spec.device != "cpu" and _has_cuda()
    if spec.device == "cuda" and not cuda:
        raise UsageError("There is no CUDA device on this machine: use --device cpu.")
    device = ("cuda" if cuda else "cpu") if spec.device == "auto" else spec.device
    dtype = ("bfloat16" if device == "cuda" else "float32") if spec.dtype == "auto" else spec.dtype
    if device == "cpu" and dtype == "float16":
        raise UsageError(NO_HALVES)
    # Work of microseconds is only delayed by handing it out, and many times so where the machine has other work.
    threads = spec.threads or (os.cpu_count() if origin.are_times_real else 1) or 1
    where = _cuda_device() if device == "cuda" else "cpu"
    return MachineSetup(device, dtype, threads, {**hardware(), "device": where, "threads": threads})


def _has_cuda() -> bool:
    """Whether there is a GPU; a torch that was built for processors alone need not be loaded to know."""
    if version("torch").endswith("+cpu"):
        return False
    import torch

    return bool(torch.cuda.is_available())


def _cuda_device() -> str:
    import torch

    return cast(str, torch.cuda.get_device_name())
