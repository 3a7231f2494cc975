"""Kernels that a transformers model is told to run with: the same answers, and everything back in its place."""

from __future__ import annotations

import pytest
import torch

from vivace_kernels.speculation.expert_product import expert_product
from vivace_methods.models import implementations
from vivace_methods.models.random import random_model, tiny_configuration


@pytest.mark.parametrize("architecture", ["mixtral", "olmoe", "qwen3_moe", "qwen2_moe", "gpt_oss"])
def test_our_experts_give_what_those_of_transformers_give(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of another form, with biases and a gate of their own, stay with transformers."""
    model = random_model(tiny_configuration(architecture))
    before = model.get_experts_implementation()
    calls = []

    def counted(*given: torch.Tensor) -> torch.Tensor:
        calls.append(given)
        return expert_product(*given)

    monkeypatch.setattr(implementations, "expert_product", counted)
    text = torch.arange(12)[None]
    with torch.inference_mode():
        usual = model(text).logits
        with implementations.experts(model, implementations.OWN_EXPERTS):
            torch.testing.assert_close(model(text).logits, usual, rtol=1e-4, atol=1e-5)
            model(text[:, :1])
    assert len(calls) == (0 if architecture == "gpt_oss" else 2 * 2)
    assert model.get_experts_implementation() == before
