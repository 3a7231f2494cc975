"""Triton decides when it is imported whether kernels are interpreted: here each way has a process of its own."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from unittest.mock import patch

from support.own_main import as_own_main

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


@dataclass(frozen=True)
class Assembled:
    """What a kernel became for one kind of GPU.

    Attributes:
        name: of the kernel.
        registers: of each thread.
        spilled: bytes of its stack, which holds what did not fit into them.
        shared: bytes of memory that its threads share.
        instructions: before they were assembled.
    """

    name: str
    registers: int
    spilled: int
    shared: int
    instructions: str

    @property
    def sentence(self) -> str:
        """For people."""
        return (
            f"{self.name.strip('_')}: {self.registers} registers, {self.spilled} bytes spilled, {self.shared} shared"
        )


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


def assembled(capability: int, function: Callable[..., Any], *arguments: Any, **named: Any) -> list[Assembled]:
    """Compile the kernels that a function launches, just as it would launch them on a GPU; none is needed.

    Args:
        capability: of the GPU, 80 or 90.
        function: launches kernels; its arguments lie on the CPU, and what it returns is without meaning.
    """
    from triton.runtime import JITFunction

    launched: list[tuple[Any, dict[str, Any], dict[str, Any]]] = []

    def note(kernel: Any, *given: Any, grid: Any, warmup: bool, **more: Any) -> None:
        values = dict(zip(kernel.arg_names, given, strict=False))
        options = {name: value for name, value in more.items() if name not in kernel.arg_names}
        launched.append((kernel, values | {name: more[name] for name in more if name not in options}, options))

    with patch.object(JITFunction, "run", note), patch("vivace_kernels.gpu.require_gpu"):
        with patch("vivace_kernels.gpu.processors", return_value=132):
            with patch("vivace_kernels.gpu.capability", return_value=capability):
                function(*arguments, **named)
    return [_assembled(capability, *each) for each in launched]


def _assembled(capability: int, kernel: Any, values: dict[str, Any], options: dict[str, Any]) -> Assembled:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types, constants, known = {}, {}, {}
    for place, parameter in enumerate(kernel.params):
        value = values[parameter.name]
        number = value.data_ptr() if hasattr(value, "data_ptr") else value
        if (
            parameter.is_constexpr
            or value is None
            or (number == 1 and isinstance(number, int) and not parameter.do_not_specialize)
        ):
            types[parameter.name], constants[parameter.name] = "constexpr", value
            continue
        if isinstance(value, (int, float)):
            types[parameter.name] = "i32" if isinstance(value, int) else "fp32"
        else:
            types[parameter.name] = f"*{_SHORT[str(value.dtype)]}"
        if isinstance(number, int) and number % 16 == 0 and not parameter.do_not_specialize:
            known[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=types, constexprs=constants, attrs=known)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    registers, spilled = _resources(compiled.asm["cubin"])
    return Assembled(kernel.fn.__name__, registers, spilled, compiled.metadata.shared, compiled.asm["ptx"])


_SHORT = {
    "torch.bfloat16": "bf16",
    "torch.float16": "fp16",
    "torch.float32": "fp32",
    "torch.int8": "i8",
    "torch.int32": "i32",
    "torch.int64": "i64",
}
"""Types of number as Triton writes them."""


def _resources(binary: bytes) -> tuple[int, int]:
    """Registers, and bytes of the stack, of a kernel's machine code."""
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    ((registers, stack),) = re.findall(r"REG:(\d+) STACK:(\d+)", said)
    return int(registers), int(stack)
