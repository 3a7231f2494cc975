"""Passes that verify drafts over a random mixture of experts, with routing forced to so many, and its plain step."""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from report import BenchmarkError, Row, estimated
from transformers import DynamicCache, OlmoeConfig

from vivace_kernels.speculation.budgeted_routing import budgeted_routing
from vivace_kernels.speculation.routing import Routing, Rule, reference
from vivace_methods.models import implementations
from vivace_methods.models.cost import cost
from vivace_methods.models.ledger import Pass
from vivace_methods.models.random import random_model
from vivace_methods.timing.floor import FloorProbe
from vivace_methods.timing.ratios import paired_ratio

AUTOREGRESSIVE, EAGLE, MOE_SPEC = "autoregressive", "eagle3", "moe-spec"


@dataclass(frozen=True)
class Shape:
    """The stack, and what is verified on it.

    Attributes:
        hidden: width.
        experts: in each layer.
        chosen: of each token.
        width: of an expert.
        layers: how many.
        context: positions before the draft.
        met: experts that a draft wakes in each layer where nothing bounds it.
        tokens: of a draft, one size after the other.
        budgets: experts that it may wake.
    """

    hidden: int = 1024
    experts: int = 64
    chosen: int = 8
    width: int = 512
    layers: int = 4
    context: int = 256
    met: int = 52
    tokens: Sequence[int] = (16, 32, 64)
    budgets: Sequence[int] = (8, 16, 32)


VOCABULARY = 512
"""Cut: the output matrix is no part of what is compared."""


@dataclass(frozen=True)
class Kind:
    """One kind of pass: how many tokens, and under which budget, or with which of transformers' kernels."""

    tokens: int
    budget: int | None = None
    kernels: str = implementations.OWN_EXPERTS

    @property
    def arm(self) -> str:
        """As rows name it."""
        if self.tokens == 1:
            return AUTOREGRESSIVE
        named = EAGLE if self.budget is None else MOE_SPEC
        return named if self.kernels == implementations.OWN_EXPERTS else f"{named} ({self.kernels})"


def depths(tokens: int) -> tuple[int, ...]:
    """Of the nodes of a draft in which each has two that follow it, breadth first."""
    return tuple((node + 1).bit_length() - 1 for node in range(tokens))


class Stack:
    """A random mixture with a context in its cache, whose routers say what they are told to.

    Args:
        shape: of the stack.
        dtype: of weights and cache.
    """

    def __init__(self, shape: Shape, dtype: torch.dtype) -> None:
        self.shape, self.dtype = shape, dtype
        configuration = OlmoeConfig(
            vocab_size=VOCABULARY,
            hidden_size=shape.hidden,
            intermediate_size=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=max(shape.hidden // 64, 1),
            num_experts=shape.experts,
            num_experts_per_tok=shape.chosen,
            norm_topk_prob=True,
            max_position_embeddings=2 * (shape.context + max(shape.tokens)),
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
        )
        self.model: Any = random_model(configuration, dtype=dtype)
        self._layer = 0
        self._drawn = torch.Generator().manual_seed(0)
        self._routed: list[torch.Tensor] = []
        self._told: list[tuple[torch.Tensor, Routing, Rule | None]] = []
        self._cache: Any = None
        for layer in self.model.model.layers:
            layer.mlp.gate.register_forward_hook(self._routes)

    def read_context(self) -> None:
        """Fill the cache."""
        self._cache = DynamicCache(config=self.model.config)
        ids = torch.randint(VOCABULARY, (1, self.shape.context), generator=self._drawn)
        self._told = []
        self.model(ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)

    @contextmanager
    def kernels(self, implementation: str) -> Iterator[None]:
        """Experts, and products of single tokens, by the fastest kernels, or by transformers' own."""
        with ExitStack() as chosen:
            chosen.enter_context(implementations.experts(self.model, implementation))
            if implementation == implementations.OWN_EXPERTS:
                chosen.enter_context(implementations.products(self.model))
            yield

    def draw(self, tokens: int) -> list[torch.Tensor]:
        """Logits for each layer's router by which a draft meets `met` experts there, all of them about as often."""
        shape, found = self.shape, []
        for _ in range(shape.layers):
            logits = torch.zeros(tokens, shape.experts)
            met = torch.randperm(shape.experts, generator=self._drawn)[: min(shape.met, tokens * shape.chosen)]
            places = torch.arange(tokens * shape.chosen).view(tokens, -1) % len(met)
            logits.scatter_(1, met[places], 4 + torch.rand(places.shape, generator=self._drawn))
            found.append(logits.to(self.dtype))
        return found

    def timed(self, kind: Kind, logits: Sequence[torch.Tensor]) -> tuple[float, list[int]]:
        """One pass: its seconds, and how many experts each layer read.

        Args:
            kind: of the pass.
            logits: of each layer's router.
        """
        shape = self.shape
        natural = Rule(shape.chosen, shape.experts)
        rule = None if kind.budget is None else Rule(shape.chosen, kind.budget)
        self._told = [(each, reference(each, natural, torch.float32), rule) for each in logits]
        self._routed, self._layer = [], 0
        ids = torch.randint(VOCABULARY, (1, kind.tokens), generator=self._drawn)
        named = self._where(kind.tokens)
        start = time.perf_counter()
        self.model(ids, past_key_values=self._cache, use_cache=True, **named)
        taken = time.perf_counter() - start
        self._cache.crop(-kind.tokens)
        return taken, [len(index.unique()) for index in self._routed]

    def _where(self, tokens: int) -> dict[str, torch.Tensor]:
        if tokens == 1:
            return {}
        context, its = self.shape.context, depths(tokens)
        seen = torch.zeros(tokens, context + tokens, dtype=torch.bool)
        seen[:, :context] = True
        for node in range(tokens):
            seen[node, context + node] = True
            if node:
                seen[node] |= seen[(node - 1) // 2]
        mask = torch.zeros(seen.shape, dtype=self.dtype).masked_fill(~seen, torch.finfo(self.dtype).min)
        return {"attention_mask": mask[None, None], "position_ids": context + torch.tensor(its)[None]}

    def _routes(self, module: Any, given: Any, found: tuple[torch.Tensor, ...]) -> Any:
        """What a router is told to say; the budget's rule is applied on the clock, as a method has to."""
        if not self._told:
            return None
        logits, routing, rule = self._told[self._layer]
        self._layer += 1
        if rule is not None:
            routing = budgeted_routing(logits, rule)
        self._routed.append(routing.index)
        return logits, routing.weights.to(self.dtype), routing.index


@dataclass(frozen=True)
class Timed:
    """All passes of one type of number.

    Attributes:
        shape: of the stack.
        seconds: of each kind, turn after turn.
        floors: the least that each can take here.
    """

    shape: Shape
    dtype: torch.dtype
    seconds: Mapping[Kind, Sequence[float]]
    floors: Mapping[Kind, float]


def timed_passes(shape: Shape, dtype: torch.dtype, turns: int, *, rivals: bool, probe: FloorProbe) -> Timed:
    """All kinds of pass in turns whose order is drawn; no turn sends tokens to the experts of another.

    Args:
        shape: of the stack, and what is verified.
        dtype: of its numbers.
        turns: after a first one that only warms up.
        rivals: whether transformers' own kernels are timed beside ours.
        probe: tried between turns.

    Raises:
        BenchmarkError: a pass read other experts than it was forced to.
    """
    stack, order = Stack(shape, dtype), random.Random(0)
    kinds = [Kind(1)]
    for tokens in shape.tokens:
        kinds += [Kind(tokens), *(Kind(tokens, budget) for budget in shape.budgets)]
        if rivals:
            kinds += [Kind(tokens, None, kernels) for kernels in ("grouped_mm", "eager")]
    seconds: dict[Kind, list[float]] = {kind: [] for kind in kinds}
    with torch.inference_mode():
        stack.read_context()
        for turn in range(-1, turns):
            logits = {tokens: stack.draw(tokens) for tokens in (1, *shape.tokens)}
            for kind in order.sample(kinds, len(kinds)):
                with stack.kernels(kind.kernels):
                    taken, read = stack.timed(kind, logits[kind.tokens])
                if any(each != experts_of(shape, kind) for each in read):
                    raise BenchmarkError(f"A pass of {kind.tokens} tokens read {read} experts, and not as forced.")
                if turn >= 0:
                    seconds[kind].append(taken)
            probe.between()
    floors = {}
    for kind in kinds:
        least = cost(stack.model.config, [pass_of(shape, kind)], dtype)
        floors[kind] = probe.floor.floor_seconds(least.bytes, least.flops, dtype)
    return Timed(shape, dtype, seconds, floors)


def experts_of(shape: Shape, kind: Kind) -> int:
    """Different experts that a pass reads in each layer."""
    natural = min(shape.met, kind.tokens * shape.chosen)
    return natural if kind.budget is None else min(kind.budget, natural)


def pass_of(shape: Shape, kind: Kind) -> Pass:
    """A pass as a ledger has it."""
    return Pass(
        "verify" if kind.tokens > 1 else "decode",
        kind.tokens,
        shape.context,
        logits=kind.tokens,
        depths=depths(kind.tokens),
        experts=(experts_of(shape, kind),) * shape.layers,
    )


def rows_of(timed: Timed) -> list[Row]:
    """Every budget beside no budget, the headlines in float32; and what stands beside a step of plain decoding."""
    rows, step = [], Kind(1)
    name = str(timed.dtype).removeprefix("torch.")
    suffix = "" if timed.dtype == torch.float32 else f", {name}"
    for kind in timed.seconds:
        if kind == step:
            continue
        whole = Kind(kind.tokens)
        budget = f"no budget (U={timed.shape.met})" if kind.budget is None else f"B={kind.budget}"
        case = f"verify {kind.tokens} tokens, {budget}{suffix}"
        if kind != whole:
            headline = kind.budget is not None and timed.dtype == torch.float32
            rows.append(_row(timed, case, kind, whole, headline=headline))
        if kind.kernels == implementations.OWN_EXPERTS:
            rows.append(_row(timed, case, kind, step, headline=False))
    return rows


def _row(timed: Timed, case: str, kind: Kind, beside: Kind, *, headline: bool) -> Row:
    taken, reference = timed.seconds[kind], timed.seconds[beside]
    ratio = paired_ratio(taken, reference, list(range(len(taken))))
    floor = timed.floors[kind] / statistics.median(reference)
    return estimated(case, kind.arm, beside.arm, "pass_s", ratio, floor=floor, headline=headline)


def break_even(timed: Timed) -> list[dict[str, Any]]:
    """What each pass takes, and the acceptance from which it pays.

    `steps` are the steps of plain decoding that it takes: the tokens a pass must give, on average, to be worth it,
    drafting not counted. `may_lose` is the share of the acceptance length which a budget may cost before its gain
    over the pass without one is gone.
    """
    median = {kind: statistics.median(seconds) for kind, seconds in timed.seconds.items()}
    step = timed.seconds[Kind(1)]
    found = []
    for kind in timed.seconds:
        if kind.kernels != implementations.OWN_EXPERTS:
            continue
        turns = list(range(len(step)))
        share = paired_ratio(timed.seconds[kind], timed.seconds[Kind(kind.tokens)], turns).value
        found.append(
            {
                "dtype": str(timed.dtype).removeprefix("torch."),
                "tokens": kind.tokens,
                "budget": kind.budget,
                "experts": experts_of(timed.shape, kind),
                "pass_s": median[kind],
                "floor_s": timed.floors[kind],
                "steps": paired_ratio(timed.seconds[kind], step, turns).value,
                "may_lose": None if kind.budget is None else max(1 - share, 0.0),
            }
        )
    return found


def print_break_even(found: Sequence[Mapping[str, Any]]) -> None:
    """For people."""
    print("\na pass: its time beside the floor, the steps of plain decoding it takes, and what a budget may cost")
    for each in found:
        bound = "no budget" if each["budget"] is None else f"B={each['budget']}"
        loss = "" if each["may_lose"] is None else f"   may lose {each['may_lose']:.0%} of τ"
        print(
            f"{each['dtype']:>8}  {each['tokens']:>3} tokens  {bound:>9}  {each['experts']:>3} experts  "
            f"{1e3 * each['pass_s']:>7.1f} ms (floor {1e3 * each['floor_s']:.1f})  {each['steps']:.2f} steps{loss}"
        )
    sys.stdout.flush()
