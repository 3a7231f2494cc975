"""What readers ask of the store: the board, a run's conversations, one conversation with its verdicts, the queue."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeVar

from sqlalchemy import and_, case, false, func, select
from sqlalchemy.orm import Session

from vivace.naming import apart as told_apart
from vivace.naming import bare_address
from vivace.store.database import Database
from vivace.store.identifiers import find, short_ids, submitted
from vivace.store.records import clock
from vivace.store.settings import settings_of
from vivace.store.standing import Standing, not_retracted, retraction, standing_of, standing_ones
from vivace.store.tables import (
    Arm,
    Attempt,
    Conversation,
    Criterion,
    Dataset,
    Event,
    Judge,
    Judging,
    Model,
    Reply,
    Run,
    Score,
    Submission,
    Trial,
    Turn,
    Verdict,
    Worker,
    now,
)
from vivace.store.verdicts import JudgedConversation, judged_conversations

Number = TypeVar("Number", int, float)

Times = Literal["measured", "submitted"]
"""Whether times were taken here, or are what whoever submitted recorded replies wrote beside them."""


def _times(model: Model) -> Times:
    return "submitted" if model.is_recorded else "measured"


@dataclass(frozen=True)
class Figures:
    """The scores of one slice of a judging: all of it, or one axis. Rates are fractions from 0 to 1.

    A rate is None where nothing was scored; an interval where it cannot be computed.
    """

    n: int
    """Conversations planned."""
    criteria: int
    """Criteria planned, once for each reply."""
    passes: int
    """Replies with every criterion met: conversations, or with repeats of n × repeats replies."""
    met: int
    """Criteria met."""
    unscored: int
    """Criteria without a verdict."""
    coverage: float | None
    apr: float | None
    apr_low: float | None
    apr_high: float | None
    apr_min: float | None
    apr_max: float | None
    ars: float | None
    ars_low: float | None
    ars_high: float | None
    ars_min: float | None
    ars_max: float | None
    apr_between: float | None = None
    """The variance of pass rates between conversations; None without repeats."""
    apr_within: float | None = None
    """The variance between replies to one conversation."""
    apr_between_error: float | None = None
    """The standard error of APR that the choice of conversations contributes."""
    apr_within_error: float | None = None
    """The standard error that the choice of replies contributes."""
    vote_agreement: float | None = None
    """The chance that two single votes on a criterion are alike; None where each was judged once."""
    vote_agreement_low: float | None = None
    vote_agreement_high: float | None = None
    vote_kappa: float | None = None
    """Fleiss' κ of the single votes."""


@dataclass(frozen=True)
class Accounting:
    """What calls took, failed ones included. A sum leaves out the calls of which the figure is not known."""

    calls: int
    failed: int
    cached: int
    """Answered from the response cache, so that nothing was sent."""
    input_tokens: int | None
    output_tokens: int | None
    input_audio_tokens: int | None
    audio_seconds: float | None
    cost_usd: float | None
    unpriced: int
    """Calls that were answered and whose cost is not known, which `cost_usd` leaves out."""

    @staticmethod
    def total(parts: Sequence[Accounting]) -> Accounting:
        """All parts together; None stays only where no part is known."""
        return Accounting(
            calls=sum(part.calls for part in parts),
            failed=sum(part.failed for part in parts),
            cached=sum(part.cached for part in parts),
            input_tokens=_sum_of_known(part.input_tokens for part in parts),
            output_tokens=_sum_of_known(part.output_tokens for part in parts),
            input_audio_tokens=_sum_of_known(part.input_audio_tokens for part in parts),
            audio_seconds=_sum_of_known(part.audio_seconds for part in parts),
            cost_usd=_sum_of_known(part.cost_usd for part in parts),
            unpriced=sum(part.unpriced for part in parts),
        )


def _sum_of_known(values: Iterable[Number | None]) -> Number | None:
    known = [value for value in values if value is not None]
    return sum(known[1:], known[0]) if known else None


@dataclass(frozen=True)
class BoardRow:
    """One judging of one run, as the leaderboard shows it."""

    rank: int | None
    """1 + the ranked rows of the same data, judge and votes whose APR interval lies wholly above this row's.

    None for a row that is not ranked: of a part, incomplete, or retracted.
    """
    tied: bool
    """Whether another row of the same data, judge and votes has this rank."""
    standing: Standing
    """Whether it is ranked, and if not, why it stands apart."""
    model: str
    method: str | None
    """What it decoded with: the method with its settings, and its recipe by content; None is plainly."""
    judge: str
    judge_fingerprint: str
    track: str
    data: str
    data_revision: str
    input_form: str
    output_form: str
    repeats: int
    """Replies to each conversation."""
    votes: int
    """Votes on each criterion."""
    hearing: str | None
    """How the hearing check came out; None where there is none."""
    figures: Figures
    axes: dict[str, Figures]
    conversations: int | None
    """How many make the whole set; None where only parts of it have been run, before that was recorded."""
    whole_apr_min: float | None
    """Where the APR of the whole set could lie, as far as this row tells; None where the set's size is not known."""
    whole_apr_max: float | None
    official: bool
    unofficial_reasons: list[str]
    imported: bool
    retracted: str | None
    """The reason, where the run, or this judging of it, was retracted."""
    date: datetime
    ttft_median_s: float | None
    total_median_s: float | None
    times: Times
    """Who says so: this program, or whoever submitted recorded replies."""
    cost_usd: float | None
    """Of all calls for this row: those that made the replies, and those that judged them."""
    unpriced_calls: int
    """Calls for this row that were answered and whose cost is not known: where there are any, it cost more."""
    accounting: dict[str, Accounting]
    """The same calls by stage: `hear`, `generate`, `transcribe`, `judge`."""
    run: str
    short_run: str
    """As much of the run's id as no other run's begins with; every verb takes it."""
    judging: str
    server: str | None
    """Where the model was asked, without what may be a secret; None for the provider's own address."""
    parameters: dict[str, Any]
    """Every generation parameter that was given."""
    apart: dict[str, str]
    """The settings that tell it from other rows of its model, data, judge and votes; empty where nothing does."""
    organisation: str | None
    description: str | None

    def as_json(self) -> dict[str, Any]:
        """The row with its figures flat beside the names, axes nested, times in ISO 8601."""
        nested = ("figures", "axes", "date", "accounting")
        flat = {key: value for key, value in vars(self).items() if key not in nested}
        return {
            **flat,
            **vars(self.figures),
            "date": self.date.isoformat(),
            "axes": {axis: dict(vars(figures)) for axis, figures in self.axes.items()},
            "accounting": {stage: dict(vars(calls)) for stage, calls in self.accounting.items()},
        }


def board(
    database: Database,
    track: str | None = None,
    *,
    official_only: bool = False,
    include_retracted: bool = False,
) -> list[BoardRow]:
    """Every ended judging, the highest APR first among those of the same data, judge and votes.

    Of each group first those that are ranked, then those of a part of the set and incomplete ones, which have no
    rank whatever their APR, and last the retracted ones.

    Args:
        track: only this track; None for all.
        official_only: leave out rows that are not official.
        include_retracted: show retracted ones too, with the reason.
    """
    with database.read() as session:
        query = (
            select(Judging, Run, Model, Judge, Dataset)
            .join(Run, Judging.run_id == Run.id)
            .join(Model, Run.model_id == Model.id)
            .join(Judge, Judging.judge_id == Judge.id)
            .join(Dataset, Run.dataset_id == Dataset.id)
            .where(Judging.status == "ended")
        )
        if track is not None:
            query = query.where(Run.track == track)
        if official_only:
            query = query.where(Judging.official)
        if not include_retracted:
            query = query.where(not_retracted())
        found = session.execute(query).all()
        figures = _figures(session, [row.Judging.id for row in found])
        runs = {row.Run.id for row in found}
        latencies = _median_latencies(session, runs)
        accounts = _accounts(session, runs)
        short = short_ids(session)
    rows = [
        _BoardEntry(judging, run, model, judge, dataset, figures[judging.id])
        for judging, run, model, judge, dataset in found
    ]
    groups: dict[tuple[int, int, int], list[_BoardEntry]] = defaultdict(list)
    for row in rows:
        groups[(row.dataset.id, row.judge.id, row.judging.votes)].append(row)
    result: list[BoardRow] = []
    for key in sorted(groups, key=lambda key: (groups[key][0].dataset.name, groups[key][0].judge.name, key)):
        group = sorted(groups[key], key=_board_order)
        apart = _told_apart(group)
        ranked = [row for row in group if row.standing == "ranked"]
        ranks = {row.judging.id: _rank(row, ranked) for row in ranked}
        taken = Counter(ranks.values())
        for row in group:
            rank = ranks.get(row.judging.id)
            tied = rank is not None and taken[rank] > 1
            stages = {**accounts.get((row.run.id, None), {}), **accounts.get((row.run.id, row.judging.id), {})}
            names = short[row.run.id], apart[row.judging.id]
            result.append(_board_row(row, rank, tied, latencies, stages, *names))
    return result


def data_version(database: Database) -> str:
    """A cheap text that changes whenever a board does: a judging or an arm ended again, or a run was retracted."""
    with database.read() as session:
        ended = session.execute(
            select(func.count(), func.max(Judging.ended_at)).where(Judging.status == "ended")
        ).one()
        timed = session.execute(select(func.count(Arm.ended_at), func.max(Arm.ended_at))).one()
        retracted = [
            part
            for table in (Run, Judging)
            for part in session.execute(select(func.count(table.retracted_at), func.max(table.retracted_at))).one()
        ]
    return "/".join(str(part) for part in (*ended, *timed, *retracted))


@dataclass(frozen=True)
class _BoardEntry:
    judging: Judging
    run: Run
    model: Model
    judge: Judge
    dataset: Dataset
    figures: dict[str, Figures]

    @property
    def standing(self) -> Standing:
        return standing_of(
            limited=self.run.limited,
            coverage=self.figures[""].coverage,
            retracted=retraction(self.run, self.judging) is not None,
        )


_PLACES: dict[Standing, int] = {"ranked": 0, "part": 1, "incomplete": 1, "retracted": 2}


def _board_order(row: _BoardEntry) -> tuple[int, float, float, datetime]:
    overall = row.figures[""]
    return (
        _PLACES[row.standing],
        -(overall.apr if overall.apr is not None else -1),
        -(overall.ars if overall.ars is not None else -1),
        row.judging.created_at,
    )


def _rank(row: _BoardEntry, group: Sequence[_BoardEntry]) -> int:
    high = row.figures[""].apr_high
    lows = [other.figures[""].apr_low for other in group]
    if high is None:
        return 1 + sum(low is not None for low in lows)
    return 1 + sum(low is not None and low > high for low in lows)


def _board_row(
    row: _BoardEntry,
    rank: int | None,
    tied: bool,
    latencies: dict[str, tuple[float | None, float | None]],
    accounting: dict[str, Accounting],
    short_run: str,
    apart: dict[str, str],
) -> BoardRow:
    ttft, total = latencies.get(row.run.id, (None, None))
    whole = Accounting.total(list(accounting.values()))
    low, high = _bounds_of_the_whole(row.figures[""], row.dataset.conversations)
    return BoardRow(
        rank=rank,
        tied=tied,
        standing=row.standing,
        model=row.model.name,
        method=row.run.method,
        judge=row.judge.name,
        judge_fingerprint=row.judge.fingerprint,
        track=row.run.track,
        data=row.dataset.name,
        data_revision=row.dataset.revision,
        input_form=row.run.input_form,
        output_form=row.run.output_form,
        repeats=row.run.repeats,
        votes=row.judging.votes,
        hearing=(row.run.hearing or {}).get("outcome"),
        figures=row.figures[""],
        axes={axis: value for axis, value in sorted(row.figures.items()) if axis},
        conversations=row.dataset.conversations,
        whole_apr_min=low,
        whole_apr_max=high,
        official=row.judging.official,
        unofficial_reasons=row.judging.unofficial_reasons,
        imported=row.run.imported,
        retracted=retraction(row.run, row.judging),
        date=row.judging.ended_at or row.judging.created_at,
        ttft_median_s=ttft,
        total_median_s=total,
        times=_times(row.model),
        cost_usd=whole.cost_usd,
        unpriced_calls=whole.unpriced,
        accounting=accounting,
        run=row.run.id,
        short_run=short_run,
        judging=row.judging.id,
        server=None if row.model.address is None else bare_address(row.model.address),
        parameters=row.model.parameters,
        apart=apart,
        organisation=row.model.organisation,
        description=row.model.description,
    )


def _told_apart(group: Sequence[_BoardEntry]) -> dict[str, dict[str, str]]:
    """Judging → the settings that tell it from those of the same model in its group."""
    alike: dict[str, list[_BoardEntry]] = defaultdict(list)
    for row in group:
        alike[row.model.name].append(row)
    found: dict[str, dict[str, str]] = {}
    for rows in alike.values():
        settings = [settings_of(row.model, row.run) for row in rows]
        sizes = Counter(len(row.run.items) for row in rows if row.run.limited)
        if max(sizes.values(), default=0) > 1:  # parts of other sizes have other badges
            settings = [
                {**one, "items": ",".join(row.run.items) if row.run.limited else "all"}
                for one, row in zip(settings, rows, strict=True)
            ]
        found |= dict(zip((row.judging.id for row in rows), told_apart(settings), strict=True))
    return found


def _bounds_of_the_whole(figures: Figures, conversations: int | None) -> tuple[float | None, float | None]:
    """Where the APR of the whole set could lie: what was never asked could all fail, or all pass."""
    if conversations is None or figures.apr_min is None or figures.apr_max is None:
        return None, None
    share = figures.n / conversations
    return figures.apr_min * share, figures.apr_max * share + 1 - share


def _figures(session: Session, judgings: Sequence[str]) -> dict[str, dict[str, Figures]]:
    """Judging → axis (empty for all) → figures."""
    scores: dict[str, dict[str, dict[str, Score]]] = defaultdict(lambda: defaultdict(dict))
    for score in session.scalars(select(Score).where(Score.judging_id.in_(judgings))):
        scores[str(score.judging_id)][score.slice][score.metric] = score
    result: dict[str, dict[str, Figures]] = {judging: {} for judging in judgings}
    for judging, slices in scores.items():
        for name, metrics in slices.items():
            apr, ars, coverage = metrics["apr"], metrics["ars"], metrics["coverage"]
            result[judging][name] = Figures(
                n=apr.n,
                criteria=ars.n,
                passes=apr.count or 0,
                met=ars.count or 0,
                unscored=coverage.unscored,
                coverage=coverage.value,
                apr=apr.value,
                apr_low=apr.low,
                apr_high=apr.high,
                apr_min=apr.minimum,
                apr_max=apr.maximum,
                ars=ars.value,
                ars_low=ars.low,
                ars_high=ars.high,
                ars_min=ars.minimum,
                ars_max=ars.maximum,
                **_repeats_and_votes(metrics),
            )
    return result


def _repeats_and_votes(metrics: dict[str, Score]) -> dict[str, float | None]:
    """The figures that only repeats or several votes give."""
    found: dict[str, float | None] = {}
    between, within = metrics.get("apr_between"), metrics.get("apr_within")
    if between is not None and within is not None and between.value is not None and within.value is not None:
        found |= {
            "apr_between": between.value,
            "apr_within": within.value,
            "apr_between_error": math.sqrt(between.value / between.n),
            "apr_within_error": math.sqrt(within.value / (within.count or 1)),
        }
    if (agreement := metrics.get("vote_agreement")) is not None:
        found |= {
            "vote_agreement": agreement.value,
            "vote_agreement_low": agreement.low,
            "vote_agreement_high": agreement.high,
            "vote_kappa": metrics["vote_kappa"].value,
        }
    return found


def _median_latencies(session: Session, runs: set[str]) -> dict[str, tuple[float | None, float | None]]:
    times: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    query = select(Reply.run_id, Reply.ttft_s, Reply.total_s).where(Reply.run_id.in_(runs))
    for run, ttft, total in session.execute(query):
        if ttft is not None:
            times[run][0].append(ttft)
        if total is not None:
            times[run][1].append(total)
    return {
        run: (statistics.median(ttft) if ttft else None, statistics.median(total) if total else None)
        for run, (ttft, total) in times.items()
    }


def _accounts(session: Session, runs: set[str]) -> dict[tuple[str, str | None], dict[str, Accounting]]:
    """(run, judging or None for what made the replies) → stage → its calls."""
    query = (
        select(
            Attempt.run_id, Attempt.judging_id, Attempt.stage,
            func.count(), func.count(Attempt.error), func.sum(case((Attempt.cached, 1), else_=0)),
            func.sum(Attempt.input_tokens), func.sum(Attempt.output_tokens), func.sum(Attempt.input_audio_tokens),
            func.sum(Attempt.audio_seconds), func.sum(Attempt.cost_usd),
            func.sum(case((and_(Attempt.error.is_(None), ~Attempt.cached, Attempt.cost_usd.is_(None)), 1), else_=0)),
        )
        .where(Attempt.run_id.in_(runs))
        .group_by(Attempt.run_id, Attempt.judging_id, Attempt.stage)
        .order_by(Attempt.stage)
    )  # fmt: skip
    found: dict[tuple[str, str | None], dict[str, Accounting]] = defaultdict(dict)
    for run, judging, stage, *sums in session.execute(query):
        found[run, judging][stage] = Accounting(*sums)
    return found


@dataclass(frozen=True)
class ConversationSummary:
    """How one judging came out on one conversation; criteria count once for each reply."""

    id: str
    axis: str
    user_turns: int
    criteria: int
    met: int
    not_met: int
    unscored: int
    passes: int = 0
    """Replies with every criterion met."""
    replies: int = 1
    """Replies planned."""

    @property
    def passed(self) -> bool | None:
        """Every criterion met in every reply; None while some are unscored and none is known not to be met."""
        if self.not_met:
            return False
        return None if self.unscored else True


def conversations(database: Database, judging: str) -> list[ConversationSummary]:
    """The planned conversations of a judging in the dataset's order; empty for an unknown judging."""
    with database.read() as session:
        found = [] if session.get(Judging, judging) is None else judged_conversations(session, judging)
    return [_summary(conversation) for conversation in found]


def _summary(conversation: JudgedConversation) -> ConversationSummary:
    verdicts = [met for reply in conversation.replies for met in reply.values()]
    return ConversationSummary(
        id=conversation.id,
        axis=conversation.axis,
        user_turns=conversation.user_turns,
        criteria=len(verdicts),
        met=verdicts.count(True),
        not_met=verdicts.count(False),
        unscored=verdicts.count(None),
        passes=sum(all(reply.values()) for reply in conversation.replies),
        replies=len(conversation.replies),
    )


@dataclass(frozen=True)
class TurnView:
    """One turn as the conversation page shows it."""

    number: int
    role: str
    transcript: str | None
    audio_sha256: str | None
    audio_seconds: float | None


@dataclass(frozen=True)
class VerdictView:
    """One criterion with its verdict; `met` is None and `unscored_reason` set where there is none."""

    number: int
    text: str
    met: bool | None
    unscored_reason: str | None
    explanation: str | None
    votes: tuple[bool | None, ...] = ()
    """The single votes behind it; empty where there is only the one."""


@dataclass(frozen=True)
class ConversationView:
    """One conversation under one judging: what was said, what the model replied, and how it was judged."""

    id: str
    axis: str
    model: str
    judge: str
    turns: list[TurnView]
    reply: str | None
    reply_audio_sha256: str | None
    reply_unscored_reason: str | None
    reply_detail: str | None
    ttft_s: float | None
    total_s: float | None
    times: Times
    repeats: int = 1
    """Replies planned; the view shows one of them."""
    reply_raw_text: str | None = None
    """All that the model wrote, where it thought aloud before its reply."""
    verdicts: list[VerdictView] = field(default_factory=list)


def conversation(database: Database, judging: str, conversation_id: str, repeat: int = 0) -> ConversationView | None:
    """One reply to one conversation under one judging; None where that was not planned or either is unknown."""
    with database.read() as session:
        found = session.get(Judging, judging)
        if found is None:
            return None
        run = session.get_one(Run, found.run_id)
        row = session.scalar(
            select(Conversation).where(
                Conversation.dataset_id == run.dataset_id, Conversation.external_id == conversation_id
            )
        )
        if row is None or conversation_id not in run.items or not 0 <= repeat < run.repeats:
            return None
        role_order = case((Turn.role == "user", 0), else_=1)
        turns = session.scalars(
            select(Turn).where(Turn.conversation_id == row.id).order_by(Turn.number, role_order)
        ).all()
        reply = session.scalar(
            select(Reply).where(Reply.run_id == run.id, Reply.conversation_id == row.id, Reply.repeat == repeat)
        )
        verdicts = session.execute(
            select(Criterion, Verdict)
            .outerjoin(
                Verdict,
                (Verdict.criterion_id == Criterion.id)
                & (Verdict.judging_id == judging)
                & (Verdict.reply_id == (reply.id if reply else None))
                & (Verdict.vote == 0),
            )
            .where(Criterion.conversation_id == row.id)
            .order_by(Criterion.number)
        ).all()
        votes = _votes(session, judging, reply.id if reply else None)
        model = session.get_one(Model, run.model_id)
        return ConversationView(
            id=row.external_id,
            axis=row.axis,
            model=model.name,
            judge=session.get_one(Judge, found.judge_id).name,
            turns=[
                TurnView(turn.number, turn.role, turn.transcript, turn.audio_sha256, turn.audio_seconds)
                for turn in turns
            ],
            reply=reply.text if reply else None,
            reply_audio_sha256=reply.audio_sha256 if reply else None,
            reply_unscored_reason=reply.unscored_reason if reply else "not_recorded",
            reply_detail=reply.detail if reply else None,
            ttft_s=reply.ttft_s if reply else None,
            total_s=reply.total_s if reply else None,
            times=_times(model),
            repeats=run.repeats,
            reply_raw_text=reply.raw_text if reply else None,
            verdicts=[
                VerdictView(
                    number=criterion.number,
                    text=criterion.text,
                    met=verdict.met if verdict else None,
                    unscored_reason=verdict.unscored_reason if verdict else "not_recorded",
                    explanation=verdict.explanation if verdict else None,
                    votes=tuple(votes[criterion.id]),
                )
                for criterion, verdict in verdicts
            ],
        )


def _votes(session: Session, judging: str, reply_id: int | None) -> dict[int, list[bool | None]]:
    """Criterion's row → the single votes on it for one reply."""
    query = (
        select(Verdict.criterion_id, Verdict.met)
        .where(Verdict.judging_id == judging, Verdict.reply_id == reply_id, Verdict.vote > 0)
        .order_by(Verdict.vote)
    )
    found: dict[int, list[bool | None]] = defaultdict(list)
    for criterion_id, met in session.execute(query):
        found[criterion_id].append(met)
    return found


def item_rows(database: Database, judging: str) -> list[dict[str, Any]]:
    """One flat row per planned conversation, repeat, criterion and vote of a judging, for exports.

    Vote 0 is the decision that counts, and is always there; 1, 2, … are the single votes behind it, if any.
    """
    with database.read() as session:
        found = session.get(Judging, judging)
        if found is None:
            return []
        run = session.get_one(Run, found.run_id)
        model = session.get_one(Model, run.model_id)
        judge = session.get_one(Judge, found.judge_id).name
        told = {"times": _times(model), "retracted": retraction(run, found)}
        replies = {
            (reply.conversation_id, reply.repeat): reply
            for reply in session.scalars(select(Reply).where(Reply.run_id == run.id))
        }
        verdicts: dict[tuple[int, int], list[Verdict]] = defaultdict(list)
        query = select(Verdict).where(Verdict.judging_id == judging).order_by(Verdict.vote)
        for verdict in session.scalars(query):
            verdicts[verdict.reply_id, verdict.criterion_id].append(verdict)
        conversations = session.scalars(
            select(Conversation).where(Conversation.dataset_id == run.dataset_id).order_by(Conversation.position)
        ).all()
        criteria: dict[int, list[Criterion]] = defaultdict(list)
        for criterion in session.scalars(
            select(Criterion)
            .join(Conversation)
            .where(Conversation.dataset_id == run.dataset_id)
            .order_by(Criterion.number)
        ):
            criteria[criterion.conversation_id].append(criterion)
    planned = set(run.items)
    return [
        {"judging": judging, "model": model.name, "judge": judge, **row, **told}
        for conversation in conversations
        if conversation.external_id in planned
        for repeat in range(run.repeats)
        for criterion in criteria[conversation.id]
        for row in _item_rows(conversation, repeat, criterion, replies.get((conversation.id, repeat)), verdicts)
    ]


def _item_rows(
    conversation: Conversation,
    repeat: int,
    criterion: Criterion,
    reply: Reply | None,
    verdicts: dict[tuple[int, int], list[Verdict]],
) -> Iterator[dict[str, Any]]:
    """The decision on one criterion of one reply, and the votes behind it."""
    given: list[Verdict | None] = [*verdicts[reply.id, criterion.id]] if reply is not None else []
    if not given or given[0] is None or given[0].vote:
        given.insert(0, None)  # an interrupted judging may have votes, and no decision yet
    for verdict in given:
        yield {
            "conversation": conversation.external_id,
            "axis": conversation.axis,
            "repeat": repeat,
            "criterion": criterion.number,
            "criterion_text": criterion.text,
            "vote": verdict.vote if verdict else 0,
            "met": verdict.met if verdict else None,
            "unscored_reason": verdict.unscored_reason if verdict else "not_recorded",
            "explanation": verdict.explanation if verdict else None,
            "reply": reply.text if reply else None,
            "reply_raw_text": reply.raw_text if reply else None,
            "reply_unscored_reason": reply.unscored_reason if reply else "not_recorded",
            "ttft_s": reply.ttft_s if reply else None,
            "total_s": reply.total_s if reply else None,
        }


@dataclass(frozen=True)
class SubmissionView:
    """A submission's life as its owner sees it."""

    id: str
    status: str
    model: str
    track: str
    run: str
    judging: str | None
    queue: str | None
    position: int | None
    """Place in its queue, from 1; None once it runs."""
    worker: str | None
    heartbeat_age_s: float | None
    unit: str
    """What its items are: `replies`, or `trials` of arms."""
    items_done: int
    items_planned: int
    verdicts_done: int
    verdicts_planned: int
    errors: int
    """Failed calls so far, retried ones included."""
    seconds_left: float | None
    """By the pace so far; None before there is one."""
    message: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    def as_json(self) -> dict[str, Any]:
        """The fields with times in ISO 8601."""
        return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in vars(self).items()}


def submissions(database: Database, identifier: str | None = None) -> list[SubmissionView]:
    """Submissions, the newest first; one of them by its id, or those of a run or of a judging by theirs."""
    with database.read() as session:
        query = (
            select(Submission, Run, Model)
            .join(Run, Submission.run_id == Run.id)
            .join(Model, Run.model_id == Model.id)
            .order_by(Submission.created_at.desc(), Submission.id)
        )
        if identifier is not None:
            found = find(session, identifier)
            query = query.where(false() if found is None else submitted(found))
        return [_submission_view(session, *row) for row in session.execute(query)]


def _submission_view(session: Session, submission: Submission, run: Run, model: Model) -> SubmissionView:
    position = None
    if submission.status == "queued" and submission.queue is not None:
        ahead = session.scalar(
            select(func.count())
            .select_from(Submission)
            .where(
                Submission.queue == submission.queue,
                Submission.status == "queued",
                Submission.created_at < submission.created_at,
            )
        )
        position = 1 + (ahead or 0)
    worker = session.get(Worker, submission.worker_id) if submission.worker_id else None
    heartbeat_age = (clock(session) - worker.heartbeat_at).total_seconds() if worker else None
    message = submission.message
    silent = worker is not None and heartbeat_age is not None and heartbeat_age > worker.lease_seconds
    if submission.status == "running" and silent:
        message = "its worker no longer answers; another one, or the same command, goes on where it stopped"
    progress = _trials(session, submission, run) or _replies_and_verdicts(session, submission, run)
    return SubmissionView(
        id=submission.id,
        status=submission.status,
        model=model.name,
        track=run.track,
        run=run.id,
        judging=submission.judging_id,
        queue=submission.queue,
        position=position,
        worker=submission.worker_id,
        heartbeat_age_s=heartbeat_age,
        **progress,
        message=message,
        created_at=submission.created_at,
        started_at=submission.started_at,
        ended_at=submission.ended_at,
    )


def _trials(session: Session, submission: Submission, run: Run) -> dict[str, Any] | None:
    """How far a run of arms is; None where it has none."""
    arms = session.scalar(select(func.count()).select_from(Arm).where(Arm.run_id == run.id)) or 0
    if not arms:
        return None
    recorded = select(func.count()).select_from(Trial).join(Arm).where(Arm.run_id == run.id)
    done = session.scalar(recorded) or 0
    planned = len(run.items) * run.repeats * arms
    left = None
    if submission.status == "running" and submission.started_at is not None:
        fresh = select(func.count(), func.min(Trial.created_at)).join(Arm).where(Arm.run_id == run.id)
        count, first = session.execute(fresh.where(Trial.created_at >= submission.started_at)).one()
        # From the first trial on: loading the model and warming up come once.
        left = (now() - first).total_seconds() / (count - 1) * (planned - done) if count > 1 else None
    return {
        "unit": "trials",
        "items_done": done,
        "items_planned": planned,
        "verdicts_done": 0,
        "verdicts_planned": 0,
        "errors": session.scalar(recorded.where(Trial.unscored_reason.is_not(None))) or 0,
        "seconds_left": left,
    }


def _replies_and_verdicts(session: Session, submission: Submission, run: Run) -> dict[str, Any]:
    """How far a run of conversations is."""
    replies = session.scalar(select(func.count()).select_from(Reply).where(Reply.run_id == run.id)) or 0
    given = select(func.count()).select_from(Verdict)
    given = given.where(Verdict.judging_id == submission.judging_id, Verdict.vote == 0)
    verdicts = session.scalar(given) or 0
    criteria = _planned_criteria(session, run)
    failed = select(func.count()).select_from(Attempt).where(Attempt.run_id == run.id, Attempt.error.is_not(None))
    return {
        "unit": "replies",
        "items_done": replies,
        "items_planned": len(run.items) * run.repeats,
        "verdicts_done": verdicts,
        "verdicts_planned": criteria * run.repeats if submission.judging_id else 0,
        "errors": session.scalar(failed) or 0,
        "seconds_left": _seconds_left(session, submission, verdicts, criteria * run.repeats),
    }


def _planned_criteria(session: Session, run: Run) -> int:
    # The items are sorted out here: as parameters of a statement they would be too many for SQLite.
    query = (
        select(Conversation.external_id, func.count())
        .join(Criterion, Criterion.conversation_id == Conversation.id)
        .where(Conversation.dataset_id == run.dataset_id)
        .group_by(Conversation.id)
    )
    planned = set(run.items)
    return sum(count for external_id, count in session.execute(query) if external_id in planned)


def _seconds_left(session: Session, submission: Submission, done: int, planned: int) -> float | None:
    if submission.status != "running" or submission.started_at is None or submission.judging_id is None:
        return None
    fresh = session.scalar(
        select(func.count())
        .select_from(Verdict)
        .where(
            Verdict.judging_id == submission.judging_id,
            Verdict.vote == 0,
            Verdict.created_at >= submission.started_at,
        )
    )
    elapsed = (now() - submission.started_at).total_seconds()
    return elapsed / fresh * (planned - done) if fresh else None


def judgings_of(database: Database, identifier: str) -> list[str]:
    """The judging of this id, or those of the run that the id leads to; empty where there is none.

    Of a run's judgings those that were retracted by themselves are left out, unless it has no others.
    """
    with database.read() as session:
        found = find(session, identifier)
        if found is None or found.judging is not None:
            return [] if found is None else [str(found.judging)]
        query = select(Judging).where(Judging.run_id == found.run).order_by(Judging.created_at)
        return [one.id for one in standing_ones(session.scalars(query).all())]


def run_of(database: Database, identifier: str) -> str | None:
    """The run that a run's, a judging's or a submission's id leads to."""
    with database.read() as session:
        found = find(session, identifier)
        return None if found is None else found.run


@dataclass(frozen=True)
class LogLine:
    """One line of a run's log."""

    at: datetime
    level: str
    message: str


def log(database: Database, run_id: str) -> list[LogLine]:
    """Everything that happened to a run, the oldest first: events, and failed calls."""
    with database.read() as session:
        lines = [
            LogLine(event.created_at, event.level, event.message)
            for event in session.scalars(select(Event).where(Event.run_id == run_id).order_by(Event.id))
        ]
        failed = session.execute(
            select(Attempt, Conversation.external_id, Criterion.number)
            .outerjoin(Conversation, Attempt.conversation_id == Conversation.id)
            .outerjoin(Criterion, Attempt.criterion_id == Criterion.id)
            .where(Attempt.run_id == run_id, Attempt.error.is_not(None))
            .order_by(Attempt.id)
        )
        for attempt, conversation_id, number in failed:
            # Questions of the hearing check are of no conversation.
            of = "" if conversation_id is None else f" {conversation_id}"
            what = attempt.stage + of + (f" criterion {number}" if number is not None else "")
            why = f"{attempt.error} ({attempt.detail})" if attempt.detail else attempt.error
            lines.append(LogLine(attempt.created_at, "warning", f"{what}: {why}"))
    return sorted(lines, key=lambda line: line.at)
