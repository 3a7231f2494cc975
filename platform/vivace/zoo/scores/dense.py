"""The scores of the dense language model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vivace.zoo.recipes.moe import DOMAINS
from vivace.zoo.scores.answers_with import answers_with
from vivace.zoo.scores.base import ASKED, ZooScore, loaded, same, share
from vivace.zoo.scores.batched_answers import greedy_answers
from vivace.zoo.scores.moe import CURVE_ASKED, MOST_TOKENS, asked

if TYPE_CHECKING:
    import torch

LEVELS = {
    "teal": (0.2, 0.3, 0.4, 0.5, 0.6),
    "random-channels": (0.02, 0.05, 0.1, 0.2, 0.5),
}
"""Method → shares of the weights that decoded tokens do not read; at random, little does much."""
CALIBRATION = 8
"""Samples of each domain whose whole texts the methods are fitted to; none of them is asked."""


def score_dense(folder: Path, needed: dict[str, Path]) -> Iterator[ZooScore]:
    """Whole answers that are right: all, by domain, and with sparse decoding; prefill is dense."""
    model, tokenizer = loaded(folder)
    domains, samples = zip(*asked(ASKED), strict=True)
    answers = greedy_answers(model, tokenizer, [sample.prompt for sample in samples], MOST_TOKENS)
    right = same(answers, [sample.references[0] for sample in samples])
    yield share("dense", right)
    for domain in dict.fromkeys(domains):
        yield share("dense", [one for one, its in zip(right, domains, strict=True) if its == domain], slice=domain)
    yield from _curve(model, tokenizer)


def calibration_texts(tokenizer: Any) -> list[torch.Tensor]:
    """Whole texts of the lot that is never asked, as token ids, each of shape (1, length)."""
    drawn = [task.sample(0, index, held_out=False) for task, _ in DOMAINS for index in range(CALIBRATION)]
    return [tokenizer(sample.prompt + sample.references[0], return_tensors="pt").input_ids for sample in drawn]


def _curve(model: Any, tokenizer: Any) -> Iterator[ZooScore]:
    from vivace_methods.registry import method

    chosen = [sample for _, sample in asked(CURVE_ASKED)]
    prompts, references = [sample.prompt for sample in chosen], [sample.references[0] for sample in chosen]
    calibration = calibration_texts(tokenizer)
    for name, levels in LEVELS.items():
        for sparsity in levels:
            sparse = method(name, sparsity=sparsity)
            recipe = sparse.fit(model, calibration)
            answers = answers_with(sparse, model, tokenizer, prompts, MOST_TOKENS, recipe)
            yield share("dense", same(answers, references), rule=name, level=sparsity)
