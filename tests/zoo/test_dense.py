"""The shipped dense language model: as good as it is said to be, and worse by degrees where inputs are dropped."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, takewhile
from typing import Any

import pytest
import torch

from vivace.zoo.scores.base import ZooScore, loaded, score
from vivace.zoo.scores.batched_answers import greedy_answers
from vivace.zoo.scores.dense import calibration_texts
from vivace.zoo.scores.moe import MOST_TOKENS, asked
from vivace.zoo.shipped import folder_of
from vivace_methods.decoding.joined import applied
from vivace_methods.protocol import Request
from vivace_methods.registry import parse_method


@pytest.fixture(scope="module")
def scores() -> list[ZooScore]:
    """Of the dense model, but for what is dropped most at random: answers that never end take longest."""
    return list(takewhile(lambda each: each.rule != "random-channels" or (each.level or 0) < 0.2,
                          score("dense", folder_of("dense"), {})))  # fmt: skip


@pytest.fixture(scope="module")
def model_and_tokenizer() -> tuple[Any, Any]:
    """The dense model in fp32."""
    return loaded(folder_of("dense"))


def curve(scores: list[ZooScore], rule: str) -> dict[float, float]:
    """Level → score under a method."""
    return {each.level: each.value for each in scores if each.rule == rule and each.level is not None}


@pytest.mark.full
def test_whole_answers_are_right(scores: list[ZooScore], record_property: Callable[[str, Any], None]) -> None:
    record_property("measured", "\n".join(map(str, scores)))
    whole = scores[0]
    assert not whole.rule and whole.n >= 200 and whole.value >= 0.9


@pytest.mark.full
def test_thresholds_bite_by_degrees_and_chance_bites_at_once(scores: list[ZooScore]) -> None:
    """Neither a cliff nor a plateau, and far from what dropping as much at random does."""
    magnitude, random = curve(scores, "teal"), curve(scores, "random-channels")
    assert set(magnitude) == {0.2, 0.3, 0.4, 0.5, 0.6}
    for values in (list(magnitude.values()), list(random.values())):
        assert all(later <= earlier + 0.1 for earlier, later in pairwise(values))
        assert sum(0.1 < value < 0.95 for value in values) >= 1
    assert magnitude[0.2] >= random[0.1] + 0.3 and magnitude[0.5] >= random[0.1] + 0.1
    assert magnitude[0.2] >= magnitude[0.6] + 0.2


def test_thresholds_drop_the_share_they_were_set_to(model_and_tokenizer: tuple[Any, Any]) -> None:
    """On answers that nothing was fitted to; and the model is what it was afterwards."""
    model, tokenizer = model_and_tokenizer
    method = parse_method("teal(sparsity=0.4)")
    recipe = method.fit(model, calibration_texts(tokenizer)[::4])
    assert len(recipe.modules) == 7 * model.config.num_hidden_layers
    prompts = [sample.prompt for _, sample in asked(8)]
    plain = greedy_answers(model, tokenizer, prompts, MOST_TOKENS)
    shares = []
    with applied(method, model, recipe) as generator:
        for prompt in prompts:
            ids = torch.tensor([tokenizer(prompt)["input_ids"]])
            shares.append(generator.generate(Request(ids, 24), lambda tokens: None).figures["sparsity"])
    assert sum(shares) / len(shares) == pytest.approx(0.4, abs=0.05)
    assert greedy_answers(model, tokenizer, prompts, MOST_TOKENS) == plain


def test_bf16_answers_as_fp32_does(model_and_tokenizer: tuple[Any, Any]) -> None:
    narrow, _ = loaded(folder_of("dense"), torch.bfloat16)
    prompts = [sample.prompt for _, sample in asked(16)]
    wide_answers = greedy_answers(*model_and_tokenizer, prompts, MOST_TOKENS)
    narrow_answers = greedy_answers(narrow, model_and_tokenizer[1], prompts, MOST_TOKENS)
    assert sum(a == b for a, b in zip(wide_answers, narrow_answers, strict=True)) >= 15
