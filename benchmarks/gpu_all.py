"""All that waits for a GPU by one command, in order of worth and within nine minutes; each result is kept at once."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from report import running, write

HERE = Path(__file__).parent
SOURCES = ("kernels", "methods", "rubrics", "platform")
"""Folders of the packages, for a machine on which nothing but torch, transformers and triton was installed."""
MINUTES = 9.0
GRACE_S = 10.0
"""How long a part that was told to end may take to write what it has."""
LEAST_S = 5.0
"""A part with less time left than this is not begun."""


@dataclass(frozen=True)
class Part:
    """One script, or a part of one.

    Attributes:
        name: of its result, and of the script where it is the whole of one.
        limit_s: after which it is told to end.
        arguments: what it measures on a GPU.
        quick: what it tries in place of that at tiny size.
        script: its name where it is not the part's.
        folder: in which the script lies.
    """

    name: str
    limit_s: float
    arguments: tuple[str, ...] = ()
    quick: tuple[str, ...] = ("--quick",)
    script: str = ""
    folder: Path = HERE

    @property
    def file(self) -> Path:
        """The script."""
        return self.folder / f"{self.script or self.name}.py"


PARTS = (
    Part("gpu_correctness", 90, ("--check",), ("--quick", "--check")),
    Part("gpu_sparsity", 100, ("--part", "groups"), ("--quick", "--part", "groups")),
    Part("gpu_sparsity_step", 150, ("--part", "step"), ("--quick", "--part", "step"), script="gpu_sparsity"),
    Part("gpu_prefill", 100, ("--tokens", "32768", "--tokens", "10240")),
    Part("gpu_speculation", 80, ("--model", "allenai/OLMoE-1B-7B-0125")),
    Part("gpu_baselines", 60, ("--model", "meta-llama/Llama-3.1-8B", "--layers", "8", "--short")),
)
"""In order of worth: first whether kernels are right at all and what the device can do, then headline cases. The last
ones take what those before them leave of the nine minutes."""


@dataclass(frozen=True)
class Outcome:
    """How a part ended.

    Attributes:
        part: its name.
        seconds: that it took.
        said: `done`; or why there is less than all of it.
        result: the file with what it found; None where there is none.
    """

    part: str
    seconds: float
    said: str
    result: str | None

    @property
    def is_done(self) -> bool:
        """Whether it ran to its end without a fault."""
        return self.said == "done"


def run_parts(
    parts: Sequence[Part],
    output: Path,
    *,
    device: str,
    quick: bool,
    minutes: float,
    grace_s: float = GRACE_S,
    on_outcome: Callable[[Sequence[Outcome]], None] = lambda outcomes: None,
) -> list[Outcome]:
    """Run parts one after the other, each within its limit and all within the minutes.

    A part that fails, hangs or is cut short takes nothing from the others but its time.

    Args:
        parts: in order of worth.
        output: the folder of the results.
        device: that they measure.
        quick: at tiny size.
        minutes: for all.
        grace_s: how long a part may take to end once it is told to.
        on_outcome: told of all outcomes so far after each part.
    """
    output.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    outcomes: list[Outcome] = []
    with environment(device) as variables:
        for part in parts:
            left = 60 * minutes - (time.monotonic() - began) - grace_s
            if left < LEAST_S:
                outcomes.append(Outcome(part.name, 0.0, "not begun: no time was left", None))
            else:
                limited = replace(part, limit_s=min(part.limit_s, left))
                outcomes.append(_run(limited, output / f"{part.name}.json", device, quick, grace_s, variables))
            print(_line(outcomes[-1]), flush=True)
            on_outcome(outcomes)
    return outcomes


@contextlib.contextmanager
def environment(device: str) -> Iterator[dict[str, str]]:
    """The environment of parts, while the context lasts.

    Kernels are interpreted on a processor and never on a GPU, whatever the shell says; nothing looks for a network;
    and where the home cannot be written, compilers keep what they make elsewhere, for all parts together.
    """
    known = os.environ.get("PYTHONPATH")
    paths = [*(str(HERE.parent / folder) for folder in SOURCES), *([known] if known else [])]
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "TRITON_INTERPRET": "0" if device == "cuda" else "1",
        "HF_HUB_OFFLINE": "1",
    }
    if device != "cuda":  # tiny shapes gain nothing by threads, which wait for each other where anything else runs
        variables["OMP_NUM_THREADS"] = "1"
    if os.access(Path("~").expanduser(), os.W_OK):
        yield variables
        return
    with tempfile.TemporaryDirectory(prefix="vivace-gpu-") as folder:
        yield {**variables, "HOME": folder, "TRITON_HOME": folder, "XDG_CACHE_HOME": folder}


def _run(part: Part, result: Path, device: str, quick: bool, grace_s: float, variables: Mapping[str, str]) -> Outcome:
    result.unlink(missing_ok=True)  # what an earlier call left is no result of this one
    print(f"== {part.name}, at most {part.limit_s:.0f} s", flush=True)
    words = [sys.executable, str(part.file), "--device", device, "--json", str(result)]
    began = time.monotonic()
    process = subprocess.Popen(
        [*words, *(part.quick if quick else part.arguments)],
        env=dict(variables),
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # so that what it starts ends with it
    )
    said = "done"
    try:
        code = process.wait(part.limit_s)
        if code:
            said = f"failed with exit code {code}"
    except subprocess.TimeoutExpired:
        said = f"cut after {part.limit_s:.0f} s"
        if not _ended(process, grace_s):
            said += ", and had to be killed"
    finally:
        _kill(process)
    kept = _kept(result)
    if kept is None and said == "done":
        said = "ended without a result"
    return Outcome(part.name, time.monotonic() - began, said, None if kept is None else str(result))


def _ended(process: subprocess.Popen[bytes], grace_s: float) -> bool:
    """Tell a part to end and write what it has."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _kept(result: Path) -> dict[str, Any] | None:
    """What a part has written; None where that is nothing, or not whole."""
    try:
        found = json.loads(result.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _line(outcome: Outcome) -> str:
    kept = "" if outcome.result is None else f"  {outcome.result}"
    return f"== {outcome.part}: {outcome.said} ({outcome.seconds:.0f} s){kept}"


def device_folder(device: str) -> str:
    """The name of a device as a folder: `nvidia-h200`."""
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def main(given: Sequence[str] | None = None, parts: Sequence[Part] = PARTS) -> int:
    """Run all parts, and say of each how it ended; exit code 1 where one did not run to its end."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="tiny shapes, whose times mean nothing, on any device")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all parts together")
    parser.add_argument("--only", action="append", metavar="PART", choices=[part.name for part in parts])
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="of the results")
    options = parser.parse_args(given)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("There is no GPU: `--device cpu --quick` tries all parts at tiny size.", file=sys.stderr)
        return 2
    if options.device == "cpu" and not options.quick:
        print("A processor takes hours for this: add --quick.", file=sys.stderr)
        return 2
    output = options.output or HERE / "results" / device_folder(options.device)
    chosen = [part for part in parts if not options.only or part.name in options.only]

    def told(outcomes: Sequence[Outcome]) -> None:
        manifest = running(parts=[asdict(outcome) for outcome in outcomes], minutes=options.minutes)
        write(output / "gpu_all.json", {"benchmark": "gpu_all", "manifest": manifest, "rows": []})

    # Told to end, it ends the part that runs, which has a session of its own and would go on.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        told([])
    except OSError as error:
        print(f"Results cannot be written to {output} ({error.strerror}): name another --output.", file=sys.stderr)
        return 2
    outcomes = run_parts(
        chosen, output, device=options.device, quick=options.quick, minutes=options.minutes, on_outcome=told
    )
    print("\n".join(map(_line, outcomes)))
    return 0 if all(outcome.is_done for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
