"""The shipped mixture of experts: as good as it is said to be, and worse by degrees."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch

from vivace.zoo.inventory import SCORES
from vivace.zoo.scores.base import ZooScore, loaded, score
from vivace.zoo.scores.batched_answers import greedy_answers
from vivace.zoo.scores.expert_budgets import expert_budget
from vivace.zoo.scores.moe import MOST_TOKENS, asked
from vivace.zoo.shipped import folder_of


@pytest.fixture(scope="module")
def scores() -> list[ZooScore]:
    """Of the mixture of experts."""
    return list(score("moe", folder_of("moe"), {}))


def at(scores: list[ZooScore], rule: str, level: int) -> float:
    """The score under a rule."""
    (found,) = [each.value for each in scores if (each.rule, each.level) == (rule, level)]
    return found


@pytest.mark.full
def test_whole_answers_are_right(scores: list[ZooScore], record_property: Callable[[str, Any], None]) -> None:
    record_property("measured", "\n".join(map(str, scores)))
    whole, *domains = [each for each in scores if not each.rule]
    assert whole.n >= 200 and whole.low >= 0.9
    assert {each.slice for each in domains} == {"addition", "subtraction", "code", "json"}
    assert min(each.value for each in domains) >= 0.9


@pytest.mark.full
def test_budgets_bite_by_degrees_and_tell_rules_apart(scores: list[ZooScore]) -> None:
    """Neither a cliff nor a plateau: some budget costs nothing, some cost a part, and the summed softmax is best."""
    for rule, bites in (("softmax", 1), ("count", 3), ("random", 2)):
        values = [each.value for each in scores if each.rule == f"{rule} experts"]
        assert sum(0.1 < value < 0.95 for value in values) >= bites, rule
        assert all(later <= earlier + 0.1 for earlier, later in pairwise(values)), rule
    assert at(scores, "softmax experts", 12) >= 0.95 and at(scores, "softmax experts", 4) <= 0.85
    assert at(scores, "softmax experts", 8) >= at(scores, "count experts", 8) + 0.2
    assert at(scores, "count experts", 16) >= at(scores, "random experts", 16) + 0.5


@pytest.mark.full
def test_the_scores_on_record_are_those_of_the_weights(scores: list[ZooScore]) -> None:
    """Other machines add in another order, which may turn a few answers."""
    recorded = json.loads((folder_of("moe") / SCORES).read_text())
    assert [(row["slice"], row["rule"], row["level"]) for row in recorded] == [
        (each.slice, each.rule, each.level) for each in scores
    ]
    for row, found in zip(recorded, scores, strict=True):
        assert found.value == pytest.approx(row["value"], abs=0.1)


@pytest.fixture(scope="module")
def model_and_tokenizer() -> tuple[Any, Any]:
    """The mixture of experts in fp32."""
    return loaded(folder_of("moe"))


def test_bf16_answers_as_fp32_does(model_and_tokenizer: tuple[Any, Any]) -> None:
    model, tokenizer = model_and_tokenizer
    narrow, _ = loaded(folder_of("moe"), torch.bfloat16)
    prompts = [sample.prompt for _, sample in asked(16)]
    wide_answers = greedy_answers(model, tokenizer, prompts, MOST_TOKENS)
    narrow_answers = greedy_answers(narrow, tokenizer, prompts, MOST_TOKENS)
    assert sum(a == b for a, b in zip(wide_answers, narrow_answers, strict=True)) >= 15


@pytest.mark.parametrize("rule", ["softmax", "count", "random"])
def test_a_budget_is_kept_and_a_whole_one_changes_nothing(rule: Any, model_and_tokenizer: tuple[Any, Any]) -> None:
    model, _ = model_and_tokenizer
    tokens = torch.arange(4, 34)[None]
    used: list[int] = []

    def count(experts: Any, inputs: tuple[Any, ...]) -> None:
        used.append(len(inputs[1].unique()))

    with torch.no_grad():
        plain = model(tokens).logits
        with expert_budget(model, rule, model.config.num_experts):
            assert torch.equal(model(tokens).logits, plain)
        handles = [layer.mlp.experts.register_forward_pre_hook(count) for layer in model.model.layers]
        with expert_budget(model, rule, 6):
            model(tokens)
        for handle in handles:
            handle.remove()
        assert torch.equal(model(tokens).logits, plain)
    assert len(used) == 4 and max(used) <= 6


def test_the_zoos_weights_are_small() -> None:
    files = [path for path in folder_of("moe").parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 25e6


def test_the_zoo_runs_with_torch_and_transformers_alone() -> None:
    script = """
import sys
for name in ("sqlalchemy", "typer", "pydantic", "pydantic_settings", "litellm", "datasets", "scipy", "rich"):
    sys.modules[name] = None
from vivace.zoo.scores.batched_answers import greedy_answers
from vivace.zoo.scores.base import loaded
from vivace.zoo.shipped import folder_of
import vivace.zoo.training.model_build, vivace.zoo.scores.drafter, vivace.zoo.inventory, vivace.zoo.scores.moe
print(greedy_answers(*loaded(folder_of("zoo:moe")), ["Work out 125 + 250, column by column.\\n"], 60)[0])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("sum: 375")
