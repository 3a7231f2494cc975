"""an index that answers for a run's calls: how many failed, what they cost."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_attempt_run_id_error_cost_usd", "attempt", ["run_id", "error", "cost_usd"])
    op.drop_index("ix_attempt_run_id", "attempt")


def downgrade() -> None:
    op.create_index("ix_attempt_run_id", "attempt", ["run_id"])
    op.drop_index("ix_attempt_run_id_error_cost_usd", "attempt")
