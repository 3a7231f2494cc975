"""how each conversation came out, in short, and the calls of one: what lists, comparisons and a conversation read."""

from collections import defaultdict
from statistics import fmean
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True)
judging = sa.table("judging", sa.column("id"), sa.column("run_id"), sa.column("status"))
run = sa.table("run", *map(sa.column, ("id", "dataset_id", "repeats")), sa.column("items", JSON))
conversation = sa.table("conversation", *map(sa.column, ("id", "dataset_id", "external_id", "position")))
criterion = sa.table("criterion", *map(sa.column, ("id", "conversation_id", "number")))
reply = sa.table("reply", *map(sa.column, ("id", "conversation_id", "repeat")))
verdict = sa.table(
    "verdict", *map(sa.column, ("judging_id", "reply_id", "criterion_id", "vote")), sa.column("met", sa.Boolean)
)
outcome = sa.table(
    "outcome", *map(sa.column, ("judging_id", "conversation_id", "position", "pass_rate", "verdicts")),
    sa.column("passed", sa.Boolean),
)  # fmt: skip

SIGNS = {True: "1", False: "0", None: "?"}
Row = dict[str, Any]


def upgrade() -> None:
    op.create_table(
        "outcome",
        sa.Column("judging_id", sa.String(64), nullable=False),
        sa.Column("conversation_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=True),
        sa.Column("pass_rate", sa.Double(), nullable=False),
        sa.Column("verdicts", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["judging_id"], ["judging.id"], name=op.f("fk_outcome_judging_id_judging"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversation.id"],
            name=op.f("fk_outcome_conversation_id_conversation"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("judging_id", "conversation_id", name=op.f("pk_outcome")),
    )
    op.create_index("ix_outcome_list", "outcome", ["judging_id", "position", "passed", "conversation_id"])
    op.create_index("ix_attempt_conversation", "attempt", ["conversation_id", "run_id"])
    connection = op.get_bind()
    ended = sa.select(judging.c.id, judging.c.run_id).where(judging.c.status == "ended").order_by(judging.c.id)
    for judging_id, run_id in connection.execute(ended).all():  # one after another, so that memory suffices
        if rows := _outcomes(connection, judging_id, run_id):
            connection.execute(outcome.insert(), rows)


def downgrade() -> None:
    op.drop_index("ix_attempt_conversation", "attempt")
    op.drop_table("outcome")


def _outcomes(connection: sa.Connection, judging_id: str, run_id: str) -> list[Row]:
    """The rows of one judging."""
    planned = connection.execute(sa.select(run).where(run.c.id == run_id)).one()
    items = set(planned.items)
    numbers: dict[int, list[int]] = defaultdict(list)
    of_set = sa.select(criterion.c.conversation_id, criterion.c.number).join(
        conversation, criterion.c.conversation_id == conversation.c.id
    )
    for row in connection.execute(of_set.where(conversation.c.dataset_id == planned.dataset_id)):
        numbers[row.conversation_id].append(row.number)
    decisions = (
        sa.select(reply.c.conversation_id, reply.c.repeat, criterion.c.number, verdict.c.met)
        .join(reply, verdict.c.reply_id == reply.c.id)
        .join(criterion, verdict.c.criterion_id == criterion.c.id)
        .where(verdict.c.judging_id == judging_id, verdict.c.vote == 0)
    )
    met = {(row_id, repeat, number): value for row_id, repeat, number, value in connection.execute(decisions)}
    rows = []
    for row in connection.execute(sa.select(conversation).where(conversation.c.dataset_id == planned.dataset_id)):
        if row.external_id in items:
            replies = [
                "".join(SIGNS[met.get((row.id, repeat, number))] for number in sorted(numbers[row.id]))
                for repeat in range(planned.repeats)
            ]
            signs = "/".join(replies)
            passed = False if "0" in signs else None if "?" in signs else True
            rate = fmean(not set(reply) - {"1"} for reply in replies)
            key = {"judging_id": judging_id, "conversation_id": row.id, "position": row.position}
            rows.append({**key, "passed": passed, "pass_rate": rate, "verdicts": signs})
    return rows
