"""The inputs of several conversations as one batch, and whether it gives the replies that each gets alone."""

from __future__ import annotations

from typing import Any


def same(one: Any, other: Any) -> bool:
    """Whether two sets of inputs are equal in every tensor."""
    return all(one[key].shape == other[key].shape and bool((one[key] == other[key]).all()) for key in one)


def together(conversations: list[Any]) -> dict[str, Any]:
    """The inputs of several conversations as those of one batch.

    Each was made for itself: within a batch of their own, processors let a recording's last frames depend on how
    long its neighbours are (Qwen3-Omni). Prompts are filled up on the left, sounds and their masks on the right.
    """
    import torch
    from torch.nn.functional import pad

    if len(conversations) == 1:
        return dict(conversations[0])
    batch = {}
    for key in dict.fromkeys(key for inputs in conversations for key in inputs):
        having = [inputs for inputs in conversations if key in inputs]
        tensors = [inputs[key] for inputs in having]
        is_prompt = all(inputs[key].shape == inputs["input_ids"].shape for inputs in having)
        sizes = [max(lengths) for lengths in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
        filled = []
        for tensor in tensors:
            gaps = [size - length for size, length in zip(sizes, tensor.shape[1:], strict=True)]
            widths = [width for gap in reversed(gaps) for width in ((gap, 0) if is_prompt else (0, gap))]
            # The attention mask hides the filling, but what a checkpoint sets against repetition, for instance
            # no_repeat_ngram_size, counts it as a token of the prompt; so it is one that the prompt has anyway.
            filled.append(pad(tensor, widths, value=int(tensor[0, 0]) if key == "input_ids" else 0))
        batch[key] = torch.cat(filled)
    return batch


def agree(one: Any, other: Any, tie: float) -> bool:
    """Whether two rows of scores (tokens x vocabulary) choose the same tokens, up to the first near tie.

    Sums of numbers in another order are rounded differently, and after a token chosen by that, texts go apart.
    """
    for scores, rivals in zip(one, other, strict=True):
        chosen, rival = scores.max(), scores[rivals.argmax()]
        if scores.argmax() != rivals.argmax():
            return bool(chosen - rival <= tie * chosen.abs())
    return True
