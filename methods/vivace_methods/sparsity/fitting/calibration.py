"""The inputs that groups of linear layers meet on calibration text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import torch

from vivace_methods.protocol import MethodError
from vivace_methods.sparsity.applying.linears import Group

LEAST_TOKENS = 16
READ = 0.5
"""Share of each text, its first part, that is read densely, as a prompt is. The rest stands for what is decoded:
it is what layers are fitted on and measured by. What is fitted on wholly sparse text suits it, and not an answer to a
dense prompt."""
DECODED = 1 - READ
BATCH = 8192
"""Tokens that are read in one pass."""


def fitted_tokens(texts: Sequence[torch.Tensor]) -> int:
    """How many tokens thresholds and low-rank parts come from: of the second part of every other text, or of half of
    the second part of a single one. The others measure what was fitted."""
    lengths = [text.shape[1] - int(READ * text.shape[1]) for text in texts]
    return lengths[0] // 2 if len(lengths) == 1 else sum(lengths[::2])


class _ReachedError(Exception):
    """The pass has come to the layers that it was made for."""


def inputs_met(groups: Sequence[Group], passes: Iterable[Callable[[], Any]]) -> list[list[torch.Tensor]]:
    """What the layers of groups read in some passes, each of which ends when it has come to all of them.

    Args:
        groups: of a model.
        passes: run it, or a block of it, on a batch of texts.

    Returns:
        For each group, of the second part of each text, shape (tokens, inputs), in the model's type.

    Raises:
        MethodError: a pass does not come to a group.
    """
    found: list[list[torch.Tensor]] = [[] for _ in groups]
    met: set[int] = set()

    def keep(number: int, module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        if number not in met:
            met.add(number)
            found[number].extend(read[int(READ * len(read)) :] for read in inputs[0])
        if len(met) == len(groups):
            raise _ReachedError

    hooks = [group.modules[0].register_forward_pre_hook(partial(keep, number)) for number, group in enumerate(groups)]
    try:
        with torch.inference_mode():
            for run in passes:
                met.clear()
                try:
                    run()
                except _ReachedError:
                    continue
                missing = next(group for number, group in enumerate(groups) if number not in met)
                raise MethodError(f"The model never runs {missing.names[0]}: leave it out with the setting only.")
    finally:
        for hook in hooks:
            hook.remove()
    return found


def batches(texts: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Texts of one length that stand together, as rows, shape (texts, length)."""
    for length, alike in groupby(texts, key=lambda text: int(text.shape[1])):
        rows, most = torch.cat(list(alike)), max(1, BATCH // length)
        yield from rows.split(most)


def require_texts(texts: Sequence[torch.Tensor]) -> int:
    """How many tokens are to be calibrated on.

    Raises:
        MethodError: too few for thresholds to mean anything.
    """
    tokens: int = sum(text.shape[1] for text in texts)
    if tokens < LEAST_TOKENS:
        raise MethodError(
            f"The calibration text has {tokens} tokens, and at least {LEAST_TOKENS} are needed; thousands are good."
        )
    return tokens
