"""From a run's recorded trials to each arm's figures, and to whether it is official."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from vivace.model_origins import ORIGINS
from vivace.statistics.intervals import clustered_ratio, student, wilson
from vivace.statistics.noninferiority import non_inferiority
from vivace.store import tables
from vivace.store.columns import now
from vivace.store.queries.efficiency import PART_METRIC
from vivace.tracks.efficiency.records import record_diagnoses
from vivace_methods.diagnosis import Diagnosis, pooled
from vivace_methods.timing.ratios import Estimate, median_interval, paired_ratio
from vivace_methods.timing.summary import ArmSummary, summarise
from vivace_methods.timing.trials import Recording, Trial

FEWEST_PROMPTS = 30
"""Below so many prompts an interval of quality is too wide for an official row."""


@dataclass(frozen=True)
class ArmFigure:
    """One figure of an arm; the interval is None where there is none."""

    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int = 0
    slice: str = ""


@dataclass(frozen=True)
class _Told:
    """A trial that ended well, with what the process that measured said of it."""

    trial: Trial
    quality: float | None
    bytes: float | None
    flops: float | None
    floor_s: float | None
    full_prefill_floor_s: float | None
    kl: float | None
    kl_tokens: int | None
    nats: float | None
    nats_tokens: int | None
    slice: str | None
    """Of the sample that was asked."""

    @property
    def tokens(self) -> int:
        return len(self.trial.tokens)


def score_run(session: Session, run_id: str, margin: float) -> None:
    """Replace the scores of a run's arms by what its recorded trials say now, and end them."""
    run = session.get_one(tables.Run, run_id)
    model = session.get_one(tables.Model, run.model_id)
    arms = session.scalars(select(tables.Arm).where(tables.Arm.run_id == run_id).order_by(tables.Arm.position)).all()
    stored = {
        arm.id: session.scalars(select(tables.Trial).where(tables.Trial.arm_id == arm.id)).all() for arm in arms
    }
    for row in (row for rows in stored.values() for row in rows):
        row.measurements = _above_floor(row.measurements, (run.measured or {}).get("floor"))
    trials = [Trial.from_json(row.measurements["trial"]) for rows in stored.values() for row in rows]
    ordered = sorted(trials, key=lambda trial: (trial.session, trial.place))
    baseline = next(arm for arm in arms if arm.baseline)
    summaries = summarise(Recording(baseline.name, tuple(ordered)))
    told = {arm.id: [_told(row) for row in stored[arm.id] if row.unscored_reason is None] for arm in arms}
    session.execute(delete(tables.Score).where(tables.Score.arm_id.in_([arm.id for arm in arms])))
    for arm in arms:
        failed = sum(row.unscored_reason is not None for row in stored[arm.id])
        figures = list(_figures(told[arm.id], told[baseline.id], summaries[arm.name], arm.baseline, margin))
        if (peak := (run.measured or {}).get("memory", {}).get(arm.name)) is not None:
            figures.append(ArmFigure("peak_bytes_process", float(peak), n=1))
        session.add_all(
            tables.Score(arm_id=arm.id, unscored=failed, **{**vars(figure), "n": figure.n}) for figure in figures
        )
        record_diagnoses(session, arm.id, pooled(_diagnoses(stored[arm.id])))
        reasons = _unofficial_reasons(run, model, arm, failed, len(run.items))
        arm.official, arm.unofficial_reasons, arm.ended_at = not reasons, reasons, now()
    run.status = "generated"


def _diagnoses(trials: Sequence[tables.Trial]) -> Iterator[Diagnosis]:
    for trial in trials:
        if trial.unscored_reason is None:
            yield from (Diagnosis(*row) for row in trial.measurements.get("diagnoses", ()))


def _above_floor(measurements: dict[str, Any], floor: dict[str, Any] | None) -> dict[str, Any]:
    """A trial's measurements with its floor, by the best that the device did in all of the run.

    Args:
        measurements: of the trial; earlier versions wrote the floor itself, as it was probed then.
        floor: of the run, as it is stored; None where nothing was probed.
    """
    if floor is None or "full_prefill_bytes" not in measurements:
        return measurements
    (flops_per_s,) = floor["flops_per_s"].values()  # of the type of the weights alone
    found = {
        name: max(
            measurements[f"{part}bytes"] / floor["read_bytes_per_s"], measurements[f"{part}flops"] / flops_per_s
        )
        for name, part in (("floor_s", ""), ("full_prefill_floor_s", "full_prefill_"))
    }
    return {**measurements, **found}


def _told(row: tables.Trial) -> _Told:
    values = row.measurements
    known = [field.name for field in fields(_Told) if field.name != "trial"]
    return _Told(Trial.from_json(values["trial"]), **{name: values.get(name) for name in known})


def _figures(
    mine: Sequence[_Told], baseline: Sequence[_Told], summary: ArmSummary, is_baseline: bool, margin: float
) -> Iterator[ArmFigure]:
    yield ArmFigure("trials", summary.trials, n=summary.trials)
    if not mine:
        return
    yield from _quality(mine, baseline, is_baseline, margin)
    yield from _times(summary)
    yield from _predictions(mine)
    yield from _costs(mine, [] if is_baseline else baseline)
    yield from _means(mine)


def _quality(
    mine: Sequence[_Told], baseline: Sequence[_Told], is_baseline: bool, margin: float
) -> Iterator[ArmFigure]:
    own, other = _by_prompt(mine), _by_prompt(baseline)
    if not own:
        return
    yield _share("quality", list(own.values()))
    tasks = {prompt: prompt.rpartition("/")[0] for prompt in own}
    if len(set(tasks.values())) > 1:
        for task in dict.fromkeys(tasks.values()):
            yield _share("quality", [value for prompt, value in own.items() if tasks[prompt] == task], task)
    alone = len(set(tasks.values())) == 1
    parts = {
        one.trial.prompt: one.slice if alone else f"{tasks[one.trial.prompt]}: {one.slice}"
        for one in mine
        if one.slice and one.trial.prompt in own
    }
    for part in dict.fromkeys(parts.values()):
        yield _share(PART_METRIC, [own[prompt] for prompt, its in parts.items() if its == part], part)
    both = [prompt for prompt in own if prompt in other]
    if is_baseline or not both:
        return
    found = non_inferiority([other[prompt] for prompt in both], [own[prompt] for prompt in both], margin)
    yield ArmFigure("quality_difference", found.value, found.low, found.high, found.n)
    yield ArmFigure("comparable", float(found.comparable), n=found.n)


def _by_prompt(told: Sequence[_Told]) -> dict[str, float]:
    """Prompt → the mean quality of its answers."""
    values: dict[str, list[float]] = {}
    for one in told:
        if one.quality is not None:
            values.setdefault(one.trial.prompt, []).append(one.quality)
    return {prompt: statistics.fmean(each) for prompt, each in values.items()}


def _share(metric: str, values: Sequence[float], slice: str = "") -> ArmFigure:
    whole = all(value in (0.0, 1.0) for value in values)
    interval = wilson(sum(values), len(values)) if whole else clustered_ratio([(value, 1.0) for value in values])
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    return ArmFigure(metric, statistics.fmean(values), low, high, len(values), slice)


def _predictions(mine: Sequence[_Told]) -> Iterator[ArmFigure]:
    """Divergence from the baseline for each token of its answers, and perplexity of the references."""
    apart = [(one.kl, float(one.kl_tokens or 0)) for one in mine if one.kl is not None]
    if apart:
        yield _per_token("kl_per_token", apart)
    fitting = [(one.nats, float(one.nats_tokens or 0)) for one in mine if one.nats is not None]
    if fitting:
        mean = _per_token("perplexity", fitting)
        low, high = (None if end is None else _exponential(end) for end in (mean.low, mean.high))
        yield ArmFigure("perplexity", _exponential(mean.value), low, high, mean.n)


def _exponential(nats: float) -> float:
    return math.exp(min(nats, 700.0))


def _per_token(metric: str, parts: Sequence[tuple[float, float]]) -> ArmFigure:
    """Σ nats / Σ tokens over prompts, with the interval of the ratio estimator (Cochran 1977, section 6.3).

    Neither can be below 0, and so neither is the interval. There is none of a single prompt, nor of prompts that are
    all alike: no spread seen is not no spread.
    """
    n, total = len(parts), sum(tokens for _, tokens in parts)
    value = math.fsum(nats for nats, _ in parts) / total
    if n < 2:
        return ArmFigure(metric, value, n=n)
    squares = math.fsum((nats - value * tokens) ** 2 for nats, tokens in parts)
    if not squares:
        return ArmFigure(metric, value, n=n)
    half = student(n - 1) * math.sqrt(n / (n - 1) * squares) / total
    return ArmFigure(metric, value, max(0.0, value - half), value + half, n)


def _times(summary: ArmSummary) -> Iterator[ArmFigure]:
    for metric in ("ttft_s", "tpot_s", "total_s", "tokens_per_s", "decode_tokens_per_s"):
        yield from _estimate(metric, getattr(summary, metric))
    if summary.itl_s is not None:
        for name, value in vars(summary.itl_s).items():
            yield ArmFigure(f"itl_{name}_s", value, n=summary.trials)
    for counter, size in summary.peak_bytes.items():
        yield ArmFigure(f"peak_bytes_{counter}", float(size), n=summary.trials)
    if summary.energy_j_per_token is not None:
        yield ArmFigure("energy_j_per_token", summary.energy_j_per_token, n=summary.trials)
    if (beside := summary.comparison) is not None:
        for metric, name in (("ttft_s", "ttft"), ("tpot_s", "tpot"), ("total_s", "total"), ("tokens_per_s", "speed")):
            yield from _estimate(f"{name}_ratio", getattr(beside, metric))
        if beside.agreement is not None:
            yield ArmFigure("agreement", beside.agreement.same, n=beside.agreement.n)
            yield ArmFigure("agreement_before", beside.agreement.before_divergence, n=beside.agreement.n)


def _estimate(metric: str, found: Estimate | None) -> Iterator[ArmFigure]:
    if found is not None:
        yield ArmFigure(metric, found.value, found.low, found.high, found.n)


def _costs(mine: Sequence[_Told], baseline: Sequence[_Told]) -> Iterator[ArmFigure]:
    """Bytes and FLOPs for each token of an answer, and the time that the device needs for them at the least.

    Args:
        mine: the arm's trials.
        baseline: those that they are compared with; none for the baseline itself.
    """
    kinds: dict[str, Callable[[_Told], float | None]] = {
        "bytes": lambda one: one.bytes,
        "flops": lambda one: one.flops,
    }
    others = {(one.trial.prompt, one.trial.repetition): one for one in baseline}
    pairs = [(one, others[key]) for one in mine if (key := (one.trial.prompt, one.trial.repetition)) in others]
    for name, of in kinds.items():
        known = [(value / one.tokens, one.trial.prompt) for one in mine if (value := of(one)) and one.tokens]
        if not known:
            return
        yield from _estimate(f"{name}_per_token", median_interval(*map(list, zip(*known, strict=True))))
        compared = [
            (above / one.tokens, below / other.tokens, one.trial.prompt)
            for one, other in pairs
            if (above := of(one)) and (below := of(other)) and one.tokens and other.tokens
        ]
        if compared:
            yield from _estimate(f"{name}_ratio", paired_ratio(*map(list, zip(*compared, strict=True))))
    floors = [one for one in mine if one.floor_s]
    if floors:
        times = [float(one.floor_s or 0.0) for one in floors]
        yield from _estimate("floor_s", median_interval(times, [one.trial.prompt for one in floors]))
        speeds = [one.tokens / float(one.floor_s or 1.0) for one in floors]
        yield from _estimate("floor_tokens_per_s", median_interval(speeds, [one.trial.prompt for one in floors]))

    prefills = [(one.full_prefill_floor_s, one.trial.prompt) for one in mine if one.full_prefill_floor_s]
    if prefills:
        yield from _estimate("full_prefill_floor_s", median_interval(*map(list, zip(*prefills, strict=True))))


def _means(mine: Sequence[_Told]) -> Iterator[ArmFigure]:
    """What the family shows of a generation, where it is a number: acceptance length, tokens kept, sparsity."""
    values: dict[str, list[float]] = {}
    for one in mine:
        for name, value in one.trial.figures.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                values.setdefault(name, []).append(float(value))
    for name, each in values.items():
        yield ArmFigure(f"figure_{name}", statistics.fmean(each), n=len(each))


def _unofficial_reasons(
    run: tables.Run, model: tables.Model, arm: tables.Arm, failed: int, prompts: int
) -> list[str]:
    measured: dict[str, Any] = run.measured or {}
    sessions = measured.get("sessions", [])
    found = [finding for session in sessions for finding in session["findings"] if finding["arm"] == arm.name]
    conditions = {
        ORIGINS[model.adapter].remark: bool(ORIGINS[model.adapter].remark),
        f"{failed} trials have no result": failed > 0,
        "it was not audited": not sessions,
        f"fewer than {FEWEST_PROMPTS} prompts": prompts < FEWEST_PROMPTS,
        "code with uncommitted changes": bool((run.manifest.get("code") or {}).get("dirty")),
    }
    reasons = [reason for reason, holds in conditions.items() if holds]
    return reasons + list(dict.fromkeys(f"{finding['fault']}: {finding['sentence']}" for finding in found))
