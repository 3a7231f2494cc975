"""One system on chosen conversations under one judge: planned, executed, and recorded as each part ends."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from vivace.audio.convert import AudioForm, for_model
from vivace.audio.digits import SpokenDigits
from vivace.models.base import NeedsKey, Prompt, RecordedSystem, SpokenTurn, SystemUnderTest
from vivace.models.client.cache import kept_answers
from vivace.output.short_names import with_method
from vivace.store import tables
from vivace.store.artifacts import Artifacts
from vivace.store.database import Database
from vivace.store.visibility import THE_OPERATORS, Ownership
from vivace.tracks.base import Ending, Registered, Workbench, finish_all
from vivace.tracks.dialogue import ingest
from vivace.tracks.dialogue.data.conversations import Conversation, ConversationSet
from vivace.tracks.dialogue.estimate import NO_PRICES, Prices, estimated
from vivace.tracks.dialogue.hearing import HearingOfRun, seconds_of_audio
from vivace.tracks.dialogue.items import DECISION, DialogueItem, OpenCriterion, open_items
from vivace.tracks.dialogue.judging.judges import OpenJudge, check_judge
from vivace.tracks.dialogue.judging.results import ending_of, score_judging
from vivace.tracks.dialogue.records import RunRecords
from vivace.tracks.dialogue.registration import register_run
from vivace.tracks.dialogue.summaries.gaps import renew_gaps
from vivace_rubrics.criteria import Verdict
from vivace_rubrics.votes import decision


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
        repeats: int = 1,
        digits: SpokenDigits | None = None,
        prices: Prices = NO_PRICES,
    ) -> None:
        """Put a run together.

        Args:
            repeats: replies to each conversation.
            digits: what the hearing check speaks; None for a run without one.
            prices: what is known of them beside litellm's list.

        Raises:
            UsageError: the judge can score none of the criteria.
        """
        check_judge(judge, (criterion for conversation in chosen for criterion in conversation.criteria))
        self._repeats = repeats
        self._digits = digits
        self._prices = prices
        self._seconds: dict[str, float] = {}
        """Conversation → the length of its recordings."""
        self._conversations = conversations
        self._chosen = chosen
        self._form = form
        self._system = system
        self._judge = judge
        self._card = card
        self._new_audio: dict[str, list[ingest.TurnAudio]] = {}
        self._turn_audio: dict[int, list[ingest.TurnAudio]] = {}
        self._records: RunRecords  # from its registration on

    def describe(self) -> dict[str, Any]:
        """What the run takes, for `--dry-run`."""
        identity = self._system.identity
        ids = {conversation.id for conversation in self._chosen}
        recorded = self._system.conversations if isinstance(self._system, RecordedSystem) else ids
        return {
            "model": with_method(identity.name, identity.method.name if identity.method else None),
            "judge": self._judge.card.name,
            "conversations": len(self._chosen),
            "user turns": sum(len(conversation.exchanges) for conversation in self._chosen),
            "minutes of audio": round(sum(self._seconds.values()) / 60, 1),
            "criteria": self._repeats * sum(len(conversation.criteria) for conversation in self._chosen),
            **estimated(
                self._chosen,
                seconds=self._seconds,
                repeats=self._repeats,
                asked=identity.target if self._generates else None,
                speaks=identity.parameters.get("output") == "audio",
                is_checked=self._sends_audio and self._digits is not None,
                judged=frozenset(ids & recorded),
                judge=self._judge,
                prices=self._prices,
            ),
        }

    @property
    def _generates(self) -> bool:
        """Whether replies are asked for, not recorded."""
        return not isinstance(self._system, RecordedSystem)

    @property
    def _sends_audio(self) -> bool:
        return self._generates and self._form != "transcript"

    def check_keys(self) -> None:
        """See that system and judge have the keys that they need; nothing is asked."""
        for each in (self._system, *(member.connection for member in self._judge.members)):
            if isinstance(each, NeedsKey):
                each.check_key()

    async def preflight(self) -> None:
        """See that system and judge can answer."""
        await self._system.preflight()
        await self._judge.preflight()

    def check(self, database: Database | None) -> None:
        """Decode the audio that the store does not hold yet."""
        if self._form != "transcript":
            stored = ingest.stored_seconds(database, self._conversations)
            fresh = [conversation for conversation in self._chosen if conversation.id not in stored]
            self._new_audio = ingest.check_audio(self._conversations, fresh)
            new = {key: sum(turn.seconds for turn in turns) for key, turns in self._new_audio.items()}
            self._seconds = {one.id: stored.get(one.id, new.get(one.id, 0.0)) for one in self._chosen}

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
        """Write or find conversations, model, judge, run and judging."""
        ingest.store_audio(self._conversations, self._new_audio, artifacts)
        with database.write() as session:
            dataset = ingest.store_conversations(session, self._conversations, self._chosen, self._new_audio)
            registered = register_run(
                session,
                dataset=dataset,
                identity=self._system.identity,
                card=self._card,
                judge=self._judge.judges,
                repeats=self._repeats,
                items=[conversation.id for conversation in self._chosen],
                form=self._form if self._form == "transcript" else f"audio-{self._form}",
                limited=len(self._chosen) < len(self._conversations.conversations),
                ownership=ownership,
                force=force,
                run_id=run_id,
                elsewhere=elsewhere,
            )
        self._records = RunRecords(registered)
        self._restore_audio(database, artifacts)
        return registered

    def _restore_audio(self, database: Database, artifacts: Artifacts) -> None:
        """Load the hashes of the turns' audio, and put back recordings that this machine's folder lacks."""
        self._turn_audio = {}
        if self._form == "transcript":
            return
        with database.read() as session:
            query = (
                select(tables.Conversation.id, tables.Conversation.external_id, tables.Turn)
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
            for row_id, external_id, turn in session.execute(query):
                audio = ingest.TurnAudio(str(turn.audio_sha256), turn.audio_seconds or 0.0)
                self._turn_audio.setdefault(row_id, []).append(audio)
                if external_id in chosen and not artifacts.has(audio.sha256):
                    missing[external_id].append(audio)
        ingest.store_audio(self._conversations, missing, artifacts)

    def plan(
        self, database: Database, registered: Registered, *, retry_errors: bool, part: slice | None = None
    ) -> Sequence[DialogueItem]:
        """The conversations that lack a reply or a verdict; with `retry_errors`, also the unscored ones."""
        with database.read() as session:
            chosen = self._chosen if part is None else self._chosen[part]
            return open_items(session, registered, chosen, self._repeats, retry_errors=retry_errors)

    @property
    def _audio_form(self) -> AudioForm:
        return "original" if self._form == "original" else "16k"

    async def begin(self, items: Sequence[DialogueItem], bench: Workbench) -> None:
        """Check that recordings are heard, before the first reply of a run that sends some."""
        if not self._sends_audio or all(item.reply_id is not None for item in items):
            return
        turns = max(len(conversation.exchanges) for conversation in self._chosen)
        await HearingOfRun(self._system, self._records, self._audio_form).check(bench, self._digits, turns)

    def spent(self, session: Session, registered: Registered) -> float:
        """What the run's calls have cost, those of all its judgings among them."""
        query = select(func.sum(tables.Attempt.cost_usd)).where(tables.Attempt.run_id == registered.run_id)
        return float(session.scalar(query) or 0.0)

    async def execute(self, item: DialogueItem, bench: Workbench) -> None:
        """Generate the reply where it is missing, then judge what is not judged; each is recorded as it ends."""
        reply_id, text = item.reply_id, item.reply_text
        if reply_id is None:
            reply_id, text = await self._generate(item, bench)
        if text is None:
            await bench.write(lambda session: self._records.record_no_reply(session, item, reply_id))
            return
        await finish_all(self._judge_one(item, reply_id, text, criterion, bench) for criterion in item.criteria)

    async def _generate(self, item: DialogueItem, bench: Workbench) -> tuple[int, str | None]:
        async with bench.call_slot():
            prompt = await asyncio.to_thread(self._prompt, item, bench.artifacts)
            seconds = seconds_of_audio(prompt)
            asking = self._system.reply(prompt)
            del prompt  # minutes of audio; whoever is asked lets go of them as soon as they are sent
            async with self._records.calls(bench, "generate", item, seconds) as calls:
                with kept_answers(bench.cache, item.repeat):
                    reply = await asking
            audio = await asyncio.to_thread(bench.artifacts.put, reply.audio) if reply.audio else None

            def record(session: Session) -> tuple[int, str | None]:
                self._records.record_calls(session, "generate", item, calls, seconds)
                recorded = self._records.record_reply(session, item, reply, audio)
                self._records.renew_effort_of_ended(session)
                return recorded

            recorded = await bench.write(record)
        bench.note(calls)
        return recorded

    def _prompt(self, item: DialogueItem, artifacts: Artifacts) -> Prompt:
        spoken = [SpokenTurn(None, exchange.user) for exchange in item.conversation.exchanges]
        if self._form != "transcript":
            spoken = [
                SpokenTurn(for_model(artifacts.get(audio.sha256), self._audio_form), None, audio.seconds)
                for audio in self._turn_audio[item.row_id]
            ]
        turns = [
            (turn, exchange.assistant)
            for turn, exchange in zip(spoken, item.conversation.exchanges, strict=True)
            if turn.audio or turn.text
        ]
        return Prompt(item.conversation.id, turns, item.repeat)

    async def _judge_one(
        self, item: DialogueItem, reply_id: int, text: str, criterion: OpenCriterion, bench: Workbench
    ) -> None:
        """Ask for the verdict, or for the votes that are missing, and record what they come to."""
        if self._judge.votes == 1:
            await self._vote(item, reply_id, text, criterion, DECISION, bench)
            return
        votes = dict(criterion.votes)

        async def cast(number: int) -> None:
            votes[number] = await self._vote(item, reply_id, text, criterion, number, bench)

        wanted = range(1, self._judge.votes + 1)
        await finish_all(cast(number) for number in wanted if number not in votes)
        decided = decision([votes[number] for number in wanted])
        await bench.write(
            lambda session: self._records.record_verdict(session, reply_id, criterion.row_id, decided, DECISION)
        )

    async def _vote(
        self,
        item: DialogueItem,
        reply_id: int,
        text: str,
        criterion: OpenCriterion,
        number: int,
        bench: Workbench,
    ) -> Verdict:
        conversation = item.conversation
        async with bench.call_slot():
            async with self._records.calls(bench, "judge", item, criterion_id=criterion.row_id) as calls:
                with kept_answers(bench.cache, item.repeat, number):
                    verdict = await self._judge.vote(
                        conversation.exchanges, text, conversation.criteria[criterion.number], max(0, number - 1)
                    )

            def record(session: Session) -> None:
                self._records.record_calls(session, "judge", item, calls, criterion_id=criterion.row_id)
                self._records.record_verdict(session, reply_id, criterion.row_id, verdict, number)

            await bench.write(record)
        bench.note(calls)
        return verdict

    def is_scored(self, session: Session, registered: Registered) -> bool:
        """Whether the judging has ended."""
        return session.get_one(tables.Judging, registered.judging_id).status == "ended"

    def reopen(self, session: Session, registered: Registered) -> None:
        """Take the judging off the board until it is scored again."""
        session.get_one(tables.Judging, registered.judging_id).status = "open"
        renew_gaps(session)

    def score(self, session: Session, registered: Registered) -> None:
        """Compute the judging's scores from its recorded verdicts, and say whether it is official."""
        assert registered.judging_id is not None
        score_judging(session, registered.judging_id)

    def ending(self, session: Session, registered: Registered) -> Ending:
        """Which criteria have no verdict, and why."""
        return ending_of(session, registered, is_recorded=self._system.identity.is_recorded)

    async def close(self) -> None:
        """Close the connections of system and judge."""
        await self._system.close()
        await self._judge.close()
