"""Judged runs written straight into a store, for tests of what is computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from support.datasets import AXES
from vivace.machine.manifest import fingerprint
from vivace.store import tables
from vivace.tracks.dialogue.judging.results import score_judging

Outcomes = Sequence[Sequence[Sequence[bool | None]]]
"""For each conversation, for each reply to it, one entry per criterion; None is unscored."""


def add_dataset(
    session: Session,
    conversations: int,
    *,
    criteria: int = 2,
    turns: Sequence[int] = (2,),
    seconds: Sequence[float | None] = (None,),
    speakers: Sequence[str | None] = (None,),
    name: str = "set",
) -> int:
    """A dataset whose conversations take axes, numbers of turns, seconds per turn and speakers in turn."""
    dataset = tables.Dataset(fingerprint=fingerprint(name), name=name, revision=fingerprint(name), has_audio=True)
    session.add(dataset)
    session.flush()
    for place in range(conversations):
        conversation = tables.Conversation(
            dataset_id=dataset.id,
            external_id=f"{name}{place:03d}",
            position=place,
            axis=AXES[place % 4],
            speaker=speakers[place % len(speakers)],
        )
        session.add(conversation)
        session.flush()
        for number in range(1, turns[place % len(turns)] + 1):
            session.add(
                tables.Turn(
                    conversation_id=conversation.id,
                    number=number,
                    role="user",
                    transcript="Hello.",
                    audio_seconds=seconds[place % len(seconds)],
                )
            )
        for number in range(criteria):
            session.add(tables.Criterion(conversation_id=conversation.id, number=number, text=f"Criterion {number}"))
    session.flush()
    return dataset.id


def add_judging(
    session: Session,
    dataset_id: int,
    outcomes: Outcomes,
    *,
    name: str = "system",
    judge: str = "judge",
    parameters: dict[str, Any] | None = None,
    votes: dict[tuple[int, int, int], Sequence[bool | None]] | None = None,
    **run: Any,
) -> str:
    """A run of a model with its judging, scored as a run's end scores it; returns the judging's id.

    Args:
        outcomes: what came out of the dataset's first conversations.
        votes: (conversation, reply, criterion) → the single votes behind that verdict.
        run: more columns of the run.
    """
    model = _one(
        session,
        tables.Model,
        {"fingerprint": fingerprint([name, parameters])},
        {"target": f"litellm:{name}", "adapter": "litellm", "name": name, "parameters": parameters or {}},
    )
    judge_row = _one(
        session,
        tables.Judge,
        {"fingerprint": fingerprint(judge)},
        {"target": f"litellm:{judge}", "name": judge, "parameters": {}, "parser_version": "1"},
    )
    ordinal = len(session.scalars(select(tables.Run.id)).all())
    conversations = session.scalars(
        select(tables.Conversation)
        .where(tables.Conversation.dataset_id == dataset_id)
        .order_by(tables.Conversation.position)
    ).all()
    planned = conversations[: len(outcomes)]
    row = tables.Run(
        id=f"run{ordinal}",
        identity=f"identity{ordinal}",
        ordinal=0,
        dataset_id=dataset_id,
        model_id=model.id,
        repeats=len(outcomes[0]),
        items=[one.external_id for one in planned],
        limited=len(planned) < len(conversations),
        manifest={},
        **{"track": "audio-multichallenge", "input_form": "audio-16k", **run},
    )
    judging = tables.Judging(
        id=f"run{ordinal}.{judge}",
        run_id=row.id,
        judge_id=judge_row.id,
        votes=max((len(given) for given in (votes or {}).values()), default=1),
    )
    session.add(row)
    session.flush()
    session.add(judging)
    session.flush()
    for place, (conversation, replies) in enumerate(zip(planned, outcomes, strict=True)):
        criteria = session.scalars(
            select(tables.Criterion)
            .where(tables.Criterion.conversation_id == conversation.id)
            .order_by(tables.Criterion.number)
        ).all()
        for repeat, verdicts in enumerate(replies):
            reply = tables.Reply(
                run_id=row.id, conversation_id=conversation.id, repeat=repeat, text=f"Reply {repeat}."
            )
            session.add(reply)
            session.flush()
            for criterion, met in zip(criteria, verdicts, strict=True):
                given = (votes or {}).get((place, repeat, criterion.number), ())
                session.add_all(
                    tables.Verdict(
                        judging_id=judging.id,
                        reply_id=reply.id,
                        criterion_id=criterion.id,
                        vote=vote,
                        met=one,
                        unscored_reason="timeout" if one is None else None,
                    )
                    for vote, one in enumerate((met, *given))
                )
    session.flush()
    score_judging(session, judging.id)
    judging.ended_at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=ordinal)
    session.flush()
    return judging.id


def _one(session: Session, table: Any, key: dict[str, Any], values: dict[str, Any]) -> Any:
    found = session.scalars(select(table).filter_by(**key)).one_or_none()
    if found is None:
        found = table(**key, **values)
        session.add(found)
        session.flush()
    return found
