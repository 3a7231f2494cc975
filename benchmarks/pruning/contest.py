"""Methods that read prompts in part beside the full prefill: rounds in which all read one prompt, with bounds."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from report import Row, compare, estimated

from pruning.bounds import Bench, Bounds, seconds_of
from vivace_methods.decoding.joined import applied
from vivace_methods.models.ledger import Pass
from vivace_methods.models.shared_copy import shared_copy
from vivace_methods.prefill.rankers.base import Shown
from vivace_methods.protocol import Generator, Method, Need, Request
from vivace_methods.registry import method
from vivace_methods.timing.ratios import paired_ratio

ENOUGH_FOR_INTERVALS = 5
"""Pairs; of fewer, the lowest and the highest are told."""
BASELINE = "full"


@dataclass(frozen=True)
class Case:
    """Prompts of one length, and how much of them goes on.

    Attributes:
        tokens: of a prompt.
        keep: the share that goes on.
    """

    tokens: int
    keep: float

    @property
    def name(self) -> str:
        """As the table shows it."""
        return f"{self.tokens:,} tokens, keep {self.keep:.0%}"


@dataclass(frozen=True)
class Round:
    """What one round of a case has shown, in which each arm has read one prompt.

    Attributes:
        seconds: to the first token, by arm.
        floors: the share of the full prefill's time that each arm's passes must take at the rates of this round.
        rates: of products and of attention.
    """

    seconds: Mapping[str, float]
    floors: Mapping[str, float]
    rates: Mapping[str, Any]


class Contest:
    """All arms of a case, attached to copies that share one model's weights.

    Args:
        case: what they read.
        methods: name of each arm → its method; the baseline is put before them.
        model: with its bench.
        draft: with its bench, for methods that need one; None leaves them out.
        contexts: in which the methods stay attached.
    """

    def __init__(
        self,
        case: Case,
        methods: Mapping[str, Method],
        model: tuple[Any, Bench],
        draft: tuple[Any, Bench] | None,
        contexts: ExitStack,
    ) -> None:
        self.case = case
        self._bench, self._draft = model[1], None if draft is None else draft[1]
        self._vocabulary = model[1].shapes.vocabulary
        self._arms: dict[str, Generator] = {}
        for name, each in {BASELINE: method(BASELINE), **methods}.items():
            fitted = None
            if Need.DRAFTER in each.needs:
                if draft is None:
                    continue
                fitted = shared_copy(draft[0])
            self._arms[name] = contexts.enter_context(applied(each, shared_copy(model[0]), fitted))
        self._passes: dict[str, Sequence[Pass]] = {}
        self.figures: dict[str, dict[str, Any]] = {}

    def warm_up(self) -> None:
        """Each arm reads a prompt, off the record: what it passes through, and what its scoring takes of it."""
        self._passes[BASELINE] = (Pass("read", self.case.tokens, 0),)
        self.figures[BASELINE] = {"scoring_share": 0.0}
        for name in self._arms:
            if name == BASELINE:
                continue
            spent: list[float] = []
            with scoring_timed(spent, self._bench.device):
                taken, trace = self._read(name, -1)
            self._passes[name] = trace.passes
            shown = {each: trace.figures.get(each) for each in ("kept_share", "kv_share", "prune_layer")}
            self.figures[name] = {"scoring_share": sum(spent) / taken, **shown}

    def round(self, turn: int) -> Round:
        """One round: the arms in an order that is drawn, the rates between them."""
        order = random.Random(turn).sample(list(self._arms), len(self._arms))
        half = len(order) // 2
        seconds = {name: self._read(name, turn)[0] for name in order[:half]}
        passes = [one for its in self._passes.values() for one in its]
        rates = self._bench.rates(_thinned(_counts(passes, "read")), turn)
        draft = None
        if self._draft is not None and (counts := _counts(passes, "draft")):
            draft = Bounds(self._draft.shapes, self._draft.rates(_thinned(counts), turn))
        seconds |= {name: self._read(name, turn)[0] for name in order[half:]}
        bounds = Bounds(self._bench.shapes, rates, draft)
        whole = bounds.seconds(self._passes[BASELINE])
        floors = {name: bounds.seconds(its) / whole for name, its in self._passes.items()}
        return Round(seconds, floors, rates.as_json())

    def _read(self, name: str, turn: int) -> tuple[float, Any]:
        """Seconds to the first token, which the loop has fetched from the device by then."""
        drawn = torch.Generator().manual_seed(1000 + turn)
        prompt = torch.randint(self._vocabulary, (1, self.case.tokens), generator=drawn).to(self._bench.device)
        moments: list[float] = []
        begun = time.perf_counter()
        trace = self._arms[name].generate(Request(prompt, 1), lambda tokens: moments.append(time.perf_counter()))
        return moments[0] - begun, trace


def _counts(passes: Sequence[Pass], kind: str) -> set[int]:
    """Numbers of tokens that go through layers together."""
    found = {tokens for one in passes if one.kind == kind for tokens in one.layer_tokens or (one.tokens,)}
    return {tokens for tokens in found if tokens > 1}


def _thinned(counts: set[int]) -> list[int]:
    """The numbers of tokens, without those within a tenth of another: rates change slowly."""
    kept: list[int] = []
    for count in sorted(counts, reverse=True):
        if not kept or count < 0.9 * kept[-1]:
            kept.append(count)
    return kept


@contextmanager
def scoring_timed(spent: list[float], device: torch.device) -> Iterator[None]:
    """Notes what the scores of windows take while the context lasts."""
    plain = Shown.window_scores

    def timed(shown: Shown, *given: Any, **named: Any) -> torch.Tensor:
        scores: list[torch.Tensor] = []
        spent.append(seconds_of(lambda: scores.append(plain(shown, *given, **named)), device))
        return scores[0]

    with patch.object(Shown, "window_scores", timed):
        yield


def rows_of(case: Case, rounds: Sequence[Round], headline: Collection[str], apart: bool = False) -> list[Row]:
    """A row of each arm; its `floor` is the bound's median over the rounds.

    Args:
        case: what was read.
        rounds: that were measured.
        headline: arms on which a limit is set; they come first.
        apart: whether each arm's row is a case of its own, that limits may differ.
    """
    rows = []
    for arm in rounds[0].seconds:
        if arm == BASELINE:
            continue
        name = f"{case.name}: {arm}" if apart else case.name
        pairs = [(each.seconds[arm], each.seconds[BASELINE]) for each in rounds]
        floor, leads = statistics.median(each.floors[arm] for each in rounds), arm in headline
        if len(pairs) < ENOUGH_FOR_INTERVALS:
            rows.append(compare(name, arm, BASELINE, "ttft_s", pairs, floor=floor, headline=leads))
        else:
            ratio = paired_ratio(*zip(*pairs, strict=True), list(range(len(pairs))))
            rows.append(estimated(name, arm, BASELINE, "ttft_s", ratio, floor=floor, headline=leads))
    return sorted(rows, key=lambda row: (not row.headline, row.arm))


def limit_of(bound: float, share: float) -> float:
    """The highest ratio that still saves a share of what can be saved.

    Args:
        bound: of the reduction.
        share: of it.
    """
    return 1 - share * bound


def told(rounds: Mapping[str, Sequence[Round]], figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Of each case and arm what the reduction is, what it can be, and what else was seen."""
    found: dict[str, Any] = {}
    for case, its in rounds.items():
        for arm in its[0].seconds:
            ratio = statistics.median(each.seconds[arm] / each.seconds[BASELINE] for each in its)
            floor = statistics.median(each.floors[arm] for each in its)
            reached = (1 - ratio) / (1 - floor) if floor < 0.99 else None
            found.setdefault(case, {})[arm] = {
                "seconds": [each.seconds[arm] for each in its],
                "reduction": 1 - ratio,
                "bound": 1 - floor,
                "reached": reached,
                **figures[case][arm],
            }
    return found


def sentences(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[str]:
    """For people: what each arm saves, what it could, and what scoring takes."""
    for case, arms in found.items():
        for arm, its in arms.items():
            if arm != BASELINE:
                reached = "" if its["reached"] is None else f", {its['reached']:.1%} of it"
                yield (
                    f"{case}: {arm} saves {its['reduction']:.1%}, its bound is {its['bound']:.1%}{reached}; scoring "
                    f"takes {its['scoring_share']:.2%}"
                )
