"""shares of layers say of what they are: channels that decoded tokens kept, and tokens of a prompt in the cache."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

AT_ONCE = 200
"""Trials that are read together, so that memory suffices for any database."""
CHANNELS, TOKENS = "kept_channels", "kept_tokens"

JSON = sa.JSON(none_as_null=True)
trial = sa.table("trial", sa.column("id"), sa.column("measurements", JSON))
diagnosis = sa.table("diagnosis", *map(sa.column, ("id", "kind", "layer")))


def upgrade() -> None:
    _rename({"kept"}, lambda layer: TOKENS if layer.isdigit() else CHANNELS)  # whole blocks have numbers for names


def downgrade() -> None:
    _rename({CHANNELS, TOKENS}, lambda layer: "kept")


def _rename(before: set[str], kind_of: Callable[[str], str]) -> None:
    """Give diagnoses the kind that their layer tells, in their table and in the trials that they are made of."""
    connection = op.get_bind()
    told = diagnosis.c.kind.in_(before)
    for layer in connection.scalars(sa.select(diagnosis.c.layer).where(told).distinct()).all():
        these = told & (diagnosis.c.layer == layer)
        connection.execute(diagnosis.update().where(these).values(kind=kind_of(layer)))
    text = sa.cast(trial.c.measurements, sa.Text)
    query = sa.select(trial.c.id, trial.c.measurements).order_by(trial.c.id).limit(AT_ONCE)
    query = query.where(sa.or_(*(text.contains(f'"{kind}"') for kind in sorted(before))))
    part = connection.execute(query).all()
    while part:
        for key, measurements in part:
            rows = [_row(row, before, kind_of) for row in measurements.get("diagnoses", ())]
            if rows:
                changed = (
                    trial.update().where(trial.c.id == key).values(measurements={**measurements, "diagnoses": rows})
                )
                connection.execute(changed)
        part = connection.execute(query.where(trial.c.id > part[-1][0])).all()


def _row(row: list[Any], before: set[str], kind_of: Callable[[str], str]) -> list[Any]:
    kind, layer, *rest = row
    return [kind_of(layer) if kind in before else kind, layer, *rest]
