"""what people say of criteria; whose other tools' results are, and private ones."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "human_label",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("reply_id", sa.Integer(), nullable=False),
        sa.Column("criterion_id", sa.Integer(), nullable=False),
        sa.Column("labeler", sa.String(), nullable=False),
        sa.Column("met", sa.Boolean(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["reply_id"], ["reply.id"], name=op.f("fk_human_label_reply_id_reply"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["criterion_id"], ["criterion.id"], name=op.f("fk_human_label_criterion_id_criterion")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_human_label")),
        sa.UniqueConstraint("reply_id", "criterion_id", "labeler", name=op.f("uq_human_label_reply_id")),
    )
    op.add_column("foreign_result", sa.Column("owner", sa.String(), nullable=True))
    op.add_column("foreign_result", sa.Column("private_since", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("foreign_result", "private_since")
    op.drop_column("foreign_result", "owner")
    op.drop_table("human_label")
