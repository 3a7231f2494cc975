"""The track `audio-multichallenge`: each conversation gets one free reply, each rubric item one verdict."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from vivace.audio.convert import AudioForm, EncodedAudio, for_model
from vivace.errors import UsageError
from vivace.models.base import ModelReply, Prompt, SpokenTurn, SystemUnderTest
from vivace.models.calls import CallRecord, recorded_calls
from vivace.models.chat import ChatOptions
from vivace.models.registry import open_system
from vivace.spec import RunSpec, read_yaml
from vivace.store import tables
from vivace.store.artifacts import Artifacts
from vivace.store.database import Database
from vivace.store.records import insert
from vivace.tracks.base import Import, Registered, Workbench, finish_all
from vivace.tracks.dialogue import ingest
from vivace.tracks.dialogue.conversations import Conversation, ConversationSet
from vivace.tracks.dialogue.judging import OpenJudge, open_judge
from vivace.tracks.dialogue.readers import open_conversations
from vivace.tracks.dialogue.registration import TRACK, register_run
from vivace.tracks.dialogue.results import score_judging
from vivace_rubrics.criteria import Unscored, Verdict

CARD_KEYS = ("name", "organisation", "size", "open_weights", "licence", "description")

RETRYABLE = tuple(reason.value for reason in Unscored if reason is not Unscored.NO_CHECK)
"""What `--retry-errors` tries again."""


@dataclass(frozen=True)
class DialogueItem:
    """One conversation with what is not recorded of it yet."""

    conversation: Conversation
    row_id: int
    reply_id: int | None
    """The recorded reply; None where it has to be generated."""
    reply_text: str | None
    criteria: tuple[tuple[int, int], ...]
    """(place in the rubric, row id) of each criterion to judge."""


class DialogueTrack:
    """Audio MultiChallenge (arXiv 2512.14865)."""

    name = TRACK

    def prepare(self, spec: RunSpec) -> DialogueRun:
        """Read the conversations, and open the system under test and the judge."""
        if spec.model.startswith("recorded:"):
            from vivace.tracks.dialogue.rejudge import Rejudging

            return Rejudging(spec)
        conversations = open_conversations(spec.data)
        chosen = conversations.chosen(spec.items, spec.limit)
        form = spec.audio if conversations.has_audio else "transcript"
        options = ChatOptions(spec.api_base, spec.timeout, spec.retries)
        system = open_system(spec.model, spec.model_arg, options)
        judge = open_judge(spec, conversations)
        card = read_card(Path(spec.card)) if spec.card else {}
        return DialogueRun(conversations, chosen, form, system, judge, card)

    def prepare_import(
        self, data: str, results: Path, model: str, judge_name: str | None, card: Path | None
    ) -> Import:
        """Read and check replies and verdicts made elsewhere."""
        from vivace.tracks.dialogue.importing import prepare_import

        return prepare_import(data, results, model, judge_name, card)


class DialogueRun:
    """One system on chosen conversations under one judge."""

    def __init__(
        self,
        conversations: ConversationSet,
        chosen: tuple[Conversation, ...],
        form: str,
        system: SystemUnderTest,
        judge: OpenJudge,
        card: dict[str, Any],
    ) -> None:
        self._conversations = conversations
        self._chosen = chosen
        self._form = form
        self._system = system
        self._judge = judge
        self._card = card
        self._new_audio: dict[str, list[ingest.TurnAudio]] = {}
        self._turn_audio: dict[int, list[str]] = {}
        self._registered: Registered | None = None

    def describe(self) -> dict[str, Any]:
        """What the run takes, for `--dry-run`."""
        criteria = sum(len(conversation.criteria) for conversation in self._chosen)
        recordings = [turn.seconds for turns in self._new_audio.values() for turn in turns]
        return {
            "model": self._system.identity.name,
            "judge": self._judge.card.name,
            "conversations": len(self._chosen),
            "user turns": sum(len(conversation.exchanges) for conversation in self._chosen),
            "minutes of audio": round(sum(recordings) / 60, 1),
            "model calls": len(self._chosen) if self._system.identity.adapter != "replay" else 0,
            "criteria": criteria,
            "judge calls": criteria if self._judge.card.prompt else 0,
        }

    async def preflight(self) -> None:
        """See that system and judge can answer."""
        await self._system.preflight()
        await self._judge.preflight()

    def check(self, database: Database | None) -> None:
        """Decode the audio that the store does not hold yet."""
        if self._form != "transcript":
            fresh = ingest.without_stored_audio(database, self._conversations, self._chosen)
            self._new_audio = ingest.check_audio(self._conversations, fresh)

    def register(
        self, database: Database, artifacts: Artifacts, *, force: bool = False, run_id: str | None = None
    ) -> Registered:
        """Write or find conversations, model, judge, run and judging."""
        ingest.store_audio(self._conversations, self._new_audio, artifacts)
        with database.write() as session:
            dataset = ingest.store_conversations(session, self._conversations, self._chosen, self._new_audio)
            self._registered = register_run(
                session,
                dataset=dataset,
                identity=self._system.identity,
                card=self._card,
                judge=self._judge.card,
                items=[conversation.id for conversation in self._chosen],
                form=self._form if self._form == "transcript" else f"audio-{self._form}",
                limited=len(self._chosen) < len(self._conversations.conversations),
                force=force,
                run_id=run_id,
            )
        self._restore_audio(database, artifacts)
        return self._registered

    def _restore_audio(self, database: Database, artifacts: Artifacts) -> None:
        """Load the hashes of the turns' audio, and put back recordings that this machine's folder lacks."""
        self._turn_audio = {}
        if self._form == "transcript":
            return
        with database.read() as session:
            query = (
                select(tables.Conversation.id, tables.Conversation.external_id, tables.Turn.audio_sha256)
                .join(tables.Turn)
                .join(tables.Dataset)
                .where(
                    tables.Dataset.fingerprint == self._conversations.fingerprint,
                    tables.Turn.role == "user",
                    tables.Turn.audio_sha256.is_not(None),
                )
                .order_by(tables.Conversation.id, tables.Turn.number)
            )
            chosen = {conversation.id for conversation in self._chosen}
            missing: dict[str, list[ingest.TurnAudio]] = defaultdict(list)
            for row_id, external_id, sha256 in session.execute(query):
                self._turn_audio.setdefault(row_id, []).append(str(sha256))
                if external_id in chosen and not artifacts.has(str(sha256)):
                    missing[external_id].append(ingest.TurnAudio(str(sha256), 0.0))
        ingest.store_audio(self._conversations, missing, artifacts)

    def plan(self, database: Database, registered: Registered, *, retry_errors: bool) -> Sequence[DialogueItem]:
        """The conversations that lack a reply or a verdict; with `retry_errors`, also the unscored ones."""
        again = RETRYABLE if retry_errors else ()
        with database.read() as session:
            run = session.get_one(tables.Run, registered.run_id)
            row_ids = ingest.conversation_ids(session, run.dataset_id)
            replies = {
                reply.conversation_id: reply
                for reply in session.scalars(select(tables.Reply).where(tables.Reply.run_id == run.id))
                if reply.unscored_reason not in again or reply.unscored_reason is None
            }
            judged = {
                (reply_id, criterion_id)
                for reply_id, criterion_id, reason in session.execute(
                    select(
                        tables.Verdict.reply_id, tables.Verdict.criterion_id, tables.Verdict.unscored_reason
                    ).where(tables.Verdict.judging_id == registered.judging_id)
                )
                if reason is None or reason not in again
            }
            criteria: dict[int, list[tuple[int, int]]] = defaultdict(list)
            query = (
                select(tables.Criterion.conversation_id, tables.Criterion.number, tables.Criterion.id)
                .join(tables.Conversation)
                .where(tables.Conversation.dataset_id == run.dataset_id)
                .order_by(tables.Criterion.number)
            )
            for row_id, number, criterion_id in session.execute(query):
                criteria[row_id].append((number, criterion_id))
        items = []
        for conversation in self._chosen:
            row_id = row_ids[conversation.id]
            reply = replies.get(row_id)
            missing = tuple(
                (number, criterion_id)
                for number, criterion_id in criteria[row_id]
                if reply is None or (reply.id, criterion_id) not in judged
            )
            if reply is None or missing:
                items.append(
                    DialogueItem(
                        conversation,
                        row_id,
                        reply.id if reply else None,
                        reply.text if reply else None,
                        missing,
                    )
                )
        return items

    async def execute(self, item: DialogueItem, bench: Workbench) -> None:
        """Generate the reply where it is missing, then judge what is not judged; each is recorded as it ends."""
        reply_id, text = item.reply_id, item.reply_text
        if reply_id is None:
            reply_id, text = await self._generate(item, bench)
        if text is None:
            await bench.write(lambda session: self._record_no_reply(session, item, reply_id))
            return
        await finish_all(
            self._judge_one(item, reply_id, text, number, criterion_id, bench)
            for number, criterion_id in item.criteria
        )

    async def _generate(self, item: DialogueItem, bench: Workbench) -> tuple[int, str | None]:
        async with bench.call_slot():
            prompt = await asyncio.to_thread(self._prompt, item, bench.artifacts)
            with recorded_calls() as calls:
                reply = await self._system.reply(prompt)
            audio = await asyncio.to_thread(bench.artifacts.put, reply.audio) if reply.audio else None
            return await bench.write(lambda session: self._record_reply(session, item, reply, audio, calls))

    def _prompt(self, item: DialogueItem, artifacts: Artifacts) -> Prompt:
        spoken: list[EncodedAudio | None] = [None] * len(item.conversation.exchanges)
        if self._form != "transcript":
            form: AudioForm = "original" if self._form == "original" else "16k"
            spoken = [for_model(artifacts.get(sha256), form) for sha256 in self._turn_audio[item.row_id]]
        turns = [
            (SpokenTurn(audio, None if audio else exchange.user), exchange.assistant)
            for audio, exchange in zip(spoken, item.conversation.exchanges, strict=True)
            if audio or exchange.user
        ]
        return Prompt(item.conversation.id, turns)

    async def _judge_one(
        self,
        item: DialogueItem,
        reply_id: int,
        text: str,
        number: int,
        criterion_id: int,
        bench: Workbench,
    ) -> None:
        conversation = item.conversation
        async with bench.call_slot():
            with recorded_calls() as calls:
                verdict = await self._judge.judge(conversation.exchanges, text, conversation.criteria[number])

            def record(session: Session) -> None:
                self._record_calls(session, "judge", item, calls, criterion_id)
                self._record_verdict(session, reply_id, criterion_id, verdict)

            await bench.write(record)

    def _record_reply(
        self,
        session: Session,
        item: DialogueItem,
        reply: ModelReply,
        audio_sha256: str | None,
        calls: Sequence[CallRecord],
    ) -> tuple[int, str | None]:
        assert self._registered is not None
        self._record_calls(session, "generate", item, calls)
        key = {"run_id": self._registered.run_id, "conversation_id": item.row_id, "repeat": 0}
        values = {
            "text": reply.text,
            "audio_sha256": audio_sha256,
            "unscored_reason": _code(reply.unscored),
            "detail": reply.detail,
            "finish_reason": reply.finish_reason,
            "model_snapshot": reply.model_snapshot,
            "ttft_s": reply.ttft_s,
            "first_audio_s": reply.first_audio_s,
            "total_s": reply.total_s,
            "created_at": tables.now(),
        }
        # A reply that is there stays; only a failure gives way to what a later try brought.
        statement = insert(session, tables.Reply).values(**key, **values)
        session.execute(
            statement.on_conflict_do_update(
                index_elements=list(key), set_=values, where=tables.Reply.unscored_reason.is_not(None)
            )
        )
        stored = session.execute(select(tables.Reply.id, tables.Reply.text).filter_by(**key)).one()
        return stored.id, stored.text

    def _record_no_reply(self, session: Session, item: DialogueItem, reply_id: int) -> None:
        reply = session.get_one(tables.Reply, reply_id)
        verdict = Verdict(None, f"There is no reply: {reply.unscored_reason}.", Unscored.NO_REPLY)
        for _, criterion_id in item.criteria:
            self._record_verdict(session, reply_id, criterion_id, verdict)

    def _record_verdict(self, session: Session, reply_id: int, criterion_id: int, verdict: Verdict) -> None:
        assert self._registered is not None
        key = {
            "judging_id": self._registered.judging_id,
            "reply_id": reply_id,
            "criterion_id": criterion_id,
            "vote": 0,
        }
        values = {
            "met": verdict.met,
            "unscored_reason": _code(verdict.unscored),
            "explanation": verdict.explanation,
            "created_at": tables.now(),
        }
        statement = insert(session, tables.Verdict).values(**key, **values)
        session.execute(
            statement.on_conflict_do_update(
                index_elements=list(key), set_=values, where=tables.Verdict.unscored_reason.is_not(None)
            )
        )

    def _record_calls(
        self,
        session: Session,
        stage: str,
        item: DialogueItem,
        calls: Sequence[CallRecord],
        criterion_id: int | None = None,
    ) -> None:
        assert self._registered is not None
        session.add_all(
            tables.Attempt(
                run_id=self._registered.run_id,
                judging_id=self._registered.judging_id if stage == "judge" else None,
                conversation_id=item.row_id,
                criterion_id=criterion_id,
                stage=stage,
                **{**vars(call), "error": _code(call.error)},
            )
            for call in calls
        )

    def is_scored(self, session: Session, registered: Registered) -> bool:
        """Whether the judging has ended."""
        return session.get_one(tables.Judging, registered.judging_id).status == "ended"

    def reopen(self, session: Session, registered: Registered) -> None:
        """Take the judging off the board until it is scored again."""
        session.get_one(tables.Judging, registered.judging_id).status = "open"

    def score(self, session: Session, registered: Registered) -> None:
        """Compute the judging's scores from its recorded verdicts, and say whether it is official."""
        assert registered.judging_id is not None
        score_judging(session, registered.judging_id)

    async def close(self) -> None:
        """Close the connections of system and judge."""
        await self._system.close()
        await self._judge.close()


def _code(reason: Unscored | None) -> str | None:
    """The reason as plain text: drivers have their own ideas of enumerations."""
    return reason.value if reason is not None else None


def read_card(path: Path) -> dict[str, Any]:
    """A model's card: a YAML file with any of the keys `CARD_KEYS`.

    Raises:
        UsageError: it cannot be read, or holds another key.
    """
    card = read_yaml(path, "card")
    if not isinstance(card, dict):
        raise UsageError(f"The card '{path}' must hold keys and values.")
    unknown = sorted(set(map(str, card)) - set(CARD_KEYS))
    if unknown:
        raise UsageError(f"The card '{path}' has the unknown key '{unknown[0]}'; it takes {', '.join(CARD_KEYS)}.")
    for key, value in card.items():
        wanted = {"open_weights": (bool,), "size": (str, int, float)}.get(key, (str,))
        if value is not None and not isinstance(value, wanted):
            kind = "true or false" if key == "open_weights" else "text"
            raise UsageError(f"The card '{path}' must give '{key}' as {kind}, not {value!r}.")
    return {key: card[key] for key in CARD_KEYS if card.get(key) is not None}
