"""What the board shows of a judging in numbers: scores, times, and what calls took."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from sqlalchemy import and_, case, func, select
from sqlalchemy.orm import Session

from vivace.store.tables import (
    Attempt,
    Model,
    Reply,
    Score,
)

Number = TypeVar("Number", int, float)
Times = Literal["measured", "submitted"]
"""Whether times were taken here, or are what whoever submitted recorded replies wrote beside them."""


def times_of(model: Model) -> Times:
    return "submitted" if model.is_recorded else "measured"


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


def figures_of(session: Session, judgings: Sequence[str]) -> dict[str, dict[str, Figures]]:
    """Judging → axis (empty for all) → figures."""
    scores: dict[str, dict[str, dict[str, Score]]] = defaultdict(lambda: defaultdict(dict))
    for score in session.scalars(select(Score).where(Score.judging_id.in_(judgings))):
        scores[str(score.judging_id)][score.slice][score.metric] = score
    result: dict[str, dict[str, Figures]] = {judging: {} for judging in judgings}
    for judging, slices in scores.items():
        for name, metrics in slices.items():
            apr, ars, coverage = metrics["apr"], metrics["ars"], metrics["coverage"]
            result[judging][name] = Figures(
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
    return result


def _repeats_and_votes(metrics: dict[str, Score]) -> dict[str, float | None]:
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


def median_latencies(session: Session, runs: set[str]) -> dict[str, tuple[float | None, float | None]]:
    times: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    query = select(Reply.run_id, Reply.ttft_s, Reply.total_s).where(Reply.run_id.in_(runs))
    for run, ttft, total in session.execute(query):
        if ttft is not None:
            times[run][0].append(ttft)
        if total is not None:
            times[run][1].append(total)
    return {
        run: (statistics.median(ttft) if ttft else None, statistics.median(total) if total else None)
        for run, (ttft, total) in times.items()
    }


def accounts_of(session: Session, runs: set[str]) -> dict[tuple[str, str | None], dict[str, Accounting]]:
    """(run, judging or None for what made the replies) → stage → its calls."""
    query = (
        select(
            Attempt.run_id, Attempt.judging_id, Attempt.stage,
            func.count(), func.count(Attempt.error), func.sum(case((Attempt.cached, 1), else_=0)),
            func.sum(Attempt.input_tokens), func.sum(Attempt.output_tokens), func.sum(Attempt.input_audio_tokens),
            func.sum(Attempt.audio_seconds), func.sum(Attempt.cost_usd),
            func.sum(case((and_(Attempt.error.is_(None), ~Attempt.cached, Attempt.cost_usd.is_(None)), 1), else_=0)),
        )
        .where(Attempt.run_id.in_(runs))
        .group_by(Attempt.run_id, Attempt.judging_id, Attempt.stage)
        .order_by(Attempt.stage)
    )  # fmt: skip
    accounts: dict[tuple[str, str | None], dict[str, Accounting]] = defaultdict(dict)
    for run, judging, stage, *sums in session.execute(query):
        accounts[run, judging][stage] = Accounting(*sums)
    return accounts
