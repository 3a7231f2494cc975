"""The energy that a GPU uses, from its driver's own counter, through the library that every driver brings."""

from __future__ import annotations

import ctypes
from typing import Any

import torch

_LIBRARY = "libnvidia-ml.so.1"


class EnergyMeter:
    """A counter of joules; drivers renew it some ten to fifty times a second, so short trials share a step of it.

    Args:
        library: NVML, loaded and initialised.
        handle: of the GPU.
    """

    def __init__(self, library: Any, handle: Any) -> None:
        self._library, self._handle = library, handle

    @classmethod
    def of(cls, device: torch.device) -> EnergyMeter | None:
        """The counter of a device; None where there is none that can be read."""
        if device.type != "cuda":
            return None
        try:
            library = ctypes.CDLL(_LIBRARY)
        except OSError:
            return None
        return cls.found(library, f"GPU-{torch.cuda.get_device_properties(device).uuid}")

    @classmethod
    def found(cls, library: Any, uuid: str) -> EnergyMeter | None:
        """The counter of the GPU with this identity, which stays the same however GPUs are numbered."""
        handle = ctypes.c_void_p()
        if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)):
            return None
        meter = cls(library, handle)
        return None if meter.read_j() is None else meter

    def read_j(self) -> float | None:
        """Joules since the driver was loaded; None where the GPU does not count them."""
        millijoules = ctypes.c_ulonglong()
        if self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle, ctypes.byref(millijoules)):
            return None
        return millijoules.value / 1000
