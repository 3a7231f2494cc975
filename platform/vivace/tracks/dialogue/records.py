"""Writes what a run's work came to, each part in the transaction of whoever did it: calls, replies, verdicts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import sqlalchemy
from sqlalchemy import select
from sqlalchemy.orm import Session

from vivace.errors import LeaseLostError
from vivace.models.base import ModelReply
from vivace.models.client.calls import CallRecord, recorded_calls
from vivace.models.hearing_check import Hearing
from vivace.store import tables
from vivace.store.columns import now
from vivace.store.records import add_event, insert_or_mend
from vivace.tracks.base import Registered, Workbench
from vivace.tracks.dialogue.items import DECISION, DialogueItem
from vivace.tracks.dialogue.judging.effort import renew_effort
from vivace_rubrics.criteria import Unscored, Verdict

_NEW_ATTEMPT = sqlalchemy.insert(tables.Attempt.__table__)  # type: ignore[arg-type]
"""Plain rows, not objects: there is one with every call."""


class RunRecords:
    """The rows of one run and its judging.

    Args:
        registered: the run, and the judging where there is one.
    """

    def __init__(self, registered: Registered) -> None:
        self._run_id = registered.run_id
        self._judging_id = registered.judging_id

    def recorded_hearing(self, session: Session) -> dict[str, Any]:
        """What is recorded of the check; without an outcome where it was stopped."""
        return session.get_one(tables.Run, self._run_id).hearing or {}

    def record_hearing(self, session: Session, values: dict[str, Any], hearing: Hearing | None = None) -> None:
        """Write how the check stands; one that has ended is also told in the log."""
        run = session.get_one(tables.Run, self._run_id)
        run.hearing = {**values, "checked_at": now().isoformat()}
        if hearing is not None:
            level = "info" if hearing.outcome == "passed" else "warning"
            add_event(session, f"hearing check: {hearing.sentence()}", run_id=run.id, level=level)

    def record_reply(
        self,
        session: Session,
        item: DialogueItem,
        reply: ModelReply,
        audio_sha256: str | None,
    ) -> tuple[int, str | None]:
        """Write a reply, in place of an unscored one; gives its row and its text, as they stand now."""
        key = {"run_id": self._run_id, "conversation_id": item.row_id, "repeat": item.repeat}
        values = {
            "text": reply.text,
            "raw_text": reply.raw_text,
            "audio_sha256": audio_sha256,
            "unscored_reason": _code(reply.unscored),
            "detail": reply.detail,
            "finish_reason": reply.finish_reason,
            "model_snapshot": reply.model_snapshot,
            "ttft_s": reply.ttft_s,
            "first_audio_s": reply.first_audio_s,
            "total_s": reply.total_s,
            "heard": _heard(reply, item),
            "kept_share": reply.kept_share,
            "created_at": now(),
        }
        insert_or_mend(session, tables.Reply, key, values)
        stored = session.execute(select(tables.Reply.id, tables.Reply.text).filter_by(**key)).one()
        return stored.id, stored.text

    def renew_effort_of_ended(self, session: Session) -> None:
        """Have the run's judgings that have ended say what their replies took, after one was made again.

        Not only once the judging that asked for it ends: it may be stopped before.
        """
        ended = select(tables.Judging.id).where(
            tables.Judging.run_id == self._run_id, tables.Judging.status == "ended"
        )
        if session.scalar(ended.limit(1)) is not None:
            session.flush()
            renew_effort(session, self._run_id)

    def record_no_reply(self, session: Session, item: DialogueItem, reply_id: int) -> None:
        """Write that nothing can be judged where there is no reply."""
        reply = session.get_one(tables.Reply, reply_id)
        verdict = Verdict(None, f"There is no reply: {reply.unscored_reason}.", Unscored.NO_REPLY)
        for criterion in item.criteria:
            self.record_verdict(session, reply_id, criterion.row_id, verdict, DECISION)

    def record_verdict(self, session: Session, reply_id: int, criterion_id: int, verdict: Verdict, vote: int) -> None:
        """Write one verdict, in place of an unscored one."""
        key = {
            "judging_id": self._judging_id,
            "reply_id": reply_id,
            "criterion_id": criterion_id,
            "vote": vote,
        }
        values = {
            "met": verdict.met,
            "unscored_reason": _code(verdict.unscored),
            "explanation": verdict.explanation,
            "created_at": now(),
        }
        insert_or_mend(session, tables.Verdict, key, values)

    @asynccontextmanager
    async def calls(
        self,
        bench: Workbench,
        stage: str,
        item: DialogueItem | None,
        seconds_sent: float | None = None,
        criterion_id: int | None = None,
    ) -> AsyncIterator[list[CallRecord]]:
        """The calls made inside; where they come to nothing they are recorded by themselves, for they were paid."""
        with recorded_calls() as calls:
            try:
                yield calls
            except BaseException:
                if calls:
                    with suppress(LeaseLostError):
                        await bench.write(
                            lambda session: self.record_calls(session, stage, item, calls, seconds_sent, criterion_id)
                        )
                    bench.note(calls)
                raise

    def record_calls(
        self,
        session: Session,
        stage: str,
        item: DialogueItem | None,
        calls: Sequence[CallRecord],
        seconds_sent: float | None = None,
        criterion_id: int | None = None,
    ) -> None:
        """Write the calls of one stage.

        Args:
            session: of the store.
            stage: `hear`, `generate` or `judge`; a call that was for something else says so itself.
            item: what they were for; None for the hearing check.
            calls: that were made.
            seconds_sent: of recordings, with each of them that does not say otherwise.
            criterion_id: the row of the criterion that was judged.
        """
        rows = [
            {
                **vars(call),
                "run_id": self._run_id,
                "judging_id": self._judging_id if stage == "judge" else None,
                "conversation_id": item.row_id if item else None,
                "criterion_id": criterion_id,
                "stage": call.stage or stage,
                "audio_seconds": _seconds_of(call, seconds_sent),
                "error": _code(call.error),
            }
            for call in calls
        ]
        if rows:
            session.connection().execute(_NEW_ATTEMPT, rows)


def _heard(reply: ModelReply, item: DialogueItem) -> list[dict[str, Any]] | None:
    """What the ear of a cascade heard of each turn, with the words that it got wrong; None where none has heard."""
    if not reply.heard:
        return None
    from vivace.statistics.word_errors import word_errors

    rows = []
    for turn in reply.heard:
        said = item.conversation.exchanges[turn.number - 1].user
        wrong = None if turn.text is None or not said else word_errors(said, turn.text)
        rows.append(
            {
                **vars(turn),
                "unscored": _code(turn.unscored),
                "errors": None if wrong is None else wrong.errors,
                "words": None if wrong is None else wrong.words,
            }
        )
    return rows


def _seconds_of(call: CallRecord, seconds_sent: float | None) -> float | None:
    """Seconds of recordings that a call sent; of one that was answered from the cache none."""
    if call.cached:
        return None
    return seconds_sent if call.audio_seconds is None else call.audio_seconds


def _code(reason: Unscored | None) -> str | None:
    """The reason as plain text: drivers have their own ideas of enumerations."""
    return reason.value if reason is not None else None
