"""The scores of the retrieval model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from vivace.tasks.base import Sample
from vivace.tasks.generated.base import GeneratedTask
from vivace.tasks.generated.needles import Needles
from vivace.tasks.generated.variables import Variables
from vivace.zoo.scores.answers_with import answers_with
from vivace.zoo.scores.base import ASKED, SEED, ZooScore, loaded, same, share
from vivace.zoo.scores.batched_answers import greedy_answers

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
"""Prompts that are answered together, where nothing is pruned."""
KEPT = {
    "oracle(layer=2,kv=full,window=3)": (0.02, 0.05),
    "claa(layer=2,layers=2,kv=full,window=3)": (0.02, 0.03, 0.05, 0.1, 0.4),
    "recency(layer=2,kv=full,window=3)": (0.1, 0.4, 0.8),
    "random(layer=2,kv=full,window=3)": (0.1, 0.8),
}
"""Method → shares of a prompt that go on to the upper half of the layers; of the lower half everything is kept, whose
second and third layer rank."""


def score_retrieval(folder: Path, needed: dict[str, Path]) -> Iterator[ZooScore]:
    """Whole answers that are right: needles and variables, and needles under methods that prune the prompt."""
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
    samples = Needles(512).samples(CURVE_ASKED, SEED)
    for written, levels in KEPT.items():
        for keep in levels:
            right = pruned_right(model, tokenizer, samples, written, keep)
            rule = written.partition("(")[0]
            yield share("retrieval", right, slice="512 tokens", rule=rule, level=keep)


def pruned_right(model: Any, tokenizer: Any, samples: list[Sample], written: str, keep: float) -> list[bool]:
    """Whether each answer is right where a method prunes the prompt.

    Args:
        model: the retrieval model.
        tokenizer: of the model.
        samples: of needles.
        written: the method with its settings.
        keep: the share of the prompt that goes on.
    """
    from vivace_methods.registry import parse_method

    method: Any = parse_method(written)  # one that prunes prompts, which all have the setting
    prompts = [sample.prompt for sample in samples]
    answers = answers_with(replace(method, keep=keep), model, tokenizer, prompts, Needles.most_tokens)
    return same(answers, [sample.references[0] for sample in samples])
