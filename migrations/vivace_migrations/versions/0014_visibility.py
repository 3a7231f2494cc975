"""whose runs are, private runs, sets with hidden items; whose tokens are, and until when they open."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_COLUMNS = (
    ("dataset", sa.Column("hidden_since", sa.DateTime(timezone=True), nullable=True)),
    ("run", sa.Column("owner", sa.String(), nullable=True)),
    ("run", sa.Column("private_since", sa.DateTime(timezone=True), nullable=True)),
    ("api_token", sa.Column("owner", sa.String(), nullable=True)),
    ("api_token", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True)),
)


def upgrade() -> None:
    for table, column in _COLUMNS:
        op.add_column(table, column)


def downgrade() -> None:
    for table, column in reversed(_COLUMNS):
        op.drop_column(table, column.name)
