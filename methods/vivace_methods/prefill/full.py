"""The whole prompt through the whole model: what every method that reads less of it has to beat."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from vivace_methods.decoding.greedy import greedy_decoding
from vivace_methods.models.cost import greedy_memory
from vivace_methods.protocol import Family, Generator, Method


@dataclass(frozen=True)
class FullPrefill(Method):
    """Full prefill in one pass, then plain greedy decoding.

    Source: the attention implementations of transformers; FlashAttention-2 is arXiv 2307.08691.

    Attributes:
        attention: `sdpa` is torch's fused attention, itself FlashAttention on a GPU that has it; `eager` writes out
            the whole matrix; `flash_attention_2` and `flash_attention_3` need a GPU and their own packages.
    """

    name: ClassVar[str] = "full"
    family: ClassVar[Family] = "prefill"
    paper: ClassVar[str] = "None: one forward pass over the prompt"

    attention: Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"] = "sdpa"

    def apply(self, model: Any, fitted: Any = None) -> AbstractContextManager[Generator]:
        """Read whole prompts while the context lasts."""
        return greedy_decoding(model, attention=self.attention)

    def memory(self, configuration: Any, dtype: torch.dtype, prompt: int, answer: int) -> int:
        """With `eager`, the whole matrix of one layer's attention besides."""
        return greedy_memory(configuration, prompt, answer, dtype, whole_attention=self.attention == "eager")
