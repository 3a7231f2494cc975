"""what calls and replies took is among a judging's scores, where a board reads it."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SUMS = ("input_tokens", "output_tokens", "input_audio_tokens", "audio_seconds", "cost_usd")
TIMES = ("ttft_median_s", "total_median_s")
AT_ONCE = 100
"""Judgings whose rows are read and written together, so that memory suffices for any database."""

judging = sa.table("judging", sa.column("id", sa.String), sa.column("run_id", sa.String), sa.column("status"))
reply = sa.table("reply", sa.column("run_id"), sa.column("ttft_s", sa.Float), sa.column("total_s", sa.Float))
attempt = sa.table(
    "attempt", sa.column("run_id"), sa.column("judging_id"), sa.column("stage"), sa.column("error"),
    sa.column("cached", sa.Boolean), *(sa.column(name, sa.Float) for name in SUMS),
)  # fmt: skip
score = sa.table(
    "score", sa.column("judging_id"), sa.column("metric"), sa.column("slice"), sa.column("value", sa.Double),
    sa.column("count", sa.Integer), sa.column("n", sa.Integer), sa.column("unscored", sa.Integer),
)  # fmt: skip

Row = dict[str, Any]


def upgrade() -> None:
    connection = op.get_bind()
    query = sa.select(judging.c.id, judging.c.run_id).where(judging.c.status == "ended").order_by(judging.c.id)
    ended = [(str(key), str(run)) for key, run in connection.execute(query)]
    for start in range(0, len(ended), AT_ONCE):
        chosen = ended[start : start + AT_ONCE]
        connection.execute(
            score.insert(), [*_calls(connection, [key for key, _ in chosen]), *_times(connection, chosen)]
        )


def downgrade() -> None:
    metrics = ("calls", "cached_calls", *SUMS, *TIMES)
    op.execute(score.delete().where(score.c.judging_id.is_not(None), score.c.metric.in_(metrics)))


def _calls(connection: sa.Connection, judgings: Sequence[str]) -> Iterator[Row]:
    """By stage, what the calls took that made a judging's replies and those that judged them."""
    of_run = attempt.c.judging_id.is_(None)
    columns = [attempt.c[name] for name in SUMS]
    query = (
        sa.select(
            judging.c.id, attempt.c.stage, sa.func.count(), sa.func.count(attempt.c.error), _count(attempt.c.cached),
            *(sa.func.sum(column) for column in columns),
            *(_count(attempt.c.error.is_(None), ~attempt.c.cached, column.is_(None)) for column in columns),
        )
        .join_from(judging, attempt, sa.and_(
            attempt.c.run_id == judging.c.run_id, sa.or_(of_run, attempt.c.judging_id == judging.c.id)
        ))
        .where(judging.c.id.in_(judgings))
        .group_by(judging.c.id, attempt.c.judging_id, attempt.c.stage)
        .order_by(judging.c.id, attempt.c.judging_id.is_not(None), attempt.c.stage)
    )  # fmt: skip
    for key, stage, calls, failed, cached, *told in connection.execute(query):
        yield _row(key, "calls", stage, calls, calls - failed, calls, failed)
        yield _row(key, "cached_calls", stage, cached, cached, calls, 0)
        for name, total, untold in zip(SUMS, told[: len(SUMS)], told[len(SUMS) :], strict=True):
            yield _row(key, name, stage, total, None, calls, untold)


def _count(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.sum(sa.case((sa.and_(*conditions), 1), else_=0))


def _times(connection: sa.Connection, judgings: Sequence[tuple[str, str]]) -> Iterator[Row]:
    """The median times of the replies that were judged."""
    replies: dict[str, list[tuple[float | None, float | None]]] = defaultdict(list)
    query = sa.select(reply.c.run_id, reply.c.ttft_s, reply.c.total_s)
    for run, ttft, total in connection.execute(query.where(reply.c.run_id.in_({run for _, run in judgings}))):
        replies[run].append((ttft, total))
    for key, run in judgings:
        for place, metric in enumerate(TIMES):
            known = [time for times in replies[run] if (time := times[place]) is not None]
            median = statistics.median(known) if known else None
            yield _row(key, metric, "", median, len(known), len(replies[run]), len(replies[run]) - len(known))


def _row(key: str, metric: str, slice: str, value: float | None, count: int | None, n: int, unscored: int) -> Row:
    return {
        "judging_id": key, "metric": metric, "slice": slice, "value": value, "count": count, "n": n,
        "unscored": unscored,
    }  # fmt: skip
