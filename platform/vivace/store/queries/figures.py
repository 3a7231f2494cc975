"""What the board shows of a judging in numbers: scores, times, and what calls took."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from vivace.store.tables import Model, Score

SUMS = ("input_tokens", "output_tokens", "input_audio_tokens", "audio_seconds", "cost_usd")
"""Metrics of a judging's calls that are sums over them; attempts have columns of the same names."""
CALLS = ("calls", "cached_calls", *SUMS)
"""Metrics of the calls of one stage, whose name is the slice."""
TIMES = ("ttft_median_s", "total_median_s")
"""Metrics of the times that replies took."""
HEARD = ("word_error_rate", "ear_median_s")
"""Metrics of what the ear of a cascade heard, and how long it took for a reply; of other systems there are none."""

PRICE = "price_usd"
"""The metric of what a reply and its verdicts cost; there is none where the price of some call is not known."""
KEPT = "kept_share"
"""The metric of how much of prompts went through a model's last layer, where they are pruned."""

Number = TypeVar("Number", int, float)
Ends = tuple[float | None, float | None]
"""Of an interval."""
Times = Literal["measured", "submitted"]
"""Whether times were taken here, or are what whoever submitted recorded replies wrote beside them."""


def times_of(model: Model) -> Times:
    """Who took the times of a model's replies."""
    return "submitted" if model.recorded else "measured"


@dataclass(frozen=True)
class Figures:
    """The scores of one slice of a judging: all of it, or one axis. Rates are fractions from 0 to 1.

    A rate is None where nothing was scored; an interval where it cannot be computed.
    """

    n: int
    """Conversations planned."""
    criteria: int
    """Criteria planned, once for each reply."""
    passes: int
    """Replies with every criterion met: conversations, or with repeats of n × repeats replies."""
    met: int
    """Criteria met."""
    unscored: int
    """Criteria without a verdict."""
    coverage: float | None
    apr: float | None
    apr_low: float | None
    apr_high: float | None
    apr_min: float | None
    apr_max: float | None
    ars: float | None
    ars_low: float | None
    ars_high: float | None
    ars_min: float | None
    ars_max: float | None
    apr_between: float | None = None
    """The variance of pass rates between conversations; None without repeats."""
    apr_within: float | None = None
    """The variance between replies to one conversation."""
    apr_between_error: float | None = None
    """The standard error of APR that the choice of conversations contributes."""
    apr_within_error: float | None = None
    """The standard error that the choice of replies contributes."""
    vote_agreement: float | None = None
    """The chance that two single votes on a criterion are alike; None where each was judged once."""
    vote_agreement_low: float | None = None
    vote_agreement_high: float | None = None
    vote_kappa: float | None = None
    """Fleiss' κ of the single votes."""


@dataclass(frozen=True)
class Accounting:
    """What calls took, failed ones included. A sum leaves out the calls of which the figure is not known."""

    calls: int
    failed: int
    cached: int
    """Answered from the response cache, so that nothing was sent."""
    input_tokens: int | None
    output_tokens: int | None
    input_audio_tokens: int | None
    audio_seconds: float | None
    cost_usd: float | None
    unpriced: int
    """Calls that were answered and whose cost is not known, which `cost_usd` leaves out."""

    @staticmethod
    def total(parts: Sequence[Accounting]) -> Accounting:
        """All parts together; None stays only where no part is known."""
        return Accounting(
            calls=sum(part.calls for part in parts),
            failed=sum(part.failed for part in parts),
            cached=sum(part.cached for part in parts),
            input_tokens=_sum_of_known(part.input_tokens for part in parts),
            output_tokens=_sum_of_known(part.output_tokens for part in parts),
            input_audio_tokens=_sum_of_known(part.input_audio_tokens for part in parts),
            audio_seconds=_sum_of_known(part.audio_seconds for part in parts),
            cost_usd=_sum_of_known(part.cost_usd for part in parts),
            unpriced=sum(part.unpriced for part in parts),
        )


def _sum_of_known(values: Iterable[Number | None]) -> Number | None:
    known = [value for value in values if value is not None]
    return sum(known[1:], known[0]) if known else None


@dataclass(frozen=True)
class EarFigures:
    """How well the ear of a cascade heard the user turns, against the set's transcripts.

    Attributes:
        word_error_rate: words replaced, left out or put in, for each word said; None where nothing was heard.
        low, high: its interval, by conversation.
        words: said in the turns that were heard.
        not_heard: turns of which the ear made nothing.
        median_s: seconds that it took for a reply, all turns together.
    """

    word_error_rate: float | None
    low: float | None
    high: float | None
    words: int
    not_heard: int
    median_s: float | None


@dataclass(frozen=True)
class Scores:
    """All that is stored of a judging in numbers.

    Attributes:
        slices: axis, empty for all → figures.
        stages: stage → its calls: those that made the replies, in the order of the alphabet, and those that judged.
        ttft_median_s: of the replies, to their first token; None where none is known.
        total_median_s: of the replies, to their end.
        ttft_interval, total_interval: of these medians; None where so few times tell none.
        hearing: of a cascade, how well its ear heard; None of other systems.
        kept_share: the mean part of a prompt's tokens that went through the model's last layer; None where prompts
            are read whole.
        price_interval: of the mean price of a reply with its verdicts; None where that of some call is not known.
    """

    slices: Mapping[str, Figures]
    stages: Mapping[str, Accounting]
    ttft_median_s: float | None
    total_median_s: float | None
    ttft_interval: Ends = (None, None)
    total_interval: Ends = (None, None)
    hearing: EarFigures | None = None
    kept_share: float | None = None
    price_interval: Ends = (None, None)


def scores_of(session: Session, judgings: Sequence[str]) -> dict[str, Scores]:
    """Judging → what is stored of it in numbers."""
    stored: dict[str, dict[str, dict[str, Score]]] = defaultdict(lambda: defaultdict(dict))
    for score in session.scalars(select(Score).where(Score.judging_id.in_(judgings)).order_by(Score.id)):
        stored[str(score.judging_id)][score.slice][score.metric] = score
    return {judging: _scores(stored[judging]) for judging in judgings}


def _scores(slices: Mapping[str, Mapping[str, Score]]) -> Scores:
    whole = slices.get("", {})
    ttft, total = (whole.get(metric) for metric in TIMES)
    return Scores(
        slices={name: _figures(metrics) for name, metrics in slices.items() if "apr" in metrics},
        stages={name: _accounting(metrics) for name, metrics in slices.items() if "calls" in metrics},
        ttft_median_s=None if ttft is None else ttft.value,
        total_median_s=None if total is None else total.value,
        ttft_interval=(None, None) if ttft is None else (ttft.low, ttft.high),
        total_interval=(None, None) if total is None else (total.low, total.high),
        hearing=_hearing(whole),
        kept_share=whole[KEPT].value if KEPT in whole else None,
        price_interval=(whole[PRICE].low, whole[PRICE].high) if PRICE in whole else (None, None),
    )


def _hearing(whole: Mapping[str, Score]) -> EarFigures | None:
    errors, took = (whole.get(metric) for metric in HEARD)
    if errors is None or took is None:
        return None
    return EarFigures(errors.value, errors.low, errors.high, errors.n, errors.unscored, took.value)


def _figures(metrics: Mapping[str, Score]) -> Figures:
    apr, ars, coverage = metrics["apr"], metrics["ars"], metrics["coverage"]
    return Figures(
        n=apr.n,
        criteria=ars.n,
        passes=apr.count or 0,
        met=ars.count or 0,
        unscored=coverage.unscored,
        coverage=coverage.value,
        apr=apr.value,
        apr_low=apr.low,
        apr_high=apr.high,
        apr_min=apr.minimum,
        apr_max=apr.maximum,
        ars=ars.value,
        ars_low=ars.low,
        ars_high=ars.high,
        ars_min=ars.minimum,
        ars_max=ars.maximum,
        **_repeats_and_votes(metrics),
    )


def _accounting(metrics: Mapping[str, Score]) -> Accounting:
    calls, cached = metrics["calls"], metrics["cached_calls"]
    return Accounting(
        calls=calls.n,
        failed=calls.unscored,
        cached=cached.count or 0,
        input_tokens=_whole(metrics["input_tokens"].value),
        output_tokens=_whole(metrics["output_tokens"].value),
        input_audio_tokens=_whole(metrics["input_audio_tokens"].value),
        audio_seconds=metrics["audio_seconds"].value,
        cost_usd=metrics["cost_usd"].value,
        unpriced=metrics["cost_usd"].unscored,
    )


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _repeats_and_votes(metrics: Mapping[str, Score]) -> dict[str, float | None]:
    """The figures that only repeats or several votes give."""
    values: dict[str, float | None] = {}
    between, within = metrics.get("apr_between"), metrics.get("apr_within")
    if between is not None and within is not None and between.value is not None and within.value is not None:
        values |= {
            "apr_between": between.value,
            "apr_within": within.value,
            "apr_between_error": math.sqrt(between.value / between.n),
            "apr_within_error": math.sqrt(within.value / (within.count or 1)),
        }
    if (agreement := metrics.get("vote_agreement")) is not None:
        values |= {
            "vote_agreement": agreement.value,
            "vote_agreement_low": agreement.low,
            "vote_agreement_high": agreement.high,
            "vote_kappa": metrics["vote_kappa"].value,
        }
    return values
