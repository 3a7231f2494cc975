"""The baselines beside transformers itself, on random models of real shapes: the same tokens, in no more time."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from report import BenchmarkError, Report, Row, arguments, conclude, estimated, finished, running
from transformers import DynamicCache

from vivace_methods.arms import Arm
from vivace_methods.models.cost import decode_cost, prefill_cost
from vivace_methods.models.passes import passes_of
from vivace_methods.models.random import random_model, real_configuration
from vivace_methods.models.shapes import REAL_SHAPES
from vivace_methods.protocol import Attached, Emit, Generator, Method, Request, Trace
from vivace_methods.registry import parse_arm
from vivace_methods.timing.audits import audit
from vivace_methods.timing.floor import FloorProbe
from vivace_methods.timing.measurement import measure_arms
from vivace_methods.timing.summary import ArmSummary, summarise
from vivace_methods.timing.trials import Recording, TimedPrompt

LIMITS = {"time_s": 1.05, "ttft_s": 1.05}
"""As fast as transformers, for a few pairs tell no less than a few percent."""
DTYPE = torch.bfloat16
CPU = torch.device("cpu")
VOCABULARY = 8192
"""Cut, or most of a step of a few layers would be the output matrix, and what the loops cost would hardly show."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        layers: of each model; fewer than it has.
        read: tokens of the prompts that are only read.
        decoded: tokens that answer a prompt of 64.
        prompts: different ones, of equal length.
        repetitions: of each prompt.
    """

    layers: int
    read: int
    decoded: int
    prompts: int
    repetitions: int


FULL = Size(layers=2, read=512, decoded=32, prompts=8, repetitions=3)
QUICK = Size(layers=1, read=128, decoded=8, prompts=6, repetitions=1)
PROMPT = 64


@dataclass(frozen=True)
class TransformersGenerate(Method):
    """`generate(do_sample=False)` of transformers, which hands its tokens over at the end, all at once."""

    name: ClassVar[str] = "generate"
    family: ClassVar[str] = "speculation"
    paper: ClassVar[str] = "transformers"

    @contextmanager
    def attach(self, model: Any, fitted: Any = None) -> Iterator[Attached]:
        """Nothing is changed."""
        with passes_of(model) as passes:
            yield Attached(passes, generator=_Generating(model))


class _Generating(Generator):
    def __init__(self, model: Any) -> None:
        self._model = model

    def generate(self, request: Request, emit: Emit) -> Trace:
        answer = self._model.generate(
            request.prompt,
            attention_mask=torch.ones_like(request.prompt),
            do_sample=False,
            max_new_tokens=request.most_tokens,
            eos_token_id=None,
        )
        emit(answer[0, request.prompt.shape[1] :].tolist())
        return Trace()


@dataclass(frozen=True)
class PlainForward(Method):
    """One call of the model with an empty cache, and the likeliest token after the prompt."""

    name: ClassVar[str] = "forward"
    family: ClassVar[str] = "prefill"
    paper: ClassVar[str] = "transformers"

    @contextmanager
    def attach(self, model: Any, fitted: Any = None) -> Iterator[Attached]:
        """Nothing is changed."""
        with passes_of(model) as passes:
            yield Attached(passes, generator=_Reading(model))


class _Reading(Generator):
    def __init__(self, model: Any) -> None:
        self._model = model

    def generate(self, request: Request, emit: Emit) -> Trace:
        with torch.no_grad():
            cache = DynamicCache(config=self._model.config)
            out = self._model(request.prompt, past_key_values=cache, use_cache=True, logits_to_keep=1)
        emit([int(out.logits[0, -1].argmax())])
        return Trace()


def few_layers(like: str, size: Size) -> Any:
    """A random model as wide as a public one, whose answers nothing ends."""
    configuration = real_configuration(like, layers=size.layers)
    configuration.vocab_size = VOCABULARY
    configuration.bos_token_id = configuration.eos_token_id = configuration.pad_token_id = None
    return random_model(configuration, dtype=DTYPE)


def measured(
    model: Any, arms: Mapping[str, Arm], length: int, most_tokens: int, size: Size, probe: FloorProbe
) -> Recording:
    """Time arms on random prompts; the first is the baseline.

    Raises:
        BenchmarkError: an arm failed, or gave other tokens than the baseline.
    """
    drawn = torch.Generator().manual_seed(0)
    prompts = [
        TimedPrompt(
            f"p{n}", Request(torch.randint(model.config.vocab_size, (1, length), generator=drawn), most_tokens)
        )
        for n in range(size.prompts)
    ]
    baseline = next(iter(arms))
    recording = measure_arms(
        model, arms, prompts, baseline=baseline, repetitions=size.repetitions, warm_up=prompts[:1], audited=0,
        between=probe.between,
    )  # fmt: skip
    probe.again(2)
    for arm, figures in summarise(recording).items():
        if figures.failed:
            raise BenchmarkError(f"{arm} failed ({figures.failures[0]}).")
        agreement = figures.comparison.agreement if figures.comparison else None
        if agreement is not None and agreement.same < 1:
            raise BenchmarkError(
                f"{arm} gives other tokens than {baseline} in {1 - agreement.same:.0%} of its answers."
            )
    for finding in audit(recording):
        if finding.fault in ("drifts", "noisy machine"):
            print(finding.sentence, file=sys.stderr)
    return recording


def decoding(name: str, model: Any, size: Size, probe: FloorProbe) -> tuple[list[Row], Recording]:
    """The baseline of speculation and sparsity beside `generate`."""
    arms = {"generate": Arm.of(TransformersGenerate()), "autoregressive": parse_arm("autoregressive")}
    recording = measured(model, arms, PROMPT, size.decoded, size, probe)
    costs = [prefill_cost(model.config, PROMPT, DTYPE)]
    costs += [decode_cost(model.config, PROMPT + done, DTYPE) for done in range(size.decoded - 1)]
    least = sum(probe.floor.floor_seconds(cost.bytes, cost.flops, DTYPE) for cost in costs)
    return [_row(f"{name}, {size.decoded} tokens", recording, "autoregressive", "time_s", least, True)], recording


def reading(name: str, model: Any, size: Size, probe: FloorProbe) -> tuple[list[Row], Recording]:
    """The baseline of prefill beside a plain forward pass, and beside `generate` of one token."""
    arms = {"forward": Arm.of(PlainForward()), "generate": Arm.of(TransformersGenerate()), "full": parse_arm("full")}
    recording = measured(model, arms, size.read, 1, size, probe)
    cost = prefill_cost(model.config, size.read, DTYPE)
    least = probe.floor.floor_seconds(cost.bytes, cost.flops, DTYPE)
    case = f"{name}, prompt of {size.read}"
    return [
        _row(case, replace(recording, baseline=baseline), "full", "ttft_s", least, headline)
        for baseline, headline in (("forward", True), ("generate", True))
    ], recording


def _row(
    case: str, recording: Recording, arm: str, metric: Literal["time_s", "ttft_s"], least: float, headline: bool
) -> Row:
    figures = summarise(recording)
    comparison, beside = figures[arm].comparison, _time(figures[recording.baseline], metric)
    assert comparison is not None and beside is not None
    ratio = comparison.total_s if metric == "time_s" else comparison.ttft_s
    assert ratio is not None
    return estimated(case, arm, recording.baseline, metric, ratio, floor=least / beside, headline=headline)


def _time(figures: ArmSummary, metric: str) -> float | None:
    estimate = figures.total_s if metric == "time_s" else figures.ttft_s
    return estimate.value if estimate is not None else None


def benchmark(options: argparse.Namespace) -> int:
    """Everything."""
    size = QUICK if options.quick else FULL
    torch.set_num_threads(1)  # whatever else runs, a thread that waits for another would take more than half of it
    print("probing this machine", file=sys.stderr)
    probe = FloorProbe(CPU, dtypes=[DTYPE])
    probe.again()
    rows: list[Row] = []
    trials = []
    for like in REAL_SHAPES:
        print(f"making {size.layers} of the layers of {like}", file=sys.stderr)
        model = few_layers(like, size)
        for part in (decoding, reading):
            found, recording = part(like.partition("/")[2], model, size, probe)
            rows += found
            trials += [_written(like, recording)]
        del model
    details = running(
        work={**vars(size), "prompt": PROMPT, "vocabulary": VOCABULARY, "dtype": "bfloat16", "threads": 1},
        floor={"read_bytes_per_s": probe.floor.read_bytes_per_s, "flops_per_s": dict(probe.floor.flops_per_s)},
        trials=trials,
    )
    return conclude(Report("baselines", details, rows, LIMITS), options)


def _written(like: str, recording: Recording) -> dict[str, Any]:
    kept = ("arm", "prompt", "repetition", "ttft_s", "total_s")
    return {
        "model": like,
        "trials": [{name: getattr(trial, name) for name in kept} for trial in recording.trials],
    }


def main() -> int:
    """Run the benchmark."""
    parser = arguments(__doc__ or "", "one layer of each model, and each prompt once")
    return finished(benchmark, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
