"""An ordinary small model as a drafter: it keeps a cache of its own, from which rejected drafts are taken back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vivace_methods.decoding.caches import negotiate
from vivace_methods.decoding.generation import Generation
from vivace_methods.decoding.tree_masks import tree_masks
from vivace_methods.decoding.trees import Tree
from vivace_methods.errors import MethodError
from vivace_methods.models import implementations
from vivace_methods.models.cost import decode_cost
from vivace_methods.models.ledger import Pass
from vivace_methods.models.loading import load_configuration, load_model
from vivace_methods.protocol import CacheNeed, Read
from vivace_methods.speculation.drafters.base import Drafter, Drafting
from vivace_methods.speculation.trees.growth import Growth, Level, Proposing, draw, grow

_NEEDS = frozenset({CacheNeed.CROP})


def check_small_model(folder: Path, configuration: Any = None) -> None:
    """See that a folder holds a model that may draft for another, without reading its weights.

    Args:
        folder: of the small model.
        configuration: of the target; None where it is not known.

    Raises:
        MethodError: it is not there, is no such model, or its vocabulary is another.
    """
    written = load_configuration(folder)
    if hasattr(written, "draft_vocab_size"):
        raise MethodError(f"{folder} holds no ordinary model; if it is EAGLE-3's drafter, write eagle-3:{folder}.")
    if configuration is not None:
        sizes = [each.get_text_config(decoder=True).vocab_size for each in (written, configuration)]
        _require_same_words(folder, configuration, sizes)


def load_small_model(folder: Path, target: Any) -> Any:
    """A causal language model with the target's vocabulary, in the target's type and on its device.

    Raises:
        MethodError: the folder holds no such model, or its vocabulary is another.
    """
    check_small_model(folder)
    model = load_model(folder, dtype=target.dtype, device=str(target.device))
    sizes = [each.get_input_embeddings().num_embeddings for each in (model, target)]
    _require_same_words(folder, target.config, sizes)
    return model


def _require_same_words(folder: Path, target: Any, sizes: Sequence[int]) -> None:
    """Refuse another vocabulary, by the tokenizers, or where one of them cannot be read, by the tokens there are.

    Args:
        folder: of the small model.
        target: the configuration of the other.
        sizes: tokens that either knows.

    Raises:
        MethodError: they differ.
    """
    mine, its = (_vocabulary(each) for each in (folder, Path(target._name_or_path or "-")))
    if None not in (mine, its):
        if mine != its:
            raise MethodError(
                f"The model in {folder} has another vocabulary than the {target.model_type} it is to draft for: the "
                "same id is another word there, and nothing it drafts could stand."
            )
    elif sizes[0] != sizes[1]:
        raise MethodError(
            f"The model in {folder} knows {sizes[0]} tokens and the {target.model_type} it is to draft for knows "
            f"{sizes[1]}: a draft model must have the vocabulary of the model that it drafts for."
        )


def require_drafting(model: Any, target: Any, *, trees: bool) -> None:
    """Refuse a model that cannot draft for another.

    Args:
        model: the small one.
        target: for which it drafts.
        trees: whether drafts are trees.

    Raises:
        MethodError: it keeps what cannot be taken back, has another vocabulary, or holds less than the target.
    """
    caches = negotiate(model, {"draft-model": _NEEDS | ({CacheNeed.TREE_MASK} if trees else set())})
    if trees and any(layer.is_sliding for layer in caches.new(0).layers):
        raise MethodError(
            f"{type(model).__name__} looks at a window of the latest positions, and drafts chains alone: leave out "
            "tokens."
        )


def _vocabulary(folder: Path) -> Any:
    """The words of a folder's tokenizer with their ids; None where it has none that can be read."""
    try:
        written = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        return written["model"]["vocab"], {each["content"]: each["id"] for each in written["added_tokens"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


class SmallModel(Drafter):
    """A small model with a way for its trees to grow.

    Args:
        model: the small one.
        target: for which it drafts.
        growth: of the trees.
        drawn: whether chains are drawn where the request draws.
    """

    def __init__(self, model: Any, target: Any, growth: Growth, *, drawn: bool = False) -> None:
        self.model, self.title = model, Path(model.config._name_or_path).name
        sizes = [each.get_output_embeddings().weight.shape[0] for each in (model, target)]
        self.vocabulary, self.missing = min(sizes), max(0, sizes[1] - sizes[0])
        self.growth, self.drawn = growth.within(self.vocabulary), drawn
        self.caches = negotiate(model, {"draft-model": _NEEDS})
        self.weights = _weights_of_a_token(model)

    def start(self, run: Generation, read: Read) -> Drafting:
        """Begin with the tokens of the prompt."""
        held = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        needed = run.request.prompt.shape[1] + run.request.most_tokens
        if held is not None and needed > held:
            raise MethodError(
                f"The draft model holds {held} positions, and prompt and answer take up to {needed}: ask for fewer "
                "tokens, or take another draft model."
            )
        drafting = _Drafting(self, run)
        drafting.stands(read.ids, {})
        return drafting

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Its kernels for single tokens, while the context lasts."""
        with implementations.products(self.model):
            yield


class _Drafting(Drafting):
    """The small model's cache of verified positions, and tokens that it has not read yet."""

    def __init__(self, drafter: SmallModel, run: Generation) -> None:
        self._drafter, self._run = drafter, run
        self._cache = drafter.caches.new(0)
        self._ids: list[torch.Tensor] = []

    def stands(self, ids: torch.Tensor, features: Mapping[int, torch.Tensor]) -> None:
        """Remember them until the next draft."""
        self._ids.append(ids)

    def draft(self, root: torch.Tensor, most: int) -> Tree:
        """A tree that grows from what the small model says after the root."""
        unread = torch.cat([*self._ids, root], 1)
        self._ids = []
        proposing = _Proposing(self._drafter, self._run, self._cache, unread)
        if self._drafter.drawn and self._run.chooser.draws:
            tree = draw(root, min(self._drafter.growth.depth, most), proposing, self._run.chooser)
        else:
            tree = grow(root, self._drafter.growth, proposing, most)
        # The root is read again with what stands behind it: where all drafts fall, it is all that stands.
        self._cache.crop(-len(proposing.depths) - 1)
        return tree


class _Proposing(Proposing):
    """The small model at the nodes of one tree.

    Args:
        drafter: with the model.
        run: the generation.
        cache: of what the model has read.
        unread: tokens up to the root, shape (1, tokens).
    """

    def __init__(self, drafter: SmallModel, run: Generation, cache: Any, unread: torch.Tensor) -> None:
        self._drafter, self._run, self._cache, self._unread = drafter, run, cache, unread
        self.depths: list[int] = []

    def first(self) -> torch.Tensor:
        """What it says after the root."""
        return self._logits(self._unread, logits_to_keep=1)

    def further(self, level: Level) -> torch.Tensor:
        """What it says after each node of a level."""
        named: dict[str, Any] = {}
        self.depths += [level.depth] * level.tokens.shape[1]
        if not level.in_chain:
            model = self._drafter.model
            written = self._cache.get_seq_length() - (len(self.depths) - level.tokens.shape[1])
            named["position_ids"] = torch.full_like(level.tokens, written + level.depth - 1)
            named["attention_mask"] = tree_masks(
                self._cache, level.ancestry, self.depths, dtype=model.dtype, device=model.device
            )
        return self._logits(level.tokens, **named)

    def over_target(self, logits: torch.Tensor) -> torch.Tensor:
        """Tokens that only the target has are never drafted."""
        return torch.nn.functional.pad(logits, (0, self._drafter.missing), value=float("-inf"))

    def _logits(self, ids: torch.Tensor, **named: Any) -> torch.Tensor:
        found = self._drafter.model(ids, past_key_values=self._cache, use_cache=True, **named).logits
        one = Pass("draft", ids.shape[1], 0, logits=0, weights=self._drafter.weights)
        self._run.passes.ledger.record_other(one)
        logits: torch.Tensor = found[0, :, : self._drafter.vocabulary]
        return logits


def _weights_of_a_token(model: Any) -> int:
    """Weights that are read for one token; all of them, where the architecture is not known."""
    try:
        return int(decode_cost(model.config, 0, model.dtype).weight_bytes) // int(model.dtype.itemsize)
    except MethodError:
        return sum(weights.numel() for weights in model.parameters())
