"""The form that benchmarks share: ratios, limits, and what is written."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from report import Report, Row, arguments, compare, conclude, going_on, keep, running, sources

LIMITS = {"cpu_s": 0.8, "memory_bytes": 1.3}


def row(ratio: float, metric: str = "cpu_s", *, headline: bool = True) -> Row:
    """A row of one pair."""
    return compare("case", "ours", "theirs", metric, [(ratio, 1.0)], headline=headline)


def test_a_ratio_is_the_median_over_pairs_and_not_a_ratio_of_medians() -> None:
    found = compare("case", "ours", "theirs", "wall_s", [(1.0, 2.0), (9.0, 10.0), (30.0, 100.0)])
    assert (found.ratio, found.low, found.high, found.n) == (0.5, 0.3, 0.9, 3)


@pytest.mark.parametrize(
    ("ratio", "metric", "headline", "missed"),
    [
        (0.8, "cpu_s", True, False),
        (0.81, "cpu_s", True, True),
        (1.2, "memory_bytes", True, False),
        (5.0, "cpu_s", False, False),
        (5.0, "time_s", True, False),
        (math.nan, "cpu_s", True, True),
    ],
)
def test_a_limit_holds_for_headline_rows_of_its_metric(
    ratio: float, metric: str, headline: bool, missed: bool
) -> None:
    report = Report("b", {}, [row(ratio, metric, headline=headline)], LIMITS)
    assert bool(report.missed) is missed
    assert ("MISSED" in report.table()) is missed


def test_the_json_holds_the_form_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "results" / "found.json"
    report = Report("b", running(work={"seed": 1}), [row(0.5)], LIMITS)
    options = arguments("a", "b").parse_args(["--json", str(file)])
    assert conclude(report, options) == 0
    written = json.loads(file.read_text(encoding="utf-8"))
    assert set(written) == {"benchmark", "manifest", "rows"}
    assert set(written["rows"][0]) == {
        "case", "arm", "baseline", "metric", "ratio", "low", "high", "n", "floor", "headline",
    }  # fmt: skip
    assert written["manifest"]["packages"]["vivace"] and written["manifest"]["machine"]["cores"]
    assert written["manifest"]["work"] == {"seed": 1}


@pytest.mark.parametrize(("arguments_given", "code"), [([], 0), (["--check"], 1)])
def test_a_missed_limit_is_told_and_fails_only_where_asked(
    arguments_given: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    options = arguments("a", "b").parse_args(arguments_given)
    assert conclude(Report("b", {}, [row(0.9)], LIMITS), options) == code
    assert "The limit on cpu_s of " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ratio", "headline", "below"), [(0.49, True, True), (0.49, False, True), (0.5, True, False)]
)
def test_a_ratio_below_its_floor_is_named_and_fails(
    ratio: float, headline: bool, below: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """No arm can beat it, so that the baseline was slow by choice or the clock is wrong, whatever the row is for."""
    found = compare("case", "ours", "theirs", "time_s", [(ratio, 1.0)], floor=0.5, headline=headline)
    report = Report("b", {}, [found], LIMITS)
    assert conclude(report, arguments("a", "b").parse_args(["--check"])) == int(below)
    told = capsys.readouterr()
    assert ("BELOW ITS FLOOR" in told.out) is below and ("is below its floor" in told.err) is below
    assert conclude(report, arguments("a", "b").parse_args([])) == 0


@pytest.mark.parametrize(("high", "below"), [(0.49, True), (0.51, False)])
def test_below_a_measured_floor_lies_a_whole_interval(high: float, below: bool) -> None:
    """Both were measured beside each other: an arm without any cost of its own is as often above as below."""
    found = compare("case", "ours", "theirs", "time_s", [(0.4, 1.0), (0.45, 1.0), (high, 1.0)], floor=0.5)
    assert found.ratio < 0.5
    assert bool(Report("b", {}, [found], LIMITS, floors_are_measured=True).below_floor) is below
    assert Report("b", {}, [found], LIMITS).below_floor


def test_what_is_no_finite_number_is_null_and_a_result_is_whole_or_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strict readers of JSON know no infinity; and whoever is killed while he writes spoils nothing."""
    file = tmp_path / "found.json"
    options = arguments("a", "b").parse_args(["--json", str(file)])
    keep(Report("b", {"figures": [{"x": (math.inf, 1.0)}]}, [row(math.nan)], LIMITS), options)

    def strict(word: str) -> None:
        raise AssertionError(word)

    written = json.loads(file.read_text(encoding="utf-8"), parse_constant=strict)
    assert written["rows"][0]["ratio"] is None and written["manifest"]["figures"] == [{"x": [None, 1.0]}]
    monkeypatch.setattr(Path, "replace", lambda self, target: None)  # stopped just before the end
    keep(Report("b", {}, [], LIMITS), options)
    assert json.loads(file.read_text(encoding="utf-8")) == written


def test_one_case_fails_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    faults: list[str] = []
    for name in ("first", "second", "third"):
        with going_on(faults, name):
            if name == "second":
                raise RuntimeError("CUDA error:\n  an illegal memory access")
    assert faults == ["second failed: RuntimeError: CUDA error: an illegal memory access"]
    assert capsys.readouterr().err == f"{faults[0]}\n"


def test_where_there_is_no_git_the_sources_have_a_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "a.py").write_text("1")
    first = sources(tmp_path)
    sources.cache_clear()
    (tmp_path / "kernels" / "a.py").write_text("2")
    assert sources(tmp_path) != first
    monkeypatch.setattr("report.manifest", lambda: {"code": None})
    assert len(running()["code"]["sources"]) == 64
    monkeypatch.setattr("report.manifest", lambda: {"code": {"commit": "a"}})
    assert running()["code"] == {"commit": "a"}
