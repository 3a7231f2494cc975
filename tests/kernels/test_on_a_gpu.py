"""The GPU kernels on a GPU, where there is one: real shapes, and graphs that are replayed with other inputs."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from support.packs import random_pack, unit_in_the_last_place
from vivace_kernels.sparsity.packed import Packed, reference

pytest.importorskip("triton")
from vivace_kernels.sparsity.sparse_gemv import sparse_gemv
from vivace_kernels.sparsity.teal_gemv import TILES, teal_gemv, teal_pack, teal_reference

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def on_the_gpu(packed: Packed) -> Packed:
    """A pack with its tensors there."""
    tensors = {name: value for name, value in vars(packed).items() if isinstance(value, torch.Tensor)}
    return dataclasses.replace(packed, **{name: value.cuda() for name, value in tensors.items()})


@pytest.mark.parametrize("tokens", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_graphs_replay_the_sparse_product_with_other_inputs(dtype: torch.dtype, tokens: int) -> None:
    packed = on_the_gpu(random_pack(4096, (4096, 1024, 1000), (51, 0, 20), dtype, biased=(True, False, True)))
    x = torch.randn(tokens, 4096, device="cuda").to(dtype)
    counts = torch.zeros(3, dtype=torch.int32, device="cuda")
    eager = sparse_gemv(x, packed, counts=counts)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = sparse_gemv(x, packed, counts=counts)
    graph.replay()
    assert torch.equal(captured, eager)
    for _ in range(20):
        x.normal_()
        x[0, 5] = 0
        counts.zero_()
        graph.replay()
        exact = reference(x, packed)
        tolerance = {"rtol": unit_in_the_last_place(dtype), "atol": 2e-5}
        torch.testing.assert_close(captured.double(), exact, **tolerance)
        assert counts.tolist() == packed.kept(x).sum((1, 2)).tolist()
        assert torch.equal(captured, sparse_gemv(x, packed))  # bit by bit, however programs were ordered


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_rival_is_right_with_every_tile(dtype: torch.dtype) -> None:
    weights = [torch.randn(outputs, 4096, device="cuda").to(dtype) / 64 for outputs in (4096, 1024, 1024)]
    linears, x = teal_pack(weights, [0.5, 0.7, 0.9]), torch.randn(1, 4096, device="cuda").to(dtype)
    exact = teal_reference(x, linears)
    for tile in TILES:
        error = (teal_gemv(x, linears, tile=tile).double() - exact).abs().max()
        assert error <= (1e-5 if dtype == torch.float32 else 2**-6) * exact.abs().max()
