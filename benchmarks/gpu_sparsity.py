"""Sparse products of Llama's linear layers on a GPU, and whole decode steps, beside dense ones and the floor."""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from devices.device_times import compiler_notes, fetch_seconds, timed
from devices.sparse_steps import METHODS, RATIO, SPARSITY, Answers, Steps
from report import (
    BenchmarkError,
    Report,
    arguments,
    conclude,
    estimated,
    finished,
    going_on,
    keep,
    running,
    until_cut,
)

from vivace_kernels.gpu import require_gpu
from vivace_kernels.sparsity.packed import Factors, Packed, pack, reference
from vivace_kernels.sparsity.sparse_gemv import sparse_gemv
from vivace_kernels.sparsity.teal_gemv import TILES, TealLinears, Tile, teal_gemv, teal_pack, teal_reference
from vivace_methods.models.loading import available_device
from vivace_methods.protocol import MethodError
from vivace_methods.sparsity.fitting.budget import budget
from vivace_methods.timing.floor import FloorProbe
from vivace_methods.timing.limits import dtype_name
from vivace_methods.timing.ratios import paired_ratio
from vivace_methods.timing.stopwatch import failure_reason

LIMITS: Mapping[str | tuple[str, str], float] = {"time_s": 1 / 0.7, "tpot_s": 1 / 1.6}
"""Of the R-Sparse kernel over the time in which its weights can be read: 70 % of the bandwidth; and of a decode step
with it over the fastest dense one."""
SMALL: Mapping[str, Any] = {"reads": (2**20,), "sides": (64,)}
"""What the probe tries beside tiny shapes, which lie in caches."""
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
PAST_THE_CACHE = 4
"""Times the GPU's L2 cache that the weights take which an arm reads before it comes to the same ones again."""


@dataclass(frozen=True)
class Group:
    """Linear layers of one input.

    Attributes:
        name: as the table shows it.
        inputs: channels.
        outputs: of each layer.
    """

    name: str
    inputs: int
    outputs: tuple[int, ...]

    @property
    def case(self) -> str:
        """The name with the shapes."""
        return f"{self.name} {self.inputs}x{'+'.join(map(str, self.outputs))}"


GROUPS = (
    Group("Llama-3-8B q|k|v", 4096, (4096, 1024, 1024)),
    Group("both o", 4096, (4096,)),
    Group("Llama-3-8B gate|up", 4096, (14336, 14336)),
    Group("Llama-3-8B down", 14336, (4096,)),
    Group("Llama-2-7B q|k|v", 4096, (4096, 4096, 4096)),
    Group("Llama-2-7B gate|up", 4096, (11008, 11008)),
    Group("Llama-2-7B down", 11008, (4096,)),
)
"""In order of worth: those whose whole decode step is measured come first."""
TINY = (Group("q|k|v", 128, (128, 64, 64)), Group("gate|up", 96, (48, 48)))
BASELINES = ("cublas", "inductor", "teal")
"""Beside which all arms that come after them are set."""
PARTS = ("groups", "step", "inductor")
"""In order of worth: the compiler takes longest to tune its product, beside which the others are set once more."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        groups: of layers.
        calls: of each arm for one time, at least.
        repetitions: times of each arm.
        tiles: of TEAL's kernel, of which the fastest is taken.
        answers: whose decode steps are timed.
    """

    groups: tuple[Group, ...]
    calls: int
    repetitions: int
    tiles: tuple[Tile, ...]
    answers: Answers


FULL = Size(
    GROUPS, calls=256, repetitions=40, tiles=TILES,
    answers=Answers("meta-llama/Llama-3.1-8B", prompt=128, decoded=128, count=20),
)  # fmt: skip
QUICK = Size(
    TINY, calls=1, repetitions=5, tiles=(Tile(64, 64, 4), Tile(32, 64, 4)),
    answers=Answers("llama", prompt=32, decoded=4, count=6),
)  # fmt: skip

Call = Callable[[], torch.Tensor | list[torch.Tensor]]


@dataclass(frozen=True)
class GroupArm:
    """One way to a group's outputs.

    Attributes:
        calls: one for each copy of the weights, each with an input of its own.
        exact: what the first of them should give, in float64.
        weights: numbers that one call has to read, on average.
    """

    calls: Sequence[Call]
    exact: torch.Tensor
    weights: float


class Bench(Steps):
    """A device that was probed, and what was measured on it so far: groups of layers, and decode steps.

    Args:
        device: on which.
        dtype: of all numbers.
        size: of what is measured.
        probe: of the device.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, size: Size, probe: FloorProbe) -> None:
        super().__init__(device, dtype, size.answers, probe)
        self._size = size

    def group(self, group: Group, *, compiled: bool = False) -> None:
        """Measure all arms on one group of layers.

        Args:
            group: the layers.
            compiled: whether what torch compiles is measured, and the others for the sake of its rows alone.
        """
        print(group.case, file=sys.stderr)
        arms = self._arms(group, compiled=compiled)
        for name in list(arms):
            with going_on(self.faults, f"{name} on {group.case}"):
                self._require_right(group, name, arms[name])
                continue
            del arms[name]
        told = {"inductor"} & arms.keys() if compiled else set(arms)
        if not told:
            return
        self._probe.again()
        times = self._times(arms)
        rate = self._probe.again().read_bytes_per_s
        least = {name: arm.weights * self._dtype.itemsize / rate for name, arm in arms.items()}
        same = [0] * self._size.repetitions
        for name, taken in times.items():
            for baseline in times:
                if name == baseline:
                    break
                if baseline in BASELINES and told & {name, baseline}:
                    best = least[name] / statistics.median(times[baseline])
                    ratio = paired_ratio(taken, times[baseline], same)
                    self.rows.append(estimated(group.case, name, baseline, "time_s", ratio, floor=best))
            if name not in told:
                continue
            ratio = paired_ratio(taken, [least[name]] * len(taken), same)
            self.rows.append(
                estimated(group.case, name, "floor", "time_s", ratio, floor=1.0, headline=name == "r-sparse")
            )
            self.figures.append(
                {
                    "case": group.case,
                    "arm": name,
                    "seconds": taken,
                    "microseconds": 1e6 * statistics.median(taken),
                    "bytes": arms[name].weights * self._dtype.itemsize,
                    "share_of_bandwidth": 1 / ratio.value,
                }
            )

    def _arms(self, group: Group, *, compiled: bool) -> dict[str, GroupArm]:
        drawn = torch.Generator(self._device).manual_seed(0)
        budgets = [budget(group.inputs, outputs, SPARSITY, RATIO) for outputs in group.outputs]
        copies = self._copies(sum(each.weights for each in budgets))

        def normal(*shape: int) -> torch.Tensor:
            # So small that outputs are of the size of inputs, as in a model.
            numbers = torch.randn(shape, generator=drawn, device=self._device) / math.sqrt(shape[-1])
            return numbers.to(self._dtype)

        inputs = [normal(1, group.inputs) for _ in range(copies)]
        weights = [[normal(outputs, group.inputs) for outputs in group.outputs] for _ in range(copies)]
        factors = [
            [Factors(normal(each.outputs, each.rank), normal(each.rank, each.inputs)) for each in budgets]
            for _ in range(copies)
        ]
        plain = [budget(group.inputs, outputs, SPARSITY, 1.0) for outputs in group.outputs]
        without: list[list[Factors | None]] = [[None] * len(plain) for _ in range(copies)]
        thresholds = [kept_limit(inputs, each.channels) for each in plain]
        whole = [torch.cat(each) for each in weights]
        return {
            "cublas": self._dense(torch.nn.functional.linear, inputs, whole),
            **(self._inductor(inputs, whole) if compiled else self._teal(inputs, weights, thresholds)),
            "r-sparse(ratio=1)": self._sparse(inputs, weights, without, thresholds),
            "r-sparse": self._sparse(
                inputs, weights, factors, [kept_limit(inputs, each.channels) for each in budgets]
            ),
        }

    def works(self, part: str) -> dict[str, Callable[[], None]]:
        """What a part consists of, by names."""
        if part == "step":
            return {"decode steps": self.step}
        if part == "inductor" and self._device.type != "cuda":
            self._note("inductor is left out: it is tuned for a GPU.")
            return {}

        def of(group: Group) -> Callable[[], None]:
            def work() -> None:
                with torch.inference_mode():
                    self.group(group, compiled=part == "inductor")

            return work

        return {f"{part}, {group.case}": of(group) for group in self._size.groups}

    def _copies(self, weights: int) -> int:
        """So many of a group's weights that none is still in the cache when it is read again."""
        if self._device.type != "cuda":
            return 2
        cache = torch.cuda.get_device_properties(self._device).L2_cache_size
        copies: int = math.ceil(PAST_THE_CACHE * cache / (weights * self._dtype.itemsize))
        return max(2, copies)

    def _dense(
        self, product: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor], whole: Sequence[torch.Tensor]
    ) -> GroupArm:
        calls = [_bound(product, x, weight) for x, weight in zip(inputs, whole, strict=True)]
        return GroupArm(calls, inputs[0].double() @ whole[0].double().T, whole[0].numel())

    def _inductor(self, inputs: Sequence[torch.Tensor], whole: Sequence[torch.Tensor]) -> dict[str, GroupArm]:
        """The product as torch compiles it, tuned: a kernel of its own for one token."""
        torch.compiler.reset()
        arm = self._dense(torch.compile(_linear, mode="max-autotune-no-cudagraphs", dynamic=False), inputs, whole)
        try:
            arm.calls[0]()
        except Exception as error:  # a compiler fails in many ways, and the others can be measured without it
            self._note(f"inductor is left out: {failure_reason(error)}")
            return {}
        return {"inductor": arm}

    def _sparse(
        self,
        inputs: Sequence[torch.Tensor],
        weights: Sequence[Sequence[torch.Tensor]],
        factors: Sequence[Sequence[Factors | None]],
        limits: Sequence[float],
    ) -> GroupArm:
        each_channel = torch.tensor(limits, device=self._device).unsqueeze(1).expand(-1, inputs[0].shape[1])
        packs = [
            pack(those, its_factors, each_channel, [None] * len(those))
            for those, its_factors in zip(weights, factors, strict=True)
        ]
        counted = sum(packed.kept(x).sum((1, 2)) for x, packed in zip(inputs, packs, strict=True))
        assert isinstance(counted, torch.Tensor)
        kept = [count / len(packs) for count in counted.tolist()]
        calls = [_bound(sparse_gemv, x, packed) for x, packed in zip(inputs, packs, strict=True)]
        return GroupArm(calls, reference(inputs[0], packs[0]), _read(packs[0], kept))

    def _teal(
        self, inputs: Sequence[torch.Tensor], weights: Sequence[Sequence[torch.Tensor]], thresholds: Sequence[float]
    ) -> dict[str, GroupArm]:
        """As TEAL has it: in float16, where its sums need no launch of their own to become outputs; q, k and v in one
        launch, gate and up in two."""
        layers = range(len(thresholds))
        launches = [list(layers)] if len(layers) == 3 else [[layer] for layer in layers]
        inputs = [x.half() for x in inputs]
        parts = [
            [
                teal_pack([those[layer].half() for layer in some], [thresholds[layer] for layer in some])
                for some in launches
            ]
            for those in weights
        ]
        found = []
        for tile in self._size.tiles:
            with going_on(self.notes, f"teal's {tile}"):
                found.append((self._seconds(_teal_calls(inputs, parts, tile)), tile))
        if not found:
            return {}
        best = min(found, key=lambda each: each[0])[1]
        self._note(f"teal's fastest tile is {best}.")
        exact = torch.cat([teal_reference(inputs[0], part) for part in parts[0]], dim=1)
        read = sum(
            (x.abs().float() > threshold).sum().item() * weight.shape[0]
            for x, those in zip(inputs, weights, strict=True)
            for weight, threshold in zip(those, thresholds, strict=True)
        )
        return {"teal": GroupArm(_teal_calls(inputs, parts, best), exact, read / len(inputs))}

    def _require_right(self, group: Group, name: str, arm: GroupArm) -> None:
        found = arm.calls[0]()
        joint = torch.cat(found, dim=1) if isinstance(found, list) else found
        error = (joint.double() - arm.exact).abs().max() / arm.exact.abs().max()
        # Some roundings of bfloat16, or sums in half precision.
        if not error <= 2**-6:
            raise BenchmarkError(f"{name} computes something else on {group.case}: it is off by {error:.1%}.")

    def _times(self, arms: Mapping[str, GroupArm]) -> dict[str, list[float]]:
        """Seconds of one call of every arm, again and again, in alternating order."""
        works = {name: self._repeated(arm.calls) for name, arm in arms.items()}
        times: dict[str, list[float]] = {name: [] for name in arms}
        for repetition in range(-1, self._size.repetitions):
            for name in list(works) if repetition % 2 else reversed(list(works)):
                work, calls = works[name]
                taken = timed(work, self._device)
                if not taken.is_apart:
                    self._note(f"{name}: the host was slower than the device, and its gaps are counted")
                if repetition >= 0:  # the first round warms up
                    times[name].append(taken.device_s / calls)
        return times

    def _seconds(self, calls: Sequence[Call]) -> float:
        """The shortest of some times of one call."""
        work, count = self._repeated(calls)
        return min(timed(work, self._device).device_s for _ in range(3)) / count

    def _repeated(self, calls: Sequence[Call]) -> tuple[Callable[[], None], int]:
        """All calls one after the other, as often as it takes, as one CUDA graph; and how many these are."""
        rounds = math.ceil(self._size.calls / len(calls))

        def work() -> None:
            for _ in range(rounds):
                for call in calls:
                    call()

        if self._device.type != "cuda":
            return work, rounds * len(calls)
        aside = torch.cuda.Stream(self._device)
        aside.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(aside):
            for call in calls:  # compiles, and makes what must not be made in a graph
                call()
        torch.cuda.current_stream(self._device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph.replay, rounds * len(calls)


def bare_table(figures: Sequence[Mapping[str, Any]]) -> list[str]:
    """The kernels by themselves, line by line: microseconds, megabytes that are read, and % of measured bandwidth."""
    bare = [each for each in figures if "microseconds" in each]
    width = max((len(each["case"]) for each in bare), default=0)
    lines = [f"{'layers':{width}}  {'kernel':16}  {'µs':>9}  {'MB':>7}  % of bandwidth"]
    for each in bare:
        lines.append(
            f"{each['case']:{width}}  {each['arm']:16}  {each['microseconds']:9.2f}  {each['bytes'] / 1e6:7.2f}  "
            f"{100 * each['share_of_bandwidth']:14.1f}"
        )
    return lines


def kept_limit(inputs: Sequence[torch.Tensor], channels: int) -> float:
    """The magnitude above which so many channels of an input lie, on average: not all of them."""
    magnitudes = torch.cat([x.flatten() for x in inputs]).abs().float().sort(descending=True).values
    return float(magnitudes[channels * len(inputs)])


def _linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.linear(x, weight)


def _bound(function: Callable[..., torch.Tensor | list[torch.Tensor]], *given: Any) -> Call:
    return lambda: function(*given)


def _teal_calls(inputs: Sequence[torch.Tensor], parts: Sequence[Sequence[TealLinears]], tile: Tile) -> list[Call]:
    def outputs(x: torch.Tensor, those: Sequence[TealLinears]) -> list[torch.Tensor]:
        return [teal_gemv(x, part, tile=tile) for part in those]

    return [_bound(outputs, x, those) for x, those in zip(inputs, parts, strict=True)]


def _read(packed: Packed, kept: Sequence[float]) -> float:
    """Weights that a call reads: the rows of kept channels, and both low-rank factors whole."""
    return sum(
        count * linear.outputs + linear.rank * (packed.inputs + linear.outputs)
        for linear, count in zip(packed.linears, kept, strict=True)
    )


def benchmark(options: argparse.Namespace) -> int:
    """Everything: groups of layers, then whole decode steps."""
    device = available_device(options.device)
    if device.type != "cuda" and not options.quick:
        raise BenchmarkError("This is for a CUDA device: without one, --quick tries tiny shapes.")
    try:
        require_gpu(device)
    except ValueError as error:
        raise BenchmarkError(f"{error} Set TRITON_INTERPRET=1 to try tiny shapes on a processor.") from error
    size, dtype = QUICK if options.quick else FULL, DTYPES[options.dtype]
    probe = FloorProbe(device, dtypes=[dtype], **(SMALL if options.quick else {}))
    bench = Bench(device, dtype, size, probe)
    wanted = [part for part in PARTS if options.part in (None, part)]

    def report() -> Report:
        floor = probe.floor
        details = running(
            device={"name": floor.device.name, "kind": floor.device.kind, "cuda": torch.version.cuda},
            floor={
                "read_bytes_per_s": floor.read_bytes_per_s,
                "launch_s": floor.launch_s,
                "fetch_s": fetch_seconds(device),
            },
            work={
                "parts": wanted,
                "sparsity": SPARSITY,
                "ratio": RATIO,
                "dtype": dtype_name(dtype),
                "calls": size.calls,
                "repetitions": size.repetitions,
                **asdict(size.answers),
                "arms": METHODS,
            },
            compiler=compiler_notes(),
            notes=[*bench.notes, *bench.faults],
            figures=bench.figures,
        )
        return Report("gpu_sparsity", details, bench.rows, LIMITS)

    with until_cut(bench.notes):
        for part in wanted:
            for name, work in bench.works(part).items():
                with going_on(bench.faults, name):
                    work()
                keep(report(), options)
                if device.type == "cuda":
                    torch.cuda.empty_cache()
    print("\n".join(bare_table(bench.figures)), file=sys.stderr)
    return conclude(report(), options) or int(bool(bench.faults))


def main(given: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = arguments(__doc__ or "", "tiny shapes, whose times mean nothing, on whatever device")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="bfloat16", choices=sorted(DTYPES))
    parser.add_argument("--part", choices=PARTS, help="groups of layers, decode steps, or what torch compiles, alone")
    options = parser.parse_args(given)
    return finished(benchmark, options, MethodError)


if __name__ == "__main__":
    sys.exit(main())
