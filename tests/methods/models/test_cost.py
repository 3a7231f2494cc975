"""What passes move and compute is as one works it out by hand, and dense models cost what they always did."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from vivace_methods.models.anatomy import anatomy, shapes
from vivace_methods.models.cost import (
    Cost,
    cost,
    decode_cost,
    greedy_cost,
    greedy_memory,
    pass_cost,
    prefill_cost,
)
from vivace_methods.models.ledger import Pass
from vivace_methods.models.random import random_configuration, random_model, tiny_configuration
from vivace_methods.models.shapes import TINY_SHAPES
from vivace_methods.protocol import MethodError

HEAD = 199 * 32  # vocabulary x hidden
NORM = ROW = 32
ATTENTION = 32 * 32 + 32 * 16 + 32 * 16 + 32 * 32  # four heads of width 8, and two of keys and of values
KEYS_AND_VALUES = 2 * 2 * 8
MLP = 3 * 32 * 48
SMALL = 3 * 32 * 24
ROUTER = 8 * 32


@dataclass(frozen=True)
class Hand:
    """What one layer of a tiny model holds, read off its paper by hand.

    Attributes:
        products: weights of matrices that every token is multiplied with.
        others: norms, biases and sinks.
        expert: weights of an expert's matrices.
        expert_biases: of an expert.
        windows: of both layers.
    """

    products: int
    others: int
    expert: int = 0
    expert_biases: int = 0
    windows: tuple[int | None, int | None] = (None, None)


TWO_NORMS, FOUR_NORMS, HEAD_NORMS, QKV_BIASES = 2 * 32, 4 * 32, 2 * 8, 32 + 16 + 16
LAYERS = {
    "llama": Hand(ATTENTION + MLP, TWO_NORMS),
    "mistral": Hand(ATTENTION + MLP, TWO_NORMS, windows=(16, 16)),
    "qwen2": Hand(ATTENTION + MLP, TWO_NORMS + QKV_BIASES),
    "qwen3": Hand(ATTENTION + MLP, TWO_NORMS + HEAD_NORMS),
    "gemma": Hand(ATTENTION + MLP, TWO_NORMS),
    "gemma2": Hand(ATTENTION + MLP, FOUR_NORMS, windows=(16, None)),
    "gemma3_text": Hand(ATTENTION + MLP, FOUR_NORMS + HEAD_NORMS, windows=(16, None)),
    "olmoe": Hand(ATTENTION + ROUTER, TWO_NORMS + 32 + 16, MLP),
    "qwen3_moe": Hand(ATTENTION + ROUTER, TWO_NORMS + HEAD_NORMS, SMALL),
    "mixtral": Hand(ATTENTION + ROUTER, TWO_NORMS, MLP),
    "qwen2_moe": Hand(ATTENTION + ROUTER + 3 * 32 * 40 + 32, TWO_NORMS + QKV_BIASES, SMALL),
    "gpt_oss": Hand(
        ATTENTION + ROUTER, TWO_NORMS + QKV_BIASES + 32 + 8 + 4, MLP, expert_biases=2 * 48 + 32, windows=(16, None)
    ),
}


def by_hand(kind: str, one: Pass) -> Cost:
    """Bytes at two bytes a number, and operations, of a pass over one chain of tokens."""
    hand = LAYERS[kind]
    read, moved, products = ROW * min(one.tokens, 199) + NORM + HEAD, 0, one.logits * HEAD
    for layer, window in enumerate(hand.windows):
        experts = one.experts[layer] if one.experts else 0
        routed = one.routed[layer] if one.routed else 0
        read += hand.products + hand.others + experts * (hand.expert + hand.expert_biases)
        products += one.tokens * hand.products + routed * hand.expert
        reach = window or 10**9
        moved += KEYS_AND_VALUES * (min(one.context, reach - 1) + min(one.tokens, reach))
        for place in range(one.context, one.context + one.tokens):
            seen = sum(place - position < reach for position in range(place + 1))
            products += 2 * 32 * seen  # scores, and the sum of values that they weigh
    return Cost(2.0 * read, 2.0 * moved, 2.0 * products)


@pytest.mark.parametrize("kind", list(LAYERS))
def test_each_architecture_costs_what_a_hand_works_out(kind: str) -> None:
    assert LAYERS.keys() == TINY_SHAPES.keys()
    configuration = tiny_configuration(kind)
    passes = [
        Pass("read", 20, 0, experts=(7, 8), routed=(40, 39)),
        Pass("decode", 1, 20, experts=(2, 2), routed=(2, 1)),
        Pass("verify", 6, 12, logits=6, experts=(5, 3), routed=(12, 12)),
        Pass("verify", 3, 40, logits=3, experts=(5, 3), routed=(6, 6)),
        Pass("read", 300, 0, logits=0, experts=(8, 8), routed=(600, 600)),
    ]
    if not LAYERS[kind].expert:
        passes = [replace(one, experts=None, routed=None) for one in passes]
    for one in passes:
        hand = by_hand(kind, one)
        if not one.logits:
            hand = replace(hand, weight_bytes=hand.weight_bytes - 2 * HEAD)
        assert cost(configuration, [one], torch.bfloat16) == hand
    every = cost(anatomy(random_model(configuration)), passes, torch.bfloat16)
    assert every == sum(
        (cost(configuration, [one], torch.bfloat16) for one in passes[1:]),
        cost(configuration, passes[:1], torch.bfloat16),
    )


def test_the_numbers_of_one_token_are_these() -> None:
    """Written out: a Llama, an OLMoE that met one expert in its second layer, and a Gemma 2 beyond its window."""
    decode = Pass("decode", 1, 20)
    llama = cost(tiny_configuration("llama"), [decode], torch.float32)
    assert llama == Cost(4 * 21_920, 4 * 2 * 32 * 21, 2 * (6_368 + 15_360 + 2 * 2 * 32 * 21))
    olmoe = cost(tiny_configuration("olmoe"), [replace(decode, experts=(2, 1), routed=(2, 1))], torch.float32)
    assert olmoe == Cost(4 * 27_136, 4 * 2 * 32 * 21, 2 * (6_368 + 6_656 + 3 * 4_608 + 2 * 2 * 32 * 21))
    gemma = cost(tiny_configuration("gemma2"), [decode], torch.float32)
    assert gemma == Cost(4 * 22_048, 4 * 32 * (16 + 21), 2 * (6_368 + 15_360 + 2 * 32 * (16 + 21)))


FORMER = {
    "llama": [(43840, 7424, 58304), (56512, 41088, 23104192), (44160, 6400, 333696), (878848, 108800, 2204928)],
    "qwen3": [(43904, 7424, 58304), (56576, 41088, 23104192), (44224, 6400, 333696), (880128, 108800, 2204928)],
    "meta-llama/Llama-3.1-8B": [
        (15009857536, 7602176, 15039725568),
        (15012478976, 42074112, 4508871032832),
        (15009898496, 6553600, 90205323264),
        (300197412864, 111411200, 747585404928),
    ],
}
"""What dense models were said to cost before passes were recorded."""


@pytest.mark.parametrize("name", list(FORMER))
def test_dense_models_cost_what_they_did(name: str) -> None:
    configuration, dtype = random_configuration(name), torch.bfloat16
    assert [(one.weight_bytes, one.cache_bytes, one.flops) for one in (
        decode_cost(configuration, 57, dtype),
        prefill_cost(configuration, 321, dtype),
        pass_cost(configuration, 44, 6, dtype),
        greedy_cost(configuration, 33, 20, dtype),
    )] == FORMER[name]  # fmt: skip


def test_uncounted_experts_are_as_many_as_even_routing_brings() -> None:
    configuration = tiny_configuration("olmoe")
    met = 8 * (1 - (1 - 2 / 8) ** 6)
    counted = cost(configuration, [Pass("verify", 6, 44, experts=(0, 0))], torch.float32)
    uncounted = cost(configuration, [Pass("verify", 6, 44)], torch.float32)
    assert uncounted.weight_bytes - counted.weight_bytes == pytest.approx(4 * 2 * met * MLP)
    assert uncounted.flops == counted.flops  # each token goes through two, however many differ
    assert decode_cost(configuration, 57, torch.bfloat16) == Cost(63488, 7424, 77760)


def test_a_reader_that_prunes_costs_less() -> None:
    """Ten tokens through the first layer, of which it keeps six; four go on, behind a shorter cache."""
    pruned = Pass("read", 10, 8, layer_tokens=(10, 4), layer_kept=(6, 4), layer_context=(8, 5))
    found = cost(tiny_configuration("llama"), [pruned], torch.float32)
    assert found.weight_bytes == cost(tiny_configuration("llama"), [Pass("read", 10, 8)], torch.float32).weight_bytes
    assert found.cache_bytes == 4 * KEYS_AND_VALUES * (8 + 6 + 5 + 4)
    pairs = (10 * 8 + 55) + (4 * 5 + 10)
    assert found.flops == 2 * (HEAD + (10 + 4) * (ATTENTION + MLP) + 2 * 32 * pairs)


@pytest.mark.parametrize(("kind", "windows"), [("llama", (99, 99)), ("gemma2", (16, 99))])
def test_a_tree_looks_at_its_own_branches(kind: str, windows: tuple[int, int]) -> None:
    depths = (0, 1, 1, 2, 2, 2)
    tree = Pass("verify", 6, 14, logits=6, depths=depths)
    chain = replace(tree, depths=None)
    found, whole = (cost(tiny_configuration(kind), [one], torch.float32) for one in (tree, chain))
    saved = sum(
        min(14 + place + 1, window) - min(14 + depth + 1, window)
        for window in windows
        for place, depth in enumerate(depths)
    )
    assert whole.flops - found.flops == 2 * 2 * 32 * saved > 0
    assert (found.weight_bytes, found.cache_bytes) == (whole.weight_bytes, whole.cache_bytes)


@pytest.mark.parametrize("before", ["", "model.", "language_model.model."])
def test_what_was_read_of_a_layer_takes_the_place_of_what_it_holds(before: str) -> None:
    read = {f"{before}layers.0.mlp.up_proj": 500, f"{before}layers.1.self_attn.k_proj": 600}
    configuration = tiny_configuration("llama")
    dense = cost(configuration, [Pass("decode", 1, 9)], torch.bfloat16)
    sparse = cost(configuration, [Pass("decode", 1, 9, read=read)], torch.bfloat16)
    less = 32 * 48 - 500 + 32 * 16 - 600
    assert dense.weight_bytes - sparse.weight_bytes == 2 * less
    assert dense.flops - sparse.flops == 2 * less
    assert dense.cache_bytes == sparse.cache_bytes


def test_a_drafter_costs_its_own_weights_alone() -> None:
    draft = Pass("draft", 3, 9, weights=1000)
    assert cost(tiny_configuration("llama"), [draft], torch.bfloat16) == Cost(2000, 0, 6000)


def test_sequences_share_weights_and_nothing_else() -> None:
    configuration = tiny_configuration("mistral")
    one, four = (cost(configuration, [Pass("decode", 1, 30, sequences=n)], torch.float32) for n in (1, 4))
    assert four.flops == 4 * one.flops and four.cache_bytes == 4 * one.cache_bytes
    assert four.weight_bytes == one.weight_bytes + 4 * 3 * ROW


@pytest.mark.parametrize(
    ("one", "sentence"),
    [
        (Pass("decode", 1, 9, read={"layers.7.mlp.up_proj": 1}), "no such linear layer"),
        (Pass("decode", 1, 9, read={"lm_head": 1}), "no such linear layer"),
        (Pass("read", 9, 0, layer_tokens=(9,)), "tells of 1 layers, and this llama has 2"),
        (Pass("decode", 1, 9, experts=(2, 2)), "tells of 2 layers, and this llama has 0"),
    ],
)
def test_passes_of_another_model_are_refused(one: Pass, sentence: str) -> None:
    with pytest.raises(MethodError, match=sentence):
        cost(tiny_configuration("llama"), [one], torch.float32)


@pytest.mark.parametrize("kind", list(TINY_SHAPES))
def test_memory_is_known_of_every_architecture(kind: str) -> None:
    """Of dense models what it always was; a cache behind a window stops growing."""
    configuration = tiny_configuration(kind)
    more = greedy_memory(configuration, 100, 60, torch.bfloat16) - greedy_memory(
        configuration, 100, 20, torch.bfloat16
    )
    unbounded = sum(layer.window is None for layer in shapes(configuration).layers)
    assert more == 2 * unbounded * KEYS_AND_VALUES * 40


@pytest.mark.parametrize(("name", "options", "bytes"), [
    ("llama", {}, 57358), ("llama", {"whole_attention": True}, 377358), ("olmoe", {}, 111758),
    ("meta-llama/Llama-3.1-8B", {}, 26225152), ("allenai/OLMoE-1B-7B-0125", {"whole_attention": True}, 29397248),
])  # fmt: skip
def test_memory_is_what_it_was(name: str, options: dict[str, Any], bytes: int) -> None:
    assert greedy_memory(random_configuration(name), 100, 20, torch.bfloat16, **options) == bytes
