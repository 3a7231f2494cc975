"""parts of submissions, which hold lease and needs; machines that measure; reservations of quotas; draining."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "shard",
        sa.Column("id", sa.String(length=48), nullable=False),
        sa.Column("submission_id", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("first", sa.Integer(), nullable=True),
        sa.Column("last", sa.Integer(), nullable=True),
        sa.Column("timed", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("needs", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        *(sa.Column(name, sa.String(), nullable=True) for name in ("worker_id", "workflow_id", "lease_owner")),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_epoch", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.DateTime(timezone=True), nullable=True) for name in ("started_at", "ended_at")),
        sa.ForeignKeyConstraint(
            ["submission_id"], ["submission.id"], name=op.f("fk_shard_submission_id_submission"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shard")),
        sa.UniqueConstraint("submission_id", "number", name=op.f("uq_shard_submission_id")),
    )
    op.create_index(op.f("ix_shard_status"), "shard", ["status"])
    op.create_table(
        "machine",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("awaited_by", sa.String(), nullable=True),
        sa.Column("awaited_until", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_machine")),
    )
    op.create_table(
        "reservation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("quota", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("worker_id", sa.String(), nullable=False),
        sa.Column("amount", sa.Double(), nullable=False),
        *(sa.Column(name, sa.DateTime(timezone=True), nullable=False) for name in ("created_at", "expires_at")),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_reservation_run_id_run"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reservation")),
    )
    op.create_index("ix_reservation_quota", "reservation", ["quota", "expires_at"])
    op.create_index(op.f("ix_reservation_run_id"), "reservation", ["run_id"])
    # Every submission so far is of one part.
    op.execute(
        "INSERT INTO shard (id, submission_id, number, needs, timed, status, worker_id, lease_epoch, started_at, "
        "ended_at) SELECT submission.id || '-1', submission.id, 1, '[]', run.track <> 'audio-multichallenge', "
        "submission.status, submission.worker_id, 0, submission.started_at, submission.ended_at "
        "FROM submission JOIN run ON run.id = submission.run_id"
    )
    for name in ("lease_owner", "lease_expires_at", "lease_epoch"):
        op.drop_column("run", name)
    op.drop_column("submission", "workflow_id")
    op.add_column("submission", sa.Column("opened_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("submission", sa.Column("submitter", sa.String(), server_default=sa.text("''"), nullable=False))
    op.add_column("worker", sa.Column("machine", sa.String(length=64), server_default=sa.text("''"), nullable=False))
    op.add_column("worker", sa.Column("offers", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("worker", sa.Column("drain_asked_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    for name in ("drain_asked_at", "offers", "machine"):
        op.drop_column("worker", name)
    for name in ("submitter", "opened_at"):
        op.drop_column("submission", name)
    op.add_column("submission", sa.Column("workflow_id", sa.String(), nullable=True))
    op.add_column("run", sa.Column("lease_owner", sa.String(), nullable=True))
    op.add_column("run", sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("run", sa.Column("lease_epoch", sa.Integer(), server_default="0", nullable=False))
    op.drop_table("reservation")
    op.drop_table("machine")
    op.drop_table("shard")
