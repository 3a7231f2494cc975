"""Smaller models that read a prompt for a larger one: loaded beside it, asked, and refused where they do not fit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vivace_methods.errors import MethodError
from vivace_methods.models.anatomy import anatomy, shapes
from vivace_methods.models.ledger import Pass
from vivace_methods.models.loading import require_causal
from vivace_methods.prefill.rankers.answer import AnswerAttention, Fixed, answer_attention
from vivace_methods.prefill.rankers.base import RankedPrompt, Ranker, Show
from vivace_methods.prefill.reading.asked_passes import AskedPasses, asking
from vivace_methods.prefill.reading.attention import showing_attention

TOKENIZER_FILE = "tokenizer.json"


class AskedDraft:
    """A draft model that can be asked, while `shown` lasts.

    Args:
        model: a causal language model of transformers.

    Attributes:
        weights: how many it has.
    """

    def __init__(self, model: Any) -> None:
        self._anatomy = anatomy(model)
        self.weights = sum(part.numel() for part in model.parameters())
        self._asked: AskedPasses | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Let its attention be looked at while the context lasts."""
        decoder = self._anatomy.decoder
        with showing_attention(decoder, "sdpa"), asking(self._anatomy) as asked:
            self._asked = asked
            try:
                yield
            finally:
                self._asked = None

    def new_cache(self) -> Any:
        """An empty cache."""
        from transformers import DynamicCache

        return DynamicCache(config=self._anatomy.decoder.config)

    def ask(self, ids: torch.Tensor, show: Show, cache: Any) -> Any:
        """One pass over tokens that follow what is in a cache; logits of the last one, shape (1, vocabulary)."""
        assert self._asked is not None
        return self._asked.run(show, {"input_ids": ids}, cache=cache)


@dataclass(frozen=True)
class DraftRanker(Ranker):
    """What the first tokens of a draft's answer attend to in the draft (SpecPrefill).

    Attributes:
        draft: that reads the prompt first; None before a model is there.
        ahead: tokens that it writes.
        kernel: neighbours that are averaged, an odd number.
    """

    draft: AskedDraft | None
    ahead: int = 8
    kernel: int = 13

    def begin(self, prompt: RankedPrompt) -> Fixed:
        """Let the draft read and write."""
        if prompt.ids is None:
            raise MethodError(
                "A draft reads token ids, and this prompt was given as embeddings: take another method."
            )
        draft, whole = self.draft, prompt.ids
        assert draft is not None

        def ask(show: Show, *, last_layer: int | None = None, cache: Any = None, ids: Any = None) -> Any:
            read = whole if ids is None else ids
            prompt.tell(Pass("draft", read.shape[1], 0, logits=0, weights=draft.weights))
            return draft.ask(read, show, cache)

        found = AnswerAttention(prompt.length, self.kernel, "first", prompt.device)
        return Fixed(answer_attention(ask, found, self.ahead, prompt.ends, None, draft.new_cache()))


def require_draft(name: str, model: Any, draft: Any) -> None:
    """Refuse what is no draft of a model.

    Args:
        name: of the method.
        model: that reads what the draft looks at.
        draft: as it was given.

    Raises:
        MethodError: no other language model, or one that reads other tokens, or looks at the latest ones alone.
    """
    if draft is None or not hasattr(draft, "config"):
        raise MethodError(f"{name} needs a drafter: write {name}:FOLDER or {name}:zoo:NAME.")
    if draft is model:
        raise MethodError(f"The draft of {name} is the model itself: load a second one, smaller if there is one.")
    require_causal(draft)
    require_draft_configuration(name, model.config, draft.config)


def require_draft_configuration(name: str, model: Any, draft: Any) -> None:
    """Refuse what is no draft of a model, as far as their configurations tell, and tokenizers beside their weights.

    Args:
        name: of the method.
        model: configuration of the model that reads what the draft looks at.
        draft: configuration of the draft.

    Raises:
        MethodError: it reads other tokens, looks at the latest ones alone, or is of an unknown architecture.
    """
    windows = {layer.window for layer in shapes(draft).layers} - {None}
    if windows:
        raise MethodError(
            f"Layers of the draft of {name} look at the latest {min(windows)} positions alone (sliding_window), and "  # type: ignore[type-var]
            "what lies before these would not be ranked: take one without."
        )
    tokenizers = [_tokenizer(each) for each in (model, draft)]
    sizes = [each.get_text_config(decoder=True).vocab_size for each in (model, draft)]
    if None not in tokenizers:
        differs, why = tokenizers[0] != tokenizers[1], f"their {TOKENIZER_FILE} name other tokens"
    else:
        differs, why = sizes[0] != sizes[1], f"it knows {sizes[1]} tokens, and the model {sizes[0]}"
    if differs:
        raise MethodError(
            f"The draft of {name} has another tokenizer than the model ({why}): take one of the same family."
        )


def _tokenizer(configuration: Any) -> Any:
    """What a tokenizer's file beside a model's weights says of its tokens; None where there is none."""
    file = Path(configuration._name_or_path or "/nowhere") / TOKENIZER_FILE
    try:
        told = json.loads(file.read_text("utf-8"))
        return told["model"], [(each["id"], each["content"]) for each in told.get("added_tokens", ())]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
