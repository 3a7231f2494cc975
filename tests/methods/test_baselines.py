"""Baselines give transformers' own greedy tokens, and leave the model as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from vivace_kernels.probing import Probed
from vivace_methods.decoding.joined import applied
from vivace_methods.models import implementations
from vivace_methods.models.cost import decode_cost
from vivace_methods.models.loading import load_model
from vivace_methods.models.random import random_model, real_configuration, tiny_configuration
from vivace_methods.models.shapes import TINY_SHAPES
from vivace_methods.protocol import MethodError, Request
from vivace_methods.registry import METHODS, parse_method

CPU = torch.device("cpu")
KINDS = ("llama", "qwen3", "olmoe", "qwen3_moe")
"""Of the tiny shapes those that everything is tried with."""
ALONE = [name for name, kind in METHODS.items() if kind.exact and not kind.needs]


def model_of(kind: str) -> Any:
    return random_model(tiny_configuration(kind), dtype=torch.float32, device=CPU, seed=0)


PADDING = 7


def transformers_tokens(
    model: Any, ids: torch.Tensor, most: int, ends: list[int] | None, **options: Any
) -> list[int]:
    """What `generate` of transformers answers."""
    given = {"do_sample": False, "max_new_tokens": most, "eos_token_id": ends, "pad_token_id": PADDING, **options}
    tokens: list[int] = model.generate(ids, **given)[0, ids.shape[1] :].tolist()
    return tokens


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, torch.float32) for name in [*ALONE, "autoregressive(cache=static)", "full(attention=eager)"]),
        *((name, torch.bfloat16) for name in ALONE),  # others sum in another order, which 16 bits may round otherwise
    ],
)
def test_the_tokens_are_those_of_generate(kind: str, name: str, dtype: torch.dtype) -> None:
    model = random_model(tiny_configuration(kind), dtype=dtype)
    with applied(parse_method(name), model) as generator:
        for prompt in ([5, 9, 2, 7], [11], [3] * 40, [PADDING, 8, PADDING]):
            ids = torch.tensor([prompt])
            shown = {"attention_mask": torch.ones_like(ids)}  # or `generate` hides what it takes for padding
            free = transformers_tokens(model, ids, 12, None, **shown)
            for ends in ([], [free[3]], [free[7], free[2]]):
                expected = transformers_tokens(model, ids, 12, ends, **shown) if ends else free
                tokens: list[int] = []
                generator.generate(Request(ids, 12, frozenset(ends)), tokens.extend)
                assert tokens == expected


@pytest.mark.parametrize("kind", [kind for kind in TINY_SHAPES if kind not in KINDS])
def test_other_architectures_decode_as_generate_does(kind: str) -> None:
    """The prompt is longer than their windows."""
    model, ids = model_of(kind), torch.tensor([[3] * 20])
    free = transformers_tokens(model, ids, 8, None, attention_mask=torch.ones_like(ids))
    for name in ("autoregressive", "autoregressive(cache=static)"):
        tokens: list[int] = []
        with applied(parse_method(name), model) as generator:
            generator.generate(Request(ids, 8), tokens.extend)
        assert tokens == free


def test_single_tokens_go_through_the_fastest_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokens stay the same, large matrices alone are changed, and afterwards nothing is."""
    monkeypatch.setattr(implementations, "LEAST_WEIGHTS", 3000)
    monkeypatch.setattr(implementations, "fastest_product", lambda weights: Probed("mv", {}))
    model = model_of("llama")
    large = {name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    large = {name for name in large if model.get_submodule(name).weight.numel() >= 3000}
    prompt = torch.tensor([[5, 9, 2, 7]])
    usual = transformers_tokens(model, prompt, 12, None, attention_mask=torch.ones_like(prompt))
    for name in ("dense", "autoregressive", "full"):
        tokens: list[int] = []
        with applied(parse_method(name), model) as generator:
            changed = {each for each, part in model.named_modules() if "forward" in vars(part)}
            figures = generator.generate(Request(prompt, 12), tokens.extend).figures
        assert changed == large and changed
        assert tokens == usual and set(figures["products"].values()) == {"mv"}
        assert not any("forward" in vars(part) for part in model.modules())


def test_a_padding_token_in_a_prompt_is_read() -> None:
    """It is where `generate` differs when it is left to guess a mask."""
    model = model_of("llama")
    hidden = read = False
    for last in range(20):
        ids = torch.tensor([[5, PADDING, last + 10]])
        tokens: list[int] = []
        with applied(parse_method("autoregressive"), model) as generator:
            generator.generate(Request(ids, 12), tokens.extend)
        hidden |= transformers_tokens(model, ids, 12, None) != tokens
        read |= transformers_tokens(model, ids, 12, None, attention_mask=torch.ones_like(ids)) != tokens
    assert hidden and not read


@pytest.mark.parametrize("kind", KINDS)
def test_a_random_model_is_as_transformers_makes_one(kind: str) -> None:
    """No weight is left as memory happened to hold it, and constants are the same."""
    model = model_of(kind)
    torch.manual_seed(1)
    other = AutoModelForCausalLM.from_config(tiny_configuration(kind), dtype=torch.float32)
    buffers = dict(other.named_buffers())
    assert buffers.keys() == dict(model.named_buffers()).keys()
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    weights = dict(other.named_parameters())
    for name, weight in model.named_parameters():
        assert weight.mean().item() == pytest.approx(weights[name].mean().item(), abs=0.005), name
        assert weight.std().item() == pytest.approx(weights[name].std().item(), rel=0.2, abs=1e-6), name
    same, another = model_of(kind), random_model(tiny_configuration(kind), seed=1)
    assert torch.equal(same.lm_head.weight, model.lm_head.weight)
    assert not torch.equal(another.lm_head.weight, model.lm_head.weight)


@pytest.mark.parametrize("kind", KINDS)
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
    with pytest.raises(RuntimeError, match="body"), applied(parse_method(name), model) as generator:
        generator.generate(Request(torch.tensor([[1, 2]]), 3), lambda step: None)
        raise RuntimeError("body")
    assert state() == before
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "billions"),
    [("meta-llama/Llama-3.1-8B", 8.030), ("allenai/OLMoE-1B-7B-0125", 6.919), ("Qwen/Qwen3-30B-A3B", 30.532)],
)
def test_real_shapes_have_as_many_weights_as_the_models(name: str, billions: float) -> None:
    """As their pages on the hub give them."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(real_configuration(name))
    assert sum(weights.numel() for weights in model.parameters()) == pytest.approx(billions * 1e9, abs=5e5)


@pytest.mark.parametrize("text", ["nothing", "full(attention=3)", "full(speed=9)", "full(", "dense(cache=warm)"])
def test_a_wrong_method_is_one_sentence(text: str) -> None:
    with pytest.raises(MethodError) as caught:
        parse_method(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
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
