"""Sparse products and decoding on this processor: R-Sparse at half the weights beside the fastest dense ones."""

from __future__ import annotations

import argparse
import math
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from report import Report, Row, arguments, conclude, estimated, finished, running
from transformers import LlamaConfig

from vivace_kernels.dense_gemv_cpu import DenseProduct, dense_gemv_cpu, dense_products, fastest_product
from vivace_kernels.sparsity.packed import Factors, Packed, pack
from vivace_kernels.sparsity.sparse_gemv_cpu import CpuPath, native_reason, sparse_gemv_cpu
from vivace_methods.decoding.joined import applied
from vivace_methods.models.random import random_model
from vivace_methods.models.shared_copy import shared_copy
from vivace_methods.protocol import Generator, Request
from vivace_methods.registry import parse_method
from vivace_methods.sparsity.fitting.budget import WeightBudget, budget
from vivace_methods.timing.baseline_choice import Choice, fastest_baseline
from vivace_methods.timing.ratios import paired_ratio

SHAPES = ((4096, 11008), (11008, 4096), (4096, 4096), (2048, 5632))
DTYPES = (torch.float32, torch.bfloat16)
SPARSITY, RATIO = 0.5, 0.95
ROTATED = 400e6
"""Bytes of weights that are gone through before any is met again: more than caches hold."""
LIMITS: Mapping[str | tuple[str, str], float] = {
    "time_s": 1 / 1.25,
    ("gemv-50, geometric mean", "time_s"): 1 / 1.5,
    ("decode-bfloat16-50", "tpot_s"): 1 / 1.25,
    ("decode-float32-50", "tpot_s"): 1 / 1.15,
}
METHODS = {"r-sparse": f"r-sparse(ratio={RATIO},factors=svd,sequential=false)", "teal": "teal(sequential=false)"}
"""In both, half of the weights are not read. How a low-rank part was fitted makes no difference to its time."""


BUSY = ", one core busy"
"""Ends the cases that were measured beside a foreign process."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        pairs: of each product, beside the fastest of all dense ones.
        rivals: whether other ways to multiply, and TEAL's decoding, are timed beside.
        layers: of the model that decodes.
        hidden: its width.
        intermediate: that of its MLPs.
        vocabulary: its tokens.
        rounds: in which each arm answers once.
        decoded: tokens of an answer.
        calibrated: tokens that thresholds are taken from.
    """

    pairs: int = 25
    rivals: bool = True
    layers: int = 8
    hidden: int = 2048
    intermediate: int = 5632
    vocabulary: int = 32_000
    rounds: int = 8
    decoded: int = 24
    calibrated: int = 256


FULL = Size(pairs=40, rounds=12)
QUICK = Size(pairs=20, rivals=False, rounds=5, decoded=5, calibrated=32)

Product = Callable[[torch.Tensor], torch.Tensor]


def products(
    inputs: int, outputs: int, dtype: torch.dtype, copies: int, rivals: bool = True
) -> dict[str, list[Product]]:
    """Each way to multiply, on as many different weights.

    Args:
        inputs: features of the input.
        outputs: features of the output.
        dtype: of weights and input.
        copies: different weights.
        rivals: all ways, or the dense ones and R-Sparse alone.

    Returns:
        Name of the arm → a product with each of the weights; the dense ones are called `dense (linear)` and so on.
    """
    drawn = torch.Generator().manual_seed(0)
    its, exact = budget(inputs, outputs, SPARSITY, RATIO), budget(inputs, outputs, SPARSITY, 1.0)
    dense = dense_products(dtype)
    made: dict[str, list[Product]] = {arm: [] for arm in (*map(_dense_name, dense), "r-sparse", "teal")}
    made |= {"embedding-bag": [], "own dense": []}
    for _ in range(copies):
        weight = torch.randn(outputs, inputs, generator=drawn).to(dtype)
        factors = Factors(
            torch.randn(outputs, its.rank, generator=drawn), torch.randn(its.rank, inputs, generator=drawn)
        )
        sparse = _packed(weight, factors, its)
        for product in dense:
            made[_dense_name(product)].append(_dense(weight, product))
        made["r-sparse"].append(_sparse(sparse, None))
        if not rivals:
            continue
        plain = _packed(weight, None, exact)
        whole = _packed(weight, None, WeightBudget(inputs, outputs, inputs, 0))
        made["teal"].append(_sparse(plain, None))
        made["embedding-bag"].append(_sparse(sparse, "embedding-bag"))
        made["own dense"].append(_sparse(whole, None))
    if native_reason(dtype) is not None:
        del made["own dense"], made["embedding-bag"]  # there is only one path, which r-sparse takes
    return {name: each for name, each in made.items() if each}


def _dense_name(product: str) -> str:
    return f"dense ({product})"


def _packed(weight: torch.Tensor, factors: Factors | None, its: WeightBudget) -> Packed:
    """A layer that keeps so many channels of an input of normal numbers, and always one more or less of them."""
    limit = math.sqrt(2) * float(torch.erfinv(torch.tensor(1 - its.kept, dtype=torch.float64)))
    limits = torch.full((1, its.inputs), limit if its.kept < 1 else -1.0)
    return pack([weight], [factors], limits, [None])


def _dense(weight: torch.Tensor, product: DenseProduct) -> Product:
    return lambda x: dense_gemv_cpu(x, weight, None, product=product)


def _sparse(packed: Packed, path: CpuPath | None) -> Product:
    return lambda x: sparse_gemv_cpu(x, packed, path=path)


def gemv_rows(shapes: Sequence[tuple[int, int]], size: Size, rotated: float = ROTATED) -> list[Row]:
    """The products of all shapes and types, each beside the fastest dense one, and their mean.

    Which dense one that is the measurement itself says, so that none can have been chosen too slow. `F.linear` stands
    beside it in the table, and what the method `dense` takes is told.
    """
    rows, trials = [], []
    pairs = list(range(size.pairs))
    for inputs, outputs in shapes:
        for dtype in DTYPES:
            copies = max(2, math.ceil(rotated / (inputs * outputs * dtype.itemsize)))
            arms = products(inputs, outputs, dtype, copies, size.rivals)
            times = _timed(arms, inputs, dtype, size.pairs)
            case = f"gemv-{inputs}x{outputs}-{_name(dtype)}-50"
            dense = min(map(_dense_name, dense_products(dtype)), key=lambda arm: statistics.median(times[arm]))
            weights = [torch.randn(outputs, inputs).to(dtype) for _ in range(min(copies, 4))]
            print(
                f"{case}: the fastest is {dense}; the method dense takes {fastest_product(weights).fastest}",
                file=sys.stderr,
            )
            floors: dict[str, float | None] = {
                "r-sparse": budget(inputs, outputs, SPARSITY, RATIO).density,
                "embedding-bag": budget(inputs, outputs, SPARSITY, RATIO).density,
                "teal": 1 - SPARSITY,
                "own dense": None,  # what it tells is whether the dense one could be faster
                _dense_name("linear"): None,
            }
            for arm in floors:
                if arm in arms and arm != dense:
                    ratio = paired_ratio(times[arm], times[dense], pairs)
                    rows.append(
                        estimated(case, arm, dense, "time_s", ratio, floor=floors[arm], headline=arm == "r-sparse")
                    )
            trials.append([a / b for a, b in zip(times["r-sparse"], times[dense], strict=True)])
    rows.sort(key=lambda row: (not row.headline, row.case, row.arm))
    means = [statistics.geometric_mean(ratios) for ratios in zip(*trials, strict=True)]
    mean = paired_ratio(means, [1.0] * len(means), pairs)
    floor = statistics.geometric_mean(row.floor for row in rows if row.headline and row.floor is not None)
    joint = estimated(
        "gemv-50, geometric mean", "r-sparse", "dense (fastest)", "time_s", mean, floor=floor, headline=True
    )
    return [*(row for row in rows if row.headline), joint, *(row for row in rows if not row.headline)]


def _timed(
    arms: Mapping[str, Sequence[Product]], inputs: int, dtype: torch.dtype, pairs: int
) -> dict[str, list[float]]:
    """Times of all arms, in turns whose order is drawn; each product meets weights that nobody has met lately."""
    drawn, order = torch.Generator().manual_seed(1), random.Random(1)
    names = list(arms)
    times: dict[str, list[float]] = {name: [] for name in names}
    met = 0
    with torch.inference_mode():
        for turn in range(-2, pairs):  # the first two are warm-up, in which paths are chosen
            x = torch.randn(1, inputs, generator=drawn).to(dtype)
            for name in order.sample(names, len(names)):
                product = arms[name][met % len(arms[name])]
                met += 1  # two arms that read the same weights never follow each other on the same ones
                start = time.perf_counter()
                product(x)
                taken = time.perf_counter() - start
                if turn >= 0:
                    times[name].append(taken)
    return times


def decode_rows(size: Size) -> list[Row]:
    """A random Llama's decoding with half of its blocks' weights, beside the fastest dense one."""
    configuration = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.intermediate,
        num_hidden_layers=size.layers,
        num_attention_heads=size.hidden // 64,
        num_key_value_heads=size.hidden // 64,
        bos_token_id=None,
        eos_token_id=None,
    )
    half = random_model(configuration, dtype=torch.bfloat16)
    drawn = torch.Generator().manual_seed(2)
    text = torch.randint(size.vocabulary, (1, size.calibrated), generator=drawn)
    prompts = torch.randint(size.vocabulary, (size.rounds + 1, 1, 32), generator=drawn)
    methods = {arm: parse_method(written) for arm, written in METHODS.items() if size.rivals or arm == "r-sparse"}
    recipes = {arm: method.fit(half, [text]) for arm, method in methods.items()}
    rows = []
    baseline: Choice | None = None
    for dtype in (torch.bfloat16, torch.float32):
        model = half.to(dtype)
        if baseline is None or size.rivals:  # which is the fastest hardly depends on the type
            baseline = fastest_baseline("sparsity", model, Request(prompts[0], size.decoded))
            print(baseline.sentence, file=sys.stderr)
        with ExitStack() as contexts:
            generators = {"dense": contexts.enter_context(applied(baseline.method, shared_copy(model)))}
            for arm, method in methods.items():
                generators[arm] = contexts.enter_context(applied(method, shared_copy(model), recipes[arm]))
            times, read = _decoded(generators, prompts, size)
        linears = sum(int(weight.numel()) for name, weight in model.named_parameters() if ".layers." in name)
        rest = size.vocabulary * size.hidden
        for arm in methods:
            ratio = paired_ratio(times[arm], times["dense"], list(range(size.rounds)))
            floor = (linears * read[arm] + rest) / (linears + rest)
            case = f"decode-{_name(dtype)}-50"
            rows.append(estimated(case, arm, "dense", "tpot_s", ratio, floor=floor, headline=arm == "r-sparse"))
    return rows


def _decoded(
    generators: Mapping[str, Generator], prompts: torch.Tensor, size: Size
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Each round's time for one decoded token after the first, by arm, and the share of weights that a token read."""
    times: dict[str, list[float]] = {name: [] for name in generators}
    read: dict[str, list[float]] = {name: [] for name in generators}
    names = list(generators)
    for turn, prompt in enumerate(prompts):
        for place in range(len(names)):
            name = names[(turn + place) % len(names)]
            moments: list[float] = []

            def emit(tokens: Sequence[int], moments: list[float] = moments) -> None:
                moments.append(time.perf_counter())

            trace = generators[name].generate(Request(prompt, size.decoded), emit)
            if turn:  # the first one is warm-up
                times[name].append((moments[-1] - moments[0]) / (len(moments) - 1))
                read[name].append(1 - trace.figures.get("sparsity", 0.0))
    return times, {name: statistics.mean(each) for name, each in read.items()}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@contextmanager
def foreign_process() -> Iterator[subprocess.Popen[bytes]]:
    """Another process that keeps one processor busy, while the context lasts."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            yield busy
        finally:
            busy.kill()


def benchmark(options: argparse.Namespace) -> int:
    """Everything, alone or beside a foreign process."""
    size = QUICK if options.quick else FULL
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    for dtype in DTYPES:
        if (reason := native_reason(dtype)) is not None:
            print(f"{reason} {_name(dtype)} goes without the compiled path.", file=sys.stderr)
    with foreign_process() if options.busy else nullcontext():
        print("multiplying", file=sys.stderr)
        rows = gemv_rows(SHAPES, size)
        print("decoding", file=sys.stderr)
        rows += decode_rows(size)
    if options.busy:
        # What a machine that is shared leaves of a gain is nothing that a limit could be set on.
        rows = [replace(row, case=row.case + BUSY, headline=False) for row in rows]
    work = {**vars(size), "threads": torch.get_num_threads(), "sparsity": SPARSITY, "ratio": RATIO, "arms": METHODS}
    taken = {
        f"{inputs}x{outputs} {_name(dtype)}": fastest_product([torch.empty(outputs, inputs, dtype=dtype)]).fastest
        for inputs, outputs in SHAPES
        for dtype in DTYPES
    }
    return conclude(Report("sparsity", running(work=work, dense=taken, busy=options.busy), rows, LIMITS), options)


def main() -> int:
    """Run the benchmark."""
    parser = arguments(__doc__ or "", "fewer pairs and shorter answers")
    parser.add_argument("--threads", type=int, help="of the processor; all cores otherwise")
    parser.add_argument("--busy", action="store_true", help="beside a process that keeps one core busy")
    return finished(benchmark, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
