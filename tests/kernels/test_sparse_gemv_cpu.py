"""The processor's sparse products against the float64 reference, whichever path they take."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from vivace_kernels import native as native_module
from vivace_kernels.native import native
from vivace_kernels.probing import Probed
from vivace_kernels.sparsity import sparse_gemv_cpu as cpu
from vivace_kernels.sparsity.packed import Factors, Packed, pack, reference
from vivace_kernels.sparsity.row_gemv_cpu import row_gemv_cpu
from vivace_kernels.sparsity.sparse_gemv_cpu import CpuPath, fastest_path, native_reason, sparse_gemv_cpu

BOUNDS = {torch.float32: 1e-6, torch.bfloat16: 8e-3, torch.float16: 2e-3}
"""Of the largest output: what one rounding at the end, and of the low-rank coordinates, may come to."""
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")


def paths(dtype: torch.dtype) -> list[CpuPath]:
    every: list[CpuPath] = ["embedding-bag", "masked", "native"]
    return [path for path in every if path != "native" or native_reason(dtype) is None]


def packed(
    dtype: torch.dtype,
    inputs: int = 77,
    outputs: tuple[int, ...] = (33, 130, 1),
    ranks: tuple[int, ...] = (5, 0, 1),
    limits: torch.Tensor | float = 0.6,
    bias: bool = True,
) -> Packed:
    drawn = torch.Generator().manual_seed(1)
    weights = [torch.randn(width, inputs, generator=drawn).to(dtype) for width in outputs]
    factors = [
        Factors(torch.randn(width, rank, generator=drawn), torch.randn(rank, inputs, generator=drawn) / 8)
        if rank
        else None
        for width, rank in zip(outputs, ranks, strict=True)
    ]
    biases = [torch.randn(width, generator=drawn).to(dtype) if bias else None for width in outputs]
    if not isinstance(limits, torch.Tensor):
        limits = torch.full((len(outputs), inputs), limits)
    return pack(weights, factors, limits, biases)


def inputs_of(dtype: torch.dtype, tokens: int, inputs: int = 77) -> torch.Tensor:
    return torch.randn(tokens, inputs, generator=torch.Generator().manual_seed(2)).to(dtype)


def assert_close(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    assert found.dtype == dtype and found.shape == expected.shape
    assert float((found.double() - expected).abs().max()) <= BOUNDS[dtype] * float(expected.abs().max())


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("tokens", [1, 2])
def test_every_path_gives_the_reference(dtype: torch.dtype, tokens: int) -> None:
    drawn = torch.rand(3, 77, generator=torch.Generator().manual_seed(3))
    given = packed(dtype, limits=drawn)
    x = inputs_of(dtype, tokens)
    for path in paths(dtype):
        counts = torch.zeros(3, dtype=torch.int32)
        assert_close(sparse_gemv_cpu(x, given, path=path, counts=counts), reference(x, given), dtype)
        assert counts.tolist() == given.kept(x).sum((1, 2)).tolist()
        again = sparse_gemv_cpu(x, given, path=path)
        assert torch.equal(again, sparse_gemv_cpu(x, given, path=path)), path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("inputs", "outputs", "ranks", "limit"),
    [
        (1, (1,), (0,), -1.0),
        (7, (3, 5), (0, 0), 1e9),  # nothing is kept, and there is no low-rank part: the bias alone
        (64, (64,), (64,), 1e9),  # everything goes through a full-rank part
        (64, (64,), (64,), -1.0),
        (300, (1025, 2049), (17, 0), 0.3),  # several blocks of columns, none of them whole
        (2000, (40,), (3,), 0.5),
    ],
)
def test_odd_shapes(
    dtype: torch.dtype, inputs: int, outputs: tuple[int, ...], ranks: tuple[int, ...], limit: float
) -> None:
    given = packed(dtype, inputs, outputs, ranks, limit)
    for tokens in (1, 2):
        x = inputs_of(dtype, tokens, inputs)
        for path in paths(dtype):
            assert_close(sparse_gemv_cpu(x, given, path=path), reference(x, given), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_comes_out(dtype: torch.dtype, value: float) -> None:
    given = packed(dtype, ranks=(0, 0, 0), limits=0.6)
    x = inputs_of(dtype, 2)
    x[0, 40] = value
    expected = reference(x, given)
    assert not expected[0].isfinite().any()
    for path in paths(dtype):
        found = sparse_gemv_cpu(x, given, path=path)
        assert not found[0].isfinite().any(), path
        assert_close(found[1:], expected[1:], dtype)  # the other token has nothing to do with it


def test_full_rank_is_dense_at_any_mask() -> None:
    drawn = torch.Generator().manual_seed(5)
    weight = torch.randn(40, 60, generator=drawn)
    up, values, down = torch.linalg.svd(weight, full_matrices=False)
    factors = Factors(up * values, down)
    x = torch.randn(1, 60, generator=drawn)
    for limit in (-1.0, 0.5, 1e9):
        found = sparse_gemv_cpu(x, pack([weight], [factors], torch.full((1, 60), limit), [None]))
        assert float((found - x @ weight.T).abs().max()) < 1e-4 * float((x @ weight.T).abs().max())


@NEEDS_COMPILER
@pytest.mark.parametrize("fastest", ["native", "embedding-bag", "masked"])
def test_the_compiled_path_is_taken_where_there_is_a_compiler(
    monkeypatch: pytest.MonkeyPatch, fastest: CpuPath
) -> None:
    """And where it is the fastest: each path is tried once for shapes like these, and none is taken untried."""
    tried: list[list[str]] = []

    def probe(ways: Mapping[str, Callable[[int], object]]) -> Probed:
        tried.append(list(ways))
        for way in ways.values():
            way(0)
        return Probed(fastest, {})

    monkeypatch.setattr(cpu, "probe_ways", probe)
    monkeypatch.setattr(cpu, "_chosen", {})
    for dtype in (torch.float32, torch.bfloat16):
        assert native_reason(dtype) is None
        assert [fastest_path(inputs_of(dtype, 1), packed(dtype)) for _ in range(2)] == [fastest, fastest]
    assert fastest_path(inputs_of(torch.float32, 3), packed(torch.float32)) == "masked"
    assert tried == [["native", "embedding-bag", "masked"]] * 2


@NEEDS_COMPILER
def test_more_threads_than_blocks_give_the_same_bits() -> None:
    given, x = packed(torch.float32, 300, (1025, 5), (9, 0)), inputs_of(torch.float32, 1, 300)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            found.append(sparse_gemv_cpu(x, given, path="native"))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_without_a_compiler_another_path_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    native.cache_clear()
    cpu._chosen.clear()
    try:
        assert "install g++" in str(native_reason(torch.float32))
        x, given = inputs_of(torch.float32, 1), packed(torch.float32)
        assert fastest_path(x, given) in ("embedding-bag", "masked")
        assert len(cpu._chosen) == 1
        assert_close(sparse_gemv_cpu(x, given), reference(x, given), torch.float32)
        with pytest.raises(ValueError, match="install g\\+\\+"):
            sparse_gemv_cpu(x, given, path="native")
    finally:
        native.cache_clear()
        cpu._chosen.clear()


@NEEDS_COMPILER
def test_it_is_compiled_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.cache_clear()
    try:
        assert native(cpu.SOURCE).library is not None
        (kept,) = (tmp_path / "vivace" / "kernels").iterdir()
        native.cache_clear()
        with monkeypatch.context() as watched:
            watched.setattr(native_module, "_compile", lambda *arguments: pytest.fail("compiled again"))
            assert native(cpu.SOURCE).library is not None
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
        damaged = tmp_path / "other" / "vivace" / "kernels" / kept.name
        damaged.parent.mkdir(parents=True)
        damaged.write_bytes(b"no library")
        native.cache_clear()
        assert native(cpu.SOURCE).library is not None
        assert damaged.read_bytes() != b"no library"
    finally:
        native.cache_clear()


@NEEDS_COMPILER
def test_a_source_that_does_not_compile_is_a_reason(tmp_path: Path) -> None:
    broken = tmp_path / "broken.cpp"
    broken.write_text("int f( {")
    found = native(broken)
    assert found.library is None and "failed" in found.reason


def test_inputs_that_do_not_fit_are_refused() -> None:
    given = packed(torch.float32)
    for x in (torch.zeros(1, 76), torch.zeros(77), torch.zeros(1, 77, dtype=torch.bfloat16)):
        with pytest.raises(ValueError, match="the layers read"):
            sparse_gemv_cpu(x, given)
    with pytest.raises(ValueError, match="up to 2 tokens"):
        sparse_gemv_cpu(torch.zeros(3, 77), given, path="embedding-bag")


@pytest.mark.parametrize("dtype", BOUNDS)
def test_rows_that_are_wanted(dtype: torch.dtype) -> None:
    drawn = torch.Generator().manual_seed(6)
    weight, bias = torch.randn(50, 77, generator=drawn).to(dtype), torch.randn(50, generator=drawn).to(dtype)
    x, kept = inputs_of(dtype, 2), torch.rand(2, 50, generator=drawn) < 0.5
    whole = x.double() @ weight.double().T
    for added in (None, bias):
        expected = torch.where(kept, whole if added is None else whole + added.double(), 0.0)
        assert_close(row_gemv_cpu(x, weight, kept, added), expected, dtype)
        assert_close(row_gemv_cpu(x, weight, None, added), whole if added is None else whole + added.double(), dtype)
    assert (row_gemv_cpu(x, weight, kept, bias)[~kept] == 0).all()


@NEEDS_COMPILER
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_is_summed_alike_beside_others_and_alone(dtype: torch.dtype) -> None:
    drawn = torch.Generator().manual_seed(7)
    weight, x = torch.randn(61, 131, generator=drawn).to(dtype), inputs_of(dtype, 1, 131)
    whole = row_gemv_cpu(x, weight, None, None)
    for output in (0, 7, 8, 60):
        alone = torch.zeros(1, 61, dtype=torch.bool)
        alone[0, output] = True
        assert row_gemv_cpu(x, weight, alone, None)[0, output] == whole[0, output]
    weight[9, 3] = torch.nan
    found = row_gemv_cpu(x, weight, None, None)
    assert found[0].isnan().nonzero().tolist() == [[9]], (
        "what is no number stays in its row, odd and even places alike"
    )
