"""arms of efficiency runs: what was fitted, which is the baseline, when they ended, and what the audits found."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run", sa.Column("measured", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("arm", sa.Column("fitted", sa.String(), nullable=True))
    op.add_column("arm", sa.Column("position", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("arm", sa.Column("baseline", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("arm", sa.Column("official", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("arm", sa.Column("unofficial_reasons", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("arm", sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    for column in ("ended_at", "unofficial_reasons", "official", "baseline", "position", "fitted"):
        op.drop_column("arm", column)
    op.drop_column("run", "measured")
