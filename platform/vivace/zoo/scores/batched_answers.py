"""Answers of a zoo model to many prompts at once, since one after the other would take minutes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

ROWS = 24
"""Prompts that are decoded together: about as many tokens a step as a draft tree has."""


def greedy_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    most_tokens: int,
    *,
    rows: int = ROWS,
    decoding: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> list[str]:
    """The greedy answer to each prompt, up to the end token.

    Prompts are padded on the left to the longest of their batch. Answers that have ended leave the batch, so that a
    step holds only tokens that count.

    Args:
        model: a causal language model of transformers.
        tokenizer: of the model.
        prompts: texts.
        most_tokens: the longest answer.
        rows: prompts in a batch.
        decoding: a context that is entered after each batch's prefill.
    """
    import torch

    encoded = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda number: len(encoded[number]))
    answers = [""] * len(prompts)
    with torch.inference_mode():
        for first in range(0, len(order), rows):
            chosen = order[first : first + rows]
            tokens = _decode(model, [encoded[number] for number in chosen], most_tokens, decoding)
            for number, answer in zip(chosen, tokens, strict=True):
                answers[number] = tokenizer.decode(answer, skip_special_tokens=True)
    return answers


def _decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    most_tokens: int,
    decoding: Callable[[], AbstractContextManager[None]],
) -> list[list[int]]:
    """The tokens of each answer of one batch."""
    import torch
    from transformers import DynamicCache

    longest = max(map(len, prompts))
    padding = torch.tensor([longest - len(prompt) for prompt in prompts])
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = (torch.arange(longest) >= padding[:, None]).long()
    cache = DynamicCache(config=model.config)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    answers: list[list[int]] = [[] for _ in prompts]
    going = torch.arange(len(prompts))
    out = model(ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1)
    with decoding():
        for _ in range(most_tokens):
            new = out.logits[:, -1].argmax(-1)
            for number, token in zip(going.tolist(), new.tolist(), strict=True):
                answers[number].append(token)
            on = (new != model.config.eos_token_id).nonzero()[:, 0]
            if len(on) == 0:
                break
            if len(on) < len(going):
                going, new, mask, positions = going[on], new[on], mask[on], positions[on]
                cache.batch_select_indices(on)
            mask = torch.cat([mask, torch.ones(len(going), 1, dtype=mask.dtype)], 1)
            positions = positions[:, -1:] + 1
            out = model(new[:, None], attention_mask=mask, position_ids=positions, past_key_values=cache)
    return answers
