"""What sparsity costs in quality: R-Sparse and its rivals on the zoo's dense model, at equal weights read."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from report import Report, Row, arguments, conclude, estimated, finished, running
from transformers import AutoTokenizer

from vivace.tasks.base import Sample
from vivace.tasks.generated.base import GeneratedTask
from vivace.tasks.generated.code import Code
from vivace.tasks.generated.json_records import JsonRecords
from vivace.tasks.generated.sums import Sums
from vivace.tasks.perplexity import divergence
from vivace.tracks.efficiency.fitting_texts import Calibration
from vivace.zoo.shipped import folder_of
from vivace_methods.decoding.joined import applied
from vivace_methods.models.loading import load_model
from vivace_methods.models.shared_copy import shared_copy
from vivace_methods.protocol import Generator, MethodError, Request
from vivace_methods.registry import parse_method
from vivace_methods.spelling import Part, parse_one, write
from vivace_methods.timing.ratios import Estimate

TASKS: tuple[GeneratedTask, ...] = (Sums("addition"), Sums("subtraction"), Code(), JsonRecords())
LEVELS = (0.2, 0.3, 0.4, 0.5, 0.6)
ARMS = {
    "r-sparse, searched": "r-sparse(levels=greedy)",
    "r-sparse, uniform": "r-sparse(ratio=0.95)",
    "teal": "teal",
    "teal, greedy levels": "teal(levels=greedy)",
    "wina": "wina",
    "low-rank": "low-rank",
    "cats": "cats",
}
ABLATION = {
    "random-channels": "random-channels",
    "wina, greedy levels": "wina(levels=greedy)",
    "ratios searched": "r-sparse",
    "ratios searched by output error": "r-sparse(search=output-error)",
    "uniform, dropped factors": "r-sparse(ratio=0.95,factors=dropped)",
    "uniform, magnitude": "r-sparse(ratio=0.95,criterion=magnitude)",
    "uniform, calibrated at once": "r-sparse(ratio=0.95,sequential=false)",
    "uniform at 0.98": "r-sparse(ratio=0.98)",
    "uniform at 0.8": "r-sparse(ratio=0.8)",
}
CALIBRATED = {
    "ratios searched, a quarter of the text": "r-sparse",
    "teal, a quarter of the text": "teal",
    "teal, greedy levels, a quarter of the text": "teal(levels=greedy)",
}
BASELINE, STRONGER = "teal", "teal, greedy levels"
SEED = 1
MOST_TOKENS = 96
LIMITS: Mapping[str | tuple[str, str], float] = {
    "kl": 1.0,
    (f"zoo:dense at {LEVELS[-1]:.0%}", "kl"): 1.0 - 1e-9,
}


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        asked: prompts, from all tasks alike.
        calibrated: tokens that is fitted on.
        levels: of sparsity.
        arms: by their names.
        ablation: further arms at the highest level.
        calibrated_less: arms at the highest level that are fitted on a quarter of the tokens.
    """

    asked: int = 96
    calibrated: int = 6000
    levels: tuple[float, ...] = LEVELS
    arms: Mapping[str, str] = field(default_factory=lambda: ARMS)
    ablation: Mapping[str, str] = field(default_factory=dict)
    calibrated_less: Mapping[str, str] = field(default_factory=dict)


FULL = Size(ablation=ABLATION, calibrated_less=CALIBRATED)
QUICK = Size(
    asked=32,
    calibrated=1500,
    levels=LEVELS[-1:],
    arms={name: ARMS[name] for name in ("r-sparse, searched", "teal", "wina")},
)


@dataclass(frozen=True)
class Found:
    """One arm at one level.

    Attributes:
        kl: of each prompt, the divergence from the dense model's predictions along its own answer, in nats a token.
        nats: of each prompt, the negative log probability of the reference, a token.
        right: of each prompt, 1 where the whole answer is right.
        sparsity: the share of weights that decoded tokens did not read.
    """

    kl: Sequence[float]
    nats: Sequence[float]
    right: Sequence[float]
    sparsity: float


class Asking:
    """Prompts with the dense model's answers and predictions.

    Args:
        model: the dense model.
        tokenizer: its tokenizer.
        count: prompts.
    """

    def __init__(self, model: Any, tokenizer: Any, count: int) -> None:
        self._tokenizer = tokenizer
        self.samples: list[Sample] = [
            sample for task in TASKS for sample in task.samples(max(1, count // len(TASKS)), SEED)
        ]
        self._ends = frozenset({tokenizer.eos_token_id})
        self._requests = [self._request(sample.prompt) for sample in self.samples]
        self._references = [self._answer(sample) for sample in self.samples]
        with applied(parse_method("dense"), shared_copy(model)) as dense:
            self._answers = [self._generated(dense, request)[0] for request in self._requests]
            self._expected = [_told(dense, request, answer) for request, answer in self._each_answer()]

    def found(self, generator: Generator) -> Found:
        """What an arm makes of all prompts."""
        kl, nats, right, read = [], [], [], []
        dense_answers = zip(self._each_answer(), self._expected, self._references, strict=True)
        for (request, answer), expected, reference in dense_answers:
            along = _told(generator, request, answer)
            kl.append(float(divergence(expected, along).mean()))
            told = along if answer == reference else _told(generator, request, reference)
            nats.append(-float(told.double().log_softmax(-1)[range(len(reference)), reference].mean()))
            said, figures = self._generated(generator, request)
            right.append(float(said == reference))
            read.append((figures["weights_read"], figures["weights_dense"]))
        dense = sum(each for _, each in read)
        return Found(kl, nats, right, 1 - sum(each for each, _ in read) / dense)

    def _each_answer(self) -> list[tuple[Request, list[int]]]:
        return list(zip(self._requests, self._answers, strict=True))

    def _request(self, prompt: str) -> Request:
        return Request(torch.tensor([self._tokenizer(prompt)["input_ids"]]), MOST_TOKENS, self._ends)

    def _answer(self, sample: Sample) -> list[int]:
        ids = self._tokenizer(sample.references[0], add_special_tokens=False)["input_ids"]
        return [*ids, self._tokenizer.eos_token_id]

    def _generated(self, generator: Generator, request: Request) -> tuple[list[int], dict[str, Any]]:
        tokens: list[int] = []
        return tokens, generator.generate(request, tokens.extend).figures


def _told(generator: Generator, request: Request, answer: Sequence[int]) -> torch.Tensor:
    logits = generator.logits(request, answer)
    assert logits is not None
    return logits


def measured(size: Size) -> tuple[dict[float, dict[str, Found]], list[str]]:
    """Every arm at every level, and sentences on those that cannot be."""
    folder = folder_of("dense")
    model, tokenizer = load_model(folder), AutoTokenizer.from_pretrained(folder)
    asking = Asking(model, tokenizer, size.asked)
    calibration = Calibration("", None, TASKS)
    texts = calibration.texts(model, tokenizer, size.calibrated)
    fewer = calibration.texts(model, tokenizer, size.calibrated // 4)
    levels: dict[float, dict[str, Found]] = {}
    left_out = []
    for level in sorted(size.levels, reverse=True):
        levels[level] = {}
        highest = level == max(size.levels)
        less = size.calibrated_less if highest else {}
        for name, written in {**size.arms, **(size.ablation if highest else {}), **less}.items():
            print(f"{name} at {level:.0%}", file=sys.stderr)
            method: Any = parse_method(_at(written, level))
            try:
                recipe = method.fit(model, fewer if name in less else texts)
            except MethodError as error:
                left_out.append(f"{name} at {level:.0%}: {error}")
                continue
            with applied(method, shared_copy(model), recipe) as generator:
                levels[level][name] = asking.found(generator)
            print(_line(figures_of(level, name, levels[level][name])), flush=True)
    return levels, left_out


def _at(written: str, level: float) -> str:
    part = parse_one(written)
    return write([Part(part.name, {"sparsity": str(level), **part.settings})])


def rows_of(levels: Mapping[float, Mapping[str, Found]]) -> list[Row]:
    """Every arm's divergence, beside TEAL's with one level for all layers, and beside that with searched ones."""
    rows = []
    for level, arms in levels.items():
        for baseline in (BASELINE, STRONGER):
            for name, its in arms.items():
                if name == baseline or baseline not in arms:
                    continue
                case, headline = f"zoo:dense at {level:.0%}", (name, baseline) == ("r-sparse, searched", BASELINE)
                ratio = mean_ratio(its.kl, arms[baseline].kl)
                rows.append(estimated(case, name, baseline, "kl", ratio, headline=headline))
    return sorted(rows, key=lambda row: not row.headline)


def mean_ratio(mine: Sequence[float], other: Sequence[float]) -> Estimate:
    """The ratio of two means over the same prompts, with a bootstrap interval that draws whole prompts.

    Not the median of ratios: most prompts lose nothing, and what matters are those that lose much.
    """
    pairs = torch.tensor([mine, other], dtype=torch.float64)
    drawn = torch.Generator().manual_seed(0)
    means = pairs[:, torch.randint(len(mine), (4000, len(mine)), generator=drawn)].mean(2)
    low, high = (means[0] / means[1]).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(sum(mine) / sum(other), low, high, len(mine))


def figures_of(level: float, name: str, its: Found) -> dict[str, Any]:
    """One arm at one level, with 95 % intervals over prompts."""
    return {
        "sparsity": level,
        "arm": name,
        "not read": its.sparsity,
        "perplexity": math.exp(sum(its.nats) / len(its.nats)),
        "kl": _mean(its.kl),
        "right": _mean(its.right),
        "n": len(its.kl),
    }


def _line(figures: Mapping[str, Any]) -> str:
    """The same for people."""
    kl, right = figures["kl"], figures["right"]
    return (
        f"{figures['sparsity']:.0%}  {figures['arm']:32}  not read {figures['not read']:.3f}  "
        f"KL {kl['value']:.5f} [{kl['low']:.5f}, {kl['high']:.5f}]  perplexity {figures['perplexity']:.4f}  "
        f"right {right['value']:.3f} [{right['low']:.3f}, {right['high']:.3f}]"
    )


def _mean(values: Sequence[float]) -> dict[str, float]:
    drawn = torch.Generator().manual_seed(0)
    numbers = torch.tensor(values, dtype=torch.float64)
    means = numbers[torch.randint(len(values), (2000, len(values)), generator=drawn)].mean(1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {"value": float(numbers.mean()), "low": low, "high": high}


def benchmark(options: argparse.Namespace) -> int:
    """Everything."""
    size = QUICK if options.quick else FULL
    torch.set_num_threads(1)
    levels, left_out = measured(size)
    table = [figures_of(level, name, its) for level, arms in levels.items() for name, its in arms.items()]
    for sentence in left_out:
        print(sentence)
    work = {**vars(size), "tasks": [task.name for task in TASKS], "seed": SEED}
    details = running(work=work, table=table, left_out=left_out, label="synthetic")
    return conclude(Report("sparsity_quality", details, rows_of(levels), LIMITS), options)


def main() -> int:
    """Run the benchmark."""
    parser = arguments(__doc__ or "", "the highest level alone, and few prompts")
    return finished(benchmark, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
