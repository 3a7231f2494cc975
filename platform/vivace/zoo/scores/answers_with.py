"""Answers of a zoo model with an inference method on it: a prompt after the other, as the tracks ask them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vivace_methods.protocol import Method


def answers_with(
    method: Method, model: Any, tokenizer: Any, prompts: Sequence[str], most_tokens: int, fitted: Any = None
) -> list[str]:
    """The greedy answer to each prompt, up to the end token.

    Args:
        method: with its settings.
        model: a causal language model of transformers.
        tokenizer: of the model.
        prompts: texts.
        most_tokens: the longest answer.
        fitted: what was fitted to the model for the method; None where it needs nothing.

    Raises:
        MethodError: the method does not fit the model, or lacks what it needs.
    """
    import torch

    from vivace_methods.decoding.joined import applied
    from vivace_methods.protocol import Request

    answers = []
    with applied(method, model, fitted) as generator:
        for prompt in prompts:
            tokens: list[int] = []
            ids = torch.tensor([tokenizer(prompt)["input_ids"]])
            generator.generate(Request(ids, most_tokens, frozenset({tokenizer.eos_token_id})), tokens.extend)
            answers.append(tokenizer.decode(tokens, skip_special_tokens=True))
    return answers
