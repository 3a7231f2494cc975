"""What a generator thinks along a given answer is what it would have chosen from."""

from __future__ import annotations

import pytest
import torch

from vivace_methods.decoding.joined import applied
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.protocol import Request
from vivace_methods.registry import parse_method


@pytest.mark.parametrize("kind", ["llama", "olmoe"])
@pytest.mark.parametrize("name", ["autoregressive", "autoregressive(cache=static)", "full", "dense"])
def test_the_likeliest_along_its_own_answer_is_that_answer(kind: str, name: str) -> None:
    model = random_model(tiny_configuration(kind))
    request = Request(torch.tensor([[5, 9, 2, 7]]), 12)
    tokens: list[int] = []
    with applied(parse_method(name), model) as generator:
        generator.generate(request, tokens.extend)
        logits = generator.logits(request, tokens)
        assert logits is not None and logits.shape == (12, 199)
        assert logits.argmax(-1).tolist() == tokens
        forced = generator.logits(request, [1, 2, 3])
        again: list[int] = []
        generator.generate(request, again.extend)
    with torch.inference_mode():
        whole = model(torch.tensor([[5, 9, 2, 7, 1, 2]])).logits[0, 3:]
    assert forced is not None and torch.allclose(forced, whole, atol=1e-5)
    assert again == tokens, "nothing of it is kept"
