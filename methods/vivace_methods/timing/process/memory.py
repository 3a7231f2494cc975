"""Peak memory on a processor: of a whole process, so that each arm is measured in one of its own."""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence


def peak_bytes() -> int:
    """The most memory that this process has held so far, in bytes, shared libraries among it."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def generate_command(
    arm: str,
    model: Sequence[str],
    *,
    most_tokens: int,
    end_tokens: Sequence[int] = (),
    dtype: str = "float32",
    threads: int | None = None,
    seed: int = 0,
) -> list[str]:
    """The command that answers one prompt in a process of its own, and tells its peak memory with the answer.

    It reads the prompt's token ids from a line of its standard input, with commas between them, and prints JSON.

    Args:
        arm: as it is written, with a folder where something was fitted.
        model: `--model FOLDER` or `--like NAME --layers N`, in parts.
        most_tokens: the longest answer.
        end_tokens: ids that end it.
        dtype: of the weights.
        threads: of the processor; None for torch's own.
        seed: of random weights.
    """
    ends = ["--end-tokens", ",".join(map(str, end_tokens))] if end_tokens else []
    bound = ["--threads", str(threads)] if threads is not None else []
    return [
        sys.executable, "-m", "vivace_methods", "generate", "--method", arm, *model, "--prompt-tokens", "-",
        "--most-tokens", str(most_tokens), *ends, "--dtype", dtype, "--seed", str(seed), *bound,
    ]  # fmt: skip
