"""hearing checks, spoken replies, speakers, and what calls took besides tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ACCOUNTING = [
    "run_id", "judging_id", "stage", "error", "cached", "input_tokens", "output_tokens", "input_audio_tokens",
    "audio_seconds", "cost_usd",
]  # fmt: skip


def upgrade() -> None:
    op.add_column("run", sa.Column("output_form", sa.String(16), nullable=False, server_default="text"))
    op.add_column("run", sa.Column("hearing", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("conversation", sa.Column("speaker", sa.String(), nullable=True))
    op.add_column("attempt", sa.Column("input_audio_tokens", sa.Integer(), nullable=True))
    op.add_column("attempt", sa.Column("audio_seconds", sa.Double(), nullable=True))
    op.add_column("attempt", sa.Column("cached", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_index("ix_attempt_accounting", "attempt", ACCOUNTING)
    op.drop_index("ix_attempt_run_id_error_cost_usd", "attempt")


def downgrade() -> None:
    op.create_index("ix_attempt_run_id_error_cost_usd", "attempt", ["run_id", "error", "cost_usd"])
    op.drop_index("ix_attempt_accounting", "attempt")
    for column in ("cached", "audio_seconds", "input_audio_tokens"):
        op.drop_column("attempt", column)
    op.drop_column("conversation", "speaker")
    op.drop_column("run", "hearing")
    op.drop_column("run", "output_form")
