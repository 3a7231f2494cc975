"""What the page of other tools shows, as tables without ranks."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from vivace.output.foreign_texts import group_name, mean, range_, remarks, reported, samples
from vivace.output.short_names import settings_text
from vivace.store.identifiers import SHORT
from vivace.store.queries.foreign import ForeignRow
from vivace_app import figures


def groups(rows: Sequence[ForeignRow]) -> dict[str, list[ForeignRow]]:
    """Rows that measured the same thing in the same way, under its name."""
    found: dict[str, list[ForeignRow]] = {}
    for row in rows:
        found.setdefault(group_name(row.as_json()), []).append(row)
    return found


def table(rows: Sequence[ForeignRow]) -> pd.DataFrame:
    """The rows of one group, the better first as far as the tool says what is better."""
    return pd.DataFrame(
        [
            {
                "Model": row.model,
                "Reported": _known(reported(told)),
                "Scored mean": _known(mean(told)),
                "Scored": _known(samples(told)),
                "Could be": _known(range_(told)),
                "Tool": f"{row.tool} {row.tool_version}".strip(),
                "Data": row.data or None,
                "Settings": settings_text(row.settings) or None,
                "Notes": "; ".join(remarks(told)) or None,
                "Made": row.made_at,
                "Brought in": row.imported_at,
                "Id": row.result[:SHORT],
            }
            for row, told in ((row, row.as_json()) for row in rows)
        ]
    )


def _known(text: str) -> str | None:
    """A text; nothing where it says that there is nothing."""
    return None if text == figures.ABSENT else text
