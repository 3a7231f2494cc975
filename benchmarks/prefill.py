"""Prompts read in part on this processor: the time to the first token beside the full prefill's, and its bound."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from prefill_bounds import Bench, Bounds, Work
from report import BenchmarkError, Report, Row, arguments, compare, conclude, estimated, finished, running
from transformers import LlamaConfig

from vivace_kernels.prefill.window_scores import Scoring, window_scores
from vivace_methods.decoding.joined import applied
from vivace_methods.models.ledger import Pass
from vivace_methods.models.random import random_model
from vivace_methods.models.shared_copy import shared_copy
from vivace_methods.prefill.rankers.base import Shown
from vivace_methods.protocol import Generator, Method, MethodError, Need, Request
from vivace_methods.registry import METHODS, method
from vivace_methods.timing.ratios import paired_ratio

KEEPS = (0.1, 0.2, 0.4)
OF_ITS_BOUND = 0.95
"""Of the reduction that is possible, what `claa` has to reach."""
ENOUGH_FOR_INTERVALS = 5
LEFT_OUT = {"oracle": "it ranks by an answer that has to be written first: a yardstick of quality, and of no time"}
EARLY = {"claa, before attention": ("claa", {"select": "before-attention"})}
"""Further arms: method and settings."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        rounds: tokens of the prompts → rounds in which every arm reads one of its own.
        keeps: how much of the prompts goes on.
        arms: names of the methods; None for the whole family.
        layers: of the model.
        hidden: its width.
        intermediate: that of its MLPs.
        heads: of queries; half as many of keys.
        vocabulary: its tokens.
    """

    rounds: Mapping[int, int]
    keeps: Sequence[float] = KEEPS
    arms: Sequence[str] | None = None
    layers: int = 16
    hidden: int = 1024
    intermediate: int = 2816
    heads: int = 16
    vocabulary: int = 8192


FULL = Size({2048: 6, 8192: 3})
QUICK = Size({2048: 3}, keeps=(0.2,), arms=("claa",))


@dataclass(frozen=True)
class Case:
    """Prompts of one length, and how much of them goes on.

    Attributes:
        tokens: of a prompt.
        keep: the share that goes on.
    """

    tokens: int
    keep: float

    @property
    def name(self) -> str:
        """As the table shows it."""
        return f"{self.tokens:,} tokens, keep {self.keep:.0%}"


@dataclass(frozen=True)
class Round:
    """What one round of a case has shown, in which each arm has read one prompt.

    Attributes:
        seconds: to the first token, by arm.
        floors: the share of the full prefill's time that each arm's passes must take at the rates of this round.
        rates: of products and of attention.
    """

    seconds: Mapping[str, float]
    floors: Mapping[str, float]
    rates: Mapping[str, Any]


def models(size: Size) -> tuple[Any, Any]:
    """The model, and a draft an eighth as deep and half as wide."""
    shared: dict[str, Any] = {
        "vocab_size": size.vocabulary, "bos_token_id": None, "eos_token_id": None,
        "max_position_embeddings": 2 * max(size.rounds),
    }  # fmt: skip

    def of(share: int, layers: int) -> Any:
        configuration = LlamaConfig(
            hidden_size=size.hidden // share,
            intermediate_size=size.intermediate // share,
            num_hidden_layers=layers,
            num_attention_heads=size.heads // share,
            num_key_value_heads=size.heads // share // 2,
            **shared,
        )
        return random_model(configuration, dtype=torch.float32)

    return of(1, size.layers), of(2, max(size.layers // 8, 1))


def methods_of(size: Size, keep: float) -> dict[str, Method]:
    """Each arm's method: the family's, and what else is told of some of them."""
    found = {}
    for name, kind in METHODS.items():
        if kind.family == "prefill" and name != "full" and name not in LEFT_OUT:
            found[name] = method(name, keep=keep)
    for name, (base, settings) in EARLY.items():
        found[name] = method(base, keep=keep, **settings)
    return {name: each for name, each in found.items() if size.arms is None or name in size.arms}


class Contest:
    """All arms of a case, attached to copies that share one model's weights."""

    def __init__(self, case: Case, size: Size, bench: Bench, model: Any, draft: Any, contexts: ExitStack) -> None:
        self.case, self._bench, self._vocabulary = case, bench, size.vocabulary
        arms = {"full": method("full"), **methods_of(size, case.keep)}
        self._arms: dict[str, Generator] = {
            name: contexts.enter_context(
                applied(each, shared_copy(model), shared_copy(draft) if Need.DRAFTER in each.needs else None)
            )
            for name, each in arms.items()
        }
        self._passes: dict[str, Sequence[Pass]] = {}
        self.figures: dict[str, dict[str, Any]] = {}

    def warm_up(self) -> None:
        """Each arm reads a prompt, off the record: what it passes through, and what its scoring takes of it."""
        for name in self._arms:
            spent: list[float] = []
            with _scoring_timed(spent):
                taken, trace = self._read(name, -1)
            self._passes[name] = trace.passes
            shown = {each: trace.figures.get(each) for each in ("kept_share", "kv_share", "prune_layer")}
            self.figures[name] = {"scoring_share": sum(spent) / taken, **shown}

    def round(self, turn: int) -> Round:
        """One round: the arms in an order that is drawn, the rates between them."""
        order = random.Random(turn).sample(list(self._arms), len(self._arms))
        seconds = {name: self._read(name, turn)[0] for name in order[: len(order) // 2]}
        counts = {self.case.tokens, *(tokens for passes in self._passes.values() for tokens in _counts(passes))}
        rates = self._bench.rates(_thinned(counts), turn)
        seconds |= {name: self._read(name, turn)[0] for name in order[len(order) // 2 :]}
        bounds = Bounds(self._bench.shapes, rates)
        whole = bounds.seconds(self._passes["full"])
        floors = {name: bounds.seconds(passes) / whole for name, passes in self._passes.items()}
        return Round(seconds, floors, rates.as_json())

    def _read(self, name: str, turn: int) -> tuple[float, Any]:
        drawn = torch.Generator().manual_seed(1000 + turn)
        prompt = torch.randint(self._vocabulary, (1, self.case.tokens), generator=drawn)
        moments: list[float] = []
        begun = time.perf_counter()
        trace = self._arms[name].generate(Request(prompt, 1), lambda tokens: moments.append(time.perf_counter()))
        return moments[0] - begun, trace


def _counts(passes: Sequence[Pass]) -> Iterator[int]:
    for one in passes:
        if one.kind == "read":
            yield from (tokens for tokens in one.layer_tokens or (one.tokens,) if tokens > 1)


def _thinned(counts: set[int]) -> list[int]:
    """The numbers of tokens, without those within a tenth of another: rates change slowly."""
    kept: list[int] = []
    for count in sorted(counts, reverse=True):
        if not kept or count < 0.9 * kept[-1]:
            kept.append(count)
    return kept


@contextmanager
def _scoring_timed(spent: list[float]) -> Iterator[None]:
    """Notes what the scores of windows take while the context lasts."""
    plain = Shown.window_scores

    def timed(shown: Shown, *given: Any, **named: Any) -> torch.Tensor:
        begun = time.perf_counter()
        scores = plain(shown, *given, **named)
        spent.append(time.perf_counter() - begun)
        return scores

    with patch.object(Shown, "window_scores", timed):
        yield


def rows_of(case: Case, rounds: Sequence[Round]) -> list[Row]:
    """A row of each arm; `floor` is the lowest of the rounds, below which no arm can come."""
    rows = []
    for arm in rounds[0].seconds:
        if arm == "full":
            continue
        pairs = [(each.seconds[arm], each.seconds["full"]) for each in rounds]
        floor = min(each.floors[arm] for each in rounds)
        headline = arm == "claa"
        if len(pairs) < ENOUGH_FOR_INTERVALS:
            rows.append(compare(case.name, arm, "full", "ttft_s", pairs, floor=floor, headline=headline))
        else:
            ratio = paired_ratio(*zip(*pairs, strict=True), list(range(len(pairs))))
            rows.append(estimated(case.name, arm, "full", "ttft_s", ratio, floor=floor, headline=headline))
    return sorted(rows, key=lambda row: (not row.headline, row.arm))


def limits_of(rows: Sequence[Row], bounds: Mapping[str, float]) -> dict[str | tuple[str, str], float]:
    """The highest ratio that each headline row may show: nearly the whole reduction that is possible.

    Args:
        rows: of all cases.
        bounds: case → the floor of its headline arm, the median over rounds.
    """
    return {
        (row.case, row.metric): 1 - OF_ITS_BOUND * (1 - bounds[row.case]) for row in rows if row.headline
    }  # fmt: skip


def scoring_bytes(tokens: int, size: Size) -> int:
    """The most memory that the scoring step of one layer takes beside its inputs, in bytes."""
    width, window = size.hidden // size.heads, 8
    queries, keys = torch.randn(size.heads, window, width), torch.randn(size.heads // 2, tokens, width)
    return most_allocated(partial(window_scores, queries, keys, Scoring()))


def most_allocated(work: Work) -> int:
    """The most memory of tensors that work holds at once on the processor, in bytes, as torch's profiler sees it."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        kept = work()
    held = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    del kept
    return most


class Trials:
    """Rounds that were measured, also by an earlier run that was stopped: each is written down when it is done.

    Args:
        file: where they are kept; None for nowhere.
        work: what the rounds are of; those of other work are an error.
    """

    def __init__(self, file: Path | None, work: Mapping[str, Any]) -> None:
        self._file = file
        self.rounds: dict[str, list[Round]] = {}
        self.figures: dict[str, Any] = {}
        if file is None:
            return
        first = json.dumps({"work": work})
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(first + "\n", encoding="utf-8")
        lines = file.read_text("utf-8").splitlines()
        if lines[0] != first:
            raise BenchmarkError(f"{file} holds rounds of other work: take another file, or delete it.")
        for line in lines[1:]:
            told = json.loads(line)
            self.rounds.setdefault(told["case"], []).append(Round(**told["round"]))
            self.figures[told["case"]] = told["figures"]

    def add(self, case: str, its: Round, figures: Mapping[str, Any]) -> None:
        """Keep one more."""
        self.rounds.setdefault(case, []).append(its)
        self.figures[case] = figures
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"case": case, "round": vars(its), "figures": figures}) + "\n")


def measured(size: Size, trials: Trials) -> None:
    """Measure all rounds that are still missing."""
    model, draft = models(size)
    bench = Bench(model)
    for tokens, rounds in size.rounds.items():
        for keep in size.keeps:
            case = Case(tokens, keep)
            done = len(trials.rounds.get(case.name, []))
            if done >= rounds:
                continue
            print(f"{case.name}: rounds {done + 1} to {rounds}", file=sys.stderr)
            with ExitStack() as contexts:
                contest = Contest(case, size, bench, model, draft, contexts)
                contest.warm_up()
                for turn in range(done, rounds):
                    trials.add(case.name, contest.round(turn), contest.figures)


def told(rounds: Mapping[str, Sequence[Round]], figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Of each case and arm what the reduction is, what it can be, and what else was seen."""
    found: dict[str, Any] = {}
    for case, its in rounds.items():
        for arm in its[0].seconds:
            ratio = statistics.median(each.seconds[arm] / each.seconds["full"] for each in its)
            floor = statistics.median(each.floors[arm] for each in its)
            reached = (1 - ratio) / (1 - floor) if floor < 0.99 else None
            found.setdefault(case, {})[arm] = {
                "seconds": [each.seconds[arm] for each in its],
                "reduction": 1 - ratio,
                "bound": 1 - floor,
                "reached": reached,
                **figures[case][arm],
            }
    return found


def sentences(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[str]:
    """For people: what each arm saves, what it could, and what scoring takes."""
    for case, arms in found.items():
        for arm, its in arms.items():
            if arm != "full":
                reached = "" if its["reached"] is None else f", {its['reached']:.1%} of it"
                yield (
                    f"{case}: {arm} saves {its['reduction']:.1%}, its bound is {its['bound']:.1%}{reached}; scoring "
                    f"takes {its['scoring_share']:.2%}"
                )


def benchmark(options: argparse.Namespace) -> int:
    """Everything."""
    size = QUICK if options.quick else FULL
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    work = {**vars(size), "rounds": {str(tokens): rounds for tokens, rounds in size.rounds.items()}}
    work["threads"] = torch.get_num_threads()
    trials = Trials(options.trials, json.loads(json.dumps(work)))
    measured(size, trials)
    found = told(trials.rounds, trials.figures)
    for sentence in sentences(found):
        print(sentence)
    rows = []
    for tokens in size.rounds:
        for keep in size.keeps:
            case = Case(tokens, keep)
            rows += rows_of(case, trials.rounds[case.name])
    lengths = sorted(size.rounds)
    lengths = lengths if len(lengths) > 1 else [lengths[0] // 2, lengths[0]]
    memory = {str(tokens): scoring_bytes(tokens, size) for tokens in lengths}
    for tokens, held in memory.items():
        print(f"scoring one layer of {tokens} tokens holds {held:,} bytes at once")
    details = running(
        work=work,
        arms={name: each.label for name, each in methods_of(size, size.keeps[0]).items()},
        left_out=LEFT_OUT,
        figures=found,
        rates={case: [each.rates for each in its] for case, its in trials.rounds.items()},
        scoring_bytes=memory,
    )
    bounds = {case: 1 - arms["claa"]["bound"] for case, arms in found.items()}
    return conclude(Report("prefill", details, rows, limits_of(rows, bounds)), options)


def main(given: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = arguments(__doc__ or "", "claa alone, on prompts of 2,048 tokens of which it keeps a fifth")
    parser.add_argument("--threads", type=int, help="of the processor; all cores otherwise")
    parser.add_argument(
        "--trials", type=Path, metavar="FILE", help="keep each round there, and go on where a run was stopped"
    )
    return finished(benchmark, parser.parse_args(given), MethodError)


if __name__ == "__main__":
    sys.exit(main())
