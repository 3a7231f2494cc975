"""Labels of runs: words that people give them, to find them by and to keep them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlalchemy import delete, select

from vivace.errors import UsageError
from vivace.store.database import Database
from vivace.store.identifiers import find
from vivace.store.records import add_event, insert_new
from vivace.store.tables import RunLabel

LONGEST = 40
_LABEL = re.compile(rf"\w[\w.:/-]{{0,{LONGEST - 1}}}")


def change(database: Database, identifier: str, changes: Sequence[str]) -> list[str]:
    """Give a run labels and take some away, all or none; the labels that it then has.

    Args:
        identifier: of the run, or of one of its judgings or submissions.
        changes: `+LABEL` or `-LABEL` each.

    Raises:
        UsageError: there is no such run, or a change is not of this form.
    """
    added = [_word(each) for each in changes if each.startswith("+")]
    taken = [_word(each) for each in changes if not each.startswith("+")]
    if both := set(added) & set(taken):
        raise UsageError(f"The label '{min(both)}' is given and taken away; write one of the two.")
    with database.write() as session:
        found = find(session, identifier)
        if found is None:
            raise UsageError(f"There is no run '{identifier}'; `vivace status` lists them.")
        insert_new(session, RunLabel, [{"run_id": found.run, "label": label} for label in dict.fromkeys(added)])
        session.execute(delete(RunLabel).where(RunLabel.run_id == found.run, RunLabel.label.in_(taken)))
        if changes:
            add_event(session, f"labels: {' '.join(changes)}", run_id=found.run)
        mine = select(RunLabel.label).where(RunLabel.run_id == found.run)
        return list(session.scalars(mine.order_by(RunLabel.label)))


def _word(change: str) -> str:
    sign, word = change[:1], change[1:]
    if sign not in "+-" or not _LABEL.fullmatch(word):
        raise UsageError(
            f"'{change}' is no change of labels; write +LABEL or -LABEL, a word of up to {LONGEST} letters, digits, "
            "'.', ':', '/', '-' and '_'."
        )
    return word
