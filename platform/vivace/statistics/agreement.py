"""How far can a judge be trusted? Its agreement with people's labels, and scores corrected by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vivace.statistics.intervals import LEVEL_Z, clustered_ratio, student

Numbers = NDArray[np.float64]

TUNED_FROM = 10
"""Labelled conversations; fewer do not tell how good a judge is, so it is taken at its word (weight 1)."""


@dataclass(frozen=True)
class Confusion:
    """How two raters' answers on the same criteria fall together: a judge's and a person's, mostly."""

    both: int
    """Met for the judge and for the labels."""
    judge_only: int
    """Met for the judge alone."""
    label_only: int
    """Met for the labels alone."""
    neither: int

    @property
    def n(self) -> int:
        """Criteria that both have answered."""
        return self.both + self.judge_only + self.label_only + self.neither

    @property
    def cells(self) -> tuple[int, int, int, int]:
        """The four counts in the order of the fields."""
        return self.both, self.judge_only, self.label_only, self.neither

    def __add__(self, other: Confusion) -> Confusion:
        """Both tables in one."""
        return Confusion(*(a + b for a, b in zip(self.cells, other.cells, strict=True)))


def confusion(pairs: Sequence[tuple[bool | None, bool | None]]) -> Confusion:
    """The table of (judge, label) pairs; a pair with None on either side does not count."""
    counts = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
    for judge, label in pairs:
        if judge is not None and label is not None:
            counts[judge, label] += 1
    return Confusion(*counts.values())


@dataclass(frozen=True)
class IntervalEstimate:
    """A figure with its 95 % interval; None where the data cannot say."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class RaterAgreement:
    """How two raters agree; intervals are by conversation, whose criteria are not independent."""

    confusion: Confusion
    conversations: int
    """Those with at least one criterion that both have answered."""
    kappa: IntervalEstimate
    kappa_independent: IntervalEstimate
    """With the interval that publications give, as if criteria were independent; it is too narrow."""
    macro_f1: IntervalEstimate
    accuracy: IntervalEstimate


def agreement(conversations: Sequence[Confusion], *, draws: int = 2000, seed: int = 0) -> RaterAgreement:
    """Cohen's κ, macro-F1 and accuracy over all criteria of these conversations.

    Accuracy has the interval of a ratio by conversation (`clustered_ratio`). The others' are percentiles of a
    bootstrap over conversations (Efron & Tibshirani 1993, section 13.3), expanded to what Student's t and an unbiased
    variance make of few (Hesterberg 2015, arXiv 1411.5279, section 4.3). They are None where every draw gives the
    same figure: labels without any disagreement do not show an infallible judge.

    Args:
        conversations: one table each; those without a shared criterion do not count.
        draws: resamples.
        seed: of the resampling, so that the same labels give the same figures.
    """
    tables = [table for table in conversations if table.n]
    whole = sum(tables, Confusion(0, 0, 0, 0))
    k = len(tables)
    resampled, tail = np.zeros((0, 4)), 0.0
    if k > 1:
        from scipy import special

        tail = float(special.ndtr(-math.sqrt(k / (k - 1)) * student(k - 1)))
        times = np.random.default_rng(seed).multinomial(k, np.full(k, 1 / k), size=draws)
        resampled = (times @ np.array([table.cells for table in tables])).astype(float)

    def estimate(figure: Callable[[Numbers], Numbers]) -> IntervalEstimate:
        value = float(figure(np.array([whole.cells], dtype=float))[0])
        drawn = figure(resampled)
        drawn = drawn[~np.isnan(drawn)]
        if math.isnan(value) or drawn.size == 0 or np.ptp(drawn) == 0:
            return IntervalEstimate(None if math.isnan(value) else value)
        low, high = np.quantile(drawn, [tail, 1 - tail])
        return IntervalEstimate(value, float(low), float(high))

    return RaterAgreement(whole, k, estimate(_kappa), cohen_kappa(whole), estimate(_macro_f1), _accuracy_of(tables))


def _accuracy_of(tables: Sequence[Confusion]) -> IntervalEstimate:
    """The share of equal answers, with the interval of a ratio by conversation; none where all are alike."""
    equal, n = sum(table.both + table.neither for table in tables), sum(table.n for table in tables)
    interval = clustered_ratio([(table.both + table.neither, table.n) for table in tables]) if 0 < equal < n else None
    value = equal / n if n else None
    return IntervalEstimate(value) if interval is None else IntervalEstimate(value, interval.low, interval.high)


def cohen_kappa(table: Confusion) -> IntervalEstimate:
    """Cohen's κ with its asymptotic interval for independent criteria (Fleiss, Cohen & Everitt 1969).

    κ = (p_o − p_e) / (1 − p_e), the agreement beyond what the two raters' rates alone would give. None where
    both gave one and the same answer throughout, or there is nothing: chance then explains everything.
    """
    value = float(_kappa(np.array([table.cells], dtype=float))[0])
    if math.isnan(value):
        return IntervalEstimate(None)
    n = table.n
    both, judge_only, label_only, neither = (count / n for count in table.cells)
    judge, label = both + judge_only, both + label_only
    expected = judge * label + (1 - judge) * (1 - label)
    left = 1 - value
    agreeing = both * (1 - (judge + label) * left) ** 2 + neither * (1 - (2 - judge - label) * left) ** 2
    differing = left**2 * (judge_only * (label + 1 - judge) ** 2 + label_only * (judge + 1 - label) ** 2)
    variance = (agreeing + differing - (value - expected * left) ** 2) / ((1 - expected) ** 2 * n)
    half = LEVEL_Z * math.sqrt(max(0.0, variance))
    return IntervalEstimate(value, value - half, value + half)


@dataclass(frozen=True)
class ConstantJudge:
    """The judge that always gives the labels' commoner answer: what agreement is worth less than nothing below.

    Its κ is 0 by definition.
    """

    answer: bool
    accuracy: float
    macro_f1: float


def constant_judge(table: Confusion) -> ConstantJudge | None:
    """The constant judge on these labels; None where there are none."""
    if table.n == 0:
        return None
    met = table.both + table.label_only
    answer = 2 * met >= table.n
    alike = Confusion(met, table.n - met, 0, 0) if answer else Confusion(0, 0, met, table.n - met)
    cells = np.array([alike.cells], dtype=float)
    return ConstantJudge(answer, float(_accuracy(cells)[0]), float(_macro_f1(cells)[0]))


def _kappa(cells: Numbers) -> Numbers:
    both, judge_only, label_only, neither = cells.T
    with np.errstate(invalid="ignore", divide="ignore"):
        n = cells.sum(axis=1)
        judge, label = (both + judge_only) / n, (both + label_only) / n
        expected = judge * label + (1 - judge) * (1 - label)
        return np.asarray(((both + neither) / n - expected) / (1 - expected))


def _macro_f1(cells: Numbers) -> Numbers:
    """The mean of the F1 of "met" and of "not met"; an answer that neither rater ever gave is left out."""
    both, judge_only, label_only, neither = cells.T
    with np.errstate(invalid="ignore", divide="ignore"):
        met = 2 * both / (2 * both + judge_only + label_only)
        not_met = 2 * neither / (2 * neither + judge_only + label_only)
    return np.asarray(np.where(np.isnan(met), not_met, np.where(np.isnan(not_met), met, (met + not_met) / 2)))


def _accuracy(cells: Numbers) -> Numbers:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((cells[:, 0] + cells[:, 3]) / cells.sum(axis=1))


@dataclass(frozen=True)
class PartlyLabelled:
    """One conversation's verdicts, and the labels on a part of the same criteria.

    For ARS the counts are criteria; for APR each is 0 or 1, as the conversation itself is the unit.
    """

    met: int
    """Met for the judge, of all it has scored."""
    scored: int
    labelled: int = 0
    """Those that the judge has scored and people have labelled."""
    labelled_met_judge: int = 0
    labelled_met: int = 0


@dataclass(frozen=True)
class CorrectedRate:
    """A rate by the judge, by the labels alone, and by both together."""

    judged: float
    """By the judge, on everything: precise, and biased as the judge is."""
    labelled: float
    """By the labels alone: unbiased, and of few conversations."""
    corrected: float
    low: float | None
    high: float | None
    weight: float
    """How much the judge counts beside the labels: 0 for a judge that tells nothing, 1 for a good one."""
    conversations: int
    """Those with labels."""


def prediction_powered(conversations: Sequence[PartlyLabelled]) -> CorrectedRate | None:
    """A rate with the judge's bias taken out by labels on a random part of the conversations.

    Prediction-powered inference (Angelopoulos, Bates, Fannjiang, Jordan & Zrnic 2023, Science 382:669) with
    the weight λ of smallest variance (PPI++, Angelopoulos, Duchi & Zrnic 2023, arXiv 2311.01453), so that a
    useless judge is never worse than none: corrected = labelled + λ·(judged on all − judged where labelled).
    Each of the three is a ratio of sums, linearised by conversation; a labelled conversation's terms are added
    up before they are squared, since it is one of all. Student's t with labelled conversations − 1 degrees of
    freedom. Half a disagreement each way is added (as Agresti & Min 2005 do for pairs): a few labels that all
    agree do not show a judge without error.

    The labelled conversations must be a random part; None where there are none. Low and high are None for
    fewer than two.
    """
    counts = np.array([[c.met, c.scored, c.labelled_met, c.labelled_met_judge, c.labelled] for c in conversations])
    met, scored, label_met, judge_met, labelled = counts.astype(float).reshape(-1, 5).T
    total, part, k = scored.sum(), labelled.sum(), int((labelled > 0).sum())
    if part == 0:
        return None
    judged, by_label, by_judge = met.sum() / total, label_met.sum() / part, judge_met.sum() / part
    of_label = (label_met - by_label * labelled) / part
    of_judge = (met - judged * scored) / total - (judge_met - by_judge * labelled) / part
    squares = float(of_judge @ of_judge)
    tuned = k >= TUNED_FROM and squares > 0
    weight = min(1.0, max(0.0, -float(of_label @ of_judge) / squares)) if tuned else 1.0
    value = float(by_label + weight * (judged - by_judge))
    low = high = None
    if k > 1:
        influence = of_label + weight * of_judge
        variance = k / (k - 1) * float(influence @ influence) + 0.5 / part**2
        half = student(k - 1) * math.sqrt(variance)
        low, high = max(0.0, value - half), min(1.0, value + half)
    return CorrectedRate(float(judged), float(by_label), min(1.0, max(0.0, value)), low, high, weight, k)


@dataclass(frozen=True)
class VoteAgreement:
    """How far several votes on the same criteria agree with each other."""

    agreement: float
    """The chance that two votes on a criterion are alike, the mean over criteria."""
    low: float | None
    high: float | None
    """Its 95 % interval, linearised by conversation."""
    kappa: float | None
    """Fleiss' κ, the agreement beyond what the votes' rates alone would give; None where all are one answer."""
    pairs: int
    """Pairs of votes."""
    alike: int
    """Those of them that are alike."""
    criteria: int
    """Criteria with two votes or more."""


def vote_agreement(conversations: Sequence[Sequence[tuple[int, int]]]) -> VoteAgreement | None:
    """Agreement between votes (Fleiss 1971), without their decision.

    Each criterion counts alike, however many of its votes were given. None where no criterion has two.

    Args:
        conversations: for each, (votes for met, votes) of its criteria.
    """
    clusters = []
    for criteria in conversations:
        shared = [(met, votes) for met, votes in criteria if votes > 1]
        clusters.append((sum(_alike(met, votes) / math.comb(votes, 2) for met, votes in shared), len(shared)))
    counted = [(met, votes) for criteria in conversations for met, votes in criteria if votes > 1]
    if not counted:
        return None
    observed = sum(alike for alike, _ in clusters) / len(counted)
    rate = sum(met for met, _ in counted) / sum(votes for _, votes in counted)
    expected = rate**2 + (1 - rate) ** 2
    interval = clustered_ratio(clusters)
    return VoteAgreement(
        agreement=observed,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        kappa=(observed - expected) / (1 - expected) if expected < 1 else None,
        pairs=sum(math.comb(votes, 2) for _, votes in counted),
        alike=sum(_alike(met, votes) for met, votes in counted),
        criteria=len(counted),
    )


def _alike(met: int, votes: int) -> int:
    return math.comb(met, 2) + math.comb(votes - met, 2)
