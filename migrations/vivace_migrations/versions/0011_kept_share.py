"""how much of a prompt went through a model's last layer, where prompts are pruned."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("reply", sa.Column("kept_share", sa.Double(), nullable=True))


def downgrade() -> None:
    op.drop_column("reply", "kept_share")
