"""The whole prompt through the whole model: what every method that reads less of it has to beat."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vivace_methods.cache_needs import CacheNeed, attention_needs
from vivace_methods.devices import require_attention
from vivace_methods.protocol import Attached, Method, Role

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class FullPrefill(Method):
    """Full prefill in one pass, then plain greedy decoding.

    Source: the attention implementations of transformers; FlashAttention-2 is arXiv 2307.08691.

    Attributes:
        attention: `sdpa` is torch's fused attention, itself FlashAttention on a GPU that has it; `eager` writes out
            the whole matrix; `flash_attention_2` and `flash_attention_3` need a GPU and their own packages.
    """

    name: ClassVar[str] = "full"
    family: ClassVar[str] = "prefill"
    paper: ClassVar[str] = "None: one forward pass over the prompt"
    roles: ClassVar[frozenset[Role]] = frozenset({Role.READER})
    exact: ClassVar[bool] = True

    attention: Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"] = "sdpa"

    @property
    def cache_needs(self) -> frozenset[CacheNeed]:
        """What the attention asks for."""
        return attention_needs(self.attention)

    def check_device(self, device: str) -> None:
        """Refuse an attention that the device has no kernels for."""
        require_attention(self.attention, device)

    def attach(self, model: Any, fitted: Any = None) -> AbstractContextManager[Attached]:
        """Read whole prompts."""
        from vivace_methods.decoding.plain_arms import full_reading

        return full_reading(model, self.attention)

    def memory(self, configuration: Any, dtype: torch.dtype, prompt: int, answer: int) -> int:
        """With `eager`, the whole matrix of one layer's attention besides."""
        from vivace_methods.models.cost import greedy_memory

        return greedy_memory(configuration, prompt, answer, dtype, whole_attention=self.attention == "eager")
