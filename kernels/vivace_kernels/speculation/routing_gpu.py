"""Routing under a budget in one launch on a GPU: probabilities, sums, the shortlist, and each token's experts."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from vivace_kernels import gpu
from vivace_kernels.speculation.routing import LEAST_MASS, MOST_EXPERTS, Routing, Rule

TOKENS = 8
"""That a program routes; it sums the probabilities of all."""
ROUTING = {"num_warps": 8, "enable_fp_fusion": True}


def budgeted_routing_gpu(logits: torch.Tensor, rule: Rule) -> Routing:
    """Route a draft on a GPU. Two calls give the same bits, and CUDA graphs capture it.

    Args:
        logits: shape (tokens, experts).
        rule: of the layer.

    Raises:
        ValueError: more experts than the kernel compares.
    """
    tokens, experts = logits.shape
    if experts > MOST_EXPERTS:
        raise ValueError(f"The routing kernel compares up to {MOST_EXPERTS} experts, and there are {experts}.")
    gpu.require_gpu(logits.device)
    budget = min(rule.budget, experts)

    def empty(*shape: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=logits.device)

    index, weights = (empty(tokens, rule.experts, dtype=dtype) for dtype in (torch.int64, torch.float32))
    shortlist, scores = empty(budget, dtype=torch.int64), empty(experts, dtype=torch.float32)
    with gpu.current(logits.device):
        _route[(max(triton.cdiv(tokens, TOKENS), 1),)](
            logits.contiguous(), index, weights, shortlist, scores, tokens, experts, budget,
            CHOSEN=rule.experts, SUBSTITUTING=rule.policy == "substitution", RENORMALISED=rule.renormalised,
            LEAST=LEAST_MASS if rule.policy == "truncation" else torch.finfo(torch.float32).tiny,
            TOKENS=TOKENS, PLACES=triton.next_power_of_2(rule.experts), EXPERTS=triton.next_power_of_2(experts),
            **ROUTING,
        )  # fmt: skip
    return Routing(index, weights, shortlist, scores)


@triton.jit
def _probabilities(
    logits: tl.tensor, token: tl.tensor, expert: tl.tensor, tokens: tl.tensor, experts: tl.tensor
) -> tl.tensor:
    """Of some tokens, in float32; zero for tokens and experts that are not there."""
    there = (token < tokens)[:, None] & (expert < experts)[None, :]
    place = token.to(tl.int64)[:, None] * experts + expert[None, :]
    # A token that is not there gets zeros in place of minus infinity, which would make it no number.
    missing = tl.where((token < tokens)[:, None], float("-inf"), 0.0)
    logit = tl.where(there, tl.load(logits + place, mask=there, other=0.0).to(tl.float32), missing)
    power = tl.exp(logit - tl.max(logit, 1)[:, None])
    return tl.where(there, power / tl.sum(power, 1)[:, None], 0.0)


@triton.jit(do_not_specialize=["tokens", "budget"])
def _route(
    logits: tl.tensor,
    index: tl.tensor,
    weights: tl.tensor,
    shortlist: tl.tensor,
    scores: tl.tensor,
    tokens: tl.tensor,
    experts: tl.tensor,
    budget: tl.tensor,
    CHOSEN: tl.constexpr,
    SUBSTITUTING: tl.constexpr,
    RENORMALISED: tl.constexpr,
    LEAST: tl.constexpr,
    TOKENS: tl.constexpr,
    PLACES: tl.constexpr,
    EXPERTS: tl.constexpr,
) -> None:
    """Route some tokens; each program scores the experts anew, which is cheaper than to wait for another."""
    expert = tl.arange(0, EXPERTS)
    score = tl.zeros([EXPERTS], tl.float32)
    for first in range(0, tokens, TOKENS):
        score += tl.sum(_probabilities(logits, first + tl.arange(0, TOKENS), expert, tokens, experts), 0)
    # Below every score: what is no number, and then what is not there.
    comparable = tl.where(expert < experts, tl.where(score == score, score, -1.0), -2.0)
    ahead = (comparable[:, None] > comparable[None, :]) | (
        (comparable[:, None] == comparable[None, :]) & (expert[:, None] < expert[None, :])
    )
    rank = tl.sum(ahead.to(tl.int32), 0)
    kept = rank < budget
    if tl.program_id(0) == 0:
        tl.store(shortlist + rank, expert.to(tl.int64), mask=kept)
        tl.store(scores + expert, score, mask=expert < experts)
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    probability = _probabilities(logits, token, expert, tokens, experts)
    eligible = tl.where(probability == probability, probability, -1.0)
    eligible = tl.where((expert < experts)[None, :], eligible, -3.0)
    if SUBSTITUTING:
        eligible = tl.where(kept[None, :], eligible, -2.0)
    first_on_it = tl.sum(tl.where(rank == 0, expert, 0), 0)
    place = tl.arange(0, PLACES)
    indices = tl.zeros([TOKENS, PLACES], tl.int32)
    weight_of = tl.zeros([TOKENS, PLACES], tl.float32)
    for turn in tl.static_range(CHOSEN):
        highest = tl.max(eligible, 1)
        chosen = tl.min(tl.where(eligible == highest[:, None], expert[None, :], EXPERTS), 1)
        is_it = expert[None, :] == chosen[:, None]
        weight = tl.sum(tl.where(is_it, probability, 0.0), 1)
        if not SUBSTITUTING:
            on_it = tl.sum((is_it & kept[None, :]).to(tl.int32), 1) > 0
            weight = tl.where(on_it, weight, 0.0)
            chosen = tl.where(on_it, chosen, first_on_it)
        eligible = tl.where(is_it, -4.0, eligible)
        indices = tl.where((place == turn)[None, :], chosen[:, None], indices)
        weight_of = tl.where((place == turn)[None, :], weight[:, None], weight_of)
    if RENORMALISED:
        total = tl.sum(weight_of, 1)
        # Written so that what is no number stays none.
        weight_of = weight_of / tl.where(total < LEAST, LEAST, total)[:, None]
    there = (token < tokens)[:, None] & (place < CHOSEN)[None, :]
    places = token.to(tl.int64)[:, None] * CHOSEN + place[None, :]
    tl.store(index + places, indices.to(tl.int64), mask=there)
    tl.store(weights + places, weight_of, mask=there)
