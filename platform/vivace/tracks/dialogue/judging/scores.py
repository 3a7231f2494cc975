"""APR and ARS from recorded verdicts: three-valued, over repeats, with coverage, bounds, intervals and variances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vivace.statistics.agreement import vote_agreement
from vivace.statistics.intervals import clustered_proportion, clustered_ratio
from vivace.statistics.repeats import variance_split
from vivace.store.verdicts import JudgedConversation


@dataclass(frozen=True)
class Tally:
    """How the criteria of one conversation came out for one reply."""

    met: int
    not_met: int
    unscored: int

    @property
    def criteria(self) -> int:
        """All of them."""
        return self.met + self.not_met + self.unscored

    @property
    def scored(self) -> int:
        """Those with a verdict."""
        return self.met + self.not_met

    @staticmethod
    def of(verdicts: Iterable[bool | None]) -> Tally:
        """The tally of one reply's verdicts."""
        listed = list(verdicts)
        return Tally(listed.count(True), listed.count(False), listed.count(None))


@dataclass(frozen=True)
class Tallies:
    """One conversation that was planned: a tally for each reply to it, recorded or not."""

    axis: str
    replies: tuple[Tally, ...]

    @staticmethod
    def of(conversation: JudgedConversation) -> Tallies:
        """The tallies of a judged conversation."""
        return Tallies(conversation.axis, tuple(Tally.of(met.values()) for met in conversation.replies))

    @property
    def whole(self) -> int:
        """Replies with every criterion scored."""
        return sum(reply.unscored == 0 for reply in self.replies)

    @property
    def passes(self) -> int:
        """Replies with every criterion met."""
        return sum(reply.unscored == reply.not_met == 0 for reply in self.replies)

    @property
    def possible_passes(self) -> int:
        """Replies without a criterion known not to be met."""
        return sum(reply.not_met == 0 for reply in self.replies)


@dataclass(frozen=True)
class ScoreRow:
    """One figure: a rate with its interval, and where it could lie if all unscored went one way.

    However the unscored verdicts fall out, the final figure lies between `minimum` and `maximum`. So does
    `value` already, with one exception: APR may exceed its maximum where a reply has failed for certain and
    lacks verdicts besides, since it then counts in the bounds and not in APR.
    """

    metric: str
    slice: str
    value: float | None
    count: int | None
    n: int
    unscored: int = 0
    low: float | None = None
    high: float | None = None
    minimum: float | None = None
    maximum: float | None = None


def score_conversations(conversations: Sequence[Tallies]) -> list[ScoreRow]:
    """APR, ARS and coverage, overall and per axis.

    APR is the mean over conversations of the share of their replies that pass, of those with every criterion
    scored; each conversation counts alike. With one reply to each it is conversations with every criterion
    met / conversations with every criterion scored. ARS = criteria met / criteria scored, pooled over all
    replies; coverage = criteria scored / criteria. Intervals are by conversation: Wilson for APR, at the
    effective sample size where there are repeats, and the ratio estimator for ARS. Unscored criteria
    count on neither side; `minimum` and `maximum` say what they could do. (arXiv 2512.14865 defines APR
    over conversations and ARS pooled: facts checked on published figures.)

    With repeats there are two rows more, the variance of APR split between conversations and the replies to
    one of them: `apr_between`, whose share of APR's squared standard error is value / n, and `apr_within`,
    whose share is value / count, with n conversations and count replies.

    Args:
        conversations: every one planned, also where nothing was scored.
    """
    rows: list[ScoreRow] = []
    for name in ("", *sorted({conversation.axis for conversation in conversations})):
        rows += slice_scores(name, [one for one in conversations if name in ("", one.axis)])
    return rows


def slice_scores(name: str, conversations: Sequence[Tallies]) -> list[ScoreRow]:
    """The figures of some conversations; see `score_conversations`.

    In the rows of APR n is the conversations planned, count the replies that pass and unscored the replies
    with a criterion unscored; in the others all three count criteria, once for each reply.
    """
    return [_apr(name, conversations), *_ars_and_coverage(name, conversations), *_variances(name, conversations)]


def _apr(name: str, conversations: Sequence[Tallies]) -> ScoreRow:
    n = len(conversations)
    planned = sum(len(one.replies) for one in conversations)
    tried = [one for one in conversations if one.whole]
    passes = sum(one.passes for one in conversations)
    interval = clustered_proportion([(one.passes, one.whole) for one in conversations])
    return ScoreRow(
        metric="apr",
        slice=name,
        value=sum(one.passes / one.whole for one in tried) / len(tried) if tried else None,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        minimum=passes / planned if planned else None,
        maximum=sum(one.possible_passes for one in conversations) / planned if planned else None,
        count=passes,
        n=n,
        unscored=planned - sum(one.whole for one in conversations),
    )


def _ars_and_coverage(name: str, conversations: Sequence[Tallies]) -> list[ScoreRow]:
    clusters = [
        (sum(reply.met for reply in one.replies), sum(reply.scored for reply in one.replies)) for one in conversations
    ]
    criteria = sum(reply.criteria for one in conversations for reply in one.replies)
    met, scored = sum(met for met, _ in clusters), sum(scored for _, scored in clusters)
    interval = clustered_ratio(
        [
            (met / len(one.replies), scored / len(one.replies))
            for one, (met, scored) in zip(conversations, clusters, strict=True)
        ]
    )
    ars = ScoreRow(
        metric="ars",
        slice=name,
        value=met / scored if scored else None,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        minimum=met / criteria if criteria else None,
        maximum=(met + criteria - scored) / criteria if criteria else None,
        count=met,
        n=criteria,
        unscored=criteria - scored,
    )
    coverage = ScoreRow(
        "coverage", name, scored / criteria if criteria else None, scored, criteria, criteria - scored
    )
    return [ars, coverage]


def _variances(name: str, conversations: Sequence[Tallies]) -> list[ScoreRow]:
    split = variance_split([(one.passes, one.whole) for one in conversations])
    if split is None:
        return []
    return [
        ScoreRow(metric, name, value, split.replies, split.conversations)
        for metric, value in (("apr_between", split.between), ("apr_within", split.within))
    ]


def score_votes(axes: Mapping[str, str], votes: Mapping[str, Sequence[tuple[int, int]]]) -> list[ScoreRow]:
    """How far the single votes agree, overall and per axis: their pairwise agreement, and Fleiss' κ.

    In the row of the agreement count is pairs that are alike and n all pairs; in that of κ n is criteria.

    Args:
        axes: planned conversation → its axis.
        votes: conversation → (votes for met, votes given) for each criterion and reply.
    """
    rows = []
    for name in ("", *sorted(set(axes.values()))):
        agreement = vote_agreement([given for key, given in votes.items() if name in ("", axes[key])])
        if agreement is not None:
            rows += [
                ScoreRow(
                    "vote_agreement",
                    name,
                    agreement.agreement,
                    agreement.alike,
                    agreement.pairs,
                    low=agreement.low,
                    high=agreement.high,
                ),
                ScoreRow("vote_kappa", name, agreement.kappa, agreement.alike, agreement.criteria),
            ]
    return rows
