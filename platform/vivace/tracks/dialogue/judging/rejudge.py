"""Judging recorded replies again: from the store alone, without the data set at hand and without generating."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from vivace.errors import UsageError
from vivace.models.base import ModelIdentity, ModelReply, Prompt
from vivace.models.client.providers.prices import parse_price
from vivace.spec import RECORDED, DialogueSpec
from vivace.store import tables
from vivace.store.artifacts import Artifacts
from vivace.store.database import Database
from vivace.store.visibility import THE_OPERATORS, Ownership
from vivace.tracks.base import Registered
from vivace.tracks.dialogue.data.conversations import Conversation, ConversationSet
from vivace.tracks.dialogue.estimate import Prices
from vivace.tracks.dialogue.items import DialogueItem
from vivace.tracks.dialogue.judging.judges import open_judge
from vivace.tracks.dialogue.records import RunRecords
from vivace.tracks.dialogue.registration import register_judging
from vivace.tracks.dialogue.run import DialogueRun
from vivace_rubrics.criteria import Criterion, Exchange


@dataclass(frozen=True)
class NoTable:
    """Stands where a data set's table stands: the store holds what was said and asked, and that is enough."""

    source: str = "the store"
    columns: Sequence[str] = ()

    def rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """No rows: whoever judges text reads none."""
        return iter(())


@dataclass(frozen=True)
class SystemOfRecord:
    """Stands where the system under test stands, and answers nothing: every reply is recorded already."""

    identity: ModelIdentity

    async def preflight(self) -> None:
        """Nothing to reach."""

    async def reply(self, prompt: Prompt) -> ModelReply:
        """Never asked: a run is only taken when all of its replies are there."""
        raise AssertionError(f"the reply to '{prompt.conversation_id}' is recorded")

    async def close(self) -> None:
        """Nothing to release."""


@dataclass(frozen=True)
class RecordedRun:
    """A run as the store has it: what was asked, and what was answered."""

    id: str
    identity: ModelIdentity
    conversations: ConversationSet
    """Those that the run planned; its prompt is the data set's own where some judging has used it."""
    repeats: int
    replies: dict[tuple[str, int], tables.Reply]
    """(conversation, repeat) → the reply, or the reason why there is none."""


def recorded_run(database: Database, run_id: str) -> RecordedRun:
    """Read a run with its conversations and replies.

    Raises:
        UsageError: there is no such run, it was retracted, or some of its replies are still missing.
    """
    with database.read() as session:
        run = session.get(tables.Run, run_id)
        if run is None:
            raise UsageError(f"There is no run '{run_id}'; `vivace leaderboard --format json` shows the ids.")
        if run.retracted_at is not None:
            raise UsageError(f"Run {run_id} was retracted ({run.retraction_reason}), so it is not judged again.")
        dataset = session.get_one(tables.Dataset, run.dataset_id)
        model = session.get_one(tables.Model, run.model_id)
        stored = _conversations(session, run.dataset_id)
        query = (
            select(tables.Conversation.external_id, tables.Reply)
            .join(tables.Reply, tables.Reply.conversation_id == tables.Conversation.id)
            .where(tables.Reply.run_id == run_id)
        )
        replies = {(external_id, reply.repeat): reply for external_id, reply in session.execute(query)}
        own_prompt = _own_prompt(session, run.dataset_id)
    planned = [(item, repeat) for repeat in range(run.repeats) for item in run.items]
    missing = [key for key in planned if key not in replies]
    if missing:
        raise UsageError(
            f"Run {run_id} lacks {len(missing)} of its {len(planned)} replies; "
            "finish it first, with the command that began it."
        )
    conversations = ConversationSet(
        name=dataset.name,
        revision=dataset.revision,
        conversations=tuple(stored[item] for item in run.items),
        has_audio=dataset.has_audio,
        judge_prompt=own_prompt,
        table=NoTable(),
    )
    identity = ModelIdentity(model.target, model.adapter, model.name, model.address, model.parameters)
    return RecordedRun(run_id, identity, conversations, run.repeats, replies)


def _conversations(session: Session, dataset_id: int) -> dict[str, Conversation]:
    """The stored conversations of a data set, in the very form in which its reader made them."""
    turns: dict[int, dict[int, dict[str, str | None]]] = defaultdict(lambda: defaultdict(dict))
    for turn in session.scalars(
        select(tables.Turn)
        .join(tables.Conversation)
        .where(tables.Conversation.dataset_id == dataset_id)
        .order_by(tables.Turn.number)
    ):
        turns[turn.conversation_id][turn.number][turn.role] = turn.transcript
    criteria: dict[int, list[Criterion]] = defaultdict(list)
    for criterion in session.scalars(
        select(tables.Criterion)
        .join(tables.Conversation)
        .where(tables.Conversation.dataset_id == dataset_id)
        .order_by(tables.Criterion.number)
    ):
        criteria[criterion.conversation_id].append(Criterion(criterion.text, criterion.machine_check))
    return {
        row.external_id: Conversation(
            row.external_id,
            row.axis,
            tuple(Exchange(said.get("user"), said.get("assistant")) for said in turns[row.id].values()),
            tuple(criteria[row.id]),
        )
        for row in session.scalars(select(tables.Conversation).where(tables.Conversation.dataset_id == dataset_id))
    }


def _own_prompt(session: Session, dataset_id: int) -> str | None:
    """The judge prompt that the data set brought when it was last judged with it."""
    return session.scalar(
        select(tables.Judge.prompt)
        .join(tables.Judging, tables.Judging.judge_id == tables.Judge.id)
        .join(tables.Run, tables.Judging.run_id == tables.Run.id)
        .where(tables.Run.dataset_id == dataset_id, tables.Judge.prompt_name == "dataset")
        .order_by(tables.Judging.created_at.desc())
        .limit(1)
    )


class Rejudging(DialogueRun):
    """A recorded run under another judge.

    Only `check` is given the store, so it does what other runs do when they are made.

    Args:
        spec: with `recorded:RUN` as its data and as its model.

    Raises:
        UsageError: the spec also says what is to be generated.
    """

    def __init__(self, spec: DialogueSpec) -> None:
        if spec.data != spec.model:
            raise UsageError(f"'{spec.model}' takes its conversations from the store; give it as the data, too.")
        generating = {"items": spec.items, "limit": spec.limit, "card": spec.card, "api-base": spec.api_base}
        for key, given in {**generating, "model-arg": spec.model_arg}.items():
            if given:
                raise UsageError(f"'{spec.model}' is judged as it is recorded; leave out '{key}'.")
        self._spec = spec

    def check(self, database: Database | None) -> None:
        """Read the run from the store, and open the judge."""
        run_id = self._spec.model.removeprefix(RECORDED)
        if database is None:
            raise UsageError(f"There is no database yet, so there is no run '{run_id}'.")
        self._recorded = recorded_run(database, run_id)
        conversations = self._recorded.conversations
        super().__init__(
            conversations,
            conversations.conversations,
            "transcript",
            SystemOfRecord(self._recorded.identity),
            open_judge(self._spec, conversations.judge_prompt),
            {},
            self._recorded.repeats,
            prices=Prices(judge=parse_price(self._spec.judge_price)),
        )

    @property
    def _generates(self) -> bool:
        return False

    def register(
        self,
        database: Database,
        artifacts: Artifacts,
        *,
        ownership: Ownership = THE_OPERATORS,
        force: bool = False,
        run_id: str | None = None,
        elsewhere: bool = False,
    ) -> Registered:
        """Write or find the judging; the run itself is there."""
        with database.write() as session:
            registered = register_judging(session, self._recorded.id, self._judge.judges)
        self._records = RunRecords(registered)
        return registered

    def plan(
        self, database: Database, registered: Registered, *, retry_errors: bool, part: slice | None = None
    ) -> Sequence[DialogueItem]:
        """What lacks a verdict. A reply that failed when it was generated is not tried again, only a verdict."""
        replies = self._recorded.replies
        return [
            item
            if item.reply_id is not None
            else replace(item, reply_id=replies[item.conversation.id, item.repeat].id)
            for item in super().plan(database, registered, retry_errors=retry_errors, part=part)
        ]
