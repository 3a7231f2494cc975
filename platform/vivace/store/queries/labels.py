"""Which runs bear which labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from vivace.store.database import Database
from vivace.store.tables import RunLabel


def labels(database: Database) -> dict[str, list[str]]:
    """Run → its labels in order; runs without any are left out."""
    found: dict[str, list[str]] = defaultdict(list)
    with database.read() as session:
        for row in session.scalars(select(RunLabel).order_by(RunLabel.run_id, RunLabel.label)):
            found[row.run_id].append(row.label)
    return dict(found)


def labelled(database: Database | None, label: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of a board's rows whose run bears a label; all where none is named."""
    if database is None or not label:
        return list(rows)
    bearing = {run for run, given in labels(database).items() if label in given}
    return [row for row in rows if row["run"] in bearing]
