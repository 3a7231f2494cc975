"""Triton decides when it is imported whether kernels are interpreted: here each way has a process of its own."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from support.own_main import as_own_main

if (benchmarks := str(Path(__file__).parents[2] / "benchmarks")) not in sys.path:
    sys.path.append(benchmarks)

from devices.assembling import Assembled as Assembled
from devices.assembling import assembled as assembled

Returned = TypeVar("Returned")
Call = Callable[..., Any]


@contextmanager
def other_process(**environment: str) -> Iterator[Call]:
    """A process with other environment variables: `call(function, …)` calls a function there, and waits for it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        with patch.dict(os.environ, environment), as_own_main():
            executor.submit(os.getpid).result()

        def call(function: Callable[..., Returned], *arguments: Any, **named: Any) -> Returned:
            return executor.submit(function, *arguments, **named).result()

        yield call


def assert_fed(product: Assembled) -> None:
    """A sparse product gets its weights 16 bytes a thread, by copies that go on while others are added up, and four
    of its programs of 128 threads fit on one processor, of 65,536 registers and at least 163 KiB of shared memory."""
    assert product.registers <= 128 and 4 * (product.shared + 1024) <= 163 * 1024
    lines = product.instructions.splitlines()
    copies = [line for line in lines if "cp.async.cg.shared.global" in line]
    assert copies and all(", 0x10" in line for line in copies)
    rest = [line for line in lines if "ld.global" in line and "evict_first" in line]
    assert rest and all(".v4.b32" in line for line in rest), "the rows of the second factor"


def in_orders(
    function: Callable[..., Returned], *arguments: Any, orders: Sequence[int], **named: Any
) -> list[Returned]:
    """What a function gives in an interpreting process whose programs run in one order after the other.

    Args:
        function: launches kernels.
        orders: 0 is the usual order, -1 from the last program to the first, and others are seeds of a random one.
    """
    import random

    from triton.runtime.interpreter import interpreter_builder as builder

    given: list[Returned] = []
    set_grid_dim, set_grid_idx = builder.set_grid_dim, builder.set_grid_idx
    for order in orders:
        places: list[tuple[int, ...]] = []

        def shaped(*grid: int, order: int = order, places: list[tuple[int, ...]] = places) -> None:
            places[:] = itertools.product(*map(range, grid))
            if order < 0:
                places.reverse()
            elif order > 0:
                random.Random(order).shuffle(places)
            places.reverse()  # they are taken from the end
            set_grid_dim(*grid)

        with patch.object(builder, "set_grid_dim", shaped):
            with patch.object(builder, "set_grid_idx", lambda *_, places=places: set_grid_idx(*places.pop())):
                given.append(function(*arguments, **named))
    return given


def launches(function: Callable[..., Any], *arguments: Any, **named: Any) -> int:
    """How many kernels a function launches in an interpreting process."""
    from triton.runtime.interpreter import GridExecutor

    count, call = 0, GridExecutor.__call__

    def counted(self: Any, *given: Any, **more: Any) -> Any:
        nonlocal count
        count += 1
        return call(self, *given, **more)

    with patch.object(GridExecutor, "__call__", counted):
        function(*arguments, **named)
    return count
