"""Going on behind a pruned prompt: places that no cache tells, and masks for layers that keep different lengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from vivace_methods.errors import MethodError


@dataclass
class PrunedCache:
    """What a cache does not tell of itself.

    Attributes:
        ahead: place of the next token, less the positions in the first layer.
        moved: by how much that place is less for the model, whose kept tokens have moved together.
        decoded: whether a token has been decoded behind the prompt.
    """

    ahead: int
    moved: int = 0
    decoded: bool = False

    def inputs(self, named: dict[str, Any], tokens: int, told: bool, cache: Any, device: torch.device) -> Any:
        """The arguments of a pass over tokens that follow.

        Args:
            named: as the decoder was given them.
            tokens: of the pass.
            told: whether our loop runs the pass, which says every place itself.
            cache: of keys and values.
            device: of the model.

        Raises:
            MethodError: tokens that do not follow, or a prompt that is read in chunks.
        """
        start = cache.get_seq_length() + self.ahead
        places = named.get("position_ids")
        if tokens > 1 and not told:
            if not self.decoded:
                raise MethodError(
                    "A pass of several tokens follows the pruned prompt at once, as where prompts are read in chunks "
                    "or drafts are verified: read a prompt in one pass, and decode a token before going on."
                )
            if places is not None and int(places.flatten()[0]) != start:
                raise MethodError(
                    f"After the pruned prompt the next token is at place {start}, and the model was given "
                    f"{int(places.flatten()[0])}, for its first layer keeps less than was read: give the new tokens "
                    "alone, with their position_ids."
                )
        self.decoded = True
        if places is None:
            places = torch.arange(start, start + tokens, device=device)[None]
        mask = named.get("attention_mask")
        # Masks of two dimensions say what is padding; a pruned prompt has none.
        kept = mask if isinstance(mask, torch.Tensor) and mask.dim() == 4 else None
        return {**named, "position_ids": places - self.moved, "attention_mask": kept}


def mask_for(given: torch.Tensor | None, tokens: int, before: int, like: torch.Tensor) -> torch.Tensor | None:
    """The mask of one layer over tokens that follow a pruned prompt.

    Args:
        given: the mask of the model, which counts on as many positions in every layer, shape (1, 1, tokens, any);
            None where the implementation makes its own.
        tokens: of the pass.
        before: positions in the layer's cache.
        like: a tensor on the device of the model.

    Returns:
        Shape (1, 1, tokens, before + tokens): everything before the pass is seen, and of the pass what the given mask
        shows of it, so that trees stay trees.
    """
    if tokens == 1:
        return None
    if given is None:
        given = torch.ones(tokens, tokens, dtype=torch.bool, device=like.device).tril()[None, None]
    latest = given[..., -(before + tokens) :]
    seen = True if latest.dtype == torch.bool else 0.0
    return torch.nn.functional.pad(latest, (before + tokens - latest.shape[-1], 0), value=seen)
