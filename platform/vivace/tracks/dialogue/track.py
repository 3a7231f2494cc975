"""The track `audio-multichallenge`: each conversation gets one free reply, each rubric item one verdict."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from vivace.audio.convert import AudioForm, for_model
from vivace.audio.digits import VOICED, SpokenDigits, read_digits
from vivace.errors import LeaseLostError, UsageError
from vivace.models.base import ModelReply, NeedsKey, Prompt, RecordedSystem, SpokenOutput, SpokenTurn, SystemUnderTest
from vivace.models.client.cache import kept_answers
from vivace.models.client.calls import CallRecord, ChatOptions, recorded_calls
from vivace.models.client.prices import has_price, parse_price
from vivace.models.hearing import MOST_TURNS, Hearing, Probe, check_hearing, read_probes, stored_probes
from vivace.models.registry import open_system
from vivace.output.short_names import with_method
from vivace.spec import DialogueSpec, RunSpec, is_rejudging, read_card
from vivace.store import tables
from vivace.store.artifacts import Artifacts
from vivace.store.database import Database
from vivace.store.records import add_event, insert_or_mend
from vivace.tracks.base import Ending, Import, Registered, Workbench, finish_all
from vivace.tracks.dialogue import ingest
from vivace.tracks.dialogue.data.conversations import Conversation, ConversationSet
from vivace.tracks.dialogue.data.readers import open_conversations
from vivace.tracks.dialogue.estimate import NO_PRICES, Prices, estimated
from vivace.tracks.dialogue.judging import OpenJudge, check_judge, open_judge
from vivace.tracks.dialogue.registration import TRACK, register_run
from vivace.tracks.dialogue.results import score_judging
from vivace_rubrics.criteria import Unscored, Verdict
from vivace_rubrics.votes import decision

RETRYABLE = frozenset(reason.value for reason in Unscored if reason not in (Unscored.NO_CHECK, Unscored.NO_MAJORITY))
"""What `--retry-errors` tries again; of votes without a majority, those that were not given."""

_NEW_ATTEMPT = sqlalchemy.insert(tables.Attempt.__table__)  # type: ignore[arg-type]
"""Plain rows, not objects: there is one with every call."""

DECISION = 0
"""The vote that counts: the only one, or what the votes from 1 on have come to."""


@dataclass(frozen=True)
class OpenCriterion:
    """One criterion that lacks its verdict."""

    number: int
    """Its place in the rubric."""
    row_id: int
    votes: dict[int, Verdict]
    """The votes recorded already, by their numbers from 1; empty where only one is asked for."""


@dataclass(frozen=True)
class DialogueItem:
    """One generation for one conversation, with what is not recorded of it yet."""

    conversation: Conversation
    row_id: int
    repeat: int
    reply_id: int | None
    """The recorded reply; None where it has to be generated."""
    reply_text: str | None
    criteria: tuple[OpenCriterion, ...]


class DialogueTrack:
    """Audio MultiChallenge (arXiv 2512.14865)."""

    name = TRACK

    def prepare(self, spec: RunSpec, home: Path) -> DialogueRun:
        """Read the conversations, and open the system under test and the judge."""
        assert isinstance(spec, DialogueSpec)
        require_prices(spec)
        if is_rejudging(spec.model):
            from vivace.tracks.dialogue.rejudge import Rejudging

            return Rejudging(spec)
        conversations = open_conversations(spec.data)
        chosen = conversations.chosen(spec.items, spec.limit)
        form = spec.audio if conversations.has_audio else "transcript"
        options = ChatOptions(
            spec.api_base,
            spec.timeout,
            spec.retries,
            spec.requests_per_minute,
            spec.tokens_per_minute,
            parse_price(spec.price),
        )
        spoken = SpokenOutput(spec.output, spec.voice, spec.transcriber)
        system = open_system(
            spec.model, spec.model_arg, options, spoken, hears=form != "transcript", method=spec.method
        )
        judge = open_judge(spec, conversations.judge_prompt)
        if spec.repeats > 1 and system.identity.adapter == "replay":
            raise UsageError("replay: holds one reply to each conversation; leave out --repeats.")
        digits = read_digits(Path(spec.digits) if spec.digits else VOICED) if spec.hear else None
        card = read_card(Path(spec.card)) if spec.card else {}
        if isinstance(system, RecordedSystem) and system.conversations.isdisjoint(one.id for one in chosen):
            raise UsageError(
                f"'{spec.model}' holds a reply to {min(system.conversations)!r} and others, and to none of the "
                f"{len(chosen)} conversations chosen of the data '{conversations.name}'; check --data and --items."
            )
        prices = Prices(parse_price(spec.price), parse_price(spec.judge_price), spec.transcriber)
        return DialogueRun(conversations, chosen, form, system, judge, card, spec.repeats, digits, prices)

    def prepare_import(
        self, data: str, results: Path, model: str, judge_name: str | None, card: Path | None
    ) -> Import:
        """Read and check replies and verdicts made elsewhere."""
        from vivace.tracks.dialogue.importing import prepare_import

        return prepare_import(data, results, model, judge_name, card)


def require_prices(spec: DialogueSpec) -> None:
    """See that a cost cap can be kept.

    Raises:
        UsageError: nobody knows what some of the calls will cost.
    """
    if spec.max_cost is None:
        return
    unknown = []
    if spec.price is None and not has_price(spec.model):
        unknown.append(f"the model '{spec.model}' (name it with --price IN,OUT)")
    judges = [name.strip() for name in spec.judge.split(",")]
    if spec.judge_price is None:
        unknown += [f"the judge '{name}' (--judge-price IN,OUT)" for name in judges if not has_price(name)]
    if spec.transcriber is not None and not has_price(spec.transcriber):
        unknown.append(f"the transcriber '{spec.transcriber}' (take one that litellm lists)")
    if unknown:
        raise UsageError(f"--max-cost cannot be kept: no price is known of {', nor of '.join(unknown)}.")


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
        self._registered: Registered | None = None

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
        return self._system.identity.adapter != "replay"

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
                judge=self._judge.judges,
                repeats=self._repeats,
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

    def plan(self, database: Database, registered: Registered, *, retry_errors: bool) -> Sequence[DialogueItem]:
        """The conversations that lack a reply or a verdict; with `retry_errors`, also the unscored ones."""
        again = RETRYABLE if retry_errors else frozenset()
        with database.read() as session:
            run = session.get_one(tables.Run, registered.run_id)
            row_ids = ingest.conversation_ids(session, run.dataset_id)
            replies = {
                (reply.conversation_id, reply.repeat): reply
                for reply in session.scalars(select(tables.Reply).where(tables.Reply.run_id == run.id))
                if reply.unscored_reason not in again
            }
            votes = _recorded_votes(session, registered)
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
        for repeat in range(self._repeats):
            for conversation in self._chosen:
                row_id = row_ids[conversation.id]
                reply = replies.get((row_id, repeat))
                missing = tuple(
                    OpenCriterion(number, criterion_id, left)
                    for number, criterion_id in criteria[row_id]
                    if (left := _left_open(votes.get((reply.id, criterion_id), {}) if reply else {}, again))
                    is not None
                )
                if reply is None or missing:
                    reply_id, text = (reply.id, reply.text) if reply else (None, None)
                    items.append(DialogueItem(conversation, row_id, repeat, reply_id, text, missing))
        return items

    @property
    def _audio_form(self) -> AudioForm:
        return "original" if self._form == "original" else "16k"

    async def begin(self, items: Sequence[DialogueItem], bench: Workbench) -> None:
        """Check that recordings are heard, before the first reply of a run that sends some."""
        if not self._sends_audio or all(item.reply_id is not None for item in items):
            return
        hearing_so_far = await bench.write(self._recorded_hearing)
        recorded = hearing_so_far.get("outcome")
        if recorded in ("passed", "failed") or (recorded == "skipped" and self._digits is None):
            return
        if self._digits is None:
            await bench.write(lambda session: self._record_hearing(session, {"outcome": "skipped"}))
            return
        turns = max(len(conversation.exchanges) for conversation in self._chosen)

        async def ask(prompt: Prompt) -> tuple[ModelReply, Sequence[CallRecord]]:
            async with bench.call_slot():
                seconds = _seconds_of_audio(prompt)
                async with self._calls(bench, "hear", None, seconds) as calls:
                    reply = await self._system.reply(prompt)
                await bench.write(lambda session: self._record_calls(session, "hear", None, calls, seconds))
            bench.note(calls)
            return reply, calls

        async def keep(probes: Sequence[Probe]) -> None:
            await bench.write(lambda session: self._record_hearing(session, {"probes": stored_probes(probes)}))

        earlier = read_probes(hearing_so_far.get("probes", ()))
        hearing = await check_hearing(ask, min(turns, MOST_TURNS), self._digits, self._audio_form, earlier, keep)
        await bench.write(lambda session: self._record_hearing(session, hearing.as_json(), hearing))
        if hearing.outcome != "passed":
            bench.say(f"{hearing.sentence()} The run goes on, and cannot be official.")

    def _recorded_hearing(self, session: Session) -> dict[str, Any]:
        """What is recorded of the check; without an outcome where it was stopped."""
        assert self._registered is not None
        return session.get_one(tables.Run, self._registered.run_id).hearing or {}

    def _record_hearing(self, session: Session, values: dict[str, Any], hearing: Hearing | None = None) -> None:
        assert self._registered is not None
        run = session.get_one(tables.Run, self._registered.run_id)
        run.hearing = {**values, "checked_at": tables.now().isoformat()}
        if hearing is not None:
            level = "info" if hearing.outcome == "passed" else "warning"
            add_event(session, f"hearing check: {hearing.sentence()}", run_id=run.id, level=level)

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
            await bench.write(lambda session: self._record_no_reply(session, item, reply_id))
            return
        await finish_all(self._judge_one(item, reply_id, text, criterion, bench) for criterion in item.criteria)

    async def _generate(self, item: DialogueItem, bench: Workbench) -> tuple[int, str | None]:
        async with bench.call_slot():
            prompt = await asyncio.to_thread(self._prompt, item, bench.artifacts)
            seconds = _seconds_of_audio(prompt)
            asking = self._system.reply(prompt)
            del prompt  # minutes of audio; whoever is asked lets go of them as soon as they are sent
            async with self._calls(bench, "generate", item, seconds) as calls:
                with kept_answers(bench.cache, item.repeat):
                    reply = await asking
            audio = await asyncio.to_thread(bench.artifacts.put, reply.audio) if reply.audio else None

            def record(session: Session) -> tuple[int, str | None]:
                self._record_calls(session, "generate", item, calls, seconds)
                return self._record_reply(session, item, reply, audio)

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
            lambda session: self._record_verdict(session, reply_id, criterion.row_id, decided, DECISION)
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
            async with self._calls(bench, "judge", item, criterion_id=criterion.row_id) as calls:
                with kept_answers(bench.cache, item.repeat, number):
                    verdict = await self._judge.vote(
                        conversation.exchanges, text, conversation.criteria[criterion.number], max(0, number - 1)
                    )

            def record(session: Session) -> None:
                self._record_calls(session, "judge", item, calls, criterion_id=criterion.row_id)
                self._record_verdict(session, reply_id, criterion.row_id, verdict, number)

            await bench.write(record)
        bench.note(calls)
        return verdict

    def _record_reply(
        self,
        session: Session,
        item: DialogueItem,
        reply: ModelReply,
        audio_sha256: str | None,
    ) -> tuple[int, str | None]:
        assert self._registered is not None
        key = {"run_id": self._registered.run_id, "conversation_id": item.row_id, "repeat": item.repeat}
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
            "created_at": tables.now(),
        }
        insert_or_mend(session, tables.Reply, key, values)
        stored = session.execute(select(tables.Reply.id, tables.Reply.text).filter_by(**key)).one()
        return stored.id, stored.text

    def _record_no_reply(self, session: Session, item: DialogueItem, reply_id: int) -> None:
        reply = session.get_one(tables.Reply, reply_id)
        verdict = Verdict(None, f"There is no reply: {reply.unscored_reason}.", Unscored.NO_REPLY)
        for criterion in item.criteria:
            self._record_verdict(session, reply_id, criterion.row_id, verdict, DECISION)

    def _record_verdict(
        self, session: Session, reply_id: int, criterion_id: int, verdict: Verdict, vote: int
    ) -> None:
        assert self._registered is not None
        key = {
            "judging_id": self._registered.judging_id,
            "reply_id": reply_id,
            "criterion_id": criterion_id,
            "vote": vote,
        }
        values = {
            "met": verdict.met,
            "unscored_reason": _code(verdict.unscored),
            "explanation": verdict.explanation,
            "created_at": tables.now(),
        }
        insert_or_mend(session, tables.Verdict, key, values)

    @asynccontextmanager
    async def _calls(
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
                            lambda session: self._record_calls(
                                session, stage, item, calls, seconds_sent, criterion_id
                            )
                        )
                    bench.note(calls)
                raise

    def _record_calls(
        self,
        session: Session,
        stage: str,
        item: DialogueItem | None,
        calls: Sequence[CallRecord],
        seconds_sent: float | None = None,
        criterion_id: int | None = None,
    ) -> None:
        assert self._registered is not None
        rows = [
            {
                **vars(call),
                "run_id": self._registered.run_id,
                "judging_id": self._registered.judging_id if stage == "judge" else None,
                "conversation_id": item.row_id if item else None,
                "criterion_id": criterion_id,
                "stage": call.stage or stage,
                "audio_seconds": None if call.cached else seconds_sent,
                "error": _code(call.error),
            }
            for call in calls
        ]
        if rows:
            session.connection().execute(_NEW_ATTEMPT, rows)

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

    def ending(self, session: Session, registered: Registered) -> Ending:
        """Which criteria have no verdict, and why."""
        reasons = _counted(
            session,
            tables.Verdict.unscored_reason,
            tables.Verdict.judging_id == registered.judging_id,
        )
        failed = _counted(session, tables.Reply.unscored_reason, tables.Reply.run_id == registered.run_id)
        unscored = sum(reasons.values())
        if not unscored:
            return Ending("every criterion is scored")
        if set(reasons) == {"no_check"}:
            return Ending(f"{unscored} criteria carry no machine check", unscored)
        listed = _listed(reasons) + (f"; replies that failed: {_listed(failed)}" if failed else "")
        remedy = (
            "the same command with --retry-errors tries them again"
            if set(reasons) != {"no_reply"} or not isinstance(self._system, RecordedSystem)
            else "put the replies that are missing into the file and run that"
        )
        message = f"{unscored} criteria are unscored ({listed}); {remedy}"
        return Ending(message, unscored, complete=False)

    async def close(self) -> None:
        """Close the connections of system and judge."""
        await self._system.close()
        await self._judge.close()


def _recorded_votes(session: Session, registered: Registered) -> dict[tuple[int, int], dict[int, Verdict]]:
    """(reply, criterion) → the verdicts recorded of it, by the number of the vote."""
    votes: dict[tuple[int, int], dict[int, Verdict]] = defaultdict(dict)
    table = tables.Verdict
    query = select(
        table.reply_id, table.criterion_id, table.vote, table.met, table.explanation, table.unscored_reason
    ).where(table.judging_id == registered.judging_id)
    for reply_id, criterion_id, vote, met, explanation, reason in session.execute(query):
        verdict = Verdict(met, explanation or "", Unscored(reason) if reason else None)
        votes[reply_id, criterion_id][vote] = verdict
    return votes


def _left_open(recorded: dict[int, Verdict], again: frozenset[str]) -> dict[int, Verdict] | None:
    """The votes that a criterion keeps while it is judged; None where nothing is left to do for it."""
    kept = {number: verdict for number, verdict in recorded.items() if verdict.unscored not in again}
    if DECISION in recorded and len(kept) == len(recorded):
        return None
    return {number: verdict for number, verdict in kept.items() if number != DECISION}


def _counted(session: Session, reason: Any, where: Any) -> dict[str, int]:
    """Reason → rows that have it."""
    query = select(reason, func.count()).where(where, reason.is_not(None)).group_by(reason).order_by(reason)
    return {str(code): int(count) for code, count in session.execute(query)}


def _listed(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items())


def _seconds_of_audio(prompt: Prompt) -> float | None:
    """Seconds of recordings in a prompt; None where there are none."""
    seconds = [turn.seconds for turn, _ in prompt.turns if turn.audio is not None and turn.seconds is not None]
    return sum(seconds) if seconds else None


def _code(reason: Unscored | None) -> str | None:
    """The reason as plain text: drivers have their own ideas of enumerations."""
    return reason.value if reason is not None else None
