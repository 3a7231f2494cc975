"""What Triton makes of kernels for GPUs that are not here: registers, memory, barriers, copies, before any is run."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

REGISTERS, THREADS = 65_536, 2_048
"""Of a processor of both generations."""
RESERVED = 1_024
"""Bytes of shared memory that the system takes of each program."""


@dataclass(frozen=True)
class Assembled:
    """What a kernel became for one kind of GPU.

    Attributes:
        name: of the kernel.
        threads: of a program.
        registers: of each thread.
        spilled: bytes of its stack, which holds what did not fit into them.
        shared: bytes of memory that its threads share.
        instructions: before they were assembled.
    """

    name: str
    threads: int
    registers: int
    spilled: int
    shared: int
    instructions: str

    def count(self, word: str) -> int:
        """Instructions that begin with a word, behind what they depend on."""
        return len(re.findall(rf"^\s*(?:@!?%\w+ )?{re.escape(word)}", self.instructions, re.MULTILINE))

    @property
    def barriers(self) -> int:
        """At which all threads of a program, or of a cluster, wait for each other; loops are counted once."""
        return self.count("bar.sync") + self.count("barrier.")

    def programs(self, shared: int) -> int:
        """That fit on a processor at the same time.

        Args:
            shared: bytes of shared memory that a processor gives to all of them.
        """
        of_registers = REGISTERS // (self.threads * -(-self.registers // 8) * 8)
        return min(of_registers, shared // (self.shared + RESERVED), THREADS // self.threads)

    @property
    def sentence(self) -> str:
        """For people."""
        return (
            f"{self.name.strip('_')}: {self.registers} registers, {self.spilled} bytes spilled, {self.shared} shared"
        )


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
    metadata = compiled.metadata
    threads = 32 * metadata.num_warps
    return Assembled(kernel.fn.__name__, threads, registers, spilled, metadata.shared, compiled.asm["ptx"])


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
