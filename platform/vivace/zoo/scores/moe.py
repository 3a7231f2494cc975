"""The scores of the mixture of experts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from vivace.tasks.base import Sample
from vivace.zoo.recipes.moe import DOMAINS
from vivace.zoo.scores.base import ASKED, SEED, ZooScore, loaded, same, share
from vivace.zoo.scores.batched_answers import greedy_answers
from vivace.zoo.scores.expert_budgets import ExpertRule, expert_budget

BUDGETS: dict[ExpertRule, tuple[int, ...]] = {
    "softmax": (16, 12, 8, 6, 5, 4),
    "count": (16, 12, 8, 6, 5, 4),
    "random": (30, 28, 24, 16, 8),
}
"""Experts of 32 under each rule, where it bites."""
CURVE_ASKED = 96
"""Samples behind a point of the curve, from all domains alike."""
MOST_TOKENS = 96


def asked(count: int) -> list[tuple[str, Sample]]:
    """Samples of all domains alike, each with the name of its domain."""
    each = count // len(DOMAINS)
    return [
        (sample.slice if task.name == "sums" else task.name, sample)
        for task, _ in DOMAINS
        for sample in task.samples(each, SEED)
    ]


def score_moe(folder: Path, needed: dict[str, Path]) -> Iterator[ZooScore]:
    """Whole answers that are right: all, by domain, and under expert budgets while decoding; prefill is unrestricted.

    The tokens that share a budget are those of a step, one of each of the prompts that are decoded together.
    """
    model, tokenizer = loaded(folder)
    domains, samples = zip(*asked(ASKED), strict=True)
    answers = greedy_answers(model, tokenizer, [sample.prompt for sample in samples], MOST_TOKENS)
    right = same(answers, [sample.references[0] for sample in samples])
    yield share("moe", right)
    for domain in dict.fromkeys(domains):
        yield share("moe", [one for one, its in zip(right, domains, strict=True) if its == domain], slice=domain)
    chosen = [sample for _, sample in asked(CURVE_ASKED)]
    for rule, budgets in BUDGETS.items():
        for budget in budgets:
            decoding = partial(expert_budget, model, rule, budget)
            answers = greedy_answers(
                model, tokenizer, [sample.prompt for sample in chosen], MOST_TOKENS, decoding=decoding
            )
            right = same(answers, [sample.references[0] for sample in chosen])
            yield share("moe", right, rule=f"{rule} experts", level=budget)
