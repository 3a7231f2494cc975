"""Taking in a run that was generated or judged elsewhere: replies, and verdicts where they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from vivace.errors import UsageError
from vivace.files.content_hash import file_sha256
from vivace.files.text import json_rows
from vivace.models.adapters.replay import read_replies
from vivace.models.base import ModelIdentity, ModelReply
from vivace.spec import read_card
from vivace.store import tables
from vivace.store.database import Database
from vivace.store.records import add_event, insert_new
from vivace.store.visibility import THE_OPERATORS, Ownership
from vivace.tracks.base import Registered
from vivace.tracks.dialogue import ingest
from vivace.tracks.dialogue.data.conversations import Conversation, ConversationSet
from vivace.tracks.dialogue.data.readers import open_conversations
from vivace.tracks.dialogue.judging.results import score_judging
from vivace.tracks.dialogue.registration import Judges, register_run
from vivace.tracks.dialogue.taking_in.exported_items import GivenReply, GivenVerdict, is_items, read_items
from vivace_rubrics.criteria import Unscored
from vivace_rubrics.judges import JudgeCard

WHAT = "verdict file"


@dataclass(frozen=True)
class DialogueImport:
    """A checked file of replies and verdicts, ready to be recorded.

    Attributes:
        planned: the conversations that it is of, in the set's order.
        replies: by conversation and repeat; what is not there was not recorded.
        repeats: replies to each conversation.
        votes: on each criterion.
    """

    conversations: ConversationSet
    planned: Sequence[Conversation]
    replies: Mapping[tuple[str, int], GivenReply]
    identity: ModelIdentity
    judge: JudgeCard | None
    card: dict[str, Any]
    repeats: int = 1
    votes: int = 1

    def record(self, database: Database, ownership: Ownership = THE_OPERATORS) -> Registered:
        """Write it all in one transaction, and score it; a file recorded before changes nothing."""
        with database.write() as session:
            dataset = ingest.store_conversations(session, self.conversations, self.conversations.conversations, {})
            registered = register_run(
                session,
                dataset=dataset,
                identity=self.identity,
                card=self.card,
                judge=Judges(self.judge, self.votes) if self.judge else None,
                repeats=self.repeats,
                items=[conversation.id for conversation in self.planned],
                form="unknown",
                limited=len(self.planned) < len(self.conversations.conversations),
                imported=True,
                ownership=ownership,
            )
            if self._is_recorded(session, registered):
                return registered
            row_ids = ingest.conversation_ids(session, dataset.id)
            rows = [
                self._reply(self._given(conversation, repeat), row_ids[conversation.id], repeat, registered.run_id)
                for conversation in self.planned
                for repeat in range(self.repeats)
            ]
            insert_new(session, tables.Reply, rows)
            if registered.judging_id is not None:
                self._record_verdicts(session, registered, dataset.id, row_ids)
                score_judging(session, registered.judging_id)
            add_event(session, f"imported as {self.identity.name}", run_id=registered.run_id)
        return registered

    def _record_verdicts(
        self, session: Session, registered: Registered, dataset_id: int, row_ids: Mapping[str, int]
    ) -> None:
        criteria = {
            (row_id, number): criterion_id
            for row_id, number, criterion_id in session.execute(
                select(tables.Criterion.conversation_id, tables.Criterion.number, tables.Criterion.id)
                .join(tables.Conversation)
                .where(tables.Conversation.dataset_id == dataset_id)
            )
        }
        reply = tables.Reply
        query = select(reply.conversation_id, reply.repeat, reply.id).where(reply.run_id == registered.run_id)
        replies = {(row_id, repeat): id for row_id, repeat, id in session.execute(query)}
        verdicts = [
            {
                "judging_id": registered.judging_id,
                "reply_id": replies[row_ids[conversation.id], repeat],
                "criterion_id": criteria[row_ids[conversation.id], verdict.criterion],
                "vote": verdict.vote,
                "met": verdict.met,
                "unscored_reason": verdict.unscored_reason,
                "explanation": verdict.explanation,
            }
            for conversation in self.planned
            for repeat in range(self.repeats)
            for verdict in self._given(conversation, repeat).verdicts
        ]
        insert_new(session, tables.Verdict, verdicts)
        labels = [
            {
                "reply_id": replies[row_ids[conversation.id], repeat],
                "criterion_id": criteria[row_ids[conversation.id], verdict.criterion],
                "labeler": labeler,
                "met": met,
            }
            for conversation in self.planned
            for repeat in range(self.repeats)
            for verdict in self._given(conversation, repeat).verdicts
            for labeler, met in verdict.labels.items()
        ]
        insert_new(session, tables.HumanLabel, labels)

    def _is_recorded(self, session: Session, registered: Registered) -> bool:
        if registered.judging_id is not None:
            return session.get_one(tables.Judging, registered.judging_id).status == "ended"
        reply = tables.Reply
        return session.scalar(select(reply.id).where(reply.run_id == registered.run_id).limit(1)) is not None

    def _given(self, conversation: Conversation, repeat: int) -> GivenReply:
        return self.replies.get((conversation.id, repeat)) or _reply_of({}, len(conversation.criteria))

    def _reply(self, given: GivenReply, row_id: int, repeat: int, run_id: str) -> dict[str, Any]:
        unscored = None if given.unscored_reason is None else Unscored(given.unscored_reason)
        reply = ModelReply(
            given.text, unscored, raw_text=given.raw_text, ttft_s=given.ttft_s, total_s=given.total_s
        )  # fmt: skip
        return {
            "run_id": run_id,
            "conversation_id": row_id,
            "repeat": repeat,
            "text": reply.text,
            "raw_text": reply.raw_text,
            "ttft_s": reply.ttft_s,
            "total_s": reply.total_s,
            "unscored_reason": reply.unscored.value if reply.unscored else None,
        }


def prepare_import(
    data: str, verdicts: Path, model: str | None, judge_name: str | None, card: Path | None
) -> DialogueImport:
    """Read and check a file of verdicts, or of exported items, against its data; nothing is written.

    Args:
        data: as `--data` names it.
        verdicts: JSON lines of `id`, `response` and `criteria_met`, or what `vivace export` wrote of a judging.
        model: the model's name; None for what exported items say.
        judge_name: who judged; None for what exported items say, or where there are no verdicts.
        card: of the model.

    Raises:
        UsageError: an id the data lacks, a wrong number of criteria, a verdict that is none, no model's or judge's
            name.
    """
    conversations = open_conversations(data)
    known = {conversation.id: conversation for conversation in conversations.conversations}
    lines = json_rows(verdicts, WHAT)
    if is_items(lines[0][1]):
        exported = read_items(lines, known)
        planned = {id for id, _ in exported.replies}
        chosen = [one for one in conversations.conversations if one.id in planned]
        replies, repeats, votes = exported.replies, exported.repeats, exported.votes
        model, judge_name = model or exported.model, judge_name or exported.judge
    else:
        if model is None:
            raise UsageError("A verdict file names no model; say with --model whose replies they are.")
        chosen, repeats, votes = list(conversations.conversations), 1, 1
        replies = _replies_of(verdicts, known, conversations.name, judge_name)
    identity = ModelIdentity(
        f"import:{model}", "import", model, content_sha256=file_sha256(verdicts), is_named=True, is_recorded=True
    )  # fmt: skip
    return DialogueImport(
        conversations=conversations,
        planned=chosen,
        replies=replies,
        identity=identity,
        judge=None if judge_name is None else JudgeCard(f"import:{judge_name}", judge_name, "imported"),
        card=read_card(card) if card else {},
        repeats=repeats,
        votes=votes,
    )


def _replies_of(
    verdicts: Path, known: Mapping[str, Conversation], data: str, judge_name: str | None
) -> dict[tuple[str, int], GivenReply]:
    """What a verdict file gives, by conversation."""
    rows = read_replies(verdicts, WHAT)
    for key, row in rows.items():
        where = f"The {WHAT} '{verdicts}', id '{key}'"
        if key not in known:
            raise UsageError(f"{where}: the data '{data}' has no such conversation.")
        _check_verdicts(row.get("criteria_met"), len(known[key].criteria), where)
    judged = any(row.get("criteria_met") is not None for row in rows.values())
    if judged and not judge_name:
        raise UsageError("The file holds verdicts; say with --judge-name who gave them.")
    if judge_name and not judged:
        fields = ", ".join(sorted({field for row in rows.values() for field in row}))
        raise UsageError(
            f"The {WHAT} '{verdicts}' holds none of the verdicts that --judge-name says: they are read from "
            f'"criteria_met", and there is only {fields:.200}.'
        )
    return {(key, 0): _reply_of(row, len(known[key].criteria)) for key, row in rows.items()}


def _reply_of(row: Mapping[str, Any], criteria: int) -> GivenReply:
    """What a line of a verdict file says; an empty one says nothing."""
    text, given = row.get("response"), row.get("criteria_met")
    absent = Unscored.NOT_RECORDED.value
    return GivenReply(
        text,
        absent if text is None else None,
        [
            GivenVerdict(number, 0, met, absent if met is None else None)
            for number, met in enumerate(given if given is not None else [None] * criteria)
        ],
    )


def _check_verdicts(given: Any, expected: int, where: str) -> None:
    if given is None:
        return
    if not isinstance(given, list) or not all(met is None or isinstance(met, bool) for met in given):
        raise UsageError(f'{where}: "criteria_met" must be a list of true, false or null.')
    if len(given) != expected:
        raise UsageError(f"{where}: {len(given)} verdicts for {expected} rubric items.")
