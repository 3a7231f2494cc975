"""`vivace import`: replies and verdicts from elsewhere become a run whose figures are checked by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.datasets import AXES, write_jsonl

SHARED = Path(__file__).parents[3] / "shared" / "data" / "audiomc"
FIGURES = ["n", "criteria", "passes", "met", "unscored", "coverage"] + [
    metric + end for metric in ("apr", "ars") for end in ("", "_low", "_high", "_min", "_max")
]

# Seven conversations: axis, rubric length, verdicts; the sixth has no verdicts and the seventh no row at all.
GOLDEN: list[tuple[str, int, list[bool | None] | None]] = [
    (AXES[0], 2, [True, True]),
    (AXES[0], 3, [True, False, True]),
    (AXES[1], 1, [True]),
    (AXES[1], 2, [None, True]),
    (AXES[2], 2, [False, None]),
    (AXES[2], 1, None),
    (AXES[3], 4, None),
]


@pytest.fixture
def golden(tmp_path: Path) -> tuple[Path, Path]:
    """The data and the verdict file of `GOLDEN`; the third reply is empty and still judged."""
    rows, verdicts = [], []
    for number, (axis, length, given) in enumerate(GOLDEN):
        key = f"c{number}"
        rubric = json.dumps(["Says the same."] * length)  # the same sentence again and again: places count
        rows.append({"id": key, "axis": axis, "user_turn_1_transcript": f"question {number}", "rubric": rubric})
        response = "" if number == 2 else f"answer {number}"
        if number != 6:
            row: dict[str, Any] = {"id": key, "response": response}
            verdicts.append(row if given is None else {**row, "criteria_met": given})
    return write_jsonl(tmp_path / "data.jsonl", rows), write_jsonl(tmp_path / "verdicts.jsonl", verdicts)


def importing(data: Path, verdicts: Path, *more: object) -> tuple[object, ...]:
    """The command line of an import."""
    judge = ("--judge-name", "careful people")
    return ("import", "audio-multichallenge", "--data", data, "--verdicts", verdicts, "--model", "m", *judge, *more)


def test_figures_are_the_hand_computed_ones(
    call: Callable[..., Any], golden: tuple[Path, Path], database_url: str
) -> None:
    assert call(*importing(*golden, "--database", database_url)).code == 0
    (row,) = json.loads(call("leaderboard", "--format", "json", "--database", database_url).out)
    assert (row["model"], row["judge"], row["imported"], row["official"]) == ("m", "careful people", True, False)
    # Criteria: 2+3+1+2+2+1+4 = 15, of which 2+3+1+1+1 = 8 are scored and 2+2+1+1+0 = 6 met.
    assert {name: row[name] for name in ("n", "criteria", "met", "unscored")} == {
        "n": 7, "criteria": 15, "met": 6, "unscored": 7,
    }  # fmt: skip
    assert row["coverage"] == 8 / 15
    assert (row["ars"], row["ars_min"], row["ars_max"]) == (6 / 8, 6 / 15, 13 / 15)
    # Wholly scored: c0, c1, c2, of which c0 and c2 pass; c3, c5 and c6 could still pass.
    assert (row["passes"], row["apr"], row["apr_min"], row["apr_max"]) == (2, 2 / 3, 2 / 7, 5 / 7)
    assert row["apr_low"] < row["apr"] < row["apr_high"]
    axes = row["axes"]
    assert set(axes) == set(AXES)
    assert all(set(FIGURES) <= set(figures) for figures in (row, *axes.values()))
    assert (axes[AXES[0]]["apr"], axes[AXES[0]]["ars"]) == (1 / 2, 4 / 5)
    assert (axes[AXES[1]]["apr"], axes[AXES[1]]["ars"], axes[AXES[1]]["coverage"]) == (1.0, 1.0, 2 / 3)
    assert (axes[AXES[2]]["apr"], axes[AXES[2]]["ars"], axes[AXES[2]]["apr_max"]) == (None, 0.0, 1 / 2)
    assert (axes[AXES[3]]["apr"], axes[AXES[3]]["ars"], axes[AXES[3]]["coverage"]) == (None, None, 0.0)
    assert (axes[AXES[3]]["apr_min"], axes[AXES[3]]["apr_max"]) == (0.0, 1.0)


def test_importing_twice_changes_nothing(
    call: Callable[..., Any], golden: tuple[Path, Path], database_url: str
) -> None:
    first = call(*importing(*golden, "--database", database_url, "--format", "json"))
    before = json.loads(call("leaderboard", "--format", "json", "--database", database_url).out)
    again = call(*importing(*golden, "--database", database_url, "--format", "json"))
    after = json.loads(call("leaderboard", "--format", "json", "--database", database_url).out)
    assert first.code == again.code == 0
    assert len(after) == 1
    assert after == before


def test_another_judge_of_the_same_replies_is_another_row_of_the_same_run(
    call: Callable[..., Any], golden: tuple[Path, Path]
) -> None:
    call(*importing(*golden))
    assert call(*importing(*golden, "--judge-name", "hasty people")).code == 0
    rows = json.loads(call("leaderboard", "--format", "json").out)
    assert sorted(row["judge"] for row in rows) == ["careful people", "hasty people"]
    assert len({row["run"] for row in rows}) == 1


def test_a_file_without_verdicts_records_the_replies_alone(
    call: Callable[..., Any], golden: tuple[Path, Path], tmp_path: Path
) -> None:
    data, verdicts = golden
    rows = [json.loads(line) for line in verdicts.read_text().splitlines()]
    plain = write_jsonl(tmp_path / "plain.jsonl", [{"id": row["id"], "response": row["response"]} for row in rows])
    done = call("import", "audio-multichallenge", "--data", data, "--verdicts", plain, "--model", "m")
    assert done.code == 0 and "holds no verdicts" in done.err
    assert json.loads(call("leaderboard", "--format", "json").out) == []


def test_texts_that_no_database_takes_are_recorded_all_the_same(
    call: Callable[..., Any], tmp_path: Path, postgres_url: str
) -> None:
    data = tmp_path / "data.jsonl"
    row = {"id": "c", "axis": AXES[0], "user_turn_1_transcript": "NUL \0, half \ud83d", "rubric": ["Says \0 \ud83d."]}
    data.write_text(json.dumps(row))
    verdicts = write_jsonl(tmp_path / "v.jsonl", [{"id": "c", "response": "\0 \ud83d", "criteria_met": [True]}])
    done = call(*importing(data, verdicts, "--database", postgres_url, "--format", "json"))
    assert done.code == 0, done.err
    assert json.loads(done.out)[0]["apr"] == 1.0


@pytest.mark.skipif(not SHARED.exists(), reason="the public run's verdicts are not at hand (../shared/data)")
def test_a_public_run_comes_out_at_its_published_figures(call: Callable[..., Any], database_url: str) -> None:
    done = call(
        "import", "audio-multichallenge", "--data", SHARED / "transcripts.jsonl",
        "--verdicts", SHARED / "verdicts_qwen3_omni_instruct.jsonl",
        "--model", "Qwen3-Omni-30B-A3B-Instruct", "--judge-name", "gemma-4-26B", "--database", database_url,
    )  # fmt: skip
    assert done.code == 0, done.err
    (row,) = json.loads(
        call("leaderboard", "audio-multichallenge", "--format", "json", "--database", database_url).out
    )
    assert {"model", "judge", "official", "axes", *FIGURES} <= set(row)
    assert (row["n"], row["criteria"], row["unscored"], row["coverage"]) == (452, 1712, 0, 1.0)
    assert row["apr"] == pytest.approx(0.2588495575, abs=1e-10)
    assert row["ars"] == pytest.approx(0.6466121495, abs=1e-10)
    assert [row["axes"][axis]["passes"] for axis in AXES] == [32, 40, 23, 22]
    assert [round(100 * row["axes"][axis]["ars"], 2) for axis in AXES] == [39.48, 56.85, 67.05, 74.49]
    assert (row["apr_min"], row["apr_max"]) == (row["apr"], row["apr"])
