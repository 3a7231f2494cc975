"""Dense products of one token against float64, and which of them is taken."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from vivace_kernels import dense_gemv_cpu as dense
from vivace_kernels import probing
from vivace_kernels.dense_gemv_cpu import dense_gemv_cpu, dense_products, fastest_product
from vivace_kernels.probing import ENOUGH_SECONDS, ROUNDS, probe_ways

BOUNDS = {torch.float32: 1e-6, torch.bfloat16: 8e-3, torch.float16: 2e-3}
"""Of the largest output: one rounding at the end, and of the bias."""


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (77, 33), (300, 1), (130, 257)])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_product_gives_the_reference(dtype: torch.dtype, inputs: int, outputs: int, threads: int) -> None:
    drawn = torch.Generator().manual_seed(1)
    weight, bias = (
        torch.randn(outputs, inputs, generator=drawn).to(dtype),
        torch.randn(outputs, generator=drawn).to(dtype),
    )
    x = torch.randn(1, inputs, generator=drawn).to(dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for product in dense_products(dtype):
            for added in (None, bias):
                expected = x.double() @ weight.double().T + (0 if added is None else added.double())
                found = dense_gemv_cpu(x, weight, added, product=product)
                assert found.dtype == dtype and found.shape == (1, outputs)
                assert float((found.double() - expected).abs().max()) <= BOUNDS[dtype] * float(expected.abs().max())
    finally:
        torch.set_num_threads(before)


def test_a_product_is_chosen_once_for_weights_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "_chosen", {})
    weights = [torch.randn(40, 30) for _ in range(2)]
    found = fastest_product(weights)
    assert list(found.shares) == dense_products(torch.float32) and found.fastest in found.shares
    assert fastest_product(weights[:1]) is found
    assert fastest_product([torch.randn(30, 40)]) is not found
    assert fastest_product([weights[0].bfloat16()]) is not found


@pytest.mark.parametrize(
    ("seconds", "taken"),
    [
        ([1.0, 0.7, 0.8], "second"),
        ([1.0, 1.4, 2.0], "usual"),
        ([1.0, 0.99, 2.0], "usual"),  # no faster than chance would have it
        ([ENOUGH_SECONDS, 2.0, 0.1], "third"),
    ],
)
def test_the_fastest_way_is_the_one_that_was_measured_to_be(
    monkeypatch: pytest.MonkeyPatch, seconds: list[float], taken: str
) -> None:
    now, calls = [0.0], [0]
    monkeypatch.setattr(probing, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def way(its: float) -> Callable[[int], None]:
        def run(turn: int) -> None:
            calls[0] += 1
            now[0] += its * (40 if turn == 1 else 1)  # a machine that something else has had for a moment

        return run

    found = probe_ways(dict(zip(("usual", "second", "third"), map(way, seconds), strict=True)))
    assert found.fastest == taken
    assert found.shares["second"] == pytest.approx(seconds[1] / seconds[0])
    assert calls[0] in (3 * 4, 3 * (ROUNDS + 1)), "once to warm up, and never for long"
