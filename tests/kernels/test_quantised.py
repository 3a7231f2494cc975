"""Rounded weights: what products give is what levels say, and these are as near to the weights as they can be."""

from __future__ import annotations

import pytest
import torch

from vivace_kernels.quantised import FEW_TOKENS, Int4Weights, Int8Weights, QuantisedWeights

TOKENS = (1, 2, FEW_TOKENS + 3)
BFLOAT16 = 2.0**-8
"""Of a number, what rounding it to bfloat16 may change, at most."""


def weights(outputs: int, inputs: int, seed: int = 0) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(seed)
    # Rows of very different sizes, one of them all zeros: no scale may be shared between outputs, or be zero.
    rows = torch.randn(outputs, inputs, generator=drawn) * torch.logspace(-3, 2, outputs).unsqueeze(1)
    rows[outputs // 2] = 0
    return rows


def int4_step(weight: torch.Tensor, group: int) -> torch.Tensor:
    """Float64, shape (outputs, inputs): from one level to the next, in each weight's group."""
    missing = -weight.shape[1] % group
    grouped = torch.nn.functional.pad(weight.double(), (0, missing)).view(weight.shape[0], -1, group)
    step = (grouped.amax(2) - grouped.amin(2)) / 15
    return step.repeat_interleave(group, 1)[:, : weight.shape[1]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("shape", [(48, 96), (33, 64), (16, 50)], ids=str)
def test_eight_bits_are_within_half_a_step(dtype: torch.dtype, tokens: int, shape: tuple[int, int]) -> None:
    weight = weights(*shape).to(dtype)
    x = torch.randn(tokens, shape[1], generator=torch.Generator().manual_seed(1)).to(dtype)
    rounded = Int8Weights(weight)
    exact = x.double() @ weight.double().T
    step = (weight.double().abs().amax(1) / 127) * (1 + BFLOAT16)
    moved = x.double().abs() @ weight.double().abs().T  # whatever is rounded to bfloat16 is a part of this
    bound = x.double().abs().sum(1, keepdim=True) * step / 2 + 3 * BFLOAT16 * moved + 1e-30
    found = rounded.product(x)
    assert found.dtype == dtype and found.shape == exact.shape
    assert ((found.double() - exact).abs() <= bound).all()
    outputs, inputs = -(-shape[0] // 16) * 16, -(-shape[1] // 32) * 32
    assert rounded.bytes == outputs * inputs + 2 * outputs


@pytest.mark.parametrize("at_once", [FEW_TOKENS, 96])
def test_each_weight_is_within_half_a_step_of_eight_bits(at_once: int) -> None:
    """One by one, for in sums errors cancel, and steps half as large again went unseen."""
    weight = weights(48, 96)
    rounded = Int8Weights(weight)
    found = torch.cat([rounded.product(each) for each in torch.eye(96).split(at_once)]).T.double()
    step = weight.double().abs().amax(1, keepdim=True) / 127
    slack = BFLOAT16 * (weight.double().abs() + 2 * step)
    assert ((found - weight.double()).abs() <= step / 2 + slack).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("shape", [(48, 96), (33, 64), (16, 50)], ids=str)
@pytest.mark.parametrize("group", [32, 64])
def test_four_bits_are_within_half_a_step(
    dtype: torch.dtype, tokens: int, shape: tuple[int, int], group: int
) -> None:
    weight = weights(*shape).to(dtype)
    x = torch.randn(tokens, shape[1], generator=torch.Generator().manual_seed(1)).to(dtype)
    rounded = Int4Weights(weight, group)
    exact = x.double() @ weight.double().T
    moved = x.double().abs() @ (weight.double().abs() + 16 * int4_step(weight, group)).T
    bound = x.double().abs() @ int4_step(weight, group).T / 2 + 4 * BFLOAT16 * moved + 1e-30
    found = rounded.product(x)
    assert found.dtype == dtype and found.shape == exact.shape
    assert ((found.double() - exact).abs() <= bound).all()
    outputs, inputs = -(-shape[0] // 16) * 16, -(-shape[1] // group) * group
    assert rounded.bytes == outputs * inputs // 2 + outputs * (inputs // group) * 4


def test_fewer_bits_lose_more() -> None:
    """A rival that rounded worse than it must would flatter whatever is held against it."""
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(2))
    x = torch.randn(8, 256, generator=torch.Generator().manual_seed(3))
    exact = x @ weight.T

    def lost(rounded: QuantisedWeights) -> float:
        return float((rounded.product(x) - exact).square().sum() / exact.square().sum())

    assert lost(Int8Weights(weight)) < 2e-4 < lost(Int4Weights(weight, 32)) < lost(Int4Weights(weight, 256)) < 0.02


def test_a_prompt_and_a_token_meet_the_same_weights() -> None:
    rounded, x = Int8Weights(weights(48, 96)), torch.randn(FEW_TOKENS + 1, 96).bfloat16().float()
    whole, alone = rounded.product(x), torch.cat([rounded.product(one) for one in x.split(1)])
    scale = float(whole.abs().max())
    assert torch.allclose(whole, alone, rtol=2 * BFLOAT16, atol=BFLOAT16 * scale * 1e-2)
