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
        following: place of the first token behind the prompt.
        kept: positions that each layer keeps of the prompt.
        moved: by how much a place is less for the model, whose kept tokens have moved together.
        decoded: whether a token has been decoded behind the prompt.
    """

    following: int
    kept: tuple[int, ...]
    moved: int = 0
    decoded: bool = False

    def inputs(
        self, named: dict[str, Any], tokens: int, logits: Any, told: bool, cache: Any, device: torch.device
    ) -> Any:
        """The arguments of a pass over tokens that follow.

        Args:
            named: as the decoder was given them.
            tokens: of the pass.
            logits: of how many last tokens they are asked; of all of them where drafts are verified.
            told: whether our loop runs the pass, which says every place itself.
            cache: of keys and values.
            device: of the model.

        Raises:
            MethodError: tokens that do not follow, or a prompt that is read in chunks.
        """
        places = named.get("position_ids")
        behind = min(layer.get_seq_length() - kept for layer, kept in zip(cache.layers, self.kept, strict=True))
        if not told:
            if tokens > 1 and not self.decoded and logits != tokens:
                raise MethodError(
                    "A pass of several tokens follows the pruned prompt at once, as where prompts are read in "
                    "chunks, or anew for every token (use_cache=False): read a prompt in one pass, and decode a "
                    "token before going on."
                )
            behind = self._cut(cache, behind, places)
        self.decoded = True
        if places is None:
            places = torch.arange(tokens, device=device)[None] + self.following + behind
        mask = named.get("attention_mask")
        # Masks of two dimensions say what is padding; a pruned prompt has none.
        kept = mask if isinstance(mask, torch.Tensor) and mask.dim() == 4 else None
        return {**named, "position_ids": places - self.moved, "attention_mask": kept}

    def _cut(self, cache: Any, behind: int, places: torch.Tensor | None) -> int:
        """Leave in every layer what lies before the pass alone, and say how much of it lies behind the prompt.

        Drafts that were turned down are cut off by whoever verified them, with some versions of transformers at one
        length for all layers, which those that keep less of the prompt do not reach.
        """
        start = self.following + behind if places is None else int(places.flatten()[0])
        before = start - self.following
        if not 0 <= before <= behind:
            raise MethodError(
                f"After the pruned prompt the next token is at place {self.following + behind}, and the model was "
                f"given {start}, for its first layer keeps less than was read: give the new tokens alone, with their "
                "position_ids."
            )
        for layer, kept in zip(cache.layers, self.kept, strict=True):
            layer.keys, layer.values = (each[..., : kept + before, :] for each in (layer.keys, layer.values))
        return before


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
