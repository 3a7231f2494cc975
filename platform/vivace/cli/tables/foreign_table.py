"""Other tools' results as people read them, from the rows that machines read."""

from __future__ import annotations

from vivace.cli.tables.printing import ShownColumns
from vivace.output.foreign_texts import mean, range_, remarks, reported, samples
from vivace.output.short_names import settings_text
from vivace.store.identifiers import SHORT

FOREIGN_COLUMNS = {
    "model": lambda row: row["model"],
    "reported": reported,
    "scored mean": mean,
    "scored": samples,
    "could be": range_,
    "score": lambda row: row["score"],
    "task": lambda row: row["task"] + (f" v{row['task_version']}" if row["task_version"] else ""),
    "tool": lambda row: f"{row['tool']} {row['tool_version']}".strip(),
    "data": lambda row: row["data"],
    "made": lambda row: (row["made_at"] or "")[:10],
    "id": lambda row: row["result"][:SHORT],
    "settings": lambda row: settings_text(row["settings"]),
    "notes": lambda row: "; ".join(remarks(row)),
}
FOREIGN_TABLE = ShownColumns(
    FOREIGN_COLUMNS, first=("model", "reported", "scored", "task", "score", "tool"), cut=("model", "task", "data"),
    prose=("notes",),
)  # fmt: skip
