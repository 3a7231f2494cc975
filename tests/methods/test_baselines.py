"""Baselines give transformers' own greedy tokens, and leave the model as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vivace_methods.base import MethodError, Request
from vivace_methods.models.cost import decode_cost
from vivace_methods.models.loading import load_model
from vivace_methods.models.random import TINY_SHAPES, random_model, tiny_configuration
from vivace_methods.registry import METHODS, parse_method

CPU = torch.device("cpu")
ALONE = [name for name, kind in METHODS.items() if not kind.needs]


def model_of(kind: str) -> Any:
    return random_model(tiny_configuration(kind), dtype=torch.float32, device=CPU, seed=0)


@pytest.mark.parametrize("kind", list(TINY_SHAPES))
@pytest.mark.parametrize("name", [*ALONE, "autoregressive(cache=static)", "full(attention=eager)"])
def test_the_tokens_are_those_of_generate(kind: str, name: str) -> None:
    model = model_of(kind)
    for prompt in ([5, 9, 2, 7], [11], [3] * 40):
        ids = torch.tensor([prompt])
        whole = model.generate(ids, do_sample=False, max_new_tokens=12, eos_token_id=None, pad_token_id=0)
        expected = whole[0, len(prompt) :].tolist()
        end = expected[3]
        for stops in (frozenset(), frozenset({end})):
            tokens: list[int] = []
            with parse_method(name).apply(model) as generator:
                generator.generate(Request(ids, 12, stops), tokens.extend)
            assert tokens == (expected[: expected.index(end) + 1] if stops else expected)


@pytest.mark.parametrize("kind", list(TINY_SHAPES))
@pytest.mark.parametrize("name", [*ALONE, "full(attention=eager)"])
def test_apply_restores_the_model_also_when_the_body_raises(kind: str, name: str) -> None:
    model = model_of(kind)

    def state() -> Any:
        return (
            model.config.to_dict(),
            model.config._attn_implementation,
            model.config._experts_implementation,
            sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()),
            [sorted(m.__dict__) for m in model.modules()],
            model.training,
        )

    before, weights = state(), {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(RuntimeError, match="body"), parse_method(name).apply(model) as generator:
        generator.generate(Request(torch.tensor([[1, 2]]), 3), lambda step: None)
        raise RuntimeError("body")
    assert state() == before
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("text", ["nothing", "full(attention=3)", "full(speed=9)", "full(", "dense(cache=warm)"])
def test_a_wrong_method_is_one_sentence(text: str) -> None:
    with pytest.raises(MethodError) as caught:
        parse_method(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", list(TINY_SHAPES))
def test_a_decoded_token_reads_the_weights_that_are_there(kind: str) -> None:
    """Counted over the parameters: one row of the embedding, and of the experts the active ones."""
    model = model_of(kind)
    config = model.config
    experts = sum(weights.numel() for name, weights in model.named_parameters() if ".experts." in name)
    idle = experts * (1 - config.num_experts_per_tok / config.num_experts) if experts else 0
    unread = (config.vocab_size - 1) * config.hidden_size
    weights = sum(each.numel() for each in model.parameters()) - idle - unread
    assert decode_cost(config, 10, torch.float32).weight_bytes == 4 * weights


def test_a_saved_model_is_read_back(tmp_path: Path) -> None:
    model = model_of("llama")
    model.save_pretrained(tmp_path)
    again = load_model(tmp_path).state_dict()
    assert all(torch.equal(weights, again[name]) for name, weights in model.state_dict().items())
