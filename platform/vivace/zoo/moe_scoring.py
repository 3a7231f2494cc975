"""The scores of the mixture of experts and of its drafter."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from vivace.tasks.base import Sample
from vivace.zoo.answering import greedy_answers
from vivace.zoo.crude import ExpertRule, expert_budget
from vivace.zoo.moe import DOMAINS
from vivace.zoo.scoring import ASKED, SEED, Score, loaded, ratio, same, share

BUDGETS: dict[ExpertRule, tuple[int, ...]] = {
    "softmax": (16, 12, 8, 6, 5, 4),
    "count": (16, 12, 8, 6, 5, 4),
    "random": (30, 28, 24, 16, 8),
}
"""Experts of 32 under each crude rule, where it bites."""
CURVE_ASKED = 96
"""Samples behind a point of the curve, from all domains alike."""
DEPTH = 5
"""Tokens that the drafter drafts before each verification."""
MOST_TOKENS = 96


def asked(count: int) -> list[tuple[str, Sample]]:
    """Samples of all domains alike, each with the name of its domain."""
    each = count // len(DOMAINS)
    return [
        (sample.slice if task.name == "sums" else task.name, sample)
        for task, _ in DOMAINS
        for sample in task.samples(each, SEED)
    ]


def score_moe(folder: Path, needed: dict[str, Path]) -> Iterator[Score]:
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


def score_drafter(folder: Path, needed: dict[str, Path]) -> Iterator[Score]:
    """Tokens that a verifying pass gives, on a chain of five: all, and by domain."""
    import torch

    from vivace_methods.base import Request
    from vivace_methods.speculation.eagle3 import Eagle3

    model, tokenizer = loaded(needed["moe"])
    method = Eagle3(depth=DEPTH)
    parts: dict[str, list[tuple[float, float]]] = {}
    with method.apply(model, method.read_fitted(folder, model)) as generator:
        for domain, sample in asked(ASKED):
            request = Request(
                torch.tensor([tokenizer(sample.prompt)["input_ids"]]),
                MOST_TOKENS,
                frozenset({tokenizer.eos_token_id}),
            )
            lengths = generator.generate(request, lambda step: None).figures["acceptance_lengths"]
            parts.setdefault(domain, []).append((sum(lengths), len(lengths)))
    yield ratio("moe-drafter", [each for those in parts.values() for each in those], metric="tau")
    for domain, those in parts.items():
        yield ratio("moe-drafter", those, metric="tau", slice=domain)
