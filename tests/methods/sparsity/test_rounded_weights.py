"""int8 and int4 on models: what they compute, what is counted of them, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from vivace_methods.decoding.joined import applied
from vivace_methods.models.cost import cost
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.models.shared_copy import shared_copy
from vivace_methods.protocol import MethodError, Request
from vivace_methods.registry import parse_arm, parse_method
from vivace_methods.sparsity.applying.linears import find_groups

REQUEST = Request(torch.tensor([[5, 9, 2, 7, 11, 3]]), 8)
FORCED = [4, 8, 15, 16, 23, 42]
SEVEN = 2 * (32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48)
"""Weights of the seven linear layers of both blocks."""
MADE_UP = 2 * 32 * 16
"""Zeros, for the layers that read 48 inputs."""
SCALES = 2 * 2 * (32 + 16 + 16 + 32 + 48 + 48 + 32)
"""Bytes of a scale for each of their outputs."""


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def model(request: pytest.FixtureRequest) -> Any:
    return random_model(tiny_configuration("llama"), seed=3, dtype=request.param)


def forced_logits(model: Any, name: str) -> torch.Tensor:
    with applied(parse_method(name), shared_copy(model)) as generator:
        logits = generator.logits(REQUEST, FORCED)
    assert logits is not None
    return logits


def passes_of(model: Any, name: str) -> Any:
    tokens: list[int] = []
    with applied(parse_method(name), shared_copy(model)) as generator:
        return generator.generate(REQUEST, tokens.extend).passes


def test_logits_are_those_of_the_rounded_weights(model: Any) -> None:
    """Against the same model in float64 whose weights were replaced by what eight bits leave, counted anew."""
    exact = random_model(model.config, seed=3, dtype=model.dtype).double()
    with torch.no_grad():
        for group in find_groups(exact):
            for module in group.modules:
                step = (module.weight.abs().amax(1, keepdim=True) / 127).bfloat16().double()
                module.weight.copy_((module.weight / step).round().clamp(-127, 127) * step)
    expected, dense = forced_logits(exact, "dense"), forced_logits(model, "dense").double()
    found = forced_logits(model, "int8").double()
    scale = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= 0.05 * scale
    assert float((found - dense).abs().max()) > 0, "nothing was rounded"


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_every_pass_reads_the_bytes_that_are_stored(model: Any, name: str) -> None:
    dense, rounded = passes_of(model, "dense"), passes_of(model, name)
    for kind in ("read", "decode"):
        usual = cost(model.config, [one for one in dense if one.kind == kind][:1], model.dtype)
        (first, *_) = [one for one in rounded if one.kind == kind]
        its = cost(model.config, [first], model.dtype)
        stored = sum(first.read_bytes.values())
        assert usual.weight_bytes - its.weight_bytes == SEVEN * model.dtype.itemsize - stored
        assert (its.flops, its.cache_bytes) == (usual.flops, usual.cache_bytes)
        assert name != "int8" or stored == SEVEN + MADE_UP + SCALES
    assert type(first).from_json(first.as_json()) == first


def test_only_those_that_are_named_are_rounded(model: Any) -> None:
    (first, *_) = passes_of(model, "int8(only=mlp)")
    assert {name.split(".")[-2] for name in first.read_bytes} == {"mlp"} and len(first.read_bytes) == 6


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_nothing_stays_behind(model: Any, name: str) -> None:
    copy, before = shared_copy(model), forced_logits(model, "dense")
    weights = {key: value.clone() for key, value in copy.state_dict().items()}
    with applied(parse_method(name), copy) as generator:
        generator.logits(REQUEST, FORCED)
    assert torch.equal(forced_logits(copy, "dense"), before)
    assert all(torch.equal(value, weights[key]) for key, value in copy.state_dict().items())


def test_what_is_refused(model: Any) -> None:
    for written, said in (
        ("int8+teal:recipe", "replaces linear layers"),
        ("int8:folder", "takes nothing fitted"),
        ("int4(group=48)", "one of 32, 64, 128, 256"),
        ("int8(group=32)", "no setting"),
    ):
        with pytest.raises(MethodError, match=said):
            parse_arm(written)
    with pytest.raises(MethodError, match="in whose name 'nowhere' is found"):
        forced_logits(model, "int8(only=nowhere)")
    mixture = random_model(tiny_configuration("mixtral"), seed=3)
    with pytest.raises(MethodError, match="experts"):
        forced_logits(mixture, "int4")


def fitted(model: Any, name: str) -> Any:
    drawn = torch.Generator().manual_seed(4)
    method: Any = parse_method(name)
    return method.fit(model, [torch.randint(199, (1, 24), generator=drawn) for _ in range(8)])


SPARSE = ("teal%s", "wina%s", "r-sparse(ratio=0.9%s)", "low-rank%s", "cats(sparsity=0.3%s)")


def with_int8(name: str) -> str:
    return name % (",weights=int8" if "(" in name else "(weights=int8)")


@pytest.mark.parametrize("name", SPARSE)
def test_sparse_layers_over_eight_bits_give_about_what_they_gave(model: Any, name: str) -> None:
    """One recipe serves both; eight bits move the logits, and by a few per cent of what they are."""
    recipe = fitted(model, name % "")
    plain, over = (forced_sparse(model, written, recipe).double() for written in (name % "", with_int8(name)))
    moved = float((over - plain).norm() / plain.norm())
    assert 0 < moved < 0.1


def forced_sparse(model: Any, name: str, recipe: Any) -> torch.Tensor:
    with applied(parse_method(name), shared_copy(model), recipe) as generator:
        logits = generator.logits(REQUEST, FORCED)
    assert logits is not None
    return logits


@pytest.mark.parametrize("name", ["teal(sparsity=0.0%s)", "r-sparse(sparsity=0.0%s)"])
def test_without_sparsity_they_are_int8(model: Any, name: str) -> None:
    found = forced_sparse(model, with_int8(name), fitted(model, name % "")).double()
    rival = forced_logits(model, "int8").double()
    assert float((found - rival).abs().max()) <= 0.05 * float(rival.abs().max())


@pytest.mark.parametrize("name", SPARSE)
def test_bytes_of_sparse_layers_over_eight_bits(model: Any, name: str) -> None:
    recipe, tokens = fitted(model, name % ""), list[int]()
    with applied(parse_method(with_int8(name)), shared_copy(model), recipe) as generator:
        prompt, *decoded = generator.generate(REQUEST, tokens.extend).passes
    modules = dict(model.named_modules())
    for one in (prompt, *decoded):
        assert set(one.read_bytes) == set(recipe.modules)
        for layer, read in one.read_bytes.items():
            outputs, inputs = modules[layer].weight.shape
            rank = recipe.modules[layer].rank
            always = 4 * outputs + rank * (outputs + inputs * model.dtype.itemsize)
            exact = one.read[layer] - rank * (outputs + inputs) if one is not prompt else outputs * inputs
            assert read == exact + always
    usual = {key: value.numel() * model.dtype.itemsize for key, value in model.named_parameters()}
    whole = cost(model.config, [replace(decoded[0], read={}, read_bytes={})], model.dtype)
    its = cost(model.config, [decoded[0]], model.dtype)
    saved = sum(usual[f"{layer}.weight"] - read for layer, read in decoded[0].read_bytes.items())
    assert whole.weight_bytes - its.weight_bytes == saved
