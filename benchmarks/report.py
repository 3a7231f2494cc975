"""The form that all benchmarks share: arguments, rows of ratios, a table with limits, and a JSON file."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import math
import os
import signal
import statistics
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if importlib.util.find_spec("vivace") is None:  # in a copy of the checkout, where nothing of it was installed
    sys.path[1:1] = [str(Path(__file__).parents[1] / root) for root in ("kernels", "methods", "rubrics", "platform")]

from vivace.machine.manifest import hardware, manifest

if TYPE_CHECKING:
    from vivace_methods.timing.ratios import Estimate


class BenchmarkError(Exception):
    """A benchmark cannot go on; the message is one sentence that says why and what to do."""


class Cut(BaseException):
    """The benchmark was told to end; what it has found so far is kept."""


@contextmanager
def until_cut(notes: list[str]) -> Iterator[None]:
    """Measure what stands inside until the benchmark is told to end, and then go on with what was found.

    Args:
        notes: to which it is added that something is missing.
    """
    try:
        yield
    except Cut:
        notes.append("cut short: the cases that are missing were not measured")


@contextmanager
def going_on(faults: list[str], what: str) -> Iterator[None]:
    """Let what stands inside fail by itself, and go on with what comes after it.

    Args:
        faults: to which it is added why it failed.
        what: may fail.
    """
    try:
        yield
    except Exception as error:  # whatever a driver, a compiler or a library may raise
        faults.append(f"{what} failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
        print(faults[-1], file=sys.stderr)


@dataclass(frozen=True)
class Row:
    """One compared case: how much of a metric an arm needs for each unit that the baseline needs."""

    case: str
    arm: str
    baseline: str
    metric: str
    ratio: float
    """Arm divided by baseline: the median over pairs."""
    low: float
    """The lowest ratio of any pair; of many pairs, the low end of the median's interval."""
    high: float
    """The highest; the high end."""
    n: int
    """Pairs."""
    floor: float | None
    """The same ratio at the limit that no arm could beat; None where none is known."""
    headline: bool
    """Whether a limit is set on it."""


def compare(
    case: str,
    arm: str,
    baseline: str,
    metric: str,
    pairs: Sequence[tuple[float, float]],
    *,
    floor: float | None = None,
    headline: bool = False,
) -> Row:
    """A row from the metric's values of the arm and of the baseline, pair by pair.

    Every pair gives one ratio: what slows the machine down for a while slows both values of a pair.
    """
    ratios = sorted(value / reference for value, reference in pairs)
    return Row(
        case, arm, baseline, metric, statistics.median(ratios), ratios[0], ratios[-1], len(ratios), floor, headline
    )


def estimated(
    case: str,
    arm: str,
    baseline: str,
    metric: str,
    ratio: Estimate,
    *,
    floor: float | None = None,
    headline: bool = False,
) -> Row:
    """A row from a ratio that was estimated with its interval.

    Raises:
        BenchmarkError: too few pairs for an interval.
    """
    if ratio.low is None or ratio.high is None:
        raise BenchmarkError(f"{ratio.n} pairs are too few for an interval of {arm} / {baseline} ({case}).")
    return Row(case, arm, baseline, metric, ratio.value, ratio.low, ratio.high, ratio.n, floor, headline)


@dataclass(frozen=True)
class Report:
    """What a benchmark found.

    Attributes:
        benchmark: its name.
        manifest: what was running, and on what; see `running`.
        rows: the comparisons.
        limits: metric → the highest ratio that its headline rows may show; for one case alone, (case, metric) → it.
        floors_are_measured: whether floors were measured beside the arms and are as uncertain as their ratios: then
            only a row whose whole interval lies below its floor is at fault.
    """

    benchmark: str
    manifest: dict[str, Any]
    rows: Sequence[Row]
    limits: Mapping[str | tuple[str, str], float]
    floors_are_measured: bool = False

    def limit(self, row: Row) -> float | None:
        """The highest ratio that a row may show; None where none is set."""
        if not row.headline:
            return None
        return self.limits.get((row.case, row.metric), self.limits.get(row.metric))

    @property
    def missed(self) -> list[Row]:
        """The headline rows above their limit."""
        return [row for row in self.rows if not self._holds(row)]

    @property
    def below_floor(self) -> list[Row]:
        """The rows below what no arm could beat: the clock, or the baseline, is at fault."""
        return [row for row in self.rows if row.floor is not None and not self._most(row) >= row.floor]

    def _most(self, row: Row) -> float:
        return row.high if self.floors_are_measured else row.ratio

    def _holds(self, row: Row) -> bool:
        # Written so that a ratio that is no number misses its limit.
        limit = self.limit(row)
        return limit is None or row.ratio <= limit

    def as_json(self) -> dict[str, Any]:
        """The form in which results are kept; what is no finite number is null, for JSON has no word for it."""
        rows = [asdict(row) for row in self.rows]
        found: dict[str, Any] = _finite({"benchmark": self.benchmark, "manifest": self.manifest, "rows": rows})
        return found

    def table(self) -> str:
        """The rows for people to read, limits and verdicts beside them."""
        header = ("case", "arm / baseline", "metric", "ratio", "low", "high", "n", "floor", "limit", "")
        lines = [header, *map(self._line, self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if column < 3 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    def _line(self, row: Row) -> tuple[str, ...]:
        limit = self.limit(row)
        return (
            row.case,
            f"{row.arm} / {row.baseline}",
            row.metric,
            *(f"{value:.3f}" for value in (row.ratio, row.low, row.high)),
            str(row.n),
            "" if row.floor is None else f"{row.floor:.3f}",
            "" if limit is None else f"{limit:.2f}",
            "BELOW ITS FLOOR" if row in self.below_floor else self._verdict(row),
        )

    def _verdict(self, row: Row) -> str:
        if self.limit(row) is None:
            return ""
        return "pass" if self._holds(row) else "MISSED"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def running(**more: Any) -> dict[str, Any]:
    """A report's manifest: versions, code revision and machine, and whatever else a benchmark has to say.

    Where the code is no checkout, as a copy on a machine without git, a hash of it stands in the revision's place.
    """
    told = manifest()
    return {**told, "code": told["code"] or {"sources": sources()}, "machine": hardware(), **more}


@cache
def sources(root: Path = Path(__file__).parents[1]) -> str:
    """SHA-256 of the Python and C++ files that benchmarks run, by their names."""
    found = hashlib.sha256()
    for folder in ("benchmarks", "kernels", "methods", "platform"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in (".py", ".cpp", ".h"):
                found.update(f"{path.relative_to(root)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


def arguments(description: str, quick: str) -> argparse.ArgumentParser:
    """A parser with the arguments that all benchmarks take.

    Args:
        description: what is compared.
        quick: what `--quick` leaves out.
    """
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help=f"under a minute on two cores: {quick}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there")
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 for a missed limit or a ratio below its floor"
    )
    return parser


def finished(
    benchmark: Callable[[argparse.Namespace], int], options: argparse.Namespace, *sentences: type[Exception]
) -> int:
    """Run a benchmark to its end, and give the exit code.

    Args:
        benchmark: gives the exit code.
        options: of the command line.
        sentences: further errors whose message is for people.
    """

    def cut(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is on its way
        raise Cut

    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, cut) if is_main else None
    try:
        return benchmark(options)
    except Cut:
        print("cut short before anything was found", file=sys.stderr)
        return 1
    except (BenchmarkError, *sentences) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, before)


def keep(report: Report, options: argparse.Namespace) -> None:
    """Write a report where it is wanted: called after each case, so that what was found outlives whatever comes."""
    if options.json is not None:
        write(options.json, report.as_json())


def write(file: Path, found: Mapping[str, Any]) -> None:
    """Write JSON, beside the file's place first: whoever is stopped in the middle leaves what was there before."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_text(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    beside.replace(file)


def conclude(report: Report, options: argparse.Namespace) -> int:
    """Print a report, write it where it is wanted, and give the exit code."""
    print(report.table())
    keep(report, options)
    for row in report.missed:
        print(
            f"The limit on {row.metric} of {row.case} is missed: {row.ratio:.3f}, and {report.limit(row):.2f} is "
            "allowed.",
            file=sys.stderr,
        )
    for row in report.below_floor:
        print(
            f"The {row.metric} of {row.arm} / {row.baseline} in {row.case} is below its floor ({row.ratio:.3f}, and "
            f"{row.floor:.3f} is the least): the baseline was slower than this machine is, or the clock is wrong.",
            file=sys.stderr,
        )
    return 1 if options.check and (report.missed or report.below_floor) else 0
