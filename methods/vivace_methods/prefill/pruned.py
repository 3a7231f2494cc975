"""What methods of pruned prefill share: settings, their limits, and how a combination becomes a reader."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from vivace_methods.cache_needs import CacheNeed, attention_needs
from vivace_methods.devices import require_attention
from vivace_methods.diagnosis import Diagnosis
from vivace_methods.protocol import Attached, Method, MethodError, Request, Role

if TYPE_CHECKING:
    import torch

    from vivace_methods.diagnosis import Evidence
    from vivace_methods.prefill.parts.pruning import Pruning


@dataclass(frozen=True)
class PrunedPrefill(Method):
    """A method that reads, or keeps, a part of a prompt alone.

    Attributes:
        keep: how much of the prompt goes on: up to 1 a share of its tokens, above 1 how many tokens.
        attention: `sdpa` is torch's fused attention, itself FlashAttention on a GPU that has it; `eager` writes out
            the whole matrix; `flash_attention_2` and `flash_attention_3` need a GPU and their own packages.
    """

    family: ClassVar[str] = "prefill"
    roles: ClassVar[frozenset[Role]] = frozenset({Role.READER})

    keep: float = 0.2
    attention: Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"] = "sdpa"

    def __post_init__(self) -> None:
        self.require_amount("keep", self.keep)

    @property
    def cache_needs(self) -> frozenset[CacheNeed]:
        """Layers keep different numbers of positions."""
        return attention_needs(self.attention) | {CacheNeed.LAYER_LENGTHS}

    def check_device(self, device: str) -> None:
        """Refuse an attention that the device has no kernels for."""
        require_attention(self.attention, device)

    @abstractmethod
    def pruning(self, layers: int, fitted: Any = None) -> Pruning:
        """Ranker, selector, plan and policy for keys and values.

        Args:
            layers: of the model.
            fitted: as `ready` gives it.

        Raises:
            MethodError: the model has no such layer.
        """

    def attach(self, model: Any, fitted: Any = None) -> AbstractContextManager[Attached]:
        """Prune what the model reads while the context lasts, under our loop or `generate` of transformers."""
        from vivace_methods.prefill.reading.reader import pruned_reading

        self.check_model(model.config)
        fitted = self.ready(model, fitted)
        return pruned_reading(
            model,
            lambda layers: self.pruning(layers, fitted),
            self.attention,
            self.cache_needs,
            self.contexts(model, fitted),
        )

    def diagnose(
        self, model: Any, request: Request, evidence: Evidence, answer: Sequence[int]
    ) -> Iterator[Diagnosis]:
        """What each layer's cache keeps of the prompt, and how much of the evidence goes into each layer."""
        for kind in ("kept_tokens", "evidence_kept"):
            for layer, share in evidence.figures.get(kind, {}).items():
                yield Diagnosis(kind, layer, "", share, 1)

    def ready(self, model: Any, fitted: Any) -> Any:
        """What was fitted, as `pruning` and `contexts` take it.

        Raises:
            MethodError: it does not fit the model.
        """
        return fitted

    def contexts(self, model: Any, fitted: Any) -> Sequence[AbstractContextManager[Any]]:
        """What the ranker needs besides while the method is attached."""
        return ()

    def memory(self, configuration: Any, dtype: torch.dtype, prompt: int, answer: int) -> int:
        """That of reading whole prompts: the lower layers do."""
        from vivace_methods.models.cost import greedy_memory

        return greedy_memory(configuration, prompt, answer, dtype, whole_attention=self.attention == "eager")

    def require_amount(self, setting: str, value: float) -> None:
        """Refuse an amount of tokens that is neither a share nor a number of them.

        Raises:
            MethodError: it is not above 0, or above 1 and no whole number.
        """
        if not value > 0 or (value > 1 and value != int(value)):
            raise MethodError(
                f"The setting {setting} of {self.name} is a share of the prompt above 0 and up to 1, or a whole "
                f"number of tokens above 1, and {value} is neither."
            )

    def require_kv_keep(self, kv: str, kv_keep: float | None) -> None:
        """Refuse an amount of keys and values that is none, or that nobody would go by.

        Raises:
            MethodError: as `require_amount` says; or heads do not choose their own.
        """
        if kv_keep is None:
            return
        self.require_amount("kv_keep", kv_keep)
        if kv != "own":
            raise MethodError(
                f"The setting kv_keep of {self.name} goes with kv=own, and kv={kv} keeps what it keeps."
            )

    def require_share(self) -> None:
        """Refuse a number of tokens where a share of the prompt is needed.

        Raises:
            MethodError: `keep` is above 1.
        """
        if self.keep > 1:
            raise MethodError(
                f"The setting keep of {self.name} is a share of the prompt, up to 1, and not {self.keep}."
            )

    def require_least(self, least: int, *settings: str) -> None:
        """Refuse settings below what they mean anything at.

        Raises:
            MethodError: one is below `least`.
        """
        for setting in settings:
            if (value := getattr(self, setting)) is not None and value < least:
                raise MethodError(f"The setting {setting} of {self.name} must be at least {least}, not {value}.")

    def require_odd(self, *settings: str) -> None:
        """Refuse windows of an average that have no middle.

        Raises:
            MethodError: one is even, or below 1.
        """
        for setting in settings:
            if (value := getattr(self, setting)) < 1 or value % 2 == 0:
                raise MethodError(f"The setting {setting} of {self.name} must be an odd number, not {value}.")

    def check_model(self, configuration: Any) -> None:
        """Refuse layers that look at, or keep, a window of the latest positions, that attend by more than a softmax
        of products, and that are not there.
        """
        from vivace_methods.models.anatomy import shapes

        layers = shapes(configuration).layers
        self.pruning(len(layers))
        windows = {layer.window for layer in layers} - {None}
        if windows:
            raise MethodError(
                f"{self.name} prunes what layers with full attention read, and some of this model look at the latest "
                f"{min(windows)} positions alone (sliding_window): take a model without, or full."  # type: ignore[type-var]
            )
        adjusted = {layer.adjusted for layer in layers} - {None}
        if adjusted:
            raise MethodError(
                f"{self.name} ranks by plain attention, and this model changes its own by {min(adjusted)}: take a "  # type: ignore[type-var]
                "model without, or full."
            )
