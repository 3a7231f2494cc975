"""The inputs that groups of linear layers meet on calibration text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from vivace_methods.base import MethodError
from vivace_methods.sparsity.linears import Group

LEAST_TOKENS = 16
SKIPPED = 1
"""First tokens of each text: no decoded token is one, and many models give theirs activations like no other's."""


BATCH = 8192
"""Tokens that are read in one pass, padding among them."""


class _ReachedError(Exception):
    """The pass has come to the layer that it was made for."""


def inputs_of(model: Any, group: Group, texts: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """What the layers of a group read, with the model as it is at the moment.

    Args:
        model: a causal language model of transformers.
        group: one of its groups.
        texts: token ids, each of shape (1, length).

    Returns:
        Of each text, shape (tokens, inputs), in the model's type.

    Raises:
        MethodError: the model does not come to the group.
    """
    seen: list[torch.Tensor] = []
    batch: Sequence[torch.Tensor] = []

    def keep(module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.extend(read[SKIPPED : text.shape[1]] for read, text in zip(inputs[0], batch, strict=True))
        raise _ReachedError

    hook = group.modules[0].register_forward_pre_hook(keep)
    try:
        with torch.inference_mode():
            for batch in batches(texts):
                try:
                    model(padded(batch).to(model.device), use_cache=False)
                except _ReachedError:
                    continue
                raise MethodError(f"The model never runs {group.names[0]}: leave it out with the setting only.")
    finally:
        hook.remove()
    return seen


def batches(texts: Sequence[torch.Tensor]) -> Iterator[Sequence[torch.Tensor]]:
    """Texts that are read together, in their order."""
    batch: list[torch.Tensor] = []
    for text in texts:
        longest = max(each.shape[1] for each in (*batch, text))
        if batch and longest * (len(batch) + 1) > BATCH:
            yield batch
            batch = []
        batch.append(text)
    yield batch


def padded(texts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Texts as rows, shape (texts, longest), with any token behind the shorter ones: none looks ahead."""
    rows = torch.zeros(len(texts), max(text.shape[1] for text in texts), dtype=torch.int64)
    for row, text in zip(rows, texts, strict=True):
        row[: text.shape[1]] = text[0]
    return rows


def require_texts(texts: Sequence[torch.Tensor]) -> int:
    """How many tokens are to be calibrated on.

    Raises:
        MethodError: too few for thresholds to mean anything.
    """
    tokens: int = sum(max(text.shape[1] - SKIPPED, 0) for text in texts)
    if tokens < LEAST_TOKENS:
        raise MethodError(
            f"The calibration text has {tokens} tokens, and at least {LEAST_TOKENS} are needed; thousands are good."
        )
    return tokens
