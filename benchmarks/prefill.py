"""Prompts read in part on this processor: the time to the first token beside the full prefill's, and its bound."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pruning.bounds import Bench, Work
from pruning.contest import Case, Contest, Round, limit_of, rows_of, sentences, told
from report import BenchmarkError, Report, arguments, conclude, finished, running, until_cut
from transformers import LlamaConfig

from vivace_kernels.prefill.window_scores import Scoring, window_scores
from vivace_methods.models.random import random_model
from vivace_methods.protocol import Method, MethodError
from vivace_methods.registry import METHODS, method

KEEPS = (0.1, 0.2, 0.4)
OF_ITS_BOUND = 0.95
"""Of the reduction that is possible, what the headline arm has to reach."""
HEADLINE = "claa"
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

    @property
    def cases(self) -> list[Case]:
        """All lengths with all shares that go on."""
        return [Case(tokens, keep) for tokens in self.rounds for keep in self.keeps]


FULL = Size({2048: 5, 8192: 5})
QUICK = Size({2048: 3}, keeps=(0.2,), arms=("claa",))


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
        first = json.dumps({"work": work}) + "\n"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(first, encoding="utf-8")
        lines = file.read_text("utf-8").splitlines(keepends=True)
        if lines[:1] != [first]:
            raise BenchmarkError(f"{file} holds rounds of other work: take another file, or delete it.")
        whole = [line for line in lines if line.endswith("\n")]
        if len(whole) < len(lines):  # a run was stopped while it wrote
            file.write_text("".join(whole), encoding="utf-8")
        for line in whole[1:]:
            known = json.loads(line)
            self.rounds.setdefault(known["case"], []).append(Round(**known["round"]))
            self.figures[known["case"]] = known["figures"]

    def add(self, case: str, its: Round, figures: Mapping[str, Any]) -> None:
        """Keep one more."""
        self.rounds.setdefault(case, []).append(its)
        self.figures[case] = figures
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"case": case, "round": vars(its), "figures": figures}) + "\n")


def measured(size: Size, trials: Trials) -> None:
    """Measure all rounds that are still missing."""
    model, draft = ((each, Bench(each)) for each in models(size))
    for case in size.cases:
        done, rounds = len(trials.rounds.get(case.name, [])), size.rounds[case.tokens]
        if done >= rounds:
            continue
        print(f"{case.name}: rounds {done + 1} to {rounds}", file=sys.stderr)
        with ExitStack() as contexts:
            contest = Contest(case, methods_of(size, case.keep), model, draft, contexts)
            contest.warm_up()
            for turn in range(done, rounds):
                trials.add(case.name, contest.round(turn), contest.figures)


def benchmark(options: argparse.Namespace) -> int:
    """Everything."""
    size = QUICK if options.quick else FULL
    if options.quick and (options.tokens or options.keep):
        raise BenchmarkError("--quick has one case alone: leave --tokens and --keep out.")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    work = {name: value for name, value in vars(size).items() if name not in ("rounds", "keeps")}
    work = json.loads(json.dumps({**work, "threads": torch.get_num_threads()}))
    trials, notes = Trials(options.trials, work), list[str]()
    size = replace(
        size,
        rounds={tokens: size.rounds[tokens] for tokens in options.tokens or size.rounds},
        keeps=options.keep or size.keeps,
    )
    with until_cut(notes):
        measured(size, trials)
    cases = {case.name: case for case in size.cases if case.name in trials.rounds}
    rounds = {name: trials.rounds[name] for name in cases}
    found = told(rounds, trials.figures)
    for sentence in sentences(found):
        print(sentence)
    rows = [row for name, case in cases.items() for row in rows_of(case, rounds[name], {HEADLINE})]
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
        rates={case: [each.rates for each in its] for case, its in rounds.items()},
        notes=notes,
        scoring_bytes=memory,
    )
    limits: dict[str | tuple[str, str], float] = {
        (case, "ttft_s"): limit_of(arms[HEADLINE]["bound"], OF_ITS_BOUND) for case, arms in found.items()
    }
    return conclude(Report("prefill", details, rows, limits, floors_are_measured=True), options)


def main(given: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = arguments(__doc__ or "", "claa alone, on prompts of 2,048 tokens of which it keeps a fifth")
    parser.add_argument("--threads", type=int, help="of the processor; all cores otherwise")
    parser.add_argument(
        "--trials", type=Path, metavar="FILE", help="keep each round there, and go on where a run was stopped"
    )
    parser.add_argument(
        "--tokens", type=int, action="append", choices=sorted(FULL.rounds), help="prompts of this length"
    )
    parser.add_argument("--keep", type=float, action="append", choices=KEEPS, help="how much of them goes on")
    return finished(benchmark, parser.parse_args(given), MethodError)


if __name__ == "__main__":
    sys.exit(main())
