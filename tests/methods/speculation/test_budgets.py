"""Expert budgets: which experts a verifying pass reads, where its tokens go, and what stays as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter

from vivace_methods.decoding.joined import applied
from vivace_methods.decoding.trees import Tree
from vivace_methods.models.anatomy import anatomy
from vivace_methods.models.implementations import experts
from vivace_methods.models.passes import passes_of
from vivace_methods.models.random import random_model, tiny_configuration
from vivace_methods.protocol import MethodError, Request
from vivace_methods.registry import parse_method
from vivace_methods.speculation.budgets.base import Routed, shortlist
from vivace_methods.speculation.budgets.budgeted import sent
from vivace_methods.speculation.budgets.registry import parse_rule
from vivace_methods.speculation.budgets.routers import Router, routers_of
from vivace_methods.speculation.drafters.eagle3 import Eagle3Drafter, new_configuration

MIXTURES = ("mixtral", "qwen3_moe", "olmoe", "gpt_oss")
PROMPT = torch.randint(199, (1, 11), generator=torch.Generator().manual_seed(3))


def mixture(kind: str, **more: Any) -> Any:
    """A tiny mixture of eight experts of which each token has two, with opinions."""
    shape = {**tiny_configuration(kind).to_dict(), **more}
    model = random_model(AutoConfig.for_model(**shape), seed=0)
    with torch.no_grad():
        for layer in anatomy(model).mixtures:
            router: Any = layer.router
            router.weight.copy_(torch.randn(router.weight.shape, generator=torch.Generator().manual_seed(7)) / 3)
    return model


def drafter_of(target: Any) -> Eagle3Drafter:
    torch.manual_seed(0)
    configuration = new_configuration(target.config, intermediate=48, taps=(0, 1, 1))
    return Eagle3Drafter(configuration, target.get_input_embeddings()).eval()


Met = tuple[str, int, np.ndarray, np.ndarray, np.ndarray]
"""Of a layer of a pass: its kind, the layer, the router's logits, and indices and weights as the experts get them."""


def assert_alike(found: list[Met], others: list[Met]) -> None:
    for one, other in zip(found, others, strict=True):
        assert one[:2] == other[:2]
        assert all(np.array_equal(mine, its) for mine, its in zip(one[2:], other[2:], strict=True))


@contextmanager
def watching(model: Any) -> Iterator[list[Met]]:
    """What is met in each layer of each pass, after all hooks."""
    found: list[Met] = []
    logits: dict[int, np.ndarray] = {}
    handles = []
    with passes_of(model) as passes:
        for number, layer in enumerate(anatomy(model).mixtures):

            def routed(module: Any, given: Any, out: Any, number: int = number) -> None:
                logits[number] = out[0].double().numpy()

            def met(module: Any, given: Any, number: int = number) -> None:
                _, index, weights = given
                found.append((str(passes.kind), number, logits[number], index.numpy(), weights.double().numpy()))

            assert layer.router is not None and layer.experts is not None
            handles += [layer.router.register_forward_hook(routed), layer.experts.register_forward_pre_hook(met)]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()


def generated(model: Any, method: str, most: int = 14, drafter: Any = None) -> tuple[list[int], Any]:
    tokens: list[int] = []
    with applied(parse_method(method), model, drafter or drafter_of(model)) as generator:
        trace = generator.generate(Request(PROMPT, most), tokens.extend)
        assert trace.passes
    return tokens, trace


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(raised / raised.sum(-1, keepdims=True))


def expected_weights(odds: np.ndarray, listed: set[int], policy: str, renormalised: bool) -> list[dict[int, float]]:
    """Expert → weight of each token, by the definition, in 64 bits."""
    tokens = []
    for row in odds:
        falling = sorted(range(len(row)), key=lambda expert: -row[expert])
        if policy == "substitution":
            its = [expert for expert in falling if expert in listed][:2]
        else:
            its = [expert for expert in falling[:2] if expert in listed]
        total = sum(row[expert] for expert in its) if renormalised else 1.0
        tokens.append({expert: row[expert] / total for expert in its})
    return tokens


@pytest.mark.parametrize("kind", MIXTURES)
@pytest.mark.parametrize("policy", ["substitution", "truncation"])
def test_tokens_go_where_the_definition_sends_them(kind: str, policy: str) -> None:
    model = mixture(kind)
    renormalised = kind in ("mixtral", "gpt_oss") or model.config.norm_topk_prob
    # The watch's hooks come before the budget's on the routers, and see what they say by themselves.
    with watching(model) as found:
        _, trace = generated(model, f"moe-spec(tokens=9,depth=3,top_k=3,budget=3,policy={policy})")
    verified = [each for each in found if each[0] == "verify"]
    assert len(verified) >= 10
    for _, _, logits, index, weights in verified:
        odds = softmax(logits)
        listed = set(np.argsort(-odds.sum(0), kind="stable")[:3].tolist())
        assert set(index.flatten().tolist()) <= listed, "no other expert is named, and so none is loaded"
        for row, its_index, its_weights in zip(
            expected_weights(odds, listed, policy, renormalised), index.tolist(), weights.tolist(), strict=True
        ):
            if policy == "substitution":
                assert len(set(its_index)) == 2, "as many experts as ever, all different"
            met = {expert: weight for expert, weight in zip(its_index, its_weights, strict=True) if weight}
            assert met == pytest.approx(row, abs=1e-6)
    passes = [one for one in trace.passes if one.kind == "verify"]
    assert all(one.experts is not None and max(one.experts) <= 3 for one in passes)
    figures = trace.figures
    assert figures["mean_unique_experts"] <= 3 < figures["mean_natural_experts"]
    assert set(figures["kept_mass"]) == {"0", "1"} and 0 < figures["mean_kept_mass"] < 1


@pytest.mark.parametrize("kind", MIXTURES)
def test_prompts_are_read_and_drafts_are_made_without_a_budget(kind: str) -> None:
    model = mixture(kind)
    with watching(model) as plain:
        generated(model, "eagle-3", most=2)
    with watching(model) as bounded:
        generated(model, "moe-spec(budget=2)", most=2)
    assert_alike(*([each for each in found if each[0] == "read"] for found in (plain, bounded)))


@pytest.mark.parametrize("kind", MIXTURES)
def test_a_budget_of_all_experts_changes_nothing(kind: str) -> None:
    model = mixture(kind)
    drafter = drafter_of(model)
    plain: list[int] = []
    with applied(parse_method("autoregressive"), model) as generator:
        generator.generate(Request(PROMPT, 14), plain.extend)
    with watching(model) as found:
        tokens, _ = generated(model, "moe-spec(tokens=9,depth=3,budget=8)", drafter=drafter)
    with watching(model) as same:
        assert generated(model, "eagle-3(tokens=9,depth=3)", drafter=drafter)[0] == tokens == plain
    assert_alike(found, same)


@pytest.mark.parametrize("kind", MIXTURES)
@pytest.mark.parametrize("policy", ["substitution", "truncation"])
def test_all_implementations_of_experts_agree(kind: str, policy: str) -> None:
    """Also on what a place that is dropped adds, which is nothing."""
    from vivace_methods.speculation.budgets.budgeted import Budget, budgeted

    model = mixture(kind)
    tree = Tree(PROMPT[:, :6], (-1, 0, 0, 1, 2, 2))
    logits = {}
    with passes_of(model) as passes, torch.inference_mode():
        budget = Budget([3, 4], parse_rule("sum"), policy)  # type: ignore[arg-type]
        with budgeted(passes, routers_of(model, "moe-spec", sigmoid=False), budget), passes.of("verify", tree):
            for implementation in ("eager", "batched_mm", "grouped_mm", "vivace"):
                with experts(model, implementation):
                    logits[implementation] = model(PROMPT[:, :6]).logits
                assert all(
                    most <= count for most, count in zip(passes.ledger.passes[-1].experts, (3, 4), strict=True)
                )  # type: ignore[arg-type]
    assert torch.allclose(logits["eager"], logits["batched_mm"], atol=1e-4)
    assert torch.allclose(logits["eager"], logits["grouped_mm"], atol=1e-4)
    assert torch.allclose(logits["eager"], logits["vivace"], atol=1e-4)


def routed(budget: int, seed: int = 0) -> Routed:
    shares = (torch.randn(6, 8, generator=torch.Generator().manual_seed(seed)) * 2).softmax(-1)
    return Routed(shares, shares.topk(2, -1).indices, budget)


@pytest.mark.parametrize("seed", range(5))
def test_the_roots_own_experts_are_on_the_shortlist_within_the_budget(seed: int) -> None:
    its = routed(3, seed)
    listed, scores = shortlist(parse_rule("sum"), its, root_exact=True)
    assert listed.sum() == 3 and listed[its.natural[0]].all()
    others = [expert for expert in scores.argsort(descending=True).tolist() if expert not in its.natural[0].tolist()]
    assert listed[others[0]]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 1.0])
def test_coverage_takes_the_fewest_experts_that_hold_the_share(share: float) -> None:
    for seed in range(5):
        its = routed(8, seed)
        listed, scores = shortlist(parse_rule(f"coverage(share={share})"), its)
        falling = sorted(scores.double().tolist(), reverse=True)
        fewest = next(count for count in range(2, 9) if sum(falling[:count]) >= share * sum(falling) - 1e-6)
        assert int(listed.sum()) == fewest
        assert int(shortlist(parse_rule(f"coverage(share={share})"), routed(4, seed))[0].sum()) == min(fewest, 4)


def test_tokens_count_by_the_probability_of_their_paths() -> None:
    """Of a path that the drafter takes for all but impossible, nothing is seen in the shortlist."""
    from vivace_methods.speculation.budgets.budgeted import Budget, budgeted

    model = mixture("olmoe")
    tree = Tree(PROMPT[:, :6], (-1, 0, 0, 1, 2, 2), torch.tensor([0.0, -50, -50, -50, -50, -50]))
    budget = Budget([2, 2], parse_rule("sum"), weighted=True)
    with watching(model) as found, passes_of(model) as passes, torch.inference_mode():
        with budgeted(passes, routers_of(model, "moe-spec", sigmoid=False), budget), passes.of("verify", tree):
            model(PROMPT[:, :6])
    for _, _, logits, index, _ in found:
        assert set(index.flatten().tolist()) == set(np.argsort(-logits[0])[:2].tolist())


def test_a_budget_for_each_layer() -> None:
    _, trace = generated(mixture("qwen3_moe"), "moe-spec(tokens=9,depth=3,budgets=3/5)")
    verified = [one.experts for one in trace.passes if one.kind == "verify" and one.tokens > 1]
    assert max(each[0] for each in verified if each) <= 3 < max(each[1] for each in verified if each) <= 5


def test_sigmoid_routers_are_an_extension_of_our_own() -> None:
    sizes = {
        "num_experts_per_tok": 2, "num_local_experts": 8, "hidden_size": 16, "routed_scaling_factor": 2.5,
        "n_group": 2, "topk_group": 1, "norm_topk_prob": True,
    }  # fmt: skip
    configuration = AutoConfig.for_model("deepseek_v3", **sizes)
    module = DeepseekV3TopkRouter(configuration)
    torch.nn.init.normal_(module.weight, generator=torch.Generator().manual_seed(0))
    module.e_score_correction_bias.copy_(torch.linspace(-0.2, 0.2, 8))
    router = Router(module, 0, 8, 2, True, sigmoid=True, scale=2.5)
    logits, weights, natural = module(torch.randn(5, 16, generator=torch.Generator().manual_seed(1)))
    choice, values = router.thoughts(logits)
    listed = torch.ones(8, dtype=torch.bool)
    index, own = sent(router, choice, values, natural, listed, choice.sum(0), "truncation")
    assert torch.equal(index, natural) and torch.allclose(own, weights, atol=1e-6), "nothing is off the list"
    listed[natural[0, 0]] = False
    index, own = sent(router, choice, values, natural, listed, choice.sum(0), "substitution")
    assert not (index == natural[0, 0]).any() and torch.allclose(own.sum(-1), torch.full((5,), 2.5))


def test_routers_by_sigmoids_are_refused_before_a_model_is_loaded_unless_they_are_asked_for() -> None:
    """The architecture is one whose costs nobody knows: its modules tell."""
    sizes = {
        "vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "moe_intermediate_size": 8, "n_group": 2,
        "num_hidden_layers": 3, "first_k_dense_replace": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
        "num_experts_per_tok": 2, "n_routed_experts": 8, "topk_group": 1, "q_lora_rank": 8, "kv_lora_rank": 8,
        "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
    }  # fmt: skip
    configuration = AutoConfig.for_model("deepseek_v3", **sizes)
    for method in ("moe-spec(budget=4)", "piggyback"):
        with pytest.raises(MethodError, match="DeepseekV3ForCausalLM choose by sigmoids"):
            parse_method(method).check_model(configuration)
    parse_method("moe-spec(budgets=4/2,sigmoid=true)").check_model(configuration)
    with pytest.raises(MethodError, match="budget of 1 experts is too small for layer 1"):
        parse_method("moe-spec(budget=1,sigmoid=true)").check_model(configuration)


@pytest.mark.parametrize(
    ("method", "kind", "reason"),
    [
        ("moe-spec(budget=1)", "olmoe", "A budget of 1 experts is too small for layer 0 .* write budget=2 or more"),
        ("moe-spec(budget=0)", "olmoe", "budget of moe-spec must be at least 1, not 0"),
        ("moe-spec(budgets=4/1)", "olmoe", "too small for layer 1"),
        ("moe-spec(budgets=4)", "olmoe", "1 budgets, and OlmoeForCausalLM has 2 layers"),
        (
            "moe-spec(budget=4)",
            "llama",
            "no router that chooses experts, and a budget does nothing there: take eagle",
        ),
        ("moe-spec(budgets=4/x)", "olmoe", "numbers with / between them"),
        ("moe-spec(budget=3,budgets=4/4)", "olmoe", "not both"),
        ("moe-spec(rule=none)", "olmoe", "no budget rule 'none'"),
        ("moe-spec(rule=coverage(share=2))", "olmoe", "above 0 and at most 1"),
    ],
)
def test_budgets_that_cannot_be_are_one_sentence_and_nothing_is_patched(method: str, kind: str, reason: str) -> None:
    model = mixture(kind) if kind != "llama" else random_model(tiny_configuration(kind), seed=0)
    with pytest.raises(MethodError, match=reason) as caught, applied(parse_method(method), model, drafter_of(model)):
        pytest.fail("it started")
    assert "\n" not in str(caught.value)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_router_of_another_kind_is_refused() -> None:
    model = mixture("olmoe")
    gate = model.model.layers[1].mlp.gate
    forward = gate.forward
    gate.forward = lambda hidden: (lambda out: (out[0], out[1] * 3, out[2]))(forward(hidden))
    with pytest.raises(MethodError, match="OlmoeTopKRouter in layer 1 is of another kind"):
        routers_of(model, "moe-spec", sigmoid=False)


@pytest.mark.parametrize("renormalised", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whether_weights_are_renormalised_is_seen_also_of_a_router_that_is_nearly_certain(
    dtype: torch.dtype, renormalised: bool
) -> None:
    """Loud inputs alone do not tell: where a token's experts have all of the probability, both look the same."""
    model = mixture("olmoe", norm_topk_prob=renormalised)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.gate.weight.mul_(20)
    found = routers_of(model.to(dtype), "moe-spec", sigmoid=False)
    assert [router.renormalised for router in found] == [renormalised] * 2


@pytest.mark.parametrize("own", [1, 2])
def test_piggybacking_tokens_share_the_experts_that_some_want_most(own: int) -> None:
    model = mixture("qwen3_moe")
    with watching(model) as found:
        _, trace = generated(model, f"piggyback(tokens=9,depth=3,top_k=3,own={own})")
    for kind, _, logits, index, weights in found:
        falling = np.argsort(-softmax(logits), axis=-1, kind="stable")
        union = set(falling[:, :own].flatten().tolist())
        if kind != "verify":
            continue
        assert set(index.flatten().tolist()) <= union
        for row, its_index, its_weights in zip(falling.tolist(), index.tolist(), weights.tolist(), strict=True):
            best = [expert for expert in row if expert in union][:2]
            assert {each for each, weight in zip(its_index, its_weights, strict=True) if weight} == set(best)
    assert trace.figures["mean_unique_experts"] <= trace.figures["mean_natural_experts"]
    kept = []
    for _, _, logits, _, _ in (each for each in found if each[0] == "verify"):
        falling, sums = np.argsort(-logits, axis=-1, kind="stable"), softmax(logits).sum(0)
        kept.append(sums[sorted(set(falling[:, :own].flatten().tolist()))].sum() / sums.sum())
    assert trace.figures["mean_kept_mass"] == pytest.approx(np.mean(kept), abs=1e-4)


def test_piggybacking_keeps_no_more_experts_than_a_token_has() -> None:
    model = mixture("olmoe")
    with pytest.raises(MethodError, match="keeps 3 experts of each token, and a token has 2"):
        generated(model, "piggyback(own=3)")
