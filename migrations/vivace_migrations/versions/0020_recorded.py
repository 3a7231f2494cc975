"""which models are known by replies that were made elsewhere."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("model", sa.Column("recorded", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.execute("UPDATE model SET recorded = true WHERE adapter IN ('replay', 'import')")


def downgrade() -> None:
    op.drop_column("model", "recorded")
