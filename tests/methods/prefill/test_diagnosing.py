"""Rankings beside the oracle's, layer by layer, and what of the evidence goes on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr

from vivace_methods.decoding.joined import applied
from vivace_methods.models.anatomy import anatomy
from vivace_methods.prefill.rankers.answer import AnswerRanker
from vivace_methods.prefill.rankers.base import RankedPrompt, Shown
from vivace_methods.prefill.rankers.window import WindowRanker
from vivace_methods.prefill.ranking_diagnosis import KINDS, rank_correlation, rankers
from vivace_methods.prefill.reading.asked_passes import asking
from vivace_methods.prefill.reading.attention import showing_attention
from vivace_methods.protocol import MethodError, Request
from vivace_methods.registry import parse_method

EVIDENCE = (5, 6, 20, 49)


def test_the_rows_are_what_rankings_and_the_oracle_say(
    build: Callable[..., Any], prompt_of: Callable[..., torch.Tensor]
) -> None:
    model, ids = build(initializer_range=0.3), prompt_of(50)
    request = Request(ids, 4, evidence=EVIDENCE)
    method, tokens = parse_method("oracle(keep=0.4,most=4)"), list[int]()
    with applied(method, model) as generator:
        trace = generator.generate(request, tokens.extend)
    rows = list(method.diagnose(model, request, trace, tokens))
    assert all(row.n == 1 for row in rows)
    found: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
    for row in rows:
        found[row.kind][row.setting, row.layer] = row.value
    assert set(found) == {"kept_tokens", "evidence_kept", *KINDS}
    assert {name for name, _ in found["rank_correlation"]} == set(rankers(5)) >= {"claa", "fastkv", "gemfilter"}
    # CLAA joins four layers, and is told from the fourth on; what looks at no layer is told once.
    assert [layer for name, layer in found["oracle_recall"] if name == "claa"] == ["3", "4"]
    assert [layer for name, layer in found["oracle_recall"] if name == "random"] == ["any"]

    layers: list[Shown] = []
    with showing_attention(model.model, "sdpa"), asking(anatomy(model)) as asked, torch.inference_mode():

        def ask(show: Any, *, last_layer: int | None = None, cache: Any = None, ids: Any = None) -> Any:
            return asked.run(show, {"input_ids": prompt_of(50) if ids is None else ids}, cache=cache)

        asked.run(layers.append, {"input_ids": ids})
        told = RankedPrompt(50, 5, ids, ask, lambda one: None, ids.device, frozenset(), model.config)
        worth = AnswerRanker(window=8, most=4).begin(told).scores()
        scores = WindowRanker().of_layer(layers[2])
    # Of 50 tokens 20 go on, and 8 of these are the window.
    best, mine = (set(each.topk(12).indices.tolist()) for each in (worth, scores))
    assert found["rank_correlation"]["fastkv", "2"] == pytest.approx(spearmanr(scores, worth).statistic)
    assert found["oracle_recall"]["fastkv", "2"] == len(best & mine) / 12
    assert found["oracle_jaccard"]["fastkv", "2"] == len(best & mine) / len(best | mine)
    assert found["evidence_recall"]["fastkv", "2"] == len({*EVIDENCE} & {*mine, *range(42, 50)}) / 4
    of_oracle = len({*EVIDENCE} & {*best, *range(42, 50)}) / 4
    assert found["evidence_recall"]["oracle", "any"] == of_oracle == trace.figures["evidence_share"]
    assert [found["evidence_kept"]["", str(layer)] for layer in range(5)] == [1, 1, 1, of_oracle, of_oracle]
    assert [found["kept_tokens"]["", str(layer)] for layer in range(5)] == [1, 1, 1, 0.4, 0.4]


def test_drafts_are_held_against_the_same_answer(
    build: Callable[..., Any], prompt_of: Callable[..., torch.Tensor]
) -> None:
    model, other, ids = build(initializer_range=0.3), build(initializer_range=0.3), prompt_of(50)
    request, oracle = Request(ids, 4, evidence=tuple(range(50))), parse_method("oracle(keep=0.4,most=4)")
    drafts = {
        "by itself": (parse_method("spec-prefill(ahead=4,kernel=7,chunk=1)"), lambda: other),
        "a drafter": (parse_method("eagle-3"), lambda: pytest.fail("what ranks nothing is not read")),
    }
    rows = list(oracle.diagnose_drafts(model, request, drafts))
    # A draft of the same weights that writes as many tokens sees what the oracle sees.
    expected = dict.fromkeys(KINDS, 1.0) | {"evidence_recall": 0.4}
    assert {(row.kind, row.layer, row.setting) for row in rows} == {(kind, "any", "by itself") for kind in KINDS}
    assert {row.kind: row.value for row in rows} == expected
    assert not list(parse_method("claa").diagnose_drafts(model, request, drafts))
    with pytest.raises(MethodError, match="the model itself"):
        list(oracle.diagnose_drafts(model, request, {"one": (drafts["by itself"][0], lambda: model)}))


def test_rank_correlation_shares_ranks_and_survives_what_is_no_number() -> None:
    one, other = torch.tensor([3.0, 1.0, 1.0, 7.0, 2.0]), torch.tensor([2.0, 2.0, 0.0, 5.0, 1.0])
    assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other).statistic)
    assert rank_correlation(one, torch.ones(5)) == 0
    assert rank_correlation(one, torch.tensor([1.0, 2.0, float("nan"), 3.0, 4.0])) == 0
