"""The floor probe: how fast this device reads, multiplies and starts work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from vivace_methods.timing.limits import Device, Floor, dtype_name
from vivace_methods.timing.stopwatch import Clock, DeviceClock

CPU_READS = (2**26, 2**28)
CUDA_READS = (2**28, 2**30, 2**32)
"""Bytes of the arrays that are read, larger than the usual caches: what fits into one is no read of memory."""
CPU_SIDES = (512, 1024)
CUDA_SIDES = (4096, 8192)
"""Rows of the square matrices that are multiplied."""
CPU_DTYPES = (torch.float32, torch.bfloat16)
CUDA_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LAUNCHES = 500
"""Tiny operations in a row, of which the cost of starting one is taken."""
LEAST_READ = 2**18
"""Bytes; to read fewer takes no longer than to begin."""
TRIES = 8
"""Of each size, before the trials and after them."""
SHORT_S, MOST = 0.002, 16
"""Work that takes less is tried more often, up to so many times: a moment's disturbance spoils many short tries."""
SHARE = 0.05
"""Of the time between the first trial and the last that may go to further tries."""


class FloorProbe:
    """Finds what a device can do by trying it again and again, and keeps the best that it ever did.

    A floor is a lower bound, and whatever else a machine has to do only ever makes a try slower: one that was
    measured in a busy moment would lie above honest times. So tries are short and many, and spread over a whole
    session: before the trials, between them and after them.

    Args:
        device: to probe.
        clock: the device's own if None.
        reads: sizes of the arrays that are read, in bytes; the device's usual ones if None.
        sides: rows of the square matrices that are multiplied; likewise.
        dtypes: types of number to multiply; likewise.
        working_set: bytes that the trials go through. What fits into a cache is read from there, and so a floor for
            it takes the cache's rate.
    """

    def __init__(
        self,
        device: torch.device,
        *,
        clock: Clock | None = None,
        reads: Sequence[int] | None = None,
        sides: Sequence[int] | None = None,
        dtypes: Sequence[torch.dtype] | None = None,
        working_set: int | None = None,
    ) -> None:
        cuda = device.type == "cuda"
        self._device, self._clock = device, clock or DeviceClock(device)
        usual = reads or (CUDA_READS if cuda else CPU_READS)
        small = [working_set] if working_set is not None and LEAST_READ <= working_set < min(usual) else []
        self._reads = [*small, *usual]
        self._sides = sides or (CUDA_SIDES if cuda else CPU_SIDES)
        self._dtypes = dtypes or (CUDA_DTYPES if cuda else CPU_DTYPES)
        self._floor: Floor | None = None
        self._began: float | None = None
        self._spent = 0.0

    @property
    def floor(self) -> Floor:
        """The best of all tries so far; a device that was not tried yet is tried now."""
        return self._floor or self.again()

    def again(self, tries: int = TRIES) -> Floor:
        """Try everything at every size; a few seconds where the device is idle.

        Args:
            tries: of each size, at least.

        Returns:
            The best of these tries and of all before.
        """
        return self._tried(self._reads, self._sides, tries)

    def between(self) -> Floor:
        """One more try at the smallest sizes, unless such tries have taken their share of the time already."""
        now = self._clock.read()
        self._began = now if self._began is None else self._began
        if self._floor is not None and self._spent <= SHARE * (now - self._began):
            self._tried(self._reads[:1], self._sides[:1], 1)
            self._spent += self._clock.read() - now
        return self.floor

    def _tried(self, reads: Sequence[int], sides: Sequence[int], tries: int) -> Floor:
        with torch.inference_mode():
            found = Floor(
                device=Device.of(self._device),
                read_bytes_per_s=max(self._read_rate(size, tries) for size in reads),
                flops_per_s={
                    dtype_name(dtype): max(self._product_rate(side, dtype, tries) for side in sides)
                    for dtype in self._dtypes
                },
                launch_s=self._launch_cost(tries),
            )
        self._floor = found if self._floor is None else self._floor.best_with(found)
        return self._floor

    def _read_rate(self, size: int, tries: int) -> float:
        numbers = torch.ones(size // torch.float32.itemsize, device=self._device)
        return size / self._best(lambda: torch.sum(numbers), tries)

    def _product_rate(self, side: int, dtype: torch.dtype, tries: int) -> float:
        # Random numbers: a GPU multiplies constant ones with less power, at clocks that real work never sees.
        left, right = (torch.randn(side, side, device=self._device, dtype=dtype) for _ in range(2))
        product = torch.empty_like(left)
        return 2 * side**3 / self._best(lambda: torch.mm(left, right, out=product), tries)

    def _launch_cost(self, tries: int) -> float:
        number = torch.zeros(1, device=self._device)

        def many() -> None:
            for _ in range(LAUNCHES):
                number.add_(1)

        return self._best(many, tries) / LAUNCHES

    def _best(self, work: Callable[[], Any], tries: int) -> float:
        """The shortest of some times, and of many more where each is short."""
        work()
        times: list[float] = []
        while len(times) < tries or (sum(times) < tries * SHORT_S and len(times) < MOST * tries):
            start = self._clock.now()
            work()
            times.append(self._clock.now() - start)
        return min(times)
