"""Prompts read in part on a GPU: a random Llama-3.1-8B, each method beside the full prefill and its own bound."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from devices.device_times import timed
from pruning.bounds import Bench
from pruning.contest import Case, Contest, Round, limit_of, rows_of, sentences, told
from report import BenchmarkError, Report, arguments, conclude, finished, going_on, keep, running, until_cut
from transformers import LlamaConfig

from vivace_kernels.prefill.kept_attention import kept_attention
from vivace_kernels.prefill.window_scores import Scoring, window_scores
from vivace_methods.models.loading import available_device
from vivace_methods.models.random import random_configuration, random_model
from vivace_methods.protocol import Method, MethodError
from vivace_methods.registry import method

MODEL = "meta-llama/Llama-3.1-8B"
DRAFT = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
"""As Llama-3.2-1B differs from the model."""
DTYPE = torch.bfloat16
EARLY = "claa, before attention"
ARMS = ("claa", EARLY, "fastkv", "gemfilter", "spec-prefill")
WINDOW = 8
"""Last tokens that look, as all arms have it."""
PAST_THE_CACHE = 4
"""Times the GPU's L2 cache that keys and values take which a kernel reads before it comes to the same ones again."""
OF_ITS_BOUND = 0.93
"""Of the reduction that is possible, what every arm is to reach."""
LONG = Case(32_768, 0.1)
AT_MOST = 0.55
"""Of the full prefill's time, with early selection, on long prompts of which a tenth goes on."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        cases: in order of worth.
        rounds: of each, in which every arm reads one prompt.
        is_tiny: whether the model is a tiny one, whose times mean nothing.
    """

    cases: tuple[Case, ...]
    rounds: int
    is_tiny: bool = False


FULL = Size(
    (LONG, Case(10_240, 0.1), Case(131_072, 0.1), Case(32_768, 0.2), Case(10_240, 0.2), Case(131_072, 0.2)), rounds=5
)
QUICK = Size((Case(96, 0.25),), rounds=2, is_tiny=True)


def models(size: Size, device: torch.device) -> tuple[Any, Any]:
    """The model, and the draft of one arm."""
    configuration = random_configuration("llama" if size.is_tiny else MODEL)
    if size.is_tiny:
        configuration.num_hidden_layers = 4
    configuration.bos_token_id = configuration.eos_token_id = configuration.pad_token_id = None  # none ends early
    smaller = {"num_hidden_layers": 1} if size.is_tiny else DRAFT
    draft = LlamaConfig(**{**configuration.to_dict(), "head_dim": None, **smaller})
    return random_model(configuration, dtype=DTYPE, device=device), random_model(draft, dtype=DTYPE, device=device)


def methods_of(keep: float) -> dict[str, Method]:
    """The methods that are compared; one of the arms selects before the attention of its prune layer."""
    found = {name: method(name, keep=keep) for name in ARMS if name != EARLY}
    return {"claa": found.pop("claa"), EARLY: method("claa", keep=keep, select="before-attention"), **found}


def kernel_seconds(bench: Bench, case: Case) -> dict[str, Any]:
    """What the kernels take of one layer by themselves, and the most memory that scoring holds beside its inputs.

    On a GPU by its own events, over so many inputs that none of them is still in the cache when it is read again.
    """
    its, device = bench.shapes.layers[0], bench.device
    width, kept = its.query // its.heads, int(case.keep * case.tokens)
    size = 2 * its.key_value_heads * case.tokens * width * DTYPE.itemsize
    copies = 1
    if device.type == "cuda":
        copies = 1 + PAST_THE_CACHE * torch.cuda.get_device_properties(device).L2_cache_size // size

    def drawn(heads: int, tokens: int) -> torch.Tensor:
        return torch.randn(heads, tokens, width, device=device, dtype=DTYPE)

    both = [[drawn(its.key_value_heads, case.tokens) for _ in "kv"] for _ in range(copies)]
    queries, places = drawn(its.heads, kept), torch.arange(kept, device=device) * (case.tokens // kept)

    def score() -> None:
        for keys, _ in both:
            window_scores(queries[:, -WINDOW:], keys, Scoring())

    def attend() -> None:
        for keys, values in both:
            kept_attention(queries, keys, values, places)

    found: dict[str, Any] = {}
    for name, work in (("window_scores_s", score), ("kept_attention_s", attend)):
        work()  # compiles
        found[name] = min(timed(work, device).device_s for _ in range(5)) / copies
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        window_scores(queries[:, -WINDOW:], both[0][0], Scoring())
        found["window_scores_bytes"] = torch.cuda.max_memory_allocated(device) - before
    return found


def measured(
    size: Size,
    device: torch.device,
    found: dict[str, list[Round]],
    seen: dict[str, dict[str, Any]],
    faults: list[str],
    kept: Callable[[], None],
) -> None:
    """Measure all cases, each into what was found before.

    Args:
        size: what is measured.
        device: on which.
        found: rounds of each case.
        seen: what was seen of each besides.
        faults: to which it is added what failed; the other cases go on.
        kept: called after each round.
    """
    model, draft = ((each, Bench(each)) for each in models(size, device))
    for case in size.cases:
        print(f"{case.name}: {size.rounds} rounds", file=sys.stderr)
        with going_on(faults, case.name), ExitStack() as contexts, torch.inference_mode():
            contest = Contest(case, methods_of(case.keep), model, draft, contexts)
            contest.warm_up()
            contest.figures["kernels"] = {}
            seen[case.name] = contest.figures
            with going_on(faults, f"{case.name}, kernels by themselves"):
                contest.figures["kernels"] = kernel_seconds(model[1], case)
            rounds: list[Round] = []
            for turn in range(size.rounds):
                rounds.append(contest.round(turn))
                found[case.name] = rounds
                kept()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def benchmark(options: argparse.Namespace) -> int:
    """Everything."""
    device = available_device(options.device)
    if device.type == "cpu" and not options.quick:
        raise BenchmarkError("A model of this size is for a GPU: take --quick for a tiny one on a processor.")
    size = QUICK if options.quick else FULL
    if options.tokens:
        size = Size(tuple(case for case in size.cases if case.tokens in options.tokens), size.rounds)
        if not size.cases:
            lengths = ", ".join(map(str, sorted({case.tokens for case in FULL.cases})))
            raise BenchmarkError(f"There are prompts of {lengths} tokens: choose among them.")
    rounds: dict[str, list[Round]] = {}
    seen: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    faults: list[str] = []

    def report() -> Report:
        return _report(size, device, rounds, seen, [*notes, *faults])

    with until_cut(notes):
        measured(size, device, rounds, seen, faults, lambda: keep(report(), options))
    for sentence in sentences(told(rounds, seen)):
        print(sentence)
    return conclude(report(), options) or int(bool(faults))


def _report(
    size: Size,
    device: torch.device,
    rounds: Mapping[str, Sequence[Round]],
    seen: Mapping[str, Mapping[str, Any]],
    notes: Sequence[str],
) -> Report:
    """What was found so far."""
    summary = told(rounds, seen)
    rows, limits = [], {}
    for case in size.cases:
        if case.name not in rounds:
            continue
        rows += rows_of(case, rounds[case.name], ARMS, apart=True)
        for arm in ARMS:
            limits[f"{case.name}: {arm}", "ttft_s"] = limit_of(summary[case.name][arm]["bound"], OF_ITS_BOUND)
    early = (f"{LONG.name}: {EARLY}", "ttft_s")
    if early in limits:
        limits[early] = min(limits[early], AT_MOST)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    details = running(
        device={"name": name, "kind": device.type, "cuda": torch.version.cuda},
        work={"model": "tiny llama" if size.is_tiny else MODEL, "dtype": "bfloat16", "rounds": size.rounds},
        arms={name: each.label for name, each in methods_of(LONG.keep).items()},
        notes=notes,
        figures=summary,
        kernels={case: its["kernels"] for case, its in seen.items()},
        rates={case: [each.rates for each in its] for case, its in rounds.items()},
    )
    return Report("gpu_prefill", details, rows, limits, floors_are_measured=True)


def main(given: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = arguments(__doc__ or "", "a tiny model, whose times mean nothing, on whatever device")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tokens", type=int, action="append", metavar="N", help="prompts of this length alone")
    return finished(benchmark, parser.parse_args(given), MethodError)


if __name__ == "__main__":
    sys.exit(main())
