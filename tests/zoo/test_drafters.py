"""The shipped drafters: as often right as they are said to be, and never the cause of another answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

from vivace.tasks.base import Sample
from vivace.tasks.generated.needles import Needles
from vivace.zoo.inventory import SCORES
from vivace.zoo.registry import recipe_class
from vivace.zoo.scores.base import ZooScore, loaded, score
from vivace.zoo.scores.batched_answers import greedy_answers
from vivace.zoo.scores.moe import asked
from vivace.zoo.shipped import folder_of
from vivace_methods.decoding.joined import applied
from vivace_methods.protocol import Request
from vivace_methods.registry import parse_method

DRAFTERS = ("moe-drafter", "dense-drafter", "retrieval-drafter")
each_drafter = pytest.mark.parametrize("name", DRAFTERS)


@cache
def scores(name: str) -> list[ZooScore]:
    """Of a drafter, computed once."""
    needed = {each: folder_of(each) for each in recipe_class(name).needs}
    return list(score(name, folder_of(name), needed))


@pytest.mark.full
@each_drafter
def test_the_scores_on_record_are_those_of_the_weights(
    name: str, record_property: Callable[[str, Any], None]
) -> None:
    """Other machines add in another order, which may turn a few drafts, or end an answer that went on and on here."""
    found = scores(name)
    record_property("measured", "\n".join(map(str, found)))
    recorded = json.loads((folder_of(name) / SCORES).read_text())
    assert [(row["metric"], row["slice"], row["n"]) for row in recorded] == [
        (each.metric, each.slice, each.n) for each in found
    ]
    for row, its in zip(recorded, found, strict=True):
        assert row["low"] - 0.1 <= its.value <= row["high"] + 0.1


@pytest.mark.full
@pytest.mark.parametrize("name", ["moe-drafter", "dense-drafter"])
def test_a_drafter_of_long_answers_is_often_right(name: str) -> None:
    whole = scores(name)[0]
    assert (whole.metric, whole.slice) == ("tau", "") and whole.n >= 200 and whole.low >= 4


@pytest.mark.full
def test_a_drafter_of_short_answers_is_right_about_as_often_as_they_allow() -> None:
    """Two words after the first and the end are all that a pass can give of a needle over one hop. An answer that
    goes on without end, which a drafter has not seen the like of, raises the highest and lowers the other."""
    tau, highest = (
        {each.slice: each for each in scores("retrieval-drafter") if each.metric == metric}
        for metric in ("tau", "highest_tau")
    )
    assert tau[""].n >= 200 and tau[""].value >= 0.8 * highest[""].value
    for length in ("256 tokens", "512 tokens", "1024 tokens"):
        assert tau[length].value >= (2.6 if highest[length].value < 3.02 else 2.3)
    assert all(highest[f"{length} tokens"].value == pytest.approx(3, abs=0.1) for length in (256, 512, 1024))
    assert 3.5 <= highest["two hops at 512"].value <= 4.1


@pytest.mark.full
@each_drafter
def test_no_tau_is_above_the_highest(name: str) -> None:
    tau, highest = ([each for each in scores(name) if each.metric == metric] for metric in ("tau", "highest_tau"))
    assert [each.slice for each in tau] == [each.slice for each in highest]
    assert all(its.value <= most.value <= 6 for its, most in zip(tau, highest, strict=True))


def prompts(target: str) -> list[Sample]:
    """A few of what a target answers."""
    if target == "retrieval":
        return [*Needles(128).samples(2, 1), *Needles(128, hops=2).samples(2, 1)]
    return [sample for _, sample in asked(4)]


@each_drafter
def test_speculation_and_batches_give_the_plain_answers(name: str) -> None:
    (target,) = recipe_class(name).needs
    model, tokenizer = loaded(folder_of(target))
    samples = prompts(target)
    drafter = parse_method("eagle-3").read_fitted(folder_of(name), model)
    batched = greedy_answers(model, tokenizer, [sample.prompt for sample in samples], 96, rows=3)
    for sample, answer in zip(samples, batched, strict=True):
        prompt = torch.tensor([tokenizer(sample.prompt)["input_ids"]])
        request = Request(prompt, 96, frozenset({tokenizer.eos_token_id}))
        plain: list[int] = []
        with applied(parse_method("autoregressive"), model) as generator:
            generator.generate(request, plain.extend)
        assert tokenizer.decode(plain, skip_special_tokens=True) == answer
        for depth in (1, 5):
            speculated: list[int] = []
            with applied(parse_method(f"eagle-3(depth={depth})"), model, drafter) as generator:
                generator.generate(request, speculated.extend)
            assert speculated == plain


WAYS = (
    "eagle-3(tokens=16)",
    "eagle-3(tokens=12,top_k=4,growth=static)",
    "adaptive-depth",
    "cut-tree(tokens=24)",
    "prompt-lookup",
    "moe-spec(tokens=16,budget=32)",
    "draft-model(depth=3,tokens=8)",
)
"""All that writes the target's own tokens; a budget of all experts is none."""


@pytest.mark.parametrize(
    ("name", "ways", "count", "most"),
    [
        ("moe-drafter", (WAYS[0], *WAYS[4:]), 1, 24),
        *(pytest.param(name, WAYS, 4, 96, marks=pytest.mark.full) for name in DRAFTERS),
    ],
)
def test_no_way_to_speculate_changes_an_answer(name: str, ways: tuple[str, ...], count: int, most: int) -> None:
    (target,) = recipe_class(name).needs
    model, tokenizer = loaded(folder_of(target))
    small = {"moe": "dense", "dense": "moe"}.get(target, target)
    for sample in prompts(target)[:count]:
        prompt = torch.tensor([tokenizer(sample.prompt)["input_ids"]])
        request = Request(prompt, most, frozenset({tokenizer.eos_token_id}))
        plain: list[int] = []
        with applied(parse_method("autoregressive"), model) as generator:
            generator.generate(request, plain.extend)
        for way in ways:
            if "moe-spec" in way and target != "moe":
                continue
            method = parse_method(way)
            fitted = None
            if "lookup" not in way:
                fitted = method.read_fitted(folder_of(small if "draft-model" in way else name), model)
            speculated: list[int] = []
            with applied(method, model, fitted) as generator:
                generator.generate(request, speculated.extend)
            assert speculated == plain, way
