"""Passes that verify drafts on a GPU, on random mixtures of real shapes, beside a plain step and the floor."""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from devices.device_times import timed
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
from transformers import AutoConfig, DynamicCache
from verifying.passes import depths

from vivace_kernels.speculation.budgeted_routing import budgeted_routing
from vivace_kernels.speculation.expert_product import expert_product
from vivace_kernels.speculation.routing import Routing, Rule, reference
from vivace_methods.models import implementations
from vivace_methods.models.anatomy import anatomy
from vivace_methods.models.cost import cost
from vivace_methods.models.ledger import Pass
from vivace_methods.models.loading import available_device
from vivace_methods.models.random import random_configuration, random_model
from vivace_methods.protocol import MethodError
from vivace_methods.timing.floor import FloorProbe
from vivace_methods.timing.ratios import Estimate, paired_ratio
from vivace_methods.timing.stopwatch import failure_reason, out_of_memory

MIXTRAL = {
    "model_type": "mixtral",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "tie_word_embeddings": False,
}
"""The numbers of the public `config.json` of mistralai/Mixtral-8x7B-v0.1."""
DTYPE = torch.bfloat16
WITHIN = 1.3
"""Times the floor that a pass may take where a layer reads at least `LARGE`."""
LARGE = 0.3e9
OWN = implementations.OWN_EXPERTS


@dataclass(frozen=True)
class Subject:
    """One model.

    Attributes:
        name: as rows show it.
        budgets: experts that a pass may read in a layer.
        alike: by what part fewer experts drafts meet than tokens that choose independently of each other would.
    """

    name: str
    budgets: Sequence[int]
    alike: float


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        subjects: in order of worth.
        tokens: of drafts.
        context: positions before them.
        rounds: in which every kind of pass runs once.
    """

    subjects: Sequence[Subject]
    tokens: Sequence[int]
    context: int
    rounds: int


# Of OLMoE and Qwen3-30B-A3B 36 % fewer were measured at some tens of tokens, of Mixtral nearly none.
FULL = Size(
    (
        Subject("allenai/OLMoE-1B-7B-0125", (8, 16, 24, 32), 0.36),
        Subject("Qwen/Qwen3-30B-A3B", (8, 16, 32, 64), 0.36),
        Subject("mistralai/Mixtral-8x7B", (2, 4, 6), 0.0),
    ),
    tokens=(4, 8, 16, 32, 64),
    context=512,
    rounds=15,
)
QUICK = Size((Subject("olmoe", (2, 4), 0.0), Subject("mixtral", (4,), 0.0)), tokens=(4,), context=24, rounds=5)


@dataclass(frozen=True)
class Kind:
    """One kind of pass: tokens, budget, and which kernels compute the experts."""

    tokens: int
    budget: int | None
    kernels: str = OWN

    @property
    def arm(self) -> str:
        """As rows name it."""
        named = "autoregressive" if self.tokens == 1 else "eagle3" if self.budget is None else "moe-spec"
        return named if self.kernels == OWN else f"{named} ({self.kernels})"


class HeldCache(DynamicCache):
    """A cache whose context stays where it is and whose latest positions are written anew by every pass.

    Args:
        configuration: of the model.
        context: positions.
        filled: with the context.
    """

    def __init__(self, configuration: Any, context: int, filled: DynamicCache) -> None:
        super().__init__(config=configuration)
        self._context = context
        self._held = [(layer.keys, layer.values) for layer in filled.layers]

    def with_room(self, tokens: int) -> HeldCache:
        """The same context with room for some tokens."""
        other = HeldCache.__new__(HeldCache)
        other.__dict__.update(self.__dict__)
        other._held = [
            tuple(torch.cat([one, one.new_zeros(*one.shape[:2], tokens, one.shape[3])], 2) for one in pair)
            for pair in self._held
        ]  # type: ignore[misc]
        return other

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any, **__: Any) -> Any:
        """Write a layer's keys and values behind the context, and give all of them."""
        for held, new in zip(self._held[layer], (keys, values), strict=True):
            held[:, :, self._context :].copy_(new)
        return self._held[layer]

    def get_seq_length(self, *_: Any, **__: Any) -> int:
        """Positions before the pass."""
        return self._context


class Mixture:
    """A random mixture whose routers say what they are told to, and passes over it that can be run again and again.

    Args:
        subject: the model.
        size: what is verified.
        device: on which it lies.
        layers: fewer than it has; None for all.
    """

    def __init__(self, subject: Subject, size: Size, device: torch.device, layers: int | None) -> None:
        self.subject, self.size, self.device = subject, size, device
        self.model: Any = random_model(configuration_of(subject, layers), dtype=DTYPE, device=device)
        found = anatomy(self.model)
        self._blocks: list[Any] = [layer.experts for layer in found.mixtures]
        its = next(layer for layer in found.shapes.layers if layer.experts)
        self.experts, self.chosen = its.experts, its.active
        self.expert_bytes = its.expert * DTYPE.itemsize
        self._drawn = torch.Generator().manual_seed(0)
        self._told: Mapping[Any, tuple[torch.Tensor, Routing, Rule | None]] = {}
        for layer in found.mixtures:
            router: Any = layer.router
            router.register_forward_hook(self._routes)
        self._routers = [layer.router for layer in found.mixtures]
        ids = torch.randint(self.model.config.vocab_size, (1, size.context), generator=self._drawn)
        filled = DynamicCache(config=self.model.config)
        with torch.inference_mode():
            self.model.model(ids.to(device), past_key_values=filled, use_cache=True)
        self._cache = HeldCache(self.model.config, size.context, filled)

    def met(self, tokens: int) -> int:
        """Different experts of a layer that so many tokens meet."""
        independent = self.experts * (1 - (1 - self.chosen / self.experts) ** tokens)
        return min(
            max(round((1 - self.subject.alike) * independent), self.chosen), tokens * self.chosen, self.experts
        )

    def read(self, kind: Kind) -> int:
        """Experts of a layer that a pass reads."""
        return self.met(kind.tokens) if kind.budget is None else min(kind.budget, self.met(kind.tokens))

    def kinds(self) -> list[Kind]:
        """What is timed: every size without a budget and under all that bind, and plain steps of both kernels."""
        found = [Kind(1, None), Kind(1, None, "batched_mm"), Kind(1, None, "grouped_mm")]
        for tokens in self.size.tokens:
            bound = [budget for budget in self.subject.budgets if budget < self.met(tokens)]
            found += [
                Kind(tokens, None),
                *(Kind(tokens, budget) for budget in bound),
                Kind(tokens, None, "grouped_mm"),
            ]
        return found

    def pass_of(self, kind: Kind) -> Callable[[], object]:
        """A pass that can be run again and again; on a GPU it was captured as a graph.

        Args:
            kind: of the pass.
        """
        natural = Rule(self.chosen, self.experts)
        rule = None if kind.budget is None else Rule(self.chosen, kind.budget)
        told = {}
        for router in self._routers:
            logits = self._logits(kind.tokens)
            told[router] = logits, reference(logits, natural, torch.float32), rule
        cache, where = self._cache.with_room(kind.tokens), self._where(kind.tokens)
        ids = torch.randint(self.model.config.vocab_size, (1, kind.tokens), generator=self._drawn).to(self.device)

        def run() -> object:
            self._told = told
            return self.model(ids, past_key_values=cache, use_cache=True, **where).logits

        with implementations.experts(self.model, kind.kernels):
            return captured(run, self.device)

    def experts_of(self, kind: Kind) -> Callable[[], object]:
        """The experts of all layers by themselves, with the grid of the shortlist."""
        rule = Rule(self.chosen, kind.budget or self.experts)
        x = torch.randn(kind.tokens, self.model.config.hidden_size, device=self.device).to(DTYPE)
        routed = [reference(self._logits(kind.tokens), rule, torch.float32) for _ in self._blocks]

        def run() -> object:
            found = x
            for block, its in zip(self._blocks, routed, strict=True):
                found = expert_product(
                    x, block.gate_up_proj, block.down_proj, its.index, its.weights, shortlist=its.shortlist
                )
            return found

        return captured(run, self.device)

    def floor_pass(self, kind: Kind) -> Pass:
        """A pass as a ledger has it."""
        return Pass(
            "verify" if kind.tokens > 1 else "decode", kind.tokens, self.size.context, logits=kind.tokens,
            depths=depths(kind.tokens), experts=(self.read(kind),) * len(self._blocks),
        )  # fmt: skip

    def _logits(self, tokens: int) -> torch.Tensor:
        """By which tokens meet as many experts as they should, each about as often."""
        met = torch.randperm(self.experts, generator=self._drawn)[: self.met(tokens)]
        places = torch.arange(tokens * self.chosen).view(tokens, -1) % len(met)
        strong = 4 + torch.rand(places.shape, generator=self._drawn)
        return torch.zeros(tokens, self.experts).scatter_(1, met[places], strong).to(self.device, DTYPE)

    def _where(self, tokens: int) -> dict[str, torch.Tensor]:
        context, its = self.size.context, torch.tensor(depths(tokens), device=self.device)
        places = {"position_ids": context + its[None]}
        if tokens == 1:
            return places
        seen = torch.eye(tokens, dtype=torch.bool)
        for node in range(1, tokens):
            seen[node] |= seen[(node - 1) // 2]
        mask = torch.zeros(tokens, context + tokens, dtype=DTYPE)
        mask[:, context:].masked_fill_(~seen, torch.finfo(DTYPE).min)
        return {"attention_mask": mask[None, None].to(self.device), **places}

    def _routes(self, router: Any, given: Any, found: tuple[torch.Tensor, ...]) -> Any:
        if router not in self._told:
            return None
        logits, routing, rule = self._told[router]
        if rule is not None:
            routing = budgeted_routing(logits, rule)
        return logits, routing.weights.to(DTYPE), routing.index


def configuration_of(subject: Subject, layers: int | None) -> Any:
    """Of a model, from whose vocabulary nothing ends an answer."""
    if subject.name.startswith("mistralai/"):
        shape = {**MIXTRAL, **({} if layers is None else {"num_hidden_layers": layers})}
        found = AutoConfig.for_model(**shape)
    else:
        found = random_configuration(subject.name, layers=layers if "/" in subject.name else None)
    found.bos_token_id = found.eos_token_id = found.pad_token_id = None
    return found


def captured(run: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """Work as a CUDA graph; as it is on a processor."""
    with torch.inference_mode():
        if device.type != "cuda":
            run()
            return run
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()
            run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()

    def again() -> object:
        graph.replay()
        return run  # whose tensors the graph reads and writes: they must not go before it

    return again


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Of one run; on a GPU by its own events, behind work that holds it up until the graph was asked for."""
    with torch.inference_mode():
        return timed(work, device).device_s


class Bench:
    """A device that was probed, and what was measured on it so far."""

    def __init__(self, device: torch.device, size: Size, probe: FloorProbe) -> None:
        self._device, self._size, self._probe = device, size, probe
        self.rows: list[Row] = []
        self.limits: dict[str | tuple[str, str], float] = {}
        self.figures: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.faults: list[str] = []
        self.kept: Callable[[], None] = lambda: None

    def model(self, subject: Subject, layers: int | None) -> None:
        """Measure one model; one that does not fit is left out, with a note."""
        print(f"{subject.name}: making it", file=sys.stderr)
        with going_on(self.faults, subject.name):
            try:
                made = Mixture(subject, self._size, self._device, layers)
                self._measure(made)
                del made
            except Exception as error:
                if not isinstance(error, MethodError) and not out_of_memory(error):
                    raise
                self._note(f"{subject.name} is left out: {failure_reason(error)}")
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _measure(self, made: Mixture) -> None:
        alone = [Kind(1, None), Kind(1, None, "batched_mm"), Kind(1, None, "grouped_mm")]
        plain = {kind: times for kind, (times, _) in self._timed(made, alone).items()}
        step = min(plain, key=lambda kind: statistics.median(plain[kind]))
        self._note(f"{made.subject.name}: the plain step takes {step.kernels}, the fastest here")
        for tokens in made.size.tokens:
            kinds = [step, *(kind for kind in made.kinds() if kind.tokens == tokens)]
            with going_on(self.faults, f"{made.subject.name}, {tokens} tokens"):
                self._add(made, step, tokens, self._timed(made, kinds))
            self.kept()

    def _timed(self, made: Mixture, kinds: Sequence[Kind]) -> dict[Kind, tuple[list[float], float]]:
        """Seconds of each kind, in turns, and those of its experts by themselves."""
        order = random.Random(0)
        seconds: dict[Kind, list[float]] = {kind: [] for kind in kinds}
        experts: dict[Kind, float] = {}
        self._probe.again(3)
        passes = {}
        for kind in kinds:
            try:
                passes[kind] = made.pass_of(kind)
            except RuntimeError as error:
                if kind.kernels == OWN or out_of_memory(error):
                    raise
                self._note(f"{kind.kernels} is left out at {kind.tokens} tokens: {failure_reason(error)}")
                continue
            alone = made.experts_of(kind)
            experts[kind] = min(seconds_of(alone, self._device) for _ in range(3))
        for turn in range(-1, self._size.rounds):
            for kind in order.sample(list(passes), len(passes)):
                # What was captured has its kernels; without graphs each pass is told its own.
                with implementations.experts(made.model, kind.kernels):
                    taken = seconds_of(passes[kind], self._device)
                if turn >= 0:
                    seconds[kind].append(taken)
        return {kind: (seconds[kind], experts[kind]) for kind in passes}

    def _add(
        self, made: Mixture, step: Kind, tokens: int, timed: Mapping[Kind, tuple[Sequence[float], float]]
    ) -> None:
        floor, whole = self._probe.floor, Kind(tokens, None)
        turns = list(range(self._size.rounds))
        for kind, (times, experts_s) in timed.items():
            least_cost = cost(made.model.config, [made.floor_pass(kind)], DTYPE)
            least = floor.floor_seconds(least_cost.bytes, least_cost.flops, DTYPE)
            layer_bytes = made.read(kind) * made.expert_bytes
            bound = "plain step" if kind.tokens == 1 else f"{kind.tokens} tokens, " + (
                f"U={made.met(tokens)}" if kind.budget is None else f"B={kind.budget}"
            )  # fmt: skip
            case = f"{made.subject.name}, {bound}"
            above = paired_ratio(times, [least] * len(times), turns)
            median = statistics.median(times)
            rate = layer_bytes * len(made._blocks) / experts_s / floor.read_bytes_per_s
            self.figures.append(
                {
                    "case": case,
                    "arm": kind.arm,
                    "pass_s": median,
                    "floor_s": least,
                    "bytes": least_cost.bytes,
                    "bandwidth": least_cost.bytes / median / floor.read_bytes_per_s,
                    "experts_s": experts_s,
                    "experts_bandwidth": rate,
                    "layer_bytes": layer_bytes,
                    "steps": paired_ratio(times, timed[step][0], turns).value,
                }
            )
            if kind == step:
                continue
            large = layer_bytes >= LARGE and kind.kernels == OWN
            if large:
                self.limits[case, "pass_s over the floor"] = WITHIN
            self._row(case, kind.arm, "floor", "pass_s over the floor", above, floor=1.0, headline=large)
            self._row(case, kind.arm, step.arm, "pass_s", paired_ratio(times, timed[step][0], turns))
            if kind != whole:
                ratio = paired_ratio(times, timed[whole][0], turns)
                self._row(case, kind.arm, "eagle3", "pass_s", ratio, floor=least / statistics.median(timed[whole][0]))
            if large and above.value > WITHIN:
                others = median - experts_s
                self._note(
                    f"{case}: {above.value:.2f} times the floor. Its experts by themselves take "
                    f"{experts_s / median:.0%} of it, at {rate:.0%} of the measured bandwidth; "
                    f"{others / median:.0%} are everything else."
                )

    def _row(self, case: str, arm: str, baseline: str, metric: str, ratio: Estimate, **more: Any) -> None:
        self.rows.append(estimated(case, arm, baseline, metric, ratio, **more))

    def _note(self, text: str) -> None:
        print(text, file=sys.stderr)
        self.notes.append(text)


def benchmark(options: argparse.Namespace) -> int:
    """Everything."""
    device = available_device(options.device)
    if device.type == "cpu" and not options.quick:
        raise BenchmarkError("Models of these sizes are for a GPU: take --quick for tiny ones on a processor.")
    size = QUICK if options.quick else FULL
    if options.model:
        known = [subject.name for subject in size.subjects]
        if unknown := [name for name in options.model if name not in known]:
            raise BenchmarkError(f"There is no model '{unknown[0]}' here; there are {', '.join(known)}.")
        size = replace(size, subjects=[each for each in size.subjects if each.name in options.model])
    small: dict[str, Any] = {"reads": (2**20,), "sides": (64,)} if options.quick else {}
    probe = FloorProbe(device, dtypes=[DTYPE], **small)
    probe.again()
    bench = Bench(device, size, probe)

    def report() -> Report:
        floor = probe.floor
        details = running(
            device={"name": floor.device.name, "kind": floor.device.kind, "cuda": torch.version.cuda},
            floor={
                "read_bytes_per_s": floor.read_bytes_per_s,
                "flops_per_s": dict(floor.flops_per_s),
                "launch_s": floor.launch_s,
            },
            work={**asdict(size), "layers": options.layers, "dtype": "bfloat16"},
            notes=[*bench.notes, *bench.faults],
            figures=bench.figures,
        )
        return Report("gpu_speculation", details, bench.rows, bench.limits)

    bench.kept = lambda: keep(report(), options)
    with until_cut(bench.notes):
        for subject in size.subjects:
            bench.model(subject, options.layers)
    for each in bench.figures:
        print(
            f"{each['case']:<50} {each['arm']:<24} {1e3 * each['pass_s']:>8.3f} ms  {each['bandwidth']:>4.0%} of the "
            f"bandwidth (experts alone {each['experts_bandwidth']:.0%})  {each['steps']:.2f} steps"
        )
    return conclude(report(), options) or int(bool(bench.faults))


def main(given: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = arguments(__doc__ or "", "tiny models, whose times mean nothing, on whatever device")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--layers", type=int, help="fewer layers than the models have")
    parser.add_argument("--model", action="append", metavar="NAME", help="one of them alone")
    return finished(benchmark, parser.parse_args(given), MethodError)


if __name__ == "__main__":
    sys.exit(main())
