"""what became of turns at a part that came to nothing, to be held against what is recorded of it."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("recorded", "unwritten"):
        op.add_column("shard", sa.Column(name, sa.Integer(), server_default="0", nullable=False))
    op.add_column("shard", sa.Column("lost_workers", sa.JSON(none_as_null=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("shard") as shard:
        for name in ("recorded", "unwritten", "lost_workers"):
            shard.drop_column(name)
