"""Routing under a budget: the rule in small numbers, and all ways beside the float64 reference."""

from __future__ import annotations

import pytest
import torch

from support.triton_processes import Assembled, Call, assembled
from vivace_kernels.speculation.budgeted_routing import budgeted_routing
from vivace_kernels.speculation.routing import MOST_EXPERTS, Policy, Routing, Rule, reference

SIZES = [(experts, chosen) for experts in (8, 64, 128) for chosen in (2, 4, 8)]
LIGHT = [(8, 2), (64, 8)]
"""Those that are also tried with many tokens wherever tests run."""


def logits_of(tokens: int, experts: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return (3 * torch.randn(tokens, experts, generator=torch.Generator().manual_seed(seed))).to(dtype)


def budgets(experts: int, chosen: int) -> list[int]:
    return sorted({chosen, min(chosen + 3, experts), experts // 2 if experts // 2 > chosen else chosen, experts})


def assert_same(found: Routing, exact: Routing) -> None:
    assert torch.equal(found.shortlist, exact.shortlist)
    assert torch.equal(found.index, exact.index)
    for one, other in ((found.weights, exact.weights), (found.scores, exact.scores)):
        torch.testing.assert_close(one.double(), other, rtol=2e-6, atol=1e-9)


def test_the_rule_in_numbers_that_can_be_followed() -> None:
    """Two tokens, four experts, two each: expert 3 is the second of token 0 only, and two others weigh more."""
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.6, 0.3, 0.09, 0.01]], dtype=torch.float64).log()
    sums = torch.tensor([0.7, 0.5, 0.39, 0.41])
    substituted = reference(logits, Rule(2, 2, "substitution", renormalised=False))
    torch.testing.assert_close(substituted.scores, sums.double())
    assert substituted.shortlist.tolist() == [0, 1]
    assert substituted.index.tolist() == [[1, 0], [0, 1]]
    torch.testing.assert_close(substituted.weights, torch.tensor([[0.2, 0.1], [0.6, 0.3]]).double())
    divided = reference(logits, Rule(2, 2))
    torch.testing.assert_close(divided.weights, torch.tensor([[2 / 3, 1 / 3], [2 / 3, 1 / 3]]).double())
    cut = reference(logits, Rule(2, 2, "truncation", renormalised=True))
    assert cut.index.tolist() == [[0, 0], [0, 1]]  # what is dropped names the first on the shortlist
    torch.testing.assert_close(cut.weights, torch.tensor([[0, 0], [2 / 3, 1 / 3]]).double())
    assert reference(logits, Rule(2, 3)).shortlist.tolist() == [0, 1, 3]


@pytest.mark.parametrize("policy", ["substitution", "truncation"])
@pytest.mark.parametrize("renormalised", [True, False])
def test_what_comes_of_every_rule(policy: Policy, renormalised: bool) -> None:
    for experts, chosen in SIZES:
        for budget in budgets(experts, chosen):
            logits = logits_of(16, experts, seed=budget)
            found = budgeted_routing(logits, Rule(chosen, budget, policy, renormalised))
            assert_same(found, reference(logits, Rule(chosen, budget, policy, renormalised)))
            assert set(found.index.flatten().tolist()) <= set(found.shortlist.tolist())
            assert len(found.shortlist) == budget
            if policy == "substitution":
                assert all(len(set(each)) == chosen for each in found.index.tolist())
                assert (found.weights > 0).all()
            if renormalised and policy == "substitution":
                torch.testing.assert_close(found.weights.sum(1), torch.ones(16))
            if budget == experts:
                natural = torch.softmax(logits, -1).topk(chosen)
                assert torch.equal(found.index, natural.indices)


@pytest.mark.parametrize(
    ("experts", "chosen", "tokens"),
    [
        pytest.param(*size, tokens, marks=[pytest.mark.full] if tokens > 1 and size not in LIGHT else [])
        for size in SIZES
        for tokens in (1, 13, 64)
    ],
)
def test_the_kernel_agrees_with_the_reference(interpreted: Call, experts: int, chosen: int, tokens: int) -> None:
    gpu = pytest.importorskip("vivace_kernels.speculation.routing_gpu")
    for turn, budget in enumerate(budgets(experts, chosen)):
        policy: Policy = ("substitution", "truncation")[(turn + tokens) % 2]  # type: ignore[assignment]
        dtype = (torch.float32, torch.bfloat16, torch.float16)[(turn + chosen) % 3]
        rule = Rule(chosen, budget, policy, renormalised=turn % 2 == 0)
        # Such numbers that sums of their probabilities differ by more than roundings.
        logits = logits_of(tokens, experts, dtype, seed=experts + tokens)
        assert_same(interpreted(gpu.budgeted_routing_gpu, logits, rule), reference(logits, rule))


def test_equal_and_impossible_numbers_keep_their_order(interpreted: Call) -> None:
    """A token that is no number may not send another to an expert that is not there."""
    gpu = pytest.importorskip("vivace_kernels.speculation.routing_gpu")
    for policy in ("substitution", "truncation"):
        rule = Rule(2, 3, policy)
        equal = torch.zeros(3, 6)
        assert_same(interpreted(gpu.budgeted_routing_gpu, equal, rule), reference(equal, rule))
        equal[1, 2] = float("nan")
        for found in (interpreted(gpu.budgeted_routing_gpu, equal, rule), budgeted_routing(equal, rule)):
            assert found.shortlist.tolist() == [0, 1, 2]
            assert found.index.tolist() == [[0, 1]] * 3
            assert found.weights[1].isnan().all() and found.weights[[0, 2]].isfinite().all()


def test_a_token_that_keeps_next_to_nothing_still_has_weights_that_sum_to_one(interpreted: Call) -> None:
    gpu = pytest.importorskip("vivace_kernels.speculation.routing_gpu")
    logits = torch.full((40, 4), -30.0)
    logits[:-1, :2] = torch.tensor([0.0, 1.0])
    logits[-1, 2:] = torch.tensor([0.0, 1.0])
    for found in (budgeted_routing(logits, Rule(2, 2)), interpreted(gpu.budgeted_routing_gpu, logits, Rule(2, 2))):
        assert found.index[-1].tolist() == [0, 1]
        torch.testing.assert_close(found.weights[-1], torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize("experts", [8, 64, 128])
def test_the_kernel_compiles_without_spilling(compiling: Call, experts: int, record_property: object) -> None:
    gpu = pytest.importorskip("vivace_kernels.speculation.routing_gpu")
    for policy in ("substitution", "truncation"):
        each: Assembled
        (each,) = compiling(
            assembled, 90, gpu.budgeted_routing_gpu, torch.ones(64, experts, dtype=torch.bfloat16), Rule(8, 8, policy)
        )
        assert each.spilled == 0, each.sentence


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Rule(4, 3), "at least as many"),
        (lambda: Rule(0, 3), "at least one"),
        (lambda: Rule(2, 3, "guess"), "no policy guess"),  # type: ignore[arg-type]
        (lambda: budgeted_routing(torch.ones(3, 4), Rule(5, 5)), "sent to 5"),
        (lambda: budgeted_routing(torch.ones(4), Rule(2, 2)), "have shape"),
    ],
)
def test_what_does_not_fit_is_one_sentence(make: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()  # type: ignore[operator]


def test_the_kernel_runs_on_a_gpu_alone() -> None:
    gpu = pytest.importorskip("vivace_kernels.speculation.routing_gpu")
    with pytest.raises(ValueError, match="CUDA device"):
        gpu.budgeted_routing_gpu(torch.ones(2, 4), Rule(2, 2))
    with pytest.raises(ValueError, match=f"up to {MOST_EXPERTS}"):
        gpu.budgeted_routing_gpu(torch.ones(2, MOST_EXPERTS + 1), Rule(2, 2))
