"""How each conversation of an ended judging came out, as one short row: written when it ends, read by lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from sqlalchemy import delete, select
from sqlalchemy import insert as insert_into
from sqlalchemy.orm import Session

from vivace.store.tables import Conversation, Judging, Outcome, Run

Replies = tuple[Mapping[int, bool | None], ...]
"""For each planned reply: place in the rubric → met, None where unscored."""

_SIGNS = {True: "1", False: "0", None: "?"}
_VALUES = {sign: met for met, sign in _SIGNS.items()}
_NEXT_REPLY = "/"


def renew_outcomes(session: Session, judging: str, replies: Mapping[str, Replies]) -> None:
    """Replace what is stored of a judging's conversations.

    Args:
        session: of the store.
        judging: its id.
        replies: conversation, by the dataset's id → how each reply to it came out.
    """
    run = session.get_one(Run, session.get_one(Judging, judging).run_id)
    query = select(Conversation.external_id, Conversation.id, Conversation.position).where(
        Conversation.dataset_id == run.dataset_id
    )
    session.execute(delete(Outcome).where(Outcome.judging_id == judging))
    rows = [
        {
            "judging_id": judging,
            "conversation_id": row_id,
            "position": position,
            "passed": passed(replies[key]),
            "pass_rate": fmean(all(reply.values()) for reply in replies[key]),
            "verdicts": _written(replies[key]),
        }
        for key, row_id, position in session.execute(query)
        if key in replies
    ]
    if rows:
        session.execute(insert_into(Outcome), rows)


def passed(replies: Replies) -> bool | None:
    """Every criterion met in every reply; None while some are unscored and none is known not to be met."""
    given = {met for reply in replies for met in reply.values()}
    return False if False in given else None if None in given else True


def _written(replies: Replies) -> str:
    return _NEXT_REPLY.join("".join(_SIGNS[reply[number]] for number in sorted(reply)) for reply in replies)


def read_back(verdicts: str) -> Sequence[Sequence[bool | None]]:
    """For each reply, what came out on each criterion in its order."""
    return [[_VALUES[sign] for sign in reply] for reply in verdicts.split(_NEXT_REPLY)]
