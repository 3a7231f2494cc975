"""What a judging's calls and replies took, as rows of its scores, so that a board has not to read every call."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from sqlalchemy import ColumnElement, and_, case, delete, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from vivace.statistics.intervals import clustered_ratio, mean_interval, median_interval
from vivace.store.queries.figures import CALLS, HEARD, KEPT, PRICE, SUMS, TIMES
from vivace.store.tables import Attempt, Judging, Reply, Run, Score
from vivace.tracks.dialogue.judging.scores import ScoreRow


def effort_rows(session: Session, judging: Judging) -> Iterator[ScoreRow]:
    """By stage the calls that made the replies and those that judged them, and over all the median times of replies.

    A reply's mean price is told where that of every call is known, with its interval by conversation. Medians have
    the interval that the order of the times gives. Where prompts were pruned also the mean part that was
    kept. Of a cascade also how well its ear heard: errors over
    words, of the turns that it made something of; n is words, and unscored are the turns of which it made nothing.

    In these rows n is calls (of times, replies). Unscored are the calls that failed (in `calls`), those that were
    answered and do not say how much it was (in sums), and the replies without a time.
    """
    yield from _calls(session, judging)
    yield from _price(session, judging)
    yield from _times(session, judging.run_id)
    yield from _hearing(session, judging.run_id)
    yield from _kept(session, judging.run_id)


def renew_effort(session: Session, run_id: str) -> None:
    """Write these rows again for all ended judgings of a run: calls for one of them may have made replies for all."""
    for judging in session.scalars(select(Judging).where(Judging.run_id == run_id, Judging.status == "ended")):
        metrics = (*CALLS, *TIMES, *HEARD, KEPT, PRICE)
        session.execute(delete(Score).where(Score.judging_id == judging.id, Score.metric.in_(metrics)))
        session.add_all(Score(judging_id=judging.id, **vars(row)) for row in effort_rows(session, judging))


def _price(session: Session, judging: Judging) -> Iterator[ScoreRow]:
    """What a reply and its verdicts cost; calls that were about no conversation are shared by all."""
    query = (
        select(Attempt.conversation_id, func.sum(Attempt.cost_usd), _untold(Attempt.cost_usd))
        .where(_of(judging))
        .group_by(Attempt.conversation_id)
    )
    told = session.execute(query).all()
    if any(untold for _, _, untold in told) or all(cost is None for _, cost, _ in told):
        return
    run = session.get_one(Run, judging.run_id)
    costs = {row_id: cost or 0.0 for row_id, cost, _ in told}
    of_none = costs.pop(None, 0.0)
    planned = len(run.items)
    # Conversations for which nothing was asked cost nothing.
    means = [cost / run.repeats for cost in costs.values()] + [0.0] * (planned - len(costs))
    shared = of_none / (planned * run.repeats)
    interval = mean_interval(means)
    yield ScoreRow(
        PRICE, "", fmean(means) + shared, None, planned * run.repeats,
        low=None if interval is None else max(0.0, interval.low) + shared,
        high=None if interval is None else interval.high + shared,
    )  # fmt: skip


def _of(judging: Judging) -> ColumnElement[bool]:
    """Of calls: those that made the replies, and those of this judging."""
    return and_(Attempt.run_id == judging.run_id, or_(Attempt.judging_id.is_(None), Attempt.judging_id == judging.id))


def _calls(session: Session, judging: Judging) -> Iterator[ScoreRow]:
    columns = [getattr(Attempt, name) for name in SUMS]
    query = (
        select(
            Attempt.stage, func.count(), func.count(Attempt.error), func.sum(case((Attempt.cached, 1), else_=0)),
            *(func.sum(column) for column in columns), *(_untold(column) for column in columns),
        )
        .where(_of(judging))
        .group_by(Attempt.judging_id, Attempt.stage)
        .order_by(Attempt.judging_id.is_not(None), Attempt.stage)
    )  # fmt: skip
    for stage, calls, failed, cached, *told in session.execute(query):
        yield ScoreRow("calls", stage, calls, calls - failed, calls, failed)
        yield ScoreRow("cached_calls", stage, cached, cached, calls)
        for name, total, untold in zip(SUMS, told[: len(SUMS)], told[len(SUMS) :], strict=True):
            yield ScoreRow(name, stage, total, None, calls, untold)


def _untold(column: InstrumentedAttribute[Any]) -> ColumnElement[int]:
    """Calls that were answered and not from the cache, and of which this is not known."""
    return func.sum(case((and_(Attempt.error.is_(None), ~Attempt.cached, column.is_(None)), 1), else_=0))


def _times(session: Session, run_id: str) -> Iterator[ScoreRow]:
    replies = session.execute(select(Reply.ttft_s, Reply.total_s).where(Reply.run_id == run_id)).all()
    for place, metric in enumerate(TIMES):
        known = [time for reply in replies if (time := reply[place]) is not None]
        median = statistics.median(known) if known else None
        low, high = median_interval(known) or (None, None)
        yield ScoreRow(metric, "", median, len(known), len(replies), len(replies) - len(known), low=low, high=high)


def _kept(session: Session, run_id: str) -> Iterator[ScoreRow]:
    query = select(Reply.kept_share).where(Reply.run_id == run_id, Reply.kept_share.is_not(None))
    if shares := session.scalars(query).all():
        yield ScoreRow(KEPT, "", fmean(share for share in shares if share is not None), None, len(shares))


def _hearing(session: Session, run_id: str) -> Iterator[ScoreRow]:
    query = select(Reply.conversation_id, Reply.heard).where(Reply.run_id == run_id, Reply.heard.is_not(None))
    replies = [(row_id, heard) for row_id, heard in session.execute(query) if heard]
    if not replies:
        return
    counts: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for row_id, heard in replies:
        told = [turn for turn in heard if turn["words"]]
        counts[row_id].append((sum(turn["errors"] for turn in told), sum(turn["words"] for turn in told)))
    # Replies to one conversation were heard from the same recordings: they count as one, of their means.
    clusters = [(fmean(each) for each in zip(*one, strict=True)) for one in counts.values()]
    errors, words = (sum(part) for part in zip(*(pair for one in counts.values() for pair in one), strict=True))
    interval = clustered_ratio([(wrong, said) for wrong, said in clusters]) if errors < words else None
    not_heard = sum(turn["text"] is None for _, heard in replies for turn in heard)
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    rate = errors / words if words else None
    yield ScoreRow("word_error_rate", "", rate, errors, words, not_heard, low=low, high=high)
    took = [sum(turn["seconds"] or 0.0 for turn in heard) for _, heard in replies]
    yield ScoreRow("ear_median_s", "", statistics.median(took), None, len(took))
