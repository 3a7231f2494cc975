"""Taking results off the board and back, with the reason, and with every row kept."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from vivace.errors import UsageError
from vivace.store.columns import now
from vivace.store.database import Database
from vivace.store.identifiers import find
from vivace.store.queries.foreign import foreign_id
from vivace.store.records import add_event
from vivace.store.tables import ForeignResult, Judging, Run
from vivace.tracks.dialogue.summaries.gaps import renew_gaps
from vivace_rubrics.texts import is_blank


def retract(database: Database, identifier: str, reason: str) -> str:
    """Take one judging off the board, or a run with all that is made of it; the rows stay.

    Returns:
        What was done, in a sentence.

    Raises:
        UsageError: there is no such judging or run, it is retracted already, or the reason is empty.
    """
    reason = reason.strip()
    if is_blank(reason):
        raise UsageError("A retraction needs a reason; give it with --reason.")
    with database.write() as session:
        if (foreign := _foreign(session, identifier)) is not None:
            return _retract_foreign(foreign, reason)
        run, judging = _retractable(session, identifier)
        held: list[Run | Judging] = [run] if judging is None else [run, judging]
        for row in held:
            if row.retracted_at is not None:
                raise UsageError(
                    f"{_named(row)} was retracted already ({row.retraction_reason}); "
                    f"`vivace retract --undo {row.id}` brings it back."
                )
        subject = judging or run
        subject.retracted_at, subject.retraction_reason = now(), reason
        what = "retracted" if judging is None else f"judging {judging.id} retracted"
        add_event(session, f"{what}: {reason}", run_id=run.id, level="warning")
        renew_gaps(session)
        query = select(Judging.id).where(Judging.run_id == run.id).order_by(Judging.created_at)
        judgings = session.scalars(query).all()
    if judging is None:
        every = f", with all of its judgings: {', '.join(judgings)}" if judgings else ""
        return f"Run {run.id} is retracted{every}."
    others = [one for one in judgings if one != judging.id]
    kept = f", with its other judgings: {', '.join(others)}" if others else ""
    return f"Judging {judging.id} is retracted; its run {run.id} stays{kept}."


def restore(database: Database, identifier: str) -> str:
    """Undo a retraction: what it took off the board is back as it was, and the log keeps both with the reason.

    A run's retraction, and one of a single judging, are undone each by its own id.

    Returns:
        What was done, in a sentence.

    Raises:
        UsageError: there is no such judging or run, or it is not retracted.
    """
    with database.write() as session:
        if (foreign := _foreign(session, identifier)) is not None:
            return _restore_foreign(foreign)
        run, judging = _retractable(session, identifier)
        subject = judging or run
        query = select(Judging.id).where(Judging.run_id == run.id, Judging.retracted_at.is_not(None))
        alone = session.scalars(query.order_by(Judging.created_at)).all()
        if judging is not None:
            rest = f"its run {run.id} is ({run.retraction_reason})" if run.retracted_at is not None else ""
        else:
            rest = f"retracted by themselves are its judgings {', '.join(alone)}" if alone else ""
        rest = rest and f"; {rest}"
        if subject.retracted_at is None:
            raise UsageError(f"{_named(subject)} is not retracted{rest}.")
        what = "retraction" if judging is None else f"retraction of judging {judging.id}"
        add_event(session, f"{what} undone: {subject.retraction_reason}", run_id=run.id, level="warning")
        subject.retracted_at = subject.retraction_reason = None
        renew_gaps(session)
    return f"{_named(subject)} is no longer retracted{rest}."


def _foreign(session: Session, identifier: str) -> ForeignResult | None:
    """The result of another tool that an id leads to."""
    id = foreign_id(session, identifier)
    return None if id is None else session.get_one(ForeignResult, id)


def _retract_foreign(result: ForeignResult, reason: str) -> str:
    if result.retracted_at is not None:
        raise UsageError(
            f"The result {result.id} was retracted already ({result.retraction_reason}); "
            f"`vivace retract --undo {result.id}` brings it back."
        )
    result.retracted_at, result.retraction_reason = now(), reason
    return f"The result {result.id} of {result.tool} is retracted."


def _restore_foreign(result: ForeignResult) -> str:
    if result.retracted_at is None:
        raise UsageError(f"The result {result.id} is not retracted.")
    result.retracted_at = result.retraction_reason = None
    return f"The result {result.id} of {result.tool} is no longer retracted."


def _retractable(session: Session, identifier: str) -> tuple[Run, Judging | None]:
    """The run, and the judging where the id is one's."""
    found = find(session, identifier)
    if found is None:
        raise UsageError(f"There is no run '{identifier}'; `vivace leaderboard --format json` shows the ids.")
    if found.submission is not None:
        raise UsageError(f"'{identifier}' is a submission; name its run {found.run}, or one of the run's judgings.")
    return session.get_one(Run, found.run), session.get_one(Judging, found.judging) if found.judging else None


def _named(row: Run | Judging) -> str:
    return f"{type(row).__name__} {row.id}"
