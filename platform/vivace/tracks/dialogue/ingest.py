"""Writing a set of conversations into the store, so that results can be read without the dataset at hand."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.orm import Session

from vivace.audio.convert import AudioError, seconds_of
from vivace.errors import UsageError
from vivace.store import tables
from vivace.store.artifacts import Artifacts
from vivace.store.database import Database
from vivace.store.records import ensure, insert_new
from vivace.tracks.dialogue.data.conversations import Conversation, ConversationSet


@dataclass(frozen=True)
class TurnAudio:
    """What the store keeps of a user turn's recording."""

    sha256: str
    seconds: float


def stored_seconds(database: Database | None, conversations: ConversationSet) -> dict[str, float]:
    """Conversation → the length of its recordings, of those whose audio is in the store already."""
    if database is None:
        return {}
    with database.read() as session:
        query = (
            select(tables.Conversation.external_id, func.sum(tables.Turn.audio_seconds))
            .join(tables.Dataset)
            .join(tables.Turn)
            .where(
                tables.Dataset.fingerprint == conversations.fingerprint,
                tables.Turn.role == "user",
                tables.Turn.audio_sha256.is_not(None),
            )
            .group_by(tables.Conversation.external_id)
        )
        return {key: float(seconds or 0.0) for key, seconds in session.execute(query)}


def check_audio(conversations: ConversationSet, chosen: Sequence[Conversation]) -> dict[str, list[TurnAudio]]:
    """Decode every recording of these conversations once: conversation id → its turns' hash and length.

    Raises:
        UsageError: a recording does not decode; its conversation and turn are named.
    """
    found: dict[str, list[TurnAudio]] = {}
    if not chosen:
        return found
    for conversation, recordings in conversations.recordings(chosen):
        turns = []
        for number, content in enumerate(recordings, start=1):
            try:
                seconds = seconds_of(content)
            except AudioError as error:
                raise UsageError(
                    f"Conversation '{conversation.id}', user turn {number}: {error}; mend or leave out that "
                    "conversation (--items)."
                ) from error
            turns.append(TurnAudio(hashlib.sha256(content).hexdigest(), seconds))
        found[conversation.id] = turns
    return found


def store_audio(conversations: ConversationSet, audio: dict[str, list[TurnAudio]], artifacts: Artifacts) -> None:
    """Store the recordings of checked conversations as artifacts."""
    chosen = [conversation for conversation in conversations.conversations if conversation.id in audio]
    missing = [
        conversation
        for conversation in chosen
        if not all(artifacts.has(turn.sha256) for turn in audio[conversation.id])
    ]
    if missing:
        for _, recordings in conversations.recordings(missing):
            for content in recordings:
                artifacts.put(content)


def store_conversations(
    session: Session,
    conversations: ConversationSet,
    chosen: Sequence[Conversation],
    audio: dict[str, list[TurnAudio]],
) -> tables.Dataset:
    """Write dataset, conversations, turns and criteria; what is there stays, audio is added where it is new.

    A new revision of a set whose items are hidden is hidden, too.
    """
    of_this_name = select(func.max(tables.Dataset.hidden_since)).where(tables.Dataset.name == conversations.name)
    dataset = ensure(
        session,
        tables.Dataset,
        {"fingerprint": conversations.fingerprint},
        {
            "name": conversations.name,
            "revision": conversations.revision,
            "has_audio": conversations.has_audio,
            "hidden_since": session.scalar(of_this_name),
        },
    )
    dataset.conversations = len(conversations.conversations)
    positions = {conversation.id: place for place, conversation in enumerate(conversations.conversations)}
    insert_new(
        session,
        tables.Conversation,
        [
            {
                "dataset_id": dataset.id,
                "external_id": conversation.id,
                "position": positions[conversation.id],
                "axis": str(conversation.axis),
                "speaker": conversation.speaker,
            }
            for conversation in chosen
        ],
    )
    ids = conversation_ids(session, dataset.id)
    turns = [turn for conversation in chosen for turn in _turns(conversation, ids[conversation.id])]
    criteria = [
        {
            "conversation_id": ids[conversation.id],
            "number": number,
            "text": criterion.text,
            "machine_check": criterion.machine_check,
        }
        for conversation in chosen
        for number, criterion in enumerate(conversation.criteria)
    ]
    insert_new(session, tables.Turn, turns)
    insert_new(session, tables.Criterion, criteria)
    _add_recordings(session, ids, audio)
    return dataset


def _add_recordings(session: Session, ids: dict[str, int], audio: dict[str, list[TurnAudio]]) -> None:
    """Note at the user turns of some conversations which recordings they have."""
    recordings = [
        {"of": ids[key], "place": number, "sha256": recording.sha256, "seconds": recording.seconds}
        for key, heard in audio.items()
        for number, recording in enumerate(heard, start=1)
    ]
    if recordings:
        turn = tables.Turn.__table__
        session.connection().execute(
            update(turn)  # type: ignore[arg-type]
            .where(
                turn.c.conversation_id == bindparam("of"),
                turn.c.number == bindparam("place"),
                turn.c.role == "user",
            )
            .values(audio_sha256=bindparam("sha256"), audio_seconds=bindparam("seconds")),
            recordings,
        )


def conversation_ids(session: Session, dataset_id: int) -> dict[str, int]:
    """The dataset's own conversation ids → row ids."""
    query = select(tables.Conversation.external_id, tables.Conversation.id).where(
        tables.Conversation.dataset_id == dataset_id
    )
    return dict(session.execute(query).all())


def _turns(conversation: Conversation, row_id: int) -> list[dict[str, Any]]:
    turns = []
    for number, exchange in enumerate(conversation.exchanges, start=1):
        for role, text in (("user", exchange.user), ("assistant", exchange.assistant)):
            if role == "user" or text is not None:
                turns.append({"conversation_id": row_id, "number": number, "role": role, "transcript": text})
    return turns
