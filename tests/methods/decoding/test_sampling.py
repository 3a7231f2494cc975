"""Tokens are drawn as the model's own distribution has it, drafted or not, and the same seed draws the same ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from transformers import AutoConfig

from vivace_methods.decoding.joined import applied
from vivace_methods.decoding.sampling import Forced, Greedy, Sampled, probabilities
from vivace_methods.decoding.trees import Tree
from vivace_methods.models.random import random_model
from vivace_methods.protocol import MethodError, Request, Sampling
from vivace_methods.registry import parse_method
from vivace_methods.speculation.drafters.eagle3 import Eagle3Drafter, new_configuration

COLD = Sampling(temperature=0.8, top_p=0.9, seed=1)
CPU = torch.device("cpu")
CHANCE = 1e-4
"""Seeds are fixed: a test of a right sampler passes always, and was no lucky draw."""


def exact(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """What tokens ought to be drawn from, worked out once more in 64 bits, a token at a time."""
    odds = np.exp(logits / sampling.temperature - (logits / sampling.temperature).max())
    odds /= odds.sum()
    kept, gathered = np.zeros_like(odds), 0.0
    for token in np.argsort(-odds, kind="stable"):
        if gathered >= sampling.top_p:
            break
        kept[token] = odds[token]
        gathered += odds[token]
    return kept / kept.sum()


def chance_of(drawn: Counter[int], expected: np.ndarray) -> float:
    """The probability of counts at least as far from what is expected, by a chi-square test."""
    number = sum(drawn.values())
    assert all(expected[token] > 0 for token in drawn), "a token was drawn that cannot be"
    often = [token for token in range(len(expected)) if expected[token] * number >= 5]
    counts = [drawn[token] for token in often]
    odds = [expected[token] for token in often]
    if (rest := 1 - sum(odds)) * number >= 5:
        counts, odds = [*counts, number - sum(counts)], [*odds, rest]
    if len(counts) < 2:
        return 1.0
    return float(stats.chisquare(counts, np.array(odds) * sum(counts) / sum(odds)).pvalue)


@given(
    tenths=st.lists(st.integers(-200, 200), min_size=1, max_size=12, unique=True),
    temperature=st.floats(0.05, 5.0),
    top_p=st.floats(0.01, 1.0),
)
@settings(max_examples=40, deadline=None)
def test_probabilities_are_those_of_the_definition(tenths: list[int], temperature: float, top_p: float) -> None:
    logits = [each / 10 for each in tenths]
    sampling = Sampling(temperature, top_p)
    found = probabilities(torch.tensor([logits]), sampling)[0].double().numpy()
    assert found.sum() == pytest.approx(1, abs=1e-5)
    whole = np.sort(np.exp(np.array(logits) / temperature - max(logits) / temperature))[::-1].cumsum()
    if np.abs(whole / whole[-1] - top_p).min() > 1e-4:
        assert np.allclose(found, exact(np.array(logits), sampling), atol=1e-4)


def chain_of(*drafts: int) -> Tree:
    """Drafts that follow some root."""
    return Tree.chain(torch.tensor([[0, *drafts]]))


@pytest.mark.parametrize("likely", [0, 3])
def test_a_drafted_token_changes_no_distribution(likely: int) -> None:
    """4,000 verified chains: what stands in the place of the first draft, and after it, is the model's own."""
    logits = torch.tensor([[[2.0, 1.0, 0.5, -1.0], [0.1, 2.0, 0.3, 0.2], [1.0, 1.0, 1.0, -3.0]]])
    chain = chain_of(likely, 1)
    chooser = Sampled(COLD, CPU)
    found = [chooser.verified(logits, chain).tokens[0].tolist() for _ in range(4_000)]
    expected = [exact(row.double().numpy(), COLD) for row in logits[0]]
    assert chance_of(Counter(tokens[0] for tokens in found), expected[0]) > CHANCE
    second = Counter(tokens[1] for tokens in found if len(tokens) > 1)
    if expected[0][likely] > 0:
        assert chance_of(second, expected[1]) > CHANCE
        third = Counter(tokens[2] for tokens in found if len(tokens) > 2)
        assert chance_of(third, expected[2]) > CHANCE
    else:
        assert not second, "a draft that cannot be drawn stood"


def test_a_wrong_rule_would_be_seen() -> None:
    """Drafts that stand with the square of their probability: the test above has the power to tell."""
    expected = exact(np.array([2.0, 1.0, 0.5, -1.0]), COLD)
    random = np.random.default_rng(0)
    drawn = Counter[int]()
    for _ in range(20_000):
        if random.random() < expected[1] ** 2:
            drawn[1] += 1
        else:
            left = expected.copy()
            left[1] = 0
            drawn[int(random.choice(4, p=left / left.sum()))] += 1
    assert chance_of(drawn, expected) < CHANCE


def test_the_chain_of_the_likeliest_and_of_given_tokens() -> None:
    logits = torch.tensor([[[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]])
    assert Greedy().verified(logits, chain_of(1, 0)).tokens.tolist() == [[1, 0, 1]]
    assert Greedy().verified(logits, chain_of(1, 1)).tokens.tolist() == [[1, 0]]
    assert Greedy().verified(logits, chain_of(0, 0)).tokens.tolist() == [[1]]
    forced = Forced([1, 0, 0, 1], CPU)
    assert forced.next(logits[:, 0]).tolist() == [[1]]
    assert forced.verified(logits, chain_of(0, 1)).tokens.tolist() == [[0, 0]]
    assert forced.verified(logits, chain_of(1, 0)).tokens.tolist() == [[1]], "the answer ends here"
    assert torch.equal(torch.cat(forced.logits), torch.cat([logits[0, :1], logits[0, :2], logits[0, :1]]))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"temperature": -1.0}, "at least 0"), ({"temperature": float("nan")}, "at least 0"), ({"top_p": 0.0}, "top_p")],
)
def test_senseless_sampling_is_refused(settings: dict[str, float], reason: str) -> None:
    with pytest.raises(MethodError, match=reason):
        Sampling(**settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def small() -> Any:
    return opinionated(seed=5)


def opinionated(seed: int) -> Any:
    """A model of eleven tokens, two layers and opinions."""
    configuration = AutoConfig.for_model(
        "llama", vocab_size=11, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    model = random_model(configuration, seed=seed)
    with torch.no_grad():
        model.lm_head.weight.mul_(16.0)
    return model


def drafted(model: Any) -> Eagle3Drafter:
    torch.manual_seed(0)
    configuration = new_configuration(model.config, intermediate=24, taps=(0, 1, 1))
    return Eagle3Drafter(configuration, model.get_input_embeddings()).eval()


def answers(model: Any, name: str, number: int, tokens: int) -> list[list[int]]:
    fitted = drafted(model) if name.startswith("eagle") else None
    if name.startswith("draft-model"):
        fitted = opinionated(seed=6)
    found = []
    with applied(parse_method(name), model, fitted) as generator:
        for seed in range(number):
            answer: list[int] = []
            request = Request(PROMPT, tokens, sampling=Sampling(0.8, 0.9, seed))
            generator.generate(request, answer.extend)
            found.append(answer)
    return found


PROMPT = torch.tensor([[3, 1, 4]])


def next_odds(model: Any, prefix: tuple[int, ...]) -> np.ndarray:
    with torch.no_grad():
        logits = model(torch.cat([PROMPT, torch.tensor([list(prefix)], dtype=torch.long)], 1)).logits[0, -1]
    return exact(logits.double().numpy(), COLD)


def least_chance(model: Any, found: list[list[int]], places: range) -> float:
    """The least probability of a chi-square test over the tokens of each place, given those before them."""
    chances = []
    for place in places:
        by_prefix: dict[tuple[int, ...], Counter[int]] = {}
        for answer in found:
            by_prefix.setdefault(tuple(answer[:place]), Counter())[answer[place]] += 1
        pooled = [
            chance_of(drawn, next_odds(model, prefix)) for prefix, drawn in by_prefix.items() if drawn.total() >= 30
        ]
        chances.append(float(stats.combine_pvalues(np.clip(pooled, 1e-300, 1)).pvalue) if pooled else 1.0)
    return min(chances)


@pytest.mark.parametrize("number", [120, pytest.param(20_000, marks=[pytest.mark.full, pytest.mark.timeout(3600)])])
def test_first_tokens_of_plain_decoding(small: Any, number: int) -> None:
    assert least_chance(small, answers(small, "autoregressive", number, 1), range(1)) > CHANCE


@pytest.mark.parametrize("number", [80, pytest.param(20_000, marks=[pytest.mark.full, pytest.mark.timeout(3600)])])
def test_later_tokens_of_eagle_given_those_before(small: Any, number: int) -> None:
    found = answers(small, "eagle-3(depth=3)", number, 4)
    assert least_chance(small, found, range(1, 4)) > CHANCE


DRAFTING = (
    "eagle-3(depth=3,tokens=9,top_k=3)",
    "eagle-3(depth=3,tokens=6,top_k=2,growth=static)",
    "eagle-3(depth=3,drawn=true)",
    "draft-model(depth=3,tokens=9,top_k=3)",
    "draft-model(depth=3,drawn=true)",
    "prompt-lookup(depth=3,longest=1)",
)


@pytest.mark.parametrize("number", [40, pytest.param(20_000, marks=[pytest.mark.full, pytest.mark.timeout(3600)])])
@pytest.mark.parametrize("name", DRAFTING)
def test_later_tokens_of_trees_and_drawn_drafts_given_those_before(small: Any, name: str, number: int) -> None:
    assert least_chance(small, answers(small, name, number, 4), range(1, 4)) > CHANCE


@pytest.mark.parametrize("name", [name for name in DRAFTING if "drawn" not in name])
def test_drafts_that_are_certain_leave_the_draws_as_they_were(small: Any, name: str) -> None:
    """Each token is drawn as it would be without drafts: the same seed writes the very same answer."""
    assert answers(small, name, 6, 9) == answers(small, "autoregressive", 6, 9)


def test_drawn_drafts_stand_by_the_ratio_of_their_odds() -> None:
    """6,000 chains whose tokens were drawn from other odds than the model's."""
    logits = torch.tensor([[[2.0, 1.0, 0.5, -1.0], [0.1, 2.0, 0.3, 0.2], [1.0, 1.0, 1.0, -3.0]]])
    warm = Sampling(temperature=1.0, seed=1)
    chooser = Sampled(warm, CPU)
    found = []
    for _ in range(6_000):
        drawn = [chooser.drawn(torch.tensor([each])) for each in ([0.0, 1.5, 0.0, 0.5], [1.0, 0.0, 0.0, 0.0])]
        tree = Tree.chain(torch.cat([torch.zeros(1, 1, dtype=torch.long), *(token for token, _ in drawn)], 1),
                          torch.cat([odds for _, odds in drawn]))  # fmt: skip
        found.append(chooser.verified(logits, tree).tokens[0].tolist())
    for place in range(3):
        counted = Counter(tokens[place] for tokens in found if len(tokens) > place)
        assert chance_of(counted, exact(logits[0, place].double().numpy(), warm)) > CHANCE
    assert {len(tokens) for tokens in found} == {1, 2, 3}


@pytest.mark.parametrize("name", ["autoregressive", "eagle-3(depth=3)"])
def test_the_same_seed_gives_the_same_tokens(small: Any, name: str) -> None:
    once, again = (answers(small, name, 8, 12) for _ in range(2))
    assert once == again and len({tuple(answer) for answer in once}) > 4


def test_a_temperature_near_zero_is_greedy(small: Any, tmp_path: Path) -> None:
    with applied(parse_method("autoregressive"), small) as generator:
        cold: list[int] = []
        generator.generate(Request(PROMPT, 8, sampling=Sampling(1e-4, 1.0, 3)), cold.extend)
        greedy: list[int] = []
        generator.generate(Request(PROMPT, 8), greedy.extend)
    assert cold == greedy
