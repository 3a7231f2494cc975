"""`/v1/submissions`: have outputs judged or a model asked, follow it, stop it, and read what it came to."""

from __future__ import annotations

import asyncio
import threading
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel
from sqlalchemy import select

from vivace.api.access import House, InHouse, Reader, Submitter, seen_by
from vivace.api.answered import Outcome, Results, Submitted
from vivace.api.asked import AskedSubmission, check_open, spec_of
from vivace.api.faults import Refused, answers, told
from vivace.engine.access.tokens import Bearer
from vivace.engine.access.withholding import set_private
from vivace.engine.submissions import cancel as cancel_submission
from vivace.engine.submissions import submit as record
from vivace.errors import UsageError
from vivace.store.artifacts import open_artifacts
from vivace.store.queries.board import board
from vivace.store.queries.conversation import conversations
from vivace.store.queries.submissions import SubmissionView, submissions
from vivace.store.tables import Dataset, Run, Submission

router = APIRouter(tags=["submissions"])

Identifier = Annotated[str, Path(pattern="^s[0-9a-f]{8}$", description="A submission's id.")]
MOST_LISTED = 100

_turn = threading.Lock()
"""Data are read and prepared for one submission at a time: many at once would take all memory."""
_TURN_S = 20.0


class Seen(BaseModel):
    """Who shall see a run."""

    private: bool


@router.post("/v1/submissions", status_code=201, responses=answers(401, 403, 404, 408, 413, 415))
def submit(asked: AskedSubmission, house: InHouse, bearer: Submitter) -> Submitted:
    """Queue a run for the operator's workers."""
    check_open(house, bearer)
    spec = spec_of(asked, house, bearer, open_artifacts(house.settings))
    if not _turn.acquire(timeout=_TURN_S):
        raise Refused(429, "Others are being served; come again in a moment.", _TURN_S)
    try:
        check_open(house, bearer)  # of those that came at once, each has been counted by now
        opened, run, submission = record(spec, house.settings, queue=house.door.queue, owner=bearer.owner)
        opened.close()
        asyncio.run(run.close())
    finally:
        _turn.release()
    return _shown(house, _own(house, bearer, submission))


@router.get("/v1/submissions", responses=answers(401, 403))
def listed(
    house: InHouse, bearer: Reader, limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 20
) -> list[Submitted]:
    """Your submissions, the newest first."""
    query = select(Submission.id).join(Run, Submission.run_id == Run.id).order_by(Submission.created_at.desc())
    if "admin" not in bearer.scopes:
        query = query.where(Run.owner == bearer.owner)
    with house.database.read() as session:
        ids = session.scalars(query.limit(limit)).all()
    return [_shown(house, submissions(house.database, one)[0]) for one in ids]


@router.get("/v1/submissions/{submission}", responses=answers(401, 403, 404))
def status(submission: Identifier, house: InHouse, bearer: Reader) -> Submitted:
    """How far a submission of yours is."""
    return _shown(house, _own(house, bearer, submission))


@router.post("/v1/submissions/{submission}/cancel", responses=answers(401, 403, 404, 409))
def cancel(submission: Identifier, house: InHouse, bearer: Submitter) -> Submitted:
    """Stop a submission of yours; what is recorded stays."""
    _own(house, bearer, submission)
    try:
        cancel_submission(house.database, submission)
    except UsageError as error:
        raise Refused(409, str(error)) from error
    return _shown(house, _own(house, bearer, submission))


@router.post("/v1/submissions/{submission}/visibility", responses=answers(401, 403, 404, 408, 413, 415))
def visibility(submission: Identifier, seen: Seen, house: InHouse, bearer: Submitter) -> Submitted:
    """Keep the run of a submission of yours private, or show it to all."""
    set_private(house.database, _own(house, bearer, submission).run, seen.private)
    return _shown(house, _own(house, bearer, submission))


@router.get("/v1/submissions/{submission}/results", responses=answers(401, 403, 404))
def results(submission: Identifier, house: InHouse, bearer: Reader) -> Results:
    """The scores of a submission of yours, and how each conversation came out where the set's items may be known."""
    view = _own(house, bearer, submission)
    database = seen_by(house, bearer)
    scores = [row.as_json() for row in board(database, include_retracted=True) if row.judging == view.judging]
    with house.database.read() as session:
        query = select(Dataset.hidden_since).join(Run, Run.dataset_id == Dataset.id).where(Run.id == view.run)
        hidden = session.scalar(query) is not None and "admin" not in bearer.scopes
    fields = list(Outcome.model_fields)
    outcomes = conversations(database, view.judging) if scores and view.judging and not hidden else []
    return Results(
        submission=view.id,
        status=view.status,
        scores=scores,
        conversations=None
        if hidden
        else [Outcome(**{name: getattr(one, name) for name in fields}) for one in outcomes],
    )


def _own(house: House, bearer: Bearer, submission: str) -> SubmissionView:
    """A submission of whoever asks; anybody else's is not there.

    Raises:
        Refused: there is none.
    """
    owner = select(Run.owner).join(Submission, Submission.run_id == Run.id).where(Submission.id == submission)
    with house.database.read() as session:
        found = session.execute(owner).one_or_none()
    if found is None or ("admin" not in bearer.scopes and found.owner != bearer.owner):
        raise Refused(404, f"There is no submission {submission} of yours.")
    return submissions(house.database, submission)[0]


def _shown(house: House, view: SubmissionView) -> Submitted:
    return Submitted.of(view, None if view.message is None else told(view.message, house.settings))
