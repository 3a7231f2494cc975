"""labels of runs."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "run_label",
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("label", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_run_label_run_id_run"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "label", name=op.f("pk_run_label")),
    )


def downgrade() -> None:
    op.drop_table("run_label")
