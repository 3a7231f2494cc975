"""a judging can be retracted by itself, and a dataset knows how many conversations make it whole."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("judging", sa.Column("retracted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("judging", sa.Column("retraction_reason", sa.Text(), nullable=True))
    op.add_column("dataset", sa.Column("conversations", sa.Integer(), nullable=True))
    # A run that was not of a part has planned, and so recorded, every conversation of its dataset.
    run = sa.table("run", sa.column("dataset_id"), sa.column("limited"))
    dataset = sa.table("dataset", sa.column("id"), sa.column("conversations"))
    conversation = sa.table("conversation", sa.column("id"), sa.column("dataset_id"))
    whole = sa.exists().where(run.c.dataset_id == dataset.c.id, run.c.limited.is_(sa.false()))
    count = sa.select(sa.func.count(conversation.c.id)).where(conversation.c.dataset_id == dataset.c.id)
    op.execute(dataset.update().where(whole).values(conversations=count.scalar_subquery()))


def downgrade() -> None:
    op.drop_column("dataset", "conversations")
    op.drop_column("judging", "retraction_reason")
    op.drop_column("judging", "retracted_at")
