"""What a job can notice with its size, said before it is made: the smallest drop that two nights are sure to show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vivace.regressions.jobs import Job, window_of
from vivace.regressions.samples import sample_of, spread_of_speeds
from vivace.spec import DialogueSpec, EfficiencySpec
from vivace.statistics.regression import noticeable
from vivace.store.database import Database
from vivace.store.queries.regressions import title
from vivace.store.tables import Run
from vivace.tracks.base import PreparedRun

FLIPS = (0.04, 0.08, 0.12, 0.20)
"""Shares of conversations that come out differently in two runs of the same model, from a calm one to a restless."""
JUDGED_FIGURES = 10
"""APR and ARS, of the whole and of four axes."""


def drops(
    n: int,
    metrics: int,
    *,
    window: int,
    tolerance: float = 0.0,
    repeats: int = 1,
    flips: Sequence[float] = FLIPS,
) -> list[dict[str, Any]]:
    """For several shares of flips the drop of APR that is confirmed within two nights in 95 of 100 cases."""
    return [
        {
            "flips": share,
            "conversations": n,
            "metrics": metrics,
            "window": window,
            "noticeable": noticeable(n, share / 2 / repeats, metrics, window=window, tolerance=tolerance),
        }
        for share in flips
    ]


def losses(database: Database, run_id: str, *, window: int, tolerances: Mapping[str, float]) -> list[dict[str, Any]]:
    """For each speed of a run of arms the loss that is confirmed within two nights in 95 of 100 cases.

    By what its repeats vary within a run; nights of a machine that others use too vary more.
    """
    with database.read() as session:
        run = session.get_one(Run, run_id)
        metrics = len(sample_of(session, run.id, None).figures)
        found = spread_of_speeds(session, run.id)
    rows = []
    for figure, (prompts, noise) in found.items():
        least = None
        if noise is not None:
            tolerance = figure.tolerance(tolerances)
            least = noticeable(prompts, noise, metrics, window=window, tolerance=tolerance, flip=figure.flip)
        rows.append(
            {
                "figure": title(figure.metric, figure.slice),
                "prompts": prompts,
                "metrics": metrics,
                "window": window,
                "noise": None if noise is None else math.sqrt(noise),
                "noticeable": None if least is None else -math.expm1(-least),
            }
        )
    return rows


def what_is_noticed(job: Job, run: PreparedRun, database: Database | None) -> str:
    """A sentence about the job."""
    window = window_of(job.baseline) or 1
    gates = job.gates or {}
    if isinstance(job.spec, EfficiencySpec):
        return (
            f"a loss of speed beyond {100 * gates['speed']:g} % of what an arm had beside the baseline arm, and of "
            f"quality beyond {100 * gates['quality']:g} points; how much more it takes depends on the noise of the "
            "machine, which its first nights show, and `vivace plan regression RUN` of a run of that size."
        )
    n, metrics, spec = int(run.describe()["conversations"]), JUDGED_FIGURES, job.spec
    repeats = spec.repeats if isinstance(spec, DialogueSpec) else 1
    rows = drops(n, metrics, window=window, tolerance=float(gates["quality"]), repeats=repeats)
    told = ", ".join(
        f"{100 * row['noticeable']:.1f} points where {row['flips']:.0%} flip by chance"
        for row in rows
        if row["noticeable"] is not None
    )
    if not told:
        return f"with {n} conversations no drop is sure to be noticed; take more, or --repeats."
    return (
        f"with {n} conversations and {metrics} figures it notices within two nights, in 95 of 100 cases, a drop of "
        f"APR of {told}; once {window} {'night is' if window == 1 else 'nights are'} accepted."
    )
