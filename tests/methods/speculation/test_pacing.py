"""How far to draft and how much to verify, by what passes cost; and that neither changes a token."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from vivace_methods.decoding.joined import applied
from vivace_methods.decoding.trees import Tree
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.protocol import MethodError, Request
from vivace_methods.registry import parse_method
from vivace_methods.speculation.drafters.eagle3 import Eagle3Drafter, new_configuration
from vivace_methods.speculation.pacing.costs import PassCosts
from vivace_methods.speculation.pacing.cut_pace import Cutting
from vivace_methods.speculation.pacing.utility import LONGEST_HOLD, Utility

PROMPT = torch.randint(199, (1, 11), generator=torch.Generator().manual_seed(3))


def costs(slope: float, draft: float = 0.0) -> PassCosts:
    """A pass of one token takes 1, and each further one `slope` more; each drafted token takes `draft`."""
    return PassCosts((1, 64), (1.0, 1 + 63 * slope), (0, 8), (0.0, 8 * draft))


def utility(slope: float, draft: float = 0.0) -> Utility:
    pace = Utility(deepest=4, tests=2, holds=3, measure=lambda model: costs(slope, draft))
    pace.prepare(None)
    pace.begin()
    return pace


def depths_of(pace: Utility, steps: int, stood: int) -> list[int]:
    found = []
    for _ in range(steps):
        found.append(pace.depth(9))
        pace.verified(found[-1], min(stood, found[-1]))
    return found


@pytest.mark.parametrize(
    ("slope", "stood", "best"), [(0.0, 4, 4), (0.0, 2, 2), (0.3, 4, 4), (0.3, 1, 1), (1.5, 4, 0)]
)
def test_the_depth_of_the_highest_utility_is_kept_after_a_test(slope: float, stood: int, best: int) -> None:
    pace = utility(slope, draft=0.01)
    assert depths_of(pace, 5, stood) == [4, 4, best, best, best]


def test_what_does_not_pay_is_tried_again_ever_later() -> None:
    found = depths_of(utility(2.0), 200, stood=0)
    runs = [len(list(group)) for depth, group in itertools.groupby(found) if depth == 0]
    assert runs[:4] == [6, 12, 24, 24] and runs[2] == 3 * LONGEST_HOLD


def test_nothing_is_kept_for_the_next_generation() -> None:
    pace = utility(2.0)
    depths_of(pace, 7, stood=0)
    assert pace.depth(9) == 0
    pace.begin()
    assert pace.depth(9) == 4 and pace.depth(2) == 2
    pace.verified(2, 2)
    assert depths_of(pace, 3, stood=4)[:2] == [4, 4], "a chain cut short by the answer's end tests nothing"


def test_a_tree_is_cut_where_it_gives_the_most_for_its_time() -> None:
    """Against all parts of a tree that hold with each node its parent."""
    odds = [1.0, 0.6, 0.3, 0.5, 0.05, 0.29, 0.02]
    tree = Tree(torch.arange(7)[None], (-1, 0, 0, 1, 1, 2, 3), torch.tensor(odds).log())
    for slope in (0.001, 0.1, 0.25, 0.45, 1.0):
        pace = Cutting(lambda model, slope=slope: costs(slope, 0.05))  # type: ignore[misc]
        pace.prepare(None)
        parts = [
            (0, *nodes)
            for count in range(7)
            for nodes in itertools.combinations(range(1, 7), count)
            if all(tree.parents[node] in (0, *nodes) for node in nodes)
        ]

        def worth(nodes: tuple[int, ...], slope: float = slope) -> float:
            return sum(odds[node] for node in nodes) / (0.15 + 1 + slope * (len(nodes) - 1))

        assert pace.cut(tree).tokens[0].tolist() == list(max(parts, key=worth))


def model_and_drafter() -> tuple[Any, Any]:
    model = random_model(tiny_configuration("olmoe"), seed=0)
    torch.manual_seed(0)
    configuration = new_configuration(model.config, intermediate=48, taps=(0, 1, 1))
    return model, Eagle3Drafter(configuration, model.get_input_embeddings()).eval()


@pytest.mark.parametrize("method", ["adaptive-depth(depth=3,tests=2,holds=4)", "cut-tree(tokens=9,depth=3,top_k=3)"])
def test_no_pace_changes_a_token(method: str) -> None:
    model, drafter = model_and_drafter()
    plain: list[int] = []
    with applied(parse_method("autoregressive"), model) as generator:
        generator.generate(Request(PROMPT, 24), plain.extend)
    runs = []
    with applied(parse_method(method), model, drafter) as generator:
        for _ in range(2):
            tokens: list[int] = []
            runs.append(generator.generate(Request(PROMPT, 24), tokens.extend).figures)
            assert tokens == plain
    assert runs[0] == runs[1], "costs are measured once, so that an answer takes the same steps again"


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("adaptive-depth(tokens=8)", "drafts chains alone"),
        ("adaptive-depth(tests=0)", "tests of adaptive-depth must be at least 1"),
        ("cut-tree(tokens=0)", "cuts trees"),
    ],
)
def test_settings_that_cannot_be_are_refused(method: str, reason: str) -> None:
    with pytest.raises(MethodError, match=reason):
        parse_method(method)
