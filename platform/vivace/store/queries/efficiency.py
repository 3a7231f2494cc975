"""What readers ask of the store about the efficiency tracks: every arm with its figures, and the frontier."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import select

from vivace.model_origins import ORIGINS
from vivace.output.short_names import apart, short_arms
from vivace.store import tables
from vivace.store.database import Database
from vivace.store.identifiers import short_ids
from vivace.store.queries.regressions import nightly_runs
from vivace.store.standing import Standing, standing_of
from vivace.store.tables import Arm, Dataset, Hardware, Model, Run, Score, Trial
from vivace_methods.diagnosis import Diagnosis
from vivace_methods.families import FAMILIES, PlotAxis

LAYER_FIGURES = ("kept_channels", "sparsity", "ratio", "rank", "criterion", "threshold", "output_error")
"""What `layer_rows` gives of each layer."""


PART_METRIC = "quality_part"
"""The metric under which quality by kind of sample is stored; the kind is the slice."""


@dataclass(frozen=True)
class Measured:
    """A figure with its 95 % interval, where there is one."""

    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class ArmRow:
    """One arm of one run, as the leaderboard shows it."""

    track: str
    model: str
    adapter: str
    """`zoo`, `random` or `local`."""
    arm: str
    method: str
    settings: dict[str, Any]
    fitted: str | None
    baseline: bool
    baseline_arm: str
    """The arm of its run that it is compared with."""
    axis: PlotAxis
    """What quality is held against."""
    figures: Mapping[str, Measured]
    tasks: Mapping[str, Measured]
    """Quality by task, where there are several."""
    parts: Mapping[str, Measured]
    """Quality by kind of sample, where the tasks have several kinds: an operation, a depth, a length."""
    frontier: bool
    """Whether no other ranked arm of its group is as good for less, or better for as much."""
    data: str
    data_revision: str
    hardware: str
    hardware_fingerprint: str
    hardware_details: dict[str, Any]
    floor: dict[str, Any] | None
    """What the floor probe found."""
    official: bool
    unofficial_reasons: list[str]
    retracted: str | None
    date: datetime
    run: str
    organisation: str | None = None
    owner: str | None = None
    """Who submitted the run; None where the operator did."""
    private: bool = False
    """Whether its owner and the operator alone see it."""
    standing: Standing = "ranked"
    """`incomplete` where too many of its trials have no result: its figures are of easier prompts, perhaps."""
    trials_planned: int = 0
    short_arm: str = ""
    """The arm's name without the folders' paths in it, but for what tells them apart."""
    short_run: str = ""
    """As much of the run's id as no other run's begins with; every verb takes it."""
    apart: Mapping[str, str] = field(default_factory=dict)
    """What tells it from other rows of its track that read the same: the run's settings that are not alike."""
    job: str | None = None
    """The regression job whose newest accepted night it is of, and whether that is worse by now."""
    group: tuple[str, ...] = field(default=())
    """Rows that may be held against each other: the same track, model, data and machine."""

    @property
    def synthetic(self) -> bool:
        """Whether it is a small model of the zoo, that shows how methods order and nothing about speed."""
        return not ORIGINS[self.adapter].are_times_real

    @property
    def pruned_nothing(self) -> bool:
        """Whether it is to read prompts in part, and all of them were so short that it read them whole."""
        return all(self.value(metric) == 1 for metric in ("figure_kept_share", "figure_kv_share"))

    def value(self, metric: str) -> float | None:
        """A figure's value; the baseline is 1 beside itself."""
        figure = self.figures.get(metric)
        if figure is not None:
            return figure.value
        return 1.0 if self.baseline and metric.endswith("_ratio") else None

    @property
    def is_worse(self) -> bool:
        """Whether its quality is shown to be worse than the baseline's, and not to be within the run's margin."""
        within, difference = self.figures.get("comparable"), self.figures.get("quality_difference")
        is_within = within is not None and bool(within.value)
        return not is_within and difference is not None and difference.high is not None and difference.high < 0

    @property
    def mark(self) -> str:
        """★ on the frontier, which never hides that it is paid for with quality."""
        return "" if not self.frontier else "★ worse" if self.is_worse else "★"

    @property
    def quality_figure(self) -> Measured | None:
        """The quality that counts in its family."""
        return self.figures.get(FAMILIES[self.track].quality.metric)

    @property
    def quality(self) -> float | None:
        """The value of that quality."""
        return None if self.quality_figure is None else self.quality_figure.value

    @property
    def cost(self) -> float | None:
        """Where it lies on the axis that quality is held against."""
        return self.value(self.axis.metric)

    def as_json(self) -> dict[str, Any]:
        """The row with figures nested, times in ISO 8601; not who owns it."""
        nested = ("owner", "figures", "tasks", "parts", "date", "axis", "group", "apart")
        flat = {key: value for key, value in vars(self).items() if key not in nested}
        return {
            **flat,
            "synthetic": self.synthetic,
            "pruned_nothing": self.pruned_nothing,
            "mark": self.mark,
            "cost_axis": self.axis.metric,
            "cost": self.cost,
            "apart": dict(self.apart),
            "date": self.date.isoformat(),
            "figures": {name: dict(vars(figure)) for name, figure in self.figures.items()},
            "tasks": {name: dict(vars(figure)) for name, figure in self.tasks.items()},
            "parts": {name: dict(vars(figure)) for name, figure in self.parts.items()},
        }


def arm_board(
    database: Database,
    track: str | None = None,
    *,
    run: str | None = None,
    official_only: bool = False,
    include_retracted: bool = False,
) -> list[ArmRow]:
    """Every arm that has ended, by group; in it the baseline first, then from the cheapest to the dearest.

    Arms that lack too many of their trials stand after those, and are on no frontier.

    Args:
        track: only this track; None for all.
        run: only this run.
        official_only: leave out rows that are not official.
        include_retracted: show retracted runs too, with the reason; they are on no frontier.
    """
    with database.read() as session:
        query = (
            select(Arm, Run, Model, Dataset, Hardware)
            .join(Run, Arm.run_id == Run.id)
            .join(Model, Run.model_id == Model.id)
            .join(Dataset, Run.dataset_id == Dataset.id)
            .join(Hardware, Run.hardware_id == Hardware.id)
            .where(Arm.ended_at.is_not(None))
            .order_by(Run.created_at, Arm.position)
        )
        if track is not None:
            query = query.where(Run.track == track)
        if run is not None:
            query = query.where(Run.id == run)
        if official_only:
            query = query.where(Arm.official)
        if not include_retracted:
            query = query.where(Run.retracted_at.is_(None))
        nightly = nightly_runs(session)
        # Whoever asks for one run means it, be it a job's.
        joined = [row for row in session.execute(query) if run is not None or row.Run.id not in nightly.left_out]
        scores: dict[int, list[Score]] = defaultdict(list)
        for score in session.scalars(select(Score).where(Score.arm_id.in_([row.Arm.id for row in joined]))):
            scores[score.arm_id or 0].append(score)
        short = short_ids(session)
    alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, each in enumerate(joined):
        name = hardware_name(each.Hardware.details)
        alike[each.Run.track, each.Arm.name, each.Model.name, each.Dataset.name, name].append(place)
    settings = [_settings(each.Run, each.Model, each.Dataset, each.Hardware) for each in joined]
    told = {
        place: differing
        for places in alike.values()
        for place, differing in zip(places, apart([settings[place] for place in places]), strict=True)
    }
    shown = short_arms([each.Arm.name for each in joined])
    rows = [
        replace(
            _row(*each, scores[each.Arm.id]), short_arm=shown[place], short_run=short[each.Run.id], apart=told[place]
        )
        for place, each in enumerate(joined)
    ]
    groups: dict[tuple[str, ...], list[ArmRow]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    return [row for group in groups.values() for row in _ordered(group)]


def _row(arm: Arm, run: Run, model: Model, dataset: Dataset, hardware: Hardware, scores: Sequence[Score]) -> ArmRow:
    figures = [(score, Measured(score.value, score.low, score.high, score.n)) for score in scores
               if score.value is not None]  # fmt: skip
    family = FAMILIES[run.track]
    planned = len(run.items) * run.repeats
    trials = next((figure.value for score, figure in figures if score.metric == "trials"), 0.0)
    return ArmRow(
        track=run.track,
        model=model.name,
        adapter=model.adapter,
        arm=arm.name,
        method=arm.method,
        settings=arm.settings,
        fitted=arm.fitted,
        baseline=arm.baseline,
        baseline_arm=str(run.method),
        axis=family.measured_cost if ORIGINS[model.adapter].are_times_real else family.counted_cost,
        figures={score.metric: figure for score, figure in figures if not score.slice},
        tasks={
            score.slice: figure for score, figure in figures if score.slice and score.metric == family.quality.metric
        },
        parts={score.slice: figure for score, figure in figures if score.metric == PART_METRIC},
        frontier=False,
        data=dataset.name,
        data_revision=dataset.revision,
        hardware=hardware_name(hardware.details),
        hardware_fingerprint=hardware.fingerprint,
        hardware_details=hardware.details,
        floor=(run.measured or {}).get("floor"),
        official=arm.official,
        unofficial_reasons=arm.unofficial_reasons or [],
        retracted=run.retraction_reason,
        date=arm.ended_at or run.created_at,
        run=run.id,
        organisation=model.organisation,
        owner=run.owner,
        private=run.private_since is not None,
        standing=standing_of(
            limited=False,  # the tasks' samples are the whole set: others are other data, and another group
            coverage=trials / planned if planned else None,
            retracted=run.retracted_at is not None,
        ),
        trials_planned=planned,
        group=(run.track, model.fingerprint, dataset.fingerprint, hardware.fingerprint),
    )


def _settings(run: Run, model: Model, dataset: Dataset, hardware: Hardware) -> dict[str, str]:
    """Of a run of an efficiency track: what can differ where model, tasks, machine and arm are named alike."""
    asked = {"model": model.target, "prompts": len(run.items), "tasks": dataset.revision[:6], "repeats": run.repeats}
    kept = {key: run.manifest.get(key) for key in ("seed", "margin")}
    told = {**asked, **model.parameters, **kept, "baseline": run.method, "machine": hardware.fingerprint[:6]}
    return {key: str(value) for key, value in told.items() if value is not None}


def hardware_name(details: Mapping[str, Any]) -> str:
    """A machine in a few words: the GPU, or the processor with its threads."""
    device = str(details.get("device", "cpu"))
    if device != "cpu":
        return device
    threads = details.get("threads")
    return f"{details.get('processor') or details.get('machine')}, {threads} thread{'' if threads == 1 else 's'}"


def _ordered(group: Sequence[ArmRow]) -> list[ArmRow]:
    best = frontier([row for row in group if row.standing == "ranked"])
    marked = [replace(row, frontier=row in best) for row in group]
    places = {"ranked": 0, "incomplete": 1, "retracted": 2}
    return sorted(marked, key=lambda row: (not row.baseline, places[row.standing], _dearness(row)))


def _dearness(row: ArmRow, axis: PlotAxis | None = None) -> float:
    held = axis or row.axis
    cost = row.value(held.metric)
    if cost is None:
        return float("inf")
    return -cost if held.more_is_better else cost


def frontier(rows: Sequence[ArmRow], axis: PlotAxis | None = None) -> list[ArmRow]:
    """The rows that no other one beats: as good for less, or better for as much; from the cheapest on.

    Rows without a quality or a cost are on no frontier. Figures are compared as they are; whether two of them differ
    is what their intervals say.

    Args:
        rows: of one group.
        axis: what quality is held against; None for what the rows themselves say.
    """

    def cost_of(row: ArmRow) -> float | None:
        return row.value((axis or row.axis).metric)

    placed = [row for row in rows if cost_of(row) is not None and row.quality is not None]
    chosen: list[ArmRow] = []
    for row in sorted(placed, key=lambda row: (_dearness(row, axis), -(row.quality or 0.0))):
        quality, last = row.quality or 0.0, chosen[-1] if chosen else None
        if (
            last is None
            or quality > (best := last.quality or 0.0)
            or (quality, cost_of(row)) == (best, cost_of(last))
        ):
            chosen.append(row)
    return chosen


def trial_rows(database: Database, run: str) -> list[dict[str, Any]]:
    """Every trial of a run's arms with all that was seen of it; empty where the run has none.

    Args:
        run: its id.
    """
    with database.read() as session:
        query = (
            select(Arm.name, Trial, Run.retraction_reason)
            .join(Arm, Trial.arm_id == Arm.id)
            .join(Run, Arm.run_id == Run.id)
            .where(Arm.run_id == run)
            .order_by(Arm.position, Trial.repetition, Trial.id)
        )
        joined = session.execute(query).all()
    return [
        {
            "run": run,
            "arm": arm,
            "prompt": trial.prompt,
            "repetition": trial.repetition,
            "session": trial.measurements["trial"]["session"],
            "place": trial.measurements["trial"]["place"],
            "ttft_s": trial.ttft_s,
            "total_s": trial.total_s,
            "output_tokens": trial.output_tokens,
            **{name: trial.measurements.get(name) for name in ("quality", "bytes", "flops", "floor_s", "answer")},
            "tokens": trial.measurements["trial"]["tokens"],
            "emitted_s": trial.measurements["trial"]["emitted_s"],
            "step_tokens": trial.measurements["trial"]["step_tokens"],
            "figures": trial.measurements["trial"]["figures"],
            "diagnoses": [vars(Diagnosis(*row)) for row in trial.measurements.get("diagnoses", ())],
            "unscored_reason": trial.unscored_reason,
            "retracted": retracted,
        }
        for arm, trial, retracted in joined
    ]


def layer_rows(database: Database, run: str, arm: str) -> list[dict[str, Any]]:
    """`layers_of` all that is known of what an arm does in each layer.

    Args:
        run: its id.
        arm: its name.
    """
    return layers_of(diagnoses(database, run, arm))


def layers_of(told: Iterable[Diagnosis]) -> list[dict[str, Any]]:
    """What an arm's recipe says of each layer of the model, beside what its trials kept of it.

    Args:
        told: all that is known of what the arm does in each layer.

    Returns:
        Layer by layer: `layer`, `kept_channels` (the mean share over decoded tokens; None where nothing was decoded),
        `sparsity`, `ratio`, `rank`, `criterion`, `threshold`, `output_error`. Empty for an arm without a recipe.
    """
    layers: dict[str, dict[str, Any]] = defaultdict(lambda: dict.fromkeys(LAYER_FIGURES))
    for row in told:
        layer = layers[row.layer]
        layer[row.kind] = int(row.value) if row.kind == "rank" else row.value
        if row.kind == "threshold":
            layer["criterion"] = row.setting
    return [{"layer": name, **figures} for name, figures in layers.items() if figures["criterion"] is not None]


def diagnoses(database: Database, run: str, arm: str) -> list[Diagnosis]:
    """All that is known of what an arm does in each layer, in the order in which it was told.

    Args:
        run: its id.
        arm: its name.
    """
    stored = tables.Diagnosis
    columns = stored.kind, stored.layer, stored.setting, stored.value, stored.n
    query = select(*columns).join(Arm).where(Arm.run_id == run, Arm.name == arm).order_by(stored.id)
    with database.read() as session:
        return [Diagnosis(*row) for row in session.execute(query)]


def diagnoses_of_runs(database: Database, runs: Sequence[str]) -> dict[tuple[str, str], list[Diagnosis]]:
    """Run and arm → `diagnoses`, of every arm of some runs of which anything is known, in one question."""
    stored = tables.Diagnosis
    columns = stored.kind, stored.layer, stored.setting, stored.value, stored.n
    query = select(Arm.run_id, Arm.name, *columns).join(Arm).where(Arm.run_id.in_(runs)).order_by(stored.id)
    found: dict[tuple[str, str], list[Diagnosis]] = defaultdict(list)
    with database.read() as session:
        for run, arm, kind, layer, setting, value, n in session.execute(query):
            found[run, arm].append(Diagnosis(kind, layer, setting, value, n))
    return dict(found)
