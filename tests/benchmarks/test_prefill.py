"""The benchmark of pruned prefill: its rows, bounds and limits, at sizes where no time means anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import prefill
import pytest
import torch
from prefill import Size, Trials
from pruning.bounds import Bounds, Rates
from pruning.contest import Case, Round, limit_of, rows_of

from vivace_methods.models.anatomy import shapes
from vivace_methods.models.cost import cost
from vivace_methods.models.ledger import Pass
from vivace_methods.models.random import random_configuration

pytestmark = pytest.mark.usefixtures("even_rates")
TINY = Size({64: 1, 96: 1}, keeps=(0.25,), layers=4, hidden=64, intermediate=96, heads=4, vocabulary=90)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefill, "FULL", TINY)
    monkeypatch.setattr(prefill, "KEEPS", (0.25,))
    monkeypatch.setattr(prefill, "QUICK", Size({64: 2}, (0.25,), ("claa",), 4, 64, 96, 4, 90))


def test_every_method_stands_beside_its_bound(tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "found.json"
    assert prefill.main(["--json", str(file)]) == 0
    found = json.loads(file.read_text())
    cases = ["64 tokens, keep 25%", "96 tokens, keep 25%"]
    arms = set(prefill.methods_of(TINY, 0.25))
    assert arms >= {"claa", "gemfilter", "spec-prefill", "random", "claa, before attention"} and "oracle" not in arms
    assert {(row["case"], row["arm"]) for row in found["rows"]} == {(case, arm) for case in cases for arm in arms}
    assert all(row["baseline"] == "full" and row["metric"] == "ttft_s" for row in found["rows"])
    assert {row["case"] for row in found["rows"] if row["headline"]} == set(cases)
    assert all(row["headline"] == (row["arm"] == "claa") for row in found["rows"])
    for case in cases:
        its = found["manifest"]["figures"][case]
        # Three of four layers read everything, and so does the prune layer's attention.
        assert 0 < its["claa"]["bound"] < 0.25
        assert its["claa, before attention"]["bound"] > its["claa"]["bound"]
        assert 0 < its["claa"]["scoring_share"] < 1 and its["random"]["scoring_share"] == 0
    said = capsys.readouterr().out
    assert "64 tokens, keep 25%: claa saves" in said and "of it; scoring takes" in said


def test_quick_is_the_headline_alone_and_goes_on_where_it_was_stopped(tiny: None, tmp_path: Path) -> None:
    trials, file = tmp_path / "trials.jsonl", tmp_path / "found.json"
    assert prefill.main(["--quick", "--trials", str(trials), "--json", str(file)]) == 0
    rows = json.loads(file.read_text())["rows"]
    assert [(row["case"], row["arm"], row["n"], row["headline"]) for row in rows] == [
        ("64 tokens, keep 25%", "claa", 2, True)
    ]
    written = trials.read_text().splitlines()
    assert len(written) == 3
    trials.write_text("\n".join(written[:2]) + "\n" + written[2][:50])  # stopped while it wrote
    assert prefill.main(["--quick", "--trials", str(trials)]) == 0
    again = trials.read_text().splitlines()
    assert again[:2] == written[:2] and len(again) == 3


def test_a_part_of_the_cases_may_be_asked_for(tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials, file = tmp_path / "trials.jsonl", tmp_path / "found.json"
    assert prefill.main(["--tokens", "96", "--trials", str(trials), "--json", str(file)]) == 0
    assert {row["case"] for row in json.loads(file.read_text())["rows"]} == {"96 tokens, keep 25%"}
    assert prefill.main(["--trials", str(trials), "--json", str(file)]) == 0
    assert {row["case"] for row in json.loads(file.read_text())["rows"]} == {
        "64 tokens, keep 25%", "96 tokens, keep 25%",
    }  # fmt: skip
    assert len(trials.read_text().splitlines()) == 3
    capsys.readouterr()
    assert prefill.main(["--quick", "--tokens", "64"]) == 1
    assert "leave --tokens and --keep out" in capsys.readouterr().err


def test_trials_of_other_work_are_one_sentence(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = tmp_path / "trials.jsonl"
    Trials(trials, {"other": 1})
    assert prefill.main(["--quick", "--trials", str(trials)]) == 1
    assert "holds rounds of other work" in capsys.readouterr().err


def test_limits_are_nearly_all_of_what_is_possible_and_floors_the_middle() -> None:
    case = Case(64, 0.25)
    rounds = [Round({"full": 2.0, "claa": taken}, {"full": 1.0, "claa": floor}, {}) for taken, floor in
              ((1.2, 0.6), (1.3, 0.5), (1.4, 0.7))]  # fmt: skip
    (row,) = rows_of(case, rounds, {"claa"})
    assert (row.ratio, row.low, row.high, row.floor) == (0.65, 0.6, 0.7, 0.6)
    assert row.headline and row.case == case.name
    assert rows_of(case, rounds, (), apart=True)[0].case == f"{case.name}: claa"
    # Six tenths are left at best, and nine tenths and a half of the other four are to be saved.
    assert limit_of(0.4, 0.95) == pytest.approx(0.62)


def test_bounds_of_equal_rates_are_those_of_all_operations() -> None:
    """Whatever a pass leaves out, and in whichever layer."""
    configuration = random_configuration("meta-llama/Llama-3.1-8B", layers=4)
    its = shapes(configuration)
    rates = Rates([10, 1000], [1e9, 1e9], [1e9, 1e9])
    passes = [
        Pass("read", 1000, 0),
        Pass("read", 1000, 0, layer_tokens=(1000, 1000, 200, 200), prompt=1000),
        Pass(
            "read", 1000, 0, layer_tokens=(1000, 1000, 200, 0), layer_pairs=(500500, 70000, 20100, 0),
            linear_tokens={"layers.1.mlp.up_proj": 200},
        ),
    ]  # fmt: skip
    bounds = Bounds(its, rates)
    for one in passes:
        flops = cost(configuration, [one], torch.float32).flops
        assert bounds.seconds([one]) == pytest.approx(flops / 1e9)
    halved = Bounds(its, Rates([10], [1e9], [5e8]))
    drafted = Bounds(its, rates, halved)
    draft = Pass("draft", 1000, 0, weights=123)
    assert drafted.seconds([*passes, draft]) > bounds.seconds([*passes, passes[0]]) > bounds.seconds([*passes, draft])


def test_rates_lie_between_those_that_were_measured() -> None:
    rates = Rates([100, 200], [1.0, 3.0], [5.0, 7.0])
    assert (rates.products_at(150), rates.attention_at(150)) == (2.0, 6.0)
    assert (rates.products_at(10), rates.attention_at(1000)) == (1.0, 7.0)


def test_scoring_holds_memory_in_proportion_to_the_prompt() -> None:
    """Of a matrix of all tokens by all tokens it would be fourfold, and 16 megabytes a head."""
    size = Size({}, hidden=256, heads=8)
    short, long = (prefill.scoring_bytes(tokens, size) for tokens in (1024, 2048))
    assert 1.8 < long / short < 2.2
    assert long < 2048 * 4 * 8 * 8 * 4  # logits of a window of 8 in all 8 heads, four times over


def test_memory_that_was_freed_counts_once() -> None:
    def twice() -> torch.Tensor:
        torch.ones(1000)
        return torch.ones(2000)

    assert 8000 <= prefill.most_allocated(twice) < 12000
