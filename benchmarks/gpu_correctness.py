"""Is every kernel right on this device, and does every method do there what it does on a processor? No times."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from devices.device_times import fetch_seconds
from report import BenchmarkError, Report, Row, arguments, conclude, finished, keep, running, until_cut

from vivace_kernels.gpu import require_gpu
from vivace_kernels.prefill.kept_attention_cpu import kept_attention_reference
from vivace_kernels.prefill.window_scores_cpu import Scoring, window_scores_reference
from vivace_kernels.sparsity.packed import Factors, Packed, pack
from vivace_kernels.sparsity.packed import reference as sparse_reference
from vivace_kernels.speculation.experts import reference as experts_reference
from vivace_kernels.speculation.routing import Rule
from vivace_kernels.speculation.routing import reference as routing_reference
from vivace_methods.decoding.joined import applied
from vivace_methods.models.loading import available_device
from vivace_methods.models.random import random_configuration, random_model
from vivace_methods.protocol import Method, MethodError, Need, Request
from vivace_methods.registry import METHODS
from vivace_methods.timing.floor import FloorProbe
from vivace_methods.timing.limits import dtype_name

ALLOWED = {torch.float32: 2e-5, torch.bfloat16: 2**-7, torch.float16: 2**-10}
"""Of the largest value that is right: sums in float32, and one rounding to the type."""
LOOSER = {
    ("teal's product", torch.float16): 16,
    ("expert product", torch.float16): 2,
    ("expert product", torch.bfloat16): 2,
}
"""Times as much: TEAL's kernel sums float16 in float16, and experts round twice."""
SETTINGS: dict[str, dict[str, Any]] = {"cats": {"sparsity": 0.3}}
"""Of methods that cannot do their usual on tiny models."""
COMPILED = ("r-sparse", "cats")
"""Methods whose step is compiled into a graph here as it usually is; of the others, whose steps are made of the same,
compilers would take minutes."""
PROCESSES = 12
"""In which a GPU is tried at the same time: compilers share the machine, and a kernel that reads what is not its own
spoils nobody else's."""
LOGITS = 2e-3
"""Of the largest logit, in float32 on both devices: layers add up what sums in another order make of each."""
PROMPT, ANSWER, CALIBRATION = 48, 6, 256
Checked = tuple[torch.Tensor, torch.Tensor]
"""What was found, and what is right in float64."""


@dataclass(frozen=True)
class Size:
    """Shapes of what is tried.

    Attributes:
        hidden: numbers of a token.
        outputs: of the layers that read it.
        positions: of a prompt; no multiple of a block.
        kept: of them.
        experts: of a mixture.
        width: of an expert.
        tokens: of a draft.
    """

    hidden: int
    outputs: tuple[int, ...]
    positions: int
    kept: int
    experts: int
    width: int
    tokens: Sequence[int]


FULL = Size(4096, (4096, 1024, 1000), 8200, 820, 64, 512, (1, 16, 63))
QUICK = Size(64, (128, 128, 40), 139, 20, 8, 32, (1, 5))


class Inputs:
    """Random inputs on a device, the same ones each time.

    Args:
        device: on which they lie.
        dtype: of their numbers.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self._drawn = torch.Generator(device).manual_seed(0)

    def normal(self, *shape: int, scale: float = 1.0) -> torch.Tensor:
        """From the normal distribution."""
        return (torch.randn(shape, generator=self._drawn, device=self.device) * scale).to(self.dtype)

    def uniform(self, *shape: int) -> torch.Tensor:
        """From 0 to 1, in float32."""
        return torch.rand(shape, generator=self._drawn, device=self.device)


def sparse_kernel(inputs: Inputs, size: Size) -> Iterator[Checked]:
    """The sparse product, low-rank parts and biases in it, over weights as they are and over levels of eight bits."""
    from vivace_kernels.sparsity.sparse_gemv import sparse_gemv

    for levels in (False, True):
        packed = _pack(inputs, size, levels=levels)
        for tokens in (1, 2):
            x = inputs.normal(tokens, size.hidden)
            yield sparse_gemv(x, packed), sparse_reference(x, packed)


def _pack(inputs: Inputs, size: Size, *, levels: bool) -> Packed:
    scale, ranks = size.hidden**-0.5, (19, 0, 8)
    return pack(
        [inputs.normal(each, size.hidden, scale=scale) for each in size.outputs],
        [
            Factors(inputs.normal(each, rank, scale=rank**-0.5), inputs.normal(rank, size.hidden, scale=scale))
            if rank
            else None
            for each, rank in zip(size.outputs, ranks, strict=True)
        ],
        inputs.uniform(len(size.outputs), size.hidden) * 1.4,
        [inputs.normal(each) for each in size.outputs],
        levels=levels,
    )


def teal_kernel(inputs: Inputs, size: Size) -> Iterator[Checked]:
    """The rival of TEAL's layout."""
    from vivace_kernels.sparsity.teal_gemv import teal_gemv, teal_pack, teal_reference

    weights = [inputs.normal(each, size.hidden, scale=size.hidden**-0.5) for each in size.outputs]
    linears, x = teal_pack(weights, [0.5, 0.7, 0.9]), inputs.normal(1, size.hidden)
    yield teal_gemv(x, linears), teal_reference(x, linears)


def window_kernel(inputs: Inputs, size: Size) -> Iterator[Checked]:
    """Scores of a window, for groups of one, four and eight query heads."""
    from vivace_kernels.prefill.window_scores_gpu import window_scores_gpu

    for group in (1, 4, 8):
        queries, keys = inputs.normal(2 * group, 8, 64), inputs.normal(2, size.positions, 64)
        for scoring in (Scoring(), Scoring(heads="max", pooled="after")):
            yield window_scores_gpu(queries, keys, scoring), window_scores_reference(queries, keys, scoring)


def kept_kernel(inputs: Inputs, size: Size) -> Iterator[Checked]:
    """Attention of kept queries over all keys."""
    from vivace_kernels.prefill.kept_attention_gpu import kept_attention_gpu

    places = torch.linspace(0, size.positions - 1, size.kept).long().unique().to(inputs.device)
    queries, keys, values = inputs.normal(8, len(places), 64), *(inputs.normal(2, size.positions, 64) for _ in "kv")
    yield kept_attention_gpu(queries, keys, values, places), kept_attention_reference(queries, keys, values, places)


def routing_kernel(inputs: Inputs, size: Size) -> Iterator[Checked]:
    """Routing under a budget: weights as they lie on the experts, by which a wrong expert shows, too."""
    from vivace_kernels.speculation.routing_gpu import budgeted_routing_gpu

    for tokens in size.tokens:
        for policy in ("substitution", "truncation"):
            logits, rule = inputs.normal(tokens, size.experts), Rule(2, max(2, size.experts // 3), policy)  # type: ignore[arg-type]
            found, exact = budgeted_routing_gpu(logits, rule), routing_reference(logits, rule)
            yield _laid_out(found, size.experts), _laid_out(exact, size.experts)
            yield found.scores, exact.scores


def _laid_out(routing: Any, experts: int) -> torch.Tensor:
    weights = routing.weights.double()
    return torch.zeros(len(weights), experts, dtype=torch.float64, device=weights.device).scatter_add_(
        1, routing.index, weights
    )


def expert_kernel(inputs: Inputs, size: Size) -> Iterator[Checked]:
    """Products of the experts that drafts keep."""
    from vivace_kernels.speculation.expert_gemm import expert_gemm

    if inputs.dtype == torch.float32:
        return  # the kernel is for types of sixteen bits
    gate_up = inputs.normal(size.experts, 2 * size.width, size.hidden, scale=size.hidden**-0.5)
    down = inputs.normal(size.experts, size.hidden, size.width, scale=size.width**-0.5)
    stored = gate_up.cpu(), down.cpu()
    for tokens in size.tokens:
        x, logits = inputs.normal(tokens, size.hidden), inputs.normal(tokens, size.experts)
        routed = routing_reference(logits, Rule(2, max(2, size.experts // 3)), torch.float32)
        index, weights = routed.index, routed.weights.to(inputs.dtype)
        exact = experts_reference(x.cpu(), *stored, index.cpu(), weights.cpu())
        yield expert_gemm(x, gate_up, down, index, weights, shortlist=routed.shortlist), exact


KERNELS: dict[str, Callable[[Inputs, Size], Iterator[Checked]]] = {
    "sparse product": sparse_kernel,
    "teal's product": teal_kernel,
    "window scores": window_kernel,
    "kept attention": kept_kernel,
    "budgeted routing": routing_kernel,
    "expert product": expert_kernel,
}


class Bench:
    """Rows of errors: each divided by what is allowed, so that 1 is the limit.

    Args:
        device: that is tried.
        size: of what is tried.
        only: names of kernels and methods; empty for all.

    Attributes:
        kept: called after each row and each note.
    """

    def __init__(self, device: torch.device, size: Size, only: Sequence[str] = ()) -> None:
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self._device, self._size, self._only = device, size, only
        self.kept: Callable[[], None] = lambda: None

    def kernels(self) -> None:
        """Each kernel in each type, beside its float64 reference."""
        for name, check in KERNELS.items():
            if self._only and name not in self._only:
                continue
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                try:
                    pairs = list(check(Inputs(self._device, dtype), self._size))
                    allowed = ALLOWED[dtype] * LOOSER.get((name, dtype), 1)
                    errors = [_error(found, exact) / allowed for found, exact in pairs]
                except Exception as error:  # a kernel that does not compile must not keep others from being seen
                    self._fault(f"{name}, {dtype_name(dtype)}", error)
                    continue
                if errors:
                    self._row(f"{name}, {dtype_name(dtype)}", "float64", errors)

    def methods(self) -> None:
        """Logits of each method on a small random model, on this device and on a processor, in float32."""
        torch.backends.cuda.matmul.allow_tf32 = False
        for name, kind in METHODS.items():
            if self._only and name not in self._only:
                continue
            for model_type in ("llama", "olmoe"):
                case = f"{name}, {model_type}"
                try:
                    method = kind(**_settings(name, kind))
                    if Need.DRAFTER in method.needs:
                        self._note(f"{name} is left out: it needs a drafter")
                        break
                    self._row(case, "processor", [_method_error(method, model_type, self._device) / LOGITS])
                except MethodError as error:
                    self._note(f"{case}: {error}")
                except Exception as error:
                    self._fault(case, error)

    def apart(self, quick: bool) -> None:
        """Everything by several processes at the same time, each with some kernels or methods.

        What a process has not shown, because it broke or because time is up, is a fault.

        Args:
            quick: whether at tiny size.
        """
        others = PROCESSES - len(KERNELS)
        shares = [*([kernel] for kernel in KERNELS), *(list(METHODS)[place::others] for place in range(others))]
        words = [sys.executable, __file__, "--device", str(self._device), *(["--quick"] if quick else [])]
        with ExitStack() as ending:
            folder = Path(ending.enter_context(tempfile.TemporaryDirectory()))
            begun = []
            for place, names in enumerate(shares):
                only = [word for name in names for word in ("--only", name)]
                process = subprocess.Popen(
                    [*words, *only, "--json", str(folder / f"{place}.json")],
                    stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "2"},
                )  # fmt: skip
                ending.callback(process.wait)
                ending.callback(process.kill)  # which does nothing to one that has ended
                begun.append(process)
            try:
                for process in begun:
                    process.wait()
            finally:  # also where it is told to end
                for place, (names, process) in enumerate(zip(shares, begun, strict=True)):
                    self._take(folder / f"{place}.json", names, process.poll())

    def _take(self, file: Path, names: Sequence[str], code: int | None) -> None:
        """Add what a process has found so far."""
        rows, notes = [], []
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            rows, notes = found["rows"], found["manifest"]["notes"]
        except (OSError, ValueError):
            pass  # then all that it was to show is missing
        for row in rows:  # what was no number was written as null
            self.rows.append(Row(**{**row, **{name: _number(row[name]) for name in ("ratio", "low", "high")}}))
        self.notes += notes
        seen = [*(row["case"] for row in rows), *notes]
        for name in names:
            if not any(each == name or each.startswith((f"{name},", f"{name} ")) for each in seen):
                ending = "had not come to it when time was up" if code is None else f"ended with exit code {code}"
                self._fault(name, RuntimeError(f"its process {ending}"))

    def _row(self, case: str, baseline: str, errors: Sequence[float]) -> None:
        ordered = sorted(errors)
        self.rows.append(
            Row(case, "here", baseline, "error", ordered[-1], ordered[0], ordered[-1], len(errors), None, True)
        )
        self.kept()

    def _fault(self, case: str, error: Exception) -> None:
        self._note(f"{case}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
        self.rows.append(Row(case, "here", "float64", "error", float("inf"), 0.0, float("inf"), 0, None, True))
        self.kept()

    def _note(self, text: str) -> None:
        print(text, file=sys.stderr)
        self.notes.append(text)


def _number(written: float | None) -> float:
    return float("inf") if written is None else written


def _settings(name: str, kind: type[Method]) -> dict[str, Any]:
    """Of a method, with which it is tried."""
    is_compiled = name in COMPILED or "compile" not in {each.name for each in fields(kind)}
    return {**SETTINGS.get(name, {}), **({} if is_compiled else {"compile": "none"})}


def _error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """The largest difference, of the largest value."""
    found, exact = found.double().cpu(), exact.double().cpu()
    if found.shape != exact.shape or not found.isfinite().all():
        return float("inf")
    return float((found - exact).abs().max() / exact.abs().max().clamp_min(1e-30))


def _method_error(method: Method, model_type: str, device: torch.device) -> float:
    found = [_logits(method, model_type, each) for each in (device, torch.device("cpu"))]
    return _error(*found)


def _logits(method: Method, model_type: str, device: torch.device) -> torch.Tensor:
    """Of a given answer to a given prompt; what is fitted is fitted on the processor."""
    configuration = random_configuration(model_type)
    drawn = torch.Generator().manual_seed(1)
    tokens = torch.randint(configuration.vocab_size, (1, CALIBRATION), generator=drawn)
    fitted = None
    if Need.RECIPE in method.needs:
        fitted = method.fit(random_model(configuration), [tokens])
    model = random_model(configuration).to(device)
    request = Request(tokens[:, :PROMPT].to(device), ANSWER)
    with torch.inference_mode(), applied(method, model, fitted) as generator:
        logits = generator.logits(request, tokens[0, PROMPT : PROMPT + ANSWER].tolist())
    if logits is None:
        raise MethodError(f"{method.name} has no logits of a given answer.")
    return logits


def benchmark(options: argparse.Namespace) -> int:
    """Everything."""
    device = available_device(options.device)
    if device.type != "cuda" and not options.quick:
        raise BenchmarkError("This is for a CUDA device: without one, --quick tries tiny shapes.")
    try:
        require_gpu(device)
    except ValueError as error:
        raise BenchmarkError(f"{error} Set TRITON_INTERPRET=1 to try tiny shapes on a processor.") from error
    bench = Bench(device, QUICK if options.quick else FULL, options.only or ())
    # The device is probed first, while nothing else runs on it.
    probed = {} if options.only else _probed(device, quick=options.quick)

    def report() -> Report:
        details = running(
            **probed,
            allowed={**{dtype_name(dtype): bound for dtype, bound in ALLOWED.items()}, "logits": LOGITS},
            notes=bench.notes,
        )
        return Report("gpu_correctness", details, bench.rows, {"error": 1.0})

    bench.kept = lambda: keep(report(), options)
    with until_cut(bench.notes):
        if device.type == "cuda" and not options.only:
            bench.apart(options.quick)
        else:
            bench.kernels()
            bench.methods()
    return conclude(report(), options)


def _probed(device: torch.device, *, quick: bool) -> dict[str, Any]:
    """What the device can do: bytes past its caches, products, launches, and a look at one number."""
    floor = FloorProbe(device, **({"reads": (2**20,), "sides": (64,)} if quick else {})).floor
    return {
        "device": {"name": floor.device.name, "kind": floor.device.kind, "cuda": torch.version.cuda},
        "floor": {
            "read_bytes_per_s": floor.read_bytes_per_s,
            "flops_per_s": dict(floor.flops_per_s),
            "launch_s": floor.launch_s,
            "fetch_s": fetch_seconds(device),
        },
    }


def main(given: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = arguments(__doc__ or "", "tiny shapes, on whatever device")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--only", action="append", metavar="NAME", choices=[*KERNELS, *METHODS], help="one of them alone"
    )
    return finished(benchmark, parser.parse_args(given), MethodError)


if __name__ == "__main__":
    sys.exit(main())
