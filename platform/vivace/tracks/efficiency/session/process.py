"""A process that measures, driven from outside: started, written to, read from, and asked how it died."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import IO

from vivace.tracks.base import Workbench

LONGEST_LINE = 2**26
"""Bytes of what is told of one trial: an answer of many thousand tokens with its times."""
LOOKS_EVERY_S = 0.5
"""How often a wish to stop is looked for while the model is loaded and warmed up."""


class MeasuringProcess:
    """A process with a pipe to and from it, and a file for its errors."""

    def __init__(self, process: asyncio.subprocess.Process, errors: IO[bytes]) -> None:
        self._process, self._errors = process, errors

    async def send(self, line: str) -> None:
        """Write a line to it; whether it was there to read it shows when it is read from."""
        assert self._process.stdin is not None
        with suppress(ConnectionError):
            self._process.stdin.write(line.encode())
            await self._process.stdin.drain()

    async def line(self, bench: Workbench, *, may_stop: bool) -> bytes:
        """Its next line; empty where it has died.

        Args:
            bench: that knows whether the run is to stop.
            may_stop: whether that is heard at once, and not when the line has come.

        Raises:
            StoppedError: the run is to stop.
        """
        assert self._process.stdout is not None
        reading = asyncio.ensure_future(self._process.stdout.readline())
        try:
            while True:
                done, _ = await asyncio.wait({reading}, timeout=LOOKS_EVERY_S)
                if done:
                    return reading.result()
                if may_stop:
                    bench.check_stop()
        finally:
            reading.cancel()

    async def death(self) -> str:
        """How it ended, as a sentence."""
        status = await self._process.wait()
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - 4000))
        text = self._errors.read().decode("utf-8", "replace")
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        how = f"was ended by signal {-status}" if status < 0 else f"ended with exit code {status}"
        words = f" ({lines[-1][:300]})" if lines else ""
        hint = ", perhaps for want of memory" if status == -9 else ""
        return (
            f"The process that measured {how}{hint}{words}; what is recorded stays, and the same command goes on "
            "where it stopped."
        )


@asynccontextmanager
async def started(command: list[str], threads: int) -> AsyncIterator[MeasuringProcess]:
    """A process that ends with the context.

    Args:
        command: that starts it.
        threads: of the processor that its libraries may take.
    """
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=LONGEST_LINE,
            # Ctrl-C goes to a whole group of processes, but the first one shall let the trial be finished.
            start_new_session=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": str(threads),
                "HF_HUB_OFFLINE": "1",
                "TRANSFORMERS_VERBOSITY": "error",
                "TOKENIZERS_PARALLELISM": "false",
            },
        )
        try:
            yield MeasuringProcess(process, errors)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
