"""EAGLE-3: a drafter proposes a chain of tokens, and one pass of the model tells how many of them are its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from vivace_methods.decoding.greedy import require_causal
from vivace_methods.models import implementations
from vivace_methods.models.cost import Cost, pass_cost, prefill_cost
from vivace_methods.protocol import Emit, Family, Generator, Method, MethodError, Request, Trace

if TYPE_CHECKING:
    from vivace_methods.speculation.eagle3_drafter import Eagle3Drafter, KeysAndValues


@dataclass(frozen=True)
class Eagle3(Method):
    """A drafter proposes a chain of tokens that one pass of the model verifies; the tokens stay the model's own.

    Source: Li et al., arXiv 2503.01840; drafted as a chain, verified greedily. The first token that the model would
    not have written ends the chain, and the model's own stands in its place.

    Attributes:
        depth: tokens drafted before each pass of the model, at least 1.
    """

    name: ClassVar[str] = "eagle-3"
    family: ClassVar[Family] = "speculation"
    paper: ClassVar[str] = (
        "EAGLE-3: Scaling up Inference Acceleration of LLMs via Training-Time Test, arXiv 2503.01840"
    )
    needs: ClassVar[tuple[str, ...]] = ("drafter",)
    fitted_files: ClassVar[tuple[str, ...]] = ("config.json", "model.safetensors")

    depth: int = 5

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise MethodError(f"The setting depth of {self.name} must be at least 1, not {self.depth}.")

    def read_fitted(self, folder: Path, model: Any) -> Eagle3Drafter:
        """The drafter in a folder, in EAGLE-3's public layout."""
        from vivace_methods.speculation.eagle3_drafter import load_drafter

        return load_drafter(folder, model)

    def apply(self, model: Any, fitted: Any = None) -> AbstractContextManager[Generator]:
        """Speculate while the context lasts."""
        from vivace_methods.speculation.eagle3_drafter import Eagle3Drafter

        require_causal(model)
        require_rewinding(model, self.name)
        if not isinstance(fitted, Eagle3Drafter):
            raise MethodError(f"{self.name} needs a drafter: write {self.name}:FOLDER or {self.name}:zoo:NAME.")
        return _speculating(model, fitted, self.depth)

    def cost(
        self,
        configuration: Any,
        dtype: torch.dtype,
        prompt: int,
        step_tokens: Sequence[int],
        figures: Mapping[str, Any],
    ) -> Cost:
        """The prefill, a verifying pass for each step after it, and the drafter's weights once for each draft.

        A pass meets as many different experts as even routing would bring it; the drafter's cache is left out.
        """
        cost = prefill_cost(configuration, prompt, dtype)
        weights = figures["drafter_weights"]
        context = prompt
        for drafted, given in zip(figures["drafted"], step_tokens[1:], strict=False):
            drafting = Cost(drafted * weights * dtype.itemsize, 0.0, 2.0 * drafted * weights)
            cost = cost + pass_cost(configuration, context, drafted + 1, dtype) + drafting
            context += given
        return cost


def rewinding_cache(configuration: Any) -> Any:
    """An empty cache that goes back exactly to before tokens that were rejected.

    Layers with a sliding window forget what has left it; this one's keep that until it is known how many tokens of a
    pass stand.

    Args:
        configuration: of the model.
    """
    from transformers import DynamicCache

    cache = DynamicCache(config=configuration)
    cache.activate_past_recording()
    return cache


def require_rewinding(model: Any, name: str) -> None:
    """Refuse a model that cannot take a draft back, before anything is read.

    Args:
        model: a causal language model of transformers.
        name: of the method.

    Raises:
        MethodError: its layers are not found where they are tapped, or keep a state that only goes forward.
    """
    kind = type(model).__name__
    if not hasattr(getattr(model, "model", None), "layers"):
        raise MethodError(f"{name} taps the layers of plain language models, and {kind} keeps its own elsewhere.")
    if not rewinding_cache(model.config).is_croppable:
        raise MethodError(
            f"{name} takes rejected drafts back, and layers of {kind} keep a state that only goes forward (linear or "
            "recurrent attention): decode it with autoregressive."
        )


@contextmanager
def _speculating(model: Any, drafter: Eagle3Drafter, depth: int) -> Iterator[Generator]:
    with ExitStack() as changes:
        if implementations.has_experts(model):
            # The other kernels read an expert again for each token that goes through it.
            changes.enter_context(implementations.experts(model, "grouped_mm"))
        tapped = changes.enter_context(tapping(model, drafter.taps))
        yield ChainGenerator(model, drafter, depth, tapped)


@contextmanager
def tapping(model: Any, taps: tuple[int, ...]) -> Iterator[dict[int, torch.Tensor]]:
    """Keep the inputs of some layers, of the latest pass of the model alone, while the context lasts.

    Args:
        model: a causal language model of transformers, whose layers are `model.model.layers`.
        taps: numbers of layers, from 0.

    Yields:
        Layer → its input, shape (rows, positions, hidden).
    """
    kept: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(module: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            kept[layer] = inputs[0] if inputs else named["hidden_states"]

        return hook

    with ExitStack() as hooks:
        for tap in set(taps):
            handle = model.model.layers[tap].register_forward_pre_hook(keep(tap), with_kwargs=True)
            hooks.callback(handle.remove)
        yield kept


class ChainGenerator(Generator):
    """A prefill, and then drafted chains with a verifying pass for each.

    Args:
        model: the target.
        drafter: made for it.
        depth: tokens in a chain.
        tapped: the inputs of the tapped layers at the latest pass, as `tapping` gives them.
    """

    def __init__(self, model: Any, drafter: Eagle3Drafter, depth: int, tapped: dict[int, torch.Tensor]) -> None:
        self._model, self._drafter, self._depth, self._tapped = model, drafter, depth, tapped

    def generate(self, request: Request, emit: Emit) -> Trace:
        """Answer a prompt with the target's own greedy tokens.

        The figures are `acceptance_lengths`, the tokens that each verifying pass gave (drafted ones that were right,
        and one of the target's own), and `tau`, their mean; None where the prefill's token was all. Tokens beyond
        the answer's end do not count. `drafted` are the tokens that each pass verified, `drafter_weights` how many
        the drafter has.
        """
        with torch.inference_mode():
            lengths, drafted = self._generate(request, emit)
        self._tapped.clear()
        return Trace(
            {
                "acceptance_lengths": lengths,
                "tau": sum(lengths) / len(lengths) if lengths else None,
                "drafted": drafted,
                "drafter_weights": sum(weights.numel() for weights in self._drafter.parameters()),
            }
        )

    def _generate(self, request: Request, emit: Emit) -> tuple[list[int], list[int]]:
        cache = rewinding_cache(self._model.config)
        past: KeysAndValues | None = None
        lengths: list[int] = []
        drafted: list[int] = []
        tokens = self._target(request.prompt, cache, last_only=True)
        seen = request.prompt  # what the target read in its latest pass, as far as it stands
        left = request.most_tokens - 1
        emit(tokens.flatten().tolist())
        while left and int(tokens[0, -1]) not in request.end_tokens:
            follows = torch.cat([seen[:, 1:], tokens[:, -1:]], 1)
            drafts, past = self._draft(follows, min(self._depth, left), past)
            verified = torch.cat([tokens[:, -1:], drafts], 1)
            own = self._target(verified, cache)
            right = int((own[:, :-1] == drafts).cumprod(1).sum())
            cache.crop(right - drafts.shape[1])
            tokens = own[:, : right + 1]
            seen = verified[:, : right + 1]
            given = _up_to_end(tokens.flatten().tolist()[:left], request.end_tokens)
            emit(given)
            lengths.append(len(given))
            drafted.append(drafts.shape[1])
            left -= len(given)
            if given[-1] in request.end_tokens:
                break
        return lengths, drafted

    def _target(self, tokens: torch.Tensor, cache: Any, last_only: bool = False) -> torch.Tensor:
        """The target's likeliest token after each of some tokens, or after the last one alone; shape (1, n)."""
        keep = 1 if last_only else 0
        logits = self._model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=keep).logits
        likeliest: torch.Tensor = logits.argmax(-1)
        return likeliest

    def _draft(
        self, follows: torch.Tensor, depth: int, past: KeysAndValues | None
    ) -> tuple[torch.Tensor, KeysAndValues]:
        """A chain of tokens, shape (1, depth), and what the drafter keeps of verified positions.

        Args:
            follows: the tokens that follow those whose features the target's latest pass gave.
            depth: of the chain.
            past: what the drafter kept of the positions before.
        """
        count = follows.shape[1]
        features = self._drafter.fuse([self._tapped[tap][:, :count] for tap in self._drafter.taps])
        out, verified = self._drafter(follows, features, past)
        drafts: list[torch.Tensor] = []
        ahead = verified
        for step in range(depth):
            if step:
                out, ahead = self._drafter(drafts[-1], out, ahead)
            out = out[:, -1:]
            drafts.append(self._drafter.target_ids(self._drafter.logits(out).argmax(-1)))
        return torch.cat(drafts, 1), verified


def _up_to_end(tokens: list[int], ends: frozenset[int]) -> list[int]:
    """The tokens up to and with the first that ends the answer."""
    end = next((place for place, token in enumerate(tokens) if token in ends), len(tokens) - 1)
    return tokens[: end + 1]
