"""The shipped retrieval model: it finds needles, and misses them by degrees where a part of the prompt is pruned."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch

from vivace.tasks.generated.needles import Needles
from vivace.zoo.scores.base import ZooScore, loaded, score
from vivace.zoo.scores.batched_answers import greedy_answers
from vivace.zoo.scores.retrieval import KEPT, LENGTHS, TWO_HOPS, VARIABLES, pruned_right
from vivace.zoo.shipped import folder_of


@pytest.fixture(scope="module")
def scores() -> list[ZooScore]:
    """Of the retrieval model."""
    return list(score("retrieval", folder_of("retrieval"), {}))


@pytest.fixture(scope="module")
def model_and_tokenizer() -> tuple[Any, Any]:
    """The retrieval model in fp32."""
    return loaded(folder_of("retrieval"))


@pytest.mark.full
def test_needles_are_found(scores: list[ZooScore], record_property: Callable[[str, Any], None]) -> None:
    record_property("measured", "\n".join(map(str, scores)))
    found = {each.slice: each for each in scores if not each.rule}
    assert set(found) == {*(f"{length} tokens" for length in LENGTHS), TWO_HOPS, *VARIABLES}
    assert all(found[f"{length} tokens"].n >= 200 for length in LENGTHS)
    assert found["512 tokens"].value >= 0.95 and found["1024 tokens"].value >= 0.9
    assert found[TWO_HOPS].value >= 0.8


@pytest.mark.full
def test_variables_are_tracked_far_above_chance(scores: list[ZooScore]) -> None:
    """Of two chains, half of those who take a value that stands there would be right."""
    for name in VARIABLES:
        (its,) = [each for each in scores if each.slice == name]
        assert its.n >= 90 and its.value >= 0.75 and its.low > 0.6


@pytest.mark.full
def test_pruning_at_half_depth_tells_rules_apart_by_degrees(scores: list[ZooScore]) -> None:
    """The upper half has something left to find, and what the lower half ranks is worth knowing."""
    kept = {
        rule: {each.level: each.value for each in scores if each.rule == rule}
        for rule in ("oracle", "claa", "recency", "random")
    }
    assert kept["oracle"][0.05] >= 0.8
    assert 0.2 <= kept["claa"][0.02] <= kept["claa"][0.4] - 0.2
    assert kept["claa"][0.1] >= kept["recency"][0.1] + 0.3 and kept["claa"][0.1] >= kept["random"][0.1] + 0.3
    for rule in ("recency", "random"):
        assert kept[rule][0.1] < 0.3 < kept[rule][0.8] < 0.97
    for of_rule in kept.values():
        levels = list(of_rule.values())
        assert all(later >= earlier - 0.1 for earlier, later in pairwise(levels))


def test_what_keeps_everything_changes_nothing(model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = model_and_tokenizer
    samples = Needles(128).samples(24, 1)
    answers = greedy_answers(model, tokenizer, [sample.prompt for sample in samples], 16)
    plain = [answer.strip() == sample.references[0].strip() for answer, sample in zip(answers, samples, strict=True)]
    (control,) = [written for written in KEPT if written.startswith("random")]
    assert pruned_right(model, tokenizer, samples, control, 1.0) == plain
    assert pruned_right(model, tokenizer, samples, control, 0.1) != plain
    assert pruned_right(model, tokenizer, samples, control, 1.0) == plain, "no hook stays"


def test_bf16_answers_as_fp32_does(model_and_tokenizer: tuple[Any, Any]) -> None:
    narrow, tokenizer = loaded(folder_of("retrieval"), torch.bfloat16)
    wide, _ = loaded(folder_of("retrieval"))
    prompts = [sample.prompt for sample in Needles(512).samples(12, 1)]
    both = [greedy_answers(model, tokenizer, prompts, 16, rows=16) for model in (wide, narrow)]
    assert sum(one == other for one, other in zip(*both, strict=True)) >= 11
