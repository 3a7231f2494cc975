"""The board: every ended judging with its rank among those of the same data, judge and votes."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from vivace.output.short_names import apart as told_apart
from vivace.output.short_names import bare_address
from vivace.store.database import Database
from vivace.store.identifiers import short_ids
from vivace.store.queries.figures import Accounting, EarFigures, Ends, Figures, Scores, Times, scores_of, times_of
from vivace.store.queries.regressions import nightly_runs
from vivace.store.settings import settings_of
from vivace.store.standing import Standing, not_retracted, retraction, standing_of
from vivace.store.tables import (
    RUN_IN_SHORT,
    Alert,
    Arm,
    Dataset,
    Judge,
    Judging,
    Model,
    Night,
    Run,
)
from vivace.store.visibility import OPERATOR


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
    ear: EarFigures | None
    """Of a cascade, how well its ear heard; None of other systems, and of a cascade that was sent transcripts."""
    is_cascade: bool
    """Whether it is a cascade of an ear and a model of text, not a model that hears for itself."""
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
    ttft_interval: Ends
    total_interval: Ends
    """Of these medians: where they could lie, judged by as many replies."""
    kept_share: float | None
    """The mean part of a prompt's tokens that went through the model's last layer; None where it reads them whole."""
    times: Times
    """Who says so: this program, or whoever submitted recorded replies."""
    cost_usd: float | None
    """Of all calls for this row: those that made the replies, and those that judged them."""
    price_interval: Ends
    """Where the mean cost of a reply with its verdicts could lie, by conversation."""
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
    size: str | None
    open_weights: bool | None
    licence: str | None
    description: str | None
    owner: str | None = None
    """Who submitted it; None where the operator did."""
    private: bool = False
    """Whether its owner and the operator alone see it."""
    job: str | None = None
    """The regression job whose newest accepted night it is, and whether that is worse by now."""

    def as_json(self) -> dict[str, Any]:
        """The row with its figures flat beside the names, axes nested, times in ISO 8601; not who owns it."""
        nested = ("owner", "figures", "axes", "date", "accounting", "ear")
        flat = {key: value for key, value in vars(self).items() if key not in nested}
        return {
            **flat,
            **vars(self.figures),
            "date": self.date.isoformat(),
            "ear": None if self.ear is None else dict(vars(self.ear)),
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

    Of a regression job's nights it is the newest accepted one.

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
            .options(*RUN_IN_SHORT)
        )
        if track is not None:
            query = query.where(Run.track == track)
        if official_only:
            query = query.where(Judging.official)
        if not include_retracted:
            query = query.where(not_retracted())
        nightly = nightly_runs(session)
        joined = [row for row in session.execute(query) if row.Run.id not in nightly.left_out]
        scores = scores_of(session, [row.Judging.id for row in joined])
        short = short_ids(session)
        groups: dict[tuple[int, int, int], list[_BoardEntry]] = defaultdict(list)
        for row in (_BoardEntry(*each, scores[each.Judging.id]) for each in joined):
            groups[(row.dataset.id, row.judge.id, row.judging.votes)].append(row)
        groups = {key: sorted(group, key=_board_order) for key, group in groups.items()}
        told = {key: _told_apart(session, group) for key, group in groups.items()}
    result: list[BoardRow] = []
    for key in sorted(groups, key=lambda key: (groups[key][0].dataset.name, groups[key][0].judge.name, key)):
        group, apart = groups[key], told[key]
        ranked = [row for row in group if row.standing == "ranked"]
        ranks = {row.judging.id: _rank(row, ranked) for row in ranked}
        taken = Counter(ranks.values())
        for row in group:
            rank = ranks.get(row.judging.id)
            tied = rank is not None and taken[rank] > 1
            made = _board_row(row, rank, tied, short[row.run.id], apart[row.judging.id])
            result.append(replace(made, job=nightly.marks.get(row.run.id)))
    return result


def data_version(database: Database) -> str:
    """A cheap text, of each viewer, that changes whenever a board does: a judging or an arm ended again, a run was
    retracted or made private or public, a set's items were hidden or shown, a model's card says something else.

    It is reckoned over all runs and not over those that the viewer sees: where one becomes private as another becomes
    public, the viewer sees as many as before.
    """
    ended = case((Judging.status == "ended", Judging.ended_at))
    marks = (
        (ended, Judging.retracted_at),
        (Run.retracted_at, Run.private_since),
        (Arm.ended_at,),
        (Dataset.hidden_since,),
    )
    with database.read() as session:
        own = select(Run.id).where(Run.private_since.is_not(None)).order_by(Run.id)
        mine = [] if database.viewer.sees_all else session.scalars(own).all()
        alerts = (select(func.count(column)).scalar_subquery() for column in (Alert.id, Alert.ended_at))
        nights = session.execute(select(func.count(Night.ended_at), func.max(Night.ended_at), *alerts)).one()
    with database.seen_by(OPERATOR).read() as session:
        marked = [
            part
            for columns in marks
            for part in session.execute(
                select(*(figure for column in columns for figure in (func.count(column), func.max(column))))
            ).one()
        ]
        card = (Model.name, Model.organisation, Model.size, Model.open_weights, Model.licence, Model.description)
        cards = session.execute(select(*card).order_by(Model.id)).all()
    described = hashlib.sha256(repr([tuple(each) for each in cards]).encode()).hexdigest()
    return "/".join(str(part) for part in (database.viewer, *mine, *marked, *nights, described))


@dataclass(frozen=True)
class _BoardEntry:
    judging: Judging
    run: Run
    model: Model
    judge: Judge
    dataset: Dataset
    scores: Scores

    @property
    def figures(self) -> Mapping[str, Figures]:
        return self.scores.slices

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


def _board_row(row: _BoardEntry, rank: int | None, tied: bool, short_run: str, apart: dict[str, str]) -> BoardRow:
    whole = Accounting.total(list(row.scores.stages.values()))
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
        ear=row.scores.hearing,
        is_cascade=row.model.is_cascade,
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
        ttft_median_s=row.scores.ttft_median_s,
        total_median_s=row.scores.total_median_s,
        ttft_interval=row.scores.ttft_interval,
        total_interval=row.scores.total_interval,
        kept_share=row.scores.kept_share,
        price_interval=row.scores.price_interval,
        times=times_of(row.model),
        cost_usd=whole.cost_usd,
        unpriced_calls=whole.unpriced,
        accounting=dict(row.scores.stages),
        run=row.run.id,
        short_run=short_run,
        judging=row.judging.id,
        server=None if row.model.address is None else bare_address(row.model.address),
        parameters=row.model.parameters,
        apart=apart,
        organisation=row.model.organisation,
        size=row.model.size,
        open_weights=row.model.open_weights,
        licence=row.model.licence,
        description=row.model.description,
        owner=row.run.owner,
        private=row.run.private_since is not None,
    )


def _told_apart(session: Session, group: Sequence[_BoardEntry]) -> dict[str, dict[str, str]]:
    """Judging → the settings that tell it from those of the same model in its group."""
    alike: dict[str, list[_BoardEntry]] = defaultdict(list)
    for row in group:
        alike[row.model.name].append(row)
    settings_by_judging: dict[str, dict[str, str]] = {}
    for rows in alike.values():
        settings = [settings_of(row.model, row.run) for row in rows]
        parts = [row.run.id for row in rows if row.run.limited]
        if len(parts) > 1:
            chosen = select(Run.id, Run.items).where(Run.id.in_(parts))
            items = {row.id: row.items for row in session.execute(chosen)}
            if max(Counter(map(len, items.values())).values()) > 1:  # parts of other sizes have other badges
                settings = [
                    {**one, "items": ",".join(items[row.run.id]) if row.run.limited else "all"}
                    for one, row in zip(settings, rows, strict=True)
                ]
        settings_by_judging |= dict(zip((row.judging.id for row in rows), told_apart(settings), strict=True))
    return settings_by_judging


def _bounds_of_the_whole(figures: Figures, conversations: int | None) -> tuple[float | None, float | None]:
    """Where the APR of the whole set could lie: what was never asked could all fail, or all pass."""
    if conversations is None or figures.apr_min is None or figures.apr_max is None:
        return None, None
    share = figures.n / conversations
    return figures.apr_min * share, figures.apr_max * share + 1 - share
