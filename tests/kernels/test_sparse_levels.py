"""Sparse products over weights of eight bits: how these are rounded, and each kernel beside the float64 reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch

from support.packs import random_pack, unit_in_the_last_place
from support.triton_processes import Assembled, Call, assembled, assert_fed
from vivace_kernels.sparsity.packed import Factors, Packed, pack, reference, whole_product
from vivace_kernels.sparsity.row_gemv_cpu import row_gemv_cpu
from vivace_kernels.sparsity.sparse_gemv_cpu import CpuPath, fastest_path, native_reason, sparse_gemv_cpu

DTYPES = (torch.float32, torch.bfloat16)
BOUNDS = {torch.float32: 2e-6, torch.bfloat16: 2e-2}
"""Of the largest output: what roundings at the end and of low-rank coordinates may come to; where everything is
multiplied, of each weight too."""
SHAPES: Sequence[tuple[int, tuple[int, ...], tuple[int, ...]]] = (
    (77, (33, 130, 1), (5, 0, 1)),
    (1, (1,), (0,)),
    (64, (64,), (64,)),
    (300, (1025, 2049), (17, 0)),
)


def inputs_of(dtype: torch.dtype, tokens: int, inputs: int) -> torch.Tensor:
    return torch.randn(tokens, inputs, generator=torch.Generator().manual_seed(2)).to(dtype)


def paths(dtype: torch.dtype) -> list[CpuPath]:
    return ["masked"] if native_reason(dtype) else ["masked", "native"]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("tokens", [1, 2])
def test_every_path_of_a_processor_gives_the_reference(
    dtype: torch.dtype, shape: tuple[int, tuple[int, ...], tuple[int, ...]], tokens: int
) -> None:
    inputs, outputs, ranks = shape
    packed = random_pack(inputs, outputs, ranks, dtype, biased=[True] * len(outputs), levels=True)
    assert packed.rows.dtype == torch.int8 and packed.dtype == dtype
    x = inputs_of(dtype, tokens, inputs)
    exact = reference(x, packed)
    for path in paths(dtype):
        counts = torch.zeros(len(outputs), dtype=torch.int32)
        found = sparse_gemv_cpu(x, packed, path=path, counts=counts)
        assert found.dtype == dtype
        assert float((found.double() - exact).abs().max()) <= BOUNDS[dtype] * float(exact.abs().max()), path
        assert counts.tolist() == packed.kept(x).sum((1, 2)).tolist()
        assert torch.equal(found, sparse_gemv_cpu(x, packed, path=path)), path
    assert fastest_path(x, packed) in paths(dtype)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_comes_out(value: float) -> None:
    packed = random_pack(60, (20,), (0,), torch.float32, levels=True)
    packed.limits.fill_(0.5)
    x = inputs_of(torch.float32, 2, 60)
    x[0, 40] = value
    for path in paths(torch.float32):
        found = sparse_gemv_cpu(x, packed, path=path)
        assert not found[0].isfinite().any() and found[1].isfinite().all(), path


def dense_weights(outputs: int, inputs: int) -> torch.Tensor:
    """Rows of very different sizes: no scale may be shared between outputs."""
    drawn = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(5))
    return drawn * torch.logspace(-2, 2, outputs).unsqueeze(1)


@pytest.mark.parametrize("rank", [0, 6])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_all_channels_give_the_weights_within_half_a_step(rank: int, size: float) -> None:
    """Whatever the sizes of the two factors, which may be anything as long as their product is right."""
    weight = dense_weights(40, 60)
    up, values, down = torch.linalg.svd(weight, full_matrices=False)
    factors = Factors(up[:, :rank] * values[:rank] * size, down[:rank] / size) if rank else None
    packed = pack([weight], [factors], torch.full((1, 60), -1.0), [None], levels=True)
    (linear,) = packed.linears
    rows, first_factor = packed.weights_of(linear, torch.float64), packed.down_of(linear).double()
    stored = rows[:60].T + rows[60:].T @ first_factor
    step = weight.abs().amax(1, keepdim=True).double() / 127
    assert ((stored - weight.double()).abs() <= 0.6 * step).all()
    if factors is not None:
        low, exact = rows[60:].T @ first_factor, factors.up.double() @ factors.down.double()
        assert float((low - exact).norm() / exact.norm()) < 0.02, "the levels of a low-rank part are too few"
    x = inputs_of(torch.float32, 5, 60)
    assert torch.allclose(whole_product(x, packed).double(), x.double() @ stored.T, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_rows_that_are_wanted(dtype: torch.dtype) -> None:
    drawn = torch.Generator().manual_seed(6)
    levels = torch.randint(-127, 128, (50, 131), generator=drawn, dtype=torch.int8)
    scales, bias = torch.rand(50, generator=drawn), torch.randn(50, generator=drawn).to(dtype)
    x, kept = inputs_of(dtype, 2, 131), torch.rand(2, 50, generator=drawn) < 0.5
    whole = x.double() @ (levels.double() * scales.double().unsqueeze(1)).T + bias.double()
    found = row_gemv_cpu(x, levels, kept, bias, scales)
    assert float((found.double() - torch.where(kept, whole, 0.0)).abs().max()) <= 2e-2 * float(whole.abs().max())
    assert (found[~kept] == 0).all() and found.dtype == dtype
    if dtype == torch.float32:
        every = row_gemv_cpu(x, levels, None, bias, scales)
        assert float((every.double() - whole).abs().max()) <= 2e-6 * float(whole.abs().max())


def test_the_embedding_bag_refuses_levels() -> None:
    packed = random_pack(8, (4,), (0,), torch.float32, levels=True)
    with pytest.raises(ValueError, match="knows no levels"):
        sparse_gemv_cpu(torch.ones(1, 8), packed, path="embedding-bag")


@pytest.mark.parametrize("tokens", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_on_a_gpu_several_layers_are_right(interpreted: Call, dtype: torch.dtype, tokens: int) -> None:
    """More than a tile of outputs, a rank, none, and a bias on some."""
    pytest.importorskip("triton")
    from vivace_kernels.sparsity.sparse_gemv import sparse_gemv

    packed = random_pack(91, (301, 33, 64), (5, 0, 19), dtype, biased=(True, False, True), levels=True)
    x = inputs_of(dtype, tokens, 91)
    counts = torch.zeros(3, dtype=torch.int32)
    found, exact = interpreted(sparse_gemv, x, packed, counts=counts), reference(x, packed)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, rtol=unit_in_the_last_place(dtype), atol=1e-5)
    assert counts.tolist() == packed.kept(x).sum((1, 2)).tolist()


@pytest.mark.parametrize("tokens", [1, 2])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.full)], ids=str
)
def test_for_a_gpu_it_compiles_without_spilling(
    compiling: Call, dtype: torch.dtype, tokens: int, record_property: Callable[[str, object], None]
) -> None:
    pytest.importorskip("triton")
    from vivace_kernels.sparsity.sparse_gemv import sparse_gemv

    packed: Packed = random_pack(64, (256, 48), (16, 0), dtype, biased=(True, True), levels=True)
    multiply: Assembled
    (multiply,) = compiling(assembled, 90, sparse_gemv, torch.ones(tokens, 64, dtype=dtype), packed)
    record_property("measured", f"over eight bits, {dtype}, {tokens} token(s), sm_90: {multiply.sentence}")
    assert multiply.spilled == 0
    assert_fed(multiply)
