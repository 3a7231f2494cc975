"""scores in parts and gaps as rows of their own; `vivace db upgrade` then fills them from recorded verdicts."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

FIGURES = ("apr", "apr_low", "apr_high", "ars", "ars_low", "ars_high")


def upgrade() -> None:
    op.create_table(
        "breakdown",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("judging_id", sa.String(length=64), nullable=False),
        sa.Column("by", sa.String(length=16), nullable=False),
        sa.Column("axis", sa.String(), nullable=False),
        sa.Column("slice", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("place", sa.Double(), nullable=True),
        sa.Column("conversations", sa.Integer(), nullable=False),
        sa.Column("replies", sa.Integer(), nullable=False),
        sa.Column("coverage", sa.Double(), nullable=True),
        *(sa.Column(name, sa.Double(), nullable=True) for name in FIGURES),
        sa.ForeignKeyConstraint(
            ["judging_id"], ["judging.id"], name=op.f("fk_breakdown_judging_id_judging"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_breakdown")),
        sa.UniqueConstraint("judging_id", "by", "axis", "position", name=op.f("uq_breakdown_judging_id")),
    )
    op.create_table(
        "gap",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("text_id", sa.String(length=64), nullable=False),
        sa.Column("audio_id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("metric", sa.String(length=16), nullable=False),
        sa.Column("a", sa.Double(), nullable=False),
        sa.Column("b", sa.Double(), nullable=False),
        *(sa.Column(name, sa.Double(), nullable=True) for name in ("low", "high", "p_value", "detectable")),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("n", "gained", "lost")),
        sa.Column("ear", sa.JSON(none_as_null=True), nullable=True),
        *(
            sa.ForeignKeyConstraint([name], ["judging.id"], name=op.f(f"fk_gap_{name}_judging"), ondelete="CASCADE")
            for name in ("text_id", "audio_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gap")),
        sa.UniqueConstraint("text_id", "audio_id", "metric", name=op.f("uq_gap_text_id")),
    )
    op.create_index("ix_gap_audio_id", "gap", ["audio_id"])


def downgrade() -> None:
    op.drop_table("gap")
    op.drop_table("breakdown")
