"""Each ranking is what whole attention matrices in 64 bits say, computed in the plainest way."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from vivace_kernels.prefill.window_scores_cpu import pooled
from vivace_methods.models.anatomy import anatomy
from vivace_methods.prefill.parts.kv import HeavyHitters, OwnWindow
from vivace_methods.prefill.parts.selectors import AbovePercentile, Evenly, TopChunks, TopTokens, budget
from vivace_methods.prefill.rankers.all_queries import RecentPartRanker
from vivace_methods.prefill.rankers.answer import AnswerRanker
from vivace_methods.prefill.rankers.base import RankedPrompt, Ranker, Shown
from vivace_methods.prefill.rankers.last_query import LastQueryRanker, LastTokenRanker
from vivace_methods.prefill.rankers.positions import PlaceRanker
from vivace_methods.prefill.rankers.settled_window import SettlingRanker
from vivace_methods.prefill.rankers.window import WindowRanker
from vivace_methods.prefill.reading.asked_passes import asking
from vivace_methods.prefill.reading.attention import showing_attention
from vivace_methods.registry import parse_method

TOKENS, LAYERS = 30, 5


class Whole:
    """A model whose whole attention matrices are written out, in 64 bits.

    Attributes:
        model: of transformers.
        shown: each layer's queries and keys over the prompt, as rankings see them.
        products: of queries and keys, of all layers, shape (layers, heads, tokens, tokens).
        matrices: of attention, of the same shape.
    """

    def __init__(self, model: Any, ids: torch.Tensor) -> None:
        self.model = model
        queries, keys = zip(*(self._rotated(layer, ids) for layer in range(LAYERS)), strict=True)
        self.shown = [
            Shown(layer, queries[layer], keys[layer], queries[layer].shape[-1] ** -0.5) for layer in range(LAYERS)
        ]
        repeated = [
            key.repeat_interleave(query.shape[1] // key.shape[1], 1) for query, key in zip(queries, keys, strict=True)
        ]
        products = torch.cat(
            [query.double() @ key.double().transpose(2, 3) for query, key in zip(queries, repeated, strict=True)]
        )
        self.products = products
        hidden = torch.ones(products.shape[-2:], dtype=torch.bool).triu(1)
        self.matrices = (products * queries[0].shape[-1] ** -0.5).masked_fill(hidden, float("-inf")).softmax(-1)

    def _rotated(self, layer: int, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.model(ids, output_hidden_states=True).hidden_states[layer]
        block = self.model.model.layers[layer]
        normed, shape = block.input_layernorm(hidden), (1, hidden.shape[1], -1, block.self_attn.head_dim)
        queries, keys = (
            each(normed).view(shape).transpose(1, 2) for each in (block.self_attn.q_proj, block.self_attn.k_proj)
        )
        turned = self.model.model.rotary_emb(hidden, position_ids=torch.arange(hidden.shape[1])[None])
        found: tuple[torch.Tensor, torch.Tensor] = apply_rotary_pos_emb(queries, keys, *turned)
        return found


@pytest.fixture(scope="module")
def model(build: Callable[..., Any]) -> Any:
    """One whose attention prefers some tokens by far, so that no rounding changes a rank."""
    return build(initializer_range=0.3)


@pytest.fixture(scope="module")
@torch.inference_mode()
def whole(model: Any, prompt_of: Callable[..., torch.Tensor]) -> Whole:
    return Whole(model, prompt_of(TOKENS))


def averaged(scores: torch.Tensor, kernel: int) -> torch.Tensor:
    """By the definition: each entry is the sum of its neighbours, zeros beyond the ends, over the kernel."""
    half, tokens = kernel // 2, scores.shape[-1]
    return torch.stack([scores[..., max(0, i - half) : i + half + 1].sum(-1) / kernel for i in range(tokens)], -1)


def prompt(model: Any, ask: Any = None, ids: torch.Tensor | None = None) -> RankedPrompt:
    return RankedPrompt(TOKENS, LAYERS, ids, ask, lambda one: None, torch.device("cpu"), frozenset(), model.config)


def ranked(ranker: Ranker, whole: Whole, at: int) -> torch.Tensor:
    """Scores at a layer, of those layers that the ranker looks at."""
    ranking = ranker.begin(prompt(whole.model))
    for shown in whole.shown[max(0, at - ranker.history + 1) : at + 1]:
        ranking.observe(shown)
    return ranking.scores()


@pytest.mark.parametrize("norm", ["none", "zscore"])
@pytest.mark.parametrize("heads", ["sum", "max"])
@pytest.mark.parametrize("pool", ["first", "last"])
@pytest.mark.parametrize("aggregate", ["max", "mean", "ranksum"])
@pytest.mark.parametrize(("layers", "offset"), [(1, 0), (3, 2)])
def test_window_scores_over_layers(
    whole: Whole, norm: Any, heads: Any, pool: Any, aggregate: Any, layers: int, offset: int
) -> None:
    window, kernel, at = 4, 3, 3
    found = ranked(WindowRanker(window, offset, kernel, pool, norm, heads, layers, aggregate), whole, at)
    end = TOKENS - offset
    each = []
    for matrix in whole.matrices[at - layers + 1 : at + 1].double():
        seen = matrix[:, end - window : end, : end - window].sum(1)
        of_groups = (averaged(seen, kernel) if pool == "first" else seen).view(2, 2, -1).sum(1)
        if norm == "zscore":
            of_groups = (of_groups - of_groups.mean(-1, keepdim=True)) / (of_groups.std(-1, keepdim=True) + 1e-8)
        each.append(of_groups.sum(0) if heads == "sum" else of_groups.amax(0))
    if aggregate == "max":
        expected = torch.stack(each).amax(0)
    elif aggregate == "mean":
        expected = torch.stack(each).mean(0)
    else:
        expected = torch.stack([one.argsort(stable=True).argsort().double() for one in each]).mean(0)
    expected = averaged(expected, kernel) if pool == "last" else expected
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4 if norm == "zscore" else 1e-5)


def test_the_last_token_and_the_last_part(whole: Whole) -> None:
    matrix = whole.matrices[2].double()
    found = ranked(LastTokenRanker(), whole, 2).double()
    torch.testing.assert_close(found, matrix[:, -1, :-1].mean(0), rtol=0, atol=1e-6)
    weights = torch.linspace(1, 1.2, 6).double()
    expected = (matrix[:, -6:, :-6].mean(0) * weights[:, None]).sum(0) / weights.sum()
    torch.testing.assert_close(ranked(RecentPartRanker(0.2), whole, 2).double(), expected, rtol=0, atol=1e-6)


def test_a_ranking_has_settled_where_ranks_vary_little_beside_the_first_time(whole: Whole) -> None:
    ranker = SettlingRanker(window=4, kernel=3, keep=0.3, layers=2, threshold=0.5)
    ranking = ranker.begin(prompt(whole.model))
    ranks: list[torch.Tensor] = []
    first = None
    for shown, matrix in zip(whole.shown, whole.matrices, strict=True):
        ranking.observe(shown)
        scores = averaged(matrix[:, -4:, :-4].sum(1), 3).sum(0)
        ranks.append((scores[None] > scores[:, None]).sum(1).double())
        if len(ranks) >= 2:
            latest = torch.stack(ranks[-2:])
            high = (latest < 9 - 4).any(0)
            varied = ((latest - latest.mean(0)) ** 2).mean(0)[high].mean()
            first = varied if first is None else first
            assert ranking.is_settled == bool(varied / first < 0.5)
        else:
            assert not ranking.is_settled


def test_averages_count_zeros_beyond_the_ends_and_carry_the_first_token_s_attention_to_its_neighbours() -> None:
    """Trap 6: ends score lower than they are, and the neighbours of a sink higher; `kernel=1` averages nothing."""
    assert pooled(torch.ones(9), 7)[:4].tolist() == pytest.approx([4 / 7, 5 / 7, 6 / 7, 1])
    sink = torch.tensor([1.0, *[0.0] * 8])
    assert (pooled(sink, 7) > 0).tolist() == [True] * 4 + [False] * 5 and pooled(sink, 1).equal(sink)


@pytest.mark.parametrize("pool", ["first", "last"])
@pytest.mark.parametrize("given", [None, (17, 4, 90)])
@torch.inference_mode()
def test_the_oracle_is_what_whole_matrices_say_of_the_answer(
    model: Any, prompt_of: Callable[..., torch.Tensor], pool: Any, given: Any
) -> None:
    ids, kernel, window, most = prompt_of(TOKENS), 3, 4, 5
    ranker = AnswerRanker(window, kernel, pool, most, None if given is None else lambda ids: given)
    with showing_attention(model.model, "sdpa"), asking(anatomy(model)) as asked:

        def ask(show: Any, *, last_layer: int | None = None, cache: Any = None, ids: Any = None) -> Any:
            inputs = {"input_ids": prompt_of(TOKENS) if ids is None else ids}
            return asked.run(show, inputs, cache=cache)

        found = ranker.begin(prompt(model, ask, ids)).scores().double()

    answer = list(given or model.generate(ids, max_new_tokens=most, do_sample=False, eos_token_id=None)[0, TOKENS:])
    text = torch.cat([ids, torch.tensor([answer[:-1]])], 1)
    products = Whole(model, text).products.double() * 8**-0.5
    # Of the last token of the prompt and of each of the answer but the last, among the prompt's keys alone.
    rows = products[:, :, TOKENS - 1 :, :TOKENS].softmax(-1)
    if pool == "first":
        expected = averaged(rows, kernel).amax((0, 1)).mean(0)
    else:
        expected = averaged(rows.amax((0, 1)).mean(0), kernel)
    torch.testing.assert_close(found, expected[:-window], rtol=0, atol=1e-5)


@torch.inference_mode()
def test_gemfilter_asks_a_pass_that_ends_in_its_layer(model: Any, prompt_of: Callable[..., torch.Tensor]) -> None:
    ids, seen = prompt_of(TOKENS), []
    with showing_attention(model.model, "sdpa"), asking(anatomy(model)) as asked:

        def ask(show: Any, *, last_layer: int | None = None, cache: Any = None, ids: Any = None) -> Any:
            def both(shown: Shown) -> None:
                seen.append(shown.layer)
                show(shown)

            assert asked.run(both, {"input_ids": prompt_of(TOKENS)}, last_layer=last_layer) is None

        found = LastQueryRanker(2, 5).begin(prompt(model, ask)).scores().double()
        assert not asked.running
    assert seen == [0, 1, 2]
    expected = averaged(Whole(model, ids).products[2, :, -1].double().sum(0), 5)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


def test_heads_keep_their_own_window_s_choice_or_heavy_hitters(whole: Whole) -> None:
    matrix = whole.matrices[1].double()
    own = OwnWindow(0.4, window=4, kernel=3).kept(whole.shown[1], TOKENS)
    heavy = HeavyHitters(0.4).kept(whole.shown[1], TOKENS)
    assert own is not None and heavy is not None
    of_window = averaged(matrix[:, -4:, :-4].sum(1), 3).view(2, 2, -1).sum(1)
    of_all = matrix.sum(1).view(2, 2, -1).sum(1)[:, :-6]
    for head in range(2):
        assert own[head].tolist() == [*sorted(of_window[head].topk(8).indices.tolist()), *range(26, 30)]
        assert heavy[head].tolist() == [*sorted(of_all[head].topk(6).indices.tolist()), *range(24, 30)]


def test_of_one_layer_alone_claa_is_fastkv() -> None:
    claa = parse_method("claa(layers=1,kv_from=0,heads=sum)").pruning(8)  # type: ignore[attr-defined]
    assert claa == parse_method("fastkv").pruning(8)  # type: ignore[attr-defined]


def test_places_look_at_no_token(model: Any) -> None:
    asked = prompt(model)
    recent = PlaceRanker("recent", 4).begin(asked).scores()
    assert recent.tolist() == sorted(recent.tolist()) and len(recent) == TOKENS - 4
    drawn = [PlaceRanker("random", 4, seed).begin(asked).scores() for seed in (0, 0, 1)]
    assert drawn[0].equal(drawn[1]) and not drawn[0].equal(drawn[2])


def test_selectors_keep_what_they_say() -> None:
    scores = torch.tensor([5.0, 1.0, 4.0, 4.0, 0.0, 3.0, 2.0, 6.0])
    assert kept(TopTokens(), scores, 10, 4) == [0, 7, 8, 9]  # what lies beyond the scores is kept
    assert kept(TopTokens(first=2, last=5), scores, 10, 9) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert kept(TopTokens(last=4), scores, 10, 2) == [6, 7, 8, 9]  # what is kept anyway may be more than the budget
    assert kept(TopChunks(size=3), scores, 8, 2) == [6, 7]  # the last stretch is short, and the best
    assert kept(TopChunks(size=3), scores, 8, 4) == [0, 1, 2, 6, 7]
    assert TopChunks(size=2**31 - 1).select(scores, 8, 4) is None  # one stretch, of which nothing is left out
    assert kept(Evenly(), scores, 10, 6) == [1, 3, 5, 7, 8, 9]
    assert kept(AbovePercentile(), scores, 8, 3) == [0, 2, 3, 7]  # ties stay
    assert TopTokens().select(scores, 8, 8) is None
    assert TopTokens(last=8).select(scores, 8, 2) is None


def kept(selector: Any, scores: torch.Tensor, tokens: int, most: int) -> list[int]:
    found = selector.select(scores, tokens, most)
    assert found is not None
    return found.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("keep", "tokens", "most"),
    [(0.2, 1000, 200), (0.3, 10, 3), (0.1, 5, 1), (1.0, 7, 7), (64, 100, 64), (64, 10, 10)],
)
def test_budgets_are_shares_or_numbers(keep: float, tokens: int, most: int) -> None:
    assert budget(keep, tokens) == most == min(most, math.ceil(keep * tokens if keep <= 1 else keep))
