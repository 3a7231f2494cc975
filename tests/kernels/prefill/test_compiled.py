"""The kernels of prefill, compiled for a GPU without one: nothing spills, and matrix units get half precision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from support.triton_processes import Assembled, Call, assembled
from vivace_kernels.prefill.window_scores import Scoring

pytest.importorskip("triton")
from vivace_kernels.prefill.kept_attention_gpu import kept_attention_gpu
from vivace_kernels.prefill.window_scores_gpu import window_scores_gpu

DTYPES = (torch.float32, torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.full))
CAPABILITIES = (pytest.param(80, marks=pytest.mark.full), 90)


def assert_sound(
    each: Assembled, multiplies: bool, dtype: torch.dtype, record_property: Callable[[str, object], None]
) -> None:
    """Nothing spills; half precision is multiplied by matrix units, and float32 as it is."""
    record_property("measured", f"{dtype}: {each.sentence}")
    assert each.spilled == 0
    by_matrices = any(word in each.instructions for word in ("mma.sync", "wgmma"))
    assert by_matrices == (multiplies and dtype != torch.float32)
    assert "tf32" not in each.instructions


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_window_scores_compile_without_spilling(
    compiling: Call, dtype: torch.dtype, capability: int, record_property: Callable[[str, object], None]
) -> None:
    """Of a window of 8 in Llama-3.1-8B, and of 32 whose heads are kept apart."""
    keys = torch.ones(2, 5000, 128, dtype=dtype)
    for window, scoring in ((8, Scoring()), (32, Scoring(heads="max"))):
        queries = torch.ones(8, window, 128, dtype=dtype)
        kernels = compiling(assembled, capability, window_scores_gpu, queries, keys, scoring)
        assert [each.name for each in kernels] == ["_sum", "_attend", "_join"]
        for each in kernels:
            assert_sound(each, each.name != "_join", dtype, record_property)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [pytest.param(64, marks=pytest.mark.full), 128])
def test_attention_of_kept_queries_compiles_without_spilling(
    compiling: Call, size: int, dtype: torch.dtype, capability: int, record_property: Callable[[str, object], None]
) -> None:
    queries, keys = torch.ones(8, 512, size, dtype=dtype), torch.ones(2, 4096, size, dtype=dtype)
    (kernel,) = compiling(assembled, capability, kept_attention_gpu, queries, keys, keys, torch.arange(512))
    assert_sound(kernel, True, dtype, record_property)
