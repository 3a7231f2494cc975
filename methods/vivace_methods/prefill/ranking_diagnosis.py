"""How rankings of a prompt's tokens compare with the oracle, layer by layer, and how much evidence they would
keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from vivace_methods.diagnosis import Diagnosis
from vivace_methods.models.anatomy import anatomy
from vivace_methods.prefill.parts.selectors import Evenly, budget
from vivace_methods.prefill.pruned import PrunedPrefill
from vivace_methods.prefill.rankers.answer import AnswerAttention, AnswerRanker, answer_attention
from vivace_methods.prefill.rankers.base import Asking, RankedPrompt, Ranker, Ranking, Show, Shown
from vivace_methods.prefill.rankers.last_query import LastQueryRanker
from vivace_methods.prefill.reading.asked_passes import asking
from vivace_methods.prefill.reading.attention import showing_attention
from vivace_methods.protocol import Method, MethodError, Need, Request
from vivace_methods.registry import METHODS

KINDS = ("rank_correlation", "oracle_recall", "oracle_jaccard", "evidence_recall")
"""What is told of a ranking: its rank correlation with the oracle (Spearman's ρ), the share of the oracle's kept
tokens that it keeps, theirs in common of those that either keeps, and the share of the evidence that it keeps."""


def rankers(layers: int) -> dict[str, Ranker]:
    """Every ranking that a method of pruned prefill makes at its defaults, by the method's name; each once.

    Args:
        layers: of the model.
    """
    found: dict[str, Ranker] = {}
    for name, kind in METHODS.items():
        if not issubclass(kind, PrunedPrefill) or Need.DRAFTER in kind.needs:
            continue
        pruning = kind().pruning(layers)
        is_ranking = pruning.plan.keeps() and not isinstance(pruning.ranker, AnswerRanker)
        is_ranking = is_ranking and not isinstance(pruning.selector, Evenly)  # which goes by no score
        if is_ranking and pruning.ranker not in found.values():
            found[name] = pruning.ranker
    return found


def diagnosed(
    model: Any,
    request: Request,
    oracle: AnswerRanker,
    keep: float,
    drafted: Mapping[str, Ranker] | None = None,
) -> Iterator[Diagnosis]:
    """Every ranking at every layer of one unpruned pass, beside what the model's own whole answer attends to.

    Only tokens that both score are compared. A layer is its number, and a ranking's name is the setting; rankings
    that look at no layer are told once, of the layer `any`.

    Args:
        model: of transformers, with nothing attached.
        request: that is read; its `evidence` may be empty.
        oracle: the settings of the answer.
        keep: how much of the prompt would go on, as `budget` has it.
        drafted: rankings to tell of, by their names; None for that of every method without a model of its own, and
            of the oracle itself.
    """
    found = anatomy(model)
    told = rankers(len(found.layers)) if drafted is None else drafted
    inputs = _inputs(request)
    tokens = int(request.prompt.shape[1])
    with showing_attention(found.decoder, "sdpa"), asking(found) as asked, torch.inference_mode():

        def ask(show: Show, *, last_layer: int | None = None, cache: Any = None, ids: Any = None) -> Any:
            if ids is None:
                return asked.run(show, inputs, cache=cache)
            places = torch.arange(ids.shape[1], device=ids.device) + cache.get_seq_length()
            return asked.run(show, {"input_ids": ids, "position_ids": places[None]}, cache=cache)

        watched = _Watched(found.layers, told, request, ask)
        worth = watched.with_oracle(oracle, found.decoder.config)
    compared = _Compared(worth, tokens, keep, request.evidence)
    for name, layer, scores in watched.scores:
        yield from compared.rows(name, layer, scores)
    if drafted is None:
        yield from compared.evidence("oracle", "any", worth[: tokens - oracle.window])


def drafts_diagnosed(
    model: Any,
    request: Request,
    oracle: AnswerRanker,
    keep: float,
    drafts: Mapping[str, tuple[Method, Callable[[], Any]]],
) -> Iterator[Diagnosis]:
    """The rankings of methods whose own models read the prompt, held against what the model's answer attends to.

    Args:
        model: of transformers, with nothing attached.
        request: that is read.
        oracle: the settings of the answer.
        keep: how much of the prompt would go on.
        drafts: by the names that they are told by, each method with what reads its model; others than those of
            pruned prefill are left alone.
    """
    with ExitStack() as asked:
        drafted: dict[str, Ranker] = {}
        for name, (method, read) in drafts.items():
            if isinstance(method, PrunedPrefill):
                ready = method.ready(model, read())
                for context in method.contexts(model, ready):
                    asked.enter_context(context)
                drafted[name] = method.pruning(len(anatomy(model).layers), ready).ranker
        if drafted:
            yield from diagnosed(model, request, oracle, keep, drafted)


def _inputs(request: Request) -> dict[str, Any]:
    embedded = request.embedded
    if embedded is None:
        return {"input_ids": request.prompt}
    if embedded.mask is not None and not bool(embedded.mask.all()):
        raise MethodError("The prompt is padded, and padding would be ranked as text: give it without.")
    return {"inputs_embeds": embedded.embeddings, "position_ids": embedded.positions}


class _Watched:
    """One pass over a prompt that all rankings look at.

    Attributes:
        scores: name of a ranking, layer and scores, in order.
    """

    def __init__(self, layers: Sequence[Any], told: Mapping[str, Ranker], request: Request, ask: Asking) -> None:
        self._request, self._ask, self._layers = request, ask, len(layers)
        self._rankers = {name: ranker for name, ranker in told.items() if ranker.least() < request.prompt.shape[1]}
        self._under_way: Mapping[str, Ranking] = {}
        self.scores: list[tuple[str, str, torch.Tensor]] = []

    def with_oracle(self, oracle: AnswerRanker, config: Any) -> torch.Tensor:
        """Read the prompt, answer it, and give what the answer attends to, shape (tokens,)."""
        from transformers import DynamicCache

        prompt = RankedPrompt(
            length=int(self._request.prompt.shape[1]), layers=self._layers, ids=self._request.prompt, ask=self._ask,
            tell=lambda one: None, device=self._request.prompt.device, ends=self._request.end_tokens, config=config,
        )  # fmt: skip
        looking = {name: ranker for name, ranker in self._rankers.items() if ranker.history}
        self._under_way = {name: ranker.begin(prompt) for name, ranker in looking.items()}
        for name, ranker in self._rankers.items():
            if not ranker.history and not isinstance(ranker, LastQueryRanker):
                self.scores.append((name, "any", ranker.begin(prompt).scores()))
        attention = AnswerAttention(prompt.length, oracle.kernel, oracle.pool, prompt.device)

        def ask(show: Show, *, last_layer: int | None = None, cache: Any = None, ids: Any = None) -> Any:
            def both(shown: Shown) -> None:
                show(shown)
                if ids is None:
                    self._look(shown)

            return self._ask(both, cache=cache, ids=ids)

        given = None if oracle.given is None else oracle.given(prompt.ids)
        return answer_attention(ask, attention, oracle.most, prompt.ends, given, DynamicCache(config=config))

    def _look(self, shown: Shown) -> None:
        for name, ranker in self._rankers.items():
            if isinstance(ranker, LastQueryRanker):
                self.scores.append((name, str(shown.layer), ranker.of_layer(shown)))
            elif ranker.history:
                ranking = self._under_way[name]
                ranking.observe(shown)
                if shown.layer + 1 >= ranker.history:
                    self.scores.append((name, str(shown.layer), ranking.scores()))


class _Compared:
    """Rankings held against the oracle's.

    Args:
        worth: what the oracle says, shape (tokens,).
        tokens: of the prompt.
        keep: how much of it would go on.
        evidence: places that hold what the answer needs.
    """

    def __init__(self, worth: torch.Tensor, tokens: int, keep: float, evidence: Sequence[int]) -> None:
        self._worth, self._tokens, self._evidence = worth, tokens, set(evidence)
        self._most = budget(keep, tokens)

    def rows(self, name: str, layer: str, scores: torch.Tensor) -> Iterator[Diagnosis]:
        """What is told of one ranking at one layer."""
        worth = self._worth[: scores.shape[0]]
        wanted, mine = self._kept(worth), self._kept(scores)
        common, either = len(wanted & mine), len(wanted | mine)
        yield Diagnosis("rank_correlation", layer, name, rank_correlation(scores, worth), 1)
        if wanted:
            yield Diagnosis("oracle_recall", layer, name, common / len(wanted), 1)
            yield Diagnosis("oracle_jaccard", layer, name, common / either, 1)
        yield from self.evidence(name, layer, scores)

    def evidence(self, name: str, layer: str, scores: torch.Tensor) -> Iterator[Diagnosis]:
        """The share of the evidence that would be kept; tokens without a score are."""
        if self._evidence:
            kept = self._kept(scores) | set(range(scores.shape[0], self._tokens))
            yield Diagnosis("evidence_recall", layer, name, len(self._evidence & kept) / len(self._evidence), 1)

    def _kept(self, scores: torch.Tensor) -> set[int]:
        """The best of those that are scored: so many that with the others there are as many as may go on."""
        most = min(max(self._most - (self._tokens - scores.shape[0]), 0), scores.shape[0])
        return set(scores.topk(most).indices.tolist())


def rank_correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    """Spearman's ρ; 0 where one of them is all alike, or not finite.

    Args:
        one: shape (values,).
        other: of the same shape.
    """
    ranks = [_ranks(each.double()) for each in (one, other)]
    centred = [each - each.mean() for each in ranks]
    scale = torch.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
    if not bool(torch.isfinite(one).all() and torch.isfinite(other).all()) or not float(scale):
        return 0.0
    return float((centred[0] * centred[1]).sum() / scale)


def _ranks(values: torch.Tensor) -> torch.Tensor:
    """Ranks from 1; values that are equal share the mean of theirs."""
    _, place, many = values.unique(return_inverse=True, return_counts=True)
    return (many.cumsum(0) - (many - 1) / 2)[place]
