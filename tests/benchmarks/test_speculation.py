"""The benchmarks of speculation: their rows, limits and counts, at sizes where no time means anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import speculation
import torch
from report import BenchmarkError, Report, estimated
from verifying import passes, quality

from vivace_methods.models import implementations
from vivace_methods.timing import floor
from vivace_methods.timing.floor import FloorProbe
from vivace_methods.timing.ratios import Estimate

TINY = passes.Shape(
    hidden=32, experts=16, chosen=4, width=16, layers=2, context=9, met=13, tokens=(4, 16), budgets=(4, 8)
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def probe() -> FloorProbe:
    return FloorProbe(torch.device("cpu"), dtypes=[torch.float32], reads=(2**16,), sides=(16,))


def test_every_size_and_budget_has_its_row_beside_the_pass_without_a_budget(probe: FloorProbe) -> None:
    timed = passes.timed_passes(TINY, torch.float32, 5, rivals=True, probe=probe)
    rows = passes.rows_of(timed)
    headline = [(row.case, row.arm, row.baseline, row.metric) for row in rows if row.headline]
    assert headline == [
        (f"verify {tokens} tokens, B={budget}", "moe-spec", "eagle3", "pass_s")
        for tokens in (4, 16)
        for budget in (4, 8)
    ]
    assert all(row.n == 5 and row.floor is not None and row.floor > 0 for row in rows)
    beside = {(row.arm, row.baseline) for row in rows if not row.headline}
    assert beside == {
        ("eagle3", "autoregressive"), ("moe-spec", "autoregressive"),
        ("eagle3 (grouped_mm)", "eagle3"), ("eagle3 (eager)", "eagle3"),
    }  # fmt: skip
    told = {(each["tokens"], each["budget"]): each for each in passes.break_even(timed)}
    assert told[1, None]["steps"] == 1 and told[1, None]["experts"] == 4
    assert told[16, None]["experts"] == 13 and told[16, None]["may_lose"] is None
    assert told[4, None]["experts"] == 13 and told[16, 8]["experts"] == 8
    by_case = {row.case: row for row in rows if row.headline}
    assert told[16, 8]["may_lose"] == max(1 - by_case["verify 16 tokens, B=8"].ratio, 0)


def test_limits_are_set_on_sixteen_experts_at_each_size() -> None:
    cases = [f"verify {tokens} tokens, B=16" for tokens in (16, 32, 64)]
    ratio = Estimate(0.5, 0.4, 0.6, 9)
    rows = [estimated(case, "moe-spec", "eagle3", "pass_s", ratio, headline=True) for case in cases]
    report = Report("speculation", {}, rows, speculation.LIMITS)
    assert [report.limit(row) for row in rows] == [1 / 1.3] * 3


def test_passes_are_of_the_tree_and_leave_the_context_as_it_was() -> None:
    """Logits under the mask are those of each path by itself."""
    stack = passes.Stack(TINY, torch.float32)
    assert passes.depths(7) == (0, 1, 1, 2, 2, 2, 2)
    with torch.inference_mode(), stack.kernels(implementations.OWN_EXPERTS):
        stack.read_context()
        before = stack._cache.layers[1].keys.clone()
        stack.timed(passes.Kind(4), stack.draw(4))
        assert torch.equal(stack._cache.layers[1].keys, before)
        stack._told = []
        ids = torch.randint(passes.VOCABULARY, (1, 4), generator=torch.Generator().manual_seed(3))
        tree = stack.model(ids, past_key_values=stack._cache, use_cache=True, **stack._where(4)).logits[0]
        stack._cache.crop(-4)
        path = stack.model(ids[:, [0, 1, 3]], past_key_values=stack._cache, use_cache=True).logits[0]
    torch.testing.assert_close(tree[[0, 1, 3]], path, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> tuple[quality.Found, Path]:
    record = tmp_path_factory.mktemp("speculation") / "answers.jsonl"
    size = quality.Size(asked=2, chains=(2,), trees=(8,), budgets=(4,))
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(floor, "CPU_READS", (2**16,))
        patches.setattr(floor, "CPU_SIDES", (16,))
        patches.setattr(quality, "MOST_TOKENS", 12)
        return quality.measured(size, record), record


def test_every_form_has_its_quality_and_bytes_beside_plain_decoding(answered: tuple[quality.Found, Path]) -> None:
    found, _ = answered
    figures = {row["form"]: row for row in quality.figures_of(found)}
    assert list(figures) == [
        "autoregressive", "chain of 2", "chain of 2, B=4", "tree of 8", "tree of 8, B=4",
    ]  # fmt: skip
    for name in ("chain of 2", "tree of 8"):
        assert figures[name]["agreement"]["value"] == 1 and figures[name]["score_lost"]["value"] == 0
        assert figures[f"{name}, B=4"]["experts"] == 4 < figures[name]["experts"]
        assert figures[f"{name}, B=4"]["bytes"]["value"] < figures[name]["bytes"]["value"]
    assert 1 < figures["chain of 2"]["tau"]["value"] <= 3 < figures["tree of 8"]["tau"]["value"] + 2
    assert any(row["frontier"] for row in figures.values())
    table = quality.honest_table(quality.figures_of(found)).splitlines()
    assert len(table) == 2 + 4 and "beats the best EAGLE-3 (" in table[0]
    assert found.plan is None  # of eight prompts
    rows = quality.rows_of(found)
    assert [(row.case, row.arm, row.baseline) for row in rows[1:3]] == [
        ("zoo:moe, chain of 2, B=4", "moe-spec", "autoregressive"),
        ("zoo:moe, chain of 2, B=4", "moe-spec", "eagle3"),
    ]  # fmt: skip
    assert all(row.metric == "bytes_per_token" and row.n == 8 and not row.headline for row in rows)


def test_a_record_is_gone_on_with(answered: tuple[quality.Found, Path], tmp_path: Path) -> None:
    """Also by a run that was killed while it wrote; and no record of another benchmark is."""
    found, record = answered
    torn = tmp_path / "torn.jsonl"
    torn.write_text(record.read_text()[:-20])
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(quality, "MOST_TOKENS", 12)
        kept, cut = quality.Record(record).answers, quality.Record(torn)
        assert kept == found.answers
        assert sum(map(len, cut.answers.values())) == 5 * 8 - 1
        cut.add("autoregressive", "p", next(iter(kept["autoregressive"].values())))
        assert quality.Record(torn).answers["autoregressive"]["p"] == next(iter(kept["autoregressive"].values()))
    with pytest.raises(BenchmarkError, match="answers to other prompts"):
        quality.Record(record)


def test_passes_and_acceptance_are_joined_at_equal_parts_of_the_experts() -> None:
    figure = {"value": 3.0, "low": 2.5, "high": 3.5}
    figures = [
        {"form": "tree", "tree": True, "tokens": 16, "budget": budget, "tau": figure, "score_lost": figure}
        for budget in (None, 8)
    ]
    passes = [
        {"dtype": "float32", "tokens": tokens, "budget": budget, "steps": 2.0}
        for tokens in (16, 32)
        for budget in (None, 16, 8)
    ]
    found = quality.joined(passes, figures, speculation.SHARES)
    assert [(one["tokens"], one["budget"], one["speed"], one["speed_low"]) for one in found] == [
        (16, None, 1.5, 1.25), (16, 16, 1.5, 1.25),
    ]  # fmt: skip
