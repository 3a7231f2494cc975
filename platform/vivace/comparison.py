"""Comparing judgings: all differences in one declared family, and the conversations that flipped."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vivace.errors import UsageError
from vivace.statistics.intervals import LEVEL_Z
from vivace.statistics.paired import (
    POWER_Z,
    Difference,
    Pair,
    apr_difference,
    ars_difference,
    benjamini_hochberg,
    conversations_needed,
    holm,
)
from vivace.store.database import Database
from vivace.store.verdicts import JudgingCard, judging_card, verdicts

Correction = Literal["holm", "bh"]


@dataclass(frozen=True)
class ComparisonRow:
    """One difference of the family."""

    a: JudgingCard
    b: JudgingCard
    metric: str
    slice: str
    """Empty for all, else the axis."""
    difference: Difference
    p_adjusted: float | None

    def as_json(self) -> dict[str, Any]:
        """The row, flat."""
        figures = {key: value for key, value in vars(self.difference).items() if key not in ("a", "b")}
        return {
            "a": self.a.model,
            "b": self.b.model,
            "judging_a": self.a.judging,
            "judging_b": self.b.judging,
            "metric": self.metric,
            "slice": self.slice,
            "value_a": self.difference.a,
            "value_b": self.difference.b,
            "difference": self.difference.value,
            **figures,
            "p_adjusted": self.p_adjusted,
        }


@dataclass(frozen=True)
class Comparison:
    """Some judgings against the first one."""

    rows: list[ComparisonRow]
    flips: list[dict[str, Any]]
    """Conversations that came out differently: both judgings, the axis, criteria met of each."""
    caveats: list[str]
    """What makes it less than a clean comparison; empty unless it was forced."""


def compare(
    database: Database, identifiers: Sequence[str], *, correction: Correction = "holm", force: bool = False
) -> Comparison:
    """Each further judging against the first: APR and ARS, overall and per axis.

    All p-values of one call are one family, and are corrected together.

    Raises:
        UsageError: fewer than two judgings, the same one twice, nothing in common, or, unless forced,
            judges or data that differ.
    """
    cards = [judging_card(database, identifier) for identifier in identifiers]
    if len(cards) < 2 or len({card.judging for card in cards}) < len(cards):
        raise UsageError("A comparison takes two or more different judgings; `vivace leaderboard` lists them.")
    caveats = _caveats(cards)
    if caveats and not force:
        raise UsageError(f"These cannot be compared: {'; '.join(caveats)}; --force compares them all the same.")
    found: list[tuple[JudgingCard, str, str, Difference]] = []
    flips: list[dict[str, Any]] = []
    for card in cards[1:]:
        matched = _pairs(database, cards[0], card)
        if not matched:
            raise UsageError(f"{cards[0].judging} and {card.judging} have no conversation in common.")
        found += [(card, *difference) for difference in _differences(matched)]
        flips += [_flip(cards[0], card, pair) for pair in matched if pair.whole and pair.passed_a != pair.passed_b]
    adjust: Callable[[Sequence[float]], list[float]] = holm if correction == "holm" else benjamini_hochberg
    tested = [difference.p_value for *_, difference in found if difference.p_value is not None]
    adjusted = iter(adjust(tested))
    rows = [
        ComparisonRow(
            cards[0], card, metric, name, difference, None if difference.p_value is None else next(adjusted)
        )
        for card, metric, name, difference in found
    ]
    return Comparison(rows, flips, caveats)


def _pairs(database: Database, a: JudgingCard, b: JudgingCard) -> list[Pair]:
    """The conversations that both judgings planned, in the order of their ids."""
    first, second = verdicts(database, a), verdicts(database, b)
    matched = []
    for key in sorted(first.keys() & second.keys()):
        (axis, met_a), (_, met_b) = first[key], second[key]
        both = [
            (met_a[number], met_b[number])
            for number in met_a.keys() & met_b.keys()
            if met_a[number] is not None and met_b[number] is not None
        ]
        matched.append(
            Pair(
                conversation=key,
                axis=axis,
                whole=len(both) == len(met_a) == len(met_b),
                scored=len(both),
                met_a=sum(bool(a) for a, _ in both),
                met_b=sum(bool(b) for _, b in both),
            )
        )
    return matched


def _differences(matched: Sequence[Pair]) -> list[tuple[str, str, Difference]]:
    metrics = {"apr": apr_difference, "ars": ars_difference}
    result = []
    for name in ("", *sorted({pair.axis for pair in matched})):
        chosen = [pair for pair in matched if name in ("", pair.axis)]
        for metric, function in metrics.items():
            difference = function(chosen)
            if difference is not None:
                result.append((metric, name, difference))
    return result


def _caveats(cards: Sequence[JudgingCard]) -> list[str]:
    caveats = []
    if len({card.judge_fingerprint for card in cards}) > 1:
        caveats.append(
            "the judges differ: " + ", ".join(f"{card.judge} {card.judge_fingerprint[:6]}" for card in cards)
        )
    if len({card.dataset_id for card in cards}) > 1:
        caveats.append("the data differ: " + ", ".join(f"{card.data} {card.data_revision[:6]}" for card in cards))
    return caveats


def _flip(a: JudgingCard, b: JudgingCard, pair: Pair) -> dict[str, Any]:
    return {
        "conversation": pair.conversation,
        "axis": pair.axis,
        "better": b.model if pair.passed_b else a.model,
        "criteria": pair.scored,
        "met_a": pair.met_a,
        "met_b": pair.met_b,
        "judging_a": a.judging,
        "judging_b": b.judging,
        "page": f"conversation?judging={a.judging}&other={b.judging}&conversation={pair.conversation}",
    }


def plan(database: Database, a: str, b: str, difference: float) -> list[dict[str, Any]]:
    """How many conversations a wanted difference needs, by the spread seen between two judgings.

    Args:
        difference: b − a that shall be found, a fraction.

    Raises:
        UsageError: the two cannot be compared, or the difference is not between 0 and 1.
    """
    if not 0 < abs(difference) < 1:
        raise UsageError("The difference to find must lie between 0 and 1, for instance 0.05 for five points.")
    comparison = compare(database, [a, b])
    result = []
    for row in comparison.rows:
        found = row.difference
        if row.slice or not found.detectable:
            continue
        spread = found.detectable / (LEVEL_Z + POWER_Z) * math.sqrt(found.n)
        needed = conversations_needed(difference, spread)
        result.append(
            {
                "metric": row.metric,
                "difference": abs(difference),
                "conversations_needed": needed,
                "conversations_compared": found.n,
                "detectable_now": found.detectable,
            }
        )
    return result
