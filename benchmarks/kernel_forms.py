"""Forms that the GPU's sparse product could have, by what the compiler makes of them; no GPU is needed."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from devices.assembling import Assembled, assembled
from report import BenchmarkError, Report, Row, arguments, conclude, finished, running

from vivace_kernels.sparsity import sparse_gemv as module
from vivace_kernels.sparsity.packed import Factors, Packed, pack

ROOT = Path(__file__).parents[1]
SHARED = {80: 163 * 1024, 90: 227 * 1024}
"""Bytes of shared memory that the programs of one processor have together: of an A100, and of an H200."""
OUTPUTS, RANKS = (4096, 1024, 1024), (51, 20, 20)
"""Of Llama-3-8B's q, k and v."""
CHANNELS, INPUTS = 4096, 64
"""Of their input; and fewer, which make the same kernel at once."""
AS_IT_IS = "as it is"
WEIGHTS = re.compile(r"ld\.global\S*evict_first\S*\.v4")
BARRIER = re.compile(r"\bbar\.sync\b|\bbarrier\.")


@dataclass(frozen=True)
class Form:
    """One form of the kernel.

    Attributes:
        name: as the table shows it.
        constants: of the kernel's module, that are others in this form.
        launching: options of its launch, likewise.
        alike: whether each layer has one limit for all channels, as a criterion of magnitude has.
        dtype: of inputs and weights.
        levels: whether weights are levels of eight bits.
        tokens: that go through together.
        quick: whether it is compiled also where that has to be quick.
    """

    name: str
    constants: Mapping[str, Any] = field(default_factory=dict)
    launching: Mapping[str, Any] = field(default_factory=dict)
    alike: bool = False
    dtype: torch.dtype = torch.bfloat16
    levels: bool = False
    tokens: int = 1
    quick: bool = False


FORMS = (
    Form(AS_IT_IS, quick=True),
    Form("one limit for each layer", alike=True),
    Form("two tokens", tokens=2),
    Form("levels of eight bits", levels=True),
    Form("float16", dtype=torch.float16),
    Form("float32", dtype=torch.float32),
    Form("no ring: one stage", {"STAGES": 1}, quick=True),
    Form("a ring of two stages", {"STAGES": 2}),
    Form("a ring of three stages", {"STAGES": 3}),
    Form("a ring of six stages", {"STAGES": 6}),
    Form("8 rows a stage", {"ROWS": 8}),
    Form("32 rows a stage", {"ROWS": 32}),
    Form("128 columns a program", {"COLUMN_BYTES": 256}),
    Form("columns owned by warps", {"COLUMN_BYTES": 128, "SCAN": 512}, {"num_warps": 1}),
    Form("eight warps a program", {}, {"num_warps": 8}),
    Form("registers left to the compiler", {}, {"maxnreg": None}),
    Form("a cluster of two programs", {}, {"num_ctas": 2}),
)
METRICS = ("launches", "barriers", "registers", "shared_bytes", "in_flight_bytes")


@dataclass(frozen=True)
class Found:
    """What became of a form for one generation of GPUs.

    Attributes:
        form: its name.
        capability: of the GPU, as 90.
        launches: for all layers of one input.
        registers: of a thread, of the kernel that reads weights.
        spilled: bytes.
        shared_bytes: that a program's threads share.
        barriers: at which all threads of a program wait, of all its kernels; loops and rare ways are counted once.
        walking: those of them that come between the first read of weights and the last.
        joining: those that come after that.
        atomics: likewise.
        copies: of its instructions, those that bring weights while others are added up.
        programs: that fit on a processor.
        in_flight_bytes: of weights that are on their way to a processor at the same time, at the most.
        refused: why there is nothing of it.
    """

    form: str
    capability: int
    launches: int = 0
    registers: int = 0
    spilled: int = 0
    shared_bytes: int = 0
    barriers: int = 0
    walking: int = 0
    joining: int = 0
    atomics: int = 0
    copies: int = 0
    programs: int = 0
    in_flight_bytes: int = 0
    refused: str = ""


def packed_of(form: Form) -> Packed:
    """Random layers of which about half of the channels are kept."""
    drawn = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return (torch.randn(shape, generator=drawn) / INPUTS**0.5).to(form.dtype)

    limits = torch.rand(len(OUTPUTS), 1 if form.alike else INPUTS, generator=drawn).expand(-1, INPUTS)
    return pack(
        [normal(outputs, INPUTS) for outputs in OUTPUTS],
        [Factors(normal(outputs, rank), normal(rank, INPUTS)) for outputs, rank in zip(OUTPUTS, RANKS, strict=True)],
        limits,
        [None] * len(OUTPUTS),
        levels=form.levels,
    )


def compiled(form: Form, capability: int) -> Found:
    """A form, compiled for one generation; one that the compiler refuses says so."""
    with ExitStack() as changed:
        for name, value in form.constants.items():
            changed.enter_context(patch.object(module, name, value))
        options = getattr(module, "LAUNCHING", {})
        changed.enter_context(patch.dict(options, {k: v for k, v in form.launching.items() if v is not None}))
        for name in [name for name, value in form.launching.items() if value is None]:
            options.pop(name)
        x = torch.ones(form.tokens, INPUTS, dtype=form.dtype)
        try:
            kernels = assembled(capability, module.sparse_gemv, x, packed_of(form))
        except Exception as error:  # what a compiler cannot do it says in many ways
            said = " ".join(str(error).split())[:120]
            return Found(form.name, capability, refused=f"{type(error).__name__}: {said}")
    return found_of(form.name, capability, kernels)


def found_of(name: str, capability: int, kernels: Sequence[Assembled]) -> Found:
    """What was compiled, in numbers."""
    product = kernels[-1]
    programs = product.programs(SHARED[capability])
    groups = [part.count("cp.async.cg.shared.global") for part in product.instructions.split("cp.async.commit_group")]
    copies = sum(groups)
    # The last group is the one that a loop asks for again and again, and what it fills was added up just then.
    together = copies - next((each for each in reversed(groups) if each), 0) if copies else most_loads(product)
    in_flight = 16 * product.threads * together
    return Found(
        name, capability, len(kernels), product.registers, max(each.spilled for each in kernels), product.shared,
        sum(each.barriers for each in kernels), *barriers_of(product),
        sum(each.count("atom.") + each.count("red.") for each in kernels),
        copies, programs, programs * in_flight,
    )  # fmt: skip


def barriers_of(product: Assembled) -> tuple[int, int]:
    """Barriers between the first read of weights and the last, and after that."""
    lines = product.instructions.splitlines()
    reads = [place for place, line in enumerate(lines) if "cp.async.cg.shared.global" in line]
    if not reads:  # one block has them all; what the second factor reads comes later
        reads = [place for place, line in enumerate(lines) if WEIGHTS.search(line)]
        ends = [at for at, line in enumerate(lines) if line.startswith("$L__BB") and at > min(reads, default=at)]
        reads = [place for place in reads if not ends or place < ends[0]]
    if not reads:
        return 0, 0
    places = [place for place, line in enumerate(lines) if BARRIER.search(line)]
    return sum(reads[0] < place < reads[-1] for place in places), sum(place > reads[-1] for place in places)


def most_loads(product: Assembled) -> int:
    """Reads of weights, 16 bytes a thread, that are asked for between two jumps: none of them waits for another."""
    blocks = re.split(r"^\$L__BB", product.instructions, flags=re.MULTILINE)
    return max(len(WEIGHTS.findall(block)) for block in blocks)


def before(revision: str, capabilities: Sequence[int]) -> Iterator[Found]:
    """The kernel as it was at another revision of this repository, compiled in a process of its own.

    Raises:
        BenchmarkError: there is no such revision here.
    """
    with tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run(
            ["git", "archive", "--format=tar", revision, "kernels"], cwd=ROOT, capture_output=True, check=False
        )
        if packed.returncode:
            raise BenchmarkError(f"There is no revision {revision} here: {packed.stderr.decode().strip()}.")
        subprocess.run(["tar", "-x", "-C", folder], input=packed.stdout, check=True)
        words = [sys.executable, __file__, "--quick", "--only", AS_IT_IS, "--json", f"{folder}/found.json"]
        words += [word for each in capabilities for word in ("--capability", str(each))]
        paths = os.pathsep.join([f"{folder}/kernels", os.environ.get("PYTHONPATH", "")])
        subprocess.run(words, check=True, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.DEVNULL)
        written = json.loads(Path(folder, "found.json").read_text(encoding="utf-8"))
    for each in written["manifest"]["forms"]:
        yield Found(**{**each, "form": f"at {revision[:7]}"})


def imbalance(parts: int, draws: int = 1000) -> float:
    """How much longer the longest part is than an equal share, where channels are parted before they are counted.

    Args:
        parts: into which the channels are cut, each of which is kept by chance, every other one.
        draws: of which the mean is given.
    """
    drawn = torch.Generator().manual_seed(0)
    kept = torch.rand(draws, parts, CHANNELS // parts, generator=drawn) < 0.5
    each = kept.sum(2).double()
    return float((each.amax(1) / each.mean(1)).mean())


def table(found: Sequence[Found]) -> Iterator[str]:
    """For people, and for pages: in Markdown. Barriers stand where they are: in what lists, walks, and joins."""
    columns = ["launches", "registers", "spilled", "shared", "listing", "walking", "joining", "programs", "in flight"]
    yield f"| form | GPU | {' | '.join(columns)} |"
    yield "|---" * (2 + len(columns)) + "|"
    for its in found:
        about = f"| {its.form} | sm_{its.capability} |"
        if its.refused:
            yield f"{about} refused: {its.refused} |" + " |" * (len(columns) - 1)
            continue
        yield (
            f"{about} {its.launches} | {its.registers} | {its.spilled} | {its.shared_bytes:,} | "
            f"{its.barriers - its.walking - its.joining} | {its.walking} | {its.joining} | {its.programs} | "
            f"{its.in_flight_bytes / 1024:.0f} KiB |"
        )


def rows_of(found: Sequence[Found]) -> Iterator[Row]:
    """Each form beside the kernel as it is."""
    usual = {its.capability: its for its in found if its.form == AS_IT_IS}
    for its in found:
        beside = usual.get(its.capability)
        if beside is None or its is beside or its.refused:
            continue
        for metric in METRICS:
            ratio = getattr(its, metric) / max(getattr(beside, metric), 1)
            yield Row(f"sm_{its.capability}", its.form, AS_IT_IS, metric, ratio, ratio, ratio, 1, None, False)


def benchmark(options: argparse.Namespace) -> int:
    """Everything."""
    forms = [form for form in FORMS if form.name in (options.only or [each.name for each in FORMS])]
    if options.quick:
        forms = [form for form in forms if form.quick]
    capabilities = options.capability or ([90] if options.quick else sorted(SHARED))
    found = list(before(options.before, capabilities)) if options.before else []
    for capability in capabilities:
        found += [compiled(form, capability) for form in forms]
    print("\n".join(table(found)))
    parts = 2 * 4 * 132 // (2 * 24)
    print(f"Of {parts} parts that are cut before all is counted, the longest has {imbalance(parts):.2f} of the mean.")
    spilled = [its.form for its in found if its.spilled]
    if spilled:
        print(f"These spill: {', '.join(spilled)}.", file=sys.stderr)
    details = running(forms=[asdict(its) for its in found])
    return conclude(Report("kernel_forms", details, list(rows_of(found)), {}), options)


def main(given: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = arguments(__doc__ or "", "two forms, for one generation of GPUs")
    parser.add_argument("--before", metavar="REVISION", help="also the kernel as it was then")
    parser.add_argument("--only", action="append", choices=[form.name for form in FORMS], metavar="FORM")
    parser.add_argument("--capability", action="append", type=int, choices=sorted(SHARED))
    return finished(benchmark, parser.parse_args(given))


if __name__ == "__main__":
    sys.exit(main())
