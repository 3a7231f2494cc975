"""APR and ARS from recorded verdicts: three-valued, with coverage, bounds and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vivace.statistics.intervals import clustered_ratio, wilson


@dataclass(frozen=True)
class Tally:
    """How the criteria of one conversation came out."""

    axis: str
    met: int
    not_met: int
    unscored: int

    @property
    def criteria(self) -> int:
        """All of them."""
        return self.met + self.not_met + self.unscored


@dataclass(frozen=True)
class ScoreRow:
    """One figure: a rate with its interval, and where it could lie if all unscored went one way.

    However the unscored verdicts fall out, the final figure lies between `minimum` and `maximum`. So does
    `value` already, with one exception: APR may exceed its maximum where a conversation has failed for
    certain and lacks verdicts besides, since it then counts in the bounds and not in APR.
    """

    metric: str
    slice: str
    value: float | None
    low: float | None
    high: float | None
    minimum: float | None
    maximum: float | None
    count: int
    n: int
    unscored: int


def score_conversations(tallies: Sequence[Tally]) -> list[ScoreRow]:
    """APR, ARS and coverage, overall and per axis.

    APR = conversations with every criterion met / conversations with every criterion scored;
    ARS = criteria met / criteria scored, pooled; coverage = criteria scored / criteria.
    Intervals: Wilson for APR, the ratio estimator linearised by conversation for ARS. Unscored criteria
    count on neither side; `minimum` and `maximum` say what they could do. (arXiv 2512.14865 defines APR
    over conversations and ARS pooled: facts checked on published figures.)

    Args:
        tallies: one for each conversation planned, also where nothing was scored.
    """
    rows: list[ScoreRow] = []
    for name in ("", *sorted({tally.axis for tally in tallies})):
        rows += _slice_scores(name, [tally for tally in tallies if name in ("", tally.axis)])
    return rows


def _slice_scores(name: str, tallies: Sequence[Tally]) -> list[ScoreRow]:
    n = len(tallies)
    whole = [tally for tally in tallies if tally.unscored == 0]
    passes = sum(tally.not_met == 0 for tally in whole)
    could_pass = sum(tally.not_met == 0 for tally in tallies)
    criteria = sum(tally.criteria for tally in tallies)
    met = sum(tally.met for tally in tallies)
    scored = sum(tally.met + tally.not_met for tally in tallies)
    apr_interval = wilson(passes, len(whole))
    ars_interval = clustered_ratio([(tally.met, tally.met + tally.not_met) for tally in tallies])
    return [
        ScoreRow(
            metric="apr",
            slice=name,
            value=passes / len(whole) if whole else None,
            low=apr_interval.low if apr_interval else None,
            high=apr_interval.high if apr_interval else None,
            minimum=passes / n if n else None,
            maximum=could_pass / n if n else None,
            count=passes,
            n=n,
            unscored=n - len(whole),
        ),
        ScoreRow(
            metric="ars",
            slice=name,
            value=met / scored if scored else None,
            low=ars_interval.low if ars_interval else None,
            high=ars_interval.high if ars_interval else None,
            minimum=met / criteria if criteria else None,
            maximum=(met + criteria - scored) / criteria if criteria else None,
            count=met,
            n=criteria,
            unscored=criteria - scored,
        ),
        ScoreRow(
            metric="coverage",
            slice=name,
            value=scored / criteria if criteria else None,
            low=None,
            high=None,
            minimum=None,
            maximum=None,
            count=scored,
            n=criteria,
            unscored=criteria - scored,
        ),
    ]
