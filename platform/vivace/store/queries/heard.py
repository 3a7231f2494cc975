"""What the ear of a cascade heard of a run's conversations, beside what was said."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from vivace.store.tables import Conversation, Criterion, Reply, Turn


@dataclass(frozen=True)
class HeardView:
    """One user turn as an ear heard it.

    Attributes:
        number: of the turn, from 1.
        said: the set's transcript.
        text: what was heard; None where it was nothing.
        unscored: why it was nothing.
        detail: the same in words.
        errors, words: wrong words and words said; None where they cannot be counted.
        seconds: that the ear took.
        cost_usd: of its calls; None where it is not known.
    """

    number: int
    said: str | None
    text: str | None
    unscored: str | None
    detail: str | None
    errors: int | None
    words: int | None
    seconds: float | None
    cost_usd: float | None


def heard_views(heard: Iterable[Mapping[str, Any]] | None, said: Mapping[int, str | None]) -> list[HeardView]:
    """What is stored of a reply's turns, beside what was said.

    Args:
        heard: as it is stored; None where nobody heard for the model.
        said: turn → the set's transcript.
    """
    return [HeardView(said=said.get(turn["number"]), **turn) for turn in heard or ()]


def heard_by(session: Session, run: str) -> dict[str, list[list[HeardView]]]:
    """Conversation → for each reply to it that had an ear, its turns."""
    query = (
        select(Conversation.id, Conversation.external_id, Reply.heard)
        .join(Reply, Reply.conversation_id == Conversation.id)
        .where(Reply.run_id == run, Reply.heard.is_not(None))
        .order_by(Conversation.position, Reply.repeat)
    )
    said: dict[int, dict[int, str | None]] = defaultdict(dict)
    turns = (
        select(Turn.conversation_id, Turn.number, Turn.transcript)
        .join(Reply, Reply.conversation_id == Turn.conversation_id)
        .where(Reply.run_id == run, Turn.role == "user")
    )
    for row_id, number, transcript in session.execute(turns):
        said[row_id][number] = transcript
    found: dict[str, list[list[HeardView]]] = defaultdict(list)
    for row_id, external_id, heard in session.execute(query):
        found[external_id].append(heard_views(heard, said[row_id]))
    return dict(found)


def criterion_texts(session: Session, dataset_id: int) -> dict[tuple[str, int], str]:
    """Conversation and place in the rubric → the criterion in words."""
    query = (
        select(Conversation.external_id, Criterion.number, Criterion.text)
        .join(Criterion, Criterion.conversation_id == Conversation.id)
        .where(Conversation.dataset_id == dataset_id)
    )
    return {(key, number): text for key, number, text in session.execute(query)}
