"""Comparing judgings: all differences in one declared family, and the conversations that flipped."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from vivace.errors import UsageError
from vivace.output.short_names import bare_address, distinct, settings_text
from vivace.statistics.intervals import LEVEL_Z, student
from vivace.statistics.paired import (
    POWER,
    POWER_Z,
    Difference,
    Pair,
    apr_difference,
    ars_difference,
    benjamini_hochberg,
    conversations_needed,
    holm,
    repeats_needed,
)
from vivace.statistics.repeats import variance_split
from vivace.store.database import Database
from vivace.store.verdicts import (
    JudgedConversation,
    JudgingCard,
    conversations_of,
    conversations_of_each,
    judging_card,
)
from vivace.tracks.dialogue.judging.scores import Tallies
from vivace.tracks.dialogue.summaries.pairs import paired
from vivace.tracks.dialogue.summaries.parts import UNKNOWN, By, slices

Correction = Literal["holm", "bh"]
FLIP = 0.5
"""How far two pass rates must lie apart for a conversation to have flipped; for one reply each, any difference."""
PLANNED_REPEATS = (1, 2, 3, 5, 10)


@dataclass(frozen=True)
class ComparisonRow:
    """One difference of the family."""

    a: JudgingCard
    b: JudgingCard
    metric: str
    by: By
    slice: str
    """Empty for all, else the axis, turns, seconds or speaker."""
    difference: Difference
    p_adjusted: float | None
    name_a: str
    """The model's, with what tells it apart from the others that are compared."""
    name_b: str

    def as_json(self) -> dict[str, Any]:
        """The row, flat."""
        figures = {key: value for key, value in vars(self.difference).items() if key not in ("a", "b")}
        return {
            "a": self.name_a,
            "b": self.name_b,
            "judging_a": self.a.judging,
            "judging_b": self.b.judging,
            "repeats_a": self.a.repeats,
            "repeats_b": self.b.repeats,
            "metric": self.metric,
            "by": self.by,
            "slice": self.slice,
            "value_a": self.difference.a,
            "value_b": self.difference.b,
            "difference": self.difference.value,
            **figures,
            "p_adjusted": self.p_adjusted,
        }


@dataclass(frozen=True)
class JudgingComparison:
    """Some judgings against the first one."""

    rows: list[ComparisonRow]
    flips: list[dict[str, Any]]
    """Conversations that came out differently: both systems, the axis, pass rates and criteria met of each."""
    caveats: list[str]
    """What makes it less than a clean comparison; empty unless it was forced."""
    notes: list[str]
    """Which of the judgings are not over the whole set, and so what the differences leave out."""


def compare(
    database: Database,
    identifiers: Sequence[str],
    *,
    by: By = "axis",
    correction: Correction = "holm",
    force: bool = False,
) -> JudgingComparison:
    """Each further judging against the first: APR and ARS, overall and by axis or another breakdown.

    All p-values of one call are one family, and are corrected together. Judgings may have different numbers of
    repeats: what is compared is a conversation's pass rate over its replies.

    Raises:
        UsageError: fewer than two judgings, the same one twice, nothing in common, or, unless forced,
            judges or data that differ, or one that was retracted.
    """
    cards = [judging_card(database, identifier) for identifier in identifiers]
    if len(cards) < 2 or len({card.judging for card in cards}) < len(cards):
        raise UsageError("A comparison takes two or more different judgings; `vivace leaderboard` lists them.")
    caveats = _caveats(cards)
    if caveats and not force:
        raise UsageError(f"These cannot be compared: {'; '.join(caveats)}; --force compares them all the same.")
    differences: list[tuple[JudgingCard, str, str, Difference]] = []
    flips: list[dict[str, Any]] = []
    judgings = [card.judging for card in cards]
    first, *others = conversations_of_each(database, judgings, turns_too=by in ("turns", "seconds"))
    names = dict(zip((card.judging for card in cards), names_of(cards), strict=True))
    for card, its in zip(cards[1:], others, strict=True):
        matched = paired(first, its)
        if not matched:
            raise UsageError(f"{cards[0].judging} and {card.judging} have no conversation in common.")
        differences += [(card, *difference) for difference in _differences(matched, first, by)]
        flips += [_flip(cards[0], card, pair, names) for pair in matched if _flipped(pair)]
    adjusted = adjusted_p_values([difference for *_, difference in differences], correction)
    rows = [
        ComparisonRow(
            cards[0], card, metric, by, name, difference, p_adjusted, names[cards[0].judging], names[card.judging]
        )
        for (card, metric, name, difference), p_adjusted in zip(differences, adjusted, strict=True)
    ]
    return JudgingComparison(rows, flips, caveats, [_note(card, names) for card in cards if card.standing in _APART])


def names_of(cards: Sequence[JudgingCard]) -> list[str]:
    """A name for each judging that no other one has: the model's, with what differs, at last the judging's id."""
    parameters = [
        {key: value for key, value in card.parameters.items() if any(o.parameters.get(key) != value for o in cards)}
        for card in cards
    ]
    return distinct(
        [card.model for card in cards],
        (
            [card.input_form for card in cards],
            [f"{card.output_form} output" for card in cards],
            [card.method or "no method" for card in cards],
            ["the provider's address" if card.address is None else bare_address(card.address) for card in cards],
            [settings_text(one) or "defaults" for one in parameters],
            [f"{card.repeats} repeats" for card in cards],
            [f"{card.judge} {card.judge_fingerprint[:6]}" for card in cards],
            [f"run {card.run[:8]}" for card in cards],
            [f"judging {card.judging}" for card in cards],
        ),
    )


def adjusted_p_values(differences: Sequence[Difference], correction: Correction = "holm") -> list[float | None]:
    """The p-values of one family, corrected together; None stays where there is no test."""
    adjust: Callable[[Sequence[float]], list[float]] = holm if correction == "holm" else benjamini_hochberg
    adjusted = iter(adjust([one.p_value for one in differences if one.p_value is not None]))
    return [None if one.p_value is None else next(adjusted) for one in differences]


def _differences(
    matched: Sequence[Pair], conversations: Sequence[JudgedConversation], by: By
) -> list[tuple[str, str, Difference]]:
    metrics = {"apr": apr_difference, "ars": ars_difference}
    common = {pair.conversation for pair in matched}
    parts = slices([one for one in conversations if one.id in common], by)
    chosen = [("", common), *((part.name, part.conversations) for part in parts if part.name != UNKNOWN)]
    result = []
    for name, members in chosen:
        for metric, function in metrics.items():
            difference = function([pair for pair in matched if pair.conversation in members])
            if difference is not None:
                result.append((metric, name, difference))
    return result


_APART = {"part": "is over a part of the set", "incomplete": "lacks verdicts on some of the set"}


def _note(card: JudgingCard, names: Mapping[str, str]) -> str:
    """That it is not known over the whole set."""
    return (
        f"{names[card.judging]} {_APART[card.standing]}: only what both have is compared, and what is left out may "
        "be what it fails at."
    )


def _caveats(cards: Sequence[JudgingCard]) -> list[str]:
    caveats = [f"{card.judging} was retracted ({card.retracted})" for card in cards if card.retracted is not None]
    if len({card.judge_fingerprint for card in cards}) > 1:
        caveats.append(
            "the judges differ: " + ", ".join(f"{card.judge} {card.judge_fingerprint[:6]}" for card in cards)
        )
    if len({card.votes for card in cards}) > 1:
        caveats.append("the votes on a criterion differ: " + ", ".join(str(card.votes) for card in cards))
    if len({card.dataset_id for card in cards}) > 1:
        caveats.append("the data differ: " + ", ".join(f"{card.data} {card.data_revision[:6]}" for card in cards))
    return caveats


def _flipped(pair: Pair) -> bool:
    return pair.whole and abs(pair.passed_b - pair.passed_a) >= FLIP


def _flip(a: JudgingCard, b: JudgingCard, pair: Pair, names: Mapping[str, str]) -> dict[str, Any]:
    gained = pair.passed_b > pair.passed_a
    return {
        "conversation": pair.conversation,
        "axis": pair.axis,
        "a": names[a.judging],
        "b": names[b.judging],
        "direction": "gained" if gained else "lost",
        "better": names[b.judging if gained else a.judging],
        "rate_a": pair.passed_a,
        "rate_b": pair.passed_b,
        "criteria": pair.scored,
        "met_a": pair.met_a,
        "met_b": pair.met_b,
        "judging_a": a.judging,
        "judging_b": b.judging,
        "page": f"conversation?judging={a.judging}&other={b.judging}&conversation={pair.conversation}",
    }


@dataclass(frozen=True)
class ComparisonPlan:
    """What it takes to find a wanted difference."""

    rows: list[dict[str, Any]]
    """For each score, and for APR for several numbers of repeats where that can be told, what is needed."""
    conversations: int
    """Conversations that there are now."""
    between: float | None
    """The variance of the conversations' own differences of pass rates; None where it cannot be split off."""
    within: float | None
    """The variance of one reply's difference around its conversation's."""
    repeats_needed: int | None
    """Repeats that make do with the conversations there are; None where no number does, or it is not known."""


def plan(database: Database, a: str, b: str | None, difference: float) -> ComparisonPlan:
    """How many conversations, or how many repeats of the same ones, a wanted difference needs.

    The variance of APR's difference is (between + within / repeats) / conversations, with both components from
    the repeats that the judgings have. With one judging alone the other system is taken to be as variable, and
    to find other conversations hard than this one does, which asks for more than most pairs of systems need.

    Args:
        a: a judging or run.
        b: another, whose differences from the first are taken as typical; None for the first alone.
        difference: b − a that shall be found, a fraction.

    Raises:
        UsageError: the two cannot be compared, there is nothing to plan by, or the difference is not
            between 0 and 1.
    """
    if not 0 < abs(difference) < 1:
        raise UsageError("The difference to find must lie between 0 and 1, for instance 0.05 for five points.")
    if b is None:
        return _plan_alone(judging_card(database, a), database, difference)
    differences = {row.metric: row.difference for row in compare(database, [a, b]).rows if not row.slice}
    judgings = [judging_card(database, one).judging for one in (a, b)]
    first, second = conversations_of_each(database, judgings, turns_too=False)
    components = _components_of_difference(first, second) if "apr" in differences else None
    n = max((one.n for one in differences.values()), default=0)
    rows = []
    for metric, one in differences.items():
        if metric == "apr" and components is not None:
            rows += _rows_by_repeats(difference, one.n, *components)
        elif one.detectable:
            spread = one.detectable / (student(one.n - 1) + student(one.n - 1, POWER)) * math.sqrt(one.n)
            needed = conversations_needed(difference, spread)
            rows.append(_plan_row(metric, difference, None, needed, one.n, one.detectable))
    if not rows:
        raise UsageError(f"Conversations compared: {n}. So few do not tell how they spread; plan by a larger run.")
    return _plan(rows, difference, n, components)


def reply_noise(database: Database, identifier: str) -> tuple[int, float | None]:
    """The conversations of a judging, and the variance of one reply's passing around its conversation's rate.

    None where it has one reply to each, which tells nothing of that.
    """
    conversations = conversations_of(database, judging_card(database, identifier).judging)
    split = variance_split([(one.passes, one.whole) for one in map(Tallies.of, conversations)])
    return len(conversations), None if split is None else split.within


def _plan_alone(card: JudgingCard, database: Database, difference: float) -> ComparisonPlan:
    split = variance_split(
        [(one.passes, one.whole) for one in map(Tallies.of, conversations_of(database, card.judging))]
    )
    if split is None:
        raise UsageError(
            f"Judging {card.judging} has one reply to each conversation, so that repeats are needed to split its "
            "variance: run it with --repeats 3 first, or name a second judging to plan by."
        )
    components = 2 * split.between, 2 * split.within
    rows = _rows_by_repeats(difference, split.conversations, *components)
    return _plan(rows, difference, split.conversations, components)


def _plan(
    rows: list[dict[str, Any]], difference: float, conversations: int, components: tuple[float, float] | None
) -> ComparisonPlan:
    between, within = components or (None, None)
    needed = repeats_needed(difference, conversations, *components) if components else None
    split = {"between": between, "within": within, "repeats_needed": needed}
    return ComparisonPlan([{**row, **split} for row in rows], conversations, between, within, needed)


def _components_of_difference(
    a: Sequence[JudgedConversation], b: Sequence[JudgedConversation]
) -> tuple[float, float] | None:
    """The variance of differences of pass rates between conversations, and within them for one reply each.

    What replies contribute to the spread of the differences is known from each side's own repeats; the rest
    is the conversations'. None unless both have repeats.
    """
    chosen = {pair.conversation for pair in paired(a, b) if pair.whole}
    sides = [[Tallies.of(one) for one in sorted(side, key=lambda one: one.id) if one.id in chosen] for side in (a, b)]
    splits = [variance_split([(one.passes, one.whole) for one in side]) for side in sides]
    one, other = splits
    n = len(chosen)
    if one is None or other is None:
        return None
    differences = [y.passes / y.whole - x.passes / x.whole for x, y in zip(*sides, strict=True)]
    mean = sum(differences) / n
    spread = sum((value - mean) ** 2 for value in differences) / (n - 1)
    by_replies = sum(
        split.within * sum(1 / tallies.whole for tallies in side) / n
        for split, side in zip((one, other), sides, strict=True)
    )
    return max(0.0, spread - by_replies), one.within + other.within


def _rows_by_repeats(difference: float, n: int, between: float, within: float) -> list[dict[str, Any]]:
    rows = []
    for repeats in PLANNED_REPEATS:
        spread = math.sqrt(between + within / repeats)
        detectable = (LEVEL_Z + POWER_Z) * spread / math.sqrt(n)
        needed = max(1, conversations_needed(difference, spread))
        rows.append(_plan_row("apr", difference, repeats, needed, n, detectable))
    return rows


def _plan_row(
    metric: str, difference: float, repeats: int | None, needed: int, n: int, detectable: float
) -> dict[str, Any]:
    return {
        "metric": metric,
        "difference": abs(difference),
        "repeats": repeats,
        "conversations_needed": needed,
        "conversations_compared": n,
        "detectable_now": detectable,
    }
