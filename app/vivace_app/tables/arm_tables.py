"""The efficiency board as tables and points, from rows of the store."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from vivace.model_origins import ORIGINS
from vivace.output.short_names import distinct, settings_text
from vivace.statistics.noninferiority import finding
from vivace.store.queries.efficiency import LAYER_FIGURES, ArmRow, Measured, frontier, hardware_name
from vivace_app import figures
from vivace_methods.diagnosis import Diagnosis
from vivace_methods.families import PlotAxis

NOTES = (
    "official",
    "unofficial",
    "incomplete",
    "nothing pruned",
    "synthetic",
    "random weights",
    "private",
    "retracted",
)

_CELL = re.compile(r"(?P<length>[\d,]+ tokens), (?P<depth>\d+%) deep$")
"""How the task haystack names its cells."""

TIMES = ("TTFT ×", "Tokens/s ×", "Tokens/s", "Floor, tokens/s")
"""Columns that need a model of real size."""


def machines(rows: Sequence[ArmRow]) -> dict[str, str]:
    """Fingerprint → words, of every machine that rows were measured on; those of one name are told apart."""
    named = {row.hardware_fingerprint: hardware_name(row.hardware_details) for row in rows}
    names = list(named.values())
    return {key: name if names.count(name) == 1 else f"{name} ({key[:6]})" for key, name in named.items()}


def labels(rows: Sequence[ArmRow]) -> list[str]:
    """A name for each arm that no other has: its own, and what tells it apart where needed."""
    return distinct(
        [row.short_arm for row in rows],
        ([settings_text(row.apart) for row in rows], [f"run {row.short_run}" for row in rows]),
    )


def groups(rows: Sequence[ArmRow]) -> dict[tuple[str, ...], list[ArmRow]]:
    """Rows that may be held against each other, under what they share."""
    found: dict[tuple[str, ...], list[ArmRow]] = {}
    for row in rows:
        found.setdefault(row.group, []).append(row)
    return found


def table(rows: Sequence[ArmRow], given: Mapping[str, Sequence[str]] | None = None) -> pd.DataFrame:
    """One line for each arm, with the texts that people read; without the times of small models: they say nothing.

    Args:
        rows: the arms.
        given: run → the labels that people gave it.
    """
    labels = [", ".join((given or {}).get(row.run, ())) for row in rows]
    frame = pd.DataFrame(
        {
            "Frontier": [row.mark for row in rows],
            "Arm": [row.short_arm for row in rows],
            "Quality": [_rate(row.quality_figure) for row in rows],
            "Difference": [_difference(row) for row in rows],
            "Comparable": [_comparable(row) for row in rows],
            "Same tokens": [_rate(row.figures.get("agreement")) for row in rows],
            **_pruning(rows),
            "Bytes ×": [_ratio(row, "bytes_ratio") for row in rows],
            "FLOPs ×": [_ratio(row, "flops_ratio") for row in rows],
            "TTFT ×": [_ratio(row, "ttft_ratio") for row in rows],
            "Tokens/s ×": [_ratio(row, "speed_ratio") for row in rows],
            "Tokens/s": [row.value("tokens_per_s") for row in rows],
            "Floor, tokens/s": [row.value("floor_tokens_per_s") for row in rows],
            "Trials": [int(row.value("trials") or 0) for row in rows],
            "Notes": [_notes(row) for row in rows],
            "Date": [row.date.date() for row in rows],
            "Settings": [settings_text(row.apart) for row in rows],
            "Run": [row.short_run for row in rows],
            "Labels": labels,
        }
    )
    unneeded = [] if any(row.apart for row in rows) else ["Settings"]
    unneeded += [] if any(labels) else ["Labels"]
    return frame.drop(columns=[*unneeded, *(TIMES if all(row.synthetic for row in rows) else ())])


def _pruning(rows: Sequence[ArmRow]) -> dict[str, list[float | None]]:
    """How much of prompts and caches was kept, in percent and MiB; nothing where no arm prunes prompts."""
    scales = {
        "kept_share": ("Kept, %", 0.01),
        "evidence_share": ("Evidence, %", 0.01),
        "kv_bytes": ("KV, MiB", 2**20),
    }
    found = {
        heading: [None if (value := row.value(f"figure_{figure}")) is None else value / unit for row in rows]
        for figure, (heading, unit) in scales.items()
    }
    return {heading: values for heading, values in found.items() if any(value is not None for value in values)}


MEMORY = "memory"
"""The axis of the most memory that an arm took, whoever counted it."""
_COSTS = (
    PlotAxis("speed_ratio", "tokens per second, relative to the baseline", more_is_better=True),
    PlotAxis("ttft_ratio", "time to first token, relative to the baseline"),
    PlotAxis("bytes_ratio", "bytes moved per token, relative to the baseline"),
    PlotAxis("flops_ratio", "FLOPs per token, relative to the baseline"),
)
_TIMES = ("speed_ratio", "ttft_ratio")
_COUNTERS = ("peak_bytes_allocated", "peak_bytes_process")
"""Who counts memory: the device's allocator where there is one, else the whole process."""


def costs(rows: Sequence[ArmRow]) -> dict[str, PlotAxis]:
    """What quality can be held against, the family's own first: figures that at least two arms have.

    Times of small models say nothing, and are not among them.
    """
    own = rows[0].axis
    counters = sorted({metric for row in rows for metric in row.figures if metric.startswith("peak_bytes")})
    counter = next((one for one in (*_COUNTERS, *counters) if one in counters), None)
    memory = () if counter is None else (PlotAxis(counter, "peak memory, in bytes"),)
    offered = [own, *(axis for axis in _COSTS if axis.metric != own.metric), *memory]
    return {
        MEMORY if axis.metric.startswith("peak_bytes") else axis.metric: axis
        for axis in offered
        if sum(row.value(axis.metric) is not None for row in rows) > 1
        and not (rows[0].synthetic and (axis.metric in _TIMES or axis in memory))
    }


def points(rows: Sequence[ArmRow], axis: PlotAxis | None = None) -> pd.DataFrame:
    """The arms that have both a quality and a cost, with the intervals of both; empty where none has.

    Args:
        rows: of one group.
        axis: what quality is held against; None for what the rows themselves say.
    """
    held = axis or rows[0].axis if rows else axis
    quality_of = {
        place: quality
        for place, row in enumerate(rows)
        if held is not None and row.value(held.metric) is not None and (quality := row.quality_figure) is not None
    }
    placed, qualities = [rows[place] for place in quality_of], list(quality_of.values())
    best = frontier([row for row in placed if row.standing == "ranked"], held)
    nothing = Measured(1.0, None, None, 0)
    found = [row.figures.get(held.metric, nothing) for row in placed] if held is not None else []
    return pd.DataFrame(
        {
            "arm": [row.short_arm for row in placed],
            "method": [row.method for row in placed],
            "cost": [cost.value for cost in found],
            "cost low": [cost.value if cost.low is None else cost.low for cost in found],
            "cost high": [cost.value if cost.high is None else cost.high for cost in found],
            "quality": [quality.value for quality in qualities],
            "quality low": [quality.value if quality.low is None else quality.low for quality in qualities],
            "quality high": [quality.value if quality.high is None else quality.high for quality in qualities],
            "frontier": [row in best for row in placed],
            "beside the baseline": ["baseline" if row.baseline else _comparable(row) for row in placed],
        }
    )


WITHIN = 0.02
"""Points below the baseline's quality that people ask about first."""


def fastest_within(rows: Sequence[ArmRow], axis: PlotAxis) -> ArmRow | None:
    """The arm that is best on an axis among those whose measured quality is within two points of the baseline's."""
    held = [
        row
        for row in rows
        if not row.baseline and row.standing == "ranked" and row.value(axis.metric) is not None
        and (difference := row.figures.get("quality_difference")) is not None and difference.value >= -WITHIN
    ]  # fmt: skip
    sign = -1 if axis.more_is_better else 1
    return min(held, key=lambda row: sign * (row.value(axis.metric) or 0.0), default=None)


def gains(row: ArmRow, rows: Sequence[ArmRow], axis: PlotAxis) -> bool:
    """Whether an arm is better on an axis than the baseline among these rows: the best of the others need not be."""
    value = row.value(axis.metric)
    baseline = next((one.value(axis.metric) for one in rows if one.baseline), None)
    if value is None or baseline is None:
        return True
    return value > baseline if axis.more_is_better else value < baseline


def measured(row: ArmRow, axis: PlotAxis) -> str:
    """An arm's figure on an axis, and how its quality stands beside the baseline's, both with intervals."""
    found = row.figures.get(axis.metric, Measured(1.0, None, None, 0))
    in_gib = axis.metric.startswith("peak_bytes")
    values = [one / 2**30 if in_gib else one for one in (found.value, found.low, found.high) if one is not None]
    text = f"{values[0]:.2f} GiB" if in_gib else f"× {values[0]:.2f}"
    interval = f" [{values[1]:.2f}, {values[2]:.2f}]" if len(values) > 2 else ""
    differs = row.figures.get("quality_difference")
    beside = "" if differs is None else f"; quality {figures.points(differs.value, differs.low, differs.high)} points"
    return text + interval + beside


_BY_LAYER = {
    "unique_experts": "experts read in a pass",
    "natural_experts": "experts that routing alone would read",
    "kept_mass": "routing weight within the budget",
    "uncovered": "tokens without their best expert",
    "kept_tokens": "share of the prompt kept",
    "evidence_kept": "share of the evidence kept",
}
"""Kind of figure that whole layers have → its words."""


def by_layer(found: Mapping[str, Sequence[Diagnosis]]) -> pd.DataFrame:
    """Figures of whole layers of several arms, for heat maps: how many experts budgets leave, how much is kept.

    Args:
        found: arm → what is known of its layers.
    """
    rows = [
        {"measure": _BY_LAYER[row.kind], "arm": arm, "layer": int(row.layer), "value": row.value, "n": row.n}
        for arm, told in found.items()
        for row in told
        if row.kind in _BY_LAYER and row.layer.isdigit() and not row.setting
    ]
    return pd.DataFrame(rows, columns=["measure", "arm", "layer", "value", "n"])


_MODULE = re.compile(r"(?:^|\.)(?P<layer>\d+)\.(?P<module>.+)$")


def by_module(found: Sequence[Diagnosis]) -> pd.DataFrame:
    """What an arm was told to leave out of each module, and what it did leave out, for heat maps.

    Args:
        found: what is known of the arm's layers.
    """
    words = {"sparsity": "sparsity asked for", "kept_channels": "sparsity realised",
             "ratio": "part of sparsity in the input", "output_error": "output error"}  # fmt: skip
    rows = [
        {"measure": words[row.kind], "module": match["module"], "layer": int(match["layer"]),
         "value": 1 - row.value if row.kind == "kept_channels" else row.value, "n": row.n}
        for row in found
        if row.kind in words and (match := _MODULE.search(row.layer)) is not None
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["measure", "module", "layer", "value", "n"])


def haystack(rows: Sequence[ArmRow]) -> pd.DataFrame:
    """Quality by the depth and the length at which a needle lay, of each arm; empty without such tasks."""
    found = [
        {"arm": row.arm, "length": match["length"], "depth": match["depth"], "quality": its.value, "n": its.n}
        for row in rows
        for part, its in row.parts.items()
        if (match := _CELL.search(part)) is not None
    ]
    return pd.DataFrame(found, columns=["arm", "length", "depth", "quality", "n"])


def rankings(found: Sequence[Diagnosis]) -> pd.DataFrame:
    """Figures that an arm tells of several rankings in each layer, for a heat map; empty where it tells none.

    Args:
        found: what is known of the arm's layers. What holds in `any` layer holds in all.
    """
    told = [row for row in found if row.setting and row.kind not in LAYER_FIGURES]
    places = sorted({int(row.layer) for row in told if row.layer.isdigit()})
    rows = [
        {
            "measure": row.kind.replace("_", " "),
            "ranking": row.setting,
            "layer": place,
            "value": row.value,
            "n": row.n,
        }
        for row in told
        for place in ([int(row.layer)] if row.layer.isdigit() else places)
    ]
    return pd.DataFrame(rows, columns=["measure", "ranking", "layer", "value", "n"])


def layers(found: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """What an arm does to each layer, as a table."""
    columns = {
        "Layer": "layer",
        "Kept": "kept_channels",
        "Ratio": "ratio",
        "Rank": "rank",
        "Criterion": "criterion",
        "Output error": "output_error",
    }
    return pd.DataFrame([{title: layer.get(name) for title, name in columns.items()} for layer in found])


def floor(rows: Sequence[ArmRow], axis: PlotAxis | None = None) -> float | None:
    """Where the hardware's limit lies on an axis of time: the baseline's own work at the rates that were probed.

    None for small models, whose axis is the very work of which floors are made, and where it is not known.
    """
    baseline = next((row for row in rows if row.baseline), None)
    if baseline is None or baseline.synthetic:
        return None
    limits = {
        "ttft_ratio": ("full_prefill_floor_s", "ttft_s"),
        "speed_ratio": ("floor_tokens_per_s", "tokens_per_s"),
    }
    found = limits.get((axis or baseline.axis).metric)
    if found is None:
        return None
    best, taken = map(baseline.value, found)
    return best / taken if best and taken else None


def _rate(found: Measured | None) -> str:
    return figures.with_interval(*(None, None, None) if found is None else (found.value, found.low, found.high))


def _difference(row: ArmRow) -> str:
    found = row.figures.get("quality_difference")
    return figures.ABSENT if found is None else figures.points(found.value, found.low, found.high)


def _comparable(row: ArmRow) -> str:
    if row.baseline:
        return "baseline"
    found, difference = row.figures.get("comparable"), row.figures.get("quality_difference")
    if found is None or difference is None:
        return figures.ABSENT
    said = finding(bool(found.value), difference.high)
    return "yes" if said == "comparable" else said


def _ratio(row: ArmRow, metric: str) -> str:
    found = row.figures.get(metric)
    if found is None:
        return "1" if row.baseline else figures.ABSENT
    text = f"{found.value:.3f}"
    return text if found.low is None or found.high is None else f"{text} [{found.low:.3f}–{found.high:.3f}]"


def _notes(row: ArmRow) -> list[str]:
    held = {
        "official": row.official,
        "unofficial": not row.official,
        "incomplete": row.standing == "incomplete",
        "nothing pruned": row.pruned_nothing,
        "synthetic": row.synthetic,
        "random weights": not ORIGINS[row.adapter].are_answers_real,
        "private": row.private,
        "retracted": row.retracted is not None,
    }
    return [note for note in NOTES if held[note]]
