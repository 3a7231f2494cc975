"""A part of the zoo's scores, each near the one on record: what moves a weight or a rule by much shows here.

The scores themselves are computed by the tests that are marked `full`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from vivace.tasks.generated.needles import Needles
from vivace.zoo.inventory import SCORES
from vivace.zoo.registry import RECIPES, recipe_class
from vivace.zoo.scores import dense as dense_scoring
from vivace.zoo.scores import drafter as drafter_scoring
from vivace.zoo.scores import moe as moe_scoring
from vivace.zoo.scores import retrieval as retrieval_scoring
from vivace.zoo.scores.base import score
from vivace.zoo.shipped import folder_of

ASKED = 16


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few samples, and of the rules one level that costs little, one that costs much, and one by chance."""
    for module, asked in ((moe_scoring, ASKED), (dense_scoring, ASKED), (retrieval_scoring, ASKED // 2)):
        monkeypatch.setattr(module, "ASKED", asked)  # the prompts of retrieval are long
        monkeypatch.setattr(module, "CURVE_ASKED", ASKED if module is moe_scoring else ASKED // 2)
    monkeypatch.setattr(moe_scoring, "BUDGETS", {"softmax": (12, 8), "random": (8,)})
    monkeypatch.setattr(dense_scoring, "LEVELS", {"teal": (0.2, 0.6), "random-channels": (0.1,)})
    monkeypatch.setattr(retrieval_scoring, "LENGTHS", (512,))
    monkeypatch.setattr(retrieval_scoring, "HOPS_ASKED", ASKED // 2)
    few_kept = dict(zip(retrieval_scoring.KEPT, ((0.05,), (0.4,), (0.1,), ()), strict=True))
    monkeypatch.setattr(retrieval_scoring, "KEPT", few_kept)
    monkeypatch.setattr(drafter_scoring, "ASKED", 8)
    monkeypatch.setattr(drafter_scoring, "NEEDLES", {"256 tokens": Needles(256), "512 tokens": Needles(512)})


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_part_is_near_the_scores_on_record(name: str) -> None:
    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["metric"], row["slice"], row["rule"], row["level"]

    recorded = {key(row): row["value"] for row in json.loads((folder_of(name) / SCORES).read_text())}
    found = list(score(name, folder_of(name), {each: folder_of(each) for each in recipe_class(name).needs}))
    assert found
    for each in found:
        near = 0.2 if each.metric == "exact_match" and not each.rule else 0.3
        if each.metric != "exact_match":
            near *= recorded[key(vars(each))]
        assert each.value == pytest.approx(recorded[key(vars(each))], abs=near), str(each)
