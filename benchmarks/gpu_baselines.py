"""The baselines on a GPU, on random models of real shapes: decoding and prefill, each beside its floor."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from baselines import PlainForward, TransformersGenerate
from devices.device_times import compiler_notes
from report import (
    BenchmarkError,
    Report,
    Row,
    arguments,
    conclude,
    estimated,
    finished,
    going_on,
    keep,
    running,
    until_cut,
)

from vivace_methods.arms import Arm
from vivace_methods.decoding.joined import applied
from vivace_methods.models.cost import Cost, decode_cost, prefill_cost
from vivace_methods.models.loading import available_device
from vivace_methods.models.random import random_configuration, random_model
from vivace_methods.models.shapes import REAL_SHAPES
from vivace_methods.models.shared_copy import shared_copy
from vivace_methods.protocol import Method, MethodError, Request
from vivace_methods.timing.audits import audit
from vivace_methods.timing.baseline_choice import candidates
from vivace_methods.timing.floor import FloorProbe
from vivace_methods.timing.measurement import measure_arms
from vivace_methods.timing.ratios import Estimate
from vivace_methods.timing.stopwatch import failure_reason, out_of_memory
from vivace_methods.timing.summary import summarise
from vivace_methods.timing.trials import Recording, TimedPrompt, Trial

LIMITS = {"time_s": 1.05, "ttft_s": 1.05}
"""Of the fastest baseline beside transformers: as fast, for some pairs tell no less than a few percent."""
TINY = ("llama", "olmoe", "qwen3_moe")
SMALL: Mapping[str, Any] = {"reads": (2**20,), "sides": (64,)}
"""What the probe tries beside tiny models, which lie in caches."""
DTYPE = torch.bfloat16


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        prompt: tokens of the prompts that are answered.
        decoded: tokens of their answers.
        read: tokens of the prompts that are only read.
        prompts: different ones of each length.
        repetitions: of each prompt.
    """

    prompt: int
    decoded: int
    read: Sequence[int]
    prompts: int
    repetitions: int


FULL = Size(prompt=512, decoded=128, read=(512, 2048, 4096), prompts=5, repetitions=4)
SHORT = Size(prompt=512, decoded=32, read=(2048,), prompts=5, repetitions=1)
QUICK = Size(prompt=32, decoded=8, read=(64,), prompts=5, repetitions=1)


@dataclass(frozen=True)
class Case:
    """What one comparison asks of a model.

    Attributes:
        name: as the table shows it.
        prompt: tokens of each prompt.
        answer: tokens of each answer.
    """

    name: str
    prompt: int
    answer: int


class Bench:
    """A device that was probed, and what was measured on it so far."""

    def __init__(self, device: torch.device, size: Size, probe: FloorProbe) -> None:
        self._device, self._size, self._probe = device, size, probe
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self.faults: list[str] = []
        self.trials: list[dict[str, Any]] = []
        self.kept: Callable[[], None] = lambda: None

    def model(self, name: str, layers: int | None) -> None:
        """Measure one model; one that does not fit is left out, with a note."""
        configuration = random_configuration(name, layers=layers)
        configuration.bos_token_id = configuration.eos_token_id = configuration.pad_token_id = None  # none ends early
        try:
            model = random_model(configuration, dtype=DTYPE, device=self._device)
        except Exception as error:
            if not isinstance(error, MethodError) and not out_of_memory(error):
                raise
            self._note(f"{name} is left out: {failure_reason(error)}")
        else:
            # Prompts first: nothing has to be compiled for them.
            for what, work in (("prompts", self._reading), ("answers", self._decoding)):
                with going_on(self.faults, f"{name}, {what}"):
                    work(name, model)
            del model
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _decoding(self, name: str, model: Any) -> None:
        case = Case(f"{name}, {self._size.decoded} tokens", self._size.prompt, self._size.decoded)
        arms = {"generate": Arm.of(TransformersGenerate()), **self._running("speculation", model)}
        passes = [decode_cost(model.config, case.prompt + done, DTYPE) for done in range(case.answer - 1)]

        def tell(recording: Recording) -> None:
            whole = self._seconds(prefill_cost(model.config, case.prompt, DTYPE), *passes)
            self._beside(case, recording, "time_s", whole)
            self._above_floor(case, recording, "tpot_s", self._seconds(*passes) / len(passes))

        self._recorded(case, model, arms, tell)

    def _reading(self, name: str, model: Any) -> None:
        for length in self._size.read:
            case = Case(f"{name}, prompt of {length}", length, 1)
            arms = {"forward": Arm.of(PlainForward()), **self._running("prefill", model)}
            least = self._seconds(prefill_cost(model.config, length, DTYPE))

            def tell(recording: Recording, case: Case = case, least: float = least) -> None:
                self._beside(case, recording, "ttft_s", least)
                self._above_floor(case, recording, "ttft_s", least)

            self._recorded(case, model, arms, tell)

    def _running(self, family: Any, model: Any) -> dict[str, Arm]:
        """The family's baselines that this machine can run."""
        arms = {}
        for method in candidates(family, model):
            if self._applies(method, model):
                arms[method.label] = Arm.of(method)
        return arms

    def _applies(self, method: Method, model: Any) -> bool:
        try:
            with applied(method, shared_copy(model)):
                return True
        except MethodError as error:
            self._note(f"{method.label} is left out: {error}")
            return False

    def _recorded(self, case: Case, model: Any, arms: Mapping[str, Arm], tell: Callable[[Recording], None]) -> None:
        """Measure arms, and tell what comes of it; where it is told to end, what was timed until then counts."""
        drawn = torch.Generator().manual_seed(0)
        prompts = [
            TimedPrompt(
                f"p{number}",
                Request(torch.randint(model.config.vocab_size, (1, case.prompt), generator=drawn), case.answer),
            )
            for number in range(self._size.prompts)
        ]
        print(f"{case.name}: {', '.join(arms)}", file=sys.stderr)
        self._probe.again()
        trials: list[Trial] = []
        baseline = next(iter(arms))
        try:
            measure_arms(
                model, arms, prompts, baseline=baseline, repetitions=self._size.repetitions, audited=0,
                between=self._probe.between, on_trial=trials.append,
            )  # fmt: skip
            self._probe.again()
        finally:
            if trials:
                with going_on(self.faults, case.name):
                    self._told(case, Recording(baseline, tuple(trials)), tell)
                self.kept()

    def _told(self, case: Case, recording: Recording, tell: Callable[[Recording], None]) -> None:
        for arm in recording.arms:
            for reason in recording.failures(arm):
                self._note(f"{case.name}: {arm} failed ({reason})")
        for finding in audit(recording, equal_lengths=recording.arms):
            self._note(f"{case.name}: {finding.arm} {finding.fault} ({finding.sentence})")
        figures = {arm: each.as_json() for arm, each in summarise(recording).items()}
        self.trials.append({"case": case.name, "figures": figures})
        tell(recording)

    def _beside(self, case: Case, recording: Recording, metric: str, least: float) -> None:
        """Every arm beside transformers; the fastest is the headline."""
        figures = summarise(recording)
        beside = _figure(figures[recording.baseline], metric)
        found = {
            arm: ratio
            for arm, each in figures.items()
            if each.comparison is not None and (ratio := _figure(each.comparison, metric)) is not None
        }
        fastest = min(found, key=lambda arm: found[arm].value, default=None)
        for arm, ratio in found.items():
            assert beside is not None
            self.rows.append(
                estimated(
                    case.name, arm, recording.baseline, metric, ratio, floor=least / beside.value,
                    headline=arm == fastest,
                )
            )  # fmt: skip

    def _above_floor(self, case: Case, recording: Recording, metric: str, least: float) -> None:
        """Every arm's time over that of the floor."""
        for arm, each in summarise(recording).items():
            taken = _figure(each, metric)
            if taken is None or taken.low is None or taken.high is None:
                continue
            times = replace(taken, value=taken.value / least, low=taken.low / least, high=taken.high / least)
            self.rows.append(estimated(case.name, arm, "floor", metric, times, floor=1.0))

    def _seconds(self, *costs: Cost) -> float:
        floor = self._probe.floor
        return sum(floor.floor_seconds(cost.bytes, cost.flops, DTYPE) for cost in costs)

    def _note(self, text: str) -> None:
        print(text, file=sys.stderr)
        self.notes.append(text)


def _figure(figures: Any, metric: str) -> Estimate | None:
    found: Estimate | None = getattr(figures, "total_s" if metric == "time_s" else metric)
    return found


def benchmark(options: argparse.Namespace) -> int:
    """Everything."""
    device = available_device(options.device)
    if device.type == "cpu" and not options.quick and options.layers is None:
        raise BenchmarkError(
            "Whole models are for a GPU: take --quick for tiny ones on a processor, or --layers for a few layers."
        )
    if options.quick and options.layers is not None:
        raise BenchmarkError("--layers is for models of real shapes, and --quick takes tiny ones: leave one out.")
    size = QUICK if options.quick else SHORT if options.short else FULL
    probe = FloorProbe(device, dtypes=[DTYPE], **(SMALL if options.quick else {}))
    bench = Bench(device, size, probe)

    def report() -> Report:
        floor = probe.floor
        details = running(
            device={
                "name": floor.device.name,
                "kind": floor.device.kind,
                "cuda": torch.version.cuda,
                "threads": floor.device.threads,
            },
            floor={
                "read_bytes_per_s": floor.read_bytes_per_s,
                "flops_per_s": dict(floor.flops_per_s),
                "launch_s": floor.launch_s,
            },
            work={**vars(size), "layers": options.layers, "dtype": "bfloat16"},
            compiler=compiler_notes(),
            notes=[*bench.notes, *bench.faults],
            figures=bench.trials,
        )
        return Report("gpu_baselines", details, bench.rows, LIMITS)

    bench.kept = lambda: keep(report(), options)
    with until_cut(bench.notes):
        for name in TINY if options.quick else options.model or REAL_SHAPES:
            bench.model(name, options.layers)
    return conclude(report(), options) or int(bool(bench.faults))


def main(given: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = arguments(__doc__ or "", "tiny models, whose times mean nothing, on whatever device")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--layers", type=int, help="fewer layers than the models have")
    parser.add_argument("--short", action="store_true", help="shorter answers, and one length of prompts")
    parser.add_argument("--model", action="append", metavar="NAME", help=f"one of {', '.join(REAL_SHAPES)}")
    options = parser.parse_args(given)
    return finished(benchmark, options, MethodError)


if __name__ == "__main__":
    sys.exit(main())
