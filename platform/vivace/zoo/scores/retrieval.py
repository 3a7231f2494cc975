"""The scores of the retrieval model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vivace.tasks.base import Sample
from vivace.tasks.generated.base import GeneratedTask
from vivace.tasks.generated.needles import Needles
from vivace.tasks.generated.variables import Variables
from vivace.zoo.scores.base import ASKED, SEED, ZooScore, loaded, same, share
from vivace.zoo.scores.batched_answers import greedy_answers
from vivace.zoo.scores.crude_prefill import PruningRule, pruned_answers

LENGTHS = (512, 1024)
TWO_HOPS = "two hops at 512"
VARIABLES: dict[str, Variables] = {
    "variables over one hop at 512": Variables(512, hops=1, ask="trace"),
    "variables over two hops at 512": Variables(512, hops=2, ask="trace"),
}
HOPS_ASKED = 96
CURVE_ASKED = 48
"""Prompts of 512 tokens behind each point of a curve."""
ROWS = 16
KEPT: dict[PruningRule, tuple[float, ...]] = {
    "evidence": (0.02, 0.05),
    "attention": (0.02, 0.03, 0.05, 0.1, 0.4),
    "recency": (0.1, 0.4, 0.8),
    "random": (0.1, 0.8),
}
"""Shares of a prompt that each rule keeps for the upper half of the layers."""


def score_retrieval(folder: Path, needed: dict[str, Path]) -> Iterator[ZooScore]:
    """Whole answers that are right: needles and variables, and needles with a part of the prompt pruned."""
    model, tokenizer = loaded(folder)
    for length in LENGTHS:
        yield _score(model, tokenizer, Needles(length), f"{length} tokens", ASKED)
    yield _score(model, tokenizer, Needles(512, hops=2), TWO_HOPS, HOPS_ASKED)
    for name, task in VARIABLES.items():
        yield _score(model, tokenizer, task, name, HOPS_ASKED)
    yield from _curve(model, tokenizer)


def _score(model: Any, tokenizer: Any, task: GeneratedTask, name: str, count: int) -> ZooScore:
    samples = task.samples(count, SEED)
    prompts = [sample.prompt for sample in samples]
    answers = greedy_answers(model, tokenizer, prompts, task.most_tokens, rows=ROWS)
    return share("retrieval", same(answers, [sample.references[0] for sample in samples]), slice=name)


def _curve(model: Any, tokenizer: Any) -> Iterator[ZooScore]:
    model.set_attn_implementation("eager")
    samples = Needles(512).samples(CURVE_ASKED, SEED)
    for rule, levels in KEPT.items():
        for keep in levels:
            right = pruned_right(model, tokenizer, samples, rule, keep)
            yield share("retrieval", right, slice="512 tokens", rule=rule, level=keep)


def pruned_right(model: Any, tokenizer: Any, samples: list[Sample], rule: PruningRule, keep: float) -> list[bool]:
    """Whether each answer is right, and ends, where the upper half of the layers sees a share of the prompt.

    Args:
        model: with eager attention.
        tokenizer: of the model.
        samples: of needles of one length and one hop.
        rule: by which tokens stay.
        keep: the share that stays.
    """
    import torch

    right: list[bool] = []
    for first in range(0, len(samples), ROWS):
        batch = samples[first : first + ROWS]
        ids = torch.tensor([tokenizer(sample.prompt)["input_ids"] for sample in batch])
        wanted = [
            [*tokenizer(sample.references[0], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            for sample in batch
        ]
        evidence = [_places(sample, ids.shape[1]) for sample in batch]
        answers = pruned_answers(model, ids, max(map(len, wanted)), rule, keep, evidence)
        right += [answer[: len(its)] == its for answer, its in zip(answers, wanted, strict=True)]
    return right


def _places(sample: Sample, length: int) -> set[int]:
    """The tokens that hold a sample's evidence: each word is one, and what the tokenizer begins with comes first."""
    begun = length - len(sample.prompt.split())
    found: set[int] = set()
    for span in sample.evidence:
        first = begun + len(sample.prompt[: span.start].split())
        found.update(range(first, first + len(sample.prompt[span.start : span.end].split())))
    return found
