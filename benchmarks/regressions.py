"""Do regression jobs stay quiet, find what is worse, and name its cause? Simulated nights, by the rules that ship."""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vivace.machine.manifest import hardware, manifest
from vivace.statistics.intervals import wilson
from vivace.statistics.regression import (
    CONFIRMATIONS,
    WINDOW,
    confirms,
    gate,
    known_noise,
    split,
    steps,
    variance,
    worsening_p,
)

Floats = NDArray[np.float32]
CONVERSATIONS = 452
METRICS = 20
PROMPTS = 60
SPEED_TOLERANCE = math.log(1 / 0.97)
"""The three per cent of speed that a job does not mind unless it says otherwise."""
NIGHTS = 2
"""Within which a true drop has to be confirmed."""


@dataclass(frozen=True)
class Size:
    """How much is simulated."""

    series: int
    nights: int
    drops: int
    trends: int


QUICK = Size(series=8, nights=150, drops=160, trends=60)
WHOLE = Size(series=40, nights=1000, drops=800, trends=400)


@dataclass(frozen=True)
class Found:
    """One line of the result: what was simulated, and how often something happened."""

    case: str
    setting: str
    happened: float
    """A share."""
    of: int
    limit: float | None
    """What it may be at most, or has to be at least."""
    at_least: bool
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """The row in the form of all benchmarks: the share stands where others have a ratio, with its interval."""
        interval = wilson(round(self.happened * self.of), self.of)
        low, high = (None, None) if interval is None else (interval.low, interval.high)
        told = {"case": self.case, "arm": self.setting, "baseline": "", "metric": "share", "ratio": self.happened}
        spread = {"low": low, "high": high, "n": self.of, "floor": None, "headline": self.limit is not None}
        return {**told, **spread, "limit": self.limit, "at_least": self.at_least, "note": self.note}

    @property
    def holds(self) -> bool:
        """Whether it is as it must be."""
        if self.limit is None:
            return True
        return self.happened >= self.limit if self.at_least else self.happened <= self.limit


class Quality:
    """Metrics of pass and fail: some conversations always come out alike, others by chance.

    Args:
        flips: the share of conversations that come out differently in two runs. The chances of those that waver are
            spread evenly from 0 to 1, so that a third of them flips: three times as many waver.
    """

    tolerance = 0.0
    flip = 1.0

    def __init__(
        self, chance: np.random.Generator, flips: float, series: int, metrics: int, n: int = CONVERSATIONS
    ) -> None:
        self.n = n
        self._chance = chance
        self._passing = chance.random((series, metrics, max(1, round(3 * flips * n))), dtype=np.float32)

    def run(self) -> Floats:
        """One run: series × metrics × wavering conversations; the others are the same every night."""
        return (self._chance.random(self._passing.shape, dtype=np.float32) < self._passing).astype(np.float32)

    def of(self, chosen: NDArray[np.intp]) -> Quality:
        """The same of some of the series."""
        part = object.__new__(Quality)
        part.n, part._chance = self.n, self._chance
        part._passing = self._passing[chosen]
        return part


class Speed:
    """A ratio of speeds, in logarithms, one for each prompt: each is measured with noise, and each night is a little
    faster or slower as a whole.
    """

    tolerance = SPEED_TOLERANCE
    flip = 0.0
    n = PROMPTS

    def __init__(
        self, chance: np.random.Generator, series: int, spread: float = 0.04, nightly: float = 0.008
    ) -> None:
        self._chance, self._series = chance, series
        self._spread, self._nightly = spread, nightly

    def run(self) -> Floats:
        """One run: series × 1 × prompts."""
        shape = (self._series, 1, PROMPTS)
        whole = self._chance.normal(0, self._nightly, (self._series, 1, 1))
        return (self._chance.normal(0, self._spread, shape) + whole).astype(np.float32)

    def of(self, chosen: NDArray[np.intp]) -> Speed:
        """The same of some of the series."""
        return Speed(self._chance, len(chosen), self._spread, self._nightly)


Metric = Quality | Speed


def p_values(kind: Metric, run: Floats, window: Floats, runs: int, lost: int = 0, loss: float = 0.0) -> NDArray[Any]:
    """One-sided p-values, series × metrics.

    Args:
        run: of the night, or the mean of several.
        window: series × nights × metrics × what is compared.
        runs: that the night's values are the mean of.
        lost: conversations of the first metric that pass every night and fail now; they do not waver.
        loss: what every value of the first metric falls by.
    """
    differences = (run - window.mean(axis=1)).astype(np.float64)
    if loss:
        differences[:, 0] -= loss
    noise = known_noise(window.var(axis=1, ddof=1, dtype=np.float64).sum(-1), WINDOW, kind.flip)
    total = differences.sum(-1)
    total[:, 0] -= lost
    by_chance = variance(kind.n, differences, noise, 1 / runs + 1 / WINDOW)
    return np.asarray(worsening_p(kind.n, total, by_chance, tolerance=kind.tolerance))


class Jobs:
    """Many jobs side by side, each with its metrics and its own window of accepted nights."""

    def __init__(self, kinds: list[Metric]) -> None:
        self._kinds = kinds
        self._windows = [np.stack([kind.run() for _ in range(WINDOW)], axis=1) for kind in kinds]
        self._place = np.zeros(self._windows[0].shape[0], dtype=int)

    def night(self, lost: int = 0, loss: float = 0.0) -> NDArray[np.bool_]:
        """One night of all jobs, of which those that did not regress enter their windows; which have regressed.

        Args:
            lost: what the first kind's first metric loses in conversations.
            loss: the same in its values.
        """
        runs = [kind.run() for kind in self._kinds]
        own = [(lost, loss) if place == 0 else (0, 0.0) for place in range(len(runs))]
        first = np.concatenate(
            [p_values(kind, run, window, 1, *ours)
             for kind, run, window, ours in zip(self._kinds, runs, self._windows, own, strict=True)], axis=1,
        )  # fmt: skip
        flags = np.array([gate(list(row)) for row in first])
        again = np.flatnonzero(flags.any(axis=1))
        regressed = np.zeros(len(first), dtype=bool)
        if again.size:
            fresh = np.concatenate(
                [
                    p_values(kind, sum(kind.of(again).run() for _ in range(CONFIRMATIONS)) / CONFIRMATIONS,
                             window[again], CONFIRMATIONS, *ours)
                    for kind, window, ours in zip(self._kinds, self._windows, own, strict=True)
                ], axis=1,
            )  # fmt: skip
            shown = np.vectorize(confirms)(fresh) & flags[again]
            regressed[again] = shown.any(axis=1)
        self._enter(runs, ~regressed, lost, loss)
        return regressed

    def _enter(self, runs: list[Floats], accepted: NDArray[np.bool_], lost: int, loss: float) -> None:
        chosen = np.flatnonzero(accepted)
        for place, (window, run) in enumerate(zip(self._windows, runs, strict=True)):
            entered = run[chosen].copy()
            if place == 0 and loss:
                entered[:, 0] -= loss
            window[chosen, self._place[chosen]] = entered
        # Windows hold conversations that waver alone. Those that a night lost for good are known to whoever calls:
        # what a window then lacks of them is taken off what the next night loses.
        self._place[chosen] = (self._place[chosen] + 1) % WINDOW


def quiet(size: Size, seed: int) -> list[Found]:
    """Nights without any change: how many raise an alert."""
    found = []
    sizes = ((CONVERSATIONS, METRICS), (100, 10), (16, 10))
    for (n, metrics), flips in ((each, flips) for each in sizes for flips in (0.08, 0.12)):
        chance = np.random.default_rng(seed)
        jobs = Jobs([Quality(chance, flips, size.series, metrics - 1, n), Speed(chance, size.series)])
        alerts = np.stack([jobs.night() for _ in range(size.nights)])
        worst = float(alerts.mean(axis=0).max())
        found.append(
            Found(f"nights without a change that alert, {n} conversations, {metrics} metrics",
                  f"{flips:.0%} flip", float(alerts.mean()), alerts.size, 0.01,
                  False, f"worst of {size.series} series of {size.nights} nights: {worst:.2%}")
        )  # fmt: skip
    return found


def drops(size: Size, seed: int) -> list[Found]:
    """True drops: how many are confirmed within two nights."""
    found = []
    lost = round(0.05 * CONVERSATIONS)
    for flips in (0.08, 0.12, 0.15, 0.20):
        chance = np.random.default_rng(seed + 1)
        jobs = Jobs([Quality(chance, flips, size.drops, METRICS - 1), Speed(chance, size.drops)])
        first = jobs.night(lost)
        # What the first night lost is in the window of those that did not notice, as one of seven nights.
        diluted = lost * (1 - 1 / WINDOW)
        second = jobs.night(math.floor(diluted))
        share = float((first | second).mean())
        found.append(
            Found("5 points of APR lost: confirmed within two nights", f"{flips:.0%} flip", share, size.drops,
                  0.95 if flips < 0.15 else None, True, f"in the first night: {float(first.mean()):.1%}")
        )  # fmt: skip
    chance = np.random.default_rng(seed + 2)
    jobs = Jobs([Speed(chance, size.drops), Quality(chance, 0.12, size.drops, METRICS - 1)])
    loss = math.log(1 / 0.9)
    first = jobs.night(loss=loss)
    second = jobs.night(loss=loss)
    found.append(
        Found("10 % of throughput lost: confirmed within two nights", "4 % noise, .8 % by night",
              float((first | second).mean()), size.drops, 0.95, True,
              f"in the first night: {float(first.mean()):.1%}")
    )  # fmt: skip
    return found


def causes(size: Size, seed: int) -> list[Found]:
    """A stricter judge, a slower machine, a worse model, two at once: how often exactly those are named."""
    chance = np.random.default_rng(seed + 3)
    rounds = max(40, size.drops // 4)
    named = dict.fromkeys(("judge", "model", "judge and model", "machine", "method", "machine and method"), 0)
    for _ in range(rounds):
        for case in ("judge", "model", "judge and model"):
            named[case] += _judged(chance, "judge" in case, "model" in case) == ("judge" in case, "model" in case)
        for case in ("machine", "method", "machine and method"):
            named[case] += _timed(chance, "machine" in case, "method" in case) == (
                "machine" in case,
                "method" in case,
            )
    return [
        Found("cause named, and no other", case, count / rounds, rounds, 0.95, True) for case, count in named.items()
    ]


def _judged(chance: np.random.Generator, stricter: bool, worse: bool) -> tuple[bool, bool]:
    """What is named where a judge fails an eighth of what it passed, a model loses eight points, or both."""
    units = [str(place) for place in range(CONVERSATIONS)]
    wavers = chance.random(CONVERSATIONS) < 0.3
    passing = np.where(wavers, chance.random(CONVERSATIONS), chance.random(CONVERSATIONS) < 0.6)

    def replies(loss: float) -> NDArray[np.bool_]:
        return (chance.random(CONVERSATIONS) < passing) & (chance.random(CONVERSATIONS) >= loss)

    severity = chance.random(CONVERSATIONS) < 0.15  # conversations about which a stricter judge thinks otherwise
    strict = ~severity if stricter else np.ones(CONVERSATIONS, dtype=bool)

    def sample(values: Any) -> dict[str, float]:
        return dict(zip(units, map(float, values), strict=True))

    window = [sample(replies(0)) for _ in range(WINDOW)]
    frozen = replies(0)
    tonight = [sample(replies(0.14 if worse else 0) & strict) for _ in range(CONFIRMATIONS)]
    found = split(tonight, window, sample(frozen & strict), sample(frozen))
    assert found is not None
    return found.causes


def _timed(chance: np.random.Generator, slower: bool, worse: bool) -> tuple[bool, bool]:
    """What is named where a machine loses a fifth of its speed, a method a tenth, or both."""
    units = [str(place) for place in range(PROMPTS)]

    def speeds(machine: float, method: float) -> tuple[dict[str, float], dict[str, float]]:
        reference = chance.normal(-machine, 0.04, PROMPTS) + chance.normal(0, 0.01)
        arm = reference + chance.normal(0.4 - method, 0.04, PROMPTS) + chance.normal(0, 0.008)
        return dict(zip(units, reference, strict=True)), dict(zip(units, arm, strict=True))

    before = [speeds(0, 0) for _ in range(WINDOW)]
    now = [speeds(math.log(1 / 0.8) * slower, math.log(1 / 0.9) * worse) for _ in range(CONFIRMATIONS)]

    def mean(runs: list[dict[str, float]]) -> dict[str, float]:
        return {unit: sum(run[unit] for run in runs) / len(runs) for unit in units}

    found = split(
        [arm for _, arm in now], [arm for _, arm in before],
        mean([reference for reference, _ in now]), mean([reference for reference, _ in before]), SPEED_TOLERANCE,
    )  # fmt: skip
    assert found is not None
    return found.causes


def trends(size: Size, seed: int) -> list[Found]:
    """Series of one figure: steps that are seen where there is one, and where there is none."""
    chance = np.random.default_rng(seed + 4)
    nights, at = 200, 120
    seen = found_place = 0
    for _ in range(size.trends):
        series = chance.normal(0, 1, nights)
        seen += bool(steps(list(series)))
        series[at:] -= 2.0
        found_place += any(abs(place - at) <= 3 for place in steps(list(series)))
    return [
        Found("steps seen in a quiet series", f"{nights} nights", seen / size.trends, size.trends, 0.10, False),
        Found("a step of two standard deviations seen, within three nights", f"{nights} nights",
              found_place / size.trends, size.trends, 0.95, True),
    ]  # fmt: skip


def main() -> int:
    """Simulate, print a table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of it, under a minute")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where the result is written")
    parser.add_argument("--check", action="store_true", help="fail where a limit is missed")
    options = parser.parse_args()
    size = QUICK if options.quick else WHOLE
    rows = [row for part in (quiet, drops, causes, trends) for row in part(size, options.seed)]
    for row in rows:
        limit = "" if row.limit is None else f" ({'at least' if row.at_least else 'at most'} {row.limit:.0%})"
        mark = "" if row.holds else "  MISSED"
        note = f"; {row.note}" if row.note else ""
        print(f"{row.case}, {row.setting}: {row.happened:.2%} of {row.of}{limit}{note}{mark}")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        written = {
            "benchmark": "regressions",
            "manifest": {**manifest(), "machine": hardware(), "work": {**asdict(size), "seed": options.seed}},
            "rows": [row.as_json() for row in rows],
        }
        options.json.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    return int(options.check and any(not row.holds for row in rows))


if __name__ == "__main__":
    sys.exit(main())
