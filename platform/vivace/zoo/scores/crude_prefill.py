"""A crude form of pruned prefill, to see how a model's answers fall when its upper half reads a part of a prompt.

The readers of `vivace_methods.prefill` do so for real, a prompt at a time; many prompts are answered together here,
and one rule knows where the evidence lies, which no method may know.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

PruningRule = Literal["random", "recency", "attention", "evidence"]

WINDOW = 3
"""Last tokens of a prompt, which are always kept, and whose attention ranks the others."""
POOLED = 7
"""Neighbours that share the highest score among them, as in SnapKV (arXiv 2404.14469)."""


def pruned_answers(
    model: Any, prompts: torch.Tensor, most_tokens: int, rule: PruningRule, keep: float, evidence: Sequence[set[int]]
) -> list[list[int]]:
    """Greedy answers of which the upper half of the layers saw a part of the prompt only.

    What a token that was dropped would have become is hidden from all layers above the middle, in the prefill and
    while decoding. It is computed all the same: this shows what pruning costs in quality, not what it saves.

    Args:
        model: a causal language model of transformers, with eager attention.
        prompts: token ids of one length, shape (rows, length).
        most_tokens: of each answer.
        rule: by which tokens stay: drawn `random`ly, the last ones (`recency`), those that the last tokens attend to
            in the lower half (`attention`), or those that hold the `evidence`, filled up at random.
        keep: the share that stays.
        evidence: of each row, places that hold what the answer needs.
    """
    import torch
    from transformers import DynamicCache

    half = model.config.num_hidden_layers // 2
    scores = _scores(model, prompts, rule, half, evidence)
    scores[:, -WINDOW:] = float("inf")
    kept = scores.topk(max(WINDOW, round(keep * prompts.shape[1])), dim=1).indices
    dropped = torch.ones_like(prompts, dtype=torch.bool).scatter(1, kept, False)
    cache = DynamicCache(config=model.config)
    answers: list[list[int]] = [[] for _ in prompts]
    with ExitStack() as hooks, torch.inference_mode():
        for layer in model.model.layers[half:]:
            handle = layer.register_forward_pre_hook(_hiding(dropped), with_kwargs=True)
            hooks.callback(handle.remove)
        tokens = prompts
        for _ in range(most_tokens):
            tokens = model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1).logits.argmax(-1)
            for answer, token in zip(answers, tokens[:, 0].tolist(), strict=True):
                answer.append(token)
    return answers


def _hiding(dropped: torch.Tensor) -> Any:
    """A hook that adds what was dropped to a layer's attention mask."""
    import torch

    def hook(module: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        mask = named["attention_mask"]
        columns = torch.zeros(len(dropped), mask.shape[-1], dtype=torch.bool)
        columns[:, : dropped.shape[1]] = dropped
        hidden = mask.masked_fill(columns[:, None, None], torch.finfo(mask.dtype).min)
        # A dropped token still sees itself, or there would be nothing to weigh; nobody sees what becomes of it.
        places = torch.arange(mask.shape[-1] - mask.shape[-2], mask.shape[-1])
        hidden[..., torch.arange(mask.shape[-2]), places] = mask[..., torch.arange(mask.shape[-2]), places]
        return inputs, {**named, "attention_mask": hidden}

    return hook


def _scores(
    model: Any, prompts: torch.Tensor, rule: PruningRule, half: int, evidence: Sequence[set[int]]
) -> torch.Tensor:
    """How much each token of each prompt is worth, shape (rows, length)."""
    import torch

    length = prompts.shape[1]
    if rule == "recency":
        return torch.arange(length, dtype=torch.float32).repeat(len(prompts), 1)
    if rule == "attention":
        with torch.inference_mode():
            weights = model(prompts, output_attentions=True, use_cache=False, logits_to_keep=1).attentions[1:half]
        looked_at = torch.stack([each[:, :, -WINDOW:].amax((1, 2)) for each in weights]).amax(0)
        return torch.nn.functional.max_pool1d(looked_at[:, None], POOLED, 1, POOLED // 2)[:, 0].clone()
    scores = torch.rand(prompts.shape, generator=torch.Generator().manual_seed(0))
    if rule == "evidence":
        for row, places in enumerate(evidence):
            scores[row, sorted(places)] += 1.0
    return scores
