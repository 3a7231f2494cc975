"""Taking in a run that was generated or judged elsewhere: replies, and verdicts where they are given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from vivace.errors import UsageError
from vivace.files.content_hash import file_sha256
from vivace.models.adapters.replay import read_replies
from vivace.models.base import ModelIdentity, ModelReply
from vivace.spec import read_card
from vivace.store import tables
from vivace.store.database import Database
from vivace.store.records import add_event, insert_new
from vivace.tracks.base import Registered
from vivace.tracks.dialogue import ingest
from vivace.tracks.dialogue.data.conversations import Conversation, ConversationSet
from vivace.tracks.dialogue.data.readers import open_conversations
from vivace.tracks.dialogue.registration import Judges, register_run
from vivace.tracks.dialogue.results import score_judging
from vivace_rubrics.criteria import Unscored
from vivace_rubrics.judges import JudgeCard

WHAT = "verdict file"


@dataclass(frozen=True)
class DialogueImport:
    """A checked file of replies and verdicts, ready to be recorded."""

    conversations: ConversationSet
    rows: dict[str, dict[str, Any]]
    identity: ModelIdentity
    judge: JudgeCard | None
    card: dict[str, Any]

    def record(self, database: Database) -> Registered:
        """Write it all in one transaction, and score it; a file recorded before changes nothing."""
        everything = self.conversations.conversations
        with database.write() as session:
            dataset = ingest.store_conversations(session, self.conversations, everything, {})
            registered = register_run(
                session,
                dataset=dataset,
                identity=self.identity,
                card=self.card,
                judge=Judges(self.judge) if self.judge else None,
                items=[conversation.id for conversation in everything],
                form="unknown",
                limited=False,
                imported=True,
            )
            if self._is_recorded(session, registered):
                return registered
            row_ids = ingest.conversation_ids(session, dataset.id)
            insert_new(
                session,
                tables.Reply,
                [
                    self._reply(conversation, row_ids[conversation.id], registered.run_id)
                    for conversation in everything
                ],
            )
            if registered.judging_id is not None:
                criteria = {
                    (row_id, number): criterion_id
                    for row_id, number, criterion_id in session.execute(
                        select(tables.Criterion.conversation_id, tables.Criterion.number, tables.Criterion.id)
                        .join(tables.Conversation)
                        .where(tables.Conversation.dataset_id == dataset.id)
                    )
                }
                replies = dict(
                    session.execute(
                        select(tables.Reply.conversation_id, tables.Reply.id).where(
                            tables.Reply.run_id == registered.run_id
                        )
                    ).all()
                )
                verdicts = []
                for conversation in everything:
                    row_id = row_ids[conversation.id]
                    for number, met in enumerate(self._verdicts(conversation)):
                        verdicts.append(
                            {
                                "judging_id": registered.judging_id,
                                "reply_id": replies[row_id],
                                "criterion_id": criteria[(row_id, number)],
                                "met": met,
                                "unscored_reason": None if met is not None else Unscored.NOT_RECORDED.value,
                                "explanation": None,
                            }
                        )
                insert_new(session, tables.Verdict, verdicts)
                score_judging(session, registered.judging_id)
            add_event(session, f"imported as {self.identity.name}", run_id=registered.run_id)
        return registered

    def _is_recorded(self, session: Session, registered: Registered) -> bool:
        if registered.judging_id is not None:
            return session.get_one(tables.Judging, registered.judging_id).status == "ended"
        reply = tables.Reply
        return session.scalar(select(reply.id).where(reply.run_id == registered.run_id).limit(1)) is not None

    def _reply(self, conversation: Conversation, row_id: int, run_id: str) -> dict[str, Any]:
        text = self.rows.get(conversation.id, {}).get("response")
        reply = ModelReply(text, Unscored.NOT_RECORDED if text is None else None)
        return {
            "run_id": run_id,
            "conversation_id": row_id,
            "text": reply.text,
            "raw_text": reply.raw_text,
            "unscored_reason": reply.unscored.value if reply.unscored else None,
        }

    def _verdicts(self, conversation: Conversation) -> list[bool | None]:
        given: list[bool | None] | None = self.rows.get(conversation.id, {}).get("criteria_met")
        return given if given is not None else [None] * len(conversation.criteria)


def prepare_import(
    data: str, verdicts: Path, model: str, judge_name: str | None, card: Path | None
) -> DialogueImport:
    """Read and check a file of `id`, `response` and `criteria_met` against its data; nothing is written.

    Raises:
        UsageError: an id the data lacks, a wrong number of criteria, a verdict that is none, no judge's name.
    """
    conversations = open_conversations(data)
    rows = read_replies(verdicts, WHAT)
    by_id = {conversation.id: conversation for conversation in conversations.conversations}
    for key, row in rows.items():
        where = f"The {WHAT} '{verdicts}', id '{key}'"
        if key not in by_id:
            raise UsageError(f"{where}: the data '{conversations.name}' has no such conversation.")
        _check_verdicts(row.get("criteria_met"), len(by_id[key].criteria), where)
    judged = any(row.get("criteria_met") is not None for row in rows.values())
    if judged and not judge_name:
        raise UsageError("The file holds verdicts; say with --judge-name who gave them.")
    if judge_name and not judged:
        fields = ", ".join(sorted({field for row in rows.values() for field in row}))
        raise UsageError(
            f"The {WHAT} '{verdicts}' holds none of the verdicts that --judge-name says: they are read from "
            f'"criteria_met", and there is only {fields:.200}.'
        )
    content = file_sha256(verdicts)
    return DialogueImport(
        conversations=conversations,
        rows=rows,
        identity=ModelIdentity(f"import:{model}", "import", model, content_sha256=content, is_named=True),
        judge=JudgeCard(f"import:{judge_name}", judge_name, "imported") if judged and judge_name else None,
        card=read_card(card) if card else {},
    )


def _check_verdicts(given: Any, expected: int, where: str) -> None:
    if given is None:
        return
    if not isinstance(given, list) or not all(met is None or isinstance(met, bool) for met in given):
        raise UsageError(f'{where}: "criteria_met" must be a list of true, false or null.')
    if len(given) != expected:
        raise UsageError(f"{where}: {len(given)} verdicts for {expected} rubric items.")
