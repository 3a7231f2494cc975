"""One prompt read whole once, and then through any number of rankings that prune it behind one of its layers.

A token's state behind the layer at which a prompt is pruned depends on nothing that is done there, and with full keys
and values below neither does that of the answer's tokens. So lower layers are read once, and an arm costs its upper
layers alone: kept tokens and the answer go through them in one pass, causal as ever.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

from pruning.prompts import Asked, share
from vivace_methods.models.anatomy import Anatomy
from vivace_methods.prefill.parts.selectors import budget
from vivace_methods.prefill.pruned import PrunedPrefill
from vivace_methods.prefill.rankers.answer import AnswerAttention, AnswerRanker, Fixed
from vivace_methods.prefill.rankers.base import RankedPrompt, Shown
from vivace_methods.prefill.reading.asked_passes import AskedPasses

KERNEL = 7
AT_ONCE = 6_000
"""Tokens of several arms that go through the upper layers together."""


@dataclass
class Reading:
    """One prompt and the model's own greedy answer, with all that arms share.

    Attributes:
        asked: the prompt.
        answer: token ids; the last one may end it.
        nats: of each token of the answer, the negative log probability.
        shown: attention of each layer: all queries and keys.
        states: layer → what left it, of the prompt and of the answer's tokens but the last, shape (tokens, hidden).
        worth: what the answer attends to, shape (tokens of the prompt,): the oracle's scores.
    """

    asked: Asked
    answer: list[int] = field(default_factory=list)
    nats: list[float] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    states: dict[int, torch.Tensor] = field(default_factory=dict)
    worth: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return len(self.asked.ids)


@dataclass(frozen=True)
class Measured:
    """What became of an answer that was read through a pruned cache.

    Attributes:
        nats: a token of the full model's own answer.
        exact: whether each of its tokens is still the likeliest, which is to say that it would be written again.
        evidence: the share of what the answer needs that was kept.
        values: the share of the very values.
        kept: tokens of the prompt that went on.
    """

    nats: float
    exact: bool
    evidence: float | None
    values: float | None
    kept: int


def read(
    model: Any,
    found: Anatomy,
    asking: AskedPasses,
    asked: Asked,
    layers: Collection[int],
    ends: Collection[int],
) -> Reading:
    """Read a prompt whole, and let the model answer it greedily.

    Args:
        model: that is asked.
        found: its anatomy.
        asking: the model, whose attention shows itself.
        asked: the prompt.
        layers: whose outputs are kept.
        ends: tokens that end an answer.
    """
    reading = Reading(asked)
    oracle = AnswerAttention(reading.length, KERNEL, "first", model.device)
    states: dict[int, list[torch.Tensor]] = {layer: [] for layer in layers}

    def show(shown: Shown) -> None:
        if shown.queries.shape[2] > 1:
            reading.shown.append(shown)
        oracle.show(shown)

    cache = DynamicCache(config=found.decoder.config)
    ids = torch.tensor([asked.ids], device=model.device)
    with ExitStack() as hooks, torch.inference_mode():
        for layer in layers:
            module = found.layers[layer].module
            keep = module.register_forward_hook(
                lambda _module, _given, out, layer=layer: states[layer].append(out[0])
            )
            hooks.callback(keep.remove)
        for place in range(asked.most_tokens):
            start = 0 if place == 0 else reading.length + place - 1
            places = torch.arange(start, start + ids.shape[1], device=model.device)[None]
            logits = asking.run(show, {"input_ids": ids, "position_ids": places}, cache=cache)
            assert logits is not None
            oracle.next()
            chances = logits[0].double().log_softmax(-1)
            token = int(chances.argmax())
            reading.answer.append(token)
            reading.nats.append(-float(chances[token]))
            if token in ends:
                break
            ids = torch.tensor([[token]], device=model.device)
    reading.states = {layer: torch.cat(parts) for layer, parts in states.items()}
    reading.worth = oracle.scores()
    return reading


def chosen(reading: Reading, method: PrunedPrefill, layers: int) -> tuple[int, torch.Tensor]:
    """The layer behind which a method prunes a prompt once, and the tokens that go on, ascending.

    The oracle's scores are those of the answer that was read already.
    """
    pruning = method.pruning(layers)
    ((layer, keep),) = pruning.plan.stops.items()
    ranker = pruning.ranker
    if isinstance(ranker, AnswerRanker):
        scores = Fixed(reading.worth[: reading.length - ranker.window]).scores()
    else:
        ranking = ranker.begin(_prompt(reading, layers))
        for shown in reading.shown[max(0, layer - ranker.history + 1) : layer + 1]:
            ranking.observe(shown)
        scores = ranking.scores()
    rows = pruning.selector.select(scores, reading.length, budget(keep, reading.length))
    return layer, torch.arange(reading.length) if rows is None else rows


def _prompt(reading: Reading, layers: int) -> RankedPrompt:
    def refuse(*_given: Any, **_named: Any) -> Any:
        raise NotImplementedError("a ranking here looks at what was read already")

    return RankedPrompt(
        length=reading.length, layers=layers, ids=None, ask=refuse, tell=refuse, device=torch.device("cpu"),
        ends=frozenset(), config=None,
    )  # fmt: skip


def measured(found: Anatomy, reading: Reading, arms: Mapping[str, PrunedPrefill]) -> dict[str, Measured]:
    """What arms make of the answer, all of which prune the prompt once and keep full keys and values below.

    Arms of one layer that keep as many tokens go through the upper layers side by side.
    """
    groups: dict[tuple[int, int], dict[str, torch.Tensor]] = {}
    for name, method in arms.items():
        layer, rows = chosen(reading, method, len(found.layers))
        groups.setdefault((layer, rows.shape[0]), {})[name] = rows
    results = {}
    for (layer, kept), group in groups.items():
        names = list(group)
        side_by_side = max(1, AT_ONCE // kept)
        for first in range(0, len(names), side_by_side):
            some = names[first : first + side_by_side]
            logits = _through_upper(found, reading, layer, torch.stack([group[name] for name in some]))
            for name, its in zip(some, logits, strict=True):
                results[name] = _judged(reading, its, group[name].tolist())
    return results


def _through_upper(found: Anatomy, reading: Reading, layer: int, rows: torch.Tensor) -> torch.Tensor:
    """Logits along the answer, shape (arms, tokens of the answer, vocabulary)."""
    states, arms, tokens = reading.states[layer], rows.shape[0], len(reading.answer)
    following = torch.arange(reading.length, states.shape[0]).expand(arms, -1)
    places = torch.cat([rows, following], 1)
    hidden = states[places]
    with torch.inference_mode():
        rotations = found.decoder.rotary_emb(hidden, places)
        for each in found.layers[layer + 1 :]:
            hidden = each.module(
                hidden, attention_mask=None, position_embeddings=rotations, position_ids=None, past_key_values=None
            )
        return found.head(found.decoder.norm(hidden[:, -tokens:]))  # type: ignore[misc, no-any-return]


def _judged(reading: Reading, logits: torch.Tensor, kept: Sequence[int]) -> Measured:
    chosen_logits = logits[range(len(reading.answer)), reading.answer]
    there = set(kept)
    return Measured(
        nats=float((logits.logsumexp(-1) - chosen_logits).mean()),
        exact=logits.argmax(-1).tolist() == reading.answer,
        evidence=share(reading.asked.evidence, there),
        values=share(reading.asked.values, there),
        kept=len(kept),
    )
