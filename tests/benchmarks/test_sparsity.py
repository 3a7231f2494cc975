"""The benchmarks of activation sparsity: their rows and limits, at sizes where no time means anything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sparsity
import sparsity_quality
import torch
from report import Report

from vivace_kernels.dense_gemv_cpu import dense_products


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_every_product_has_its_headline_row_and_limit() -> None:
    rows = sparsity.gemv_rows([(64, 96), (96, 64)], sparsity.Size(pairs=6), rotated=0)
    headline = [row for row in rows if row.headline]
    assert [(row.case, row.arm, row.metric) for row in headline] == [
        *((f"gemv-{shape}-{dtype}-50", "r-sparse", "time_s")
          for shape in ("64x96", "96x64") for dtype in ("bfloat16", "float32")),
        ("gemv-50, geometric mean", "r-sparse", "time_s"),
    ]  # fmt: skip
    # Beside the fastest of the dense products, which the row names; a slower one stands beside it.
    dense = {f"dense ({product})" for product in dense_products(torch.float32)}
    assert {row.baseline for row in headline} <= {*dense, "dense (fastest)"}
    assert all(row.baseline != row.arm for row in rows)
    report = Report("sparsity", {}, rows, sparsity.LIMITS)
    assert [report.limit(row) for row in headline] == [1 / 1.25] * 4 + [1 / 1.5]
    assert all(row.floor is not None and 0.4 < row.floor <= 0.5 for row in headline)
    assert {row.arm for row in rows} >= {"r-sparse", "teal"}


def test_half_of_the_weights_are_read() -> None:
    its = sparsity.budget(4096, 11008, sparsity.SPARSITY, sparsity.RATIO)
    assert its.density == pytest.approx(0.5, abs=1e-3) and its.rank > 0
    x = torch.randn(1, its.inputs, generator=torch.Generator().manual_seed(1))
    packed = sparsity._packed(torch.zeros(2, its.inputs), None, its)
    assert float(packed.kept(x).float().mean()) == pytest.approx(its.kept, abs=0.02)


def test_decoding_has_a_row_for_each_type_and_its_traffic_limit() -> None:
    size = sparsity.Size(
        layers=2, hidden=128, intermediate=192, vocabulary=300, rounds=5, decoded=3, calibrated=40
    )  # fmt: skip
    rows = sparsity.decode_rows(size)
    assert [(row.case, row.arm, row.headline) for row in rows] == [
        (f"decode-{dtype}-50", arm, arm == "r-sparse")
        for dtype in ("bfloat16", "float32")
        for arm in ("r-sparse", "teal")
    ]
    report = Report("sparsity", {}, rows, sparsity.LIMITS)
    assert [report.limit(row) for row in rows if row.headline] == [1 / 1.25, 1 / 1.15]
    assert all(row.n == 5 and row.floor is not None and 0.4 < row.floor < 0.9 for row in rows)


def test_quality_is_held_against_teal_at_equal_weights_read() -> None:
    arms = {name: sparsity_quality.ARMS[name] for name in ("r-sparse, uniform", "teal", "cats")}
    size = sparsity_quality.Size(asked=4, calibrated=300, levels=(0.5,), arms=arms)
    levels, left_out = sparsity_quality.measured(size)
    assert set(levels[0.5]) == {"r-sparse, uniform", "teal"}
    assert len(left_out) == 1 and "cats at 50%: cats leaves out weights of up_proj and down_proj alone" in left_out[0]
    for its in levels[0.5].values():
        assert its.sparsity == pytest.approx(0.5, abs=0.04)
        assert len(its.kl) == len(its.right) == 4 and all(kl > 0 for kl in its.kl)
    (row,) = sparsity_quality.rows_of(levels)
    assert (row.case, row.arm, row.baseline) == ("zoo:dense at 50%", "r-sparse, uniform", "teal")
    assert row.low <= row.ratio <= row.high
    for name, its in levels[0.5].items():
        figures = sparsity_quality.figures_of(0.5, name, its)
        assert figures["perplexity"] > 1 and figures["kl"]["low"] <= figures["kl"]["value"] <= figures["kl"]["high"]


def test_a_ratio_of_means_weighs_what_loses_much() -> None:
    ratio = sparsity_quality.mean_ratio([0.0, 0.0, 0.0, 8.0], [1.0, 1.0, 1.0, 1.0])
    assert ratio.value == 2.0 and ratio.low is not None and ratio.low < 2.0


def test_a_foreign_process_is_there_while_it_is_asked_for() -> None:
    with sparsity.foreign_process() as process:
        assert process.poll() is None
    assert process.returncode is not None
