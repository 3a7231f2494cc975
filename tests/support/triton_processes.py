"""Triton decides when it is imported whether kernels are interpreted: here each way has a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
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
        instructions: before they were assembled.
    """

    name: str
    registers: int
    spilled: int
    instructions: str

    @property
    def sentence(self) -> str:
        """For people."""
        return f"{self.name.strip('_')}: {self.registers} registers, {self.spilled} bytes spilled"


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
    return Assembled(kernel.fn.__name__, registers, spilled, compiled.asm["ptx"])


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
